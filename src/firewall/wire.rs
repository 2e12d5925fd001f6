//! A claim in the octets of a frame.

use std::net::IpAddr;

use super::message::{Claim, List};
use crate::gate::event::{Sight, Sighting, Tally};
use crate::gate::lease::{Entrance, Holder, Interface, MAX_COMMAND_BYTES, MAX_INTERFACE_BYTES};
use crate::gate::usage::{Account, Kind, Shortage, Span};
use crate::wire::{Malformed, Reader, Writer};

/// Names and texts of evidence that are longer are cut: all of them together fit into a frame.
const MAX_TABLE_BYTES: usize = 80;
const MAX_CHAIN_BYTES: usize = 64;
const MAX_RULE_BYTES: usize = 300;

impl Writer {
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

    /// What is an identifier's is nobody's here: the enforcer has no such account.
    pub(super) fn account(self, account: &Account) -> Self {
        match account {
            Account::Total | Account::Identifier(_) => self.u8(0),
            Account::Lease(name, caller) => self.u8(1).short(name.as_str()).u32(*caller),
        }
    }

    pub(super) fn span(self, span: Span) -> Self {
        self.u8(match span {
            Span::Day => 1,
            Span::Month => 2,
        })
    }

    pub(super) fn shortage(self, shortage: Shortage) -> Self {
        let writer = self
            .u8(match shortage.kind {
                Kind::Total => 1,
                Kind::Lease => 2,
                Kind::Identifier => 3,
            })
            .span(shortage.span)
            .millis(shortage.limit)
            .millis(shortage.used);
        match shortage.fits_in {
            None => writer.u8(0),
            Some(wait) => writer.u8(1).millis(wait),
        }
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.u8(4).bytes(&address.octets()),
            IpAddr::V6(address) => self.u8(6).bytes(&address.octets()),
        }
    }

    pub(super) fn sighting(self, sighting: &Sighting) -> Self {
        let writer = self.address(sighting.source);
        let writer = writer.bytes(&sighting.port.to_be_bytes());
        match &sighting.sight {
            Sight::Seen { packets, ago } => writer.u8(1).u64(*packets).millis(*ago),
            Sight::Reached => writer.u8(2),
            Sight::Dropped { table, chain, rule } => {
                let writer = writer.u8(3).text_of(table, MAX_TABLE_BYTES);
                let writer = writer.text_of(chain, MAX_CHAIN_BYTES);
                match rule {
                    None => writer.u8(0),
                    Some(rule) => writer.u8(1).text_of(rule, MAX_RULE_BYTES),
                }
            }
        }
    }

    pub(super) fn tally(self, tally: &Tally) -> Self {
        let writer = self
            .u8(u8::from(tally.is_kept))
            .u64(tally.packets)
            .u64(tally.seen)
            .u64(tally.reached);
        match &tally.incomplete {
            None => writer.u8(0),
            Some(why) => writer.u8(1).text_of(why, MAX_RULE_BYTES),
        }
    }

    pub(super) fn list(self, list: List) -> Self {
        match list {
            List::Whole => self.u8(0),
            List::Filling { percent, ranges } => self.u8(1).u8(percent).u32(ranges),
            List::Refused { errno } => self.u8(2).u32(errno),
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
        writer
            .u32(claim.caller)
            .trigger(claim.trigger)
            .families(claim.families)
            .u8(u8::from(claim.is_scoped))
            .entrance(&claim.entrance)
            .millis(claim.length)
            .ports(&claim.ports)
    }
}

impl Reader<'_> {
    fn address(&mut self) -> Result<IpAddr, Malformed> {
        let address = match self.u8()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(Malformed),
        };
        match address.to_canonical() == address {
            true => Ok(address),
            false => Err(Malformed),
        }
    }

    pub(super) fn sighting(&mut self) -> Result<Sighting, Malformed> {
        Ok(Sighting {
            source: self.address()?,
            port: self.array().map(u16::from_be_bytes)?,
            sight: match self.u8()? {
                1 => Sight::Seen {
                    packets: self.u64()?,
                    ago: self.millis()?,
                },
                2 => Sight::Reached,
                3 => Sight::Dropped {
                    table: self.text_of(MAX_TABLE_BYTES)?,
                    chain: self.text_of(MAX_CHAIN_BYTES)?,
                    rule: match self.flag()? {
                        false => None,
                        true => Some(self.text_of(MAX_RULE_BYTES)?),
                    },
                },
                _ => return Err(Malformed),
            },
        })
    }

    pub(super) fn tally(&mut self) -> Result<Tally, Malformed> {
        Ok(Tally {
            is_kept: self.flag()?,
            packets: self.u64()?,
            seen: self.u64()?,
            reached: self.u64()?,
            incomplete: match self.flag()? {
                false => None,
                true => Some(self.text_of(MAX_RULE_BYTES)?),
            },
        })
    }

    pub(super) fn account(&mut self) -> Result<Account, Malformed> {
        match self.u8()? {
            0 => Ok(Account::Total),
            1 => Ok(Account::Lease(self.name()?, self.u32()?)),
            _ => Err(Malformed),
        }
    }

    pub(super) fn span(&mut self) -> Result<Span, Malformed> {
        match self.u8()? {
            1 => Ok(Span::Day),
            2 => Ok(Span::Month),
            _ => Err(Malformed),
        }
    }

    pub(super) fn shortage(&mut self) -> Result<Shortage, Malformed> {
        Ok(Shortage {
            kind: match self.u8()? {
                1 => Kind::Total,
                2 => Kind::Lease,
                3 => Kind::Identifier,
                _ => return Err(Malformed),
            },
            span: self.span()?,
            limit: self.millis()?,
            used: self.millis()?,
            fits_in: match self.flag()? {
                false => None,
                true => Some(self.millis()?),
            },
        })
    }

    pub(super) fn list(&mut self) -> Result<List, Malformed> {
        match self.u8()? {
            0 => Ok(List::Whole),
            1 => Ok(List::Filling {
                percent: self.u8()?,
                ranges: self.u32()?,
            }),
            2 => Ok(List::Refused { errno: self.u32()? }),
            _ => Err(Malformed),
        }
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
            trigger: self.trigger()?,
            families: self.families()?,
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
}
