//! Reads the kernel's ruleset by netlink.
//!
//! Cheap on purpose, for a hook waits for it: the elements of a set are read only if a rule on
//! the path could need them and no field of its key is an address. Beside a list of 100,000
//! prefixes that is the difference between two milliseconds and seconds.

use std::collections::{HashMap, HashSet};

use nlink::netlink::nftables::{
    ChainInfo, ChainType, Family, NFT_TABLE_F_DORMANT, NFT_TABLE_F_OWNER, RuleExpr, RuleInfo,
    SetElement, SetElementData, SetFlags, SetInfo, SetKeyType, parse_expressions,
};
use nlink::netlink::{Connection, Nftables};

use super::decode::{decode, limits, mixed};
use super::ruleset::{Base, Chain, Data, Element, Hook, Key, Rule, Ruleset, Set, Table};
use super::step::Step;

/// A reading takes a few milliseconds, and a ruleset that changes in each of so many in a row is
/// being rebuilt in a loop.
const ATTEMPTS: u32 = 5;

/// More elements than there are ports belong to no rule that this module judges.
const MAX_ELEMENTS: usize = 65_536;

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`, `NF_INET_INGRESS`,
/// `NF_NETDEV_INGRESS`.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const INET_INGRESS: u32 = 5;
const NETDEV_INGRESS: u32 = 0;

/// Reads every chain on the way to a local socket or through this host, of one generation of the
/// ruleset.
///
/// Needs CAP_NET_ADMIN in the network namespace. A ruleset that changes meanwhile is read again,
/// at most five times; then the last reading is returned without a generation.
///
/// # Errors
/// Whatever netlink answers, if the ruleset did not change meanwhile.
pub async fn read(nft: &Connection<Nftables>) -> nlink::Result<Ruleset> {
    let mut generation = nft.generation().await?;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let tables = read_tables(nft).await;
        let now = nft.generation().await?;
        if now == generation {
            return Ok(Ruleset {
                generation: Some(generation),
                tables: tables?,
            });
        }
        // A table that vanished half-way is an error of that attempt alone.
        generation = now;
        last = Some(tables);
    }
    let tables = last.transpose()?.unwrap_or_default();
    Ok(Ruleset {
        generation: None,
        tables,
    })
}

/// The ruleset that this rule would be alone, in a chain on input that accepts: by the octets of its expressions, as
/// the kernel dumps them (`NFTA_RULE_EXPRESSIONS`).
pub fn of_rule(expressions: &[u8]) -> Ruleset {
    let expressions = parse_expressions(expressions);
    let mixed = mixed(std::iter::once(expressions.as_slice()));
    let chain = Chain {
        name: "input".to_owned(),
        base: Some(Base {
            hook: Hook::Input,
            priority: 0,
            nat: false,
            devices: Vec::new(),
            drops_by_policy: false,
        }),
        rules: vec![Rule {
            handle: 1,
            steps: decode(&expressions, &mixed),
        }],
    };
    let table = Table::new(
        Family::Inet,
        "filter".to_owned(),
        vec![chain],
        HashMap::new(),
    );
    Ruleset {
        generation: Some(1),
        tables: vec![table],
    }
}

async fn read_tables(nft: &Connection<Nftables>) -> nlink::Result<Vec<Table>> {
    let chains = nft.list_chains().await?;
    let mut tables = Vec::new();
    for table in nft.list_tables().await? {
        if table.flags & NFT_TABLE_F_DORMANT != 0 {
            continue;
        }
        let of_table =
            |chain: &&ChainInfo| chain.family == table.family && chain.table == table.name;
        let chains: Vec<Chain> = chains.iter().filter(of_table).map(chain).collect();
        if chains.iter().all(|chain| chain.base.is_none()) {
            continue;
        }
        let is_owned = table.flags & NFT_TABLE_F_OWNER != 0;
        let mut table = read_table(nft, table.family, table.name, chains).await?;
        table.is_owned = is_owned;
        tables.push(table);
    }
    Ok(tables)
}

async fn read_table(
    nft: &Connection<Nftables>,
    family: Family,
    name: String,
    mut chains: Vec<Chain>,
) -> nlink::Result<Table> {
    let numbered = chains.iter().enumerate();
    let places: HashMap<String, usize> = numbered
        .map(|(index, chain)| (chain.name.clone(), index))
        .collect();
    let mut asked = HashSet::new();
    let rules = nft.list_rules(&name, family).await?;
    let rules: Vec<(&RuleInfo, Vec<RuleExpr>)> = rules
        .iter()
        .map(|rule| (rule, parse_expressions(&rule.expression_bytes)))
        .collect();
    let mixed = mixed(rules.iter().map(|(_, exprs)| exprs.as_slice()));
    for (rule, exprs) in &rules {
        let Some(index) = places.get(&rule.chain) else {
            continue;
        };
        let steps = decode(exprs, &mixed);
        asked.extend(steps.iter().filter_map(asked_set).map(str::to_owned));
        chains[*index].rules.push(Rule {
            handle: rule.handle,
            steps,
        });
    }
    let mut sets = HashMap::new();
    if !asked.is_empty() {
        for info in nft.list_sets_in(&name, family).await? {
            if !asked.contains(&info.name) {
                continue;
            }
            let elements = if worth_reading(&info) {
                let elements = nft.list_set_elements(&name, &info.name, family).await?;
                (elements.len() <= MAX_ELEMENTS).then_some(elements)
            } else {
                None
            };
            sets.insert(info.name.clone(), set(&info, elements));
        }
    }
    Ok(Table::new(family, name, chains, sets))
}

fn asked_set(step: &Step) -> Option<&str> {
    match step {
        Step::Lookup { set, .. } | Step::UpdateSet { set, .. } => Some(set),
        _ => None,
    }
}

fn chain(info: &ChainInfo) -> Chain {
    let hook = match (info.family, info.hook) {
        (Family::Netdev, Some(NETDEV_INGRESS)) | (Family::Inet, Some(INET_INGRESS)) => {
            Some(Hook::Ingress)
        }
        (Family::Ip | Family::Ip6 | Family::Inet, Some(PREROUTING)) => Some(Hook::Prerouting),
        (Family::Ip | Family::Ip6 | Family::Inet, Some(INPUT)) => Some(Hook::Input),
        (Family::Ip | Family::Ip6 | Family::Inet, Some(FORWARD)) => Some(Hook::Forward),
        _ => None,
    };
    let mut devices = info.devices.clone();
    devices.extend(info.device.clone());
    let base = hook.map(|hook| Base {
        hook,
        priority: info.priority.unwrap_or(0),
        nat: info.chain_type == Some(ChainType::Nat),
        devices,
        // NF_DROP is 0, NF_ACCEPT is 1.
        drops_by_policy: info.policy == Some(0),
    });
    Chain {
        name: info.name.clone(),
        base,
        rules: Vec::new(),
    }
}

/// No field is an address of any kind, and every type is one that nft knows.
fn worth_reading(info: &SetInfo) -> bool {
    // The numbers of nft's `enum datatypes`: hardware, IPv4, IPv6 and Ethernet addresses are 6
    // to 9, the last one that is in use is about 47. A concatenation has 6 bits for each field.
    let mut rest = info.key_type;
    loop {
        if !matches!(rest & 0x3f, 2..=5 | 10..=47) {
            return false;
        }
        rest >>= 6;
        if rest == 0 {
            break;
        }
    }
    info.size
        .is_none_or(|size| usize::try_from(size).is_ok_and(|size| size <= MAX_ELEMENTS))
}

fn set(info: &SetInfo, elements: Option<Vec<SetElement>>) -> Set {
    let key_len = usize::try_from(info.key_len).unwrap_or(0);
    let key_type = SetKeyType::from_kernel(info.key_type, info.key_len);
    // Only an interval set of one field is kept in network order by the kernel; nlink turns its
    // keys into the host's, a rule turns the register instead.
    let plain_interval =
        info.flags.contains(SetFlags::INTERVAL) && !info.flags.contains(SetFlags::CONCAT);
    let reverse = cfg!(target_endian = "little") && plain_interval && key_type.is_host_order();
    Set {
        key_len,
        fields: fields(&key_type, key_len),
        limits: limits(&info.statements),
        elements: elements
            .map(|elements| elements.iter().map(|e| element(info, e, reverse)).collect()),
    }
}

fn fields(key_type: &SetKeyType, key_len: usize) -> Vec<(usize, usize)> {
    let SetKeyType::Concat(parts) = key_type else {
        return vec![(0, key_len)];
    };
    let mut start = 0;
    let mut fields = Vec::new();
    for part in parts {
        let len = usize::try_from(part.len()).unwrap_or(0);
        fields.push((start, len));
        start += len.next_multiple_of(4);
    }
    fields
}

fn element(info: &SetInfo, element: &SetElement, reverse: bool) -> Element {
    let order = |key: &[u8]| -> Vec<u8> {
        if reverse {
            key.iter().rev().copied().collect()
        } else {
            key.to_vec()
        }
    };
    let is_map = info.data_type.is_some() || info.object_type.is_some();
    let data = match element.data() {
        Some(SetElementData::Verdict(verdict)) => Data::Verdict(verdict.clone()),
        Some(SetElementData::Value(value)) => Data::Value(value.clone()),
        _ if is_map => Data::Unknown,
        _ => Data::Nothing,
    };
    let key = if element.is_catchall() {
        Key::CatchAll
    } else {
        let low = order(element.key());
        let high = element.key_end().map_or_else(|| low.clone(), order);
        Key::Range(low, high)
    };
    Element { key, data }
}
