//! First packets, octet by octet, as systems on the Internet send them: the SYN is that of a Linux host.
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::watch::MARKER;
use crate::doctor::path::{Knock, Protocol};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Some hops away from a host that began with 64.
const HOPS: u8 = 53;

/// The whole packet of a knock from this port, with the sequence number that a SYN has.
pub fn first(knock: &Knock, source_port: u16, sequence: u32) -> Vec<u8> {
    let (protocol, payload) = match knock.protocol {
        Protocol::Tcp => (TCP, segment(source_port, knock.port, sequence, None)),
        Protocol::Udp => (UDP, datagram(source_port, knock.port)),
    };
    whole(knock.source, knock.destination, protocol, payload)
}

/// The answer to a SYN of this sequence number; nothing, if the two are not of one family.
pub fn answer(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let own = sequence.rotate_left(16);
    let segment = segment(from.port(), to.port(), own, Some(sequence.wrapping_add(1)));
    whole(from.ip(), to.ip(), TCP, segment)
}

fn whole(from: IpAddr, to: IpAddr, protocol: u8, mut payload: Vec<u8>) -> Vec<u8> {
    let sum = checksum(from, to, protocol, &payload);
    let at = if protocol == TCP { 16 } else { 6 };
    if let Some(field) = payload.get_mut(at..at + 2) {
        // RFC 768: a sum of nothing says that there is none.
        let sum = if sum == 0 && protocol == UDP {
            0xffff
        } else {
            sum
        };
        field.copy_from_slice(&sum.to_be_bytes());
    }
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4(from, to, protocol, &payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => v6(from, to, protocol, &payload),
        _ => Vec::new(),
    }
}

/// The packet that says that all before it are through. Its number stands in the address that it is from.
pub fn marker(number: u32, to: Ipv4Addr) -> Vec<u8> {
    v4(marker_source(number), to, MARKER, &[0; 20])
}

/// Of a network that nobody has (RFC 1112, class E).
pub fn marker_source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xf000_0000 | number & 0x00ff_ffff)
}

/// A SYN, or what answers one and acknowledges this number.
fn segment(from: u16, to: u16, sequence: u32, acknowledged: Option<u32>) -> Vec<u8> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const WORDS: u8 = 10;
    let mut segment = Vec::with_capacity(40);
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.unwrap_or(0).to_be_bytes());
    let flags = acknowledged.map_or(SYN, |_| SYN | ACK);
    segment.extend([WORDS << 4, flags]);
    segment.extend(64_240_u16.to_be_bytes());
    segment.extend([0; 4]);
    // Segment size 1460, selective acknowledgements, time stamps, nothing, window scale 7.
    segment.extend([2, 4, 5, 0xb4, 4, 2, 8, 10]);
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 1, 3, 3, 7]);
    segment
}

/// A question of DNS for the root's name servers, whatever the port.
fn datagram(from: u16, to: u16) -> Vec<u8> {
    let question = [
        0x1d, 0x2c, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, // one question
        0, 0, 2, 0, 1, // the root, NS, IN
    ];
    let mut datagram = Vec::with_capacity(8 + question.len());
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend((8 + question.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(question);
    datagram
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // Identity; never in fragments.
    packet.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = finish(words(&packet));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([protocol, HOPS]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// RFC 9293 §3.1, RFC 8200 §8.1.
fn checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => words(&address.octets()),
        IpAddr::V6(address) => words(&address.octets()),
    };
    let pseudo = address(from) + address(to) + u32::from(protocol) + payload.len() as u32;
    finish(pseudo + words(payload))
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knock(source: &str, destination: &str, protocol: Protocol) -> Knock {
        Knock {
            interface: "eth0".to_owned(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            port: 80,
        }
    }

    #[test]
    fn sums_are_right() {
        for (source, destination, head) in [
            ("198.51.100.7", "192.0.2.1", 20),
            ("2001:db8::7", "2001:db8::1", 40),
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let knock = knock(source, destination, protocol);
                let packet = first(&knock, 40_000, 7);
                let number = if protocol == Protocol::Tcp { TCP } else { UDP };
                // A sum over itself is nothing.
                let whole = checksum(knock.source, knock.destination, number, &packet[head..]);
                assert_eq!(whole, 0, "{source} {protocol}");
                let [from, to] = [knock.destination, knock.source];
                let answer = answer(SocketAddr::new(from, 80), SocketAddr::new(to, 40_000), 7);
                assert_eq!(checksum(from, to, TCP, &answer[head..]), 0, "{source}");
                if head == 20 {
                    assert_eq!(finish(words(&packet[..20])), 0);
                }
            }
        }
    }

    #[test]
    fn families_that_do_not_fit_give_nothing() {
        assert!(first(&knock("192.0.2.1", "2001:db8::1", Protocol::Tcp), 1, 1).is_empty());
    }
}
