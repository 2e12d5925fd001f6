//! Leases outlive the processes that keep their book, and not the processes that hold them.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{Host, on_each_host};
use crate::kernel::{elements, elements_of};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, BINARY, Daemon, Process, inside, wait_for};

/// Seconds that reading, restarting and rounding may make between two looks at one lease.
const SLACK: u64 = 10;

/// What each lease has left, in seconds: in the status, and in the kernel.
fn times(daemon: &Daemon) -> [BTreeMap<String, u64>; 2] {
    let status = daemon.status();
    let listed = status["leases"].as_array().expect("a list");
    let told = listed.iter().map(|lease| {
        let millis = lease["milliseconds"].as_u64().expect("a number");
        (
            lease["name"].as_str().expect("a name").to_owned(),
            millis / 1000,
        )
    });
    let kept = elements("lease").into_values().map(|element| {
        let name = element
            .comment
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        (
            name,
            element.seconds_left.expect("every lease has a timeout"),
        )
    });
    [told.collect(), kept.collect()]
}

/// Both views hold exactly these leases, with about these times.
fn assert_times(daemon: &Daemon, opened: Instant, expected: &[(&str, u64)]) {
    let passed = opened.elapsed().as_secs();
    for view in times(daemon) {
        let names: Vec<_> = view.keys().map(String::as_str).collect();
        let wanted: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, wanted);
        for (name, length) in expected {
            let left = view[*name] + passed;
            assert!(
                left.abs_diff(*length) <= SLACK,
                "{name}: {left} of {length} s, {view:?}"
            );
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Guard,
    NeverOwned,
    Set,
}

#[test]
fn three_leases_survive_a_kill_and_one_is_closed() {
    inside(|| {
        let ways = [Way::Guard, Way::NeverOwned, Way::Set];
        on_each_host(&ways, |host, way| {
            let mode = match way {
                Way::Guard => "",
                Way::NeverOwned => "owner = \"never\"\n",
                Way::Set => "mode = \"set\"\nset = \"inet filter acmegate\"\n",
            };
            if matches!(way, Way::Set) {
                lab::nft(SET_BY_ADMINISTRATOR);
            }
            let mut daemon = Daemon::start(&format!("[firewall]\n{mode}ports = [80, 8080]\n"));
            let opened = Instant::now();
            for lease in [
                &["--lease", "a", "--for", "100s", "--port", "80"][..],
                &[
                    "--lease", "b", "--for", "200s", "--port", "80", "--port", "8080",
                ],
                &[
                    "--lease",
                    "c",
                    "--for",
                    "300s",
                    "--port",
                    "80",
                    "--identifier",
                    "a.example",
                ],
            ] {
                daemon.cli(&[&["open"], lease].concat()).success();
            }
            assert_times(&daemon, opened, &[("a", 100), ("b", 200), ("c", 300)]);
            daemon.kill();
            assert!(
                host.lets_in(80) && host.lets_in(8080),
                "the kernel kept them"
            );
            daemon.start_again();
            assert_times(&daemon, opened, &[("a", 100), ("b", 200), ("c", 300)]);
            let status = daemon.status();
            assert_eq!(status["leases"][1]["ports"], serde_json::json!([80, 8080]));
            // Which identifiers it was for is not kept: it covers none now, and not all.
            assert_eq!(status["leases"][2]["identifiers"], serde_json::json!([]));
            assert_eq!(status["budget"]["used"], 3);

            daemon.cli(&["close", "--lease", "b"]).success();
            assert_times(&daemon, opened, &[("a", 100), ("c", 300)]);
            assert!(host.lets_in(80) && !host.is_open(8080));
            let left = elements("window4")[&80].seconds_left.expect("a timeout");
            let length = left + opened.elapsed().as_secs();
            assert!(length.abs_diff(300) <= SLACK, "{left}");
            if matches!(way, Way::Set) {
                let theirs = elements_of("inet filter", "acmegate");
                assert_eq!(theirs.keys().collect::<Vec<_>>(), [&80], "{theirs:?}");
            }
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(host.lets_in(80), "the third keeps it open");
            daemon.cli(&["close", "--lease", "c"]).success();
            assert!(!host.is_open(80));
        });
    });
}

#[test]
fn a_lease_ends_a_grace_after_its_holder_died() {
    inside(|| {
        let host = Host::new();
        let mut daemon = Daemon::start("");
        // A client that is a program of its own, with a hook that opens.
        let directory = lab::TempDir::new();
        let client = directory.path().join("client");
        std::fs::copy("/bin/sh", &client).expect("a shell");
        let hold = |lease: &str| {
            let (config, run) = (daemon.config(), daemon.runtime_dir());
            let script = format!(
                "{BINARY} --config {config} --runtime-dir {run} open --lease {lease} --for 5m
                while :; do sleep 0.1; done"
            );
            let mut command = Command::new(&client);
            command.args(["-c", &script]);
            let held = Process::spawn(command);
            wait_for(Duration::from_secs(10), "the lease is there", || {
                times(&daemon)[0].contains_key(lease).then_some(())
            });
            held
        };
        let (mut dies, mut dies_later) = (hold("dies"), hold("later"));
        let holder = daemon.status()["leases"][0]["holder"].clone();
        assert_eq!(holder, format!("client (pid {})", dies.pid()));

        dies.signal(Signal::KILL);
        let died = Instant::now();
        dies.wait(Duration::from_secs(5));
        wait_for(
            Duration::from_secs(15),
            "the lease of a dead holder ends",
            || (!times(&daemon)[1].contains_key("dies")).then_some(()),
        );
        let after = died.elapsed();
        assert!(after >= Duration::from_secs(4), "no grace: {after:?}");
        assert!(times(&daemon)[0].contains_key("later"));
        assert!(host.lets_in(80), "the other one lives");
        // Its holder dies while nobody looks: whoever starts next finds out.
        daemon.kill();
        dies_later.signal(Signal::KILL);
        dies_later.wait(Duration::from_secs(5));
        daemon.start_again();
        wait_for(
            Duration::from_secs(15),
            "the adopted lease of a dead holder ends",
            || times(&daemon)[1].is_empty().then_some(()),
        );
        assert!(!host.is_open(80));
    });
}

#[test]
fn whoever_held_an_ended_lease_is_watched_no_longer() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        let watched = |count: usize| {
            let descriptors = format!("/proc/{}/fd", daemon.front());
            wait_for(
                Duration::from_secs(30),
                &format!("{count} holders are watched"),
                || {
                    let entries = std::fs::read_dir(&descriptors).expect("its descriptors");
                    let targets = entries.flatten().flat_map(|entry| entry.path().read_link());
                    let watches = targets.filter(|target| target.ends_with("anon_inode:[pidfd]"));
                    (watches.count() == count).then_some(())
                },
            );
        };
        for lease in ["closed", "expires"] {
            daemon
                .cli(&["open", "--lease", lease, "--for", "10s"])
                .success();
        }
        watched(2);
        daemon.cli(&["close", "--lease", "closed"]).success();
        watched(1);
        // Nobody closes the other one.
        watched(0);
    });
}

