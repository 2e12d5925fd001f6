//! The world of the demo: six networks of the world, joined to one edge, and a server behind it.
//!
//! Every address is one of those that exist for documentation (RFC 5737, RFC 3849), so that
//! nothing here can be mistaken for, or reach, anybody's. IPv6 addresses are added with `nodad`:
//! there is nobody to collide with, and duplicate address detection would cost a second each.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nlink::netlink::addr::{Ipv4Address, Ipv6Address};
use nlink::netlink::link::VethLink;
use nlink::netlink::route::{Ipv4Route, Ipv6Route};
use nlink::netlink::{Connection, Route};

use super::edge_filter;
use super::peer::{self, Knock};
use crate::doctor::namespaces::Netns;

/// The port that everything is about.
pub const HTTP: u16 = 80;
/// Where the world finds the site, over IPv4.
pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// Where the world finds the site, over IPv6.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80);
/// The inner server; only the edge has a route to it.
pub const INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const INNER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

const V4_PREFIX_LENGTH: u8 = 26;
/// Of 3fff::/20 (RFC 9637): each a network of its own, as perspectives are.
const V6_PREFIX_LENGTH: u8 = 32;

/// How long an answer may take where nothing is in the way. Packets between namespaces take
/// microseconds; the rest is for a machine that is busy with something else.
const REACH: Duration = Duration::from_secs(2);

/// From where the world looks at the edge.
pub const REGIONS: [Region; 6] = [
    Region::new("N. America", [192, 0, 2, 0], 1),
    Region::new("S. America", [192, 0, 2, 64], 2),
    Region::new("Europe", [198, 51, 100, 0], 3),
    Region::new("Africa", [198, 51, 100, 64], 4),
    Region::new("Asia", [203, 0, 113, 0], 5),
    Region::new("Oceania", [203, 0, 113, 64], 6),
];

/// One network of the world, with a prefix of each family.
pub struct Region {
    name: &'static str,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Region {
    const fn new(name: &'static str, [a, b, c, d]: [u8; 4], v6: u16) -> Self {
        Self {
            name,
            v4: Ipv4Addr::new(a, b, c, d),
            v6: Ipv6Addr::new(0x3fff, v6, 0, 0, 0, 0, 0, 0),
        }
    }

    /// Its invented name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its IPv4 prefix.
    pub fn v4_prefix(&self) -> String {
        format!("{}/{V4_PREFIX_LENGTH}", self.v4)
    }

    /// Its IPv6 prefix.
    pub fn v6_prefix(&self) -> String {
        format!("{}/{V6_PREFIX_LENGTH}", self.v6)
    }

    /// The interface of the edge that leads there.
    fn interface(&self) -> String {
        self.name
            .chars()
            .filter(char::is_ascii_alphabetic)
            .collect::<String>()
            .to_ascii_lowercase()
    }

    fn v4(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.v4) + u32::from(host))
    }

    fn v6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.v6) + u128::from(host))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}/{V4_PREFIX_LENGTH}", self.name, self.v4)
    }
}

/// A region that has been built.
pub struct Network {
    pub region: &'static Region,
    pub netns: Netns,
}

/// Everything that has been built; dropping it takes it away.
pub struct World {
    pub edge: Netns,
    pub networks: Vec<Network>,
    pub inner: Netns,
}

impl World {
    /// Builds the world around the namespace that the process stands in, which becomes the edge.
    ///
    /// Before the edge's firewall is there every network must be answered by the edge, over both
    /// families: only then is silence, later, the firewall's doing.
    ///
    /// # Errors
    /// [`WorldError`]: the kernel lacks something.
    pub async fn build() -> Result<Self, WorldError> {
        let edge = Netns::here().map_err(WorldError::because("open the edge's namespace"))?;
        let beside = || {
            edge.beside()
                .map_err(WorldError::because("make a network namespace"))
        };
        let wires = route_socket(&edge)?;
        wires
            .set_link_up("lo")
            .await
            .map_err(WorldError::because("raise the loopback interface"))?;
        add_address(&wires, "lo", SERVICE_V4.into(), 32).await?;
        add_address(&wires, "lo", SERVICE_V6.into(), 128).await?;

        let mut networks = Vec::new();
        for region in &REGIONS {
            let netns = beside()?;
            join(&wires, region, &netns).await?;
            networks.push(Network { region, netns });
        }
        let inner = beside()?;
        join_inner(&wires, &inner).await?;

        let world = Self {
            edge,
            networks,
            inner,
        };
        world.prove_reachable().await?;
        edge_filter::install()
            .await
            .map_err(WorldError::because("install the edge's own nftables chain"))?;
        Ok(world)
    }

