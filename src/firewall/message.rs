//! What front and enforcer say to each other over the socket pair: frames of one fixed size.
//!
//! The enforcer believes nothing in them. A frame that is not exactly as written here is refused,
//! down to the zeros that fill it, so that no two readings of one frame exist.

use std::time::Duration;

use crate::gate::window::{
    Families, Holder, LeaseName, MAX_COMMAND_BYTES, MAX_LEASE_NAME_BYTES, MAX_PORTS, Refusal,
    Trigger,
};

/// The size of every frame, in octets.
pub const FRAME_BYTES: usize = 512;
/// The longest text in a frame, in octets; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 480;
const VERSION: u8 = 1;

/// One frame on the wire.
pub type Frame = [u8; FRAME_BYTES];

/// What the front may ask. Nothing else is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Acquire or renew a lease.
    Open(Claim),
    /// Say whether a lease would be given, and change nothing.
    Check(Claim),
    /// Release a lease.
    Close(LeaseName),
    /// Release all of them.
    CloseAll,
    /// Tell every lease and opening.
    Snapshot,
    /// Read the configuration again.
    Reload,
    /// Make sure that our part of the ruleset is there.
    Apply,
    /// Take our part of the ruleset away, leases included.
    Remove,
}

/// A lease as it crosses the socket pair: instants as what is left, identifiers as a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's name.
    pub name: LeaseName,
    /// For whom.
    pub holder: Option<Holder>,
    /// Who asked.
    pub caller: u32,
    /// What made it.
    pub trigger: Trigger,
    /// Which TCP ports.
    pub ports: Vec<u16>,
    /// Which families.
    pub families: Families,
    /// Whether it covers only identifiers that the front knows.
    pub is_scoped: bool,
    /// How long from now, in whole milliseconds.
    pub length: Duration,
}

/// What the enforcer answers. Every request ends with one of the last four, its sequence number
/// repeated; `Health` also comes unasked, with sequence number 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One living lease of a snapshot.
    Lease(Claim),
    /// One opening of a snapshot that the budget still counts.
    Opening {
        /// Who asked.
        caller: u32,
        /// For how long it counts yet.
        left: Duration,
    },
    /// Done; how the kernel stands.
    Health(Health),
    /// The lease is out of bounds.
    Refused(Refusal),
    /// Somebody else's chain would drop the packets; which one, and what to do.
    Blocked(String),
    /// It could not be done; why.
    Failed(String),
}

/// How our part of the ruleset stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it is in the kernel.
    pub is_installed: bool,
    /// Whether nobody else can change it.
    pub is_owned: bool,
    /// How often somebody took it away and it was put back.
    pub gaps: u32,
    /// What is wrong, or worth knowing; empty if nothing.
    pub note: String,
}

/// Bytes that are not a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Request {
    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Open(claim) => Writer::new(1, sequence).claim(claim),
            Self::Close(name) => Writer::new(2, sequence).short(name.as_str()),
            Self::CloseAll => Writer::new(3, sequence),
            Self::Snapshot => Writer::new(4, sequence),
            Self::Reload => Writer::new(5, sequence),
            Self::Apply => Writer::new(6, sequence),
            Self::Remove => Writer::new(7, sequence),
            Self::Check(claim) => Writer::new(8, sequence).claim(claim),
        }
        .frame
    }

    /// Reads a frame and its sequence number.
    ///
    /// # Errors
    /// [`Malformed`]: the fault of the front, which is then no longer to be trusted.
    pub fn from_frame(frame: &Frame) -> Result<(u32, Self), Malformed> {
        let (mut reader, kind, sequence) = Reader::new(frame)?;
        let request = match kind {
            1 => Self::Open(reader.claim()?),
            2 => Self::Close(reader.name()?),
            3 => Self::CloseAll,
            4 => Self::Snapshot,
            5 => Self::Reload,
            6 => Self::Apply,
            7 => Self::Remove,
            8 => Self::Check(reader.claim()?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, request))
    }
}

