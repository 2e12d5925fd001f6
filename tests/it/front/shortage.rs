//! A process that runs out of descriptors waits, says so once, and goes on.
//!
//! The front runs in a child process with a small limit; its peers are out here.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{PATIENCE, Plan, TOKEN, World, validation};

const CHILD: &str = "ACMEGATE_TEST_SHORTAGE_CHILD";
const DESCRIPTORS: u64 = 40;

/// Not a test by itself: what the child runs.
#[tokio::test]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut limit: Rlimit = getrlimit(Resource::Nofile);
    limit.current = Some(DESCRIPTORS);
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut world = World::start(Plan::default());
    eprintln!("address {}", world.address);
    // Serves until the parent ends it.
    (&mut world.server).await.unwrap().unwrap();
}

struct Served {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "front::shortage::child", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::default();
        let stderr: ChildStderr = child.stderr.take().unwrap();
        let kept: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    fn count(&self, text: &str) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    fn wait_for<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&self.lines.lock().unwrap()) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", self.lines);
            std::thread::yield_now();
        }
    }

    /// Processor time so far, in clock ticks of a hundredth of a second (proc_pid_stat(5)).
    fn ticks(&self) -> u64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<_> = fields.split_whitespace().collect();
        // Fields 14 and 15, counted from 3 behind the name.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(validation("example.com", TOKEN).as_bytes())?;
    std::io::read_to_string(&mut stream)
}

#[test]
fn a_shortage_of_descriptors_is_waited_for_and_told_once() {
    let served = Served::start();
    let address: SocketAddr = served.wait_for("no address", |lines| {
        let line = lines
            .iter()
            .find_map(|line| line.split("address ").nth(1))?;
        line.parse().ok()
    });
    assert!(ask(address).unwrap().starts_with("HTTP/1.1 200"));

    let idle: Vec<_> = (0..DESCRIPTORS + 10)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    served.wait_for("no shortage", |lines| {
        lines
            .iter()
            .any(|line| line.contains("cannot accept"))
            .then_some(())
    });
    // For a while nothing can be accepted.
    let (before, begun) = (served.ticks(), Instant::now());
    while begun.elapsed() < Duration::from_millis(1500) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let used = served.ticks() - before;
    // A waiting process uses none; a spinning one gets its share even on a busy machine.
    assert!(used < 8, "{used} hundredths of a second in 150");

    drop(idle);
    assert!(ask(address).unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(served.count("cannot accept"), 1, "{:?}", served.lines);
    served.wait_for("not over", |lines| {
        lines
            .iter()
            .any(|line| line.contains("accepted again"))
            .then_some(())
    });
}
