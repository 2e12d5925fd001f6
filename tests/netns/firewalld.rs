//! Real firewalld, by the commands that are shipped for it: its default zone rejects port 80, and a
//! lease opens it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::lab::{Daemon, Output, Process, TempDir, inside, run, wait_for};

const SHIPPED: &str = include_str!("../../config/commands/firewalld.toml");
/// It is a Python program, on a host that does other things as well.
const SLOW: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(15);

/// A firewalld of the host's own, with a bus of its own.
struct Firewalld {
    directory: TempDir,
    _bus: Process,
    _firewalld: Process,
}

impl Firewalld {
    fn start() -> Self {
        let directory = TempDir::new();
        let bus = directory.at("bus");
        let config = directory.write(
            "bus.conf",
            &format!(
                "<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                 <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>"
            ),
        );
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--config-file", &config]);
        let started = Process::spawn(command);
        wait_for(SOON, "the bus", || {
            fs::exists(&bus).ok().filter(|is_there| *is_there)
        });
        let mut command = Command::new("firewalld");
        command
            .args(["--nofork", "--nopid"])
            .args(["--log-file", &directory.at("log")])
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={bus}"));
        let firewalld = Self {
            _bus: started,
            _firewalld: Process::spawn(command),
            directory,
        };
        wait_for(SLOW, "firewalld runs", || {
            (firewalld.cmd(&["--state"]).code == 0).then_some(())
        });
        firewalld
    }

    fn cmd(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("firewall-cmd");
        command
            .args(arguments)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.bus());
        run(command, SLOW)
    }

    fn bus(&self) -> String {
        format!("unix:path={}", self.directory.at("bus"))
    }

    /// The shipped commands, with the way to this bus before them, which on a host is the default.
    fn config(&self, mode: &str) -> String {
        let program = format!(
            "\"env\", \"DBUS_SYSTEM_BUS_ADDRESS={}\", \"firewall-cmd\"",
            self.bus()
        );
        let config = SHIPPED.replace("\"firewall-cmd\"", &program);
        assert_eq!(config.matches("\"env\"").count(), 2, "both commands");
        assert!(config.contains("mode = \"guard\""));
        // firewall-cmd is a Python program: a busy machine may need more than five seconds to load it.
        config.replace(
            "mode = \"guard\"",
            &format!("mode = \"{mode}\"\ncommand_timeout = \"7s\""),
        )
    }
}

#[test]
fn firewalld_opens_for_a_lease_and_shuts_after_it() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::start();
        let daemon = Daemon::start(&firewalld.config("guard"));
        let open = |lease: &str, time: &str| {
            daemon
                .cli(&["open", "--lease", lease, "--for", time])
                .success()
        };
        assert!(!host.is_open(80));
        open("a", "10m");
        assert!(host.lets_in(80));
        // A second lease, and a renewal of the first: each with its own time.
        open("b", "4s");
        open("a", "5m");
        let rules = wait_for(SOON, "the first rule is gone", || {
            let rules = firewalld.cmd(&["--list-rich-rules"]).success().stdout;
            (rules.lines().count() <= 2).then_some(rules)
        });
        assert!(rules.contains("priority=\"-3\""), "{rules}");
        // b expires, by its own close and by firewalld's own time; a still stands.
        wait_for(SOON, "b's rule is gone", || {
            let rules = firewalld.cmd(&["--list-rich-rules"]).success().stdout;
            (rules.lines().count() == 1).then_some(())
        });
        assert!(host.lets_in(80));
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        assert_eq!(
            firewalld
                .cmd(&["--list-rich-rules"])
                .success()
                .stdout
                .trim(),
            ""
        );
        let log = daemon.log();
        assert!(!log.contains("WARN"), "{log}");
    });
}

/// In `gate-only` firewalld alone keeps the port shut, so nothing of ours helps it to.
#[test]
fn firewalld_shuts_by_itself_after_everything_was_killed() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::start();
        let mut daemon = Daemon::start(&firewalld.config("gate-only"));
        assert!(!host.is_open(80));
        let begun = Instant::now();
        daemon
            .cli(&["open", "--lease", "a", "--for", "6s"])
            .success();
        assert!(host.lets_in(80));
        daemon.kill();
        // Nobody answers any more, but firewalld no longer rejects either, until its own time.
        wait_for(SOON, "firewalld's own time is over", || {
            let rules = firewalld.cmd(&["--list-rich-rules"]).success().stdout;
            rules.trim().is_empty().then_some(())
        });
        assert!(
            begun.elapsed() >= Duration::from_secs(6),
            "{:?}",
            begun.elapsed()
        );
        // The next start finds nothing to be sorry about: what is gone is gone.
        daemon.start_again();
        wait_for(SOON, "closed once more", || {
            daemon
                .log()
                .contains("command: done event=\"close\"")
                .then_some(())
        });
        assert!(!host.is_open(80));
        assert_eq!(daemon.status()["problems"], serde_json::json!([]));
    });
}

#[test]
fn what_a_reload_of_firewalld_forgets_is_opened_again() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::start();
        let daemon = Daemon::start(&firewalld.config("guard"));
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        assert!(host.lets_in(80));
        firewalld.cmd(&["--reload"]).success();
        wait_for(SOON, "open again", || host.is_open(80).then_some(()));
        let log = daemon.log();
        assert!(
            log.contains("somebody shut what a command opened, opening again"),
            "{log}"
        );
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        let rules = firewalld.cmd(&["--list-rich-rules"]).success().stdout;
        assert_eq!(rules.trim(), "");
    });
}

#[test]
fn what_firewalld_says_no_to_fails_the_hook() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::start();
        let config = firewalld
            .config("guard")
            .replace("port port={port}", "port port={port}x");
        let daemon = Daemon::start(&config);
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 71, "{refused}");
        assert!(refused.stderr.contains("INVALID_"), "{refused}");
        assert!(!host.is_open(80));
    });
}