impl Reply {
    /// Renders a frame.
    pub fn to_frame(&self, sequence: u32) -> Frame {
        match self {
            Self::Lease(claim) => Writer::new(1, sequence).claim(claim),
            Self::Opening { caller, left } => Writer::new(2, sequence).u32(*caller).millis(*left),
            Self::Health(health) => Writer::new(3, sequence)
                .u8(u8::from(health.is_installed))
                .u8(u8::from(health.is_owned))
                .u32(health.gaps)
                .text(&health.note),
            Self::Refused(refusal) => Writer::new(4, sequence).u8(match refusal {
                Refusal::Port => 1,
                Refusal::Family => 2,
                Refusal::Length => 3,
                Refusal::TooMany => 4,
                Refusal::Budget => 5,
            }),
            Self::Blocked(text) => Writer::new(5, sequence).text(text),
            Self::Failed(text) => Writer::new(6, sequence).text(text),
        }
        .frame
    }

    /// Reads a frame and its sequence number.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_frame(frame: &Frame) -> Result<(u32, Self), Malformed> {
        let (mut reader, kind, sequence) = Reader::new(frame)?;
        let reply = match kind {
            1 => Self::Lease(reader.claim()?),
            2 => Self::Opening {
                caller: reader.u32()?,
                left: reader.millis()?,
            },
            3 => Self::Health(Health {
                is_installed: reader.flag()?,
                is_owned: reader.flag()?,
                gaps: reader.u32()?,
                note: reader.text()?,
            }),
            4 => Self::Refused(match reader.u8()? {
                1 => Refusal::Port,
                2 => Refusal::Family,
                3 => Refusal::Length,
                4 => Refusal::TooMany,
                5 => Refusal::Budget,
                _ => return Err(Malformed),
            }),
            5 => Self::Blocked(reader.text()?),
            6 => Self::Failed(reader.text()?),
            _ => return Err(Malformed),
        };
        reader.end()?;
        Ok((sequence, reply))
    }
}

struct Writer {
    frame: Frame,
    at: usize,
}

impl Writer {
    fn new(kind: u8, sequence: u32) -> Self {
        let writer = Self {
            frame: [0; FRAME_BYTES],
            at: 0,
        };
        writer.u8(VERSION).u8(kind).u32(sequence)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        // What is written is bounded by the types: the longest frame, a text, is under 500 octets.
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    fn millis(self, value: Duration) -> Self {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// At most 255 octets.
    fn short(self, text: &str) -> Self {
        self.u8(text.len() as u8).bytes(text.as_bytes())
    }

    fn text(self, text: &str) -> Self {
        let mut end = text.len().min(MAX_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&(end as u16).to_be_bytes())
            .bytes(&text.as_bytes()[..end])
    }

    fn claim(self, claim: &Claim) -> Self {
        let writer = self.short(claim.name.as_str());
        let writer = match &claim.holder {
            None => writer.u8(0),
            Some(holder) => writer
                .u8(1)
                .u32(holder.pid)
                .u64(holder.start_ticks)
                .short(&holder.command),
        };
        let writer = writer
            .u32(claim.caller)
            .u8(match claim.trigger {
                Trigger::Asked => 1,
                Trigger::Automatic => 2,
            })
            .u8(u8::from(claim.families.v4))
            .u8(u8::from(claim.families.v6))
            .u8(u8::from(claim.is_scoped))
            .millis(claim.length)
            .u8(claim.ports.len().min(MAX_PORTS) as u8);
        let ports = claim.ports.iter().take(MAX_PORTS);
        ports.fold(writer, |writer, port| writer.bytes(&port.to_be_bytes()))
    }
}

struct Reader<'frame> {
    rest: &'frame [u8],
}

impl<'frame> Reader<'frame> {
    fn new(frame: &'frame Frame) -> Result<(Self, u8, u32), Malformed> {
        let mut reader = Self { rest: frame };
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let kind = reader.u8()?;
        let sequence = reader.u32()?;
        Ok((reader, kind, sequence))
    }

    fn bytes(&mut self, count: usize) -> Result<&'frame [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn millis(&mut self) -> Result<Duration, Malformed> {
        // Longer than a year is nothing that this program ever says, and would overflow an instant.
        const YEAR: u64 = 366 * 24 * 3600 * 1000;
        match self.u64()? {
            millis if millis <= YEAR => Ok(Duration::from_millis(millis)),
            _ => Err(Malformed),
        }
    }

