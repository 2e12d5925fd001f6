//! What the kernel dumps of a rule, as steps.
//!
//! Together with [`compat`] the only place that knows how the kernel writes a rule
//! down. What is not understood becomes [`Step::Unsure`], never a guess.

use std::collections::{HashMap, HashSet};

use nlink::netlink::nftables::{
    CmpOp, CtDirection, CtKey, DynsetOp, ExthdrOp, Family, FibFlags, FibResult, LimitKind, MetaKey,
    NatType, ObjectType, ObjrefExpr, PayloadBase, RangeOp, Register, RuleExpr, Verdict,
};

use super::IpFamily;
use super::bits::REGISTER_BYTES;
use super::compat;
use super::limit::{Limit, Measure, Per};
use super::step::{End, Field, Into, Leaves, Step};

/// Octets of a transport header that a rule may not rewrite without sending the packet elsewhere.
const PORTS: usize = 4;

/// The steps of a rule's expressions, in order. Of the sets named in `mixed` nobody knows what an element asks.
pub(super) fn decode(exprs: &[RuleExpr], mixed: &HashSet<String>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let of_each = exprs.iter().flat_map(|expr| match updated(expr) {
        Some((set, _)) if mixed.contains(set) => vec![Step::Unsure],
        _ => steps_of(expr),
    });
    for step in of_each {
        let range = steps.last().and_then(|last| joined(last, &step));
        if range.is_some() {
            steps.pop();
        }
        steps.push(range.unwrap_or(step));
    }
    steps
}

/// The sets of a table whose rules put elements into them with different limits, or some with none. The one that comes
/// first makes the element, and whoever updates it later asks that one's limit and not its own (`nft_dynset.c`).
pub(super) fn mixed<'a>(rules: impl Iterator<Item = &'a [RuleExpr]>) -> HashSet<String> {
    let mut known: HashMap<&str, Vec<Limit>> = HashMap::new();
    let mut mixed = HashSet::new();
    for (set, statements) in rules.flatten().filter_map(updated) {
        let limits = limits(statements);
        match known.get(set) {
            None => {
                known.insert(set, limits);
            }
            Some(others) if *others != limits => {
                mixed.insert(set.to_owned());
            }
            Some(_) => {}
        }
    }
    mixed
}

/// The set that an expression puts an element into, and what else it says of the element.
fn updated(expr: &RuleExpr) -> Option<(&str, &[RuleExpr])> {
    match expr {
        RuleExpr::Dynset {
            op: DynsetOp::Delete,
            ..
        } => None,
        RuleExpr::Dynset {
            set, statements, ..
        } => Some((set.as_str(), statements.as_slice())),
        _ => None,
    }
}

/// `>= low` and then `<= high` of one register is how nft writes `low-high`. As one range it can
/// be told from half the Internet.
fn joined(first: &Step, second: &Step) -> Option<Step> {
    match (first, second) {
        (
            Step::Compare {
                from,
                op: CmpOp::Gte,
                bytes: low,
            },
            Step::Compare {
                from: again,
                op: CmpOp::Lte,
                bytes: high,
            },
        ) if from == again && low.len() == high.len() => Some(Step::Range {
            from: *from,
            outside: false,
            low: low.clone(),
            high: high.clone(),
        }),
        _ => None,
    }
}

