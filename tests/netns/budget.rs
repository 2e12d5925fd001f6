//! For how long windows are open is counted, limited, and kept by the kernel.

use std::process::Command;
use std::time::Duration;

use acmegate::gate::usage::{MAX_LEASE_NAMES, MAX_SLOTS};
use serde_json::{Value, json};

use crate::host::Host;
use crate::kernel::{SHUT, elements, nft, open_ports};
use crate::lab::{self, BINARY, Daemon, Output, Process, inside, wait_for};

const SOON: Duration = Duration::from_secs(15);

/// What the status tells of one account.
fn time(daemon: &Daemon, of: &str, name: Option<&str>) -> Value {
    let status = daemon.status();
    let times = status["budget"]["time"].as_array().expect("a list");
    let found = times
        .iter()
        .find(|time| time["of"] == of && time["name"] == json!(name));
    found.cloned().unwrap_or(Value::Null)
}

fn millis(time: &Value, span: &str) -> u64 {
    time[span]["milliseconds"].as_u64().expect("a number")
}

/// Refused for its time, by this key, with these words; nothing was opened by it.
#[track_caller]
fn assert_refused(refused: &Output, key: &str, words: &[&str]) {
    assert_eq!(refused.code, 75, "{refused}");
    let see = format!("see [budget] {key}");
    assert!(refused.stderr.trim_end().ends_with(&see), "{refused}");
    for words in words {
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
}

#[test]
fn leases_share_their_time_and_what_is_too_much_is_refused_across_kills() {
    inside(|| {
        let host = Host::new();
        let mut daemon = Daemon::start("[budget]\nday = \"60s\"\n");
        let open = |daemon: &Daemon, lease: &str, length: &str| {
            daemon.cli(&["open", "--lease", lease, "--for", length])
        };
        // Both at once count once: one after the other they would not fit.
        open(&daemon, "a", "50s").success();
        open(&daemon, "b", "50s").success();
        let words = [
            "all windows together",
            "of 1m in 24 hours are taken",
            "this length fits again in 1d",
        ];
        for _ in 0..2 {
            assert_refused(&open(&daemon, "c", "60s"), "day", &words);
            let dry = ["open", "--dry-run", "--lease", "c", "--for", "60s"];
            assert_refused(&daemon.cli(&dry), "day", &words);
            assert_refused(&open(&daemon, "c", "61s"), "day", &["more than all of it"]);
            assert_eq!(elements("lease").len(), 2);
            let all = time(&daemon, "all", None);
            assert!(millis(&all, "day") < 50_000, "only what has passed: {all}");
            assert_eq!(all["day"]["allowed_milliseconds"], 60_000);
            // [window] max is longer than the budget.
            assert_eq!(all["fits_in_milliseconds"], Value::Null);
            daemon.kill();
            daemon.start_again();
        }
        // What they did not use is given back, in the kernel as well.
        for lease in ["a", "b"] {
            daemon.cli(&["close", "--lease", lease]).success();
        }
        daemon.kill();
        daemon.start_again();
        let used = millis(&time(&daemon, "all", None), "day");
        assert!(used > 0 && used < 40_000, "{used}");
        let of_a = millis(&time(&daemon, "lease", Some("a")), "month");
        assert!(of_a > 0 && of_a <= used + 1, "{of_a} of {used}");
        assert_refused(&open(&daemon, "c", "60s"), "day", &words);
        open(&daemon, "c", "5s").success();
        assert!(host.lets_in(80));
    });
}

#[test]
fn a_lease_whose_end_nobody_saw_has_used_all_its_time() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("[budget]\nday = \"3s\"\nmonth = \"1h\"\n");
        let open = ["open", "--lease", "a", "--for", "2s"];
        daemon.cli(&open).success();
        daemon.kill();
        wait_for(SOON, "the kernel shut it", || {
            (open_ports() == SHUT).then_some(())
        });
        let kept = elements("usage");
        let comments: Vec<&str> = (kept.values().map(|kept| kept.comment.as_str())).collect();
        assert_eq!(
            comments,
            ["day 2000", "month 2000", "day 2000 a 0", "month 2000 a 0"]
        );
        for element in kept.values() {
            let hours = if element.comment.starts_with("day") {
                24 + 4
            } else {
                (30 + 5) * 24
            };
            let left = element.seconds_left.expect("a timeout");
            assert!((1..120).contains(&(hours * 3600 - left)), "{element:?}");
        }
        daemon.start_again();
        assert_eq!(millis(&time(&daemon, "all", None), "day"), 2000);
        assert_refused(&daemon.cli(&open), "day", &["2s of 3s in 24 hours"]);
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn every_run_of_a_client_draws_on_one_account() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("[budget]\nlease_month = \"60s\"\n");
        let directory = lab::TempDir::new();
        let client = directory.path().join("client");
        std::fs::copy("/bin/sh", &client).expect("a shell");
        // They live on, and so do their leases.
        let run = |length: &str| {
            let (config, run) = (daemon.config(), daemon.runtime_dir());
            let script = format!(
                "{BINARY} --config {config} --runtime-dir {run} open --for {length}
                echo \"ended with $?\" >&2
                while :; do sleep 0.1; done"
            );
            let mut command = Command::new(&client);
            command.args(["-c", &script]);
            let running = Process::spawn(command);
            let told = wait_for(SOON, "the client asked", || {
                let told = running.stderr();
                told.contains("ended with").then_some(told)
            });
            (running, told)
        };
        let (first, told) = run("50s");
        assert!(told.contains("ended with 0"), "{told}");
        let lease = elements("lease").into_values().next().expect("a lease");
        let name = format!("client-{} ", first.pid());
        assert!(lease.comment.starts_with(&name), "{lease:?}");
        let (_second, told) = run("60s");
        assert!(told.contains("ended with 75"), "{told}");
        for words in [
            "leases named client of uid 0:",
            "in 30 days",
            "see [budget] lease_month",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        let of_client = time(&daemon, "lease", Some("client"));
        assert!(millis(&of_client, "month") > 0, "{of_client}");
        // It is nobody else's.
        daemon
            .cli(&["open", "--lease", "other", "--for", "60s"])
            .success();
    });
}

