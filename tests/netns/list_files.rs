//! List files that change under a running daemon: what kernel and gate make of them, and what the status
//! says. A change is seen at the second look after it, so within twenty seconds.

use std::path::Path;
use std::time::Duration;

use crate::divert::get;
use crate::host::{HOST_4, HOST_PRIVATE, Host, Seen, on_each_host};
use crate::kernel::nft;
use crate::lab::{Daemon, TempDir, inside, wait_for};
use crate::lists::{count_in_kernel, lists_there};

/// Two looks, and a busy machine.
const TWO_LOOKS: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(60);
/// The foreign peer.
const PEER: &str = "192.0.2.2";
const OTHERS: &str = "198.51.100.0/24\n203.0.113.0/24\n2001:db8:77::/48\n";

/// Puts a list in the place of another, as who fetches lists should.
fn rename(directory: &TempDir, content: &str) {
    let new = directory.write("countries.new", content);
    std::fs::rename(new, directory.at("countries")).expect("one file system");
}

fn config(directory: &TempDir, more: &str) -> String {
    let path = directory.at("countries");
    format!("[allow]\nfiles = [\"{path}\"]\n{more}")
}

fn problems(daemon: &Daemon) -> String {
    daemon.status()["problems"].to_string()
}

/// What the rules read.
fn lists_in_use() -> String {
    let table = nft(&["-t", "list", "chain", "inet", "acmegate", "decide"]);
    let words = table
        .split_whitespace()
        .filter(|word| word.starts_with("@allow"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_list_that_is_replaced_is_followed_by_the_kernel_and_by_the_gate() {
    inside(|| {
        on_each_host(&["guard", "gate-only"], |host, mode| {
            let directory = TempDir::new();
            rename(&directory, OTHERS);
            let more = format!(
                "[firewall]\nmode = \"{mode}\"\n[http]\nredirect_for = \"allow-list\"\n[[site]]\nidentifiers = [\"www.example.com\"]\n"
            );
            let _daemon = Daemon::start(&config(&directory, &more));
            let redirected = || get(host, HOST_4, "/").starts_with("HTTP/1.1 301 ");
            let is_served = || match mode {
                "guard" => host.probe(HOST_4, 80) == Seen::Connected,
                _ => redirected(),
            };
            assert!(!is_served());
            rename(&directory, &format!("{OTHERS}{PEER}\n"));
            wait_for(TWO_LOOKS, "it is followed", || is_served().then_some(()));
            // Who passes the kernel is known to the gate.
            assert!(redirected());
            rename(&directory, OTHERS);
            wait_for(TWO_LOOKS, "it is followed", || (!is_served()).then_some(()));
        });
    });
}

/// What changes after a reload is read for the configuration that was reloaded, not for that of the
/// start: who was taken off by it does not come back.
#[test]
fn a_list_that_changes_after_a_reload_is_read_as_the_reload_wants_it() {
    inside(|| {
        let host = Host::new();
        let directory = TempDir::new();
        rename(&directory, OTHERS);
        let with_peer = format!("prefixes = [\"{PEER}\"]\n");
        let daemon = Daemon::start(&config(&directory, &with_peer));
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        daemon.write_config(&config(&directory, ""));
        daemon.signal(rustix::process::Signal::HUP);
        wait_for(SOON, "who was taken off is shut out", || {
            (host.probe(HOST_4, 80) != Seen::Connected).then_some(())
        });
        let before = lists_in_use();
        rename(&directory, &format!("{OTHERS}198.18.0.0/15\n"));
        wait_for(TWO_LOOKS, "the kernel has it", || {
            (lists_in_use() != before).then_some(())
        });
        assert_ne!(host.probe(HOST_4, 80), Seen::Connected);
        // And the last good content is that, not what there was at the reload.
        let last = lists_in_use();
        std::fs::write(directory.at("countries"), "none").expect("a file");
        daemon.signal(rustix::process::Signal::HUP);
        wait_for(SOON, "it is reloaded again", || {
            (daemon.log().matches("configuration reloaded").count() == 2).then_some(())
        });
        assert_eq!(lists_in_use(), last);
    });
}

#[derive(Clone, Copy, Debug)]
enum Mishap {
    Truncated,
    Emptied,
    Tiny,
    Gone,
}

#[test]
fn a_list_that_turns_bad_keeps_its_last_good_content_and_is_told_until_it_is_mended() {
    inside(|| {
        let cases = [
            Mishap::Truncated,
            Mishap::Emptied,
            Mishap::Tiny,
            Mishap::Gone,
        ];
        on_each_host(&cases, |host, mishap| {
            let directory = TempDir::new();
            let good = format!("{PEER}\n{OTHERS}");
            rename(&directory, &good);
            let daemon = Daemon::start(&config(&directory, ""));
            let before = lists_in_use();
            let is_as_before = || {
                assert_eq!(host.probe(HOST_4, 80), Seen::Connected, "{mishap:?}");
                assert!(
                    get(host, HOST_4, "/").starts_with("HTTP/1.1 "),
                    "{mishap:?}"
                );
                assert_eq!(lists_in_use(), before, "{mishap:?}");
            };
            is_as_before();
            assert_eq!(problems(&daemon), "[]");
            let path = directory.at("countries");
            match mishap {
                Mishap::Truncated => {
                    let half = &good[..good.len() - 9];
                    std::fs::write(&path, half).expect("a file");
                }
                Mishap::Emptied => std::fs::write(&path, "").expect("a file"),
                Mishap::Tiny => std::fs::write(&path, "203.0.113.7\n").expect("a file"),
                Mishap::Gone => std::fs::remove_file(&path).expect("it was there"),
            }
            wait_for(TWO_LOOKS, "it is told", || {
                problems(&daemon).contains(&path).then_some(())
            });
            is_as_before();
            // A reload takes what is small, and nothing that is bad.
            if !matches!(mishap, Mishap::Tiny) {
                daemon.signal(rustix::process::Signal::HUP);
                wait_for(SOON, "it is reloaded", || {
                    daemon
                        .log()
                        .contains("configuration reloaded")
                        .then_some(())
                });
                assert!(problems(&daemon).contains(&path), "{mishap:?}");
                is_as_before();
            }
            rename(&directory, &format!("{good}198.18.0.0/15\n"));
            wait_for(TWO_LOOKS, "it is mended", || {
                (problems(&daemon) == "[]").then_some(())
            });
            wait_for(SOON, "the kernel has it", || {
                (lists_in_use() != before).then_some(())
            });
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected, "{mishap:?}");
        });
    });
}

/// As many ranges as are many portions.
fn long_list(seed: u32) -> String {
    let lines = (0..40_000u32).map(|at| {
        let address = std::net::Ipv4Addr::from_bits(0x1400_0000 + seed + at * 4);
        format!("{address}\n")
    });
    lines
        .chain([format!("{PEER}\n"), OTHERS.to_owned()])
        .collect()
}

#[derive(Clone, Copy, Debug)]
enum Killed {
    Enforcer,
    Front,
    All,
}

#[test]
fn a_list_half_filled_by_a_killed_daemon_is_never_used() {
    inside(|| {
        let mut cases = Vec::new();
        for owner in ["auto", "never"] {
            cases.extend([Killed::Enforcer, Killed::Front, Killed::All].map(|who| (owner, who)));
        }
        on_each_host(&cases, |host, (owner, killed)| {
            let directory = TempDir::new();
            rename(&directory, &format!("{OTHERS}{PEER}\n"));
            let firewall = format!("[firewall]\nowner = \"{owner}\"\n");
            let mut daemon = Daemon::start(&config(&directory, &firewall));
            let before = lists_in_use();
            rename(&directory, &long_list(0));
            daemon.signal(rustix::process::Signal::HUP);
            wait_for(SOON, "a part of it is there", || {
                (lists_there().len() > 2).then_some(())
            });
            match killed {
                Killed::Enforcer => {
                    crate::lab::send(daemon.enforcer(), rustix::process::Signal::KILL)
                }
                Killed::Front => crate::lab::send(daemon.front(), rustix::process::Signal::KILL),
                Killed::All => daemon.kill(),
            }
            daemon.gone();
            assert_eq!(lists_in_use(), before, "{killed:?}");
            // The same list again, or another: what is there of it is of no use.
            daemon.start_again();
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
            wait_for(SOON, "it is whole", || {
                (problems(&daemon) == "[]").then_some(())
            });
            let there = lists_there();
            assert_eq!(there.len(), 2, "{there:?}");
            let list = there
                .iter()
                .find(|name| name.starts_with("allow4"))
                .expect("a list");
            assert!(lists_in_use().contains(list.as_str()));
            // Besides: the local networks, the peer and two others.
            assert_eq!(count_in_kernel(list), 40_000 + 5 + 3);
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
            assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
        });
    });
}

/// A first start fills the list before it shuts anything, and the command line like it.
#[test]
fn a_long_list_stands_after_a_start_and_after_apply() {
    inside(|| {
        let _host = Host::new();
        let directory = TempDir::new();
        rename(&directory, &long_list(0));
        let mut daemon = Daemon::start(&config(&directory, "[firewall]\nowner = \"never\"\n"));
        let whole = || {
            let there = lists_there();
            assert_eq!(there.len(), 2, "{there:?}");
            let list = there.iter().find(|name| name.starts_with("allow4"));
            assert_eq!(count_in_kernel(list.expect("a list")), 40_000 + 5 + 3);
            lists_in_use()
        };
        assert_eq!(problems(&daemon), "[]");
        let first = whole();
        daemon.kill();
        // Without a daemon: over a table that stands, and over one that somebody touched.
        rename(&directory, &long_list(1));
        daemon.cli(&["firewall", "apply"]).success();
        assert_ne!(whole(), first);
        nft(&["delete", "chain", "inet", "acmegate", "guard"]);
        daemon.cli(&["firewall", "apply"]).success();
        assert_ne!(whole(), first);
        daemon.cli(&["firewall", "remove"]).success();
        assert!(!Path::new(&directory.at("countries.new")).exists());
    });
}
