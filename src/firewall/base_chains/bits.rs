//! Values of which only some bits are known, and how a rule compares them.
//!
//! The packet that is judged is not one packet but every one that fits the description: its port
//! is known, its source is not. Each bit is therefore 0, 1 or unknown, and a comparison is true,
//! false, or one of two kinds of open: decided by the assumption that the source stands in no
//! list ([`Truth::Assumed`]), or really not known ([`Truth::Unsure`]).

use nlink::netlink::nftables::CmpOp;

/// The data area of the kernel's register file: 16 words of 32 bits.
pub(super) const REGISTER_BYTES: usize = 64;

/// The lowest port that a peer connects from; below stand the services.
const FIRST_EPHEMERAL: [u8; 2] = 1024u16.to_be_bytes();

/// `LOOPBACK_IFINDEX`: the loopback is always the first interface.
const LOOPBACK: [u8; 4] = 1u32.to_ne_bytes();

/// What an unknown byte is part of, which says what may be assumed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Nothing may be assumed.
    Plain,
    /// The peer's address: some foreign address, in no list and in no prefix.
    Source,
    /// The peer's port: some port from 1024 up, in no list.
    SourcePort,
    /// The index of some interface that is not the loopback.
    Ifindex,
    /// The first octet of this host's address: a unicast address, so the octet is below this.
    UnicastHead(u8),
}

/// One byte, of which the bits in `known` are those of `value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Byte {
    value: u8,
    known: u8,
    origin: Origin,
}

impl Byte {
    pub(super) const UNKNOWN: Self = Self::unknown(Origin::Plain);

    pub(super) const fn exactly(value: u8) -> Self {
        Self::partly(value, 0xff, Origin::Plain)
    }

    pub(super) const fn unknown(origin: Origin) -> Self {
        Self::partly(0, 0, origin)
    }

    pub(super) const fn partly(value: u8, known: u8, origin: Origin) -> Self {
        Self {
            value: value & known,
            known,
            origin,
        }
    }

    /// With these bits set, for certain.
    pub(super) fn with(self, bits: u8) -> Self {
        Self::partly(self.value | bits, self.known | bits, self.origin)
    }

    /// `(self & mask) ^ xor`: what is masked away is known, whatever it was.
    pub(super) fn masked(self, mask: u8, xor: u8) -> Self {
        let origin = match self.origin {
            // "Below" survives a mask, which can only lower a value, but no xor.
            Origin::UnicastHead(_) if xor != 0 => Origin::Plain,
            origin => origin,
        };
        let known = self.known | !mask;
        Self::partly((self.value & mask) ^ xor, known, origin)
    }

    fn is_known(self) -> bool {
        self.known == 0xff
    }

    fn lowest(self) -> u8 {
        self.value
    }

    fn highest(self) -> u8 {
        match self.origin {
            Origin::UnicastHead(below) => (self.value | !self.known).min(below.saturating_sub(1)),
            _ => self.value | !self.known,
        }
    }
}

/// `bytes` as known bytes.
pub(super) fn exactly(bytes: &[u8]) -> Vec<Byte> {
    bytes.iter().map(|b| Byte::exactly(*b)).collect()
}

/// The value of `bytes` if every bit is known.
pub(super) fn known(bytes: &[Byte]) -> Option<Vec<u8>> {
    bytes
        .iter()
        .map(|b| b.is_known().then_some(b.value))
        .collect()
}

/// How a comparison came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Known(bool),
    /// So, if the source is in no list; another source may fare otherwise.
    Assumed(bool),
    Unsure,
}

impl Truth {
    pub(super) fn negated_if(self, negate: bool) -> Self {
        match self {
            Self::Known(answer) => Self::Known(answer != negate),
            Self::Assumed(answer) => Self::Assumed(answer != negate),
            Self::Unsure => Self::Unsure,
        }
    }

    /// Both. One known `false` settles it, and so does one assumed `false`.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(false), _) | (_, Self::Known(false)) => Self::Known(false),
            (Self::Assumed(false), _) | (_, Self::Assumed(false)) => Self::Assumed(false),
            (Self::Unsure, _) | (_, Self::Unsure) => Self::Unsure,
            (Self::Assumed(true), _) | (_, Self::Assumed(true)) => Self::Assumed(true),
            (Self::Known(true), Self::Known(true)) => Self::Known(true),
        }
    }
}

/// `cmp`: compares as `memcmp` does, as far as `data` is long.
pub(super) fn compare(bytes: &[Byte], op: CmpOp, data: &[u8]) -> Truth {
    let bytes = &bytes[..data.len().min(bytes.len())];
    let below = || below(bytes, data);
    let equal = || equal(bytes, data);
    match op {
        CmpOp::Eq => equal(),
        CmpOp::Neq => equal().negated_if(true),
        CmpOp::Lt => below(),
        CmpOp::Gte => below().negated_if(true),
        CmpOp::Lte => at_most(bytes, data),
        CmpOp::Gt => at_most(bytes, data).negated_if(true),
        // The enum is open; an operator of a later kernel is not guessed at.
        _ => Truth::Unsure,
    }
}

