//! What real packets of vantage points meet in the live rules, by the kernel's own word.
//!
//! A table of our own, for a few seconds: before everybody it marks first packets for the probed port as traced, at
//! a limited rate; behind everybody it shows which of them arrived. It decides about no packet. It belongs to our
//! socket, so the kernel takes it away with the process, however that ends; where the kernel cannot do that, what
//! it traces at least ends by a timeout of the kernel's.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use nlink::netlink::nftables::{
    BaseChain, Chain, Expr, Family as NftFamily, Field, FilterHook, LimitExpr, LimitUnit, Match,
    MetaKey, NFT_TABLE_F_OWNER, Policy, Priority, Register, Rule, RuleSpec, Set, SetElement,
    SetKeyType, Stmt, TcpFlags, Transaction, Value,
};
use nlink::netlink::{Connection, Nftables};

use super::seen::Path;
use crate::doctor::path::{End, Fate, Step};
use crate::firewall::evidence::{Traced, Tracing, Verdict, What, traced, words_of_handle};

/// Before defragmentation (-400), raw (-300) and the gate's own chains (-450).
const FIRST: i32 = -500;
/// Behind filter (0), firewalld (10), security (50), NAT (100) and the gate's own chain (400).
const LAST: i32 = 500;
/// What is traced: each packet makes a message for every rule that it meets. Ten vantage points with two families
/// come at once and again a second later.
const TRACED_PER_SECOND: u64 = 40;
const TRACED_BURST: u32 = 60;
/// The chains of our table, and the set of ports that it looks for.
const TRACES: &str = "traces";
const ARRIVES: &str = "arrives";
const LEAVES: &str = "leaves";
const PORTS: &str = "probed";
/// The most packets that are followed at a time, and the most that are kept.
const MAX_WALKS: usize = 256;
/// The most steps that are kept of one packet.
const MAX_STEPS: usize = 256;

/// A table that traces, and who hears of it.
pub struct Trace {
    nft: Connection<Nftables>,
    tracing: Tracing,
    table: String,
    walks: HashMap<u32, Walk>,
    over: VecDeque<Walk>,
}

/// One packet's way.
#[derive(Clone, Debug)]
struct Walk {
    first: Ends,
    last: Ends,
    leaves_by: Option<u32>,
    met: Vec<Traced>,
    has_arrived: bool,
    has_left: bool,
}

impl Trace {
    /// Begins to trace first packets for a TCP port; ends by itself after `length`.
    ///
    /// # Errors
    /// Whatever netlink answers: without CAP_NET_ADMIN nobody traces.
    pub async fn begin(port: u16, length: Duration) -> nlink::Result<Self> {
        let tracing = Tracing::subscribe()?;
        let nft = Connection::<Nftables>::new()?;
        let table = format!("acmegate_probe_{}", std::process::id());
        // Owned tables came with Linux 5.12.
        let owned = make(nft.transaction(), &table, NFT_TABLE_F_OWNER, port, length)?;
        if owned.commit(&nft).await.is_err() {
            let plain = make(nft.transaction(), &table, 0, port, length)?;
            plain.commit(&nft).await?;
        }
        Ok(Self {
            nft,
            tracing,
            table,
            walks: HashMap::new(),
            over: VecDeque::new(),
        })
    }

    /// Takes what waits. Call it several times a second, or the kernel's queue is full.
    pub fn hear(&mut self) {
        for datagram in self.tracing.heard() {
            for met in traced(&datagram) {
                self.meet(met);
            }
        }
    }

