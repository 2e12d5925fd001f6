//! A network built anew in a namespace: cables, then switches, addresses, rules and routes, each once what it needs
//! is there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::messages::{
    AF_INET, AF_INET6, DELRULE, GETLINK, GETROUTE, IFADDR, IFINFO, IFLA_ADDRESS, IFLA_GROUP,
    IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD, LOOPBACK, NEWLINK, NEWRULE, RTMSG,
    address_order, dump, ifinfo, keep_flags, route_order, rules, up, up_without_neighbours,
};
use super::outside::{Outside, PEER_BIT};
use super::switches::write_switch;
use super::{Link, Network};
use crate::doctor::namespaces::Netns;
use crate::doctor::twin::netlink::{
    Message, NLM_F_CREATE, Order, Socket, find, put, put_nested, put_text,
};

/// How often interfaces are looked at until all of them work, and how long one look waits for an event.
const MOST_LOOKS: usize = 200;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A route may need another one that comes later in the dump.
const ROUNDS: usize = 3;
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 0xfe];
const FIB_RULE_INVERT: u32 = 2;

impl Network {
    /// Builds all of it in the namespace that the calling thread is in; every cable leads `outside`. What could not be
    /// built.
    ///
    /// # Errors
    /// The kernel's: no interface can be made.
    pub fn build(&self, outside: &Netns) -> io::Result<(Outside, Vec<String>)> {
        let mut missing = self.not_copied.clone();
        let mut socket = Socket::route()?;
        // Nothing is announced, asked for or waited for in here.
        for quiet in ["all", "default"] {
            for (switch, value) in [
                ("accept_dad", "0"),
                ("accept_ra", "0"),
                ("addr_gen_mode", "1"),
            ] {
                write_switch(&format!("ipv6/conf/{quiet}/{switch}"), value);
            }
        }
        for link in self.links.iter().filter(|link| link.index != LOOPBACK) {
            link.cable(&mut socket, outside)?;
        }
        // Addresses and routes of IPv6 count only once both ends of a cable are up.
        let mut events = Socket::links()?;
        let outside = outside
            .within(|| Outside::prepare(self))
            .and_then(|made| made)?;
        self.write_switches(&mut missing);
        // What is answered is answered once.
        write_switch("ipv4/tcp_synack_retries", "0");
        for link in self.links.iter().filter(|link| link.is_up) {
            let order = match link.index {
                LOOPBACK => up(link.index),
                _ => up_without_neighbours(link.index),
            };
            let _ = socket.change(&order);
        }
        self.wait_for_carriers(&mut socket, &mut events)?;
        for address in self.addresses.iter().filter_map(address_order) {
            if let Err(error) = socket.change(&address)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                missing.push(format!("an address: {error}"));
            }
        }
        self.wait_for_addresses(&mut socket, &mut events);
        self.send_rules(&mut socket, &mut missing)?;
        self.send_routes(&mut socket, &mut missing);
        missing.dedup();
        Ok((outside, missing))
    }

    /// The kernel notes a moment later that a cable has two ends.
    fn wait_for_carriers(&self, socket: &mut Socket, events: &mut Socket) -> io::Result<()> {
        for _ in 0..MOST_LOOKS {
            let links = dump(socket, GETLINK, &ifinfo(0, 0))?;
            let ready: BTreeSet<i32> = links.iter().filter_map(ready).collect();
            let mut wanted = self.links.iter().filter(|link| link.is_up);
            if wanted.all(|link| link.index == LOOPBACK || ready.contains(&link.index)) {
                return Ok(());
            }
            // Whatever it says, or nothing: it is time to look again.
            let _ = events.hear(LOOK_AGAIN);
        }
        Err(io::Error::other("the cables do not come up"))
    }

    /// An address of IPv6 becomes one of the host's a moment after it was added.
    fn wait_for_addresses(&self, socket: &mut Socket, events: &mut Socket) {
        const IFA_ADDRESS: u16 = 1;
        const RTN_LOCAL: u8 = 2;
        let up = self.links.iter().filter(|link| link.is_up);
        let up: BTreeSet<i32> = up.map(|link| link.index).collect();
        for message in &self.addresses {
            let Some((head, attributes)) = message.body.split_at_checked(IFADDR) else {
                continue;
            };
            let index = head.get(4..8).and_then(|index| index.try_into().ok());
            let is_up = index.is_some_and(|index| up.contains(&i32::from_ne_bytes(index)));
            let is_six = head.first() == Some(&AF_INET6);
            let address = find(attributes, IFA_ADDRESS);
            let Some(address) = address.filter(|address| {
                // Link-local ones are no business of the Internet's, and need an interface to be asked for.
                is_six && is_up && !address.starts_with(&[0xfe, 0x80])
            }) else {
                continue;
            };
            let mut question = vec![AF_INET6, 128];
            question.resize(RTMSG, 0);
            put(&mut question, 1, address);
            for _ in 0..MOST_LOOKS {
                let route = socket.ask(GETROUTE, &question);
                if route.is_ok_and(|route| route.body.get(7) == Some(&RTN_LOCAL)) {
                    break;
                }
                let _ = events.hear(LOOK_AGAIN);
            }
        }
    }

    fn send_rules(&self, socket: &mut Socket, missing: &mut Vec<String>) -> io::Result<()> {
        for family in [AF_INET, AF_INET6] {
            let ours = rules(socket, family)?;
            let theirs = self
                .rules
                .iter()
                .filter(|rule| rule.body.first() == Some(&family));
            let theirs: Vec<&Message> = theirs.collect();
            for rule in ours.iter() {
                if !theirs.iter().any(|their| their.body == rule.body) {
                    let _ = socket.change(&Order {
                        kind: DELRULE,
                        flags: 0,
                        body: rule.body.clone(),
                    });
                }
            }
            for rule in theirs {
                if ours.iter().any(|our| our.body == rule.body) {
                    continue;
                }
                let mut body = rule.body.clone();
                keep_flags(&mut body, 8, FIB_RULE_INVERT);
                let order = Order {
                    kind: NEWRULE,
                    flags: NLM_F_CREATE,
                    body,
                };
                if let Err(error) = socket.change(&order) {
                    missing.push(format!("a rule of `ip rule`: {error}"));
                }
            }
        }
        Ok(())
    }

    fn send_routes(&self, socket: &mut Socket, missing: &mut Vec<String>) {
        let mut left: Vec<Order> = self.routes.iter().filter_map(route_order).collect();
        let mut last = None;
        for _ in 0..ROUNDS {
            left.retain(|route| match socket.change(route) {
                Ok(()) => false,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => {
                    last = Some(error);
                    true
                }
            });
        }
        if let (Some(error), false) = (last, left.is_empty()) {
            missing.push(format!("{} routes: {error}", left.len()));
        }
    }
}

