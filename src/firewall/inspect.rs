//! Reads what stands in the kernel and compares it with what should. Changes nothing.

use std::collections::BTreeSet;
use std::time::Instant;

use nlink::netlink::nftables::{ChainInfo, Family as NftFamily, SetElement, SetFlags, SetInfo};
use nlink::netlink::{Connection, Nftables};

use super::allow::Listed;
use super::elements::foreign_deadline;
use super::error::{Doing, KernelError};
use super::foreign;
use super::names::TABLE;
use super::rules::{CONFINERS, optional_chains, rule_text};
use super::ruleset::{COUNTERS, Mode, Settings, TimedSet, evidence_sets};
use crate::gate::window::Windows;

/// nft's datatype id of `inet_service`.
const INET_SERVICE: u32 = 13;

pub(super) async fn table_flags(nft: &Connection<Nftables>) -> Result<Option<u32>, KernelError> {
    let tables = nft
        .list_tables_in(NftFamily::Inet)
        .await
        .doing("listing tables")?;
    Ok(tables
        .into_iter()
        .find(|table| table.name == TABLE)
        .map(|table| table.flags))
}

pub(super) async fn elements(
    nft: &Connection<Nftables>,
    set: &str,
) -> Result<Vec<SetElement>, KernelError> {
    match nft.list_set_elements(TABLE, set, NftFamily::Inet).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        elements => elements.doing("reading the leases that the kernel kept"),
    }
}

/// Whether chains and sets are the ones that we would make.
pub(super) async fn has_our_shape(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<bool, KernelError> {
    let sets = our_sets(nft).await?;
    let is_there = |name: &String| sets.iter().any(|found| found.name == *name);
    // Evidence can be told to be kept, or no longer, while all else stands.
    let fits = |set: &TimedSet| {
        let mut found = sets.iter().filter(|found| found.name == set.name);
        let is_evidence = evidence_sets().any(|evidence| evidence.name == set.name);
        found.next().map_or(is_evidence, |found| {
            found.flags.contains(SetFlags::TIMEOUT)
                && found.flags.contains(SetFlags::EVAL) == set.fed_for.is_some()
        })
    };
    if !settings.timed_sets().iter().all(fits) || !settings.allow.names().iter().all(is_there) {
        return Ok(false);
    }
    let found = nft
        .list_chains_in(TABLE, NftFamily::Inet)
        .await
        .doing("listing our chains")?;
    let planned = settings.chains();
    let is_known = |chain: &ChainInfo| {
        planned.iter().any(|plan| plan.name == chain.name) || is_optional(&chain.name)
    };
    Ok(found.iter().all(is_known)
        && planned.iter().all(|plan| {
            let Some(chain) = found.iter().find(|chain| chain.name == plan.name) else {
                return is_optional(plan.name);
            };
            chain.priority == plan.base.map(|base| base.priority)
                && chain.hook == plan.base.map(|base| base.hook as u32)
                && chain.policy.is_none_or(|policy| policy == 1)
        }))
}

fn is_optional(chain: &str) -> bool {
    optional_chains().any(|name| name == chain)
}

/// What stands of what observes, or limits the daemon's account: chains, sets and counters, by name.
/// Each is made, or taken away, while all else stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extras {
    pub(super) chains: BTreeSet<String>,
    pub(super) sets: BTreeSet<String>,
    pub(super) counters: BTreeSet<String>,
}

pub(super) async fn extras(nft: &Connection<Nftables>) -> Result<Extras, KernelError> {
    let chains = nft.list_chains_in(TABLE, NftFamily::Inet).await;
    let chains = chains.doing("listing our chains")?.into_iter();
    let sets = our_sets(nft).await?.into_iter().map(|set| set.name);
    let counters = nft.list_objects_in(TABLE, NftFamily::Inet).await;
    let counters = counters.doing("listing our counters")?.into_iter();
    Ok(Extras {
        chains: (chains.map(|chain| chain.name))
            .filter(|name| is_optional(name))
            .collect(),
        sets: sets
            .filter(|name| evidence_sets().any(|set| set.name == *name))
            .collect(),
        counters: (counters.map(|counter| counter.name))
            .filter(|name| COUNTERS.contains(&name.as_str()))
            .collect(),
    })
}

impl Extras {
    /// Those that `settings` ask for.
    pub(super) fn of(settings: &Settings) -> Self {
        let chains = settings.chains().into_iter().map(|chain| chain.name);
        let sets = evidence_sets().filter(|_| settings.observe);
        let counters = settings.counters().iter();
        Self {
            chains: chains
                .filter(|name| is_optional(name))
                .map(str::to_owned)
                .collect(),
            sets: sets.map(|set| set.name).collect(),
            counters: counters.map(|name| (*name).to_owned()).collect(),
        }
    }
}

pub(super) async fn our_sets(nft: &Connection<Nftables>) -> Result<Vec<SetInfo>, KernelError> {
    nft.list_sets_in(TABLE, NftFamily::Inet)
        .await
        .doing("listing our sets")
}

