//! The words that our rules are made of: matches, ends, and marks. What is said with them is
//! `rules.rs`'s and `divert.rs`'s.

use nlink::netlink::nftables::{
    CtKey, CtState, Expr, FibFlags, FibResult, Field, Item, Match, MatchOp, MetaKey, PacketField,
    Register, Reject, RuleSpec, SocketKey, Stmt, TcpFlags, Value, Verdict,
};
use nlink::netlink::types::route::RouteType;

use crate::firewall::ruleset::{Doors, Key, Shut, door_set};
use crate::gate::lease::Family;

pub(super) fn rule<const N: usize>(
    matches: [Vec<Match>; N],
    statements: impl IntoIterator<Item = Item>,
    verdict: Verdict,
) -> RuleSpec {
    let matches = matches.into_iter().flatten();
    let spec = matches.fold(RuleSpec::new(), RuleSpec::then);
    statements
        .into_iter()
        .fold(spec, RuleSpec::then)
        .then(verdict)
}

pub(super) fn end(shut: Shut, matches: Vec<Match>) -> RuleSpec {
    match shut {
        Shut::Drop => rule([matches], [], Verdict::Drop),
        Shut::Pass => rule([matches], [], Verdict::Accept),
        Shut::Reject => matches
            .into_iter()
            .fold(RuleSpec::new(), RuleSpec::then)
            .then(Stmt::Reject(Reject::TcpReset)),
    }
}

/// The matches of every set of doors of one kind, each with its family.
pub(super) fn doors_by_family(doors: Doors) -> Vec<(Family, Vec<Match>)> {
    let mut all = Vec::new();
    for key in Key::ALL {
        for family in Family::ALL {
            let set = door_set(doors, family, key);
            let (field, address) = match family {
                Family::V4 => (key, PacketField::Ip4Daddr),
                Family::V6 => (key, PacketField::Ip6Daddr),
            };
            let field = match field {
                Key::Port => Field::TcpDport,
                Key::Address => Field::Concat(vec![address, PacketField::TcpDport]),
                Key::Interface => Field::Concat(vec![PacketField::Iif, PacketField::TcpDport]),
            };
            let is_in = Match::eq(field, Value::set(set.name));
            all.push((
                family,
                match key {
                    // The address says the family.
                    Key::Address => vec![is_in],
                    Key::Port | Key::Interface => vec![nfproto(family), is_in],
                },
            ));
        }
    }
    all
}

pub(super) fn doors(doors: Doors) -> impl Iterator<Item = Vec<Match>> {
    doors_by_family(doors).into_iter().map(|(_, door)| door)
}

pub(super) fn nfproto(family: Family) -> Match {
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    Match::eq(
        Field::NfProto,
        match family {
            Family::V4 => NFPROTO_IPV4,
            Family::V6 => NFPROTO_IPV6,
        },
    )
}

pub(super) fn first(op: MatchOp) -> Match {
    Match::new(
        Field::TcpFlags,
        op,
        Value::Masked {
            value: u64::from(TcpFlags::SYN.bits()),
            mask: u64::from((TcpFlags::SYN | TcpFlags::ACK).bits()),
        },
    )
}

/// By any way but the loopback interface.
pub(super) fn is_outer() -> Match {
    Match::new(Field::Iifname, MatchOp::Ne, "lo")
}

/// For an address of this host.
pub(super) fn is_local() -> Match {
    let address_type = Field::Fib {
        flags: FibFlags::DADDR,
        result: FibResult::AddrType,
    };
    Match::eq(address_type, RouteType::Local)
}

/// The first packet of a connection.
pub(super) fn is_first() -> Match {
    first(MatchOp::Eq)
}

/// Not a first packet: it belongs to what the window admitted, or to nothing.
pub(super) fn is_not_first() -> Match {
    first(MatchOp::Ne)
}

/// No packet of a connection that conntrack saw both sides of.
pub(super) fn is_unknown() -> Match {
    Match::new(
        Field::CtState,
        MatchOp::Ne,
        Value::CtState(CtState::ESTABLISHED),
    )
}

/// Behind `tproxy`: the packet goes to a listener or an established connection. What is left of a
/// closed one matches no value; a first packet that comes to that when its listener is gone goes
/// to whoever else listens on the port it was sent to.
pub(super) fn is_whole_socket() -> Match {
    Match::eq(Field::Socket(SocketKey::Wildcard), Value::Bool(false))
}

pub(super) fn bit(mark: u32) -> Value {
    Value::Masked {
        value: u64::from(mark),
        mask: u64::from(mark),
    }
}

/// Whose mark.
#[derive(Clone, Copy)]
pub(super) enum Mark {
    /// The packet's.
    Packet,
    /// Its connection's.
    Connection,
}

/// `ct mark set ct mark | bit`: every other bit stays as it is.
pub(super) fn set_bit(bit: u32, mark: Mark) -> [Item; 3] {
    let register = Register::R0;
    let (load, store) = match mark {
        Mark::Packet => (
            Expr::Meta {
                dreg: register,
                key: MetaKey::Mark,
            },
            Expr::MetaSet {
                key: MetaKey::Mark,
                sreg: register,
            },
        ),
        Mark::Connection => (
            Expr::Ct {
                dreg: register,
                key: CtKey::Mark,
            },
            Expr::CtSet {
                key: CtKey::Mark,
                sreg: register,
            },
        ),
    };
    let or = Expr::Bitwise {
        sreg: register,
        dreg: register,
        len: 4,
        mask: (!bit).to_ne_bytes().to_vec(),
        xor: bit.to_ne_bytes().to_vec(),
    };
    [load.into(), or.into(), store.into()]
}
