//! What `-m NAME` asks for.

use nlink::netlink::nftables::{CmpOp, CtKey, FibFlags, FibResult, MetaKey, PayloadBase};

use super::super::limit::{Limit, Measure, Per};
use super::super::step::{Field, Step};
use super::{SCRATCH, Xt, masking};

pub(super) fn steps(xt: &Xt<'_>) -> Vec<Step> {
    let steps = match xt.name {
        "comment" => Some(vec![Step::Matches(true)]),
        "limit" => rate_limit(xt),
        "udp" => udp(xt),
        // Known to be about the time, and no more.
        "time" => Some(vec![
            Step::Load {
                to: SCRATCH,
                len: 4,
                field: Field::Meta(MetaKey::TimeHour),
            },
            Step::Unsure,
        ]),
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
        "connlimit" if xt.revision == 1 => connection_limit(xt),
        "hashlimit" => hash_limit(xt),
        "recent" => recent(xt),
        "set" => ip_set(xt),
        "iprange" => ip_range(xt),
        // Other protocols than TCP, and headers that a plain SYN does not have: these matches
        // fail when they do not find theirs, inverted or not.
        "udplite" | "icmp" | "icmp6" | "sctp" | "dccp" | "esp" | "ah" | "rt" | "frag" => {
            Some(vec![Step::Matches(false)])
        }
        _ => None,
    };
    let mut steps = steps.unwrap_or_else(|| vec![Step::Unsure]);
    if TRACKED.contains(&xt.name) {
        steps.insert(0, Step::Tracked);
    }
    steps
}

/// The matches that make the kernel track connections, whatever they ask (`nf_ct_netns_get` in
/// their `checkentry`).
const TRACKED: [&str; 8] = [
    "cluster",
    "connbytes",
    "connlabel",
    "connlimit",
    "connmark",
    "conntrack",
    "helper",
    "state",
];

/// `-m conntrack`: the state, the status, the ports that it began with and the direction. Any other
/// criterion beside them makes it unsure.
fn conntrack(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const STATE: u16 = 1;
    const STATUS: u16 = 1 << 6;
    const ORIGINAL_SOURCE_PORT: u16 = 1 << 8;
    const ORIGINAL_PORT: u16 = 1 << 9;
    const DIRECTION: u16 = 1 << 12;
    const STATE_ALIAS: u16 = 1 << 13;
    const UNTRACKED: u32 = 1 << 8;
    const INVALID: u32 = 1;
    if !matches!(xt.revision, 2 | 3) {
        return None;
    }
    let (wanted, inverted) = (xt.u16(146)?, xt.u16(148)?);
    let known = STATE | STATUS | ORIGINAL_SOURCE_PORT | ORIGINAL_PORT | DIRECTION | STATE_ALIAS;
    if wanted & !known != 0 || wanted & (known & !STATE_ALIAS) == 0 {
        return None;
    }
    let asks = |flag| wanted & flag != 0;
    let is_inverted = |flag| inverted & flag != 0;
    let mut steps = Vec::new();
    if asks(STATE) {
        // SNAT is a bit of a status; a connection that begins outside does not have it.
        let mask = u32::from(xt.u16(150)?);
        // Without a connection only the state is asked, whatever else there is.
        if wanted & !(STATE | STATE_ALIAS) != 0 && mask & (UNTRACKED | INVALID) != 0 {
            return None;
        }
        let untracked = if mask & UNTRACKED != 0 {
            STATE_UNTRACKED
        } else {
            0
        };
        let mask = (mask & (STATE_TRACKED | STATE_TRANSLATED)) | untracked;
        steps.extend(state(mask, is_inverted(STATE)));
    }
    let of_connection = |key, len| Step::Load {
        to: SCRATCH,
        len,
        field: Field::Ct { key, reply: false },
    };
    if asks(STATUS) {
        let op = if is_inverted(STATUS) {
            CmpOp::Eq
        } else {
            CmpOp::Neq
        };
        let field = Field::Ct {
            key: CtKey::Status,
            reply: false,
        };
        steps.extend(masked_compare(field, xt.u16(152)?.into(), 0, op));
    }
    for (flag, key, at, high_at) in [
        (ORIGINAL_SOURCE_PORT, CtKey::ProtoSrc, 138, 154),
        (ORIGINAL_PORT, CtKey::ProtoDst, 140, 156),
    ] {
        if !asks(flag) {
            continue;
        }
        // The last revision has ranges, in the machine's order.
        let range = match xt.revision {
            3 => (xt.u16(at)?, xt.u16(high_at)?),
            _ => (u16::from_be(xt.u16(at)?), u16::from_be(xt.u16(at)?)),
        };
        steps.push(of_connection(key, 2));
        steps.push(Step::Ports {
            from: SCRATCH,
            outside: is_inverted(flag),
            ranges: vec![range],
        });
    }
    if asks(DIRECTION) {
        // A first packet comes in the original one.
        steps.push(of_connection(CtKey::Direction, 1));
        steps.push(Step::Matches(!is_inverted(DIRECTION)));
    }
    Some(steps)
}