pub(super) async fn rules_are_current(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<bool, KernelError> {
    let found = nft
        .list_rules(TABLE, NftFamily::Inet)
        .await
        .doing("listing our rules")?;
    let are_current = settings.chains().iter().all(|chain| {
        let texts = found.iter().filter(|rule| rule.chain == chain.name);
        texts
            .map(|rule| rule_text(&rule.spec()))
            .eq(chain.rules.iter().map(rule_text))
    });
    Ok(are_current && extras(nft).await? == Extras::of(settings))
}

/// The rules that limit where the daemon's account connects to, as texts.
pub(super) async fn confinement(nft: &Connection<Nftables>) -> Result<Vec<String>, KernelError> {
    let rules = nft.list_rules(TABLE, NftFamily::Inet).await;
    let rules = rules.doing("listing our rules")?;
    let of = |chain: &'static str| rules.iter().filter(move |rule| rule.chain == chain);
    let rules = CONFINERS.into_iter().flat_map(of);
    Ok(rules.map(|rule| rule_text(&rule.spec())).collect())
}

/// The names of the allow-list's sets that the rules of our table read, IPv4's and IPv6's; `None` if
/// they do not read one of each. What they read is whole.
///
/// # Errors
/// [`KernelError::Refused`].
pub(super) async fn lists_in_use(
    nft: &Connection<Nftables>,
) -> Result<Option<[String; 2]>, KernelError> {
    let rules = nft.list_rules(TABLE, NftFamily::Inet).await;
    let rules = rules.doing("listing our rules")?;
    let mut names = BTreeSet::new();
    for text in rules.iter().map(|rule| rule_text(&rule.spec())) {
        let words = text.split(' ').filter_map(|word| word.strip_prefix('@'));
        names.extend(words.filter(|word| Listed::is_one(word)).map(str::to_owned));
    }
    let names: Vec<String> = names.into_iter().collect();
    // In order: 4 comes before 6.
    let names = <[String; 2]>::try_from(names).ok();
    Ok(names.filter(|[v4, v6]| v4.starts_with("allow4") && v6.starts_with("allow6")))
}

/// Whether the kernel holds exactly our table: its shape, its rules, its lists by name.
///
/// # Errors
/// [`KernelError::Refused`].
pub(super) async fn is_current(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<bool, KernelError> {
    Ok(table_flags(nft).await?.is_some()
        && has_our_shape(nft, settings).await?
        && rules_are_current(nft, settings).await?)
}

pub(super) async fn check_foreign_set(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<(), KernelError> {
    let Mode::Set(set) = &settings.mode else {
        return Ok(());
    };
    let found = match nft.list_sets_in(&set.table, set.family).await {
        Err(error) if error.is_not_found() => Vec::new(),
        found => found.doing("listing the administrator's sets")?,
    };
    let Some(found) = found.iter().find(|found| found.name == set.name) else {
        return Err(KernelError::NoForeignSet(set.clone()));
    };
    if found.key_type != INET_SERVICE {
        return Err(KernelError::UnfitForeignSet(
            set.clone(),
            "does not hold ports",
        ));
    }
    if !found.flags.contains(SetFlags::TIMEOUT) || found.flags.contains(SetFlags::INTERVAL) {
        return Err(KernelError::UnfitForeignSet(
            set.clone(),
            "has other flags than `timeout`",
        ));
    }
    Ok(())
}

/// Checks that what somebody else has to provide is there: the administrator's set, or the chains.
///
/// # Errors
/// [`KernelError`].
pub(super) async fn check_foreign(
    nft: &Connection<Nftables>,
    settings: &Settings,
) -> Result<(), KernelError> {
    check_foreign_set(nft, settings).await?;
    foreign::check(nft, settings).await
}

/// Whether what is ours in somebody else's table stands as `windows` say: elements of the
/// administrator's set, rules in their chains. A reload of theirs takes them away.
///
/// # Errors
/// [`KernelError`].
pub(super) async fn foreign_is_current(
    nft: &Connection<Nftables>,
    settings: &Settings,
    windows: &Windows,
    now: Instant,
) -> Result<bool, KernelError> {
    Ok(foreign_set_is_current(nft, settings, windows, now).await?
        && foreign::is_attached(nft, settings).await?)
}

async fn foreign_set_is_current(
    nft: &Connection<Nftables>,
    settings: &Settings,
    windows: &Windows,
    now: Instant,
) -> Result<bool, KernelError> {
    let Mode::Set(set) = &settings.mode else {
        return Ok(true);
    };
    check_foreign_set(nft, settings).await?;
    let found = nft
        .list_set_elements(&set.table, &set.name, set.family)
        .await
        .doing("reading the administrator's set")?;
    Ok(settings.ports.iter().all(|port| {
        let there = found
            .iter()
            .any(|element| element.key() == port.to_be_bytes());
        there || foreign_deadline(settings, windows, *port, now).is_none()
    }))
}
