//! The base chains on a packet's path, in the kernel's order.

use nlink::netlink::nftables::Family;

use super::ruleset::{Base, Chain, Hook, Ruleset, Table};
use super::step::Step;
use super::{IpFamily, Probe};

/// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC`: where chains of type nat really run.
const NAT_PREROUTING: i32 = -100;
const NAT_INPUT: i32 = 100;

/// One base chain on the path.
#[derive(Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) table: usize,
    pub(super) chain: usize,
    pub(super) base: &'a Base,
    /// Where it really runs.
    pub(super) priority: i32,
}

pub(super) fn stops<'a>(
    ruleset: &'a Ruleset,
    probe: &Probe,
    ours: &[&str],
    accepting: &[String],
) -> Vec<Stop<'a>> {
    let mut stops = Vec::new();
    for (table_index, table) in ruleset.tables.iter().enumerate() {
        if ours.contains(&table.name.as_str()) || !sees(table.family, probe.family) {
            continue;
        }
        for (chain_index, chain) in table.chains.iter().enumerate() {
            let Some(base) = &chain.base else { continue };
            if base.hook == Hook::Ingress && !base.devices.contains(&probe.interface) {
                continue;
            }
            if accepting.contains(&full_name(table, chain)) {
                continue;
            }
            let priority = match (base.nat, base.hook) {
                (false, _) | (true, Hook::Ingress) => base.priority,
                (true, Hook::Prerouting) => NAT_PREROUTING,
                (true, Hook::Input) => NAT_INPUT,
                // There is no such chain.
                (true, Hook::Forward) => base.priority,
            };
            stops.push(Stop {
                table: table_index,
                chain: chain_index,
                base,
                priority,
            });
        }
    }
    // Of two chains with the same priority the one that was registered last comes first
    // (`nf_hook_entries_grow`). Tables and their chains are listed in the order they were made in.
    stops.reverse();
    stops.sort_by_key(|stop| (stop.base.hook, stop.priority, stop.base.priority));
    stops
}

/// As in `inet filter input`.
pub(super) fn full_name(table: &Table, chain: &Chain) -> String {
    [table.family.name(), &table.name, &chain.name].join(" ")
}

pub(super) fn tracks(ruleset: &Ruleset, family: IpFamily) -> bool {
    let tables = ruleset
        .tables
        .iter()
        .filter(|table| sees(table.family, family));
    let mut rules = tables
        .flat_map(|table| &table.chains)
        .flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        // What stands before a translation of the other family asks for connections of both.
        let other = |step: &Step| matches!(step, Step::OnlyOf(only) if *only != family);
        let mut steps = rule.steps.iter().take_while(|step| !other(step));
        steps.any(Step::needs_tracking)
    })
}

fn sees(table: Family, packet: IpFamily) -> bool {
    match table {
        Family::Inet | Family::Netdev => true,
        Family::Ip => packet == IpFamily::V4,
        Family::Ip6 => packet == IpFamily::V6,
        _ => false,
    }
}
