//! The outer side of a copied network: from there everything comes, and nothing leads further.

use std::io;
use std::net::IpAddr;

use super::messages::{
    AF_INET, AF_INET6, LOOPBACK, NEWNEIGH, address_message, address_order, default_route,
    put_address, route_order, up,
};
use super::switches::write_switch;
use super::{Link, Network};
use crate::doctor::twin::netlink::{NLM_F_CREATE, NLM_F_REPLACE, Order, Socket, put};

/// What tells the number of the outer end from that of the inner one.
pub(super) const PEER_BIT: i32 = 1 << 24;

/// Where knocks come from: a namespace with the other ends of the cables.
pub struct Outside {
    /// For the routes and neighbours of that namespace.
    socket: Socket,
}

impl Outside {
    /// Must be called within the namespace, after the cables were laid.
    pub(super) fn prepare(network: &Network) -> io::Result<Self> {
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
