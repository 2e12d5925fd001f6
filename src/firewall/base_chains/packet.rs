//! The packet that is judged: what a rule finds when it asks for some part of it.
//!
//! A new TCP SYN without IP options or extension headers, for a local unicast address, from an
//! ephemeral port of an arbitrary foreign address. IPv6's global unicast space is 2000::/3 (RFC
//! 4291 §2.4), so three bits of such a source are known.

use std::net::IpAddr;

use nlink::netlink::nftables::{CtKey, FibFlags, FibResult, MetaKey, PayloadBase};

use super::bits::{Byte, Origin, exactly};
use super::ruleset::Hook;
use super::step::Field;
use super::{IpFamily, Probe};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
/// `RTN_UNICAST` and `RTN_LOCAL` of `linux/rtnetlink.h`.
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
/// Where connection tracking stands in prerouting (`NF_IP_PRI_CONNTRACK`).
const CONNTRACK_PRIORITY: i32 = -200;

/// What rules on the path can change, or what changes between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Packet {
    pub(super) mark: [Byte; 4],
    pub(super) ct_mark: [Byte; 4],
    pub(super) tracking: Tracking,
    /// A rule gave the connection a zone or labels.
    pub(super) ct_changed: bool,
}

/// Whether the packet has a connection yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tracking {
    /// Not yet: a chain before −200 finds the state `invalid`.
    Before,
    /// A chain at −200 itself; which of the two comes first is not known.
    Unsure,
    New,
    /// Some rule said `notrack`.
    Untracked,
}

/// What a load puts into the register.
pub(super) enum Loaded {
    Bytes(Vec<Byte>),
    /// There is no such thing: the rule does not match.
    Absent,
    /// These, or there is no such thing.
    Perhaps(Vec<Byte>),
}

impl Packet {
    pub(super) fn of(probe: &Probe) -> Self {
        Self {
            mark: probe.mark.to_ne_bytes().map(Byte::exactly),
            ct_mark: probe.ct_mark.to_ne_bytes().map(Byte::exactly),
            tracking: match probe.is_untracked {
                true => Tracking::Untracked,
                false => Tracking::Before,
            },
            ct_changed: false,
        }
    }

    /// The packet as it arrives at a chain of this hook and priority.
    pub(super) fn arriving_at(mut self, hook: Hook, priority: i32) -> Self {
        if matches!(self.tracking, Tracking::Before | Tracking::Unsure) {
            self.tracking = match hook {
                Hook::Ingress => Tracking::Before,
                Hook::Prerouting if priority < CONNTRACK_PRIORITY => Tracking::Before,
                Hook::Prerouting if priority == CONNTRACK_PRIORITY => Tracking::Unsure,
                Hook::Prerouting | Hook::Input => Tracking::New,
            };
        }
        self
    }

    pub(super) fn load(&self, probe: &Probe, field: &Field, len: usize) -> Loaded {
        let unknown = || vec![Byte::UNKNOWN; len];
        let bytes = match field {
            Field::Meta(MetaKey::SkUid | MetaKey::SkGid | MetaKey::CGroup) | Field::Absent => {
                return Loaded::Absent;
            }
            Field::Meta(key) => self.meta(probe, *key).unwrap_or_else(unknown),
            Field::Ct { key, reply } => return self.connection(probe, *key, *reply, unknown()),
            Field::Header { base, offset } => {
                let header = match base {
                    PayloadBase::LinkLayer => link_header(probe),
                    PayloadBase::Network => network_header(probe),
                    PayloadBase::Transport => tcp_header(probe),
                    _ => Vec::new(),
                };
                let end = offset.saturating_add(len);
                match header.get(*offset..end) {
                    Some(bytes) => bytes.to_vec(),
                    // Options and data: there or not.
                    None => return Loaded::Perhaps(unknown()),
                }
            }
            Field::Fib { result, flags } => route(probe, *result, *flags).unwrap_or_else(unknown),
            Field::Optional => return Loaded::Perhaps(unknown()),
        };
        Loaded::Bytes(bytes)
    }

