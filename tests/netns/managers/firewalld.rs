//! firewalld, on a system bus of its own.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

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
const START: Duration = Duration::from_secs(60);

struct Firewalld {
    directory: TempDir,
    _bus: Process,
    // Killed before its bus.
    firewalld: Process,
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
        let firewalld = Self {
            firewalld: start(&directory),
            directory,
            _bus: bus,
        };
        firewalld.wait();
        firewalld.cmd(&["--permanent", "--zone=trusted", "--add-source=10.0.0.0/8"]);
        firewalld.cmd(&["--reload"]);
        firewalld
    }

    /// `systemctl restart firewalld`: for a while there is no firewall at all.
    fn restart(&mut self) {
        self.firewalld.signal(Signal::TERM);
        self.firewalld.wait(START);
        self.firewalld = start(&self.directory);
        self.wait();
    }

    fn wait(&self) {
        wait_for(START, "firewalld answers", || {
            (self.ask(&["--state"]) == 0).then_some(())
        });
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

fn start(directory: &TempDir) -> Process {
    let mut command = Command::new("firewalld");
    command
        .args(["--nofork", "--nopid", "--log-target", "console"])
        .args(["--system-config", &directory.at("")])
        .env("DBUS_SYSTEM_BUS_ADDRESS", address(directory));
    Process::spawn(command)
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
        let mut firewalld = Firewalld::new();
        let before = ruleset();
        let chains = ["inet firewalld filter_INPUT"];
        let daemon = Daemon::start(&format!("{}{}", site(), attach(&chains)));
        let mut round = 0;
        window_and_reloads(&host, &daemon, Outside::TheirsRejecting, 3, || {
            round += 1;
            match round % 3 {
                0 => firewalld.restart(),
                1 => firewalld.cmd(&["--reload"]),
                _ => firewalld.cmd(&["--complete-reload"]),
            }
        });
        leaves_nothing(daemon, &before);
    });
}
