//! Chains at the very priority of connection tracking (`NF_IP_PRI_CONNTRACK`): which of the two comes first depends on
//! which was there first, and nothing that can be read tells that. Pure.

use super::Ruleset;
use super::compat::name_in;
use super::expressions::expressions;
use super::numbers::{NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, TABLE};
use crate::doctor::twin::netlink::{find, find_text, find_u32};

const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_IP_PRI_CONNTRACK: i32 = -200;

impl Ruleset {
    /// What of it may run before connection tracking on the host and after it in the copy, or the other way round, a
    /// line each: only chains of tables whose rules ask for connections, or change them.
    pub fn beside_tracking(&self) -> Vec<String> {
        let mut found = Vec::new();
        for chain in &self.chains {
            let Some(hook) = find(&chain.attributes, NFTA_CHAIN_HOOK) else {
                continue;
            };
            let priority = find_u32(hook, NFTA_HOOK_PRIORITY).map(u32::cast_signed);
            let is_beside = find_u32(hook, NFTA_HOOK_HOOKNUM) == Some(NF_INET_PRE_ROUTING)
                && priority == Some(NF_IP_PRI_CONNTRACK);
            let table = find_text(&chain.attributes, TABLE).unwrap_or_default();
            let mut rules = self.rules.iter().filter(|rule| {
                rule.place.family == chain.family && rule.place.table.as_slice() == table
            });
            if is_beside && rules.any(|rule| asks_for_connections(&rule.expressions)) {
                let name = find_text(&chain.attributes, NFTA_CHAIN_NAME).unwrap_or_default();
                found.push(format!(
                    "whether chain {} {} comes before connection tracking, whose priority it has too",
                    String::from_utf8_lossy(table),
                    String::from_utf8_lossy(name)
                ));
            }
        }
        found
    }
}

fn asks_for_connections(list: &[u8]) -> bool {
    expressions(list).any(|(name, data)| match name {
        b"ct" | b"notrack" | b"connlimit" => true,
        b"match" | b"target" => name_in(data).is_some_and(|name| {
            let name = name.to_ascii_lowercase();
            name.starts_with(b"conn") || matches!(&name[..], b"state" | b"ct" | b"notrack")
        }),
        _ => false,
    })
}
