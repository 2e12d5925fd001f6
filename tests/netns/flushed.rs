//! Somebody else empties the ruleset, again and again, while a window is open.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{HOST_4, Host};
use crate::kernel::{SHUT, elements, elements_of, nft, open_ports, without_sources};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, inside, wait_for};

/// How long what was taken away may take to come back. It takes milliseconds; this is a busy host.
const BACK: Duration = Duration::from_secs(5);
const ROUNDS: usize = 20;

fn gaps(daemon: &Daemon) -> u64 {
    daemon.status()["firewall"]["gaps"]
        .as_u64()
        .expect("a number")
}

#[test]
fn an_owned_table_survives_every_flush_untouched() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let status = daemon.status();
        assert_eq!(
            status["firewall"]["owned"], true,
            "this needs Linux 6.9: {status}"
        );
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let before = without_sources(&nft(&["-s", "list", "ruleset"]));
        let watch = host.watch(80);
        let mut left = 300;
        for _ in 0..ROUNDS {
            lab::nft("flush ruleset\ntable ip somebody { }\nflush ruleset\n");
            let now = elements("window4")[&80].seconds_left.expect("a timeout");
            assert!(
                now <= left,
                "the same element all the time: {now} after {left}"
            );
            left = now;
        }
        assert_eq!(without_sources(&nft(&["-s", "list", "ruleset"])), before);
        let probes = watch.wait_until(Instant::now(), 2);
        assert!(probes.iter().all(|probe| probe.seen.passed()), "{probes:?}");
        assert_eq!(gaps(&daemon), 0);
        // Nobody else can write into it either.
        let mut foreign = Command::new("nft");
        foreign.args([
            "add",
            "element",
            "inet",
            "acmegate",
            "window4",
            "{ 443 timeout 1h }",
        ]);
        assert_ne!(lab::run(foreign, BACK).code, 0);
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
    });
}

#[test]
fn a_table_that_anyone_can_flush_comes_back_with_its_windows() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let (opened, before) = (Instant::now(), nft(&["-s", "-t", "list", "ruleset"]));
        for round in 1..=ROUNDS {
            nft(&["flush", "ruleset"]);
            wait_for(BACK, "our table is back", || {
                (nft(&["-s", "-t", "list", "ruleset"]) == before).then_some(())
            });
            wait_for(BACK, "the gap is told", || {
                (gaps(&daemon) >= round as u64).then_some(())
            });
        }
        assert!(host.lets_in(80));
        for set in ["window4", "window6", "lease"] {
            let element = elements(set).into_values().next().expect("it is back");
            let left = element.seconds_left.expect("a timeout") + opened.elapsed().as_secs();
            assert!((297..=301).contains(&left), "{set}: {left} of 300");
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        // Shut comes back as well, and it does so without a window.
        nft(&["flush", "ruleset"]);
        wait_for(BACK, "shut again", || (!host.is_open(80)).then_some(()));
    });
}

/// What anyone can write into a table that is not owned, short of taking it away.
#[test]
fn a_window_that_somebody_else_changed_is_put_right() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        let put_right = |open: bool| {
            wait_for(BACK, "it is put right", || {
                let sets = ["window4", "window6"].map(elements);
                let mut times = sets
                    .iter()
                    .map(|set| set.get(&80).map(|port| port.seconds_left));
                let is_right = match open {
                    true => times.all(|left| left.is_some_and(|left| left <= Some(60))),
                    false => times.all(|left| left.is_none()),
                };
                is_right.then_some(())
            });
            assert_eq!(host.is_open(80), open);
        };
        // Opened by nobody, for a while or for ever.
        for element in ["{ 80 timeout 1h }", "{ 80 timeout 5s }"] {
            nft(&["add", "element", "inet", "acmegate", "window4", element]);
        }
        put_right(false);
        daemon
            .cli(&["open", "--lease", "a", "--for", "1m"])
            .success();
        nft(&["flush", "set", "inet", "acmegate", "window6"]);
        put_right(true);
        // Prolonged.
        let script = "delete element inet acmegate window4 { 80 }
            add element inet acmegate window4 { 80 timeout 1h }";
        lab::nft(script);
        put_right(true);
        wait_for(BACK, "it is told", || (gaps(&daemon) >= 3).then_some(()));
    });
}

#[test]
fn an_administrators_reload_gets_our_element_back() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let set = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";
        let daemon = Daemon::start(set);
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let opened = Instant::now();
        for _ in 0..ROUNDS {
            // As `systemctl reload nftables` does: one transaction.
            lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
            let element = wait_for(BACK, "our element is back", || {
                elements_of("inet filter", "acmegate").get(&80).cloned()
            });
            let left = element.seconds_left.expect("a timeout") + opened.elapsed().as_secs();
            assert!((297..=301).contains(&left), "{left} of 300");
        }
        wait_for(BACK, "open again", || host.lets_in(80).then_some(()));
        assert!(gaps(&daemon) >= 1);
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
        let back = elements("grace4").contains_key(&80);
        assert!(
            !host.is_open(80),
            "nothing comes back that was closed; grace: {back}"
        );
    });
}

