//! The rules that see who comes and who gets through, while a window is open. None of them has a verdict
//! that changes what becomes of a packet: the end of each of these chains is `accept`, which ends
//! only itself, and a rule that cannot count stops counting.
//!
//! | chain | hook | of packets for a guarded port, off the allow-list, whose window is open |
//! | --- | --- | --- |
//! | `watch` → `arrivals` → `sightings` → `noted` | prerouting, before everybody | first ones are counted, and their sources kept in `seen` |
//! | `watch` → `handshakes` → `finished` | the same, diverted ports | those for a whole socket of the gate's: `reached` |
//! | `settle` → `handshakes` → `finished` | input, after everybody | those that finish a handshake, or come later: `reached` |
//! | `cross` → `handshakes` → `finished` | prerouting, before DNAT | the same of connections that are translated, such as a container's |
//!
//! A translated packet does not say any more which port it was sent to. But whoever acknowledges an
//! answer has had one: his first packet was dropped nowhere on its way, in forward neither.
//!
//! What nobody can forge goes into `reached`, without a limit: who finished a handshake has read the
//! answer to his first packet. `seen` anybody can fill, and so it is filled slowly.

use nlink::netlink::nftables::{
    ChainName, CtStatus, DynsetExpr, DynsetOp, Expr, Field, Item, LimitExpr, LimitUnit, Match,
    MetaKey, ObjectType, PacketField, PayloadBase, Register, RuleSpec, SocketKey, Stmt, TcpFlags,
    Value, Verdict,
};

use super::words::{doors, is_first, is_local, is_outer, is_whole_socket, nfproto};
use super::{Base, ChainPlan, Hook};
use crate::firewall::names::{ARRIVED_COUNTER, KEPT_COUNTER};
use crate::firewall::ruleset::{Doors, Kept, Mode, Settings, evidence_set};
use crate::gate::lease::Family;

/// Before defragmentation (-400), raw (-300) and our own `tag`: nobody has dropped anything yet.
const FIRST_PRIORITY: i32 = -450;
/// After filter (0), firewalld (10), security (50) and NAT (100): nobody drops anything any more.
const LAST_PRIORITY: i32 = 400;
/// After conntrack (-200) and everybody's mangling (-150), before DNAT (-100) changes where packets go.
const CROSS_PRIORITY: i32 = -105;
/// What goes into `seen`, for its elements cost memory and anybody can make them.
const SEEN_PER_SECOND: u64 = 2000;
/// A burst of a validation's perspectives fits, however many certificates are ordered together.
const SEEN_BURST: u32 = 100;
/// What is traced: each packet makes a message for every rule that it passes.
const TRACED_PER_SECOND: u64 = 5;

/// The names of every chain that observes, whatever the settings: a base chain stands before the one
/// that it leads to, and so on. In this order they can be taken away.
pub(super) const OBSERVERS: [&str; 8] = [
    "watch",
    "settle",
    "cross",
    "arrivals",
    "sightings",
    "noted",
    "handshakes",
    "finished",
];

impl Settings {
    /// The chains that observe, in the order they are made; none where nothing is observed.
    pub(super) fn observation(&self) -> Vec<ChainPlan> {
        if !self.observe || self.mode == Mode::GateOnly {
            return Vec::new();
        }
        let inner = |name, rules| ChainPlan {
            name,
            base: None,
            rules,
        };
        let outer = |name, hook, priority, rules| ChainPlan {
            name,
            base: Some(Base { hook, priority }),
            rules,
        };
        let mut chains = vec![
            inner("noted", noted_rules()),
            inner("sightings", self.sightings_rules()),
            inner("arrivals", to_whom(doors(Doors::Window), "sightings")),
            inner("finished", self.finished_rules()),
            inner("handshakes", to_whom(doors(Doors::Window), "finished")),
            outer(
                "watch",
                Hook::Prerouting,
                FIRST_PRIORITY,
                self.watch_rules(),
            ),
        ];
        if self.plain_ports().next().is_some() {
            chains.extend([
                outer("settle", Hook::Input, LAST_PRIORITY, self.settle_rules()),
                outer(
                    "cross",
                    Hook::Prerouting,
                    CROSS_PRIORITY,
                    self.cross_rules(),
                ),
            ]);
        }
        chains
    }

    fn watch_rules(&self) -> Vec<RuleSpec> {
        let firsts = self.ports.iter().map(|port| {
            let which = [is_outer(), port_is(*port), is_first(), is_local()];
            to(which.map(Item::from), "arrivals")
        });
        // By its addresses: nobody has yet given the packet a socket of his choice, such as our
        // listener, to whom whatever is unknown is handed. What is left is what a connection of ours
        // has, and nobody who only guesses.
        let rest = self.divert.iter().map(|divert| {
            let is_gates = Match::eq(Field::Socket(SocketKey::Transparent), Value::Bool(true));
            let which = [
                is_outer(),
                port_is(divert.port),
                is_later(),
                is_gates,
                is_whole_socket(),
            ];
            to(which.map(Item::from), "handshakes")
        });
        firsts.chain(rest).collect()
    }