    /// Knocks on the service's port from every network, over both families, all at once.
    pub async fn knock_from_everywhere(&self, patience: Duration) -> Vec<Knocked> {
        let knocks = self.networks.iter().flat_map(|network| {
            [IpAddr::V4(SERVICE_V4), IpAddr::V6(SERVICE_V6)].map(|address| async move {
                let to = SocketAddr::new(address, HTTP);
                Knocked {
                    region: network.region,
                    to,
                    knock: peer::knock(&network.netns, to, patience).await,
                }
            })
        });
        peer::all(knocks).await
    }

    async fn prove_reachable(&self) -> Result<(), WorldError> {
        let knocked = self.knock_from_everywhere(REACH).await;
        match knocked.iter().find(|k| k.knock != Knock::Refused) {
            None => Ok(()),
            Some(lost) => Err(WorldError {
                doing: "reach the edge before it has a firewall",
                cause: lost.to_string(),
            }),
        }
    }
}

/// One knock, with its place.
pub struct Knocked {
    pub region: &'static Region,
    pub to: SocketAddr,
    pub knock: Knock,
}

impl fmt::Display for Knocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} over {}: {}",
            self.region,
            family(self.to),
            self.knock
        )
    }
}

/// The word for the family of an address.
pub fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The world could not be built. The system is at fault: a kernel without veth, nf_tables or IPv6.
#[derive(Debug)]
pub struct WorldError {
    doing: &'static str,
    cause: String,
}

impl WorldError {
    fn because<E: fmt::Display>(doing: &'static str) -> impl Fn(E) -> Self {
        move |error| Self {
            doing,
            cause: error.to_string(),
        }
    }
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot {}: {}\n  The demo needs a kernel with veth, nf_tables and IPv6: \
             sudo modprobe -a veth nf_tables nf_conntrack",
            self.doing, self.cause
        )
    }
}

fn route_socket(netns: &Netns) -> Result<Connection<Route>, WorldError> {
    let failed = "open a netlink socket";
    netns
        .within(Connection::<Route>::new)
        .map_err(WorldError::because(failed))?
        .map_err(WorldError::because(failed))
}

/// Lays a cable from the edge to one network and gives that network its way out.
async fn join(edge: &Connection<Route>, region: &Region, netns: &Netns) -> Result<(), WorldError> {
    let failed = "give a network its routes";
    let interface = region.interface();
    let there = lay_cable(edge, &interface, netns).await?;
    add_address(edge, &interface, region.v4(1).into(), V4_PREFIX_LENGTH).await?;
    add_address(edge, &interface, region.v6(1).into(), V6_PREFIX_LENGTH).await?;
    add_address(&there, UPLINK, region.v4(10).into(), V4_PREFIX_LENGTH).await?;
    add_address(&there, UPLINK, region.v6(10).into(), V6_PREFIX_LENGTH).await?;
    there
        .add_route(Ipv4Route::default_route().gateway(region.v4(1)))
        .await
        .map_err(WorldError::because(failed))?;
    there
        .add_route(Ipv6Route::default_route().gateway(region.v6(1)))
        .await
        .map_err(WorldError::because(failed))
}

/// The inner server has no default route: whatever the edge might forward, no answer leaves.
async fn join_inner(edge: &Connection<Route>, netns: &Netns) -> Result<(), WorldError> {
    let there = lay_cable(edge, "inner", netns).await?;
    add_address(edge, "inner", INNER_GATEWAY.into(), 30).await?;
    add_address(&there, UPLINK, INNER.into(), 30).await
}

/// What every network calls its end of the cable.
const UPLINK: &str = "uplink";

/// A veth pair: `interface` stays here, [`UPLINK`] goes there; both are up.
async fn lay_cable(
    edge: &Connection<Route>,
    interface: &str,
    netns: &Netns,
) -> Result<Connection<Route>, WorldError> {
    let failed = "lay a veth cable";
    edge.add_link(VethLink::new(interface, UPLINK).peer_netns_fd(netns.as_file()))
        .await
        .map_err(WorldError::because(failed))?;
    let there = route_socket(netns)?;
    for (end, name) in [(edge, interface), (&there, UPLINK)] {
        end.set_link_up(name)
            .await
            .map_err(WorldError::because(failed))?;
    }
    Ok(there)
}

async fn add_address(
    wires: &Connection<Route>,
    interface: &str,
    address: IpAddr,
    prefix_length: u8,
) -> Result<(), WorldError> {
    let added = match address {
        IpAddr::V4(v4) => {
            wires
                .add_address(Ipv4Address::new(interface, v4, prefix_length))
                .await
        }
        IpAddr::V6(v6) => {
            wires
                .add_address(Ipv6Address::new(interface, v6, prefix_length).nodad())
                .await
        }
    };
    added.map_err(WorldError::because("add an address"))
}

impl From<io::Error> for WorldError {
    fn from(error: io::Error) -> Self {
        Self::because("use a network namespace")(error)
    }
}
