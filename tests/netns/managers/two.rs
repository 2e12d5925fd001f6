//! Two daemons on one host.

use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::lab::{Daemon, Process, TempDir, inside, ruleset, wait_for};
use crate::managers::life::leaves_nothing;
use crate::users::inside_with_users;

/// Where the table has no owner, nothing in the kernel keeps a second daemon out.
#[test]
fn the_second_daemon_refuses_and_the_first_goes_on() {
    inside(|| {
        let host = Host::new();
        let before = ruleset();
        let listen_nowhere = "[http]\nlisten = []\n";
        let config = format!("{listen_nowhere}[firewall]\nports = [80]\nowner = \"never\"\n");
        let first = Daemon::start(&config);
        first.cli(&["open", "--lease", "a"]).success();
        let opened = ruleset();
        let second = Daemon::with(&config).refuse();
        assert_eq!(second.code, 75, "{second}");
        assert_eq!(ruleset(), opened, "it touched nothing");
        assert!(host.lets_in(80));
        // One that leaves the ruleset alone is welcome.
        let alone = format!("{listen_nowhere}[firewall]\nmode = \"gate-only\"\nports = [80]\n");
        let third = Daemon::start(&alone);
        assert_eq!(third.status()["problems"], serde_json::json!([]));
        drop(third);
        leaves_nothing(first, &before);
    });
}

/// Anybody may take the lock's name; it counts only if root or the daemon's own user did.
#[test]
fn a_stranger_cannot_keep_the_daemon_from_starting() {
    inside_with_users(|| {
        let bind = "import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind('\\0acmegate/firewall')
s.listen()
print('bound', flush=True)
time.sleep(600)";
        let with_the_name_taken_by = |uid: &str, then: &dyn Fn()| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid",
                uid,
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                bind,
            ]);
            let squatter = Process::spawn(command);
            wait_for(Duration::from_secs(20), "the name is taken", || {
                squatter.stdout().contains("bound").then_some(())
            });
            then();
        };
        with_the_name_taken_by("0", &|| {
            assert_eq!(Daemon::with("").refuse().code, 75);
        });
        with_the_name_taken_by("21003", &|| {
            let daemon = Daemon::start("");
            assert!(daemon.log().contains("holds the host's lock"), "it is told");
        });
        // A daemon of an account of its own finds another of that account.
        let state = TempDir::new();
        let (path, nobody) = (state.at("state"), "65534");
        let config = format!("[daemon]\nuser = \"nobody\"\nstate_dir = \"{path}\"\n");
        with_the_name_taken_by(nobody, &|| {
            let refused = Daemon::with(&config).refuse();
            assert_eq!(refused.code, 75, "{refused}");
            assert!(
                refused.stderr.contains("of this host's ruleset"),
                "{refused}"
            );
        });
    });
}