    fn settle_rules(&self) -> Vec<RuleSpec> {
        let ports = self.plain_ports().map(|port| {
            let which = [is_outer(), port_is(port), is_later(), is_finished()];
            to(which.map(Item::from), "handshakes")
        });
        ports.collect()
    }

    fn cross_rules(&self) -> Vec<RuleSpec> {
        let ports = self.plain_ports().map(|port| {
            let which = [
                is_outer(),
                port_is(port),
                is_later(),
                is_finished(),
                Match::eq(Field::CtStatus, CtStatus::DST_NAT),
            ];
            to(which.map(Item::from), "handshakes")
        });
        ports.collect()
    }

    fn sightings_rules(&self) -> Vec<RuleSpec> {
        let mut rules = self.allowed_end(&[], &Verdict::Return);
        let trace = |family| {
            let which = source_in(Kept::Traced, family);
            let rate = LimitExpr::packets(TRACED_PER_SECOND, LimitUnit::Second);
            let items = [Item::from(which), Stmt::Limit(rate).into()];
            items.into_iter().chain(set_nftrace())
        };
        rules.extend(Family::ALL.map(|family| of(trace(family))));
        rules.push(of([counted(ARRIVED_COUNTER)]));
        let rate = LimitExpr::packets(SEEN_PER_SECOND, LimitUnit::Second).burst(SEEN_BURST);
        rules.push(to([Stmt::Limit(rate)], "noted"));
        rules
    }

    fn finished_rules(&self) -> Vec<RuleSpec> {
        let mut rules = self.allowed_end(&[], &Verdict::Return);
        rules.extend(Family::ALL.map(|family| of(keep(Kept::Reached, family))));
        rules
    }
}

fn noted_rules() -> Vec<RuleSpec> {
    let rules = Family::ALL.map(|family| {
        let mut items = keep(Kept::Seen, family);
        // Only what the set took: one that is full ends the rule.
        items.push(counted(KEPT_COUNTER));
        of(items)
    });
    rules.into()
}

fn port_is(port: u16) -> Match {
    Match::eq(Field::TcpDport, port)
}

/// A packet that acknowledges something and opens nothing.
fn is_later() -> Match {
    Match::eq(
        Field::TcpFlags,
        Value::Masked {
            value: u64::from(TcpFlags::ACK.bits()),
            mask: u64::from((TcpFlags::SYN | TcpFlags::ACK).bits()),
        },
    )
}

/// Of a connection whose handshake was finished with the right numbers. That conntrack calls it
/// established says less: of two forged first packets and acknowledgements that it finds too old, and
/// so ignores, it says so of one.
fn is_finished() -> Match {
    Match::eq(Field::CtStatus, CtStatus::ASSURED)
}

fn source_in(kept: Kept, family: Family) -> Match {
    let source = match family {
        Family::V4 => PacketField::Ip4Saddr,
        Family::V6 => PacketField::Ip6Saddr,
    };
    let key = Field::Concat(vec![source, PacketField::TcpDport]);
    Match::eq(key, Value::set(evidence_set(kept, family).name))
}

fn counted(name: &str) -> Item {
    Item::from(Stmt::Objref {
        object_type: ObjectType::Counter,
        name: name.to_owned(),
    })
}

/// `meta nftrace set 1`.
fn set_nftrace() -> [Item; 2] {
    let sreg = Register::R0;
    let one = Expr::Immediate {
        dreg: sreg,
        data: vec![1],
    };
    let set = Expr::MetaSet {
        key: MetaKey::NfTrace,
        sreg,
    };
    [one.into(), set.into()]
}

/// `update @seen4 { ip saddr . tcp dport counter }`.
fn keep(kept: Kept, family: Family) -> Vec<Item> {
    let (offset, len, words) = match family {
        Family::V4 => (12, 4, 1),
        Family::V6 => (8, 16, 4),
    };
    let load = |dreg, base, offset, len| Expr::Payload {
        dreg,
        base,
        offset,
        len,
    };
    let source = load(Register::R0, PayloadBase::Network, offset, len);
    let port = load(register(words), PayloadBase::Transport, 2, 2);
    let set = evidence_set(kept, family).name;
    let update = DynsetExpr::new(DynsetOp::Update, set, Register::R0).counter();
    vec![
        nfproto(family).into(),
        Match::eq(Field::L4Proto, TCP).into(),
        source.into(),
        port.into(),
        Expr::from(update).into(),
    ]
}

const TCP: u8 = 6;

/// The register that begins at this 32-bit word.
fn register(word: usize) -> Register {
    Register::word(word).unwrap_or(Register::R0)
}

fn to_whom<I: Into<Item>>(
    doors: impl Iterator<Item = Vec<I>>,
    chain: &'static str,
) -> Vec<RuleSpec> {
    doors.map(|door| to(door, chain)).collect()
}

fn to<I: Into<Item>>(which: impl IntoIterator<Item = I>, chain: &'static str) -> RuleSpec {
    let goto = ChainName::new(chain).map(Verdict::GotoTo).ok();
    let spec = which.into_iter().fold(RuleSpec::new(), RuleSpec::then);
    goto.into_iter().fold(spec, RuleSpec::then)
}

fn of(items: impl IntoIterator<Item = Item>) -> RuleSpec {
    items.into_iter().fold(RuleSpec::new(), RuleSpec::then)
}
