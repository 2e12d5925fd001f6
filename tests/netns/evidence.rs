//! Who came to an open window, and who got through: what the kernel saw of it, as the enforcer tells it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use acmegate::firewall::enforcer::Orders;
use acmegate::firewall::message::{Claim, Request};
use acmegate::firewall::ruleset::{Divert, Settings};
use acmegate::gate::event::{Evidence, Sight, Sighting, Tally};

use crate::divert::{Published, published};
use crate::enforcing::{self, Enforcing};
use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen, on_each_host};
use crate::kernel::nft;
use crate::lab::{self, inside, wait_for};
use crate::mixed::{Gate, own_table_or_none};
use crate::raw::{self, ACK, SYN, Segment};
use crate::scope::Way;

pub const SOON: Duration = Duration::from_secs(60);
/// The peer's own addresses.
pub const PEERS: [&str; 2] = ["192.0.2.2", "2001:db8:1::2"];
pub const GUARD: &str = "[firewall]\nports = [80, 443]\n";

/// What was told of one source and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub packets: u64,
    pub reached: bool,
    /// By which table, chain and rule.
    pub dropped: Option<[String; 3]>,
}

/// Everything that was told.
pub struct Report<'enforcing> {
    enforcing: &'enforcing Enforcing,
    all: RefCell<Vec<Evidence>>,
}

impl<'enforcing> Report<'enforcing> {
    pub fn of(enforcing: &'enforcing Enforcing) -> Self {
        Self {
            enforcing,
            all: RefCell::default(),
        }
    }

    pub fn sources(&self) -> BTreeMap<(IpAddr, u16), Known> {
        self.all.borrow_mut().extend(self.enforcing.evidence());
        let mut sources: BTreeMap<_, Known> = BTreeMap::new();
        for seen in self.all.borrow().iter() {
            let Evidence::Sighted(Sighting {
                source,
                port,
                sight,
            }) = seen
            else {
                continue;
            };
            let known = sources.entry((*source, *port)).or_default();
            match sight {
                Sight::Seen { packets, ago } => {
                    assert!(*ago < Duration::from_secs(31), "{ago:?}");
                    known.packets = *packets;
                }
                Sight::Reached => known.reached = true,
                Sight::Dropped { table, chain, rule } => {
                    let rule = rule.clone().unwrap_or_else(|| "policy".to_owned());
                    known.dropped = Some([table.clone(), chain.clone(), rule]);
                }
            }
        }
        sources
    }

    pub fn of_source(&self, source: &str, port: u16) -> Known {
        let source = source.parse().expect("an address");
        self.sources().remove(&(source, port)).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for(&self, source: &str, port: u16, is_so: impl Fn(&Known) -> bool) -> Known {
        wait_for(SOON, "it is told", || {
            Some(self.of_source(source, port)).filter(&is_so)
        })
    }

    pub fn tally(&self) -> Tally {
        self.sources();
        let all = self.all.borrow();
        let mut tallies = all.iter().rev().filter_map(|seen| match seen {
            Evidence::Tallied(tally) => Some(tally.clone()),
            Evidence::Sighted(_) => None,
        });
        tallies.next().unwrap_or_default()
    }
}

pub fn listen(port: u16) {
    let listener = TcpListener::bind(("::", port)).expect("a free port");
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

#[test]
fn who_came_and_who_got_through_is_told_of_both_families() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        let report = Report::of(enforcing);
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence, "shut");
        enforcing.open(&[80, 443]);
        for (to, from) in [HOST_4, HOST_6].into_iter().zip(PEERS) {
            assert_eq!(host.probe(to, 80), Seen::Connected);
            report.wait_for(from, 80, |known| known.packets == 1 && known.reached);
            // Nobody listens there: its reset is no finished handshake.
            assert_eq!(host.probe(to, 443), Seen::Refused);
            let known = report.wait_for(from, 443, |known| known.packets == 1);
            assert!(!known.reached);
        }
        let tally = report.tally();
        assert_eq!((tally.packets, tally.seen, tally.reached), (4, 4, 2));
        assert!(tally.is_kept && tally.incomplete.is_none(), "{tally:?}");
        // Whoever has the answer has the evidence: of the connection just before, too.
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        enforcing.close();
        let known = report.of_source(PEERS[0], 80);
        assert_eq!((known.packets, known.reached), (2, true));
        // What comes to a shut port is nobody's business.
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        enforcing.open(&[80]);
        enforcing.close();
        assert_eq!(report.tally().packets, 5);
    });
}

