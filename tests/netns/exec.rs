//! `acmegate exec`: shut while armed, opened by the command's own asking, shut when it ends.

mod ends;
mod places;
mod through;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::lab::{self, Daemon, Output, Process, TempDir, inside, run, wait_for};

/// What anything here may take that must come about.
const SOON: Duration = Duration::from_secs(60);
/// One command from beginning to end.
const COMMAND: Duration = Duration::from_secs(40);
/// A token and a thumbprint that are well-formed.
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// A chain that drops what comes to port 80: no window can be opened behind it.
const IN_THE_WAY: &str = "table inet filter {
    chain input { type filter hook input priority filter; policy drop;
        iif lo accept
    }
}
";

/// A daemon with a site that answers what is pushed, and a place for what its clients leave.
struct Stage {
    daemon: Daemon,
    directory: TempDir,
}

impl Stage {
    fn new(config: &str) -> Self {
        Self {
            daemon: Daemon::start(config),
            directory: TempDir::new(),
        }
    }

    /// `acmegate exec … -- sh -c SCRIPT`, where `acmegate` in the script asks this daemon, `$DIR`
    /// is ours, and `await FILE` waits until somebody made it.
    fn exec(&self, options: &[&str], script: &str) -> Command {
        let script =
            format!("await() {{ until [ -e \"$DIR/$1\" ]; do sleep 0.02; done; }}\n{script}");
        self.exec_of(options, &["sh", "-c", &script])
    }

    fn exec_of(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.daemon.command();
        command.arg("exec").args(options).arg("--").args(words);
        command
            .env("PATH", self.daemon.search_path())
            .env("DIR", self.directory.path());
        command
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        run(self.exec(options, script), COMMAND)
    }

    fn spawn(&self, options: &[&str], script: &str) -> Process {
        Process::spawn(self.exec(options, script))
    }

    fn make(&self, file: &str) {
        self.directory.write(file, "");
    }

    fn has(&self, file: &str) -> bool {
        self.directory.path().join(file).exists()
    }

    #[track_caller]
    fn wait(&self, file: &str) {
        wait_for(SOON, file, || self.has(file).then_some(()));
    }

    fn pid_in(&self, file: &str) -> u32 {
        let path = self.directory.path().join(file);
        wait_for(SOON, file, || {
            std::fs::read_to_string(&path).ok()?.trim().parse().ok()
        })
    }

    fn armed(&self) -> Vec<Value> {
        self.daemon.status()["armed"]
            .as_array()
            .cloned()
            .expect("a list")
    }

    #[track_caller]
    fn is_over(&self) {
        assert_eq!(self.armed(), Vec::<Value>::new());
        assert_eq!(self.daemon.status()["leases"], serde_json::json!([]));
    }
}

#[test]
fn the_window_is_the_commands_own_pre_and_post_hook_between() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let mut process = stage.spawn(
            &["--lease", "renewal"],
            "touch $DIR/runs; await open; acmegate open && touch $DIR/opened
             await close; acmegate close && touch $DIR/closed
             await again; acmegate open && touch $DIR/reopened; await end",
        );
        stage.wait("runs");
        assert!(!host.is_open(80), "armed is not open");
        let armed = stage.armed();
        assert_eq!(armed[0]["name"], "renewal");
        assert_eq!(armed[0]["open"], false);
        assert_eq!(stage.daemon.status()["budget"]["used"], 0);
        let text = stage.daemon.cli(&["status"]).success().stdout;
        assert!(
            text.contains("armed     renewal: shut until its command asks, uid 0 for exec:sh (pid"),
            "{text}"
        );
        stage.make("open");
        stage.wait("opened");
        assert!(host.lets_in(80));
        assert_eq!(stage.armed()[0]["open"], true);
        // The lease is the one that was armed, held by exec itself.
        let lease = stage.daemon.status()["leases"][0].clone();
        assert_eq!(lease["name"], "renewal");
        assert_eq!(lease["holder"], format!("exec:sh (pid {})", process.pid()));
        stage.make("close");
        stage.wait("closed");
        assert!(!host.is_open(80));
        assert_eq!(stage.armed()[0]["open"], false);
        stage.make("again");
        stage.wait("reopened");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        // Shut when exec returns, not some time later.
        assert!(!host.is_open(80));
        stage.is_over();
        assert_eq!(process.stderr(), "");
    });
}

#[test]
fn the_first_token_opens_and_another_one_opens_again() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let push = format!("acmegate answer add a.example.com {ANSWER}");
        let mut process = stage.spawn(
            &["--for", "5m"],
            &format!(
                "touch $DIR/runs; await push; {push} > $DIR/said && touch $DIR/pushed
                 await close; acmegate answer remove a.example.com {ANSWER}; acmegate close; touch $DIR/closed
                 await again; {push} && touch $DIR/pushed-again; await end"
            ),
        );
        stage.wait("runs");
        assert!(!host.is_open(80));
        // What somebody else pushes is nothing to this command.
        stage
            .daemon
            .cli(&["answer", "add", "b.example.com", ANSWER])
            .success();
        assert!(!host.is_open(80));
        stage.make("push");
        stage.wait("pushed");
        assert!(host.lets_in(80));
        let said = std::fs::read_to_string(stage.directory.path().join("said")).expect("it spoke");
        assert!(
            said.contains("open: tcp 80") && said.contains("answering for a.example.com"),
            "{said}"
        );
        assert_eq!(stage.daemon.status()["pushed"], 2);
        stage.make("close");
        stage.wait("closed");
        wait_for(SOON, "the kernel shuts", || {
            (!host.is_open(80)).then_some(())
        });
        stage.make("again");
        stage.wait("pushed-again");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        stage.is_over();
    });
}

