//! What is read of the host: its rules, its routes, and a few of the kernel's switches. Changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use nlink::netlink::{Connection, Nftables, Route};

use crate::firewall::base_chains::{self, IpFamily, Place, Routes, Ruleset};
use crate::firewall::error::KernelError;
use crate::firewall::evidence::words_of_handle;
use crate::firewall::legacy;
use crate::firewall::survey::{Way, ways};
use crate::gate::lease::{Entrance, Family};

/// One reading of the network namespace that the caller is in.
pub struct Reading {
    nft: Connection<Nftables>,
    pub(super) rules: Ruleset,
    pub(super) routes: Routes,
    /// How the Internet may come in.
    pub(super) ways: Vec<Way>,
    /// The tables of iptables-legacy.
    pub(super) legacy: BTreeSet<String>,
    /// Somebody answers on TCP port 53, on UDP port 53.
    pub(super) name_server: NameServer,
    /// `tcp_syncookies` and `tcp_max_syn_backlog`, where they can be read.
    pub(super) syn_cookies: Option<u32>,
    pub(super) syn_backlog: Option<u32>,
    /// The strictest reverse path filter that holds on each interface, by name.
    pub(super) reverse_path: HashMap<String, u32>,
}

/// Whether this host serves names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameServer {
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

impl Reading {
    /// Reads. Takes some milliseconds, whatever lists there are.
    ///
    /// # Errors
    /// [`KernelError`]: no power to read rules here.
    pub async fn take() -> Result<Self, KernelError> {
        let refused = |error| KernelError::Refused("reading the ruleset", Box::new(error));
        let nft = Connection::<Nftables>::new().map_err(refused)?;
        let route = Connection::<Route>::new().map_err(refused)?;
        let rules = base_chains::read(&nft).await.map_err(refused)?;
        let ways = ways(&route, &Entrance::Any).await?;
        let reverse_path = ways.iter().map(|way| {
            let name = &way.interface;
            (name.clone(), filter("all").max(filter(name)))
        });
        Ok(Self {
            rules,
            routes: Routes::read(&route).await.map_err(refused)?,
            reverse_path: reverse_path.collect(),
            ways,
            legacy: legacy::tables(),
            name_server: NameServer {
                tcp: ["tcp", "tcp6"].into_iter().any(has_socket),
                udp: ["udp", "udp6"].into_iter().any(has_socket),
            },
            syn_cookies: number("net/ipv4/tcp_syncookies"),
            syn_backlog: number("net/ipv4/tcp_max_syn_backlog"),
            nft,
        })
    }

    /// The rules at these places, as people know them.
    pub(super) async fn words(&self, places: &[Place]) -> HashMap<Place, String> {
        let mut words = HashMap::new();
        for place in places {
            let Some(handle) = place.rule else { continue };
            let text = words_of_handle(&self.nft, place.family, &place.table, &place.chain, handle);
            if let Some(text) = text.await {
                words.insert(place.clone(), text);
            }
        }
        words
    }
}

/// Whether a socket waits on local port 53 in a table of proc(5), on another address than a loopback one: a
/// caching resolver such as systemd's is no name server.
fn has_socket(table: &str) -> bool {
    const DNS: &str = "0035";
    // What waits for connections, and what waits for datagrams.
    const WAITING: [&str; 2] = ["0A", "07"];
    let table = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, ..] = words.as_slice() else {
            return false;
        };
        let waits = WAITING.contains(state);
        let local = local.rsplit_once(':');
        waits && local.is_some_and(|(address, port)| port == DNS && !is_loopback(address))
    })
}

/// The addresses of proc(5) are words of 32 bits in the machine's order.
fn is_loopback(address: &str) -> bool {
    let is_4 = u32::from_str_radix(address, 16).is_ok_and(|word| word.to_ne_bytes()[0] == 127);
    address.len() == 8 && is_4 || address == "00000000000000000000000001000000"
}

fn number(switch: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/{switch}")).ok()?;
    text.trim().parse().ok()
}

fn filter(interface: &str) -> u32 {
    number(&format!("net/ipv4/conf/{interface}/rp_filter")).unwrap_or(0)
}

/// The same word in the rules' language.
pub(super) fn family(family: Family) -> IpFamily {
    match family {
        Family::V4 => IpFamily::V4,
        Family::V6 => IpFamily::V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_a_loopback_address_is_no_name_server() {
        let little_endian = cfg!(target_endian = "little");
        for (address, expected) in [
            ("3500007F", little_endian),
            ("00000000", false),
            ("0100A8C0", false),
            ("00000000000000000000000001000000", true),
            ("00000000000000000000000000000000", false),
        ] {
            assert_eq!(is_loopback(address), expected, "{address}");
        }
    }
}
