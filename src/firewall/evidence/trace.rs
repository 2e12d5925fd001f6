//! What the kernel tells of a traced packet: each rule that it met, and what became of it. Pure.
//!
//! Whoever traces for himself is heard too; his packets are nobody's that is waited for. Numbers are
//! those of `enum nft_trace_attributes` (linux/netfilter/nf_tables.h).

use std::collections::VecDeque;
use std::net::IpAddr;

use nlink::netlink::nftables::Family as NftFamily;

use super::message::{find, messages, u32_in, u64_in};
use super::told::Peer;
use crate::firewall::names::TABLE;

/// `NFT_MSG_TRACE` of subsystem nftables.
const TRACE: u16 = 0x0a11;
const GENERIC: usize = 4;
const NFTA_TRACE_TABLE: u16 = 1;
const NFTA_TRACE_CHAIN: u16 = 2;
const NFTA_TRACE_RULE_HANDLE: u16 = 3;
const NFTA_TRACE_TYPE: u16 = 4;
const NFTA_TRACE_VERDICT: u16 = 5;
const NFTA_TRACE_ID: u16 = 6;
const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
const NFTA_TRACE_OIF: u16 = 12;
const NFTA_TRACE_POLICY: u16 = 16;
const NFT_TRACETYPE_POLICY: u32 = 1;
const NFT_TRACETYPE_RETURN: u32 = 2;
const NFT_TRACETYPE_RULE: u32 = 3;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NF_STOLEN: u32 = 2;
const NF_QUEUE: u32 = 3;
const NFT_CONTINUE: u32 = (-1_i32).cast_unsigned();
const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
const NFT_GOTO: u32 = (-4_i32).cast_unsigned();
const NFT_RETURN: u32 = (-5_i32).cast_unsigned();
/// The verdict itself; what is above it is an error number.
const NF_VERDICT_MASK: u32 = 0xff;
/// Verdicts of nftables itself, such as `jump`, are negative.
const NEGATIVE: u32 = 1 << 31;
const TCP: u8 = 6;
/// As many packets are on their way at a time: five a second are traced.
const MAX_PACKETS: usize = 64;
/// nftables' own bound of a name, in octets.
const MAX_NAME_BYTES: usize = 255;

/// One message: a rule that a packet matched, the end of a chain, or a policy that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Which packet, until the kernel uses the number again.
    pub id: u32,
    /// The table's family, by the kernel's number.
    pub family: u8,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What happened there.
    pub what: What,
    /// The first 40 octets of the packet from its network header on; only with the first message of each base
    /// chain.
    pub network: Option<Vec<u8>>,
    /// The first 20 octets of its transport header, likewise.
    pub transport: Option<Vec<u8>>,
    /// The number of the interface that it leaves by, once that is known; likewise.
    pub leaves_by: Option<u32>,
}

/// What happened to a traced packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A rule matched: its handle, and what it said.
    Rule(u64, Verdict),
    /// A chain came to its end, back to the one before it.
    Return,
    /// A base chain's policy was asked: whether it drops.
    Policy {
        /// It drops.
        drops: bool,
    },
}

/// What a rule says, in nft's words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words are nft's own")]
pub enum Verdict {
    Drop,
    Accept,
    /// The kernel, or a program in its place, has the packet from now on.
    Stolen,
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// By the kernel's number.
    Other(u32),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Accept => f.write_str("accept"),
            Self::Stolen => f.write_str("stolen"),
            Self::Queue => f.write_str("queue"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Other(number) => write!(f, "verdict {number}"),
        }
    }
}

/// Every message of a datagram that tells of a traced packet.
pub fn traced(datagram: &[u8]) -> impl Iterator<Item = Traced> {
    messages(datagram, None).filter_map(|(kind, body)| match kind {
        TRACE => one(body),
        _ => None,
    })
}

