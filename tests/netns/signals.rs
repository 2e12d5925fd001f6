//! What each signal does, and what it leaves alone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::host::{HOST_4, HOST_6, Host, on_each_host};
use crate::kernel::{elements, elements_of, nft, open_ports, without_sources};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, inside, ruleset, wait_for};

const SOON: Duration = Duration::from_secs(20);
const SET: &str = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";
const FOREIGN: &str = "table ip somebody {
    chain input {
        type filter hook input priority filter; policy accept;
        tcp dport 23 drop
    }
}
";

#[test]
fn a_clean_stop_leaves_the_ruleset_as_it_was() {
    inside(|| {
        on_each_host(
            &["", "[firewall]\nowner = \"never\"\n", SET],
            |host, config| {
                let theirs = if config == SET {
                    SET_BY_ADMINISTRATOR
                } else {
                    FOREIGN
                };
                lab::nft(theirs);
                let before = ruleset();
                for signal in [Signal::TERM, Signal::INT] {
                    let mut daemon = Daemon::start(config);
                    assert_ne!(ruleset(), before, "the control: something is there");
                    daemon
                        .cli(&["open", "--lease", "a", "--for", "5m"])
                        .success();
                    assert!(host.lets_in(80));
                    assert_eq!(daemon.end_by(signal), 0, "{}", daemon.log());
                    assert_eq!(ruleset(), before);
                    assert!(elements_of("inet filter", "acmegate").is_empty());
                }
            },
        );
    });
}

#[test]
fn a_restart_leaves_table_and_windows() {
    inside(|| {
        on_each_host(&["", SET], |host, config| {
            if config == SET {
                lab::nft(SET_BY_ADMINISTRATOR);
            }
            let mut daemon = Daemon::start(config);
            daemon
                .cli(&["open", "--lease", "a", "--for", "5m"])
                .success();
            let rules = nft(&["-s", "-t", "list", "table", "inet", "acmegate"]);
            assert_eq!(daemon.end_by(Signal::USR1), 0, "{}", daemon.log());
            // Whose table it is has changed, and nothing else: nobody's now.
            let left = nft(&["-s", "-t", "list", "table", "inet", "acmegate"]);
            assert_eq!(without_flags(&left), without_flags(&rules));
            assert_eq!(open_ports(), [vec![80], vec![80]]);
            assert!(host.lets_in(80));
            daemon.start_again();
            assert_eq!(daemon.status()["leases"][0]["name"], "a");
            assert_eq!(
                nft(&["-s", "-t", "list", "table", "inet", "acmegate"]),
                rules
            );
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(!host.is_open(80));
        });
    });
}

/// nft 1.0.6 knows `flags owner` but no name for `persist`.
fn without_flags(ruleset: &str) -> String {
    let lines = ruleset.lines().filter(|line| {
        let line = line.trim();
        !(line.starts_with("flags") && !line.contains("timeout") && !line.contains("interval"))
    });
    lines
        .filter(|line| !line.starts_with("table inet acmegate {"))
        .collect()
}

#[test]
fn a_bad_file_is_told_and_changes_nothing() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[http]\nhead_timeout = \"20s\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let (rules, windows) = (ruleset(), elements("window4").len());
        let peer = half_a_request(&host);
        for bad in [
            "[firewall]\nportz = [80]\n",
            "[window]\nmax = \"10\"\n",
            "no toml",
        ] {
            daemon.write_config(bad);
            daemon.signal(Signal::HUP);
            let problem = wait_for(SOON, "the bad file is told", || {
                let problems = daemon.status()["problems"].to_string();
                problems.contains("not accepted").then_some(problems)
            });
            assert!(problem.contains("config check"), "{problem}");
            // Loudly, and with the place.
            assert!(
                daemon.log().contains("the old one stays"),
                "{}",
                daemon.log()
            );
            assert_eq!(daemon.cli(&["config", "check"]).code, 78);
            assert_eq!(
                ruleset_without_times(&without_sources(&ruleset())),
                ruleset_without_times(&without_sources(&rules))
            );
            assert_eq!(elements("window4").len(), windows);
            daemon.write_config("[http]\nhead_timeout = \"20s\"\n");
            daemon.signal(Signal::HUP);
            wait_for(SOON, "the good file is taken", || {
                (daemon.status()["problems"] == serde_json::json!([])).then_some(())
            });
        }
        assert!(host.lets_in(80));
        assert_eq!(daemon.status()["leases"][0]["name"], "a");
        assert_answered(peer);
    });
}