    fn short(&mut self, max: usize) -> Result<&'frame str, Malformed> {
        let length = usize::from(self.u8()?);
        if length > max {
            return Err(Malformed);
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > MAX_TEXT_BYTES {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }

    fn name(&mut self) -> Result<LeaseName, Malformed> {
        LeaseName::parse(self.short(MAX_LEASE_NAME_BYTES)?).ok_or(Malformed)
    }

    fn claim(&mut self) -> Result<Claim, Malformed> {
        let name = self.name()?;
        let holder = match self.flag()? {
            false => None,
            true => Some(Holder {
                pid: self.u32()?,
                start_ticks: self.u64()?,
                command: self.command()?,
            }),
        };
        if !holder.as_ref().is_none_or(Holder::is_possible) {
            return Err(Malformed);
        }
        Ok(Claim {
            name,
            holder,
            caller: self.u32()?,
            trigger: match self.u8()? {
                1 => Trigger::Asked,
                2 => Trigger::Automatic,
                _ => return Err(Malformed),
            },
            families: Families {
                v4: self.flag()?,
                v6: self.flag()?,
            },
            is_scoped: self.flag()?,
            length: self.millis()?,
            ports: self.ports()?,
        })
    }

    fn command(&mut self) -> Result<String, Malformed> {
        let command = self.short(MAX_COMMAND_BYTES)?;
        match command.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(command.to_owned()),
            false => Err(Malformed),
        }
    }

    fn ports(&mut self) -> Result<Vec<u16>, Malformed> {
        let count = usize::from(self.u8()?);
        if count > MAX_PORTS {
            return Err(Malformed);
        }
        (0..count)
            .map(|_| self.array().map(u16::from_be_bytes))
            .collect()
    }

    fn end(self) -> Result<(), Malformed> {
        match self.rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim() -> Claim {
        Claim {
            name: LeaseName::parse("certbot-812").unwrap(),
            holder: Some(Holder {
                pid: 812,
                start_ticks: 77,
                command: "certbot".to_owned(),
            }),
            caller: 0,
            trigger: Trigger::Asked,
            ports: vec![80, 443],
            families: Families::BOTH,
            is_scoped: true,
            length: Duration::from_secs(120),
        }
    }

    #[test]
    fn every_message_reads_back() {
        for request in [
            Request::Open(claim()),
            Request::Check(claim()),
            Request::Close(claim().name),
            Request::CloseAll,
            Request::Snapshot,
            Request::Reload,
            Request::Apply,
            Request::Remove,
        ] {
            assert_eq!(Request::from_frame(&request.to_frame(9)), Ok((9, request)));
        }
        for reply in [
            Reply::Lease(Claim {
                holder: None,
                ..claim()
            }),
            Reply::Opening {
                caller: 7,
                left: Duration::from_secs(1),
            },
            Reply::Health(Health {
                is_installed: true,
                is_owned: false,
                gaps: 3,
                note: "é".to_owned(),
            }),
            Reply::Refused(Refusal::Budget),
            Reply::Blocked("a".repeat(MAX_TEXT_BYTES)),
            Reply::Failed(String::new()),
        ] {
            assert_eq!(Reply::from_frame(&reply.to_frame(9)), Ok((9, reply)));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let frame = Reply::Failed(format!("a{}", "é".repeat(400))).to_frame(0);
        let Ok((_, Reply::Failed(text))) = Reply::from_frame(&frame) else {
            panic!()
        };
        assert_eq!(text.len(), MAX_TEXT_BYTES - 1);
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        let mut frame = Request::Snapshot.to_frame(1);
        frame[FRAME_BYTES - 1] = 1;
        assert_eq!(Request::from_frame(&frame), Err(Malformed));
    }

    proptest! {
        /// Whatever is understood is written the same way again: no two frames mean the same.
        #[test]
        fn a_frame_has_one_reading(
            request in any::<bool>(),
            changes in prop::collection::vec((0usize..120, any::<u8>()), 0..12),
        ) {
            let mut frame = if request {
                Request::Open(claim()).to_frame(1)
            } else {
                Reply::Lease(claim()).to_frame(1)
            };
            for (at, byte) in changes {
                frame[at] = byte;
            }
            if let Ok((sequence, request)) = Request::from_frame(&frame) {
                prop_assert_eq!(request.to_frame(sequence), frame);
            }
            if let Ok((sequence, reply)) = Reply::from_frame(&frame) {
                prop_assert_eq!(reply.to_frame(sequence), frame);
            }
        }
    }
}
