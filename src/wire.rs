//! Frames: what the front says to the processes beside it, and they to it, in octets of one fixed
//! size. Numbers in network order, texts with their length before them, zeros behind.
//!
//! What the numbers mean is said where the messages are: `firewall::message`, `runner::message`.
//! Nothing here allocates by a length that was sent, and whatever is not exactly as it would have
//! been written is refused, so that no two readings of one frame exist.

use std::time::Duration;

use crate::gate::lease::{Families, LeaseName, MAX_LEASE_NAME_BYTES, MAX_PORTS, Trigger};

/// The size of every frame, in octets.
pub const FRAME_BYTES: usize = 512;
/// The longest text in a frame, in octets; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 480;
/// The version of every message.
const VERSION: u8 = 1;

/// One frame on the wire.
pub type Frame = [u8; FRAME_BYTES];

/// Bytes that are not a frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Writes a frame from its beginning.
pub(crate) struct Writer {
    pub(crate) frame: Frame,
    at: usize,
}

impl Writer {
    pub(crate) fn new(kind: u8, sequence: u32) -> Self {
        let writer = Self {
            frame: [0; FRAME_BYTES],
            at: 0,
        };
        writer.u8(VERSION).u8(kind).u32(sequence)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        // What is written is bounded by the types: the longest frame, a text, is under 500 octets.
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn millis(self, value: Duration) -> Self {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// At most 255 octets.
    pub(crate) fn short(self, text: &str) -> Self {
        self.u8(text.len() as u8).bytes(text.as_bytes())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.text_of(text, MAX_TEXT_BYTES)
    }

    /// As much of a text as `max` octets hold.
    pub(crate) fn text_of(self, text: &str, max: usize) -> Self {
        let end = text.floor_char_boundary(max);
        self.bytes(&(end as u16).to_be_bytes())
            .bytes(&text.as_bytes()[..end])
    }

    pub(crate) fn trigger(self, trigger: Trigger) -> Self {
        self.u8(match trigger {
            Trigger::Asked => 1,
            Trigger::Automatic => 2,
        })
    }

    pub(crate) fn families(self, families: Families) -> Self {
        self.u8(u8::from(families.v4)).u8(u8::from(families.v6))
    }

    pub(crate) fn ports(self, ports: &[u16]) -> Self {
        let writer = self.u8(ports.len().min(MAX_PORTS) as u8);
        let ports = ports.iter().take(MAX_PORTS);
        ports.fold(writer, |writer, port| writer.bytes(&port.to_be_bytes()))
    }
}

/// Reads a frame from its beginning; what is not exactly as written is [`Malformed`].
pub(crate) struct Reader<'frame> {
    rest: &'frame [u8],
}

impl<'frame> Reader<'frame> {
    pub(crate) fn new(frame: &'frame Frame) -> Result<(Self, u8, u32), Malformed> {
        let mut reader = Self { rest: frame };
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let kind = reader.u8()?;
        let sequence = reader.u32()?;
        Ok((reader, kind, sequence))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'frame [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn millis(&mut self) -> Result<Duration, Malformed> {
        // Longer than a year is nothing that this program ever says, and would overflow an instant.
        const YEAR: u64 = 366 * 24 * 3600 * 1000;
        match self.u64()? {
            millis if millis <= YEAR => Ok(Duration::from_millis(millis)),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn short(&mut self, max: usize) -> Result<&'frame str, Malformed> {
        let length = usize::from(self.u8()?);
        if length > max {
            return Err(Malformed);
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        self.text_of(MAX_TEXT_BYTES)
    }

    pub(crate) fn text_of(&mut self, max: usize) -> Result<String, Malformed> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > max {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }

    pub(crate) fn name(&mut self) -> Result<LeaseName, Malformed> {
        LeaseName::parse(self.short(MAX_LEASE_NAME_BYTES)?).ok_or(Malformed)
    }

    pub(crate) fn trigger(&mut self) -> Result<Trigger, Malformed> {
        match self.u8()? {
            1 => Ok(Trigger::Asked),
            2 => Ok(Trigger::Automatic),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn families(&mut self) -> Result<Families, Malformed> {
        Ok(Families {
            v4: self.flag()?,
            v6: self.flag()?,
        })
    }

    pub(crate) fn ports(&mut self) -> Result<Vec<u16>, Malformed> {
        let count = usize::from(self.u8()?);
        if count > MAX_PORTS {
            return Err(Malformed);
        }
        (0..count)
            .map(|_| self.array().map(u16::from_be_bytes))
            .collect()
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        match self.rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Malformed),
        }
    }
}