    fn meta(&self, probe: &Probe, key: MetaKey) -> Option<Vec<Byte>> {
        Some(match key {
            MetaKey::Mark => self.mark.to_vec(),
            MetaKey::Protocol => exactly(&ether_type(probe.family)),
            MetaKey::NfProto => exactly(&[nfproto(probe.family)]),
            MetaKey::L4Proto => exactly(&[TCP]),
            MetaKey::Iif => probe
                .ifindex
                .map_or(vec![Byte::unknown(Origin::Ifindex); 4], index),
            MetaKey::IifName => name(&probe.interface),
            // On the way in there is none yet; the kernel then answers 0 and "".
            MetaKey::Oif => index(0),
            MetaKey::OifName => name(""),
            // PACKET_HOST; and it came without IPsec.
            MetaKey::PktType | MetaKey::SecPath => exactly(&[0]),
            _ => return None,
        })
    }

    fn connection(&self, probe: &Probe, key: CtKey, reply: bool, unknown: Vec<Byte>) -> Loaded {
        if key == CtKey::State {
            // NF_CT_STATE_BIT of the kernel's enum ip_conntrack_info.
            let state: u32 = match self.tracking {
                Tracking::Before => 1 << 0,
                Tracking::New => 1 << 3,
                Tracking::Untracked => 1 << 6,
                Tracking::Unsure => return Loaded::Bytes(unknown),
            };
            return Loaded::Bytes(exactly(&state.to_ne_bytes()));
        }
        match self.tracking {
            Tracking::Before | Tracking::Untracked => return Loaded::Absent,
            Tracking::Unsure => return Loaded::Perhaps(unknown),
            Tracking::New => {}
        }
        let source = |len| source(probe.family, len);
        let bytes = match key {
            CtKey::Mark => self.ct_mark.to_vec(),
            CtKey::Direction => exactly(&[0]),
            CtKey::Status => status(),
            CtKey::Zone | CtKey::Labels if !self.ct_changed => exactly(&vec![0; unknown.len()]),
            CtKey::L3Protocol => exactly(&[nfproto(probe.family)]),
            CtKey::Protocol => exactly(&[TCP]),
            CtKey::Helper if !self.ct_changed => return Loaded::Absent,
            CtKey::ProtoDst if !reply => exactly(&probe.port.to_be_bytes()),
            CtKey::ProtoSrc if reply => exactly(&probe.port.to_be_bytes()),
            CtKey::ProtoSrc | CtKey::ProtoDst => vec![Byte::unknown(Origin::SourcePort); 2],
            CtKey::Src | CtKey::SrcIp | CtKey::SrcIp6 if !reply => source(unknown.len()),
            CtKey::Dst | CtKey::DstIp | CtKey::DstIp6 if reply => source(unknown.len()),
            CtKey::Src
            | CtKey::SrcIp
            | CtKey::SrcIp6
            | CtKey::Dst
            | CtKey::DstIp
            | CtKey::DstIp6 => {
                let mut bytes = destination(probe);
                bytes.resize(unknown.len(), Byte::exactly(0));
                bytes
            }
            _ => unknown,
        };
        Loaded::Bytes(bytes)
    }
}

/// `ct status` of a connection's first packet: not expected, answered, assured, confirmed or
/// translated. The higher bits are the kernel's own business.
fn status() -> Vec<Byte> {
    let known: u32 = 0x3f;
    known
        .to_ne_bytes()
        .map(|known| Byte::partly(0, known, Origin::Plain))
        .to_vec()
}

