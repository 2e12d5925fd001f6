//! The history on disks that are full or cannot be written, below a daemon that serves all the same.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use acmegate::observe::history::message::{Ask, Query, Reply};
use acmegate::observe::record::Record;
use nix::mount::{MsFlags, mount};
use rustix::process::Signal;

use crate::lab::historian::{Historian, config, now, window};
use crate::lab::{Daemon, TempDir, inside, send, wait_for};
use crate::process::powers;

/// Windows alone: nothing of the host is needed.
const GATE_ONLY: &str = "[http]\nlisten = [\"127.0.0.1:80\"]\n[firewall]\nmode = \"gate-only\"\n";
const SOON: Duration = Duration::from_secs(60);

fn mount_on(directory: &str, options: &str) {
    let flags = MsFlags::MS_NOSUID;
    let mounted = mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        flags,
        Some(options),
    );
    mounted.expect("a file system of our own namespace");
}

fn read_only(directory: &str) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let mounted = mount(None::<&str>, directory, None::<&str>, flags, None::<&str>);
    mounted.expect("a mount of our own");
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_room_mends_it() {
    inside(|| {
        let directory = TempDir::new();
        let config = config(&directory, "");
        mount_on(&directory.at("state"), "size=1m");
        let mut historian = Historian::start(&config);
        let big = |number: u64| Record {
            beside: vec!["x".repeat(1000); 50],
            ..window("a", now() + number)
        };
        let mut kept = Vec::new();
        let failed = loop {
            let record = big(kept.len() as u64);
            let answer = historian
                .ask(Ask::Store(Box::new(record)))
                .expect("it goes on");
            match answer.reply {
                Reply::Stored(record) => kept.push(*record),
                Reply::Failed(why) => break (why, answer.health.problems),
                other => panic!("{other:?}"),
            }
            assert!(kept.len() < 100, "a disk of 1 MiB");
        };
        assert!(failed.0.contains("full"), "{failed:?}");
        assert!(
            failed.1[0].starts_with("windows are not kept on disk now"),
            "{failed:?}"
        );
        assert!(kept.len() > 3, "{}", kept.len());
        assert_eq!(historian.find(Query::Since(0)).records, kept);
        // Killed in this state, it finds what it acknowledged.
        drop(historian);
        let mut historian = Historian::start(&config);
        assert_eq!(historian.find(Query::Since(0)).records, kept);
        let options = Some("size=8m");
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
        let state = directory.at("state");
        mount(None::<&str>, state.as_str(), None::<&str>, flags, options).expect("our own");
        kept.push(historian.store(&big(99)));
        let answer = historian.ask(Ask::Look).expect("it goes on");
        assert_eq!(answer.health.problems, [""; 0]);
        assert_eq!(historian.find(Query::Since(0)).records, kept);
    });
}

#[test]
fn a_disk_that_becomes_read_only_keeps_what_it_has() {
    inside(|| {
        let directory = TempDir::new();
        let config = config(&directory, "");
        let state = directory.at("state");
        mount_on(&state, "size=4m");
        let kept = Historian::start(&config).store(&window("a", now()));
        read_only(&state);
        let mut historian = Historian::start(&config);
        let answer = historian.ask(Ask::Store(Box::new(window("b", now()))));
        let answer = answer.expect("it goes on");
        assert!(matches!(answer.reply, Reply::Failed(_)), "{answer:?}");
        assert!(!answer.health.problems.is_empty());
        assert_eq!(
            historian.find(Query::Since(0)).records,
            std::slice::from_ref(&kept)
        );
        drop(historian);
        let flags = MsFlags::MS_REMOUNT;
        mount(
            None::<&str>,
            state.as_str(),
            None::<&str>,
            flags,
            None::<&str>,
        )
        .expect("our own");
        let found = Historian::start(&config).find(Query::Since(0));
        assert_eq!(found.records, [kept]);
    });
}

#[test]
fn without_a_disk_windows_open_and_close_and_the_status_says_why() {
    inside(|| {
        let mut daemon = Daemon::start(GATE_ONLY);
        assert_eq!(daemon.terminate(), 0);
        fs::remove_dir_all(Path::new(daemon.state_dir()).join("history")).expect("our own");
        let state = daemon.state_dir().to_owned();
        mount_on(&state, "size=64k");
        read_only(&state);
        daemon.start_again();
        let problems = wait_for(SOON, "the status says so", || {
            let problems = daemon.status()["problems"].to_string();
            problems
                .contains("windows are not kept on disk")
                .then_some(problems)
        });
        assert!(problems.contains("Read-only file system"), "{problems}");
        assert!(problems.contains("restart acmegate"), "{problems}");
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
    });
}

#[test]
fn a_historian_that_stands_still_delays_neither_hooks_nor_the_end() {
    inside(|| {
        let mut daemon = Daemon::start(GATE_ONLY);
        let historian = daemon.historian();
        send(historian, Signal::STOP);
        let begun = Instant::now();
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
        send(daemon.front(), Signal::TERM);
        // It cannot end before it goes on; the front does not wait for that.
        wait_for(SOON, "the front ends", || {
            (!crate::lab::is_alive(daemon.front())).then_some(())
        });
        send(historian, Signal::CONT);
        assert_eq!(daemon.gone(), 0);
    });
}

#[test]
fn the_running_historian_is_sealed_and_alone_in_its_directory() {
    inside(|| {
        let daemon = Daemon::start(GATE_ONLY);
        let pid = daemon.historian();
        assert_eq!(powers(&format!("/proc/{pid}/status")), (0, true, true));
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        assert_eq!(tasks.count(), 1);
        // Nothing is open but its file, its socket, what it speaks to, and the runtime's own.
        let state = Path::new(daemon.state_dir());
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it lives")
            .flatten()
        {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let is_own = target.starts_with(state.join("history"));
            let is_nameless = !target.starts_with("/") || target.starts_with("/dev");
            let is_log = entry.file_name() == "2" || entry.file_name() == "1";
            assert!(is_own || is_nameless || is_log, "{}", target.display());
        }
        // As systemd's UMask= would have it, too.
        let listed = Command::new("find")
            .arg(state.join("history"))
            .args(["-perm", "/077"])
            .output();
        let listed = listed.expect("find (Debian package findutils)");
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
    });
}
