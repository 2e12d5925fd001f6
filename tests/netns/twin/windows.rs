//! Our own table in the twin: shut and open it does to packets what the kernel's own does.

use std::time::{Duration, Instant};

use acmegate::doctor::path::Fate;
use acmegate::doctor::twin::Window;
use acmegate::firewall::netlink::Kernel;
use acmegate::firewall::ruleset::{Divert, Settings};
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use acmegate::gate::window::Windows;

use super::{ask, knock, order, shut_and_open};
use crate::enforcing::orders;
use crate::world::{LISTED_4, PEER_4, PEER_6, World, inside};

const SOURCES: [&str; 3] = [PEER_4, LISTED_4, PEER_6];

fn settings(mode: &str) -> Settings {
    let text = format!("[firewall]\nports = [80]\n{mode}\n");
    let listed = AllowList::new([format!("{LISTED_4}/32").parse().expect("a prefix")]);
    orders(&text).settings.with_allow(listed.into())
}

fn one_lease() -> Windows {
    let mut windows = Windows::default();
    windows.adopt(Lease {
        id: 1,
        name: LeaseName::parse("test").expect("a name"),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: Instant::now() + Duration::from_secs(300),
    });
    windows
}

impl World {
    /// Which sources get through in a twin: shut, then open.
    fn told(&self, settings: &Settings) -> [Vec<bool>; 2] {
        let knocks = SOURCES.map(|source| knock(source, 80)).into();
        let answer = ask(&shut_and_open(settings.clone(), knocks)).expect("a twin");
        assert!(answer.has_guard, "{:?}", answer.not_carried);
        assert_eq!(answer.not_carried, Vec::<String>::new());
        let passes = |fates: &Vec<Fate>| fates.iter().map(Fate::passes).collect();
        [passes(&answer.fates[0]), passes(&answer.fates[1])]
    }

    /// Which sources get through in truth.
    fn seen(&self, expected: &[bool]) -> Vec<bool> {
        let sources = SOURCES.iter().zip(expected);
        sources
            .map(|(source, expected)| self.connects(source, 80, *expected))
            .collect()
    }

    fn agrees_in_windows(&self, what: &str, settings: &Settings, shut: [bool; 3]) {
        // Before our table is there, and with it, shut and open.
        let told = self.told(settings);
        let mut kernel = self.block_on(async { Kernel::connect() }).expect("netlink");
        for (index, windows) in [Windows::default(), one_lease()].into_iter().enumerate() {
            let now = Instant::now();
            self.block_on(kernel.ensure_whole(settings, &windows, now))
                .expect("our table");
            self.block_on(kernel.rewrite(settings, &windows, now))
                .expect("the windows");
            assert_eq!(self.seen(&told[index]), told[index], "{what}, run {index}");
            assert_eq!(self.told(settings), told, "{what}, run {index}, copied");
        }
        assert_eq!(told[0], shut, "{what}, shut");
        assert_eq!(told[1], [true, true, true], "{what}, open");
    }
}

#[test]
fn a_guards_window_is_shut_and_opened() {
    inside(
        "twin::windows::a_guards_window_is_shut_and_opened",
        |world| {
            world.nft(
            "table inet filter { chain input { type filter hook input priority filter; policy drop;
                tcp dport 80 accept
            }\n }",
        );
            let guard = settings("mode = \"guard\"");
            world.agrees_in_windows("guard", &guard, [false, true, false]);
        },
    );
}

#[test]
fn an_administrators_set_is_emptied_and_filled() {
    inside(
        "twin::windows::an_administrators_set_is_emptied_and_filled",
        |world| {
            world.nft(&format!(
                "table inet filter {{
                set acmegate {{ type inet_service; flags timeout; }}
                chain input {{ type filter hook input priority filter; policy drop;
                    ip saddr {LISTED_4} accept
                    tcp dport @acmegate accept
                }}
            }}"
            ));
            let set = settings("mode = \"set\"\nset = \"inet filter acmegate\"");
            world.agrees_in_windows("set", &set, [false, true, false]);
        },
    );
}

#[test]
fn a_chain_is_attached_to() {
    inside("twin::windows::a_chain_is_attached_to", |world| {
        world.nft(
            "table inet filter { chain input { type filter hook input priority filter; policy drop;
                tcp dport 22 accept
            }\n }",
        );
        let attach = settings("mode = \"attach\"\nchains = [\"inet filter input\"]");
        // The chain's own rules accept nobody else.
        world.agrees_in_windows("attach", &attach, [false; 3]);
    });
}

/// TPROXY finds nobody where nobody listens: the twin listens as the gate does.
#[test]
fn what_is_diverted_is_delivered() {
    inside("twin::windows::what_is_diverted_is_delivered", |world| {
        let settings = Settings {
            divert: vec![Divert { port: 80, to: 8402 }],
            ..settings("mode = \"guard\"")
        };
        world.nft("");
        let [shut, open] = world.told(&settings);
        assert_eq!(shut, [false, true, false]);
        assert_eq!(open, [true, true, true]);
    });
}

/// A set that the configuration names and nobody made: without it no window opens anything.
#[test]
fn what_our_part_needs_and_is_not_there_is_said() {
    let name = "twin::windows::what_our_part_needs_and_is_not_there_is_said";
    inside(name, |world| {
        world.nft("table inet filter { chain input { type filter hook input priority 0; policy drop; }\n }");
        let asked = shut_and_open(
            settings("mode = \"set\"\nset = \"inet filter acmegate\""),
            vec![knock(PEER_4, 80)],
        );
        let answer = ask(&asked).expect("a twin");
        assert!(!answer.has_guard);
        let told = answer.not_carried.join("\n");
        assert!(told.contains("acmegate's own part: "), "{told}");
        assert!(answer.fates.iter().flatten().all(|fate| !fate.passes()));
    });
}

#[test]
fn no_window_without_settings() {
    let asked = acmegate::doctor::twin::Order {
        windows: vec![Window::Open],
        ..order(acmegate::doctor::twin::Source::Live, Vec::new())
    };
    assert!(ask(&asked).is_err());
}
