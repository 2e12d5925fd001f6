//! The octets of a frame: numbers in network order, texts with their length before them, zeros
//! behind. What the numbers mean is `message.rs`'s.

use std::net::IpAddr;
use std::time::Duration;

use super::message::{Claim, FRAME_BYTES, Frame, MAX_TEXT_BYTES, Malformed};
use crate::gate::lease::{
    Entrance, Families, Holder, Interface, LeaseName, MAX_COMMAND_BYTES, MAX_INTERFACE_BYTES,
    MAX_LEASE_NAME_BYTES, MAX_PORTS, Trigger,
};

/// The version of every message.
const VERSION: u8 = 1;

/// Writes a frame from its beginning.
pub(super) struct Writer {
    pub(super) frame: Frame,
    at: usize,
}

impl Writer {
    pub(super) fn new(kind: u8, sequence: u32) -> Self {
        let writer = Self {
            frame: [0; FRAME_BYTES],
            at: 0,
        };
        writer.u8(VERSION).u8(kind).u32(sequence)
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        // What is written is bounded by the types: the longest frame, a text, is under 500 octets.
        self.frame[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }

    pub(super) fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(super) fn millis(self, value: Duration) -> Self {
        self.u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    /// At most 255 octets.
    pub(super) fn short(self, text: &str) -> Self {
        self.u8(text.len() as u8).bytes(text.as_bytes())
    }

    pub(super) fn text(self, text: &str) -> Self {
        let mut end = text.len().min(MAX_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&(end as u16).to_be_bytes())
            .bytes(&text.as_bytes()[..end])
    }

    fn entrance(self, entrance: &Entrance) -> Self {
        match entrance {
            Entrance::Any => self.u8(0),
            Entrance::Address(IpAddr::V4(address)) => self.u8(4).bytes(&address.octets()),
            Entrance::Address(IpAddr::V6(address)) => self.u8(6).bytes(&address.octets()),
            Entrance::Interface(interface) => {
                self.u8(1).u32(interface.index()).short(interface.name())
            }
        }
    }

    pub(super) fn claim(self, claim: &Claim) -> Self {
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
            .entrance(&claim.entrance)
            .millis(claim.length)
            .u8(claim.ports.len().min(MAX_PORTS) as u8);
        let ports = claim.ports.iter().take(MAX_PORTS);
        ports.fold(writer, |writer, port| writer.bytes(&port.to_be_bytes()))
    }
}

/// Reads a frame from its beginning; what is not exactly as written is [`Malformed`].
pub(super) struct Reader<'frame> {
    rest: &'frame [u8],
}

impl<'frame> Reader<'frame> {
    pub(super) fn new(frame: &'frame Frame) -> Result<(Self, u8, u32), Malformed> {
        let mut reader = Self { rest: frame };
        if reader.u8()? != VERSION {
            return Err(Malformed);
        }
        let kind = reader.u8()?;
        let sequence = reader.u32()?;
        Ok((reader, kind, sequence))
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'frame [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn millis(&mut self) -> Result<Duration, Malformed> {
        // Longer than a year is nothing that this program ever says, and would overflow an instant.
        const YEAR: u64 = 366 * 24 * 3600 * 1000;
        match self.u64()? {
            millis if millis <= YEAR => Ok(Duration::from_millis(millis)),
            _ => Err(Malformed),
        }
    }

    pub(super) fn short(&mut self, max: usize) -> Result<&'frame str, Malformed> {
        let length = usize::from(self.u8()?);
        if length > max {
            return Err(Malformed);
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        if length > MAX_TEXT_BYTES {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }

    pub(super) fn name(&mut self) -> Result<LeaseName, Malformed> {
        LeaseName::parse(self.short(MAX_LEASE_NAME_BYTES)?).ok_or(Malformed)
    }

    pub(super) fn claim(&mut self) -> Result<Claim, Malformed> {
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
            entrance: self.entrance()?,
            length: self.millis()?,
            ports: self.ports()?,
        })
    }

    fn entrance(&mut self) -> Result<Entrance, Malformed> {
        match self.u8()? {
            0 => Ok(Entrance::Any),
            1 => {
                let index = self.u32()?;
                let interface = Interface::parse(self.short(MAX_INTERFACE_BYTES)?);
                Ok(Entrance::Interface(
                    interface.ok_or(Malformed)?.numbered(index),
                ))
            }
            4 => Ok(Entrance::Address(IpAddr::from(self.array::<4>()?))),
            6 => Ok(Entrance::Address(IpAddr::from(self.array::<16>()?))),
            _ => Err(Malformed),
        }
    }

    pub(super) fn command(&mut self) -> Result<String, Malformed> {
        let command = self.short(MAX_COMMAND_BYTES)?;
        match command.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(command.to_owned()),
            false => Err(Malformed),
        }
    }

    pub(super) fn ports(&mut self) -> Result<Vec<u16>, Malformed> {
        let count = usize::from(self.u8()?);
        if count > MAX_PORTS {
            return Err(Malformed);
        }
        (0..count)
            .map(|_| self.array().map(u16::from_be_bytes))
            .collect()
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        match self.rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Malformed),
        }
    }
}