/// The answer of `fib`: the source is routed back by where it came from, the destination is local.
fn route(probe: &Probe, result: FibResult, flags: FibFlags) -> Option<Vec<Byte>> {
    if flags.contains(FibFlags::PRESENT) {
        return Some(exactly(&[1]));
    }
    let of_source = flags.contains(FibFlags::SADDR);
    match result {
        FibResult::AddrType => {
            let kind = if of_source { UNICAST } else { LOCAL };
            Some(exactly(&kind.to_ne_bytes()))
        }
        FibResult::Oif if of_source => probe.ifindex.map(index),
        FibResult::OifName if of_source => Some(name(&probe.interface)),
        _ => None,
    }
}

fn link_header(probe: &Probe) -> Vec<Byte> {
    let mut header = vec![Byte::UNKNOWN; 12];
    header.extend(ether_type(probe.family).map(Byte::exactly));
    header
}

fn network_header(probe: &Probe) -> Vec<Byte> {
    let mut header;
    match probe.family {
        IpFamily::V4 => {
            header = vec![Byte::UNKNOWN; 12];
            header[0] = Byte::exactly(0x45);
            // No fragment: only "don't fragment" may be set.
            header[6] = Byte::partly(0, 0xbf, Origin::Plain);
            header[7] = Byte::exactly(0);
            header[9] = Byte::exactly(TCP);
            header.extend(source(probe.family, 4));
        }
        IpFamily::V6 => {
            header = vec![Byte::UNKNOWN; 8];
            header[0] = Byte::partly(0x60, 0xf0, Origin::Plain);
            header[6] = Byte::exactly(TCP);
            header.extend(source(probe.family, 16));
        }
    }
    header.extend(destination(probe));
    header
}

fn tcp_header(probe: &Probe) -> Vec<Byte> {
    let mut header = vec![Byte::unknown(Origin::SourcePort); 2];
    header.extend(probe.port.to_be_bytes().map(Byte::exactly));
    header.extend([Byte::UNKNOWN; 4]);
    // No acknowledgement yet, data offset unknown, SYN alone.
    header.extend([Byte::exactly(0); 4]);
    header.extend([Byte::partly(0, 0x0f, Origin::Plain), Byte::exactly(SYN)]);
    header.extend([Byte::UNKNOWN; 4]);
    header.extend([Byte::exactly(0); 2]);
    header
}

fn source(family: IpFamily, len: usize) -> Vec<Byte> {
    let address_len = if family == IpFamily::V4 { 4 } else { 16 };
    let mut bytes = vec![Byte::unknown(Origin::Source); len.min(address_len)];
    if family == IpFamily::V6
        && let Some(first) = bytes.first_mut()
    {
        *first = Byte::partly(0x20, 0xe0, Origin::Source);
    }
    bytes.resize(len, Byte::exactly(0));
    bytes
}

fn destination(probe: &Probe) -> Vec<Byte> {
    match (probe.family, probe.destination) {
        (IpFamily::V4, Some(IpAddr::V4(address))) => exactly(&address.octets()),
        (IpFamily::V6, Some(IpAddr::V6(address))) => exactly(&address.octets()),
        (family, _) => {
            // Multicast and reserved addresses stand above the unicast ones.
            let (len, below) = if family == IpFamily::V4 {
                (4, 0xe0)
            } else {
                (16, 0xff)
            };
            let mut bytes = vec![Byte::UNKNOWN; len];
            bytes[0] = Byte::unknown(Origin::UnicastHead(below));
            bytes
        }
    }
}

fn nfproto(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

fn ether_type(family: IpFamily) -> [u8; 2] {
    match family {
        IpFamily::V4 => [0x08, 0x00],
        IpFamily::V6 => [0x86, 0xdd],
    }
}

fn index(ifindex: u32) -> Vec<Byte> {
    exactly(&ifindex.to_ne_bytes())
}

/// An interface's name as the kernel holds it: 16 octets, the rest zero.
fn name(interface: &str) -> Vec<Byte> {
    let mut bytes = interface.as_bytes().to_vec();
    bytes.resize(16, 0);
    exactly(&bytes)
}
