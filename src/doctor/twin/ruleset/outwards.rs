//! The way of the answers: no packet of the twin goes there, so what may drop it is said. Pure.

use super::Ruleset;
use super::compat::name_in;
use super::expressions::expressions;
use super::numbers::{NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, TABLE};
use crate::doctor::twin::netlink::{find, find_text, find_u32};

const NFTA_HOOK_HOOKNUM: u16 = 1;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_INET_POST_ROUTING: u32 = 4;
const NF_NETDEV_EGRESS: u32 = 1;
const NFPROTO_NETDEV: u8 = 5;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

impl Ruleset {
    /// The base chains on the way out that drop, by their policy or a rule of their own, before they let pass what
    /// belongs to a connection; a line each, but for those of the table of this name. What they jump to is not
    /// followed.
    pub fn on_the_way_out(&self, but_for: &str) -> Vec<String> {
        let mut found = Vec::new();
        for chain in &self.chains {
            let Some(hook) = find(&chain.attributes, NFTA_CHAIN_HOOK) else {
                continue;
            };
            let number = find_u32(hook, NFTA_HOOK_HOOKNUM);
            let is_outward = match chain.family {
                NFPROTO_NETDEV => number == Some(NF_NETDEV_EGRESS),
                _ => matches!(number, Some(NF_INET_LOCAL_OUT | NF_INET_POST_ROUTING)),
            };
            let table = find_text(&chain.attributes, TABLE).unwrap_or_default();
            let name = find_text(&chain.attributes, NFTA_CHAIN_NAME).unwrap_or_default();
            if !is_outward || table == but_for.as_bytes() {
                continue;
            }
            let own = self.rules.iter().filter(|rule| {
                let place = &rule.place;
                place.family == chain.family && place.table == table && place.chain == name
            });
            let by_rule = own
                .map(|rule| end_of(&rule.expressions))
                .find(|end| *end != End::Neither);
            let drops_by_policy = find_u32(&chain.attributes, NFTA_CHAIN_POLICY) == Some(NF_DROP);
            let may_drop = match by_rule {
                Some(end) => end == End::Drops,
                None => drops_by_policy,
            };
            if may_drop {
                found.push(format!(
                    "whether answers get out: chain {} {} drops, and packets were only sent inwards",
                    String::from_utf8_lossy(table),
                    String::from_utf8_lossy(name)
                ));
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drops,
    /// It accepts what has a connection.
    LetsAnswersPass,
    Neither,
}

fn end_of(list: &[u8]) -> End {
    let verdict = expressions(list).find_map(|(name, data)| match name {
        b"immediate" => {
            let verdict = find(find(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
            find_u32(verdict, NFTA_VERDICT_CODE)
        }
        b"reject" => Some(NF_DROP),
        b"target" => (name_in(data) == Some(b"REJECT")).then_some(NF_DROP),
        _ => None,
    });
    let asks_for_connections = expressions(list).any(|(name, data)| match name {
        b"ct" => true,
        b"match" => name_in(data).is_some_and(|name| matches!(name, b"conntrack" | b"state")),
        _ => false,
    });
    match verdict {
        Some(NF_DROP) => End::Drops,
        Some(NF_ACCEPT) if asks_for_connections => End::LetsAnswersPass,
        _ => End::Neither,
    }
}
