//! First packets, written by hand: anybody's source, either family, TCP or UDP.

use std::net::{IpAddr, SocketAddr};

use acmegate::doctor::path::{Knock, Protocol};
use socket2::{Domain, Socket, Type};

/// `SYN` of a TCP header.
const SYN: u8 = 0x02;
/// `IPPROTO_RAW`: the whole packet is ours to write, and with it the source.
const RAW: i32 = 255;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A socket that sends whole packets of one family by one interface; root of its namespace may.
pub fn raw(is_v4: bool, interface: &str) -> Socket {
    let domain = if is_v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(RAW.into())).expect("a raw socket");
    socket
        .bind_device(Some(interface.as_bytes()))
        .expect("an interface of this namespace");
    socket
}

/// Sends the packet; `number` goes with it wherever it is translated to.
pub fn send(socket: &Socket, knock: &Knock, number: u32) {
    let to = SocketAddr::new(knock.destination, 0);
    socket
        .send_to(&packet(knock, number), &to.into())
        .unwrap_or_else(|error| panic!("{knock:?}: {error}"));
}

/// What arrived at a raw socket: the port that it is for, and its number. A header of IPv4 stands
/// before the transport's, one of IPv6 does not (ipv6(7)).
pub fn arrived(is_v4: bool, protocol: Protocol, bytes: &[u8]) -> Option<(u16, u32)> {
    let start = match is_v4 {
        true => usize::from(bytes.first()? & 0x0f) * 4,
        false => 0,
    };
    let transport = bytes.get(start..)?;
    let number = match protocol {
        Protocol::Tcp if *transport.get(13)? != SYN => return None,
        Protocol::Tcp => transport.get(4..8)?,
        Protocol::Udp => transport.get(8..12)?,
    };
    let port = transport.get(2..4)?.try_into().ok()?;
    Some((
        u16::from_be_bytes(port),
        u32::from_be_bytes(number.try_into().ok()?),
    ))
}

fn packet(knock: &Knock, number: u32) -> Vec<u8> {
    let transport = transport(knock, number);
    let length = u16::try_from(transport.len()).expect("a short packet");
    let protocol = number_of(knock.protocol);
    let header = match (knock.source, knock.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = [0; 20];
            header[0] = 0x45;
            header[6] = 0x40;
            header[8] = 64;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..].copy_from_slice(&destination.octets());
            // The kernel fills in the length and the checksum of this one.
            header.to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = [0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = protocol;
            header[7] = 64;
            header[8..24].copy_from_slice(&source.octets());
            header[24..].copy_from_slice(&destination.octets());
            header.to_vec()
        }
        _ => panic!("two families: {knock:?}"),
    };
    [header, transport].concat()
}

fn transport(knock: &Knock, number: u32) -> Vec<u8> {
    let own_port = 1024 + u16::try_from(number % 60_000).expect("less than a port");
    let ports = [own_port.to_be_bytes(), knock.port.to_be_bytes()].concat();
    let number = number.to_be_bytes();
    let (mut bytes, checksum_at) = match knock.protocol {
        Protocol::Tcp => {
            let window = u16::MAX.to_be_bytes();
            let rest = [0, 0, 0, 0, 5 << 4, SYN, window[0], window[1], 0, 0, 0, 0];
            ([&ports[..], &number, &rest].concat(), 16)
        }
        Protocol::Udp => ([&ports[..], &[0, 12, 0, 0], &number].concat(), 6),
    };
    let sum = checksum(knock, &bytes);
    bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The Internet checksum over the pseudo-header and the segment (RFC 9293 §3.1, RFC 8200 §8.1).
fn checksum(knock: &Knock, segment: &[u8]) -> u16 {
    let address = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u16::try_from(segment.len()).expect("a short segment");
    let [high, low] = length.to_be_bytes();
    let end = vec![0, number_of(knock.protocol), high, low];
    let pseudo = [address(knock.source), address(knock.destination), end].concat();
    let words = pseudo.chunks(2).chain(segment.chunks(2));
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

fn number_of(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}
