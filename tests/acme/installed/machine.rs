//! A Debian 12 that is booted by its own systemd in the test's network namespace.
//!
//! What systemd-nspawn does not enforce, and so is not shown here: MemoryMax=, TasksMax= and CPUQuota=
//! (accepted, without effect, where the machine has no whole cgroup v2 tree). Everything else of the
//! unit is in force: the account, capabilities, system call filters, mounts, the watchdog, landlock.

use std::any::type_name_of_val;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Output, Process, TempDir, ip, run, wait_for};

/// Set in the process that is inside.
const INSIDE: &str = "ACMEGATE_TEST_MACHINE";
/// What the whole test may take; a minute is what it takes.
const LIMIT: Duration = Duration::from_secs(300);
/// What making the root may take: packages come from a mirror.
const ROOT: Duration = Duration::from_secs(600);
/// What a boot, and what one command may take on a busy machine.
const BOOT: Duration = Duration::from_secs(60);
const TOOL: Duration = Duration::from_secs(120);
/// Mounts that are gone with the namespace: where the test's directories are, and what nspawn keeps of machines.
const ON_ITS_OWN_DISK: &str =
    r#"mount -t tmpfs tmpfs "$TMPDIR" && mount -t tmpfs tmpfs /run && exec "$@""#;

/// Runs a test's body as the first process of fresh process, network and mount namespaces, by starting the
/// test again there, by its own path: the body must be a closure that is written directly in the test
/// function. Whatever it started ends with it, booted machines too.
///
/// It takes the host's root, for device nodes and cgroups. Anybody else passes by, which CI must not.
pub fn inside_as_root<Body: FnOnce()>(body: Body) {
    let path = type_name_of_val(&body);
    let path = path.split("::{{closure}}").next().unwrap_or(path);
    let (_, name) = path.split_once("::").expect("a crate and a path");
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return body();
    }
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = ids.split_whitespace().eq(["0", "0", "4294967295"]);
    if !(rustix::process::geteuid().is_root() && is_whole) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run this test as root"
        );
        eprintln!("{name}: only root boots a machine");
        return;
    }
    make_root();
    let directory = TempDir::new();
    let mut command = Command::new("unshare");
    command
        .args(["-nmpf", "--mount-proc", "--kill-child", "--"])
        .args(["sh", "-c", ON_ITS_OWN_DISK, "sh"])
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("TMPDIR", directory.path())
        .env(INSIDE, "1");
    let output = run(command, LIMIT);
    assert!(output.code == 0, "inside the namespaces: {output}");
    assert!(
        output.stdout.contains("1 passed"),
        "no test is called {name}: {output}"
    );
}

/// Makes the root if it was never made. Inside there is no way to a mirror.
fn make_root() {
    let mut command = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/acme/installed/debian-root"
    ));
    command.arg(base());
    run(command, ROOT).success();
}

/// Where it is kept.
fn base() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-12")
}

/// What every command finds in its environment.
const ENVIRONMENT: [&str; 6] = [
    "env",
    "-i",
    "LC_ALL=C.UTF-8",
    "HOME=/root",
    "DEBIAN_FRONTEND=noninteractive",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
];

/// A bare Debian, which nothing has booted. What is written there is kept in memory, and is gone with the test.
pub struct Root {
    path: PathBuf,
    _directory: TempDir,
}

impl Root {
    /// Lays an empty layer over what [`make_root`] made.
    pub fn new() -> Self {
        let directory = TempDir::new();
        for name in ["upper", "work", "root"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory");
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            base().display(),
            directory.at("upper"),
            directory.at("work")
        );
        let path = directory.path().join("root");
        let mut command = Command::new("mount");
        command.args(["-t", "overlay", "overlay", "-o", &layers]);
        command.arg(&path);
        run(command, TOOL).success();
        Self {
            path,
            _directory: directory,
        }
    }

    /// Runs a command in it, as root and without any service manager.
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("chroot");
        command.arg(&self.path).args(ENVIRONMENT).args(words);
        run(command, TOOL)
    }

    /// Runs a command in it that must succeed; gives its standard output.
    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        self.run(words).success().stdout
    }

    /// Where one of its files is.
    pub fn at(&self, place: &str) -> PathBuf {
        self.path.join(place.trim_start_matches('/'))
    }

    /// Copies one of our files into it.
    pub fn copy(&self, from: &Path, place: &str) {
        fs::copy(from, self.at(place)).expect("into the root");
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--recursive").arg(&self.path);
        run(command, TOOL);
    }
}

/// The machine. What it writes is kept from boot to boot.
pub struct Machine {
    root: Root,
    running: Option<Running>,
    /// One machine at a time: they would share a cgroup.
    _turn: File,
}

struct Running {
    nspawn: Process,
    /// Its first process, as we see it.
    leader: u32,
}

impl Machine {
    /// Boots it.
    pub fn boot() -> Self {
        let turn = File::create(base().with_extension("turn")).expect("a file beside the root");
        turn.lock().expect("our turn");
        let mut machine = Self {
            root: Root::new(),
            running: None,
            _turn: turn,
        };
        machine.start();
        machine
    }

    /// Boots it again.
    pub fn start(&mut self) {
        let mut command = Command::new("systemd-nspawn");
        command
            .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
            .args(["--console=pipe", "--capability=CAP_NET_ADMIN"])
            // nspawn's own filter of system calls is older than landlock.
            .arg("--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self")
            .arg(format!("--network-namespace-path=/proc/{}/ns/net", std::process::id()))
            .arg("--directory")
            .arg(&self.root.path);
        let nspawn = Process::spawn(command);
        let children = format!("/proc/{0}/task/{0}/children", nspawn.pid());
        self.running = Some(Running { nspawn, leader: 0 });
        wait_for(BOOT, "the machine has booted, whole", || {
            // The first child makes the first process and ends.
            let children = fs::read_to_string(&children).ok()?;
            let leader = children.split_whitespace().next()?.parse().ok()?;
            self.running.as_mut()?.leader = leader;
            let state = self.command(&["systemctl", "is-system-running"]);
            (run(state, TOOL).stdout.trim() == "running").then_some(())
        });
    }

    /// Powers it off in order.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.nspawn.signal(Signal::TERM);
            running.nspawn.wait(BOOT);
        }
    }

    /// Runs a command in it, as root.
    pub fn run(&self, words: &[&str]) -> Output {
        run(self.command(words), TOOL)
    }

    /// Runs a command in it that must succeed; gives its standard output.
    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        self.run(words).success().stdout
    }

    /// A command that will run in it.
    pub fn command(&self, words: &[&str]) -> Command {
        let leader = self.running.as_ref().expect("it is booted").leader;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={leader}"))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .arg("--")
            .args(ENVIRONMENT)
            .args(words);
        command
    }

    /// Writes a file in it, and the directories that lead there.
    pub fn write(&self, place: &str, content: &str) {
        let script = r#"mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1""#;
        self.does(&["sh", "-c", script, "sh", place, content]);
    }

    /// Copies one of our files into it.
    pub fn copy(&self, from: &Path, place: &str) {
        self.root.copy(from, place);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}
