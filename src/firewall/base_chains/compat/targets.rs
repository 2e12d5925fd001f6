//! What `-j NAME` does.

use nlink::netlink::nftables::{CtKey, MetaKey, Verdict};

use super::super::step::{End, Field, Leaves, Step};
use super::{SCRATCH, Xt, masking};

pub(super) fn steps(xt: &Xt<'_>) -> Vec<Step> {
    match xt.name {
        "REJECT" => vec![Step::End(End::Reject)],
        "TARPIT" | "DELUDE" | "CHAOS" | "STEAL" => {
            vec![Step::End(End::Verdict(Verdict::Drop))]
        }
        "DNAT" => translate(xt, true).unwrap_or_else(elsewhere),
        "REDIRECT" => translate(xt, false).unwrap_or_else(elsewhere),
        "NETMAP" => elsewhere(),
        "SNAT" | "MASQUERADE" => vec![Step::Tracked, Step::End(End::Verdict(Verdict::Accept))],
        "NFQUEUE" => vec![Step::End(End::Leaves(Leaves::Queued))],
        "SYNPROXY" | "TPROXY" => vec![Step::End(End::Leaves(Leaves::Proxied))],
        "LOG" | "NFLOG" | "TRACE" | "AUDIT" | "CHECKSUM" | "TTL" | "HL" | "TOS" | "DSCP"
        | "ECN" | "TCPMSS" | "TCPOPTSTRIP" | "CLASSIFY" | "SET" | "LED" | "RATEEST"
        | "IDLETIMER" | "TEE" | "SECMARK" => Vec::new(),
        "CONNSECMARK" => vec![Step::Tracked],
        "NOTRACK" => vec![Step::Notrack],
        "CT" => match xt.u16(0) {
            Some(flags) if flags & 1 != 0 => vec![Step::Notrack],
            _ => vec![Step::SetCt],
        },
        "MARK" => set_mark(xt).unwrap_or_else(forget_marks),
        "CONNMARK" => {
            let mut steps = set_connection_mark(xt).unwrap_or_else(forget_marks);
            // Whatever it does with the mark.
            steps.insert(0, Step::Tracked);
            steps
        }
        _ => vec![Step::End(End::Unknown)],
    }
}

fn elsewhere() -> Vec<Step> {
    vec![Step::End(End::Leaves(Leaves::Translated))]
}

/// `nf_nat_range` and `nf_nat_range2`; for IPv4 in the older revision `nf_nat_ipv4_multi_range_compat`,
/// which is shorter. Addresses and ports stand in network order.
fn translate(xt: &Xt<'_>, has_address: bool) -> Option<Vec<Step>> {
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 1 << 1;
    const SECOND: usize = SCRATCH + 16;
    const PORT: usize = SCRATCH + 32;
    const SECOND_PORT: usize = SCRATCH + 36;
    let is_compat = xt.info.len() < 32;
    let (flags, address, step, ports) = if is_compat {
        // One range is all that the kernel takes.
        (xt.u32(4)?, 8, 4, 16)
    } else {
        (xt.u32(0)?, 4, 16, 36)
    };
    let value = |to, at: usize, len: usize| {
        let bytes = xt.info.get(at..at + len)?.to_vec();
        Some(Step::Value { to, bytes })
    };
    let mut steps = Vec::new();
    let mut translate = (None, None);
    if has_address && flags & MAP_IPS != 0 {
        let len = match () {
            () if is_compat => 4,
            // An IPv4 address fills the first word; `::` is the end of none of IPv6's that anybody uses.
            () if xt.info.get(8..20)?.iter().all(|octet| *octet == 0) => 4,
            () => 16,
        };
        steps.push(value(SCRATCH, address, len)?);
        steps.push(value(SECOND, address + step, len)?);
        translate.0 = Some((SCRATCH, SECOND, len));
    }
    if flags & PROTO_SPECIFIED != 0 {
        steps.push(value(PORT, ports, 2)?);
        steps.push(value(SECOND_PORT, ports + 2, 2)?);
        translate.1 = Some((PORT, SECOND_PORT));
    }
    let (address, port) = translate;
    steps.push(Step::Translate { address, port });
    Some(steps)
}

fn set_mark(xt: &Xt<'_>) -> Option<Vec<Step>> {
    if xt.revision != 2 {
        return None;
    }
    let load = Step::Load {
        to: SCRATCH,
        len: 4,
        field: Field::Meta(MetaKey::Mark),
    };
    Some(vec![
        load,
        masking(!xt.u32(4)?, xt.u32(0)?),
        Step::SetMark { from: SCRATCH },
    ])
}

fn set_connection_mark(xt: &Xt<'_>) -> Option<Vec<Step>> {
    let (value, mask, packet_mask) = (xt.u32(0)?, xt.u32(4)?, xt.u32(8)?);
    let mode = match xt.revision {
        1 => xt.u8(12)?,
        2 => xt.u8(14)?,
        _ => return None,
    };
    let connection = Field::Ct {
        key: CtKey::Mark,
        reply: false,
    };
    let load = |field| Step::Load {
        to: SCRATCH,
        len: 4,
        field,
    };
    match mode {
        0 => Some(vec![
            load(connection),
            masking(!mask, value),
            Step::SetCtMark { from: SCRATCH },
        ]),
        1 if (mask, packet_mask) == (u32::MAX, u32::MAX) => Some(vec![
            load(Field::Meta(MetaKey::Mark)),
            Step::SetCtMark { from: SCRATCH },
        ]),
        2 if (mask, packet_mask) == (u32::MAX, u32::MAX) => {
            Some(vec![load(connection), Step::SetMark { from: SCRATCH }])
        }
        _ => None,
    }
}

/// A change of a mark that is not followed: neither mark is known afterwards.
fn forget_marks() -> Vec<Step> {
    vec![
        Step::Load {
            to: SCRATCH,
            len: 4,
            field: Field::Meta(MetaKey::Priority),
        },
        Step::SetMark { from: SCRATCH },
        Step::SetCtMark { from: SCRATCH },
    ]
}
