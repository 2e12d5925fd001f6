//! firewalld, on a system bus of its own.

use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::lab::{Daemon, Process, TempDir, inside, ruleset, run, wait_for};
use crate::managers::life::{Outside, attach, leaves_nothing, open_is_refused, window_and_reloads};
use crate::managers::validations::site;

/// Everybody may own and ask everything: it is this test's bus alone.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=PATH</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;
const START: Duration = Duration::from_secs(20);

struct Firewalld {
    directory: TempDir,
    _bus: Process,
    // Killed before its bus.
    _firewalld: Process,
}

impl Firewalld {
    /// The default zone, `public`: SSH is open, the rest is rejected. The private network is trusted.
    fn new() -> Self {
        let directory = TempDir::new();
        let config = directory.write("bus.conf", &BUS.replace("PATH", &directory.at("bus")));
        let mut bus = Command::new("dbus-daemon");
        bus.arg(format!("--config-file={config}"))
            .args(["--nofork", "--nopidfile"]);
        let bus = Process::spawn(bus);
        wait_for(START, "the bus listens", || {
            directory.path().join("bus").exists().then_some(())
        });
        let mut firewalld = Command::new("firewalld");
        firewalld
            .args(["--nofork", "--nopid", "--log-target", "console"])
            .args(["--system-config", &directory.at("")])
            .env("DBUS_SYSTEM_BUS_ADDRESS", address(&directory));
        let firewalld = Process::spawn(firewalld);
        let firewalld = Self {
            directory,
            _bus: bus,
            _firewalld: firewalld,
        };
        wait_for(START, "firewalld answers", || {
            (firewalld.ask(&["--state"]) == 0).then_some(())
        });
        firewalld.cmd(&["--permanent", "--zone=trusted", "--add-source=10.0.0.0/8"]);
        firewalld.cmd(&["--reload"]);
        firewalld
    }

    #[track_caller]
    fn cmd(&self, words: &[&str]) {
        assert_eq!(self.ask(words), 0, "firewall-cmd {words:?}");
    }

    fn ask(&self, words: &[&str]) -> i32 {
        let mut command = Command::new("firewall-cmd");
        command
            .args(words)
            .env("DBUS_SYSTEM_BUS_ADDRESS", address(&self.directory));
        run(command, START).code
    }
}

fn address(directory: &TempDir) -> String {
    format!("unix:path={}", directory.at("bus"))
}

#[test]
fn a_guarded_window_outlives_firewalld() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::new();
        let mut daemon = Daemon::start(&site());
        let words = [
            "inet firewalld filter_INPUT",
            "rejects tcp port 80",
            "use mode `attach` with `chains = [\"inet firewalld filter_INPUT\"]`",
            "firewall-cmd --permanent --add-port=80/tcp",
        ];
        open_is_refused(&host, &daemon, &words);

        // As it was advised.
        firewalld.cmd(&["--permanent", "--add-port=80/tcp"]);
        firewalld.cmd(&["--reload"]);
        let mut ways = ["--reload", "--complete-reload"].iter().cycle();
        window_and_reloads(&host, &daemon, Outside::Ours, 4, || {
            firewalld.cmd(&[ways.next().expect("it goes round")]);
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!ruleset().contains("acmegate"));
    });
}

#[test]
fn a_window_in_firewallds_chain_outlives_firewalld() {
    inside(|| {
        let host = Host::new();
        let firewalld = Firewalld::new();
        let before = ruleset();
        let chains = ["inet firewalld filter_INPUT"];
        let daemon = Daemon::start(&format!("{}{}", site(), attach(&chains)));
        let mut ways = ["--reload", "--complete-reload"].iter().cycle();
        window_and_reloads(&host, &daemon, Outside::Theirs, 4, || {
            firewalld.cmd(&[ways.next().expect("it goes round")]);
        });
        leaves_nothing(daemon, &before);
    });
}