#[test]
fn the_budget_survives_a_kill() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("[budget]\nper_hour = 3\nreserve = 1\nper_caller = 1\n");
        for _ in 0..3 {
            daemon
                .cli(&["open", "--lease", "a", "--for", "1m"])
                .success();
        }
        for _ in 0..2 {
            let refused = daemon.cli(&["open", "--lease", "a", "--for", "1m"]);
            assert_eq!(refused.code, 75, "{refused}");
            assert!(refused.stderr.contains("3 an hour"), "{refused}");
            assert_eq!(daemon.status()["budget"]["used"], 3);
            daemon.kill();
            daemon.start_again();
        }
    });
}

#[test]
fn a_lease_beyond_a_new_configuration_is_not_taken_over() {
    inside(|| {
        lab::nft(SET_BY_ADMINISTRATOR);
        let set = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";
        let mut daemon = Daemon::start(&format!("{set}ports = [80, 8080]\n"));
        for (lease, port) in [("stays", "80"), ("goes", "8080"), ("goes-later", "8080")] {
            daemon
                .cli(&["open", "--lease", lease, "--port", port])
                .success();
        }
        daemon.kill();
        daemon.write_config(&format!("{set}ports = [80, 443]\n"));
        daemon.start_again();
        let only_one = |daemon: &Daemon, lease: &str, port: u64| {
            for view in times(daemon) {
                assert_eq!(view.keys().collect::<Vec<_>>(), [lease]);
            }
            let theirs = elements_of("inet filter", "acmegate");
            assert_eq!(theirs.keys().collect::<Vec<_>>(), [&port]);
        };
        only_one(&daemon, "stays", 80);
        // The same at a reload.
        daemon
            .cli(&["open", "--lease", "new", "--port", "443"])
            .success();
        daemon.write_config(&format!("{set}ports = [443]\n"));
        daemon.signal(Signal::HUP);
        wait_for(Duration::from_secs(10), "the reload", || {
            daemon
                .log()
                .contains("configuration reloaded")
                .then_some(())
        });
        only_one(&daemon, "new", 443);
        // And a lease of longer days is cut to what nobody gets more of now.
        daemon.kill();
        daemon.write_config(&format!("[window]\nmax = \"20s\"\n{set}ports = [443]\n"));
        daemon.start_again();
        for view in times(&daemon) {
            assert!(view["new"] <= 20, "{view:?}");
        }
    });
}

#[test]
fn a_lease_that_is_renewed_for_less_opens_no_more_than_that() {
    inside(|| {
        on_each_host(&[Way::Guard, Way::NeverOwned, Way::Set], |host, way| {
            let mode = match way {
                Way::Guard => "",
                Way::NeverOwned => "owner = \"never\"\n",
                Way::Set => "mode = \"set\"\nset = \"inet filter acmegate\"\n",
            };
            if matches!(way, Way::Set) {
                lab::nft(SET_BY_ADMINISTRATOR);
            }
            let daemon = Daemon::start(&format!("[firewall]\n{mode}ports = [80, 8080]\n"));
            let open = |more: &[&str]| {
                let words = ["open", "--lease", "a", "--port", "80"];
                daemon.cli(&[&words[..], more].concat()).success();
            };
            open(&["--port", "8080", "--for", "5m"]);
            assert!(host.is_open(80) && host.is_open(8080), "the control");
            open(&["--for", "4m"]);
            assert!(host.is_open(80) && !host.is_open(8080));
            // Its time goes down as well: elements are deleted and added, never added over.
            let left = elements("window4")[&80].seconds_left.expect("a timeout");
            assert!(left <= 240, "{left}");
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(!host.is_open(80) && !host.is_open(8080));
        });
    });
}
