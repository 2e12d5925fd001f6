//! What to do about a rule that drops, by the same engine that `open` asks: it knows managers by their chains.

use std::net::IpAddr;

use nlink::netlink::nftables::Family;
use nlink::netlink::{Connection, Nftables};

use super::knock::Told;
use super::ruleset::Ruleset as Copied;
use crate::doctor::path::{Knock, Protocol};
use crate::firewall::base_chains::{self, IpFamily, Place, Probe, Ruleset, Transport, culprit};
use crate::firewall::evidence::{Traced, What};
use crate::firewall::ruleset::{Mode, Settings};

/// The rules of the twin, as that engine reads them.
pub struct Advisor {
    ruleset: Ruleset,
    base_chains: Vec<(u8, String, String)>,
    attached: Vec<String>,
}

impl Advisor {
    /// Reads the namespace that the socket is of.
    ///
    /// # Errors
    /// netlink's.
    pub async fn read(
        nft: &Connection<Nftables>,
        copied: &Copied,
        settings: Option<&Settings>,
    ) -> nlink::Result<Self> {
        let attached = match settings.map(|settings| &settings.mode) {
            Some(Mode::Attach(chains)) => chains.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            ruleset: base_chains::read(nft).await?,
            base_chains: copied.base_chains(),
            attached,
        })
    }

    /// What to do about the last of these steps, which drops the knock.
    pub fn advise(
        &self,
        knock: &Knock,
        told: &Told,
        handle: Option<u64>,
        rejects: bool,
    ) -> Option<String> {
        let last = told.steps.last()?;
        // The one by which the packet came stands before it, in the same table.
        let is_base = |step: &&Traced| {
            let mut bases = self.base_chains.iter();
            step.family == last.family
                && step.table == last.table
                && bases.any(|(family, table, chain)| {
                    *family == step.family && *table == step.table && *chain == step.chain
                })
        };
        let base = told.steps.iter().rev().find(is_base)?;
        let place = Place {
            family: Family::from_u8(last.family)?,
            table: last.table.clone(),
            base_chain: base.chain.clone(),
            chain: last.chain.clone(),
            rule: match last.what {
                What::Rule(..) => handle,
                _ => None,
            },
        };
        let probe = Probe {
            family: match knock.source {
                IpAddr::V4(_) => IpFamily::V4,
                IpAddr::V6(_) => IpFamily::V6,
            },
            port: knock.port,
            interface: knock.interface.clone(),
            ifindex: None,
            destination: Some(knock.destination),
            mark: 0,
            is_untracked: false,
            ct_mark: 0,
            accepted_sets: Vec::new(),
        };
        let transport = match knock.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        };
        let culprit = culprit(&self.ruleset, &probe, transport, place, rejects);
        Some(culprit.advice(&self.attached))
    }
}