fn steps_of(expr: &RuleExpr) -> Vec<Step> {
    let load = |dreg: &Register, len: usize, field| match len <= REGISTER_BYTES {
        true => Step::Load {
            to: at(*dreg),
            len,
            field,
        },
        // No kernel loads more than there is room for; what says so is not believed, and not allocated.
        false => Step::Unsure,
    };
    let step = match expr {
        RuleExpr::Counter { .. }
        | RuleExpr::Log(_)
        | RuleExpr::Dup { .. }
        | RuleExpr::ExthdrSet { .. } => return Vec::new(),
        RuleExpr::Verdict(verdict) => Step::End(End::Verdict(verdict.clone())),
        RuleExpr::Reject { .. } => Step::End(End::Reject),
        RuleExpr::Queue(_) => Step::End(End::Leaves(Leaves::Queued)),
        RuleExpr::Synproxy(_) => Step::End(End::Leaves(Leaves::Proxied)),
        RuleExpr::Fwd { .. } => Step::End(End::Leaves(Leaves::Forwarded)),
        RuleExpr::FlowOffload { flowtable, .. } => Step::Offload(flowtable.clone()),
        RuleExpr::Redir { proto, .. } => Step::Translate {
            address: None,
            port: proto.map(|(first, last)| (at(first), at(last))),
        },
        RuleExpr::Nat {
            nat_type,
            family,
            addr,
            proto,
            ..
        } => {
            let step = match nat_type {
                NatType::Dnat => {
                    let len = if *family == Family::Ip { 4 } else { 16 };
                    Step::Translate {
                        address: addr.map(|(first, last)| (at(first), at(last), len)),
                        port: proto.map(|(first, last)| (at(first), at(last))),
                    }
                }
                _ => Step::End(End::Verdict(Verdict::Accept)),
            };
            // In a table of family inet it leaves the other family alone.
            return match ip_family(*family) {
                Some(family) => vec![Step::OnlyOf(family), Step::Tracked, step],
                None => vec![Step::Tracked, step],
            };
        }
        RuleExpr::Masq { .. } => {
            return vec![Step::Tracked, Step::End(End::Verdict(Verdict::Accept))];
        }
        RuleExpr::Meta { dreg, key, .. } => load(dreg, meta_len(*key), Field::Meta(*key)),
        RuleExpr::Ct { dreg, key, .. } => load(
            dreg,
            ct_len(*key),
            Field::Ct {
                key: *key,
                reply: false,
            },
        ),
        RuleExpr::CtDirectional {
            dreg,
            key,
            direction,
            ..
        } => {
            let reply = *direction == CtDirection::Reply;
            load(dreg, ct_len(*key), Field::Ct { key: *key, reply })
        }
        RuleExpr::Payload {
            dreg,
            base,
            offset,
            len,
            ..
        } => {
            let field = Field::Header {
                base: *base,
                offset: size(*offset),
            };
            load(dreg, size(*len), field)
        }
        RuleExpr::Fib {
            dreg,
            result,
            flags,
            ..
        } => {
            let len = if flags.contains(FibFlags::PRESENT) {
                1
            } else if *result == FibResult::OifName {
                16
            } else {
                4
            };
            load(
                dreg,
                len,
                Field::Fib {
                    result: *result,
                    flags: *flags,
                },
            )
        }
        RuleExpr::Exthdr { dreg, op, len, .. } => {
            let field = match op {
                ExthdrOp::TcpOpt => Field::Optional,
                _ => Field::Absent,
            };
            load(dreg, size(*len), field)
        }
        RuleExpr::Socket { dreg, .. } => load(dreg, 4, Field::Optional),
        RuleExpr::Osf { dreg, .. } => load(dreg, 16, Field::Optional),
        RuleExpr::Numgen { dreg, .. } | RuleExpr::Hash { dreg, .. } => {
            load(dreg, 4, Field::Optional)
        }
        RuleExpr::Rt { dreg, .. } => load(dreg, 16, Field::Optional),
        RuleExpr::Immediate { dreg, data, .. } => Step::Value {
            to: at(*dreg),
            bytes: data.clone(),
        },
        RuleExpr::Cmp { sreg, op, data, .. } => Step::Compare {
            from: at(*sreg),
            op: *op,
            bytes: data.clone(),
        },
        RuleExpr::Range {
            sreg, op, from, to, ..
        } => Step::Range {
            from: at(*sreg),
            outside: *op == RangeOp::Neq,
            low: from.clone(),
            high: to.clone(),
        },
        RuleExpr::Bitwise {
            sreg,
            dreg,
            mask,
            xor,
            ..
        } => Step::Mask {
            from: at(*sreg),
            to: at(*dreg),
            mask: mask.clone(),
            xor: xor.clone(),
        },
        RuleExpr::Byteorder {
            sreg,
            dreg,
            len,
            size: unit,
            ..
        } => Step::Swap {
            from: at(*sreg),
            to: at(*dreg),
            len: size(*len),
            // On a big-endian machine network order is host order.
            unit: if cfg!(target_endian = "big") {
                1
            } else {
                size(*unit)
            },
        },
        RuleExpr::Lookup {
            set,
            sreg,
            dreg,
            invert,
            ..
        } => Step::Lookup {
            set: set.clone(),
            from: at(*sreg),
            into: match dreg {
                None => Into::Nothing,
                Some(Register::Verdict) => Into::Verdict,
                Some(register) => Into::Register(at(*register)),
            },
            invert: *invert,
        },
        RuleExpr::Dynset {
            op: DynsetOp::Delete,
            ..
        } => return Vec::new(),
        RuleExpr::Dynset {
            set,
            invert,
            statements,
            ..
        } => {
            let limits = limits(statements);
            match (limits.as_slice(), *invert) {
                _ if statements.is_empty() => {}
                (limits, false) => return limits.iter().cloned().map(Step::Limited).collect(),
                ([limit], true) => return vec![Step::Limited(limit.inverted())],
                // Two limits of one element, asked the other way round: nobody writes that.
                ([], true) => return vec![Step::Matches(false)],
                _ => return vec![Step::Unsure],
            }
            Step::UpdateSet {
                set: set.clone(),
                invert: *invert,
            }
        }
        RuleExpr::Quota { over, depleted, .. } => Step::Matches(over == depleted),
        RuleExpr::Limit(_) => match limit(expr, Per::Everybody) {
            Some(limit) => Step::Limited(limit),
            None => Step::Unsure,
        },
        RuleExpr::Connlimit { .. } => {
            let step = limit(expr, Per::Everybody).map_or(Step::Unsure, Step::Limited);
            return vec![Step::Tracked, step];
        }
        // Whether a named limit is `over` stands in the object, which is not read: not here.
        RuleExpr::Objref(ObjrefExpr::Named {
            object_type: ObjectType::Counter | ObjectType::Secmark,
            ..
        }) => return Vec::new(),
        RuleExpr::Objref(ObjrefExpr::Named {
            object_type: ObjectType::CtHelper,
            ..
        }) => Step::Tracked,
        RuleExpr::MetaSet {
            key: MetaKey::Mark,
            sreg,
            ..
        } => Step::SetMark { from: at(*sreg) },
        RuleExpr::MetaSet { .. } => return Vec::new(),
        RuleExpr::CtSet {
            key: CtKey::Mark,
            sreg,
            ..
        } => Step::SetCtMark { from: at(*sreg) },
        RuleExpr::CtSet { .. } => Step::SetCt,
        RuleExpr::Notrack => Step::Notrack,
        RuleExpr::PayloadSet {
            base, offset, len, ..
        } if rewrites_destination(*base, *offset, *len) => {
            Step::End(End::Leaves(Leaves::Translated))
        }
        RuleExpr::PayloadSet { .. } => return Vec::new(),
        RuleExpr::Unknown { name, data, .. } => return compat::steps(name, data),
        // `tproxy` goes on only if a transparent socket listens; the rest is new to nlink.
        _ => Step::Unsure,
    };
    vec![step]
}

