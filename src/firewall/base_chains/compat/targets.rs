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
        "DNAT" | "REDIRECT" | "NETMAP" => vec![Step::End(End::Leaves(Leaves::Translated))],
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
