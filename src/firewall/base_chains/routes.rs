//! Where a packet goes whose destination a rule has changed: to this host, or on through it.
//!
//! The longest prefix of the main table decides, as in the kernel. Where rules of `ip rule` send packets to
//! other tables nothing is promised. Reads only.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;

use nlink::netlink::{Connection, Route};

use super::IpFamily;

/// The addresses and routes of this host.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    own: Vec<IpAddr>,
    names: HashMap<u32, String>,
    routes: Vec<Prefix>,
    /// Somebody's `ip rule` looks elsewhere.
    has_policies: bool,
    /// Whether packets are sent on that come in by an interface, by its index; IPv6 has one switch.
    forwarding_4: HashMap<u32, bool>,
    forwarding_6: bool,
}

#[derive(Debug, Clone)]
struct Prefix {
    network: Option<IpAddr>,
    is_ipv4: bool,
    len: u8,
    metric: u32,
    out: Option<u32>,
}

/// Where a destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Onward {
    /// On this host.
    Here,
    /// Beyond the interface with this index.
    Out(u32),
    /// Beyond an interface, but this host sends nothing on.
    NotForwarded,
    /// Nowhere: there is no route.
    NoRoute,
    /// Not known.
    Unknown,
}

/// `RT_TABLE_MAIN` of linux/rtnetlink.h.
const MAIN: u32 = 254;

impl Routes {
    /// Reads them.
    ///
    /// # Errors
    /// What netlink answers.
    pub async fn read(route: &Connection<Route>) -> nlink::Result<Self> {
        let addresses = route.get_addresses().await?;
        let own = addresses
            .iter()
            .filter_map(|address| address.primary_address().copied());
        let links = route.get_links().await?;
        let names: HashMap<u32, String> = links
            .iter()
            .filter_map(|link| Some((link.ifindex(), link.name()?.to_owned())))
            .collect();
        let main = route.get_routes().await?;
        let main = main.iter().filter(|route| route.table_id() == MAIN);
        let routes = main.map(|route| Prefix {
            network: route.destination().copied(),
            is_ipv4: route.is_ipv4(),
            len: route.dst_len(),
            metric: route.priority().unwrap_or(0),
            out: route.oif(),
        });
        let rules = route.get_rules().await?;
        let forwarding_4 = names
            .iter()
            .map(|(index, name)| (*index, is_on(&format!("ipv4/conf/{name}/forwarding"))));
        Ok(Self {
            own: own.collect(),
            routes: routes.collect(),
            has_policies: rules.iter().any(|rule| !rule.is_default()),
            forwarding_4: forwarding_4.collect(),
            forwarding_6: is_on("ipv6/conf/all/forwarding"),
            names,
        })
    }

    /// Where a packet for `to` goes that came in by `by`.
    pub fn onward(&self, to: IpAddr, by: Option<u32>) -> Onward {
        if self.own.contains(&to) {
            return Onward::Here;
        }
        if self.has_policies {
            return Onward::Unknown;
        }
        let matching = self.routes.iter().filter(|route| route.holds(to));
        let best = matching.max_by_key(|route| (route.len, std::cmp::Reverse(route.metric)));
        let Some(best) = best else {
            return Onward::NoRoute;
        };
        let family = if to.is_ipv4() {
            IpFamily::V4
        } else {
            IpFamily::V6
        };
        match best.out {
            // Several next hops, or none.
            None => Onward::Unknown,
            Some(index) => match self.forwards(family, by) {
                Some(true) => Onward::Out(index),
                Some(false) => Onward::NotForwarded,
                None => Onward::Unknown,
            },
        }
    }

    /// `None` if it depends on the way in, which is not known.
    fn forwards(&self, family: IpFamily, by: Option<u32>) -> Option<bool> {
        match (family, by) {
            (IpFamily::V6, _) => Some(self.forwarding_6),
            (IpFamily::V4, Some(by)) => self.forwarding_4.get(&by).copied(),
            (IpFamily::V4, None) => {
                let mut switches = self.forwarding_4.values();
                let first = switches.next().copied()?;
                switches.all(|other| *other == first).then_some(first)
            }
        }
    }

    /// The name of an interface.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get(&index).map(String::as_str)
    }
}

impl Prefix {
    fn holds(&self, address: IpAddr) -> bool {
        if self.is_ipv4 != address.is_ipv4() {
            return false;
        }
        let Some(network) = self.network else {
            return self.len == 0;
        };
        ipnet::IpNet::new(network, self.len).is_ok_and(|network| network.contains(&address))
    }
}

fn is_on(switch: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/net/{switch}")).is_ok_and(|text| text.trim() != "0")
}
