//! List files that change under a running daemon: what kernel and gate make of them, and what the status
//! says. A change is seen at the second look after it, so within twenty seconds.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

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
            let mut before = lists_in_use();
            let mut lists = (0..).map(long_list);
            let mut fill = || {
                rename(&directory, &lists.next().expect("a list"));
                daemon.signal(rustix::process::Signal::HUP);
            };
            fill();
            wait_for(SOON, "a part of it is there", || {
                if lists_there().len() > 2 {
                    return Some(());
                }
                // Filled and in use between two looks of a busy machine: the next one, then.
                let now = lists_in_use();
                if now != before {
                    before = now;
                    fill();
                }
                None
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

/// A database of 2^14 networks, each with a record of its own whose country is one map of 32,000 values: a
/// minute's work to read, or whatever the reader gives it.
fn heavy_database() -> Vec<u8> {
    let text = |text: &str| [&[2 << 5 | text.len() as u8], text.as_bytes()].concat();
    let number = |value: u16| [vec![5 << 5 | 2], value.to_be_bytes().to_vec()].concat();
    let leaves = 1u32 << 14;
    let inner = leaves - 1;
    let value = [text("a"), vec![1, 7]].concat();
    let mut data = vec![7 << 5 | 30];
    data.extend((32_000u16 - 285).to_be_bytes());
    data.extend(value.repeat(32_000));
    let record = [
        vec![7 << 5 | 1],
        text("country"),
        vec![1 << 5 | 3 << 3, 0, 0, 0, 0],
    ]
    .concat();
    let first = inner + 16 + data.len() as u32;
    let child = |node: u32| match node.checked_sub(inner) {
        None => node,
        Some(leaf) => first + leaf * record.len() as u32,
    };
    let mut bytes = Vec::new();
    for node in 0..inner {
        let children = [2 * node + 1, 2 * node + 2].map(child);
        bytes.extend(children.iter().flat_map(|it| it.to_be_bytes()));
    }
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(record.repeat(leaves as usize));
    bytes.extend(b"\xab\xcd\xefMaxMind.com");
    bytes.push(7 << 5 | 9);
    for (key, value) in [
        ("binary_format_major_version", number(2)),
        ("binary_format_minor_version", number(0)),
        ("build_epoch", vec![1, 2, 1]),
        ("database_type", text("Heavy")),
        ("description", vec![7 << 5]),
        ("ip_version", number(4)),
        ("languages", vec![0, 4]),
        (
            "node_count",
            [vec![6 << 5 | 4], inner.to_be_bytes().to_vec()].concat(),
        ),
        ("record_size", number(32)),
    ] {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

/// What a process has had of the processors' time, in hundredths of a second (proc_pid_stat(5)).
fn time_spent(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse().expect("a number")
}

#[test]
fn an_end_does_not_wait_until_lists_are_read() {
    inside(|| {
        let _host = Host::new();
        let directory = TempDir::new();
        let path = directory.at("countries");
        let good = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/lists/mmdb/dbip-24.mmdb"
        );
        std::fs::copy(good, &path).expect("a new file");
        let text = format!("[allow]\ncountries = [\"LI\"]\ncountry_source = \"{path}\"\n");
        let mut daemon = Daemon::start(&text);
        std::fs::write(&path, heavy_database()).expect("a file");
        let before = time_spent(daemon.front());
        daemon.signal(Signal::HUP);
        wait_for(SOON, "it reads", || {
            (time_spent(daemon.front()) > before + 50).then_some(())
        });
        let told = Instant::now();
        assert_eq!(daemon.end_by(Signal::TERM), 0, "{}", daemon.log());
        // It gives up after 20 seconds of its own.
        assert!(
            told.elapsed() < Duration::from_secs(10),
            "{:?}",
            told.elapsed()
        );
    });
}
