//! One expression of a rule, as far as it can decide what becomes of a packet.

use std::net::IpAddr;

use nlink::netlink::nftables::{CmpOp, CtKey, FibFlags, FibResult, MetaKey, PayloadBase, Verdict};

use super::IpFamily;
use super::limit::Limit;

/// What the packet, its connection or its route is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    Meta(MetaKey),
    /// A key of the connection; of the reply's direction if `reply`.
    Ct {
        key: CtKey,
        reply: bool,
    },
    /// The state as iptables has it: one bit more, for a translated destination.
    XtState,
    /// Octets of a header, from `offset` on.
    Header {
        base: PayloadBase,
        offset: usize,
    },
    Fib {
        result: FibResult,
        flags: FibFlags,
    },
    /// Something a plain SYN does not have: the rule does not match.
    Absent,
    /// Something that may be there or not, of a value that is not known.
    Optional,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Load {
        to: usize,
        len: usize,
        field: Field,
    },
    Value {
        to: usize,
        bytes: Vec<u8>,
    },
    Compare {
        from: usize,
        op: CmpOp,
        bytes: Vec<u8>,
    },
    Range {
        from: usize,
        outside: bool,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    /// Any of several ranges of ports, both ends included (the `multiport` of iptables).
    Ports {
        from: usize,
        outside: bool,
        ranges: Vec<(u16, u16)>,
    },
    Mask {
        from: usize,
        to: usize,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Reverses the bytes of every `unit` of them.
    Swap {
        from: usize,
        to: usize,
        len: usize,
        unit: usize,
    },
    Lookup {
        set: String,
        from: usize,
        into: Into,
        invert: bool,
    },
    /// A rule that adds its source to a set goes on, or not, by the limits the set declares.
    UpdateSet {
        set: String,
        invert: bool,
    },
    SetMark {
        from: usize,
    },
    SetCtMark {
        from: usize,
    },
    /// Some other property of the connection: its zone, its labels.
    SetCt,
    Notrack,
    /// Matches while it is under a limit, or once it is over one.
    Limited(Limit),
    /// Later packets of the connection take a short cut past most chains.
    Offload(String),
    /// `dnat` and `redirect`: the registers of the first and the last address and port.
    Translate {
        address: Option<(usize, usize, usize)>,
        port: Option<(usize, usize)>,
    },
    /// What follows is for this family alone; a packet of the other one goes on to the next rule.
    OnlyOf(IpFamily),
    /// Does nothing by itself, and makes the kernel track connections.
    Tracked,
    /// Matches or not, for every packet that is judged.
    Matches(bool),
    /// Matches or not because the source stands in no list.
    MatchesUnlisted(bool),
    /// May match; afterwards no register is known.
    Unsure,
    End(End),
}

/// What a lookup writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Into {
    Nothing,
    Register(usize),
    Verdict,
}

/// How a rule ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Verdict(Verdict),
    Reject,
    /// The packet leaves the way to a local socket on this port, or is handed to somebody.
    Leaves(Leaves),
    /// The destination is another one from here on.
    Translated(To),
    /// A verdict that is not known.
    Unknown,
}

/// Where a rule sends a packet instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct To {
    /// `None` for the address of this host that the packet came in by.
    pub address: Option<IpAddr>,
    /// `None` for the port that it is.
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leaves {
    Translated,
    Queued,
    Proxied,
    Forwarded,
}

impl Step {
    /// Whether a rule with this step makes the kernel track connections.
    pub(super) fn needs_tracking(&self) -> bool {
        matches!(
            self,
            Self::Load {
                field: Field::Ct { .. } | Field::XtState,
                ..
            } | Self::SetCtMark { .. }
                | Self::SetCt
                | Self::Translate { .. }
                | Self::Offload(_)
                | Self::Tracked
                | Self::End(End::Leaves(Leaves::Translated | Leaves::Proxied))
        )
    }
}