/// `range`: from `low` to `high`, both included.
pub(super) fn within(bytes: &[Byte], low: &[u8], high: &[u8]) -> Truth {
    if low == high {
        return equal(bytes, low);
    }
    match (below(bytes, low), at_most(bytes, high)) {
        (Truth::Known(true), _) | (_, Truth::Known(false)) => Truth::Known(false),
        (Truth::Known(false), Truth::Known(true)) => Truth::Known(true),
        _ if open_origins(bytes).any(|o| o == Origin::Source) => {
            // Half the Internet is no list of somebody's addresses.
            let wide = match (low.first(), high.first()) {
                (Some(low), Some(high)) => high.saturating_sub(*low) >= 0x80,
                _ => true,
            };
            if wide {
                Truth::Unsure
            } else {
                Truth::Assumed(false)
            }
        }
        _ => Truth::Unsure,
    }
}

/// Whether `bytes` hold something of the peer's address that is not known.
pub(super) fn depends_on_source(bytes: &[Byte]) -> bool {
    open_origins(bytes).any(|o| o == Origin::Source)
}

fn equal(bytes: &[Byte], data: &[u8]) -> Truth {
    let contradicts = |(byte, wanted): (&Byte, &u8)| match byte.origin {
        Origin::UnicastHead(below) if !byte.is_known() && *wanted >= below => true,
        _ => (byte.value ^ wanted) & byte.known != 0,
    };
    if bytes.len() < data.len() {
        return Truth::Unsure;
    }
    let is_loopback = data == LOOPBACK && bytes == [Byte::unknown(Origin::Ifindex); 4];
    if is_loopback || bytes.iter().zip(data).any(contradicts) {
        return Truth::Known(false);
    }
    if bytes.iter().all(|b| b.is_known()) {
        return Truth::Known(true);
    }
    let assumed = |o| matches!(o, Origin::Source | Origin::SourcePort);
    if open_origins(bytes).any(assumed) {
        Truth::Assumed(false)
    } else {
        Truth::Unsure
    }
}

fn below(bytes: &[Byte], data: &[u8]) -> Truth {
    let (lowest, highest) = bounds(bytes);
    if highest.as_slice() < data {
        Truth::Known(true)
    } else if lowest.as_slice() >= data {
        Truth::Known(false)
    } else {
        Truth::Unsure
    }
}

fn at_most(bytes: &[Byte], data: &[u8]) -> Truth {
    let (lowest, highest) = bounds(bytes);
    if highest.as_slice() <= data {
        Truth::Known(true)
    } else if lowest.as_slice() > data {
        Truth::Known(false)
    } else {
        Truth::Unsure
    }
}

fn bounds(bytes: &[Byte]) -> (Vec<u8>, Vec<u8>) {
    let mut lowest: Vec<u8> = bytes.iter().map(|b| b.lowest()).collect();
    let highest = bytes.iter().map(|b| b.highest()).collect();
    if let [first, second] = bytes
        && [first, second]
            .iter()
            .all(|b| **b == Byte::unknown(Origin::SourcePort))
    {
        lowest = FIRST_EPHEMERAL.to_vec();
    }
    (lowest, highest)
}

fn open_origins(bytes: &[Byte]) -> impl Iterator<Item = Origin> + '_ {
    bytes.iter().filter(|b| !b.is_known()).map(|b| b.origin)
}

/// The registers of one rule; nothing survives from rule to rule.
#[derive(Debug, Clone)]
pub(super) struct Registers([Byte; REGISTER_BYTES]);

impl Registers {
    pub(super) fn new() -> Self {
        Self([Byte::UNKNOWN; REGISTER_BYTES])
    }

    /// Stores `bytes` from offset `to` on. As in the kernel the rest of the last word is zero.
    pub(super) fn store(&mut self, to: usize, bytes: &[Byte]) {
        let padded = bytes.len().next_multiple_of(4);
        let padding = std::iter::repeat_n(Byte::exactly(0), padded - bytes.len());
        let cells = self.0.iter_mut().skip(to);
        for (cell, byte) in cells.zip(bytes.iter().copied().chain(padding)) {
            *cell = byte;
        }
    }

    /// `len` bytes from offset `from` on, cut at the end of the register file.
    pub(super) fn load(&self, from: usize, len: usize) -> &[Byte] {
        let start = from.min(REGISTER_BYTES);
        let end = from.saturating_add(len).min(REGISTER_BYTES);
        &self.0[start..end]
    }
}