#[test]
fn an_identifier_has_its_time_whatever_the_lease_is_called() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("[budget]\nidentifier_day = \"60s\"\n");
        let open = |lease: &str, identifiers: &[&str], length: &str| {
            let mut arguments = vec!["open", "--lease", lease, "--for", length];
            for identifier in identifiers {
                arguments.extend(["--identifier", identifier]);
            }
            daemon.cli(&arguments)
        };
        open("a", &["a.example", "b.example"], "50s").success();
        daemon.cli(&["close", "--lease", "a"]).success();
        let refused = open("b", &["c.example", "b.example"], "60s");
        let words = ["windows for b.example:", "of 1m in 24 hours"];
        assert_refused(&refused, "identifier_day", &words);
        assert_eq!(open_ports(), SHUT);
        open("b", &["c.example"], "60s").success();
        open("c", &[], "5m").success();
        for (name, is_used) in [
            ("a.example", true),
            ("b.example", true),
            ("d.example", false),
        ] {
            let told = time(&daemon, "identifier", Some(name));
            assert_eq!(
                !told.is_null() && millis(&told, "day") > 0,
                is_used,
                "{told}"
            );
        }
    });
}

#[test]
fn time_comes_back_when_somebody_flushes_it() {
    inside(|| {
        let _host = Host::new();
        let config = "[budget]\nday = \"60s\"\n[firewall]\nowner = \"never\"\n";
        let mut daemon = Daemon::start(config);
        daemon
            .cli(&["open", "--lease", "a", "--for", "20s"])
            .success();
        daemon.cli(&["close", "--lease", "a"]).success();
        daemon
            .cli(&["open", "--lease", "b", "--for", "30s"])
            .success();
        let kept = || {
            let elements = elements("usage").into_values();
            let comments: Vec<String> = elements.map(|element| element.comment).collect();
            comments
        };
        let before = kept();
        assert_eq!(before.len(), 6, "{before:?}");
        let flushes = [
            &["flush", "ruleset"][..],
            &["flush", "set", "inet", "acmegate", "usage"],
            &["delete", "table", "inet", "acmegate"],
        ];
        for flush in flushes {
            nft(flush);
            wait_for(SOON, "the time is back", || {
                (kept() == before).then_some(())
            });
        }
        daemon.kill();
        daemon.start_again();
        let refused = daemon.cli(&["open", "--lease", "c", "--for", "60s"]);
        assert_refused(&refused, "day", &["all windows together"]);
    });
}

/// As many names as are remembered, each with as many slots as one can have, beside as many leases
/// as may live.
#[test]
fn a_full_book_comes_back_as_well() {
    inside(|| {
        let _host = Host::new();
        let config = "[budget]\nper_hour = 120\n[firewall]\nowner = \"never\"\n";
        let mut daemon = Daemon::start(config);
        for number in 0..64 {
            let name = format!("{number:0>40}");
            daemon
                .cli(&["open", "--lease", &name, "--for", "10m"])
                .success();
        }
        daemon.kill();
        nft(&["flush", "set", "inet", "acmegate", "usage"]);
        let slots = (0..=MAX_LEASE_NAMES).flat_map(|account| {
            let name = match account {
                0 => String::new(),
                name => format!(" {name:0>40} {}", u32::MAX),
            };
            (0..MAX_SLOTS).map(move |slot| {
                let (id, seconds) = (1 + account * MAX_SLOTS + slot, 3600 * (1 + slot));
                let span = ["day", "month"][slot % 2];
                format!("{id} timeout {seconds}s comment \"{span} 1000000{name}\"")
            })
        });
        let slots: Vec<String> = slots.collect();
        let elements_of_it = slots.join(", ");
        lab::nft(&format!(
            "add element inet acmegate usage {{ {elements_of_it} }}\n"
        ));
        daemon.start_again();
        let all = time(&daemon, "all", None);
        assert!(millis(&all, "day") > 10_000_000, "{all}");
        let counts = || ["usage", "lease", "budget"].map(|set| elements(set).len());
        let full = [slots.len(), 64, 64];
        assert_eq!(counts(), full);
        nft(&["flush", "ruleset"]);
        wait_for(SOON, "everything is back", || {
            (counts() == full).then_some(())
        });
        let gaps = || daemon.status()["firewall"]["gaps"].as_u64();
        wait_for(SOON, "it is told", || (gaps() >= Some(1)).then_some(()));
        // Our own writing is nobody's attack.
        daemon.cli(&["firewall", "apply"]).success();
        daemon
            .cli(&["open", "--lease", &format!("{:0>40}", 1), "--for", "1m"])
            .success();
        assert_eq!(gaps(), Some(1));
    });
}