    /// One message. A packet begins at the rule of ours that marks it: what somebody else traces is not heard.
    fn meet(&mut self, met: Traced) {
        if met.table == self.table {
            match (met.chain.as_str(), &met.what, Ends::of(&met)) {
                (TRACES, What::Rule(..), Some(ends)) => {
                    let walk = Walk {
                        first: ends,
                        last: ends,
                        leaves_by: None,
                        met: Vec::new(),
                        has_arrived: false,
                        has_left: false,
                    };
                    // The kernel uses a number again: what had it is over.
                    let before = self.walks.insert(met.id, walk);
                    self.keep(before);
                    if self.walks.len() > MAX_WALKS {
                        let any = self.walks.keys().next().copied();
                        let any = any.and_then(|packet| self.walks.remove(&packet));
                        self.keep(any);
                    }
                }
                (ARRIVES | LEAVES, ..) => {
                    let Some(walk) = self.walks.get_mut(&met.id) else {
                        return;
                    };
                    walk.go_on(&met);
                    match met.chain.as_str() {
                        ARRIVES => walk.has_arrived = true,
                        _ => walk.has_left = true,
                    }
                }
                _ => {}
            }
            return;
        }
        if let Some(walk) = self.walks.get_mut(&met.id) {
            walk.go_on(&met);
            if walk.met.len() < MAX_STEPS {
                walk.met.push(met);
            }
        }
    }

    fn keep(&mut self, walk: Option<Walk>) {
        self.over.extend(walk);
        while self.over.len() > MAX_WALKS {
            self.over.pop_front();
        }
    }

    /// The ways of these sources' packets: of each and each of our addresses the last one, for whoever was dropped
    /// tries again.
    pub async fn paths(&self, of: &[IpAddr]) -> Vec<Path> {
        let mut last: Vec<&Walk> = Vec::new();
        for walk in self.over.iter().chain(self.walks.values()) {
            if !of.contains(&walk.first.source) {
                continue;
            }
            let is_same = |known: &&&Walk| {
                (known.first.source, known.first.destination)
                    == (walk.first.source, walk.first.destination)
            };
            match last.iter().position(|known| is_same(&known)) {
                // Of several connections of one source one that was dropped says more.
                Some(at) if last[at].is_dropped() && !walk.is_dropped() => {}
                Some(at) => last[at] = walk,
                None => last.push(walk),
            }
        }
        let mut paths = Vec::new();
        for walk in last {
            paths.push(Path {
                source: walk.first.source,
                destination: walk.first.destination,
                fate: self.fate(walk).await,
            });
        }
        paths.sort_by_key(|path| (path.source, path.destination));
        paths
    }

    /// Everybody whose packets were traced.
    pub fn sources(&self) -> Vec<IpAddr> {
        let walks = self.over.iter().chain(self.walks.values());
        let mut sources: Vec<IpAddr> = walks.map(|walk| walk.first.source).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    async fn fate(&self, walk: &Walk) -> Fate {
        let mut steps = Vec::new();
        for met in &walk.met {
            steps.extend(self.step(met).await);
        }
        let end = match walk.met.last() {
            Some(last) if drops(last) => End::Dropped {
                rejects: steps
                    .last()
                    .and_then(|step| step.rule.as_deref())
                    .is_some_and(|rule| rule.split(' ').any(|word| word == "reject")),
            },
            _ if walk.has_arrived => End::Delivered {
                address: walk.last.destination,
                port: walk.last.port,
            },
            _ if walk.has_left => End::Forwarded {
                interface: walk.leaves_by.map_or_else(String::new, interface),
                address: walk.last.destination,
                port: walk.last.port,
            },
            _ => End::Lost(
                "no rule dropped it, and it did not arrive: routing, or the reverse path filter"
                    .to_owned(),
            ),
        };
        Fate { end, steps }
    }

    /// One decision; the end of a chain that leads back is none.
    async fn step(&self, met: &Traced) -> Option<Step> {
        let family = NftFamily::from_u8(met.family);
        let (handle, verdict) = match &met.what {
            What::Rule(handle, verdict) => (Some(*handle), verdict.to_string()),
            What::Policy { drops } => (None, if *drops { "drop" } else { "accept" }.to_owned()),
            What::Return => return None,
        };
        let rule = match (handle, family) {
            (Some(handle), Some(family)) => {
                let words =
                    words_of_handle(&self.nft, family, &met.table, &met.chain, handle).await;
                Some(words.unwrap_or_else(|| format!("(rule {handle}, which is no longer there)")))
            }
            (Some(handle), None) => Some(format!("(rule {handle})")),
            (None, _) => None,
        };
        Some(Step {
            table: format!("{} {}", family.map_or("?", NftFamily::name), met.table),
            chain: met.chain.clone(),
            handle,
            rule,
            verdict,
        })
    }

    /// Takes the table away. Dropping does it too, where the kernel knows owners.
    pub async fn end(self) {
        let gone = self
            .nft
            .transaction()
            .del_table(&self.table, NftFamily::Inet);
        // If somebody flushed the ruleset meanwhile it is gone already.
        let _ = gone.commit(&self.nft).await;
    }
}

impl Walk {
    fn go_on(&mut self, met: &Traced) {
        self.last = Ends::of(met).unwrap_or(self.last);
        self.leaves_by = met.leaves_by.or(self.leaves_by);
    }

