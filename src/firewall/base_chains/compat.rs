//! The matches and targets of iptables that `iptables-nft` keeps as they were.
//!
//! Such an expression is a name, a revision and the C structure of `linux/netfilter/xt_*.h` in
//! the machine's byte order. The ones that firewalls are made of (ufw, Docker, fail2ban) are put
//! into the same steps as nftables' own; every other one may match or not.

use nlink::netlink::attr::AttrIter;
use nlink::netlink::nftables::{CmpOp, CtKey, MetaKey, PayloadBase, Verdict};

use super::step::{End, Field, Leaves, Step};

/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`, `…_REV`, `…_INFO`: the same numbers.
const NAME: u16 = 1;
const REVISION: u16 = 2;
const INFO: u16 = 3;

/// Where the steps made here keep what they compare; an iptables rule has nothing else there.
const SCRATCH: usize = 0;

/// The steps of an expression that nlink gives as `name` and its undecoded attributes.
pub(super) fn steps(name: &str, data: &[u8]) -> Vec<Step> {
    match name {
        "match" => xt(data).map_or(vec![Step::Unsure], |xt| matching(&xt)),
        "target" => xt(data).map_or(vec![Step::End(End::Unknown)], |xt| target(&xt)),
        // A verdict that nlink does not model: a queue's.
        "immediate" => vec![Step::End(End::Unknown)],
        _ => vec![Step::Unsure],
    }
}

struct Xt<'a> {
    name: &'a str,
    revision: u32,
    info: &'a [u8],
}

fn xt(data: &[u8]) -> Option<Xt<'_>> {
    let (mut name, mut revision, mut info) = (None, 0, &[][..]);
    for (kind, payload) in AttrIter::new(data) {
        match kind {
            NAME => name = payload.split(|b| *b == 0).next(),
            REVISION => revision = u32::from_be_bytes(payload.try_into().ok()?),
            INFO => info = payload,
            _ => {}
        }
    }
    Some(Xt {
        name: std::str::from_utf8(name?).ok()?,
        revision,
        info,
    })
}

impl Xt<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.info.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(
            self.info.get(at..at + 2)?.try_into().ok()?,
        ))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(
            self.info.get(at..at + 4)?.try_into().ok()?,
        ))
    }
}

fn matching(xt: &Xt<'_>) -> Vec<Step> {
    let steps = match xt.name {
        "comment" | "limit" => Some(vec![Step::Matches(true)]),
        "conntrack" => conntrack(xt),
        "state" => xt.u32(0).map(|mask| state(mask, false)),
        "tcp" => tcp(xt),
        "multiport" => multiport(xt),
        "addrtype" => address_type(xt),
        "pkttype" => (|| Some(vec![Step::Matches((xt.u32(0)? == 0) != (xt.u32(4)? != 0))]))(),
        "mark" => mark(xt, Field::Meta(MetaKey::Mark)),
        "connmark" => mark(
            xt,
            Field::Ct {
                key: CtKey::Mark,
                reply: false,
            },
        ),
        "connlimit" if xt.revision == 1 => {
            // XT_CONNLIMIT_INVERT is `--connlimit-upto`.
            xt.u32(20).map(|flags| vec![Step::Matches(flags & 1 != 0)])
        }
        "hashlimit" => hash_limit(xt),
        "recent" => recent(xt),
        "set" => ip_set(xt),
        "iprange" => ip_range(xt),
        // Other protocols than TCP, and headers that a plain SYN does not have: these matches
        // fail when they do not find theirs, inverted or not.
        "udp" | "udplite" | "icmp" | "icmp6" | "sctp" | "dccp" | "esp" | "ah" | "rt" | "frag" => {
            Some(vec![Step::Matches(false)])
        }
        _ => None,
    };
    steps.unwrap_or_else(|| vec![Step::Unsure])
}

fn target(xt: &Xt<'_>) -> Vec<Step> {
    match xt.name {
        "REJECT" => vec![Step::End(End::Reject)],
        "TARPIT" | "DELUDE" | "CHAOS" | "STEAL" => {
            vec![Step::End(End::Verdict(Verdict::Drop))]
        }
        "DNAT" | "REDIRECT" | "NETMAP" => vec![Step::End(End::Leaves(Leaves::Translated))],
        "SNAT" | "MASQUERADE" => vec![Step::End(End::Verdict(Verdict::Accept))],
        "NFQUEUE" => vec![Step::End(End::Leaves(Leaves::Queued))],
        "SYNPROXY" | "TPROXY" => vec![Step::End(End::Leaves(Leaves::Proxied))],
        "LOG" | "NFLOG" | "TRACE" | "AUDIT" | "CHECKSUM" | "TTL" | "HL" | "TOS" | "DSCP"
        | "ECN" | "TCPMSS" | "TCPOPTSTRIP" | "CLASSIFY" | "SET" | "LED" | "RATEEST"
        | "IDLETIMER" | "TEE" | "SECMARK" | "CONNSECMARK" => Vec::new(),
        "NOTRACK" => vec![Step::Notrack],
        "CT" => match xt.u16(0) {
            Some(flags) if flags & 1 != 0 => vec![Step::Notrack],
            _ => vec![Step::SetCt],
        },
        "MARK" => set_mark(xt).unwrap_or_else(forget_marks),
        "CONNMARK" => set_connection_mark(xt).unwrap_or_else(forget_marks),
        _ => vec![Step::End(End::Unknown)],
    }
}

/// `-m conntrack`: the state alone. Any other criterion beside it makes it unsure.
fn conntrack(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const STATE: u16 = 1;
    const STATE_ALIAS: u16 = 1 << 13;
    if !matches!(xt.revision, 2 | 3) {
        return None;
    }
    let (wanted, inverted) = (xt.u16(146)?, xt.u16(148)?);
    if wanted & !STATE_ALIAS != STATE {
        return None;
    }
    // SNAT and DNAT are bits of a status; a connection that begins here has neither.
    const UNTRACKED: u32 = 1 << 8;
    let mask = u32::from(xt.u16(150)?);
    let untracked = if mask & UNTRACKED != 0 {
        STATE_UNTRACKED
    } else {
        0
    };
    Some(state(
        (mask & STATE_TRACKED) | untracked,
        inverted & STATE != 0,
    ))
}

/// INVALID, ESTABLISHED, RELATED, NEW: the same bits in nftables and in iptables.
const STATE_TRACKED: u32 = 0b1111;
/// `NF_CT_STATE_UNTRACKED_BIT`.
const STATE_UNTRACKED: u32 = 1 << 6;

fn state(mask: u32, invert: bool) -> Vec<Step> {
    let load = Field::Ct {
        key: CtKey::State,
        reply: false,
    };
    masked_compare(load, mask, 0, if invert { CmpOp::Eq } else { CmpOp::Neq })
}

fn mark(xt: &Xt<'_>, field: Field) -> Option<Vec<Step>> {
    if xt.revision != 1 {
        return None;
    }
    let op = if xt.u8(8)? != 0 {
        CmpOp::Neq
    } else {
        CmpOp::Eq
    };
    Some(masked_compare(field, xt.u32(4)?, xt.u32(0)?, op))
}

fn masked_compare(field: Field, mask: u32, value: u32, op: CmpOp) -> Vec<Step> {
    vec![
        Step::Load {
            to: SCRATCH,
            len: 4,
            field,
        },
        masking(mask, 0),
        Step::Compare {
            from: SCRATCH,
            op,
            bytes: value.to_ne_bytes().to_vec(),
        },
    ]
}

fn masking(mask: u32, xor: u32) -> Step {
    Step::Mask {
        from: SCRATCH,
        to: SCRATCH,
        mask: mask.to_ne_bytes().to_vec(),
        xor: xor.to_ne_bytes().to_vec(),
    }
}

fn header(offset: usize, len: usize) -> Step {
    let field = Field::Header {
        base: PayloadBase::Transport,
        offset,
    };
    Step::Load {
        to: SCRATCH,
        len,
        field,
    }
}

fn tcp(xt: &Xt<'_>) -> Option<Vec<Step>> {
    let inverted = xt.u8(11)?;
    let ports = |from, at: usize, bit| -> Option<[Step; 2]> {
        let ranges = vec![(xt.u16(at)?, xt.u16(at + 2)?)];
        let outside = inverted & bit != 0;
        Some([
            header(from, 2),
            Step::Ports {
                from: SCRATCH,
                outside,
                ranges,
            },
        ])
    };
    let mut steps = Vec::new();
    if (xt.u16(0)?, xt.u16(2)?) != (0, u16::MAX) {
        steps.extend(ports(0, 0, 1)?);
    }
    if (xt.u16(4)?, xt.u16(6)?) != (0, u16::MAX) {
        steps.extend(ports(2, 4, 2)?);
    }
    if xt.u8(8)? != 0 {
        steps.push(Step::Unsure);
    }
    let (mask, flags) = (xt.u8(9)?, xt.u8(10)?);
    if mask != 0 {
        let op = if inverted & 4 != 0 {
            CmpOp::Neq
        } else {
            CmpOp::Eq
        };
        steps.extend([
            header(13, 1),
            Step::Mask {
                from: SCRATCH,
                to: SCRATCH,
                mask: vec![mask],
                xor: vec![0],
            },
            Step::Compare {
                from: SCRATCH,
                op,
                bytes: vec![flags],
            },
        ]);
    }
    Some(steps)
}

fn multiport(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const SLOTS: usize = 15;
    let offset = match xt.u8(0)? {
        0 => 0,
        1 => 2,
        _ => return None,
    };
    let count = usize::from(xt.u8(1)?).min(SLOTS);
    let (mut ranges, mut slot) = (Vec::new(), 0);
    while slot < count {
        let first = xt.u16(2 + 2 * slot)?;
        // Revision 1 joins a slot that is flagged with the next one: a range.
        let joined = xt.revision >= 1 && xt.u8(2 + 2 * SLOTS + slot)? != 0;
        slot += usize::from(joined);
        ranges.push((first, if joined { xt.u16(2 + 2 * slot)? } else { first }));
        slot += 1;
    }
    let outside = xt.revision >= 1 && xt.u8(2 + 3 * SLOTS)? != 0;
    Some(vec![
        header(offset, 2),
        Step::Ports {
            from: SCRATCH,
            outside,
            ranges,
        },
    ])
}

/// `-m addrtype`: the destination is local, the source is unicast.
fn address_type(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const UNICAST: u16 = 1 << 1;
    const LOCAL: u16 = 1 << 2;
    if xt.revision != 1 {
        return None;
    }
    let (source, destination, flags) = (xt.u16(0)?, xt.u16(2)?, xt.u32(4)?);
    let source = source == 0 || ((source & UNICAST != 0) != (flags & 1 != 0));
    let destination = destination == 0 || ((destination & LOCAL != 0) != (flags & 2 != 0));
    Some(vec![Step::Matches(source && destination)])
}

/// `-m hashlimit`: a first packet is under every limit; `--hashlimit-above` inverts.
fn hash_limit(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const INVERT: u32 = 1 << 4;
    // After the name (255 octets since revision 2), `avg` and `burst` comes the mode.
    let mode = match xt.revision {
        1 => xt.u32(16)?,
        2 | 3 => xt.u32(256 + 16)?,
        _ => return None,
    };
    Some(vec![Step::Matches(mode & INVERT == 0)])
}

/// `-m recent`: the source has not been here before. `--set` remembers it and matches.
fn recent(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const SET: u8 = 1 << 1;
    let (ask, invert) = (xt.u8(8)?, xt.u8(9)? != 0);
    Some(if ask & SET != 0 {
        vec![Step::Matches(!invert)]
    } else {
        vec![Step::MatchesUnlisted(invert)]
    })
}

/// `-m set --match-set NAME src`: the source stands in no set.
fn ip_set(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const INVERT: u8 = 1;
    const ANY_SOURCE: u8 = 0b1110;
    if xt.revision == 0 {
        return None;
    }
    let flags = xt.u8(3)?;
    // Source ports are unlisted too, but a set may hold all of them; the first field decides.
    (flags & ANY_SOURCE != 0).then(|| vec![Step::MatchesUnlisted(flags & INVERT != 0)])
}

fn ip_range(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const SOURCE: u8 = 1;
    const SOURCE_INVERTED: u8 = 1 << 4;
    let flags = xt.u8(64)?;
    (xt.revision == 1 && flags & 0b11 == SOURCE)
        .then(|| vec![Step::MatchesUnlisted(flags & SOURCE_INVERTED != 0)])
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
