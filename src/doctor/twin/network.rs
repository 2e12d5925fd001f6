//! The network of a host as the kernel dumps it, and the same in a namespace: interfaces with their names,
//! numbers and addresses, routes of every table, rules for choosing one, and the switches that decide about
//! packets.
//!
//! Every interface is one end of a cable whose other end stands outside, whatever it is on the host: packets may
//! come in by it, and there is something to route to. Numbers are those of linux/rtnetlink.h and its neighbours.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::netlink::{
    Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, Order, Socket, attributes, copy_of, find,
    find_text, put, put_nested, put_text,
};
use crate::doctor::namespaces::Netns;
use crate::doctor::path::Knock;

/// What one dump may hold.
const MOST_BYTES: usize = 64 << 20;
/// Hosts with more interfaces than this are copied in part.
const MOST_LINKS: usize = 1024;
/// Routers with more routes than this are copied in part.
const MOST_ROUTES: usize = 20_000;
/// How often interfaces are looked at until all of them work, and how long one look waits for an event.
const MOST_LOOKS: usize = 200;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A route may need another one that comes later in the dump.
const ROUNDS: usize = 3;

const NEWLINK: u16 = 16;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const NEWRULE: u16 = 32;
const DELRULE: u16 = 33;
const GETRULE: u16 = 34;
const GETQDISC: u16 = 38;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;
const TCMSG: usize = 20;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_XDP: u16 = 43;

/// Switches of the whole host that decide about packets.
const OF_THE_HOST: [&str; 8] = [
    "ipv4/ip_forward",
    "ipv4/ip_nonlocal_bind",
    "ipv4/fwmark_reflect",
    "ipv4/fib_multipath_hash_policy",
    "netfilter/nf_conntrack_acct",
    "netfilter/nf_conntrack_helper",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_tcp_loose",
];
/// Switches of each interface.
const OF_INTERFACES_4: [&str; 6] = [
    "forwarding",
    "rp_filter",
    "accept_local",
    "route_localnet",
    "src_valid_mark",
    "ignore_routes_with_linkdown",
];
const OF_INTERFACES_6: [&str; 3] = ["disable_ipv6", "forwarding", "ignore_routes_with_linkdown"];

/// The network of a host.
#[derive(Debug, Default)]
pub struct Network {
    pub links: Vec<Link>,
    addresses: Vec<Message>,
    routes: Vec<Message>,
    rules: Vec<Message>,
    /// Paths below `/proc/sys/net` and what stands there.
    switches: Vec<(String, String)>,
    /// What is there and is not copied.
    not_copied: Vec<String>,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct Link {
    index: i32,
    pub name: String,
    kind: String,
    is_up: bool,
    mtu: Option<u32>,
    mac: Vec<u8>,
    group: u32,
}

impl Network {
    /// Reads the namespace that the calling thread is in; needs no power.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read() -> io::Result<Self> {
        let mut socket = Socket::route()?;
        let mut network = Self::default();
        let body = ifinfo(0, 0);
        for message in socket.dump(GETLINK, &body, MOST_BYTES)? {
            network.take_link(&message);
        }
        if network.links.len() > MOST_LINKS {
            network.links.truncate(MOST_LINKS);
            let told = format!("only the first {MOST_LINKS} interfaces are copied");
            network.not_copied.push(told);
        }
        network.addresses = socket.dump(GETADDR, &[0; IFADDR], MOST_BYTES)?;
        network.routes = socket.dump(GETROUTE, &[0; RTMSG], MOST_BYTES)?;
        // What is the kernel's own comes with the addresses.
        network.routes.retain(|route| !is_own_local(route));
        if network.routes.len() > MOST_ROUTES {
            network.routes.truncate(MOST_ROUTES);
            let told = format!("only the first {MOST_ROUTES} routes are copied");
            network.not_copied.push(told);
        }
        for family in [AF_INET, AF_INET6] {
            network.rules.extend(rules(&mut socket, family)?);
        }
        network.look_for_tc(&mut socket);
        network.read_switches();
        Ok(network)
    }