#[test]
fn who_got_through_is_told_in_every_mode() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            listen(80);
            let enforcing = &Enforcing::start(enforcing::orders(way.prepare()));
            let report = Report::of(enforcing);
            enforcing.open(&[80]);
            for (to, from) in [HOST_4, HOST_6].into_iter().zip(PEERS) {
                assert!(host.probe(to, 80) == Seen::Connected, "{way:?} {to}");
                report.wait_for(from, 80, |known| known.packets == 1 && known.reached);
            }
            // Whom the allow-list has is nobody's business.
            assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
            enforcing.close();
            assert_eq!(report.sources().len(), 2);
        });
    });
}

fn diverted(orders: Orders) -> Orders {
    Orders {
        settings: Settings {
            divert: vec![Divert { port: 80, to: 8402 }],
            ..orders.settings
        },
        ..orders
    }
}

#[test]
fn who_got_through_to_the_gate_beside_a_site_is_told_in_every_mode() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let _gate = Gate::start(&[], &[8402]);
            let orders = enforcing::orders(way.prepare());
            let enforcing = &Enforcing::start(diverted(orders));
            let report = Report::of(enforcing);
            enforcing.open(&[80]);
            for (to, from) in [HOST_4, HOST_6].into_iter().zip(PEERS) {
                let answer = crate::divert::get(host, to, "/");
                assert_eq!(answer, "the gate at 8402", "{way:?}");
                report.wait_for(from, 80, |known| known.packets == 1 && known.reached);
            }
            enforcing.close();
        });
    });
}

#[test]
fn who_got_through_to_a_container_is_told() {
    inside(|| {
        let Published { host, .. } = &published();
        for to in [HOST_4, HOST_6] {
            wait_for(SOON, "the container answers", || {
                (host.probe(to, 80) == Seen::Connected).then_some(())
            });
        }
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        let report = Report::of(enforcing);
        enforcing.open(&[80]);
        for (to, from) in [HOST_4, HOST_6].into_iter().zip(PEERS) {
            assert_eq!(
                host.probe(to, 80),
                Seen::Connected,
                "{to}: {}",
                lab::ruleset()
            );
            report.wait_for(from, 80, |known| known.packets == 1 && known.reached);
        }
        // Who is dropped on the way to it is not.
        lab::nft(
            "table inet filter { chain forward { type filter hook forward priority filter;
             meta nfproto ipv4 tcp flags syn drop
             }
             }",
        );
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        enforcing.close();
        assert_eq!(report.of_source(PEERS[0], 80).packets, 2);
        assert_eq!(report.tally().reached, 2);
    });
}

/// Forged packets of all kinds that do not need an answer read.
#[test]
fn nobody_gets_through_by_forged_packets() {
    inside(|| {
        on_each_host(&[false, true], |host, is_diverted| {
            let _gate = Gate::start(&[80], &[8402]);
            let orders = enforcing::orders(GUARD);
            let enforcing = &Enforcing::start(match is_diverted {
                true => diverted(orders),
                false => orders,
            });
            lab::ip("route add default via 192.0.2.2");
            let report = Report::of(enforcing);
            enforcing.open(&[80]);
            host.outside(|| {
                let to = (HOST_4.parse().expect("an address"), 80);
                let rounds = [ACK, ACK, SYN, ACK, ACK, ACK | 0x08, 0x11, 0x14];
                for (round, flags) in rounds.into_iter().enumerate() {
                    raw::send((1..=50).map(|host| Segment {
                        from: ([203, 0, 113, host].into(), 40_000),
                        to,
                        flags,
                        sequence: 1000 + round as u32,
                    }));
                }
            });
            report.wait_for("203.0.113.50", 80, |known| known.packets == 1);
            enforcing.close();
            let tally = report.tally();
            assert_eq!(
                (tally.packets, tally.seen, tally.reached),
                (50, 50, 0),
                "diverted: {is_diverted}"
            );
        });
    });
}

