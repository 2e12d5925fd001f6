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
const NFTA_TRACE_POLICY: u16 = 16;
const NFT_TRACETYPE_POLICY: u32 = 1;
const NFT_TRACETYPE_RULE: u32 = 3;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;
/// The verdict itself; what is above it is an error number.
const NF_VERDICT_MASK: u32 = 0xff;
/// Verdicts of nftables itself, such as `jump`, are negative.
const NEGATIVE: u32 = 1 << 31;
const TCP: u8 = 6;
/// As many packets are on their way at a time: five a second are traced.
const MAX_PACKETS: usize = 64;
/// nftables' own bound of a name, in octets.
const MAX_NAME_BYTES: usize = 255;

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
        let mut drops = Vec::new();
        for (kind, body) in messages(datagram, None) {
            if kind == TRACE
                && let Some(drop) = self.message(body)
            {
                drops.push(drop);
            }
        }
        drops
    }

    /// Whatever comes from now on is another packet.
    pub fn forget(&mut self) {
        self.recent.clear();
    }

    fn message(&mut self, body: &[u8]) -> Option<DroppedPacket> {
        let (generic, attributes) = body.split_at_checked(GENERIC)?;
        let id = u32_in(attributes, NFTA_TRACE_ID)?;
        let mut known = self.recent.iter();
        let known = known.find(|(known, _)| *known == id).map(|(_, peer)| *peer);
        let peer = known.or_else(|| {
            let peer = peer(attributes)?;
            if self.recent.len() >= MAX_PACKETS {
                self.recent.pop_front();
            }
            self.recent.push_back((id, peer));
            Some(peer)
        });
        let rule = dropped_by(attributes)?;
        // The kernel uses an identity again: what comes with it now is another packet.
        self.recent.retain(|(known, _)| *known != id);
        let place = Place {
            family: *generic.first()?,
            table: name(attributes, NFTA_TRACE_TABLE)?,
            chain: name(attributes, NFTA_TRACE_CHAIN)?,
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

/// Whether this drops the packet, and by which rule; the inner `None` is the chain's policy.
fn dropped_by(attributes: &[u8]) -> Option<Option<u64>> {
    match u32_in(attributes, NFTA_TRACE_TYPE)? {
        NFT_TRACETYPE_POLICY => (u32_in(attributes, NFTA_TRACE_POLICY)? == NF_DROP).then_some(None),
        NFT_TRACETYPE_RULE => {
            let code = u32_in(find(attributes, NFTA_TRACE_VERDICT)?, NFTA_VERDICT_CODE)?;
            let drops = code & NEGATIVE == 0 && code & NF_VERDICT_MASK == NF_DROP;
            let rule = u64_in(attributes, NFTA_TRACE_RULE_HANDLE)?;
            drops.then_some(Some(rule))
        }
        _ => None,
    }
}

/// Whose packet it is, and the TCP port that it is for.
fn peer(attributes: &[u8]) -> Option<Peer> {
    let network = find(attributes, NFTA_TRACE_NETWORK_HEADER)?;
    let source: IpAddr = match network.first()? >> 4 {
        4 if *network.get(9)? == TCP => <[u8; 4]>::try_from(network.get(12..16)?).ok()?.into(),
        6 => <[u8; 16]>::try_from(network.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    let transport = find(attributes, NFTA_TRACE_TRANSPORT_HEADER)?;
    let port = transport.get(2..4)?.try_into().ok()?;
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