impl Link {
    /// A veth pair of which this is one end.
    fn cable(&self, socket: &mut Socket, outside: &Netns) -> io::Result<()> {
        // Ends of one number would be taken for one interface, whose changes can wait a second.
        let mut peer = ifinfo(self.index ^ PEER_BIT, 0);
        put_text(&mut peer, IFLA_IFNAME, self.peer().as_bytes());
        let file = outside.as_file().as_raw_fd();
        put(&mut peer, IFLA_NET_NS_FD, &file.to_ne_bytes());
        put(&mut peer, IFLA_ADDRESS, &PEER_MAC);
        let mut data = Vec::new();
        const VETH_INFO_PEER: u16 = 1;
        put_nested(&mut data, VETH_INFO_PEER, &peer);
        let order = |mtu: Option<u32>| {
            let mut body = ifinfo(self.index, 0);
            put_text(&mut body, IFLA_IFNAME, self.name.as_bytes());
            put(&mut body, IFLA_ADDRESS, &self.own_mac());
            if let Some(mtu) = mtu {
                put(&mut body, IFLA_MTU, &mtu.to_ne_bytes());
            }
            put(&mut body, IFLA_GROUP, &self.group.to_ne_bytes());
            let mut info = Vec::new();
            put_text(&mut info, 1, b"veth");
            put_nested(&mut info, 2, &data);
            put_nested(&mut body, IFLA_LINKINFO, &info);
            Order {
                kind: NEWLINK,
                flags: NLM_F_CREATE | 0x200,
                body,
            }
        };
        // Not every kind can be as large as every other.
        socket
            .change(&order(self.mtu))
            .or_else(|_| socket.change(&order(None)))
    }
}

/// The number of an interface that works, by a message of a dump.
fn ready(message: &Message) -> Option<i32> {
    const IFLA_OPERSTATE: u16 = 16;
    const IF_OPER_UP: u8 = 6;
    let (head, body) = message.body.split_at_checked(IFINFO)?;
    let index = i32::from_ne_bytes(head.get(4..8)?.try_into().ok()?);
    (find(body, IFLA_OPERSTATE)?.first() == Some(&IF_OPER_UP)).then_some(index)
}