    fn take_link(&mut self, message: &Message) {
        const ARPHRD_ETHER: u16 = 1;
        let Some((head, body)) = message.body.split_at_checked(IFINFO) else {
            return;
        };
        let number = |at: usize| {
            head.get(at..at + 4)?
                .try_into()
                .ok()
                .map(i32::from_ne_bytes)
        };
        let (Some(index), Some(flags)) = (number(4), number(8)) else {
            return;
        };
        let Some(name) = find_text(body, IFLA_IFNAME) else {
            return;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let info = find(body, IFLA_LINKINFO).unwrap_or_default();
        let kind = String::from_utf8_lossy(find_text(info, 1).unwrap_or_default()).into_owned();
        let is_ethernet = head.get(2..4) == Some(&ARPHRD_ETHER.to_ne_bytes());
        let host_u32 = |kind| Some(u32::from_ne_bytes(find(body, kind)?.try_into().ok()?));
        let is_filtered = find(body, IFLA_XDP)
            .and_then(|xdp| find(xdp, 2))
            .is_some_and(|attached| attached.first().is_some_and(|mode| *mode != 0));
        if is_filtered {
            self.not_copied.push(format!("an XDP program on {name}"));
        }
        if kind == "vrf" {
            self.not_copied
                .push(format!("VRF {name}: its members are not separated"));
        }
        self.links.push(Link {
            index,
            kind,
            is_up: flags as u32 & IFF_UP != 0,
            mtu: host_u32(IFLA_MTU),
            mac: match is_ethernet {
                true => find(body, IFLA_ADDRESS).unwrap_or_default().to_vec(),
                false => Vec::new(),
            },
            group: host_u32(IFLA_GROUP).unwrap_or(0),
            name,
        });
    }

    /// Programs and filters of tc see packets before nftables does.
    fn look_for_tc(&mut self, socket: &mut Socket) {
        let Ok(disciplines) = socket.dump(GETQDISC, &[0; TCMSG], MOST_BYTES) else {
            return;
        };
        for message in disciplines {
            let Some((head, body)) = message.body.split_at_checked(TCMSG) else {
                continue;
            };
            let kind = find_text(body, 1).unwrap_or_default();
            let index = head
                .get(4..8)
                .and_then(|index| index.try_into().ok())
                .map(i32::from_ne_bytes);
            if !matches!(kind, b"ingress" | b"clsact") {
                continue;
            }
            let link = self.links.iter().find(|link| Some(link.index) == index);
            let name = link.map_or("?", |link| link.name.as_str());
            let told = format!("filters of tc on {name}");
            if !self.not_copied.contains(&told) {
                self.not_copied.push(told);
            }
        }
    }

    fn read_switches(&mut self) {
        let mut paths: Vec<String> = OF_THE_HOST.map(str::to_owned).into();
        let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        // What is written to `all` is written to each of them.
        for name in ["all", "default"].into_iter().chain(names) {
            let of = |family: &str, switch: &&str| format!("{family}/conf/{name}/{switch}");
            paths.extend(OF_INTERFACES_4.iter().map(|switch| of("ipv4", switch)));
            paths.extend(OF_INTERFACES_6.iter().map(|switch| of("ipv6", switch)));
        }
        for path in paths {
            if let Ok(value) = fs::read_to_string(switch_path(&path)) {
                self.switches.push((path, value.trim().to_owned()));
            }
        }
    }

    /// Adds the interfaces that knocks come in by and this host does not have, with the addresses that they are
    /// for: a listing may be another host's. Which.
    pub fn make_up(&mut self, knocks: &[Knock]) -> Vec<String> {
        let mut made_up = Vec::new();
        let wanted: BTreeSet<&str> = knocks
            .iter()
            .map(|knock| knock.interface.as_str())
            .collect();
        for name in wanted {
            if self.links.iter().any(|link| link.name == name) {
                continue;
            }
            let highest = self.links.iter().map(|link| link.index).max();
            let index = highest.unwrap_or(LOOPBACK) + 1;
            self.links.push(Link {
                index,
                name: name.to_owned(),
                kind: "veth".to_owned(),
                is_up: true,
                mtu: None,
                mac: Vec::new(),
                group: 0,
            });
            let own = knocks.iter().filter(|knock| knock.interface == name);
            let own: BTreeSet<IpAddr> = own.map(|knock| knock.destination).collect();
            for address in own {
                self.addresses.push(address_message(index, address));
            }
            for family in [AF_INET, AF_INET6] {
                self.routes.push(default_route(family, index, 1024));
            }
            made_up.push(name.to_owned());
        }
        made_up
    }

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
        for link in self.links.iter().filter(|link| link.is_up) {
            let _ = socket.change(&up(link.index));
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
            let links = socket.dump(GETLINK, &ifinfo(0, 0), MOST_BYTES)?;
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

    fn write_switches(&self, missing: &mut Vec<String>) {
        for (path, value) in &self.switches {
            let now = fs::read_to_string(switch_path(path)).unwrap_or_default();
            if now.trim() != value && !write_switch(path, value) {
                missing.push(format!("net.{} = {value}", path.replace('/', ".")));
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

    /// The kinds of interfaces that knocks come in by and that a cable stands in for.
    pub fn otherwise(&self, entrances: &BTreeSet<String>) -> Vec<String> {
        let links = self
            .links
            .iter()
            .filter(|link| entrances.contains(&link.name));
        let links = links.filter(|link| !matches!(link.kind.as_str(), "" | "veth" | "dummy"));
        links
            .map(|link| {
                format!(
                    "interface {} is a {}, here an Ethernet cable",
                    link.name, link.kind
                )
            })
            .collect()
    }
}

impl Link {
    /// Its number.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// What the other end of its cable is called, outside.
    pub fn peer(&self) -> String {
        format!("to{}", self.index)
    }

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

    /// Its own hardware address, or one made from its number.
    fn own_mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.index.to_be_bytes();
        let own = <[u8; 6]>::try_from(self.mac.as_slice()).ok();
        own.filter(|own| own[0] & 1 == 0 && own.iter().any(|octet| *octet != 0))
            .unwrap_or([2, 0, a, b, c, d])
    }
}

/// Where knocks come from: a namespace with the other ends of the cables.
pub struct Outside {
    /// For the routes and neighbours of that namespace.
    socket: Socket,
}

impl Outside {
    /// Must be called within the namespace, after the cables were laid.
    fn prepare(network: &Network) -> io::Result<Self> {
        for quiet in ["all", "default"] {
            write_switch(&format!("ipv6/conf/{quiet}/accept_dad"), "0");
            write_switch(&format!("ipv6/conf/{quiet}/accept_ra"), "0");
        }
        let mut socket = Socket::route()?;
        for link in network.links.iter().filter(|link| link.index != LOOPBACK) {
            let index = link.index ^ PEER_BIT;
            socket.change(&up(index))?;
            // A route of IPv6 needs an address to stand for it.
            let number = link.index.unsigned_abs();
            let mut address = u128::from(std::net::Ipv6Addr::new(0xfd00, 0xac, 0, 0, 0, 0, 0, 0));
            address |= u128::from(number);
            let own = address_message(index, IpAddr::V6(address.into()));
            if let Some(own) = address_order(&own) {
                let _ = socket.change(&own);
            }
            for family in [AF_INET, AF_INET6] {
                let route = default_route(family, index, number);
                if let Some(route) = route_order(&route) {
                    let _ = socket.change(&route);
                }
            }
        }
        Ok(Self { socket })
    }

    /// Says where an address is: nobody answers for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn know(&mut self, link: &Link, address: IpAddr) -> io::Result<()> {
        const NUD_PERMANENT: u16 = 0x80;
        let index = link.index ^ PEER_BIT;
        let mut body = vec![if address.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(NUD_PERMANENT.to_ne_bytes());
        body.extend([0, 0]);
        put_address(&mut body, 1, address);
        put(&mut body, 2, &link.own_mac());
        self.socket.change(&Order {
            kind: NEWNEIGH,
            flags: NLM_F_CREATE | NLM_F_REPLACE,
            body,
        })
    }
}

/// What tells the number of the outer end from that of the inner one.
const PEER_BIT: i32 = 1 << 24;
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 0xfe];
const FIB_RULE_INVERT: u32 = 2;

fn ifinfo(index: i32, flags: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

fn up(index: i32) -> Order {
    Order {
        kind: NEWLINK,
        flags: 0,
        body: ifinfo(index, IFF_UP),
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

fn rules(socket: &mut Socket, family: u8) -> io::Result<Vec<Message>> {
    let mut body = vec![0; 12];
    body[0] = family;
    let rules = socket.dump(GETRULE, &body, MOST_BYTES)?;
    Ok(rules
        .into_iter()
        .filter(|rule| rule.body.len() >= 12)
        .collect())
}

fn put_address(body: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(body, kind, &address.octets()),
        IpAddr::V6(address) => put(body, kind, &address.octets()),
    }
}

/// As a dump would have it: an address of its own, without a network.
fn address_message(index: i32, address: IpAddr) -> Message {
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

fn address_order(message: &Message) -> Option<Order> {
    const IFA_FLAGS: u16 = 8;
    const IFA_F_NODAD: u32 = 2;
    const IFA_F_NOPREFIXROUTE: u32 = 0x200;
    let (head, attributes) = message.body.split_at_checked(IFADDR)?;
    let flags = find(attributes, IFA_FLAGS).and_then(|flags| flags.try_into().ok());
    let flags = flags.map_or(0, u32::from_ne_bytes) & IFA_F_NOPREFIXROUTE | IFA_F_NODAD;
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
fn default_route(family: u8, index: i32, metric: u32) -> Message {
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

/// Whether a route is one that the kernel makes by itself for every address.
fn is_own_local(route: &Message) -> bool {
    const LOCAL: u8 = 255;
    const RTPROT_KERNEL: u8 = 2;
    route.body.get(4..6) == Some(&[LOCAL, RTPROT_KERNEL])
}

fn route_order(message: &Message) -> Option<Order> {
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

fn keep_flags(body: &mut [u8], at: usize, kept: u32) {
    let Some(flags) = body.get_mut(at..at + 4) else {
        return;
    };
    let now = u32::from_ne_bytes([flags[0], flags[1], flags[2], flags[3]]);
    flags.copy_from_slice(&(now & kept).to_ne_bytes());
}

fn switch_path(path: &str) -> String {
    format!("/proc/sys/net/{path}")
}

fn write_switch(path: &str, value: &str) -> bool {
    fs::write(switch_path(path), value).is_ok()
}
