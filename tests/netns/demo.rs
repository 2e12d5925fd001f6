//! The demo keeps its promises, and notices when one is not kept: it is sabotaged from beside.
//!
//! `nft` and `nsenter` are the saboteur's tools; the demo itself needs no program at all, and the
//! first test takes them away from it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far above what the demo takes, on any machine that tests run on.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_demo_keeps_its_promises_with_no_program_but_itself() {
    let began = Instant::now();
    let mut command = demo();
    command.env("PATH", "/nonexistent").env("LC_ALL", "C.UTF-8");
    let output = command.output().unwrap();
    assert_kept(&output);
    // The README shows such a run, with times and process ids of its own.
    let readme = include_str!("../../README.md");
    let (_, shown) = readme
        .split_once("$ cargo run --release -- demo\n")
        .unwrap();
    let shown = shown.split("\n```").next().unwrap();
    assert_eq!(
        without_numbers(shown),
        without_numbers(String::from_utf8_lossy(&output.stdout).trim_end())
    );
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_pause_alone_breaks_nothing() {
    for step in [1, 3] {
        assert_kept(&sabotaged(step, |_| {}));
    }
}

/// The enforcer puts a deleted element back at once, so it is frozen first.
#[test]
fn a_deleted_window_is_noticed_by_the_perspectives() {
    let output = sabotaged(3, |demo| {
        for enforcer in children_of(demo).into_iter().flat_map(children_of) {
            kill_process(enforcer, Signal::STOP).unwrap();
        }
        nft(demo, "delete element inet filter acmegate { 80 }");
    });
    assert_broken(&output, "demo: step 4 (six perspectives validate): ");
}

#[test]
fn a_firewall_that_lets_everybody_in_is_noticed_before_the_window() {
    let output = sabotaged(1, |demo| nft(demo, LET_ALL_IN));
    assert_broken(&output, "demo: step 2 (shut): ");
}

#[test]
fn a_firewall_that_lets_everybody_in_is_noticed_after_close() {
    let output = sabotaged(5, |demo| nft(demo, LET_ALL_IN));
    assert_broken(&output, "demo: step 6 (a hook closes): ");
}

#[test]
fn a_window_that_outlives_its_time_is_noticed() {
    let output = sabotaged(6, |demo| nft(demo, LET_ALL_IN));
    assert_broken(&output, "demo: step 7 (killed, and still it closes): ");
}

#[test]
fn a_gate_that_answers_everything_is_noticed_by_the_visitors() {
    let gate = GateProgram::new();
    let output = demo().arg("--gate").arg(&gate.0).output().unwrap();
    assert_broken(&output, "demo: step 5 (visitors get no further): ");
}

#[test]
fn a_gate_that_does_not_start_is_named() {
    let output = demo().args(["--gate", "/bin/false"]).output().unwrap();
    assert_broken(&output, "demo: step 1 (the gate starts): ");
}

#[test]
fn a_signal_ends_the_demo_and_everything_it_started() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::HUP, 1), (Signal::INT, 2)] {
        let scratch = Scratch::new();
        let mut child = demo()
            .env("TMPDIR", &scratch.0)
            .args(["--pause-after", "3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        wait_for_pause(child.stderr.take().unwrap());
        let started = children_of(pid);
        assert!(!started.is_empty(), "the gate runs");
        kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + number), "{status}");
        for process in started {
            assert!(
                !PathBuf::from(format!("/proc/{process}")).exists(),
                "{process}"
            );
        }
        assert_eq!(
            fs::read_dir(&scratch.0).unwrap().count(),
            0,
            "temporary files"
        );
    }
}

#[test]
fn where_namespaces_are_refused_it_says_how_to_allow_them() {
    // In a user namespace that maps nobody, one more cannot be made (user_namespaces(7)).
    let output = tool("unshare", "util-linux")
        .args(["--user", env!("CARGO_BIN_EXE_acmegate"), "demo"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("refuses namespaces"), "{said}");
    assert!(said.contains("as root"), "{said}");
}

const LET_ALL_IN: &str = "insert rule inet filter input tcp dport 80 accept";

/// What is the same in every run.
fn without_numbers(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split(" answered in ").next().unwrap())
        .map(|line| line.chars().filter(|c| !c.is_ascii_digit()).collect())
        .collect()
}

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acmegate"));
    command.arg("demo");
    command
}

fn assert_kept(output: &Output) {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains('✗'), "{said}");
}

