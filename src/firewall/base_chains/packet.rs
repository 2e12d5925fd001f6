//! The packet that is judged: what a rule finds when it asks for some part of it.
//!
//! A new TCP SYN, or a datagram, without IP options or extension headers, for a local unicast address,
//! from an ephemeral port of an arbitrary foreign address. IPv6's global unicast space is 2000::/3 (RFC
//! 4291 §2.4), so three bits of such a source are known.

use std::net::IpAddr;

use nlink::netlink::nftables::{CtKey, FibFlags, FibResult, MetaKey, PayloadBase};

use super::bits::{Byte, Origin, exactly};
use super::compat::STATE_TRANSLATED;
use super::routes::{Onward, Routes};
use super::ruleset::Hook;
use super::step::{Field, To};
use super::{IpFamily, Probe, Transport};

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
    pub(super) transport: Transport,
    /// Its destination now.
    pub(super) destination: Option<IpAddr>,
    /// Its port now.
    pub(super) port: u16,
    /// Whether a rule changed its destination; `None` if it may have been the same before.
    pub(super) is_translated: Option<bool>,
    /// Where routing sends it.
    pub(super) onward: Onward,
    /// The interface that it leaves by, once it is routed there.
    out: Option<u32>,
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
    pub(super) fn of(probe: &Probe, transport: Transport) -> Self {
        Self {
            mark: probe.mark.to_ne_bytes().map(Byte::exactly),
            ct_mark: probe.ct_mark.to_ne_bytes().map(Byte::exactly),
            tracking: match probe.is_untracked {
                true => Tracking::Untracked,
                false => Tracking::Before,
            },
            ct_changed: false,
            transport,
            destination: probe.destination,
            port: probe.port,
            is_translated: Some(false),
            onward: Onward::Here,
            out: None,
        }
    }

    /// The packet after its destination was changed.
    pub(super) fn translated(self, to: To, onward: Onward) -> Self {
        let differs = |address| Some(self.destination? != address);
        let is_translated = match (to.port, to.address) {
            (Some(port), _) if port != self.port => Some(true),
            (_, Some(address)) => differs(address),
            (_, None) => None,
        };
        Self {
            destination: to.address,
            port: to.port.unwrap_or(self.port),
            is_translated,
            onward,
            ..self
        }
    }

    /// The packet as it arrives at a chain of this hook and priority.
    pub(super) fn arriving_at(mut self, hook: Hook, priority: i32) -> Self {
        if matches!(self.tracking, Tracking::Before | Tracking::Unsure) {
            self.tracking = match hook {
                Hook::Ingress => Tracking::Before,
                Hook::Prerouting if priority < CONNTRACK_PRIORITY => Tracking::Before,
                Hook::Prerouting if priority == CONNTRACK_PRIORITY => Tracking::Unsure,
                Hook::Prerouting | Hook::Input | Hook::Forward => Tracking::New,
            };
        }
        self.out = match (hook, self.onward) {
            (Hook::Forward, Onward::Out(index)) => Some(index),
            _ => None,
        };
        self
    }

    pub(super) fn load(
        &self,
        probe: &Probe,
        routes: Option<&Routes>,
        field: &Field,
        len: usize,
    ) -> Loaded {
        let unknown = || vec![Byte::UNKNOWN; len];
        let bytes = match field {
            Field::Meta(MetaKey::SkUid | MetaKey::SkGid | MetaKey::CGroup) | Field::Absent => {
                return Loaded::Absent;
            }
            Field::Meta(key) => self.meta(probe, routes, *key).unwrap_or_else(unknown),
            Field::Ct { key, reply } => return self.connection(probe, *key, *reply, unknown()),
            Field::XtState => return self.xt_state(probe),
            Field::Header { base, offset } => {
                let header = match base {
                    PayloadBase::LinkLayer => link_header(probe),
                    PayloadBase::Network => self.network_header(probe),
                    PayloadBase::Transport => self.transport_header(),
                    _ => Vec::new(),
                };
                let end = offset.saturating_add(len);
                match header.get(*offset..end) {
                    Some(bytes) => bytes.to_vec(),
                    // Options and data: there or not.
                    None => return Loaded::Perhaps(unknown()),
                }
            }
            Field::Fib { result, flags } => {
                self.route(probe, *result, *flags).unwrap_or_else(unknown)
            }
            Field::Optional => return Loaded::Perhaps(unknown()),
        };
        Loaded::Bytes(bytes)
    }

    fn meta(&self, probe: &Probe, routes: Option<&Routes>, key: MetaKey) -> Option<Vec<Byte>> {
        Some(match key {
            MetaKey::Mark => self.mark.to_vec(),
            MetaKey::Protocol => exactly(&ether_type(probe.family)),
            MetaKey::NfProto => exactly(&[nfproto(probe.family)]),
            MetaKey::L4Proto => exactly(&[self.transport.number()]),
            MetaKey::Iif => probe
                .ifindex
                .map_or(vec![Byte::unknown(Origin::Ifindex); 4], index),
            MetaKey::IifName => name(&probe.interface),
            // On the way in there is none yet; the kernel then answers 0 and "".
            MetaKey::Oif => index(self.out.unwrap_or(0)),
            MetaKey::OifName => match self.out {
                Some(index) => name(routes?.name(index)?),
                None => name(""),
            },
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
            CtKey::Status => self.status(),
            CtKey::Zone | CtKey::Labels if !self.ct_changed => exactly(&vec![0; unknown.len()]),
            CtKey::L3Protocol => exactly(&[nfproto(probe.family)]),
            CtKey::Protocol => exactly(&[self.transport.number()]),
            CtKey::Helper if !self.ct_changed => return Loaded::Absent,
            CtKey::ProtoDst if !reply => exactly(&probe.port.to_be_bytes()),
            CtKey::ProtoSrc if reply => exactly(&self.port.to_be_bytes()),
            CtKey::ProtoSrc | CtKey::ProtoDst => vec![Byte::unknown(Origin::SourcePort); 2],
            CtKey::Src | CtKey::SrcIp | CtKey::SrcIp6 if !reply => source(unknown.len()),
            CtKey::Dst | CtKey::DstIp | CtKey::DstIp6 if reply => source(unknown.len()),
            CtKey::Src
            | CtKey::SrcIp
            | CtKey::SrcIp6
            | CtKey::Dst
            | CtKey::DstIp
            | CtKey::DstIp6 => {
                let address = if reply {
                    self.destination
                } else {
                    probe.destination
                };
                let mut bytes = destination(probe.family, address);
                bytes.resize(unknown.len(), Byte::exactly(0));
                bytes
            }
            _ => unknown,
        };
        Loaded::Bytes(bytes)
    }

    /// What `-m conntrack --ctstate` compares.
    fn xt_state(&self, probe: &Probe) -> Loaded {
        let loaded = self.connection(probe, CtKey::State, false, vec![Byte::UNKNOWN; 4]);
        let Loaded::Bytes(mut state) = loaded else {
            return loaded;
        };
        let flag = STATE_TRANSLATED.to_ne_bytes();
        for (byte, flag) in state.iter_mut().zip(flag).filter(|(_, flag)| *flag != 0) {
            *byte = match (self.tracking, self.is_translated) {
                (Tracking::New, Some(true)) => byte.with(flag),
                (Tracking::New, None) => Byte::UNKNOWN,
                _ => *byte,
            };
        }
        Loaded::Bytes(state)
    }

    /// `ct status` of a connection's first packet: not expected, answered, assured or confirmed, and its
    /// source not translated. The higher bits are the kernel's own business.
    fn status(&self) -> Vec<Byte> {
        const TRANSLATED: u32 = 1 << 5;
        let (known, value): (u32, u32) = match self.is_translated {
            Some(true) => (0x3f, TRANSLATED),
            Some(false) => (0x3f, 0),
            None => (0x1f, 0),
        };
        let known = known.to_ne_bytes().into_iter();
        known
            .zip(value.to_ne_bytes())
            .map(|(known, value)| Byte::partly(value, known, Origin::Plain))
            .collect()
    }

    /// The answer of `fib`: the source is routed back by where it came from, the destination is local
    /// unless a rule sent the packet on.
    fn route(&self, probe: &Probe, result: FibResult, flags: FibFlags) -> Option<Vec<Byte>> {
        let of_source = flags.contains(FibFlags::SADDR);
        let is_here = self.onward == Onward::Here;
        if flags.contains(FibFlags::PRESENT) {
            return (of_source || is_here).then(|| exactly(&[1]));
        }
        match result {
            FibResult::AddrType => {
                let kind = if of_source || !is_here {
                    UNICAST
                } else {
                    LOCAL
                };
                Some(exactly(&kind.to_ne_bytes()))
            }
            FibResult::Oif if of_source => probe.ifindex.map(index),
            FibResult::OifName if of_source => Some(name(&probe.interface)),
            _ => None,
        }
    }

    fn network_header(&self, probe: &Probe) -> Vec<Byte> {
        let protocol = self.transport.number();
        let mut header;
        match probe.family {
            IpFamily::V4 => {
                header = vec![Byte::UNKNOWN; 12];
                header[0] = Byte::exactly(0x45);
                // No fragment: only "don't fragment" may be set.
                header[6] = Byte::partly(0, 0xbf, Origin::Plain);
                header[7] = Byte::exactly(0);
                header[9] = Byte::exactly(protocol);
                header.extend(source(probe.family, 4));
            }
            IpFamily::V6 => {
                header = vec![Byte::UNKNOWN; 8];
                header[0] = Byte::partly(0x60, 0xf0, Origin::Plain);
                header[6] = Byte::exactly(protocol);
                header.extend(source(probe.family, 16));
            }
        }
        header.extend(destination(probe.family, self.destination));
        header
    }

    fn transport_header(&self) -> Vec<Byte> {
        let mut header = vec![Byte::unknown(Origin::SourcePort); 2];
        header.extend(self.port.to_be_bytes().map(Byte::exactly));
        header.extend([Byte::UNKNOWN; 4]);
        if self.transport == Transport::Tcp {
            // No acknowledgement yet, data offset unknown, SYN alone.
            header.extend([Byte::exactly(0); 4]);
            header.extend([Byte::partly(0, 0x0f, Origin::Plain), Byte::exactly(SYN)]);
            header.extend([Byte::UNKNOWN; 4]);
            header.extend([Byte::exactly(0); 2]);
        }
        header
    }
}

fn link_header(probe: &Probe) -> Vec<Byte> {
    let mut header = vec![Byte::UNKNOWN; 12];
    header.extend(ether_type(probe.family).map(Byte::exactly));
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

fn destination(family: IpFamily, address: Option<IpAddr>) -> Vec<Byte> {
    match (family, address) {
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
