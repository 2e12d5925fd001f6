//! Surveys the ways by which a validation would come in, before a window is reported as open.
//!
//! It looks at every interface that the Internet may come by and walks a packet through the
//! foreign base chains on its path. The ruleset is read once per generation; our own changes,
//! which no foreign chain can depend on, do not count. Nothing here changes anything.

use std::net::IpAddr;

use nlink::netlink::{Connection, Nftables, Route};

use super::base_chains::{self, Culprit, IpFamily, NamedSet, Path, Probe, Ruleset};
use super::error::KernelError;
use super::names::TABLE;
use super::ruleset::{Mode, Settings};
use crate::gate::lease::{Entrance, Family, Scope};

/// What a survey found.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No foreign chain would drop the packets; what could not be told is said.
    Clear {
        /// Sentences for the operator, at most a few.
        doubts: Vec<String>,
    },
    /// A foreign chain would drop them: which one, and what to do about it.
    Shut(String),
}

/// Reads routes and rulesets; keeps the last ruleset.
pub struct Survey {
    route: Connection<Route>,
    cached: Option<Cached>,
}

/// A ruleset that was read.
struct Cached {
    /// The kernel's generation by which it still stands, but for changes of our own.
    generation: u32,
    ruleset: Ruleset,
}

impl Survey {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub fn connect() -> Result<Self, KernelError> {
        let route = Connection::<Route>::new()
            .map_err(|error| KernelError::Refused("opening a route socket", Box::new(error)))?;
        Ok(Self {
            route,
            cached: None,
        })
    }

    /// After one committed change of our own: whether the ruleset that was read still stands but
    /// for it, so that what was found holds. Asked without one, it takes somebody else's change for ours.
    pub async fn still_stands(&mut self, nft: &Connection<Nftables>) -> bool {
        let (Some(cached), Ok(current)) = (&mut self.cached, nft.generation().await) else {
            return false;
        };
        let only_ours = current == cached.generation.wrapping_add(1);
        if only_ours {
            cached.generation = current;
        }
        only_ours
    }

    /// The generation of the ruleset that was surveyed last, as it was when it was read: the same number
    /// again means that nobody but us has changed anything since.
    pub fn surveyed(&self) -> Option<u32> {
        self.cached.as_ref()?.ruleset.generation()
    }