fn assert_broken(output: &Output, step: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let named = String::from_utf8_lossy(&output.stderr)
        .lines()
        .any(|line| line.starts_with(step));
    assert!(named, "{said}");
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
}

/// Runs the demo, and the sabotage while it pauses after `step`.
fn sabotaged(step: u8, sabotage: impl FnOnce(Pid)) -> Output {
    let mut child = demo()
        .args(["--pause-after", &step.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let rest = wait_for_pause(child.stderr.take().unwrap());
    sabotage(Pid::from_child(&child));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = rest.recv_timeout(DEADLINE).unwrap();
    output
}

/// Changes the firewall of a demo's edge. The demo's process stands in it.
fn nft(demo: Pid, command: &str) {
    let pid = demo.to_string();
    let sabotage = tool("nsenter", "util-linux")
        .args(["-t", &pid, "-U", "-n", "--preserve-credentials"])
        .arg(path_of("nft", "nftables"))
        .arg(command)
        .output()
        .unwrap();
    assert!(sabotage.status.success(), "nftables: {}", said(&sabotage));
}

/// Returns when the demo says that it paused; what it says on standard error afterwards comes
/// through the channel.
fn wait_for_pause(stderr: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (paused, pause) = mpsc::channel();
    let (send, rest) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut line = String::new();
        while !line.contains("paused after step") {
            line.clear();
            if reader.read_line(&mut line).unwrap() == 0 {
                return;
            }
        }
        paused.send(()).unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let _ = send.send(bytes);
    });
    pause.recv_timeout(DEADLINE).expect("the demo pauses");
    rest
}

fn tool(program: &str, package: &str) -> Command {
    Command::new(path_of(program, package))
}

/// Users often have no `/usr/sbin` in their PATH, and `nft` lives there.
fn path_of(program: &str, package: &str) -> PathBuf {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("this test needs `{program}`: apt-get install {package}"))
}

fn children_of(parent: Pid) -> Vec<Pid> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let after_name = stat.rsplit_once(')')?.1;
            let found = after_name.split_whitespace().nth(1)? == parent.to_string();
            let pid = entry.file_name().to_str()?.parse().ok()?;
            found.then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let thread = format!("{:?}", thread::current().id());
        let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
        let name = format!("acmegate-test-{}-{digits}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that the demo takes for the gate: a script that runs one test of this very file.
struct GateProgram(
    PathBuf,
    #[expect(dead_code, reason = "it holds the file")] Scratch,
);

const GATE_ARGUMENTS: &str = "ACMEGATE_TEST_GATE_ARGUMENTS";

impl GateProgram {
    fn new() -> Self {
        let scratch = Scratch::new();
        let path = scratch.0.join("gate");
        let tests = env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n{GATE_ARGUMENTS}=\"$*\" exec '{}' --exact --nocapture \
             demo::the_gate_that_answers_everything\n",
            tests.display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path, scratch)
    }
}

/// The sabotaged gate. Windows, leases and the control socket are the real acmegate's, which here
/// listens on nothing; port 80 belongs to a server that has a right answer to every challenge, and
/// 200 for everything else. Only `GateProgram` gives it arguments; as a test it has nothing to do.
#[test]
fn the_gate_that_answers_everything() {
    let Ok(arguments) = env::var(GATE_ARGUMENTS) else {
        return;
    };
    let mut words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    let file = 1 + words.iter().position(|word| word == "--config").unwrap();
    let configuration = fs::read_to_string(&words[file]).unwrap();
    let deaf = configuration
        .replace(r#"listen = ["[::]:80"]"#, "listen = []")
        .replace("[firewall]", "[firewall]\nports = [80]");
    assert_eq!(
        deaf.matches("= []\n").count() + deaf.matches("ports").count(),
        2
    );
    words[file] += ".deaf";
    fs::write(&words[file], deaf).unwrap();

    let listener = TcpListener::bind("[::]:80").unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer_everything(stream.unwrap());
        }
    });
    let status = Command::new(env!("CARGO_BIN_EXE_acmegate"))
        .args(&words)
        .process_group(0)
        .status()
        .unwrap();
    panic!("the real gate ended: {status}");
}

fn answer_everything(mut stream: TcpStream) -> std::io::Result<()> {
    const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut line)?;
    let mut field = line.clone();
    while !field.trim_end().is_empty() {
        field.clear();
        reader.read_line(&mut field)?;
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    let body = match path.strip_prefix("/.well-known/acme-challenge/") {
        Some(token) => format!("{token}.{THUMBPRINT}"),
        None => "welcome".to_owned(),
    };
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}")
}
