//! The PROXY protocol, versions 1 and 2: by its first octets a connection tells for whom it is.
//!
//! After HAProxy's `doc/proxy-protocol.txt`. What it is for: reading the header of a balancer that is
//! configured to send one, and writing ours to a server that is configured to be sent one. What it
//! never does: guess whether a connection begins with a header, or read what follows it.
//!
//! As with request heads, the answer is a function of the shortest prefix that settles it: whoever
//! reads a growing buffer gets [`Parsed::NeedMore`] until one other answer, and that for every longer
//! buffer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::gate::event::Ends;
use crate::gate::tls::ProxyVersion;

/// The longest line of version 1, with its end (the longest that the protocol can write).
pub const MAX_V1_BYTES: usize = 107;
/// The longest header of version 2, what it says besides the addresses included. The protocol has 64
/// KiB; real senders stay far below a kibibyte (a name and a certificate's subject are the most), and
/// nginx, too, reads no more than 4 KiB.
pub const MAX_V2_BYTES: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version with command, family with transport, and the length of the rest.
const V2_FIXED_BYTES: usize = 16;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
/// Addresses and ports of both ends.
const V4_BYTES: usize = 2 * (4 + 2);
const V6_BYTES: usize = 2 * (16 + 2);
/// Two paths of 108 octets.
const UNIX_BYTES: usize = 2 * 108;

/// What the bytes so far are.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole header.
    Complete(Header),
    /// The beginning of something that may become a header.
    NeedMore,
    /// Nothing that could follow makes a header of this.
    Malformed,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The ends of the connection that is carried here, never IPv4-mapped. `None` where the sender
    /// speaks for itself (LOCAL, as its health checks do) or cannot say for whom (UNKNOWN, UNSPEC, UNIX
    /// sockets): then the connection's own ends count.
    pub ends: Option<Ends>,
    /// Where the header ends, in octets.
    pub length: usize,
}

/// Parses the bytes received so far.
///
/// Version 2's extensions (TLVs) are skipped unread: nothing in them sways a verdict, so a sender
/// with extensions of its own is not shut out for them. Its datagram families are malformed, because
/// no datagram comes by TCP.
pub fn parse(bytes: &[u8]) -> Parsed {
    match bytes.first() {
        None => Parsed::NeedMore,
        Some(b'P') => v1(bytes),
        Some(_) => v2(bytes),
    }
}

fn v1(bytes: &[u8]) -> Parsed {
    let common = bytes.len().min(V1_PREFIX.len());
    if bytes[..common] != V1_PREFIX[..common] {
        return Parsed::Malformed;
    }
    let seen = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    let Some(end) = seen.iter().position(|byte| !matches!(byte, 0x20..=0x7e)) else {
        return match seen.len() {
            // A line end would have to stand in the last two octets.
            MAX_V1_BYTES.. => Parsed::Malformed,
            _ => Parsed::NeedMore,
        };
    };
    match seen[end..] {
        [b'\r'] if end + 1 < MAX_V1_BYTES => Parsed::NeedMore,
        [b'\r', b'\n', ..] => match understand(&seen[..end]) {
            Some(ends) => Parsed::Complete(Header {
                ends,
                length: end + 2,
            }),
            None => Parsed::Malformed,
        },
        _ => Parsed::Malformed,
    }
}

/// Understands a line of printable ASCII without its end.
fn understand(line: &[u8]) -> Option<Option<Ends>> {
    let line = str::from_utf8(line).ok()?;
    let mut words = line.split(' ').skip(1);
    let is_v4 = match words.next()? {
        // Whatever stands behind it is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => true,
        "TCP6" => false,
        _ => return None,
    };
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match is_v4 {
            true => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            false => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        }
    };
    let (source, destination) = (address()?, address()?);
    let ports = (port(words.next()?)?, port(words.next()?)?);
    match words.next() {
        None => Some(Some(ends((source, ports.0), (destination, ports.1)))),
        Some(_) => None,
    }
}

/// Digits without leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain =
        word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| is_plain)
}

fn v2(bytes: &[u8]) -> Parsed {
    let common = bytes.len().min(V2_SIGNATURE.len());
    if bytes[..common] != V2_SIGNATURE[..common] {
        return Parsed::Malformed;
    }
    let is_local = match bytes.get(12) {
        None => return Parsed::NeedMore,
        Some(&V2_LOCAL) => true,
        Some(&V2_PROXY) => false,
        Some(_) => return Parsed::Malformed,
    };
    let least = match bytes.get(13) {
        None => return Parsed::NeedMore,
        // The protocol has the family ignored here.
        Some(_) if is_local => 0,
        Some(0x00) => 0,
        Some(0x11) => V4_BYTES,
        Some(0x21) => V6_BYTES,
        Some(0x31) => UNIX_BYTES,
        Some(_) => return Parsed::Malformed,
    };
    let Some(length) = bytes.get(14..16) else {
        return Parsed::NeedMore;
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < least || length > MAX_V2_BYTES - V2_FIXED_BYTES {
        return Parsed::Malformed;
    }
    let end = V2_FIXED_BYTES + length;
    let Some(rest) = bytes.get(V2_FIXED_BYTES..end) else {
        return Parsed::NeedMore;
    };
    let ends = match least {
        V4_BYTES => v2_ends::<4>(rest),
        V6_BYTES => v2_ends::<16>(rest),
        _ => None,
    };
    Parsed::Complete(Header { ends, length: end })
}

/// Two addresses of so many octets and their two ports.
fn v2_ends<const BYTES: usize>(rest: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (source, rest) = rest.split_first_chunk::<BYTES>()?;
    let (destination, rest) = rest.split_first_chunk::<BYTES>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(ends(
        ((*source).into(), u16::from_be_bytes(*source_port)),
        ((*destination).into(), u16::from_be_bytes(*destination_port)),
    ))
}

fn ends(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Ends {
    let end = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Ends {
        source: end(source),
        destination: end(destination),
    }
}

/// Writes the header that announces a connection with these ends, without extensions. Where only one
/// end is IPv4, both are written as IPv6, that one mapped.
pub fn write(version: ProxyVersion, ends: &Ends) -> Vec<u8> {
    let (source, destination) = (ends.source.ip(), ends.destination.ip());
    let (from, to) = (ends.source.port(), ends.destination.port());
    let both = (source.to_canonical(), destination.to_canonical());
    match (version, both) {
        (ProxyVersion::V1, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            format!("PROXY TCP4 {source} {destination} {from} {to}\r\n").into_bytes()
        }
        (ProxyVersion::V1, _) => {
            let (source, destination) = (mapped(source), mapped(destination));
            format!("PROXY TCP6 {source} {destination} {from} {to}\r\n").into_bytes()
        }
        (ProxyVersion::V2, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            v2_header(0x11, &source.octets(), &destination.octets(), [from, to])
        }
        (ProxyVersion::V2, _) => {
            let (source, destination) = (mapped(source), mapped(destination));
            v2_header(0x21, &source.octets(), &destination.octets(), [from, to])
        }
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn v2_header(family: u8, source: &[u8], destination: &[u8], ports: [u16; 2]) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    // At most V6_BYTES: one octet says it.
    let length = (source.len() + destination.len() + 4) as u8;
    header.extend([V2_PROXY, family, 0, length]);
    header.extend_from_slice(source);
    header.extend_from_slice(destination);
    header.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    header
}

#[cfg(test)]
mod tests;