    /// The entrance as the kernel knows it, or `None` if this host does not have it.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub async fn locate(&self, entrance: &Entrance) -> Result<Option<Entrance>, KernelError> {
        let refused = |error| KernelError::Refused("reading interfaces", Box::new(error));
        match entrance {
            Entrance::Any => Ok(Some(Entrance::Any)),
            Entrance::Address(wanted) => {
                let addresses = self.route.get_addresses().await.map_err(refused)?;
                let is_own = addresses
                    .iter()
                    .any(|address| address.primary_address() == Some(wanted));
                Ok(is_own.then_some(Entrance::Address(*wanted)))
            }
            Entrance::Interface(wanted) => {
                let links = self.route.get_links().await.map_err(refused)?;
                let found = links
                    .iter()
                    .find(|link| link.name() == Some(wanted.name()) && link.ifindex() != LOOPBACK);
                Ok(found.map(|link| Entrance::Interface(wanted.clone().numbered(link.ifindex()))))
            }
        }
    }

    /// Whether new connections to what `scope` opens could come in, as far as foreign chains go.
    ///
    /// # Errors
    /// [`KernelError::Refused`] when the ruleset cannot be read: then nothing is promised.
    pub async fn look(
        &mut self,
        nft: &Connection<Nftables>,
        settings: &Settings,
        scope: &Scope,
    ) -> Result<Finding, KernelError> {
        let ways = ways(&self.route, &scope.entrance).await?;
        let accepted_sets = match &settings.mode {
            Mode::Set(set) => vec![NamedSet {
                family: set.family,
                table: set.table.clone(),
                name: set.name.clone(),
            }],
            Mode::Guard | Mode::Attach(_) | Mode::GateOnly => Vec::new(),
        };
        // Our own table stands before all others and marks what a window admits.
        let mark = match &settings.mode {
            Mode::Attach(_) => settings.mark,
            Mode::Guard | Mode::Set(_) | Mode::GateOnly => 0,
        };
        let attached: Vec<String> = match &settings.mode {
            Mode::Attach(chains) => chains.iter().map(ToString::to_string).collect(),
            Mode::Guard | Mode::Set(_) | Mode::GateOnly => Vec::new(),
        };
        let destination = match scope.entrance {
            Entrance::Address(address) => Some(address),
            Entrance::Any | Entrance::Interface(_) => None,
        };
        let ruleset = self.ruleset(nft).await?;
        let mut doubts = Vec::new();
        for family in Family::ALL
            .into_iter()
            .filter(|family| scope.families.has(*family) && scope.entrance.is_of(*family))
        {
            for &port in &scope.ports {
                let is_diverted = settings.diverted(port).is_some();
                // And its connection's, before anybody could copy one to the other; what is diverted has
                // none.
                let ct_mark = match &settings.mode {
                    Mode::Set(_) | Mode::Attach(_) if !is_diverted => settings.mark,
                    _ => 0,
                };
                let probes = ways
                    .iter()
                    .filter(|way| way.family == family)
                    .map(|way| Probe {
                        family: match family {
                            Family::V4 => IpFamily::V4,
                            Family::V6 => IpFamily::V6,
                        },
                        port,
                        interface: way.interface.clone(),
                        ifindex: Some(way.ifindex),
                        destination,
                        mark,
                        ct_mark,
                        is_untracked: is_diverted,
                        accepted_sets: accepted_sets.clone(),
                    });
                // One way in is enough: a host may well be shut on its inner interfaces.
                let mut shut: Option<Culprit> = None;
                let mut is_clear = false;
                for probe in probes {
                    match base_chains::judge(ruleset, &probe, &[TABLE]) {
                        Path::Passes { doubts: found } => {
                            is_clear = true;
                            for doubt in found.iter().map(ToString::to_string) {
                                if doubts.len() < MAX_DOUBTS && !doubts.contains(&doubt) {
                                    doubts.push(doubt);
                                }
                            }
                        }
                        Path::Drops(culprit) => shut = Some(culprit),
                    }
                }
                match shut {
                    Some(culprit) if !is_clear => {
                        let advice = culprit.advice(&attached);
                        return Ok(Finding::Shut(format!("{culprit}; {advice}")));
                    }
                    Some(culprit) => {
                        let doubt = format!("{culprit}, on another interface");
                        if doubts.len() < MAX_DOUBTS && !doubts.contains(&doubt) {
                            doubts.push(doubt);
                        }
                    }
                    None => {}
                }
            }
        }
        Ok(Finding::Clear { doubts })
    }

    async fn ruleset(&mut self, nft: &Connection<Nftables>) -> Result<&Ruleset, KernelError> {
        let refused = |error| KernelError::Refused("reading the ruleset", Box::new(error));
        let generation = nft.generation().await.map_err(refused)?;
        let still_stands = |cached: &Cached| cached.generation == generation;
        let cached = match self.cached.take().filter(still_stands) {
            Some(cached) => cached,
            None => Cached {
                generation,
                ruleset: base_chains::read(nft).await.map_err(refused)?,
            },
        };
        Ok(&self.cached.insert(cached).ruleset)
    }
}

/// As many doubts as one line can hold and anybody reads.
const MAX_DOUBTS: usize = 4;
/// The loopback interface has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// An interface that packets of a family may come in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Which packets.
    pub family: Family,
    /// The interface's index.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
}

/// The interfaces that the Internet may come by: those with a default route, or, where a
/// family has none, every one with an address that is not link-local. For an interface that is
/// asked for by name, that one.
///
/// # Errors
/// [`KernelError::Refused`].
pub async fn ways(route: &Connection<Route>, entrance: &Entrance) -> Result<Vec<Way>, KernelError> {
    let refused = |error| KernelError::Refused("reading interfaces", Box::new(error));
    let links = route.get_links().await.map_err(refused)?;
    let addresses = route.get_addresses().await.map_err(refused)?;
    let routes = route.get_routes().await.map_err(refused)?;
    let mut ways = Vec::new();
    for family in Family::ALL {
        let has_address = |ifindex: u32| {
            addresses.iter().any(|address| {
                address.ifindex() == ifindex
                    && address
                        .primary_address()
                        .is_some_and(|own| Family::of(*own) == family && !is_link_local(*own))
            })
        };
        let leads_out = |ifindex: u32| {
            routes.iter().any(|route| {
                route.is_default()
                    && route.is_ipv4() == (family == Family::V4)
                    && route.oif() == Some(ifindex)
            })
        };
        let of_family: Vec<Way> = links
            .iter()
            .filter(|link| link.ifindex() != LOOPBACK && has_address(link.ifindex()))
            .filter_map(|link| {
                Some(Way {
                    family,
                    ifindex: link.ifindex(),
                    interface: link.name()?.to_owned(),
                })
            })
            .collect();
        let outer: Vec<Way> = of_family
            .iter()
            .filter(|way| leads_out(way.ifindex))
            .cloned()
            .collect();
        ways.extend(match entrance {
            Entrance::Interface(wanted) => {
                let is_wanted = |way: &Way| way.ifindex == wanted.index();
                of_family.into_iter().filter(is_wanted).collect()
            }
            _ if outer.is_empty() => of_family,
            _ => outer,
        });
    }
    Ok(ways)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
    }
}
