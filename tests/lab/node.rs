//! Network namespaces: a test's own host, and others that it is cabled to.

use std::any::type_name_of_val;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::TempDir;
use super::process::{Output, find, run};

/// Set in the process that is inside.
const INSIDE: &str = "ACMEGATE_TEST_INSIDE";
/// Mounts what is forgotten with the namespace on $TMPDIR, and goes on as the given command.
const ON_ITS_OWN_DISK: &str = r#"mount -t tmpfs tmpfs "$TMPDIR" && exec "$@""#;
/// What one test may take; far more than any needs.
const LIMIT: Duration = Duration::from_secs(180);
/// What a tool may take.
const TOOL: Duration = Duration::from_secs(60);

/// Runs a test's body in fresh user, network and mount namespaces, where it is root.
///
/// The test is started again there, by its own path: the body must be a closure that is written
/// directly in the test function, for that is where the path comes from. The process inside is
/// the first host; [`Node::new`] makes more.
pub fn inside<Body: FnOnce()>(body: Body) {
    inside_within(LIMIT, body);
}

/// The same for a test that may take longer. What it prints is printed once it is done.
pub fn inside_within<Body: FnOnce()>(limit: Duration, body: Body) {
    let name = path_of(type_name_of_val(&body));
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == *name) {
        ip("link set lo up");
        return body();
    }
    // Where the test's directories are goes with its mounts, however it ends.
    let directory = TempDir::new();
    let mut command = Command::new("unshare");
    command
        .args(["-Urnm", "--kill-child", "--"])
        .args(["sh", "-c", ON_ITS_OWN_DISK, "sh"])
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env("TMPDIR", directory.path())
        .env(INSIDE, &name);
    let output = run(command, limit);
    print!("{}", output.stdout);
    assert!(output.code == 0, "inside the namespaces: {output}");
    assert!(
        output.stdout.contains("1 passed"),
        "no test is called {name}: {output}"
    );
}

/// `acme::webroot::it_issues::{{closure}}` is the test `webroot::it_issues`.
fn path_of(closure: &str) -> String {
    let function = closure.split("::{{closure}}").next().unwrap_or(closure);
    let (_, path) = function.split_once("::").expect("a crate and a path");
    path.to_owned()
}

/// Another host: a network namespace that lives as long as this.
#[derive(Debug)]
pub struct Node {
    namespace: File,
}

impl Node {
    /// A host with nothing but a loopback interface.
    pub fn new() -> Self {
        // A namespace belongs to a thread until it is held open.
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            File::open("/proc/thread-self/ns/net").expect("our own namespace")
        });
        let namespace = made.join().expect("it does not panic");
        let node = Self { namespace };
        node.ip("link set lo up");
        node
    }

    /// Lays a cable from `ours` here to `theirs` in the caller's own namespace; both ends are up.
    pub fn cable(&self, ours: &str, theirs: &str) {
        let namespace = self.path();
        ip(&format!(
            "link add {theirs} type veth peer name {ours} netns {namespace}"
        ));
        ip(&format!("link set {theirs} up"));
        self.ip(&format!("link set {ours} up"));
    }

    /// Runs `work` on this host: its sockets are this host's. Processes it starts end with it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let moved = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.namespace.as_fd(), network).expect("our own namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(moved).join().expect("it does not panic"))
    }

    /// A command that will run on this host.
    #[track_caller]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path()));
        command.arg("--").arg(find(program));
        command
    }

    /// `ip` on this host.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        let mut command = self.command("ip");
        command.args(arguments.split(' '));
        run(command, TOOL).success();
    }

    fn path(&self) -> String {
        let own = std::process::id();
        format!("/proc/{own}/fd/{}", self.namespace.as_raw_fd())
    }
}

/// `ip` in the caller's own namespace.
#[track_caller]
pub fn ip(arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    run(command, TOOL).success();
}

/// Loads nftables rules in the caller's own namespace.
#[track_caller]
pub fn nft(rules: &str) {
    let directory = TempDir::new();
    let file = directory.write("rules.nft", rules);
    let mut command = Command::new("nft");
    command.args(["-f", &file]);
    run(command, TOOL).success();
}

/// The whole ruleset of the caller's own namespace, without counters: `nft -s list ruleset`.
#[track_caller]
pub fn ruleset() -> String {
    let mut command = Command::new("nft");
    command.args(["-s", "list", "ruleset"]);
    let Output { stdout, .. } = run(command, TOOL).success();
    stdout
}

/// What `nft` with these arguments says of the caller's own namespace.
#[track_caller]
pub fn run_nft(arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    run(command, TOOL).success().stdout
}
