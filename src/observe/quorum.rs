//! What a window's record comes to, by the arithmetic that CAs are held to.
//!
//! CA/Browser Forum Baseline Requirements §3.2.2.9 (v2.2.6): the primary perspective and so many remote
//! ones must see the same token; one of two to five remote ones may fail, two of six or more; since
//! 2026-03-15 the others must be in at least two regions of the Internet registries. This page only
//! judges what was seen *here*: the primary comes first, and a CA calls its stragglers off once it has
//! enough, so who did not come was not blocked. It reads no clock.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::{EndedBy, Record, Region, Role, Source, Visit};

/// From when, in days after 1970, so many remote perspectives are required (BR §3.2.2.9).
const REQUIRED: [(u64, u32); 4] = [
    // 2025-03-15, 2026-03-15, 2026-06-15, 2026-12-15.
    (20_162, 2),
    (20_527, 3),
    (20_619, 4),
    (20_802, 5),
];
/// From when two regions are required: 2026-03-15.
const TWO_REGIONS_FROM: u64 = 20_527;
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// What a CA must have, at some day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many remote perspectives at least.
    pub remote: u32,
    /// In so many regions at least.
    pub regions: u32,
}

impl Rules {
    /// What holds at an instant, in milliseconds after 1970.
    pub fn at(millis: u64) -> Self {
        let day = millis / DAY_MILLIS;
        let holds = REQUIRED.iter().rev().find(|(from, _)| *from <= day);
        Self {
            remote: holds.map_or(0, |(_, remote)| *remote),
            regions: if day >= TWO_REGIONS_FROM { 2 } else { 1 },
        }
    }

    /// How many networks must have been answered at least: the primary, and the remote ones that may not
    /// fail.
    pub fn needed(self) -> u32 {
        1 + self.remote - tolerated(self.remote)
    }
}

/// How many of so many remote perspectives may fail.
pub fn tolerated(remote: u32) -> u32 {
    match remote {
        0 | 1 => 0,
        2..=5 => 1,
        _ => 2,
    }
}

/// What a record comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// In one word.
    pub outcome: Outcome,
    /// By identifier, in the order in which they were asked for; at most 100.
    pub identifiers: Vec<ByIdentifier>,
    /// Networks whose packets came and were dropped on this host, without those that came over IPv4
    /// afterwards.
    pub dropped: u32,
    /// Networks that came, and are validators as far as that can be told.
    pub networks: u32,
    /// Networks that were answered.
    pub answered: u32,
    /// How many networks have to be answered at that day.
    pub needed: u32,
    /// Nobody closed the window: it was cut by its deadline.
    pub was_cut: bool,
}

/// What a window came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is still open.
    #[default]
    Open,
    /// No validation came, which is normal where the CA remembers an earlier one.
    Quiet,
    /// Every network that came was answered.
    Answered,
    /// Some failed, and no more than a CA may tolerate.
    Tolerated,
    /// More were dropped than a CA may tolerate, if all of them were its perspectives; whoever asked was
    /// answered.
    Doubtful,
    /// More failed, or nobody was answered, or the client says that it failed.
    Failed,
}

/// What came of one identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByIdentifier {
    /// Which one.
    pub identifier: String,
    /// Networks that asked for it.
    pub networks: u32,
    /// Networks that were answered.
    pub answered: u32,
    /// The regions of these; empty where no data are there.
    pub regions: Vec<Region>,
    /// Whether it failed.
    pub has_failed: bool,
}

/// How many identifiers an assessment tells of: what a CA's order may have.
const MAX_IDENTIFIERS: usize = 100;