fn one(body: &[u8]) -> Option<Traced> {
    let (generic, attributes) = body.split_at_checked(GENERIC)?;
    let what = match u32_in(attributes, NFTA_TRACE_TYPE)? {
        NFT_TRACETYPE_POLICY => What::Policy {
            drops: u32_in(attributes, NFTA_TRACE_POLICY)? == NF_DROP,
        },
        NFT_TRACETYPE_RETURN => What::Return,
        NFT_TRACETYPE_RULE => What::Rule(
            u64_in(attributes, NFTA_TRACE_RULE_HANDLE)?,
            verdict(find(attributes, NFTA_TRACE_VERDICT)?)?,
        ),
        _ => return None,
    };
    Some(Traced {
        id: u32_in(attributes, NFTA_TRACE_ID)?,
        family: *generic.first()?,
        table: name(attributes, NFTA_TRACE_TABLE)?,
        chain: name(attributes, NFTA_TRACE_CHAIN)?,
        what,
        network: find(attributes, NFTA_TRACE_NETWORK_HEADER).map(<[u8]>::to_vec),
        transport: find(attributes, NFTA_TRACE_TRANSPORT_HEADER).map(<[u8]>::to_vec),
        leaves_by: u32_in(attributes, NFTA_TRACE_OIF),
    })
}

fn verdict(attributes: &[u8]) -> Option<Verdict> {
    let code = u32_in(attributes, NFTA_VERDICT_CODE)?;
    let chain = || name(attributes, NFTA_VERDICT_CHAIN).unwrap_or_default();
    Some(match code {
        NFT_CONTINUE => Verdict::Continue,
        NFT_JUMP => Verdict::Jump(chain()),
        NFT_GOTO => Verdict::Goto(chain()),
        NFT_RETURN => Verdict::Return,
        code if code & NEGATIVE != 0 => Verdict::Other(code),
        code => match code & NF_VERDICT_MASK {
            NF_DROP => Verdict::Drop,
            NF_ACCEPT => Verdict::Accept,
            NF_STOLEN => Verdict::Stolen,
            NF_QUEUE => Verdict::Queue,
            _ => Verdict::Other(code),
        },
    })
}

/// Where a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The table's family, by the kernel's number.
    pub family: u8,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; `None` for the chain's policy.
    pub rule: Option<u64>,
}

/// A packet of somebody's was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPacket {
    /// Whose, never IPv4-mapped.
    pub source: IpAddr,
    /// The port that it was for when it came in.
    pub port: u16,
    /// Where.
    pub place: Place,
}

/// Puts messages of one packet together: who it is from stands in the first one of each table alone,
/// and where it was for in the first one of all.
#[derive(Debug, Default)]
pub struct Packets {
    recent: VecDeque<(u32, Peer)>,
}

impl Packets {
    /// Reads a datagram; tells of every packet that was dropped by somebody else than us.
    pub fn read(&mut self, datagram: &[u8]) -> Vec<DroppedPacket> {
        traced(datagram)
            .filter_map(|traced| self.message(traced))
            .collect()
    }

    /// Whatever comes from now on is another packet.
    pub fn forget(&mut self) {
        self.recent.clear();
    }

    fn message(&mut self, traced: Traced) -> Option<DroppedPacket> {
        let id = traced.id;
        let mut known = self.recent.iter();
        let known = known.find(|(known, _)| *known == id).map(|(_, peer)| *peer);
        let peer = known.or_else(|| {
            let peer = peer(&traced)?;
            if self.recent.len() >= MAX_PACKETS {
                self.recent.pop_front();
            }
            self.recent.push_back((id, peer));
            Some(peer)
        });
        let rule = match traced.what {
            What::Rule(handle, Verdict::Drop) => Some(handle),
            What::Policy { drops: true } => None,
            _ => return None,
        };
        // The kernel uses an identity again: what comes with it now is another packet.
        self.recent.retain(|(known, _)| *known != id);
        let place = Place {
            family: traced.family,
            table: traced.table,
            chain: traced.chain,
            rule,
        };
        let (source, port) = peer?;
        let is_ours = place.family == NftFamily::Inet as u8 && place.table == TABLE;
        (!is_ours).then_some(DroppedPacket {
            source,
            port,
            place,
        })
    }
}

