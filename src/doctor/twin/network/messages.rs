//! Messages about a network, as a dump has them and as they are sent: interfaces, addresses, routes. Numbers are those of
//! linux/rtnetlink.h and its neighbours.

use std::io;
use std::net::IpAddr;

use crate::doctor::twin::netlink::{
    Message, NLM_F_APPEND, NLM_F_CREATE, Order, Socket, attributes, copy_of, put, put_nested,
};

/// What one dump may hold.
const MOST_BYTES: usize = 64 << 20;
/// As often is something read that changes while it is read.
const ATTEMPTS: u32 = 10;

pub(super) const NEWLINK: u16 = 16;
pub(super) const GETLINK: u16 = 18;
pub(super) const NEWADDR: u16 = 20;
pub(super) const GETADDR: u16 = 22;
pub(super) const NEWROUTE: u16 = 24;
pub(super) const GETROUTE: u16 = 26;
pub(super) const NEWNEIGH: u16 = 28;
pub(super) const NEWRULE: u16 = 32;
pub(super) const DELRULE: u16 = 33;
pub(super) const GETRULE: u16 = 34;
pub(super) const GETQDISC: u16 = 38;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
pub(super) const LOOPBACK: i32 = 1;
pub(super) const IFF_UP: u32 = 1;
pub(super) const IFINFO: usize = 16;
pub(super) const IFADDR: usize = 8;
pub(super) const RTMSG: usize = 12;
pub(super) const TCMSG: usize = 20;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_XDP: u16 = 43;

pub(super) fn ifinfo(index: i32, flags: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

pub(super) fn up(index: i32) -> Order {
    Order {
        kind: NEWLINK,
        flags: 0,
        body: ifinfo(index, IFF_UP),
    }
}

/// The same for one that asks nobody for a neighbour's address: whatever is sent by it leaves.
pub(super) fn up_without_neighbours(index: i32) -> Order {
    const IFF_NOARP: u32 = 0x80;
    Order {
        kind: NEWLINK,
        flags: 0,
        body: ifinfo(index, IFF_UP | IFF_NOARP),
    }
}

/// Everything of one kind; again, if something changed meanwhile.
pub(super) fn dump(socket: &mut Socket, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
    let mut tries = ATTEMPTS;
    loop {
        tries -= 1;
        match socket.dump(kind, body, MOST_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && tries > 0 => {}
            done => return done,
        }
    }
}

pub(super) fn rules(socket: &mut Socket, family: u8) -> io::Result<Vec<Message>> {
    let mut body = vec![0; 12];
    body[0] = family;
    let rules = dump(socket, GETRULE, &body)?;
    Ok(rules
        .into_iter()
        .filter(|rule| rule.body.len() >= 12)
        .collect())
}

pub(super) fn put_address(body: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(body, kind, &address.octets()),
        IpAddr::V6(address) => put(body, kind, &address.octets()),
    }
}

/// As a dump would have it: an address of its own, without a network.
pub(super) fn address_message(index: i32, address: IpAddr) -> Message {
    let (family, length) = match address {
        IpAddr::V4(_) => (AF_INET, 32),
        IpAddr::V6(_) => (AF_INET6, 128),
    };
    let mut body = vec![family, length, 0, 0];
    body.extend(index.to_ne_bytes());
    put_address(&mut body, 1, address);
    put_address(&mut body, 2, address);
    Message {
        kind: NEWADDR,
        body,
    }
}

pub(super) fn address_order(message: &Message) -> Option<Order> {
    const IFA_FLAGS: u16 = 8;
    const IFA_F_NODAD: u32 = 2;
    const IFA_F_NOPREFIXROUTE: u32 = 0x200;
    let (head, attributes) = message.body.split_at_checked(IFADDR)?;
    // Its network's route comes with the other routes, if the host has it.
    let flags = IFA_F_NOPREFIXROUTE | IFA_F_NODAD;
    let mut body = head.to_vec();
    body[2] = IFA_F_NODAD as u8;
    // All but how long it lives, and flags.
    body.extend(copy_of(attributes, &[1, 2, 3, 4, 9]));
    put(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
    Some(Order {
        kind: NEWADDR,
        flags: NLM_F_CREATE,
        body,
    })
}

/// As a dump would have it.
pub(super) fn default_route(family: u8, index: i32, metric: u32) -> Message {
    const MAIN: u8 = 254;
    const RTPROT_STATIC: u8 = 4;
    const RT_SCOPE_LINK: u8 = 253;
    const RTN_UNICAST: u8 = 1;
    let scope = if family == AF_INET { RT_SCOPE_LINK } else { 0 };
    let mut body = vec![family, 0, 0, 0, MAIN, RTPROT_STATIC, scope, RTN_UNICAST];
    body.extend([0; 4]);
    put(&mut body, 4, &index.to_ne_bytes());
    put(&mut body, 6, &metric.to_ne_bytes());
    Message {
        kind: NEWROUTE,
        body,
    }
}

pub(super) fn route_order(message: &Message) -> Option<Order> {
    const RTM_F_CLONED: u32 = 0x200;
    const RTNH_F_ONLINK: u32 = 4;
    const RTA_MULTIPATH: u16 = 9;
    let (head, rest) = message.body.split_at_checked(RTMSG)?;
    let flags = u32::from_ne_bytes(head.get(8..12)?.try_into().ok()?);
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let mut body = head.to_vec();
    keep_flags(&mut body, 8, RTNH_F_ONLINK);
    // Everything but what was counted, how long it lives, and the number of a next hop that stands beside it.
    body.extend(copy_of(
        rest,
        &[1, 2, 4, 5, 6, 7, 8, 11, 15, 18, 20, 21, 22],
    ));
    if let Some(hops) = attributes(rest).find(|attribute| attribute.kind == RTA_MULTIPATH) {
        put_nested(&mut body, RTA_MULTIPATH, &live_hops(hops.payload));
    }
    Some(Order {
        kind: NEWROUTE,
        flags: NLM_F_CREATE | NLM_F_APPEND,
        body,
    })
}

/// `struct rtnexthop`: length, flags, weight, interface; then attributes. What a link's state made of the flags
/// goes.
fn live_hops(hops: &[u8]) -> Vec<u8> {
    const FLAGS: usize = 2;
    const RTNH_F_ONLINK: u8 = 4;
    let mut hops = hops.to_vec();
    let mut at = 0;
    while let Some(length) = hops.get(at..at + 2) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        if let Some(flags) = hops.get_mut(at + FLAGS) {
            *flags &= RTNH_F_ONLINK;
        }
        if length == 0 {
            break;
        }
        at += length.next_multiple_of(4);
    }
    hops
}

pub(super) fn keep_flags(body: &mut [u8], at: usize, kept: u32) {
    let Some(flags) = body.get_mut(at..at + 4) else {
        return;
    };
    let now = u32::from_ne_bytes([flags[0], flags[1], flags[2], flags[3]]);
    flags.copy_from_slice(&(now & kept).to_ne_bytes());
}