#[test]
fn what_was_closed_early_stays_armed() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("[window]\nclose_early = \"tokens\"\nsettle = \"1s\"\n");
        let push = format!("acmegate answer add a.example.com {ANSWER}");
        let pull = format!("acmegate answer remove a.example.com {ANSWER}");
        let mut process = stage.spawn(
            &[],
            &format!("{push} && {pull} && touch $DIR/done; await again; {push} && touch $DIR/pushed; await end"),
        );
        stage.wait("done");
        wait_for(SOON, "it is closed early", || {
            (!host.is_open(80)).then_some(())
        });
        assert_eq!(stage.armed()[0]["open"], false);
        assert!(stage.daemon.log().contains("closed early"));
        stage.make("again");
        stage.wait("pushed");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        stage.is_over();
    });
}

#[test]
fn now_opens_before_the_command_starts_or_it_does_not_start() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let mut process = stage.spawn(&["--now"], "touch $DIR/runs; await end; exit 3");
        stage.wait("runs");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 3);
        assert!(!host.is_open(80));
        stage.is_over();

        lab::nft(IN_THE_WAY);
        let refused = stage.run(&["--now"], "touch $DIR/never");
        assert_eq!(refused.code, 78, "{refused}");
        assert!(refused.stderr.contains("inet filter input"), "{refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert!(!stage.has("never"));
        stage.is_over();
    });
}

#[test]
fn a_command_that_runs_longer_than_its_window_is_told_once_and_may_open_again() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("[window]\nmax = \"1s\"\n");
        let mut process = stage.spawn(
            &["--now"],
            "await again; acmegate open && touch $DIR/opened; await end",
        );
        let told = || process.stderr().matches("the time of lease exec-").count();
        wait_for(SOON, "it is told", || (told() == 1).then_some(()));
        // Its time began when it was asked for, the kernel's a moment later.
        wait_for(SOON, "it is shut", || (!host.is_open(80)).then_some(()));
        stage.make("again");
        stage.wait("opened");
        wait_for(SOON, "it is over again", || {
            (stage.daemon.status()["leases"] == serde_json::json!([])).then_some(())
        });
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        let said = process.stderr();
        assert_eq!(
            said.matches("acmegate: the time of lease exec-").count(),
            1,
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        stage.is_over();
    });
}

#[test]
fn what_was_armed_may_be_narrowed_and_not_widened() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("[http]\nlisten = []\n[firewall]\nports = [80, 443]\n");
        let options = [
            "--for",
            "2m",
            "--port",
            "443",
            "--family",
            "ipv4",
            "--identifier",
            "a.example",
        ];
        let mut process = stage.spawn(
            &options,
            "acmegate open --for 60s && touch $DIR/opened; await end",
        );
        stage.wait("opened");
        let lease = stage.daemon.status()["leases"][0].clone();
        assert_eq!(lease["ports"], serde_json::json!([443]));
        assert_eq!(lease["families"], serde_json::json!(["ipv4"]));
        assert_eq!(lease["identifiers"], serde_json::json!(["a.example"]));
        assert!(lease["milliseconds"].as_u64().expect("a number") <= 60_000);
        assert!(!host.is_open(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        for more in [
            "--for 3m",
            "--port 80",
            "--family ipv6",
            "--identifier b.example",
        ] {
            let ended = stage.run(
                &options,
                &format!("acmegate open {more}; touch $DIR/ordered"),
            );
            assert_eq!(ended.code, 65, "{more}: {ended}");
            assert!(
                ended.stderr.contains("asks for more than the lease"),
                "{ended}"
            );
            assert!(!stage.has("ordered"));
        }
        // What could never be opened is refused before anything starts.
        for wrong in [
            &["--port", "22"][..],
            &["--for", "24h"],
            &["--lease", "a/b"],
            &["--identifier", "127.1"],
        ] {
            let refused = stage.run(wrong, "touch $DIR/never");
            assert_eq!(refused.code, 65, "{wrong:?}: {refused}");
            assert!(!stage.has("never"));
        }
        stage.is_over();
    });
}

/// What names the lease may be lost on the way, or wrong.
#[test]
fn the_lease_is_found_below_a_cleared_environment_and_a_wrong_one_is_an_error() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        // As sudo does it: the environment is cleared for what it starts, not for itself.
        let script =
            "env -u ACMEGATE_LEASE sh -c 'acmegate open && touch $DIR/opened; true'; await end";
        let mut process = stage.spawn(&["--lease", "found"], script);
        stage.wait("opened");
        assert_eq!(stage.daemon.status()["leases"][0]["name"], "found");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        for (name, value) in [("empty", ""), ("bad", "a/b"), ("long", &"n".repeat(41))] {
            for arguments in [
                &["open"][..],
                &["close"],
                &["answer", "add", "a.example.com", ANSWER],
            ] {
                let mut command = stage.daemon.command();
                command.args(arguments).env("ACMEGATE_LEASE", value);
                let refused = run(command, COMMAND);
                assert_eq!(refused.code, 64, "{name} {arguments:?}: {refused}");
                assert!(refused.stderr.contains("ACMEGATE_LEASE is `"), "{refused}");
            }
        }
        stage.is_over();
        assert_eq!(stage.daemon.status()["pushed"], 0);
    });
}
