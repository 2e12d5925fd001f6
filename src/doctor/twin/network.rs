//! The network of a host as the kernel dumps it, and the same in a namespace: interfaces with their names,
//! numbers and addresses, routes of every table, rules for choosing one, and the switches that decide about
//! packets.
//!
//! Every interface is one end of a cable whose other end stands outside, whatever it is on the host: packets may
//! come in by it, and there is something to route to.
//!
//! | file | |
//! | --- | --- |
//! | `build.rs` | building it in another namespace |
//! | `outside.rs` | where knocks come from |
//! | `messages.rs` | messages of linux/rtnetlink.h |
//! | `switches.rs` | what stands below `/proc/sys/net` |

mod build;
mod messages;
pub mod outside;
mod switches;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use self::messages::{
    AF_INET, AF_INET6, GETADDR, GETLINK, GETQDISC, GETROUTE, IFADDR, IFF_UP, IFINFO, IFLA_ADDRESS,
    IFLA_GROUP, IFLA_IFNAME, IFLA_LINKINFO, IFLA_MTU, IFLA_XDP, LOOPBACK, RTMSG, TCMSG,
    address_message, default_route, dump, ifinfo, rules,
};
use super::netlink::{Message, Socket, find, find_text};
use crate::doctor::path::Knock;

/// Hosts with more interfaces than this are copied in part.
const MOST_LINKS: usize = 1024;
/// Routers with more routes than this are copied in part.
const MOST_ROUTES: usize = 20_000;

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
        for message in dump(&mut socket, GETLINK, &body)? {
            network.take_link(&message);
        }
        if network.links.len() > MOST_LINKS {
            network.links.truncate(MOST_LINKS);
            let told = format!("only the first {MOST_LINKS} interfaces are copied");
            network.not_copied.push(told);
        }
        network.addresses = dump(&mut socket, GETADDR, &[0; IFADDR])?;
        network.routes = dump(&mut socket, GETROUTE, &[0; RTMSG])?;
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
        let Ok(disciplines) = dump(socket, GETQDISC, &[0; TCMSG]) else {
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

    /// Its own hardware address, or one made from its number.
    fn own_mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.index.to_be_bytes();
        let own = <[u8; 6]>::try_from(self.mac.as_slice()).ok();
        own.filter(|own| own[0] & 1 == 0 && own.iter().any(|octet| *octet != 0))
            .unwrap_or([2, 0, a, b, c, d])
    }
}

/// Whether a route is one that the kernel makes by itself for every address.
fn is_own_local(route: &Message) -> bool {
    const LOCAL: u8 = 255;
    const RTPROT_KERNEL: u8 = 2;
    route.body.get(4..6) == Some(&[LOCAL, RTPROT_KERNEL])
}