/// `-s` leaves no counters, but elements keep their remaining time.
fn ruleset_without_times(ruleset: &str) -> String {
    let words = ruleset.split_whitespace().filter(|word| {
        let is_time = word.ends_with("ms") || word.ends_with("ms,");
        !is_time
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_reload_takes_effect_and_drops_nothing() {
    inside(|| {
        on_each_host(&["", "owner = \"never\"\n"], |host, owner| {
            let config = |more: &str, ports: &str| {
                format!(
                    "[http]\nhead_timeout = \"20s\"\n{more}[firewall]\n{owner}ports = {ports}\n"
                )
            };
            let daemon = Daemon::start(&config("", "[80]"));
            assert!(host.lets_in(8080), "not guarded yet");
            daemon
                .cli(&["open", "--lease", "a", "--for", "5m"])
                .success();
            let watch = host.watch(80);
            let peer = half_a_request(host);
            let reload = |text: &str| {
                let before = daemon.log().matches("configuration reloaded").count();
                daemon.write_config(text);
                daemon.signal(Signal::HUP);
                wait_for(SOON, "the reload", || {
                    (daemon.log().matches("configuration reloaded").count() > before).then_some(())
                });
            };
            let allow = "[allow]\nprefixes = [\"192.0.2.2\"]\n";
            reload(&config(allow, "[80, 8080]"));
            assert!(host.probe(HOST_4, 8080).passed(), "IPv4 is on the list now");
            assert!(
                !host.probe(HOST_6, 8080).passed(),
                "IPv6 is guarded now, and not on it"
            );
            daemon
                .cli(&["open", "--lease", "b", "--port", "8080"])
                .success();
            assert!(host.lets_in(8080));
            daemon.cli(&["close", "--lease", "b"]).success();
            reload(&config("[allow]\nlocal = false\n", "[80]"));
            assert!(host.lets_in(8080), "not guarded any more");
            let probes = watch.wait_until(std::time::Instant::now(), 2);
            assert!(probes.iter().all(|probe| probe.seen.passed()), "{probes:?}");
            assert_answered(peer);
            assert_eq!(daemon.status()["leases"][0]["name"], "a");
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(!host.is_open(80));
            assert!(
                !host.probe("10.0.0.1", 80).passed(),
                "local ranges were taken off"
            );
        });
    });
}

#[test]
fn a_reload_that_the_kernel_cannot_follow_is_told() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let daemon = Daemon::start(SET);
        nft(&["flush", "ruleset"]);
        lab::nft(&SET_BY_ADMINISTRATOR.replace("acmegate", "other"));
        daemon.write_config(&format!("[window]\nmax = \"1m\"\n{SET}"));
        daemon.signal(Signal::HUP);
        wait_for(SOON, "the reload", || {
            daemon
                .log()
                .contains("configuration reloaded")
                .then_some(())
        });
        let problems = daemon.status()["problems"].to_string();
        assert!(problems.contains("does not exist"), "{problems}");
        assert!(!host.is_open(80));
        // Both of them follow the new file.
        lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
        wait_for(SOON, "it heals", || {
            (daemon.status()["problems"] == serde_json::json!([])).then_some(())
        });
        assert_eq!(daemon.cli(&["open", "--for", "2m"]).code, 65);
        daemon.cli(&["open", "--for", "1m"]).success();
    });
}

fn half_a_request(host: &Host) -> TcpStream {
    let mut peer = host.connect(HOST_4, 80);
    peer.write_all(b"GET /x HTTP/1.1\r\n").expect("it is open");
    peer
}

fn assert_answered(mut peer: TcpStream) {
    peer.set_read_timeout(Some(SOON)).expect("a timeout");
    peer.write_all(b"Host: a.example.com\r\n\r\n")
        .expect("it is open");
    let mut answer = String::new();
    peer.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
}

#[test]
fn a_port_that_no_window_opens_is_told_for_as_long_as_it_is_so() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let problems = || daemon.status()["problems"].to_string();
        let reload = |text: &str, is_told: bool| {
            daemon.write_config(text);
            daemon.signal(Signal::HUP);
            wait_for(SOON, "it is told", || {
                (problems().contains("listens on port 80 but") == is_told).then_some(())
            });
        };
        assert_eq!(problems(), "[]");
        reload("[firewall]\nports = [443]\n", true);
        // A file that is refused mends nothing.
        daemon.write_config("no toml");
        daemon.signal(Signal::HUP);
        wait_for(SOON, "the bad file is told", || {
            problems().contains("not accepted").then_some(())
        });
        assert!(problems().contains("listens on port 80 but"));
        reload("", false);
        assert_eq!(problems(), "[]");
        assert!(!host.is_open(80));
    });
}
