//! The base chains of a reading as a list, and what can be told of a rule without judging it.

use std::fmt;

use nlink::netlink::nftables::Family;

use super::report::{Manager, Place};
use super::ruleset::{Hook, Ruleset, Table};
use super::step::Step;

/// One base chain on the way of packets that come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub name: String,
    /// The hook, in nft's word.
    pub hook: &'static str,
    /// Its place among the chains of that hook: lower comes first.
    pub priority: i32,
    /// What its policy does.
    pub drops_by_policy: bool,
    /// How many rules it has itself.
    pub rules: usize,
    /// Whose it is, as far as names tell.
    pub manager: Manager,
}

impl BaseChain {
    /// As it is named in a configuration: `inet filter input`.
    pub fn full_name(&self) -> String {
        [self.family.name(), &self.table, &self.name].join(" ")
    }
}

impl fmt::Display for BaseChain {
    /// `inet filter input (nftables): input, priority 0, policy drop, 7 rules`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hook,
            priority,
            rules,
            ..
        } = self;
        let policy = if self.drops_by_policy {
            "drop"
        } else {
            "accept"
        };
        let (name, manager) = (self.full_name(), self.manager.as_str());
        let s = if *rules == 1 { "" } else { "s" };
        write!(
            f,
            "{name} ({manager}): {hook}, priority {priority}, policy {policy}, {rules} rule{s}"
        )
    }
}

impl Ruleset {
    /// Every base chain that was read, in the packet's order.
    pub fn base_chains(&self) -> Vec<BaseChain> {
        let mut found = Vec::new();
        for table in &self.tables {
            for chain in &table.chains {
                let Some(base) = &chain.base else { continue };
                let place = Place {
                    family: table.family,
                    table: table.name.clone(),
                    base_chain: chain.name.clone(),
                    chain: chain.name.clone(),
                    rule: None,
                };
                let names = table.chains.iter().map(|chain| chain.name.as_str());
                let chain = BaseChain {
                    family: table.family,
                    table: table.name.clone(),
                    name: chain.name.clone(),
                    hook: match base.hook {
                        Hook::Ingress => "ingress",
                        Hook::Prerouting => "prerouting",
                        Hook::Input => "input",
                        Hook::Forward => "forward",
                    },
                    priority: base.priority,
                    drops_by_policy: base.drops_by_policy,
                    rules: chain.rules.len(),
                    manager: Manager::guess(&place, names),
                };
                found.push((base.hook, chain));
            }
        }
        found.sort_by_key(|(hook, chain)| (*hook, chain.priority));
        found.into_iter().map(|(_, chain)| chain).collect()
    }

    /// Who looks after the chain at `place`.
    pub fn manager(&self, place: &Place) -> Manager {
        let table = self.table(place);
        let chains = table.into_iter().flat_map(|table| &table.chains);
        Manager::guess(place, chains.map(|chain| chain.name.as_str()))
    }

    /// Whether the rule at `place` asks a list of sources with a name: a set that somebody fills, rather
    /// than addresses that stand in the rule itself.
    pub fn asks_a_list(&self, place: &Place) -> bool {
        let Some(table) = self.table(place) else {
            return false;
        };
        let chain = table.chain_index(&place.chain);
        let rules = chain.map_or(&[][..], |index| &table.chains[index].rules);
        let rule = rules.iter().find(|rule| Some(rule.handle) == place.rule);
        let mut steps = rule.into_iter().flat_map(|rule| &rule.steps);
        steps.any(|step| match step {
            Step::Lookup { set, .. } => {
                !set.starts_with("__") && table.sets.get(set).is_none_or(|s| s.elements.is_none())
            }
            Step::MatchesUnlisted(_) => true,
            _ => false,
        })
    }

    fn table(&self, place: &Place) -> Option<&Table> {
        let mut tables = self.tables.iter();
        tables.find(|table| table.family == place.family && table.name == place.table)
    }
}