    fn is_dropped(&self) -> bool {
        self.met.last().is_some_and(drops)
    }
}

/// Who sent a packet, and for whom it is by now.
#[derive(Clone, Copy, Debug)]
struct Ends {
    /// Never IPv4-mapped.
    source: IpAddr,
    destination: IpAddr,
    port: u16,
}

impl Ends {
    /// Of a message that has the packet's headers: the first one of each base chain.
    fn of(met: &Traced) -> Option<Self> {
        let network = met.network.as_deref()?;
        let four = |at: usize| -> Option<IpAddr> {
            Some(<[u8; 4]>::try_from(network.get(at..at + 4)?).ok()?.into())
        };
        let six = |at: usize| -> Option<IpAddr> {
            Some(<[u8; 16]>::try_from(network.get(at..at + 16)?).ok()?.into())
        };
        let (source, destination) = match network.first()? >> 4 {
            4 => (four(12)?, four(16)?),
            6 => (six(8)?, six(24)?),
            _ => return None,
        };
        let port = met.transport.as_deref()?.get(2..4)?.try_into().ok()?;
        Some(Self {
            source: source.to_canonical(),
            destination: destination.to_canonical(),
            port: u16::from_be_bytes(port),
        })
    }
}

fn drops(met: &Traced) -> bool {
    matches!(
        met.what,
        What::Rule(_, Verdict::Drop) | What::Policy { drops: true }
    )
}

/// The table as one transaction.
fn make(
    change: Transaction,
    table: &str,
    flags: u32,
    port: u16,
    length: Duration,
) -> nlink::Result<Transaction> {
    let base = |name: &str, hook, priority| -> nlink::Result<Chain> {
        let base = BaseChain::filter(hook, Priority::Custom(priority)).policy(Policy::Accept);
        Ok(Chain::new(table, name)?.family(NftFamily::Inet).base(base))
    };
    let ports = Set::new(table, PORTS)
        .family(NftFamily::Inet)
        .key_type(SetKeyType::InetService)
        .size(4)
        .per_element_timeouts();
    let probed = SetElement::port(port).with_timeout(length);
    let first = Value::Masked {
        value: u64::from(TcpFlags::SYN.bits()),
        mask: u64::from((TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK).bits()),
    };
    let one = Expr::Immediate {
        dreg: Register::R0,
        data: vec![1],
    };
    let trace = Expr::MetaSet {
        key: MetaKey::NfTrace,
        sreg: Register::R0,
    };
    let rate = LimitExpr::packets(TRACED_PER_SECOND, LimitUnit::Second).burst(TRACED_BURST);
    let spec = RuleSpec::new()
        .then(Match::eq(Field::TcpDport, Value::set(PORTS)))
        .then(Match::eq(Field::TcpFlags, first))
        .then(Stmt::Limit(rate))
        .then(one)
        .then(trace);
    Ok(change
        .add_table_with_flags(table, NftFamily::Inet, flags)
        .add_set(ports.clone())
        .add_set_elements(&ports, &[probed])
        // A chain without rules judges nothing; for a traced packet its policy is told.
        .add_chain(base(ARRIVES, FilterHook::Input, LAST)?)
        .add_chain(base(LEAVES, FilterHook::Forward, LAST)?)
        .add_chain(base(TRACES, FilterHook::Prerouting, FIRST)?)
        .add_rule(Rule::from_spec(table, TRACES, spec).family(NftFamily::Inet)))
}

/// An interface's name by its number.
fn interface(index: u32) -> String {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let name = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| netdevice::index_to_name(&socket, index));
    name.unwrap_or_else(|_| format!("interface {index}"))
}