#[test]
fn a_missing_set_is_shut_and_said_and_heals() {
    inside(|| {
        let host = Host::new();
        let without = SET_BY_ADMINISTRATOR
            .lines()
            .filter(|line| !line.contains("acmegate"))
            .collect::<Vec<_>>()
            .join("\n");
        lab::nft(&without);
        let set = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";
        let daemon = Daemon::start(set);
        let problems = daemon.status()["problems"].to_string();
        assert!(
            problems.contains("`inet filter acmegate` does not exist"),
            "{problems}"
        );
        assert_eq!(daemon.status()["firewall"]["installed"], false);
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 78, "{refused}");
        assert_eq!(daemon.cli(&["firewall", "apply"]).code, 78);
        assert!(
            refused.stderr.contains("flags timeout"),
            "what to write: {refused}"
        );
        assert!(!host.is_open(80));
        assert_eq!(daemon.status()["leases"], serde_json::json!([]));

        lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
        wait_for(BACK, "it heals", || {
            (daemon.status()["problems"] == serde_json::json!([])).then_some(())
        });
        assert_eq!(daemon.status()["firewall"]["installed"], true);
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));

        // A set that ports do not fit into is no set for us.
        lab::nft(&format!(
            "flush ruleset\n{}",
            SET_BY_ADMINISTRATOR.replace("type inet_service; flags timeout", "type inet_service")
        ));
        let problems = wait_for(BACK, "it is told", || {
            let problems = daemon.status()["problems"].to_string();
            problems.contains("flags").then_some(problems)
        });
        assert!(problems.contains("other flags than"), "{problems}");
        assert_eq!(open_ports().len(), SHUT.len());
        assert!(!host.probe(HOST_4, 80).passed());
    });
}

#[test]
fn lists_and_windows_that_somebody_empties_are_filled_again() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let before = nft(&["-s", "list", "ruleset"]);
        let allow4 = before
            .split_whitespace()
            .find(|word| word.starts_with("allow4_"))
            .expect("the allow-list")
            .to_owned();
        for set in [allow4.as_str(), "window4", "lease"] {
            nft(&["flush", "set", "inet", "acmegate", set]);
            wait_for(BACK, "what was emptied is filled again", || {
                (elements("window4").contains_key(&80)
                    && !elements("lease").is_empty()
                    && nft(&["list", "set", "inet", "acmegate", &allow4]).contains("10.0.0.0/8"))
                .then_some(())
            });
        }
        assert!(host.is_open(80));
        // The enforcer tells of a gap when it has filled it.
        let told = wait_for(BACK, "all three are told", || {
            Some(gaps(&daemon)).filter(|told| *told >= 3)
        });
        // Once all is back nothing is done any more: the ruleset's generation stands still.
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(gaps(&daemon), told);
        assert!(!host.is_open(80));
    });
}

/// A geo-blocker's lists are so many events that some are lost, here because nobody reads them in
/// time; a flush must not be among what is missed.
#[test]
fn a_flood_of_events_hides_no_flush() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        deafen(&daemon, "flush ruleset");
        assert!(elements("window4").is_empty(), "the control: it is gone");
        lab::send(daemon.enforcer(), Signal::CONT);
        wait_for(BACK, "our element is back", || {
            elements("window4").contains_key(&80).then_some(())
        });
        assert!(lost_events() > 0, "the control: events were lost");
        assert!(host.lets_in(80));
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        // It waits for the next one, and does nothing meanwhile.
        let ticks = || cpu_ticks(daemon.enforcer());
        let before = ticks();
        let start = Instant::now();
        wait_for(BACK, "a quiet second", || {
            (start.elapsed() > Duration::from_secs(1)).then_some(())
        });
        assert!(ticks() - before < 20, "it spins");
    });
}

/// Where nobody touched our table, a storm of other changes is no reason to make it anew; what was
/// put into it unheard is out again.
#[test]
fn lost_events_alone_are_no_gap() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        deafen(&daemon, "delete table ip blocker");
        assert!(lost_events() > 0, "the control: events were lost");
        // After the first that was lost nobody hears of this one.
        let foreign = "{ 192.0.2.1 . 443 timeout 1h }";
        nft(&["add", "element", "inet", "acmegate", "window_to4", foreign]);
        lab::send(daemon.enforcer(), Signal::CONT);
        wait_for(BACK, "what was put there unheard is gone", || {
            let set = nft(&["list", "set", "inet", "acmegate", "window_to4"]);
            (!set.contains("443")).then_some(())
        });
        assert!(host.lets_in(80));
        assert_eq!(gaps(&daemon), 0, "{}", daemon.log());
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
    });
}

/// Stops the enforcer and has a geo-blocker come and go, by `last`, until events are lost to it.
fn deafen(daemon: &Daemon, last: &str) {
    let list: Vec<_> = (0..1000u32)
        .map(|number| std::net::Ipv4Addr::from(0x0b00_0000 + number * 2).to_string())
        .collect();
    let script = format!(
        "table ip blocker {{\n set many {{\n type ipv4_addr; elements = {{ {} }}\n }}\n }}\n{last}\n",
        list.join(", ")
    );
    lab::send(daemon.enforcer(), Signal::STOP);
    for _ in 0..500 {
        lab::nft(&script);
        if lost_events() > 0 {
            break;
        }
    }
}

/// The events that sockets of this namespace have lost.
fn lost_events() -> u64 {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink");
    let sockets = sockets.expect("netlink(7)");
    sockets.lines().skip(1).filter_map(drops).sum()
}

/// `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn drops(line: &str) -> Option<u64> {
    line.split_whitespace().nth(8)?.parse().ok()
}

/// Ticks of a hundredth of a second that a process used (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("our own process");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    ticks(11) + ticks(12)
}
