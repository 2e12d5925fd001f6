//! Programs: run to their end within a deadline, or started and ended by pid.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{TempDir, pause, wait_for};

/// How long a killed process may take until it is gone.
const REAP: Duration = Duration::from_secs(5);

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; 128 and the signal if one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Panics unless it exited 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// Both streams, for a search.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs a command to its end; one that takes longer than `limit` is killed, and that is a panic.
#[track_caller]
pub fn run(mut command: Command, limit: Duration) -> Output {
    command.stdin(Stdio::null());
    let mut process = Process::spawn(command);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        if start.elapsed() > limit {
            let (said, errors) = (process.stdout(), process.stderr());
            panic!(
                "{} takes longer than {limit:?}:\n{said}\n{errors}",
                process.name
            );
        }
        pause();
    };
    Output {
        code: code_of(status),
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A started program. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    said: TempDir,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command; what it says goes to files. It dies with the thread that starts it.
    #[track_caller]
    pub fn spawn(command: Command) -> Self {
        let said = TempDir::new();
        let file = |name: &str| fs::File::create(said.path().join(name)).expect("a new file");
        let name = command.get_program().to_string_lossy().into_owned();
        let mut bound = bound_to_us(&command);
        bound.stdout(file("stdout")).stderr(file("stderr"));
        let child = bound
            .spawn()
            .unwrap_or_else(|error| panic!("setpriv (Debian package util-linux): {error}"));
        Self {
            child,
            name,
            said,
            status: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our own child");
        }
        self.status
    }

    /// Waits until it ended by itself, and gives its exit code.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let what = format!("{} ends", self.name);
        code_of(wait_for(limit, &what, || self.ended()))
    }

    /// Sends it a signal; one that ended already gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            send(self.pid(), signal);
        }
    }

    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let said = fs::read(self.said.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(Signal::KILL);
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < REAP {
            pause();
        }
    }
}

/// Sends a signal to a process that this test started; one that is gone already gets none.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a pid"), signal);
}

/// The same command, ended by the kernel when we end in whatever way.
fn bound_to_us(command: &Command) -> Command {
    let program = find(&command.get_program().to_string_lossy());
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(program);
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        bound.current_dir(directory);
    }
    bound.stdin(Stdio::null());
    bound
}

/// Where a program is; a missing one fails the test with the name of its package.
#[track_caller]
pub fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return PathBuf::from(program);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|directory| PathBuf::from(directory).join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{program} is missing: install the Debian package {}",
                package_of(program)
            )
        })
}

/// The Debian package that has a program.
fn package_of(program: &str) -> &str {
    match program {
        "nft" => "nftables",
        "ip" => "iproute2",
        "unshare" | "nsenter" | "setpriv" => "util-linux",
        "pebble-challtestsrv" => "pebble",
        "apache2" => "apache2-bin",
        "promtool" => "prometheus",
        "capsh" => "libcap2-bin",
        "firewall-cmd" => "firewalld",
        "knotd" | "keymgr" => "knot",
        "kzonesign" => "knot-dnssecutils",
        name if name.starts_with("iptables-") || name.starts_with("ip6tables-") => "iptables",
        other => other,
    }
}

/// What stands between a process and the system's clock.
pub fn faketime_library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|library| library.is_file())
        .unwrap_or_else(|| panic!("libfaketime is missing: install the Debian package faketime"))
}
