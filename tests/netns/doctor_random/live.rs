//! The host under test: it is made what the live side says, and knocked at.

use std::time::{Duration, Instant};

use acmegate::doctor::path::{Knock, Protocol};
use nlink::netlink::{Connection, Netfilter, Nftables};

use super::cables::{Arrival, Cables, index, ip, ip6};
use super::reading::{self, Statement};
use super::side::{LiveSide, is_listed};
use super::tally::Tally;
use crate::lab::wait_for;
use crate::world::try_feed;

/// What the tally counts.
pub const ROUTED: &str = "= packets that routing lets through";
pub const PASSED: &str = "= … and that arrived";
pub const DROPPED: &str = "= … and that a rule dropped";
const UNROUTED: &str = "= packets lost on the way, whatever the rules";
const ELSEWHERE: &str = "= … and that arrived at another port";
const BEHIND: &str = "= … and that arrived at the host behind";
const LISTED: &str = "= … whose source stands in the lists";

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
        nft(&format!("flush ruleset\n{}", side.nft()))?;
        if let Some(iptables) = &side.iptables {
            try_feed(
                "iptables",
                "iptables-nft-restore",
                &["--noflush"],
                &iptables.of(true),
            )?;
            try_feed(
                "iptables",
                "ip6tables-nft-restore",
                &["--noflush"],
                &iptables.of(false),
            )?;
        }
        let loaded = Instant::now();
        if side.nft().contains("timeout 1ms") {
            wait_for(RUNS_OUT * 100, "the clock goes on", || {
                (loaded.elapsed() > RUNS_OUT).then_some(())
            });
        }
        let mut packets = Vec::new();
        let ruleset = self.runtime.block_on(async {
            let nft = Connection::<Nftables>::new()?;
            acmegate::firewall::base_chains::read(&nft).await
        });
        let ruleset = ruleset.map_err(|error| error.to_string())?;
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
        let statements = reading::read(&ruleset, side, &packets, self.indexes);
        Ok(Examined {
            packets,
            statements,
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
            .try_for_each(|statement| statement.agrees(&self.packets))
    }

    pub fn count(&self, tally: &mut Tally) {
        for seen in &self.packets {
            if !seen.routed {
                tally.count(UNROUTED);
                continue;
            }
            tally.count(ROUTED);
            if is_listed(seen.knock.source) {
                tally.count(LISTED);
            }
            tally.count(match seen.arrival {
                Some(_) => PASSED,
                None => DROPPED,
            });
            match seen.arrival {
                Some(Arrival::Host(port)) if port != seen.knock.port => tally.count(ELSEWHERE),
                Some(Arrival::Inner(_)) => tally.count(BEHIND),
                _ => {}
            }
        }
        for statement in &self.statements {
            statement.count(tally);
        }
    }
}

impl Seen {
    /// A stranger's SYN to where a static reading says something about.
    pub fn is_readable(&self) -> bool {
        self.granted && self.knock.protocol == Protocol::Tcp && !is_listed(self.knock.source)
    }
}

fn nft(rules: &str) -> Result<(), String> {
    try_feed("nftables", "nft", &["-f", "-"], rules)
}