/// The limits among the statements of a set's element, each of them of one key alone.
pub(super) fn limits(statements: &[RuleExpr]) -> Vec<Limit> {
    let of_element = |expr| limit(expr, Per::Source);
    statements.iter().filter_map(of_element).collect()
}

fn limit(expr: &RuleExpr, per: Per) -> Option<Limit> {
    let (measure, over) = match expr {
        RuleExpr::Limit(limit) => {
            let measure = match limit.kind {
                LimitKind::Packets => Measure::Rate {
                    packets: limit.rate,
                    seconds: limit.unit.to_u64(),
                    burst: limit.burst,
                },
                _ => Measure::Bytes,
            };
            (measure, limit.over)
        }
        RuleExpr::Connlimit { count, over, .. } => (Measure::Connections(*count), *over),
        _ => return None,
    };
    Some(Limit {
        measure,
        per,
        over,
        is_list: false,
    })
}

fn ip_family(family: Family) -> Option<IpFamily> {
    match family {
        Family::Ip => Some(IpFamily::V4),
        Family::Ip6 => Some(IpFamily::V6),
        _ => None,
    }
}

fn rewrites_destination(base: PayloadBase, offset: u32, len: u32) -> bool {
    match base {
        PayloadBase::LinkLayer => false,
        // IPv4's destination begins there, IPv6's later; time to live and DSCP stand before.
        PayloadBase::Network => size(offset).saturating_add(size(len)) > 16,
        PayloadBase::Transport => size(offset) < PORTS,
        _ => true,
    }
}

/// The register's place in the register file, in bytes.
fn at(register: Register) -> usize {
    match size(register.wire()) {
        // The verdict register holds no bytes; nothing compares it.
        0 => 0,
        wide @ 1..=4 => (wide - 1) * 16,
        word => (word - 8) * 4,
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn meta_len(key: MetaKey) -> usize {
    match key {
        MetaKey::Protocol | MetaKey::IifType | MetaKey::OifType | MetaKey::BriIifPvid => 2,
        MetaKey::NfProto | MetaKey::L4Proto | MetaKey::PktType | MetaKey::SecPath => 1,
        MetaKey::TimeDay => 1,
        MetaKey::IifName
        | MetaKey::OifName
        | MetaKey::BriIifName
        | MetaKey::BriOifName
        | MetaKey::IifKind
        | MetaKey::OifKind
        | MetaKey::SdifName => 16,
        MetaKey::TimeNs => 8,
        _ => 4,
    }
}

fn ct_len(key: CtKey) -> usize {
    match key {
        CtKey::Direction | CtKey::L3Protocol | CtKey::Protocol => 1,
        CtKey::ProtoSrc | CtKey::ProtoDst | CtKey::Zone => 2,
        CtKey::Helper | CtKey::Labels | CtKey::Src | CtKey::Dst | CtKey::SrcIp6 | CtKey::DstIp6 => {
            16
        }
        CtKey::Pkts | CtKey::Bytes | CtKey::AvgPkt => 8,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use nlink::netlink::nftables::{QueueExpr, parse_expressions};

    use super::*;

    #[test]
    fn a_queue_takes_the_packet_away() {
        let steps = decode(&[RuleExpr::Queue(QueueExpr::num(5))], &HashSet::new());
        assert_eq!(steps, [Step::End(End::Leaves(Leaves::Queued))]);
    }

    #[test]
    fn a_load_of_more_than_registers_hold_is_not_understood() {
        let seed = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fuzz/seeds/rule/payload-longer-than-registers.bin"
        ));
        let exprs = parse_expressions(seed);
        assert!(matches!(exprs.as_slice(), [RuleExpr::Payload { .. }]));
        assert_eq!(decode(&exprs, &HashSet::new()), [Step::Unsure]);
    }

    #[test]
    fn registers_of_both_kinds_name_the_same_bytes() {
        assert_eq!(at(Register::R1), at(Register::Reg32_04));
        assert_eq!(
            (at(Register::R0), at(Register::Reg32_01), at(Register::R3)),
            (0, 4, 48)
        );
    }
}
