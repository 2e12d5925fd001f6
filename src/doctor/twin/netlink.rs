//! Netlink, octet by octet: what is dumped in one namespace is sent again in another, whatever it means.
//!
//! Sockets here wait, with a limit: a twin is a process of its own and does one thing after the other. Numbers
//! are those of linux/netlink.h, linux/rtnetlink.h and linux/netfilter/nfnetlink.h. What is cut short is not read;
//! nothing is allocated by a length that was sent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send,
    socket_with,
};

/// How long one answer may take: a batch of the largest size takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest piece of a dump that the kernel gives, and more.
const BUFFER_BYTES: usize = 256 << 10;
/// What may wait in the trace socket: the kernel halves it, and gives `rmem_max` at most without power.
const TRACE_BYTES: usize = 4 << 20;
/// A batch is one message, at most the socket's send buffer: 212,992 octets by default, less overhead.
pub const BATCH_BYTES: usize = 128 << 10;
/// `1 << (NFNLGRP_NFTRACE - 1)`.
const TRACE_GROUP: u32 = 1 << 8;

const HEADER: usize = 16;
/// `struct nfgenmsg`: family, version, resource.
pub const GENERIC: usize = 4;
pub const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
pub const NLM_F_ECHO: u16 = 0x008;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Subsystem 10 of netfilter's netlink.
pub const NFTABLES: u16 = 0x0a00;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const EINTR: i32 = 4;

/// A message: its type, and what is behind its header.
#[derive(Clone, Debug)]
pub struct Message {
    pub kind: u16,
    pub body: Vec<u8>,
}

/// A message that is to be sent.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: u16,
    /// Beside `NLM_F_REQUEST`.
    pub flags: u16,
    pub body: Vec<u8>,
}

