//! How the Internet may come in: interfaces, and the addresses that it would ask for.

use std::net::IpAddr;

use nlink::netlink::{Connection, Route};

use crate::firewall::error::KernelError;
use crate::firewall::survey::ways;
use crate::gate::lease::{Entrance, Family};

/// The most addresses of one interface and family that are tried.
const MOST_ADDRESSES: usize = 4;

/// An interface, and an address of this host that packets ask for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The interface.
    pub interface: String,
    /// The address, never link-local.
    pub address: IpAddr,
}

/// Every way in, as the survey before a window knows them, with the first addresses of each.
///
/// # Errors
/// [`KernelError::Refused`].
pub async fn doors() -> Result<Vec<Door>, KernelError> {
    let refused = |error| KernelError::Refused("reading interfaces", Box::new(error));
    let route = Connection::<Route>::new().map_err(refused)?;
    let addresses = route.get_addresses().await.map_err(refused)?;
    let mut doors = Vec::new();
    for way in ways(&route, &Entrance::Any).await? {
        let own = addresses
            .iter()
            .filter(|address| address.ifindex() == way.ifindex)
            .filter_map(|address| address.primary_address().copied())
            .filter(|address| Family::of(*address) == way.family && is_asked_for(*address));
        doors.extend(own.take(MOST_ADDRESSES).map(|address| Door {
            interface: way.interface.clone(),
            address,
        }));
    }
    Ok(doors)
}

fn is_asked_for(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    }
}