/// What the chains that observe cannot do must not matter to anybody's packets.
#[test]
fn full_sets_change_no_packets_fate() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let mut orders = enforcing::orders(GUARD);
        orders.settings.owned = false;
        let enforcing = Enforcing::start(orders);
        enforcing.open(&[80]);
        // The window stays without its enforcer, who would not suffer what follows.
        drop(enforcing);
        let count = |name: &str| -> u64 {
            let listed = nft(&["list", "counter", "inet", "acmegate", name]);
            let words: Vec<&str> = listed.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "packets");
            words[at.expect("a counter") + 1].parse().expect("a number")
        };
        for set in ["seen4", "reached4", "trace4"] {
            let size = if set == "trace4" { 64 } else { 65_535 };
            // As much as one message holds.
            let numbers: Vec<u32> = (0..size).collect();
            for (at, numbers) in numbers.chunks(2000).enumerate() {
                let elements = numbers.iter().map(|number| {
                    let [_, a, b, c] = number.to_be_bytes();
                    format!("198.{}.{b}.{c} . 80 timeout 60s", 18 + a)
                });
                let elements: Vec<String> = elements.collect();
                let flush = match at {
                    0 => format!("flush set inet acmegate {set}\n"),
                    _ => String::new(),
                };
                lab::nft(&format!(
                    "{flush}add element inet acmegate {set} {{ {} }}",
                    elements.join(", ")
                ));
            }
        }
        let before = (count("arrived"), count("kept"));
        for _ in 0..3 {
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
            assert_eq!(host.probe(HOST_6, 80), Seen::Connected);
        }
        let after = (count("arrived"), count("kept"));
        assert_eq!(after.0 - before.0, 6, "all of them were counted");
        assert_eq!(after.1 - before.1, 3, "and those of IPv4 had no room");
    });
}

fn without_evidence(mut orders: Orders) -> Orders {
    orders.settings.observe = false;
    orders.settings.owned = false;
    orders
}

fn observed(orders: Orders) -> Orders {
    let mut orders = without_evidence(orders);
    orders.settings.observe = true;
    orders
}

/// How the kernel names what it made: who is made anew is called otherwise.
fn handle_of_windows() -> String {
    let listed = nft(&["-a", "list", "table", "inet", "acmegate"]);
    let line = listed.lines().find(|line| line.contains("set window4 "));
    line.expect("the set").to_owned()
}

#[test]
fn without_evidence_nothing_of_it_stands_and_a_reload_follows_in_place() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let orders = || enforcing::orders(GUARD);
        let plain = {
            let _none = Enforcing::start(without_evidence(orders()));
            own_table_or_none().expect("a table")
        };
        for word in [
            "seen",
            "reached",
            "trace",
            "arrived",
            "kept",
            "watch",
            "ct status",
        ] {
            assert!(!plain.contains(word), "{word}: {plain}");
        }
        let handle = handle_of_windows();
        // One of a version that did not observe is taken over, and its window with it.
        let enforcing = &Enforcing::start(without_evidence(orders()));
        enforcing.open(&[80]);
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        let report = Report::of(enforcing);
        for _ in 0..2 {
            enforcing.reload(observed(orders()));
            assert_ne!(own_table_or_none().expect("a table"), plain);
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
            report.wait_for(PEERS[0], 80, |known| known.reached);
            enforcing.reload(without_evidence(orders()));
            assert_eq!(own_table_or_none().expect("a table"), plain);
            assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        }
        assert_eq!(handle_of_windows(), handle, "the table stays the same one");
    });
}

#[test]
fn a_table_that_did_not_observe_is_taken_over_with_its_window() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let orders = || enforcing::orders(GUARD);
        let before = Enforcing::start(without_evidence(orders()));
        before.open(&[80]);
        drop(before);
        let handle = handle_of_windows();
        let enforcing = &Enforcing::start(observed(orders()));
        let report = Report::of(enforcing);
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        report.wait_for(PEERS[0], 80, |known| known.packets == 1 && known.reached);
        assert_eq!(handle_of_windows(), handle, "the table stays the same one");
    });
}

/// The kernel's deadline of the lease is the end of a session too.
#[test]
fn a_lease_that_ends_by_itself_is_looked_after_once_more() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        let report = Report::of(enforcing);
        let opened = Instant::now();
        let claim = Claim {
            length: Duration::from_millis(1500),
            ..crate::enforcer::claim("a")
        };
        enforcing.ask(&Request::Open(claim));
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        report.wait_for(PEERS[0], 80, |known| known.reached);
        let tallies = || {
            report.sources();
            let all = report.all.borrow();
            let told = all
                .iter()
                .filter(|seen| matches!(seen, Evidence::Tallied(_)));
            told.count()
        };
        // Nothing is new, and yet it is told that this is all.
        let mut before = tallies();
        wait_for(SOON, "the last tally", || {
            let is_over = opened.elapsed() >= Duration::from_millis(1500);
            if !is_over {
                before = tallies();
            }
            (tallies() > before).then_some(())
        });
        let last = tallies();
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        assert_eq!(tallies(), last, "nobody looks any more");
    });
}
