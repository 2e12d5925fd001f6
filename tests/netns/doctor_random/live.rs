//! The host under test: it is made what the live side says, and knocked at.

use std::time::{Duration, Instant};

use acmegate::doctor::path::{Knock, Protocol};
use acmegate::firewall::base_chains::{self, Routes};
use nlink::netlink::{Connection, Netfilter, Nftables, Route};

use super::cables::{Arrival, Cables, index, ip, ip6};
use super::reading::{self, Statement};
use super::side::{LiveSide, is_listed};
use super::tally::Tally;
use super::twin::{self, Twin};
use crate::lab::wait_for;
use crate::world::try_feed;

/// What the tally counts.
pub const ROUTED: &str = "= packets that routing lets through";
pub const PASSED: &str = "= … and that arrived";
pub const DROPPED: &str = "= … and that a rule dropped";
const UNROUTED: &str = "= packets lost on the way, whatever the rules";
const ELSEWHERE: &str = "= … and that arrived at another port";
const BEHIND: &str = "= … and that arrived at the host behind";
const BACK_OUT: &str = "= … and that were sent back out";
const LISTED: &str = "= … whose source stands in the lists";

const OVER_4: &str = "= … over IPv4";
const OVER_6: &str = "= … over IPv6";
const UDP: &str = "= … by UDP";

/// After it an element of `timeout 1ms` is gone: the kernel counts in jiffies, ten of which are 100 ms
/// at most.
const RUNS_OUT: Duration = Duration::from_millis(30);

/// A rule for each thing that a static reading takes for granted: the route back leads out where the
/// packet came in, and the address is that interface's.
const TAKEN_FOR_GRANTED: &str = "flush ruleset
table inet granted {
    chain first {
        type filter hook prerouting priority raw; policy accept;
        fib saddr . iif oif missing drop
        fib daddr . iif type != local drop
    }
}
";

pub struct Live {
    cables: Cables,
    runtime: tokio::runtime::Runtime,
    indexes: [u32; 2],
}

/// One packet, and all that is known of it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub knock: Knock,
    /// It arrives where no rule is.
    pub routed: bool,
    /// It is such a packet as a static reading is about.
    pub granted: bool,
    pub arrival: Option<Arrival>,
}

/// Everything that was seen of one live side, and what was said about it.
#[derive(Debug)]
pub struct Examined {
    packets: Vec<Seen>,
    statements: Vec<Statement>,
    twin: Twin,
}

impl Live {
    /// A host in the caller's own network namespace, which must be new.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            cables: Cables::lay(),
            runtime,
            indexes: [index("eth0"), index("eth1")],
        }
    }

    /// Makes the host what `side` says, reads it, knocks at it, and leaves it empty.
    pub fn examine(&self, side: &LiveSide, case: u32) -> Result<Examined, String> {
        for (path, value) in side.switches.settings() {
            std::fs::write(format!("/proc/sys/net/{path}"), value.to_string())
                .expect("our own network");
        }
        let [v4, v6] = side.put_up();
        ip(&v4);
        ip6(&v6);
        let examined = self.examine_routed(side, case);
        let [v4, v6] = side.take_down();
        ip(&v4);
        ip6(&v6);
        nft("flush ruleset")?;
        self.forget_connections();
        examined
    }

    fn examine_routed(&self, side: &LiveSide, case: u32) -> Result<Examined, String> {
        let knocks = side.knocks(case);
        let routed = self.cables.knock(&knocks);
        assert!(
            routed.iter().any(Option::is_some),
            "no packet arrives without any rule\n{side}"
        );
        nft(TAKEN_FOR_GRANTED)?;
        let granted = self.cables.knock(&knocks);
        nft(&format!("flush ruleset\n{}", side.nft))?;
        if let Some([v4, v6]) = &side.iptables {
            for (program, rules) in [("iptables-nft-restore", v4), ("ip6tables-nft-restore", v6)] {
                try_feed("iptables", program, &["--noflush"], rules)?;
            }
        }
        let loaded = Instant::now();
        if side.nft.contains("timeout 1ms") {
            wait_for(RUNS_OUT * 100, "the clock goes on", || {
                (loaded.elapsed() > RUNS_OUT).then_some(())
            });
        }
        let mut packets = Vec::new();
        let read = self.runtime.block_on(async {
            let routes = Routes::read(&Connection::<Route>::new()?).await?;
            let nft = Connection::<Nftables>::new()?;
            let ruleset = base_chains::read(&nft).await?;
            Ok::<_, nlink::Error>((ruleset, routes))
        });
        let (ruleset, routes) = read.expect("the kernel's own answer");
        // Before the packets come, which leave traces in sets.
        let twin = self.runtime.block_on(twin::ask(&knocks));
        let arrivals = self.cables.knock(&knocks);
        let outcomes = routed.into_iter().zip(granted).zip(arrivals);
        for (knock, ((routed, granted), arrival)) in knocks.into_iter().zip(outcomes) {
            packets.push(Seen {
                knock,
                routed: routed.is_some(),
                granted: granted.is_some(),
                arrival,
            });
        }
        let statements = reading::read(&ruleset, &routes, side, &packets, self.indexes);
        Ok(Examined {
            packets,
            statements,
            twin,
        })
    }

    /// A connection of the last live side is none of the next one's.
    fn forget_connections(&self) {
        let forgotten = self
            .runtime
            .block_on(async { Connection::<Netfilter>::new()?.flush_conntrack_all().await });
        forgotten.expect("connection tracking");
    }
}

impl Examined {
    /// Whether everything that was said for certain is so.
    pub fn agree(&self) -> Result<(), String> {
        self.statements
            .iter()
            .try_for_each(|statement| statement.agrees(&self.packets))?;
        self.twin.agrees(&self.packets)
    }

    pub fn count(&self, tally: &mut Tally) {
        for seen in &self.packets {
            if !seen.routed {
                tally.count(UNROUTED);
                continue;
            }
            tally.count(ROUTED);
            for (what, is_so) in [
                (LISTED, is_listed(seen.knock.source)),
                (OVER_4, seen.knock.source.is_ipv4()),
                (OVER_6, seen.knock.source.is_ipv6()),
                (UDP, seen.knock.protocol == Protocol::Udp),
            ] {
                if is_so {
                    tally.count(what);
                }
            }
            tally.count(match seen.arrival {
                Some(_) => PASSED,
                None => DROPPED,
            });
            match seen.arrival {
                Some(Arrival::Host(port)) if port != seen.knock.port => tally.count(ELSEWHERE),
                Some(Arrival::Inner(_)) => tally.count(BEHIND),
                Some(Arrival::World(_)) => tally.count(BACK_OUT),
                _ => {}
            }
        }
        for statement in &self.statements {
            statement.count(tally);
            for (number, culprit) in statement.culprits() {
                self.twin.count_culprit(number, culprit, tally);
            }
        }
        self.twin.count(&self.packets, tally);
    }
}

impl Seen {
    /// A stranger's packet, to where a static reading says something about.
    pub fn is_readable(&self) -> bool {
        self.granted && !is_listed(self.knock.source)
    }
}

fn nft(rules: &str) -> Result<(), String> {
    try_feed("nftables", "nft", &["-f", "-"], rules)
}
