//! The rules of the copy: which of the live ones each is, and how nft(8) writes it.

use std::collections::{BTreeSet, HashMap, HashSet};

use nlink::netlink::nftables::{Family as NftFamily, RuleInfo};
use nlink::netlink::{Connection, Nftables};

use super::ruleset::expressions::expressions;
use super::ruleset::send::Copy;
use super::ruleset::{ChainName, Ruleset, compat};
use crate::firewall::evidence::{Traced, What, rule_words};

/// Which rule of the copy is which of the live ones.
#[derive(Default)]
pub struct Live {
    handles: HashMap<(ChainName, u64), u64>,
    left_out: HashSet<(ChainName, u64)>,
}

impl Live {
    pub fn of(live: Option<&Ruleset>, copied: &Ruleset, copy: &Copy) -> Self {
        let Some(live) = live else {
            return Self::default();
        };
        let theirs = live.handles();
        let mut handles = HashMap::new();
        for (place, ours) in copied.handles() {
            let Some(theirs) = theirs.get(place) else {
                continue;
            };
            for (our, their) in ours.iter().zip(theirs) {
                handles.insert((place.clone(), *our), *their);
            }
        }
        Self {
            handles,
            left_out: copy.left_out.clone(),
        }
    }

    /// The live rule's handle, and whether something stands in for it.
    pub fn handle(&self, place: &ChainName, handle: u64) -> (u64, bool) {
        let key = (place.clone(), handle);
        let live = self.handles.get(&key).copied().unwrap_or(handle);
        (live, self.left_out.contains(&(key.0, live)))
    }
}

/// The rules of the copy in nft's words.
pub struct Texts {
    pub nft: Connection<Nftables>,
    rules: HashMap<(ChainName, u64), RuleInfo>,
    written: HashMap<(ChainName, u64), String>,
    rejecting: HashSet<(ChainName, u64)>,
    /// Rules that were made anew: by their handle now, the one that they had first.
    renamed: HashMap<(ChainName, u64), u64>,
}

impl Texts {
    pub async fn read(ruleset: &Ruleset) -> nlink::Result<Self> {
        let nft = Connection::<Nftables>::new()?;
        let tables: BTreeSet<(u8, String)> = (ruleset.rules.iter())
            .map(|rule| {
                let table = String::from_utf8_lossy(&rule.place.table).into_owned();
                (rule.place.family, table)
            })
            .collect();
        let mut rules = HashMap::new();
        for (number, table) in tables {
            let Some(family) = NftFamily::from_u8(number) else {
                continue;
            };
            for rule in nft.list_rules(&table, family).await? {
                let place = ChainName {
                    family: number,
                    table: table.clone().into_bytes(),
                    chain: rule.chain.clone().into_bytes(),
                };
                rules.insert((place, rule.handle), rule);
            }
        }
        let rejecting = ruleset.rules.iter().filter(|rule| {
            expressions(&rule.expressions).any(|(name, data)| match name {
                b"reject" => true,
                b"target" => compat::name_in(data) == Some(b"REJECT"),
                _ => false,
            })
        });
        Ok(Self {
            nft,
            rejecting: rejecting.map(|rule| rule.key()).collect(),
            rules,
            written: HashMap::new(),
            renamed: HashMap::new(),
        })
    }

    pub fn rename(&mut self, place: &ChainName, old: u64, new: u64) {
        let first = self.renamed.remove(&(place.clone(), old)).unwrap_or(old);
        self.renamed.insert((place.clone(), new), first);
    }

    pub fn original(&self, place: &ChainName, handle: u64) -> u64 {
        let first = self.renamed.get(&(place.clone(), handle));
        first.copied().unwrap_or(handle)
    }

    pub fn rejects(&self, traced: &Traced) -> bool {
        let What::Rule(handle, _) = &traced.what else {
            return false;
        };
        let place = ChainName {
            family: traced.family,
            table: traced.table.clone().into_bytes(),
            chain: traced.chain.clone().into_bytes(),
        };
        let handle = self.original(&place, *handle);
        self.rejecting.contains(&(place, handle))
    }

    pub fn text(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        place: &ChainName,
        handle: u64,
    ) -> String {
        let key = (place.clone(), handle);
        if let Some(text) = self.written.get(&key) {
            return text.clone();
        }
        let text = match self.rules.get(&key) {
            Some(rule) => runtime.block_on(rule_words(&self.nft, rule)),
            None => format!("(rule {handle})"),
        };
        self.written.insert(key, text.clone());
        text
    }
}