/// Judges a record.
pub fn assess(record: &Record) -> Assessment {
    let rules = Rules::at(record.opened_at);
    let validators: Vec<&Source> = record
        .sources
        .iter()
        .filter(|source| source.role == Role::Validator)
        .collect();
    let stopped: Vec<&Source> = record
        .sources
        .iter()
        .filter(|source| source.is_in_earnest() && source.then.is_none())
        .collect();
    let networks_of = |sources: &[&Source]| -> BTreeSet<String> {
        sources
            .iter()
            .map(|source| source.network.clone())
            .collect()
    };
    let answered: Vec<&Source> = validators
        .iter()
        .copied()
        .filter(|source| source.is_answered())
        .collect();
    let answered_networks = networks_of(&answered);
    let networks = networks_of(&validators);
    // Who was stopped at one address and answered at another of its network got through.
    let dropped: BTreeSet<String> = networks_of(&stopped)
        .difference(&answered_networks)
        .cloned()
        .collect();
    let dropped = count(dropped.len());
    let said = record.said.as_ref();
    let mut identifiers: Vec<ByIdentifier> = Vec::new();
    for visit in validators.iter().flat_map(|source| &source.visits) {
        let Some(name) = visit
            .identifier
            .as_ref()
            .filter(|_| visit.challenge.is_some())
        else {
            continue;
        };
        let is_known = identifiers.iter().any(|known| known.identifier == *name);
        if !is_known && identifiers.len() < MAX_IDENTIFIERS {
            identifiers.push(of_identifier(name, &validators, dropped, rules));
        }
    }
    for known in &mut identifiers {
        if let Some(said) = said {
            // The client has it from the CA itself.
            known.has_failed = match () {
                () if said.failed.contains(&known.identifier) => true,
                () if said.renewed.contains(&known.identifier) => false,
                () => known.has_failed,
            };
        }
    }
    let has_succeeded = said.is_some_and(|said| said.failed.is_empty() && !said.renewed.is_empty());
    let has_failed = identifiers.iter().any(|known| known.has_failed)
        || said.is_some_and(|said| !said.failed.is_empty())
        || (answered.is_empty() && dropped > 0 && !has_succeeded);
    let failures = |known: &ByIdentifier| known.networks - known.answered + dropped;
    let is_too_much = |known: &ByIdentifier| {
        failures(known) > tolerated((known.networks + dropped).saturating_sub(1))
    };
    let outcome = match &record.end {
        None => Outcome::Open,
        Some(_) if has_failed => Outcome::Failed,
        Some(_) if validators.is_empty() && dropped == 0 => Outcome::Quiet,
        Some(_) if dropped == 0 && identifiers.iter().all(|known| failures(known) == 0) => {
            Outcome::Answered
        }
        Some(_) if !has_succeeded && identifiers.iter().any(is_too_much) => Outcome::Doubtful,
        Some(_) => Outcome::Tolerated,
    };
    Assessment {
        outcome,
        identifiers,
        dropped,
        networks: count(networks.len()),
        answered: count(answered_networks.len()),
        needed: rules.needed(),
        was_cut: record.end.is_some_and(|end| end.by == EndedBy::Deadline),
    }
}

fn of_identifier(name: &str, validators: &[&Source], dropped: u32, rules: Rules) -> ByIdentifier {
    let asks =
        |visit: &&Visit| visit.challenge.is_some() && visit.identifier.as_deref() == Some(name);
    let asked: BTreeSet<&str> = validators
        .iter()
        .filter(|source| source.visits.iter().any(|visit| asks(&visit)))
        .map(|source| source.network.as_str())
        .collect();
    let answering: Vec<&&Source> = validators
        .iter()
        .filter(|source| {
            let mut visits = source.visits.iter().filter(asks);
            visits.any(Visit::is_answer)
        })
        .collect();
    let answered: BTreeSet<&str> = answering
        .iter()
        .map(|source| source.network.as_str())
        .collect();
    let regions: BTreeSet<Region> = answering
        .iter()
        .filter_map(|source| source.place.as_ref()?.region)
        .collect();
    let (networks, got) = (count(asked.len()), count(answered.len()));
    // The primary is one of those that came.
    let exceed = |failures: u32, came: u32| failures > tolerated(came.saturating_sub(1));
    let refused = networks - got;
    // Who was dropped may have been anybody; but where several networks asked it was a CA that needs
    // them, and with so few answers it did not get what it needs.
    let is_short =
        networks > 1 && got < rules.needed() && exceed(refused + dropped, networks + dropped);
    ByIdentifier {
        identifier: name.to_owned(),
        networks,
        answered: got,
        regions: regions.into_iter().collect(),
        has_failed: got == 0 || exceed(refused, networks) || is_short,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