/// A socket of the namespace in which it was made.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn netfilter() -> io::Result<Self> {
        Self::of(Some(netlink::NETFILTER))
    }

    pub fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is 0.
        Self::of(None)
    }

    /// One that hears of interfaces that come up, and of routes of IPv6.
    pub fn links() -> io::Result<Self> {
        const RTMGRP_LINK: u32 = 1;
        const RTMGRP_IPV6_ROUTE: u32 = 0x400;
        let socket = Self::route()?;
        let groups = RTMGRP_LINK | RTMGRP_IPV6_ROUTE;
        bind(&socket.fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    /// One that hears of traced packets.
    pub fn trace() -> io::Result<Self> {
        let socket = Self::of(Some(netlink::NETFILTER))?;
        if set_socket_recv_buffer_size_force(&socket.fd, TRACE_BYTES).is_err() {
            set_socket_recv_buffer_size(&socket.fd, TRACE_BYTES)?;
        }
        bind(&socket.fd, &SocketAddrNetlink::new(0, TRACE_GROUP))?;
        Ok(socket)
    }

    fn of(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self {
            fd,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// One datagram, if one comes within `patience`.
    pub fn hear(&mut self, patience: Duration) -> io::Result<Option<&[u8]>> {
        set_socket_timeout(
            &self.fd,
            Timeout::Recv,
            Some(patience.max(Duration::from_millis(1))),
        )?;
        match recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => Ok(Some(&self.buffer[..length])),
            Err(error) if error == rustix::io::Errno::AGAIN => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything of one kind. A dump that was interrupted by a change is an error of kind `Interrupted`.
    pub fn dump(&mut self, kind: u16, body: &[u8], most_bytes: usize) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = Vec::new();
        message(
            &mut question,
            kind,
            NLM_F_REQUEST | NLM_F_DUMP,
            self.sequence,
            body,
        );
        send(&self.fd, &question, SendFlags::empty())?;
        let mut dumped = Vec::new();
        let mut bytes = 0;
        let mut is_torn = false;
        loop {
            let (length, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
            bytes += length;
            if bytes > most_bytes {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            for (header, body) in messages(&self.buffer[..length]) {
                if header.sequence != self.sequence {
                    continue;
                }
                is_torn |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let code = errno(body);
                        return match code {
                            0 | EINTR if is_torn || code == EINTR => {
                                Err(io::Error::from(io::ErrorKind::Interrupted))
                            }
                            0 => Ok(dumped),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    kind => dumped.push(Message {
                        kind,
                        body: body.to_vec(),
                    }),
                }
            }
        }
    }

    /// Asks once and takes the answer.
    pub fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Message> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = Vec::new();
        message(&mut question, kind, NLM_F_REQUEST, self.sequence, body);
        send(&self.fd, &question, SendFlags::empty())?;
        loop {
            let (length, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
            for (header, body) in messages(&self.buffer[..length]) {
                if header.sequence != self.sequence {
                    continue;
                }
                if header.kind == NLMSG_ERROR {
                    return Err(io::Error::from_raw_os_error(errno(body)));
                }
                return Ok(Message {
                    kind: header.kind,
                    body: body.to_vec(),
                });
            }
        }
    }

    /// One change, outside of batches.
    pub fn change(&mut self, order: &Order) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let flags = NLM_F_REQUEST | NLM_F_ACK | order.flags;
        message(&mut bytes, order.kind, flags, self.sequence, &order.body);
        send(&self.fd, &bytes, SendFlags::empty())?;
        loop {
            let (length, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
            for (header, body) in messages(&self.buffer[..length]) {
                if header.sequence == self.sequence && header.kind == NLMSG_ERROR {
                    return match errno(body) {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
            }
        }
    }

    /// One transaction of nftables. All of it is done, or nothing: then which of the orders were refused, and why;
    /// an index past the last one is the transaction itself.
    ///
    /// What the kernel echoed comes back in the orders' order.
    pub fn batch(&mut self, orders: &[Order]) -> io::Result<Result<Vec<Message>, Refused>> {
        let Some(last) = orders.len().checked_sub(1) else {
            return Ok(Ok(Vec::new()));
        };
        let first = self.sequence.wrapping_add(2);
        let mut bytes = Vec::new();
        let frame = [0, 0, 0, NFNL_SUBSYS_NFTABLES as u8];
        message(
            &mut bytes,
            NFNL_MSG_BATCH_BEGIN,
            NLM_F_REQUEST,
            first.wrapping_sub(1),
            &frame,
        );
        for (index, order) in orders.iter().enumerate() {
            let ack = if index == last { NLM_F_ACK } else { 0 };
            let flags = NLM_F_REQUEST | order.flags | ack;
            let number = first.wrapping_add(index as u32);
            message(&mut bytes, order.kind, flags, number, &order.body);
        }
        self.sequence = first.wrapping_add(orders.len() as u32);
        message(
            &mut bytes,
            NFNL_MSG_BATCH_END,
            NLM_F_REQUEST,
            self.sequence,
            &frame,
        );
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut refused: Refused = Vec::new();
        let mut echoed = Vec::new();
        let mut is_done = false;
        while !is_done {
            let (length, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
            for (header, body) in messages(&self.buffer[..length]) {
                let index = header.sequence.wrapping_sub(first) as usize;
                match header.kind {
                    NLMSG_ERROR => {
                        if let code @ 1.. = errno(body) {
                            let index = index.min(orders.len());
                            // The transaction itself is refused before, or after, everything else.
                            is_done |= index == orders.len();
                            refused.push((index, io::Error::from_raw_os_error(code)));
                        }
                        is_done |= index == last;
                    }
                    _ if index <= last => echoed.push(Message {
                        kind: header.kind,
                        body: body.to_vec(),
                    }),
                    _ => {}
                }
            }
        }
        // Echoes come after the acknowledgement.
        if refused.is_empty() && orders.iter().any(|order| order.flags & NLM_F_ECHO != 0) {
            let wanted = orders.iter().filter(|order| order.flags & NLM_F_ECHO != 0);
            let wanted = wanted.count();
            while echoed.len() < wanted {
                let (length, _) = recv(&self.fd, &mut self.buffer[..], RecvFlags::empty())?;
                for (header, body) in messages(&self.buffer[..length]) {
                    if (header.sequence.wrapping_sub(first) as usize) <= last {
                        echoed.push(Message {
                            kind: header.kind,
                            body: body.to_vec(),
                        });
                    }
                }
            }
        }
        Ok(match refused.is_empty() {
            true => Ok(echoed),
            false => Err(refused),
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Which orders of a batch were refused, by their index, and why.
pub type Refused = Vec<(usize, io::Error)>;

/// The start of a message's body: `struct nfgenmsg` of a family.
pub fn generic(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

/// Adds an attribute; a payload of more than 65,531 octets is cut, and the kernel refuses the rest.
pub fn put(body: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let payload = payload.get(..usize::from(u16::MAX) - 4).unwrap_or(payload);
    body.extend(((4 + payload.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(payload);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Adds an attribute that holds others.
pub fn put_nested(body: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    const NLA_F_NESTED: u16 = 0x8000;
    put(body, kind | NLA_F_NESTED, payload);
}

/// Adds a name, with the octet that ends it.
pub fn put_text(body: &mut Vec<u8>, kind: u16, text: &[u8]) {
    put(body, kind, &[text, &[0]].concat());
}

/// An attribute as it stands: its type without flags, its payload, and all of its octets.
pub struct Attribute<'a> {
    pub kind: u16,
    pub payload: &'a [u8],
    pub whole: &'a [u8],
}

/// The attributes in `bytes`, one after the other.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let payload = bytes.get(4..length)?;
        let padded = length.next_multiple_of(4).min(bytes.len());
        let (whole, rest) = bytes.split_at(padded);
        bytes = rest;
        Some(Attribute {
            kind: kind & !FLAGS,
            payload,
            whole,
        })
    })
}

/// The payload of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|attribute| attribute.kind == kind)
        .map(|attribute| attribute.payload)
}

/// A number in network order.
pub fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// A name, without the octet that ends it.
pub fn find_text(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    find(bytes, kind).map(|name| name.strip_suffix(&[0]).unwrap_or(name))
}

/// Copies the attributes of these kinds as they stand.
pub fn copy_of(bytes: &[u8], kinds: &[u16]) -> Vec<u8> {
    let mut copied = Vec::with_capacity(bytes.len());
    for attribute in attributes(bytes).filter(|attribute| kinds.contains(&attribute.kind)) {
        copied.extend(attribute.whole);
        copied.resize(copied.len().next_multiple_of(4), 0);
    }
    copied
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
        let message = datagram.get(..length).filter(|_| length >= HEADER)?;
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        let header = Header {
            kind: u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(message.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?),
        };
        Some((header, &message[HEADER..]))
    })
}

fn message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The error number of an acknowledgement or of a dump's end; 0 is none.
fn errno(body: &[u8]) -> i32 {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    code.saturating_neg().max(0)
}
