//! The answers' way out: a listener in the twin answers a SYN as the host's own would, and the kernel's trace tells
//! whether that leaves.
//!
//! Whose socket it is cannot be copied. Where a rule asks for that before an answer's fate is decided, nobody here can
//! tell it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::guard::BACKLOG;
use super::ruleset::expressions::expressions;
use super::ruleset::{ChainName, Ruleset, compat};
use crate::firewall::evidence::{Traced, Verdict, What};

/// Whoever answers, a port each.
#[derive(Default)]
pub struct Listeners(HashMap<u16, Option<Socket>>);

impl Listeners {
    /// Listens at a port of every address of the namespace that the calling thread is in. Where another socket of
    /// the twin has it, as one that peers are diverted to, that one answers.
    pub fn listen(&mut self, port: u16) {
        self.0.entry(port).or_insert_with(|| {
            let both = listener(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
            // A kernel without IPv6.
            let four = || listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
            both.or_else(|_| four()).ok()
        });
    }
}

fn listener(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The rules that ask whose a socket is.
#[derive(Default)]
pub struct Owners {
    /// Of each chain with such a rule: its rules' handles, and which of them is the first such rule.
    chains: HashMap<ChainName, (Vec<u64>, usize)>,
}

impl Owners {
    /// Those of a ruleset, but for the table of this name.
    pub fn of(ruleset: &Ruleset, but_for: &str) -> Self {
        let handles = ruleset.handles();
        let mut chains = HashMap::new();
        for rule in &ruleset.rules {
            if rule.place.table == but_for.as_bytes() || !asks_for_the_owner(&rule.expressions) {
                continue;
            }
            let own = handles.get(&rule.place).cloned().unwrap_or_default();
            if let Some(at) = own.iter().position(|handle| *handle == rule.handle) {
                chains.entry(rule.place.clone()).or_insert((own, at));
            }
        }
        Self { chains }
    }

    /// The chain in which a packet of these steps met such a rule, whether or not that matched. `original` gives the
    /// handle that a rule had first.
    pub fn asked<'a>(
        &'a self,
        steps: &[Traced],
        original: impl Fn(&ChainName, u64) -> u64,
    ) -> Option<&'a ChainName> {
        let mut asked = self.chains.iter().filter(|(place, (handles, first))| {
            let enters = |step: &&Traced| is_in(step, place) || leads_to(step, place);
            if !steps.iter().any(|step| enters(&step)) {
                return false;
            }
            // Whatever is behind the rule that ended it there was not asked.
            let end = steps.iter().find_map(|step| match &step.what {
                What::Rule(handle, verdict) if is_in(step, place) && ends(verdict) => {
                    let handle = original(place, *handle);
                    handles.iter().position(|other| *other == handle)
                }
                _ => None,
            });
            end.is_none_or(|end| end >= *first)
        });
        asked.next().map(|(place, _)| place)
    }
}

fn is_in(step: &Traced, place: &ChainName) -> bool {
    step.family == place.family
        && step.table.as_bytes() == place.table
        && step.chain.as_bytes() == place.chain
}

fn leads_to(step: &Traced, place: &ChainName) -> bool {
    let is_its = step.family == place.family && step.table.as_bytes() == place.table;
    is_its
        && matches!(&step.what, What::Rule(_, Verdict::Jump(to) | Verdict::Goto(to)) if to.as_bytes() == place.chain)
}

fn ends(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Continue | Verdict::Jump(_))
}

fn asks_for_the_owner(list: &[u8]) -> bool {
    /// `NFTA_META_KEY`.
    const KEY: u16 = 2;
    const NFT_META_SKUID: u32 = 10;
    const NFT_META_SKGID: u32 = 11;
    const NFT_META_CGROUP: u32 = 23;
    expressions(list).any(|(name, data)| match name {
        b"meta" => matches!(
            super::netlink::find_u32(data, KEY),
            Some(NFT_META_SKUID | NFT_META_SKGID | NFT_META_CGROUP)
        ),
        b"socket" => true,
        b"match" => compat::name_in(data).is_some_and(|name| matches!(name, b"owner" | b"cgroup")),
        _ => false,
    })
}