/// Whose packet it is, and the TCP port that it is for.
fn peer(traced: &Traced) -> Option<Peer> {
    let network = traced.network.as_deref()?;
    let source: IpAddr = match network.first()? >> 4 {
        4 if *network.get(9)? == TCP => <[u8; 4]>::try_from(network.get(12..16)?).ok()?.into(),
        6 => <[u8; 16]>::try_from(network.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    let port = traced.transport.as_deref()?.get(2..4)?.try_into().ok()?;
    Some((source.to_canonical(), u16::from_be_bytes(port)))
}

fn name(attributes: &[u8], kind: u16) -> Option<String> {
    let bytes = find(attributes, kind)?;
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let bytes = bytes.get(..MAX_NAME_BYTES).unwrap_or(bytes);
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Captured from Linux 6.18: one first packet each, from 192.0.2.2 or 2001:db8:1::2.
    const RULE: &[u8] = include_bytes!("../../../tests/data/netlink/rule");
    const POLICY: &[u8] = include_bytes!("../../../tests/data/netlink/policy");
    const REJECT: &[u8] = include_bytes!("../../../tests/data/netlink/reject-six");
    const ACCEPTED: &[u8] = include_bytes!("../../../tests/data/netlink/accepted");
    const OURS: &[u8] = include_bytes!("../../../tests/data/netlink/ours");

    fn dropped(datagrams: &[u8]) -> Vec<(String, u16, String, String, bool)> {
        let drops = Packets::default().read(datagrams).into_iter();
        let told = drops.map(|drop| {
            let place = drop.place;
            let source = drop.source.to_string();
            (
                source,
                drop.port,
                place.table,
                place.chain,
                place.rule.is_some(),
            )
        });
        told.collect()
    }

    fn of(
        source: &str,
        port: u16,
        chain: &str,
        by_rule: bool,
    ) -> Vec<(String, u16, String, String, bool)> {
        let [source, table, chain] = [source, "filter", chain].map(str::to_owned);
        vec![(source, port, table, chain, by_rule)]
    }

    #[test]
    fn rules_and_policies_that_drop_are_told() {
        assert_eq!(dropped(RULE), of("192.0.2.2", 80, "sub", true));
        assert_eq!(dropped(POLICY), of("192.0.2.2", 82, "input", false));
        assert_eq!(dropped(REJECT), of("2001:db8:1::2", 80, "sub", true));
        assert_eq!(Packets::default().read(RULE)[0].place.family, 1);
    }

    #[test]
    fn what_passes_and_what_we_drop_ourselves_is_not() {
        assert_eq!(dropped(ACCEPTED), []);
        assert_eq!(dropped(OURS), []);
    }

    #[test]
    fn messages_that_come_one_by_one_say_the_same() {
        let mut packets = Packets::default();
        let mut rest = RULE;
        let mut drops = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(*rest.first_chunk().unwrap()) as usize;
            let (message, behind) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
            drops.extend(packets.read(message));
            rest = behind;
        }
        assert_eq!(drops, Packets::default().read(RULE));
    }

    #[test]
    fn what_is_cut_short_drops_nobody_and_is_no_panic() {
        let whole = dropped(POLICY);
        for end in 0..POLICY.len() {
            let told = dropped(&POLICY[..end]);
            assert!(told.is_empty() || told == whole, "cut at {end}");
        }
    }

    #[test]
    fn so_many_packets_are_kept_and_no_more() {
        let mut packets = Packets::default();
        let at = ACCEPTED
            .windows(8)
            .position(|window| window[..4] == [8, 0, 6, 0])
            .unwrap();
        let id = ACCEPTED[at + 4..at + 8].to_vec();
        for number in 0_u32..1000 {
            let mut other = ACCEPTED.to_vec();
            let places: Vec<usize> = (0..other.len() - 4)
                .filter(|at| other[*at..at + 4] == id)
                .collect();
            for at in places {
                other[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            packets.read(&other);
            assert!(packets.recent.len() <= MAX_PACKETS);
        }
        assert_eq!(packets.recent.len(), MAX_PACKETS);
        packets.forget();
        assert!(packets.recent.is_empty());
    }
}