/// INVALID, ESTABLISHED, RELATED, NEW: the same bits in nftables and in iptables.
const STATE_TRACKED: u32 = 0b1111;
/// `NF_CT_STATE_UNTRACKED_BIT`.
const STATE_UNTRACKED: u32 = 1 << 6;
/// `XT_CONNTRACK_STATE_DNAT`; nftables has no state by this number.
pub(in super::super) const STATE_TRANSLATED: u32 = 1 << 7;

fn state(mask: u32, invert: bool) -> Vec<Step> {
    masked_compare(
        Field::XtState,
        mask,
        0,
        if invert { CmpOp::Eq } else { CmpOp::Neq },
    )
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

/// `-m addrtype`: the source is unicast, and so is the destination unless it is local.
fn address_type(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const UNICAST: u16 = 1;
    const LOCAL: u16 = 2;
    if xt.revision != 1 {
        return None;
    }
    let (sources, destinations, flags) = (xt.u16(0)?, xt.u16(2)?, xt.u32(4)?);
    let (not_source, not_destination) = (flags & 1 != 0, flags & 2 != 0);
    let has = |types: u16, one: u16| types & (1 << one) != 0;
    let is_from_there = sources == 0 || has(sources, UNICAST) != not_source;
    let mut steps = vec![Step::Matches(is_from_there)];
    let wanted = match (has(destinations, UNICAST), has(destinations, LOCAL)) {
        _ if destinations == 0 => return Some(steps),
        (unicast, local) if unicast == local => {
            steps.push(Step::Matches(local != not_destination));
            return Some(steps);
        }
        (true, _) => UNICAST,
        _ => LOCAL,
    };
    let field = Field::Fib {
        result: FibResult::AddrType,
        flags: FibFlags::DADDR,
    };
    let op = if not_destination {
        CmpOp::Neq
    } else {
        CmpOp::Eq
    };
    steps.extend([
        Step::Load {
            to: SCRATCH,
            len: 4,
            field,
        },
        Step::Compare {
            from: SCRATCH,
            op,
            bytes: u32::from(wanted).to_ne_bytes().to_vec(),
        },
    ]);
    Some(steps)
}

/// `-m udp`. A rule may stand alone with it, so it asks for the protocol too.
fn udp(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const UDP: u8 = 17;
    let inverted = xt.u8(8)?;
    let mut steps = vec![
        Step::Load {
            to: SCRATCH,
            len: 1,
            field: Field::Meta(MetaKey::L4Proto),
        },
        Step::Compare {
            from: SCRATCH,
            op: CmpOp::Eq,
            bytes: vec![UDP],
        },
    ];
    for (offset, at, bit) in [(0, 0, 1), (2, 4, 2)] {
        let range = (xt.u16(at)?, xt.u16(at + 2)?);
        if range != (0, u16::MAX) {
            let outside = inverted & bit != 0;
            steps.push(header(offset, 2));
            steps.push(Step::Ports {
                from: SCRATCH,
                outside,
                ranges: vec![range],
            });
        }
    }
    Some(steps)
}

/// How many of a second's parts `avg` counts in `-m limit` and the first revisions of
/// `-m hashlimit`, and in its later ones.
const XT_SCALE: u64 = 10_000;
const XT_SCALE_FINE: u64 = 1_000_000;
/// What a rate is told in: rates as slow as once a day come out whole.
const DAY: u64 = 86_400;

/// One packet in `average` parts of a second.
fn rate(average: u64, scale: u64, burst: u32) -> Measure {
    let packets_a_day = (DAY * scale).checked_div(average).unwrap_or(u64::MAX);
    let fits = |seconds: &u64| packets_a_day.is_multiple_of(DAY / seconds);
    let seconds = [1, 60, 3600].into_iter().find(fits).unwrap_or(DAY);
    Measure::Rate {
        packets: packets_a_day / (DAY / seconds),
        seconds,
        burst,
    }
}

/// `-m limit`: matches while there are tokens.
fn rate_limit(xt: &Xt<'_>) -> Option<Vec<Step>> {
    let measure = match (xt.u32(0), xt.u32(4)) {
        (Some(average), Some(burst)) => rate(average.into(), XT_SCALE, burst),
        _ => Measure::Unknown,
    };
    Some(vec![Step::Limited(Limit {
        measure,
        per: Per::Everybody,
        over: false,
        is_list: false,
    })])
}

/// `-m connlimit`: `--connlimit-above`, or `--connlimit-upto` where the first bit is set.
fn connection_limit(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const UP_TO: u32 = 1;
    const BY_DESTINATION: u32 = 1 << 1;
    let (count, flags) = (xt.u32(16)?, xt.u32(20)?);
    let mask = xt.info.get(..16)?;
    Some(vec![Step::Limited(Limit {
        measure: Measure::Connections(count),
        per: if flags & BY_DESTINATION != 0 || mask == [0; 16] {
            Per::Everybody
        } else {
            Per::Source
        },
        over: flags & UP_TO == 0,
        is_list: false,
    })])
}

/// `-m hashlimit`: a first packet is under every limit; `--hashlimit-above` inverts.
fn hash_limit(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const BY_SOURCE: u32 = 1 << 2;
    const BY_SOURCE_PORT: u32 = 1 << 3;
    const INVERT: u32 = 1 << 4;
    const BYTES: u32 = 1 << 5;
    // Since revision 2 the name has 255 octets, which end on a word, and the numbers 64 bits.
    let (mode, average, burst) = match xt.revision {
        1 => (xt.u32(16)?, u64::from(xt.u32(20)?), u64::from(xt.u32(24)?)),
        2 | 3 => (xt.u32(256 + 16)?, xt.u64(256)?, xt.u64(256 + 8)?),
        _ => return None,
    };
    let scale = if xt.revision == 1 {
        XT_SCALE
    } else {
        XT_SCALE_FINE
    };
    let measure = if mode & BYTES != 0 {
        Measure::Bytes
    } else {
        rate(average, scale, u32::try_from(burst).unwrap_or(u32::MAX))
    };
    Some(vec![Step::Limited(Limit {
        measure,
        per: match mode & (BY_SOURCE | BY_SOURCE_PORT) {
            0 => Per::Everybody,
            _ => Per::Source,
        },
        over: mode & INVERT != 0,
        is_list: false,
    })])
}

/// `-m recent`: the source has not been here before. `--set` remembers it and matches.
fn recent(xt: &Xt<'_>) -> Option<Vec<Step>> {
    const SET: u8 = 1 << 1;
    let (seconds, hits) = (xt.u32(0)?, xt.u32(4)?);
    let (ask, invert) = (xt.u8(8)?, xt.u8(9)? != 0);
    if ask & SET != 0 {
        return Some(vec![Step::Matches(!invert)]);
    }
    // Without a count of hits it is a list of those who are banned, or let in, for some time.
    if hits == 0 {
        return Some(vec![Step::MatchesUnlisted(invert)]);
    }
    Some(vec![Step::Limited(Limit {
        measure: Measure::Rate {
            packets: hits.into(),
            seconds: seconds.max(1).into(),
            burst: hits.saturating_sub(1),
        },
        per: Per::Source,
        over: !invert,
        is_list: true,
    })])
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
