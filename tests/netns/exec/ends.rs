//! Ends of all kinds: a client that ignores its hook, kills, restarts, and no daemon at all.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{ANSWER, IN_THE_WAY, SOON, Stage};
use crate::host::Host;
use crate::lab::{self, inside, is_alive, send, wait_for};

/// As certbot does: whatever its pre-hook says, it goes on.
#[test]
fn a_client_that_ignores_its_hook_is_ended_when_the_window_cannot_be_opened() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        lab::nft(IN_THE_WAY);
        let push = format!("acmegate answer add a.example.com {ANSWER}");
        for (hook, client) in [
            // Behind one shell, behind two, and the client itself.
            (
                "acmegate open",
                "sh -c 'HOOK; echo $? > $DIR/code; touch $DIR/ordered'; true",
            ),
            (
                "acmegate open",
                "(HOOK; touch $DIR/ordered); touch $DIR/ordered",
            ),
            ("acmegate open", "HOOK; touch $DIR/ordered"),
            (push.as_str(), "HOOK; touch $DIR/ordered"),
        ] {
            let script = client.replace("HOOK", hook);
            let begun = Instant::now();
            let ended = stage.run(&[], &script);
            assert_eq!(ended.code, 78, "{script}: {ended}");
            for words in [
                "inet filter input",
                "sh was ended, because its window could not be opened",
            ] {
                assert!(ended.stderr.contains(words), "{words}: {ended}");
            }
            assert!(!stage.has("ordered"), "{script}: {ended}");
            assert!(
                begun.elapsed() < Duration::from_secs(8),
                "{:?}",
                begun.elapsed()
            );
            stage.is_over();
        }
        assert_eq!(stage.daemon.status()["pushed"], 0);
        // One that cannot be asked to end is killed.
        let script =
            "trap '' TERM; acmegate open; touch $DIR/hook-returned; sleep 60; touch $DIR/ordered";
        let begun = Instant::now();
        let ended = stage.run(&[], script);
        assert_eq!(ended.code, 78, "{ended}");
        assert!(
            (10..16).contains(&begun.elapsed().as_secs()),
            "{:?}",
            begun.elapsed()
        );
        assert!(!stage.has("ordered"));
        // A question is no asking: it ends nobody.
        let asked = stage.run(&[], "acmegate open --dry-run; touch $DIR/went-on");
        assert_eq!(asked.code, 0, "{asked}");
        assert!(stage.has("went-on"));
        // Nor does another lease, by its own name.
        let asked = stage.run(&[], "acmegate open --lease other; exit 5");
        assert_eq!(asked.code, 5, "{asked}");
        stage.is_over();
    });
}

#[test]
fn whoever_is_killed_the_window_shuts_at_once() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let script = "echo $$ > $DIR/pid; acmegate open && touch $DIR/opened; exec sleep 100";
        // exec itself: its command ends with it.
        let mut process = stage.spawn(&[], script);
        stage.wait("opened");
        let client = stage.pid_in("pid");
        assert!(host.lets_in(80));
        process.signal(Signal::KILL);
        wait_for(SOON, "the lease is released", || {
            (stage.daemon.status()["leases"] == serde_json::json!([])).then_some(())
        });
        assert!(!host.is_open(80));
        wait_for(SOON, "the client got SIGTERM", || {
            (!is_alive(client)).then_some(())
        });
        process.wait(SOON);
        stage.is_over();
        // The client.
        std::fs::remove_file(stage.directory.path().join("opened")).expect("it was made");
        let mut process = stage.spawn(&[], script);
        stage.wait("opened");
        send(stage.pid_in("pid"), Signal::KILL);
        assert_eq!(process.wait(SOON), 128 + 9);
        assert!(!host.is_open(80));
        stage.is_over();
    });
}

#[test]
fn what_is_to_be_open_at_once_is_opened_again_after_a_stop() {
    inside(|| {
        let host = Host::new();
        let mut stage = Stage::new("");
        let mut process = stage.spawn(&["--now"], "touch $DIR/runs; await end");
        stage.wait("runs");
        assert!(host.lets_in(80));
        // Unlike a restart, it takes every window away.
        assert_eq!(stage.daemon.terminate(), 0);
        stage.daemon.start_again();
        wait_for(SOON, "open again", || host.lets_in(80).then_some(()));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        stage.is_over();
    });
}

#[test]
fn a_restart_of_the_daemon_disarms_nothing() {
    inside(|| {
        let host = Host::new();
        let mut stage = Stage::new("");
        let mut process = stage.spawn(
            &["--lease", "renewal"],
            "acmegate open && touch $DIR/opened; await close; acmegate close; touch $DIR/closed
             await again; acmegate open && touch $DIR/reopened; await end",
        );
        stage.wait("opened");
        stage.daemon.kill();
        assert!(host.lets_in(80), "the kernel keeps it");
        stage.daemon.start_again();
        wait_for(SOON, "armed again", || {
            (stage.armed().len() == 1).then_some(())
        });
        assert!(host.lets_in(80));
        assert_eq!(stage.armed()[0]["open"], true);
        // A hand-over, as at an upgrade.
        assert_eq!(stage.daemon.end_by(Signal::USR1), 0);
        assert!(
            host.lets_in(80),
            "what is armed keeps no restart waiting, and loses nothing by it"
        );
        stage.daemon.start_again();
        wait_for(SOON, "armed again", || {
            (stage.armed().len() == 1).then_some(())
        });
        stage.make("close");
        stage.wait("closed");
        assert!(!host.is_open(80));
        stage.make("again");
        stage.wait("reopened");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        stage.is_over();
        assert_eq!(process.stderr(), "", "nothing was lost");
    });
}

#[test]
fn without_a_daemon_nothing_starts_and_what_runs_is_told_once() {
    inside(|| {
        let host = Host::new();
        let mut stage = Stage::new("");
        // It is gone before the client asks: nobody can say so to exec but the hook itself.
        let mut late = stage.spawn(
            &[],
            "touch $DIR/late; await go; acmegate open; touch $DIR/ordered",
        );
        // It is gone while the window is open: the client goes on, and the kernel closes.
        let mut early = stage.spawn(
            &[],
            "acmegate open --for 12s && touch $DIR/opened; await end; exit 6",
        );
        stage.wait("late");
        stage.wait("opened");
        let opened = Instant::now();
        assert_eq!(stage.daemon.end_by(Signal::USR1), 0);
        let refused = stage.run(&[], "touch $DIR/never");
        assert_eq!(refused.code, 69, "{refused}");
        assert!(!stage.has("never"));
        stage.make("go");
        assert_ne!(late.wait(SOON), 0);
        assert!(!stage.has("ordered"), "{}", late.stderr());
        wait_for(SOON, "it is told", || {
            early.stderr().contains("goes on").then_some(())
        });
        assert!(host.lets_in(80) || opened.elapsed() > Duration::from_secs(12));
        wait_for(SOON, "the kernel closes", || {
            (!host.is_open(80)).then_some(())
        });
        stage.make("end");
        assert_eq!(early.wait(SOON), 6);
        assert_eq!(early.stderr().lines().count(), 1, "{}", early.stderr());
    });
}
