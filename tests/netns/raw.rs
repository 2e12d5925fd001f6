//! TCP packets of anybody's, made by hand: what no socket would send.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// `SYN` and `ACK` of a TCP header.
pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
/// `IPPROTO_RAW`: the header of IPv4 is ours to write, and with it the source.
const RAW: i32 = 255;

/// One segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
    pub flags: u8,
    pub sequence: u32,
}

/// Sends them from where the caller is; a queue that is full is waited for.
pub fn send(segments: impl Iterator<Item = Segment>) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))
        .expect("a raw socket: root in a namespace of its own");
    for segment in segments {
        let to = SocketAddr::from((segment.to.0, 0));
        socket
            .send_to(&segment.to_bytes(), &to.into())
            .unwrap_or_else(|error| panic!("{segment:?}: {error}"));
    }
}

impl Segment {
    fn to_bytes(self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let (from, to) = (self.from.0.octets(), self.to.0.octets());
        // The kernel fills in the length and the checksum of this one.
        bytes[0] = 0x45;
        bytes[8] = 64;
        bytes[9] = 6;
        bytes[12..16].copy_from_slice(&from);
        bytes[16..20].copy_from_slice(&to);
        let tcp = &mut bytes[20..];
        tcp[..2].copy_from_slice(&self.from.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&(self.sequence ^ 0x5555_5555).to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let pseudo = [from, to, [0, 6, 0, 20]].concat();
        let words = pseudo.chunks(2).chain(tcp.chunks(2));
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        tcp[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        bytes
    }
}
