//! Who knocks: addresses of every region of the world, and some of the allow-list. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entrances::Door;
use crate::doctor::path::{Knock, Protocol};
use crate::gate::allow_list::AllowList;
use crate::gate::lease::Family;

/// A knock, and who knocks.
pub struct Visit {
    pub knock: Knock,
    /// A place in the world; `None` for somebody on the allow-list.
    pub region: Option<&'static str>,
}

/// A place in the world: an address of each family out of what one registry gives out there (IANA, IPv4 Address
/// Space Registry and IPv6 Global Unicast Address Assignments). Nothing is ever sent to them.
struct Region {
    name: &'static str,
    v4: [Ipv4Addr; 2],
    v6: [Ipv6Addr; 2],
}

const REGIONS: [Region; 5] = [
    Region {
        name: "North America",
        v4: [Ipv4Addr::new(23, 20, 30, 40), Ipv4Addr::new(63, 140, 30, 7)],
        v6: [
            Ipv6Addr::new(0x2600, 0x1f18, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0x2607, 0xf8b0, 0, 0, 0, 0, 0, 7),
        ],
    },
    Region {
        name: "Europe",
        v4: [Ipv4Addr::new(85, 30, 40, 50), Ipv4Addr::new(193, 20, 30, 7)],
        v6: [
            Ipv6Addr::new(0x2a01, 0x4f8, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0x2001, 0x67c, 0x2e8, 0, 0, 0, 0, 7),
        ],
    },
    Region {
        name: "Asia and Pacific",
        v4: [
            Ipv4Addr::new(110, 30, 40, 50),
            Ipv4Addr::new(202, 20, 30, 7),
        ],
        v6: [
            Ipv6Addr::new(0x2400, 0xcb00, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0x2001, 0xdc0, 0x2001, 0, 0, 0, 0, 7),
        ],
    },
    Region {
        name: "Latin America",
        v4: [
            Ipv4Addr::new(177, 30, 40, 50),
            Ipv4Addr::new(200, 20, 30, 7),
        ],
        v6: [
            Ipv6Addr::new(0x2800, 0x3f0, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0x2001, 0x13c7, 0x7002, 0, 0, 0, 0, 7),
        ],
    },
    Region {
        name: "Africa",
        v4: [Ipv4Addr::new(41, 30, 40, 50), Ipv4Addr::new(196, 20, 30, 7)],
        v6: [
            Ipv6Addr::new(0x2c0f, 0xfb50, 0, 0, 0, 0, 0, 7),
            Ipv6Addr::new(0x2001, 0x42d0, 0, 0, 0, 0, 0, 7),
        ],
    },
];

/// How many addresses of the allow-list knock, of each family.
const LISTED: usize = 3;

/// The world at each door, and some of the allow-list.
pub fn visits(doors: &[Door], ports: &[u16], allow: &AllowList) -> Vec<Visit> {
    let mut visits = Vec::new();
    for door in doors {
        let family = Family::of(door.address);
        let strangers = REGIONS.iter().flat_map(|region| {
            let addresses: [IpAddr; 2] = match family {
                Family::V4 => region.v4.map(IpAddr::from),
                Family::V6 => region.v6.map(IpAddr::from),
            };
            addresses.map(|address| (address, Some(region.name)))
        });
        let strangers = strangers.filter(|(address, _)| !allow.contains(*address));
        let listed = listed(allow, family)
            .into_iter()
            .map(|address| (address, None));
        for (source, region) in strangers.chain(listed) {
            for port in ports {
                visits.push(Visit {
                    knock: Knock {
                        interface: door.interface.clone(),
                        source,
                        destination: door.address,
                        protocol: Protocol::Tcp,
                        port: *port,
                    },
                    region,
                });
            }
        }
    }
    visits
}

/// Some addresses of the list that a packet may come from over the Internet.
fn listed(allow: &AllowList, family: Family) -> Vec<IpAddr> {
    let addresses: Vec<IpAddr> = match family {
        Family::V4 => {
            let ranges = allow.v4().as_slice().iter();
            let middles = ranges.map(|(first, last)| Ipv4Addr::from(first + (last - first) / 2));
            let routed = middles.filter(|address| {
                !address.is_private() && !address.is_loopback() && !address.is_link_local()
            });
            routed.map(IpAddr::from).collect()
        }
        Family::V6 => {
            let ranges = allow.v6().as_slice().iter();
            let middles = ranges.map(|(first, last)| Ipv6Addr::from(first + (last - first) / 2));
            // 2000::/3, global unicast.
            let routed = middles.filter(|address| address.segments()[0] >> 13 == 1);
            routed.map(IpAddr::from).collect()
        }
    };
    let every = addresses.len().div_ceil(LISTED).max(1);
    addresses.into_iter().step_by(every).collect()
}
