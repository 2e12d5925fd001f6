//! What a window's record comes to, by the arithmetic that CAs are held to.
//!
//! CA/Browser Forum Baseline Requirements §3.2.2.9 (v2.2.6): the primary perspective and so many remote
//! ones must see the same token; one of two to five remote ones may fail, two of six or more; since
//! 2026-03-15 the others must be in at least two regions of the Internet registries. This page only
//! judges what was seen *here*: the primary comes first, and a CA calls its stragglers off once it has
//! enough, so who did not come was not blocked. It reads no clock.
//!
//! Anybody can ask for a token that he made up, or send packets in anybody's name. So what fails is
//! judged token by token, and of each identifier by the token that was answered most: a stranger's
//! guess beside a validation is told, and makes no failure of it. Where nothing was answered at all,
//! nobody can tell a stranger's guess from a validation whose token was never announced.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Assessment, ByIdentifier, EndedBy, Outcome, Record, Role, Source, Visit};

/// From when, in days after 1970, so many remote perspectives are required (BR §3.2.2.9). From
/// 2025-03-15 there had to be two as well, but they might fail.
const REQUIRED: [(u64, u32); 4] = [
    // 2025-09-15, 2026-03-15, 2026-06-15, 2026-12-15.
    (20_346, 2),
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

/// How many identifiers an assessment tells of: what a CA's order may have.
const MAX_IDENTIFIERS: usize = 100;

/// Judges a record.
pub fn assess(record: &Record) -> Assessment {
    let rules = Rules::at(record.opened_at);
    let came = Came::of(record);
    let said = record.said.as_ref();
    let has_succeeded = said.is_some_and(|said| said.failed.is_empty() && !said.renewed.is_empty());
    let mut judged: Vec<Judged> = came
        .identifiers()
        .into_iter()
        .map(|name| came.judge(name, rules))
        .collect();
    if let Some(said) = said {
        let names = |names: &[String], name: &str| {
            names.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        for Judged { told, .. } in &mut judged {
            // The client has it from the CA itself.
            told.has_failed = match () {
                () if names(&said.failed, &told.identifier) => true,
                () if names(&said.renewed, &told.identifier) => false,
                () => told.has_failed,
            };
        }
    }
    let has_come = !came.asked.is_empty() || !came.dropped.is_empty();
    let has_failed = judged.iter().any(|one| one.told.has_failed)
        || said.is_some_and(|said| !said.failed.is_empty())
        || (has_come && came.answered.is_empty() && !has_succeeded);
    let is_all_answered = came.dropped.is_empty()
        && came.asked == came.answered
        && judged
            .iter()
            .all(|one| one.told.networks == one.told.answered);
    let outcome = match &record.end {
        None => Outcome::Open,
        Some(_) if has_failed => Outcome::Failed,
        Some(_) if !has_come => Outcome::Quiet,
        Some(_) if is_all_answered => Outcome::Answered,
        Some(_) if !has_succeeded && judged.iter().any(|one| one.is_too_much) => Outcome::Doubtful,
        Some(_) => Outcome::Tolerated,
    };
    Assessment {
        outcome,
        identifiers: judged.into_iter().map(|one| one.told).collect(),
        dropped: count(&came.dropped),
        networks: count(&came.asked),
        answered: count(&came.answered),
        needed: rules.needed(),
        was_cut: record.end.is_some_and(|end| end.by == EndedBy::Deadline),
    }
}

/// Who came, by network.
struct Came<'record> {
    validators: Vec<&'record Source>,
    asked: BTreeSet<&'record str>,
    answered: BTreeSet<&'record str>,
    /// Disjoint from `asked`.
    dropped: BTreeSet<&'record str>,
}

/// One identifier, judged.
struct Judged {
    told: ByIdentifier,
    /// More failed than may, if all who were dropped came for it.
    is_too_much: bool,
}

impl<'record> Came<'record> {
    fn of(record: &'record Record) -> Self {
        // The same perspective came again over IPv4, and that is what counts; unless that one is not
        // on the record.
        let came_again = |source: &Source| {
            source.then.is_some_and(|then| {
                !source.is_answered() && record.sources.iter().any(|other| other.address == then)
            })
        };
        let count_once = || record.sources.iter().filter(|source| !came_again(source));
        let validators: Vec<&Source> = count_once()
            .filter(|source| source.role == Role::Validator)
            .collect();
        let asked = networks(validators.iter().copied());
        let answered = networks(
            validators
                .iter()
                .copied()
                .filter(|source| source.is_answered()),
        );
        // Who was stopped at one address and asked from another of its network got through.
        let stopped = networks(count_once().filter(|source| source.is_in_earnest()));
        let dropped = stopped.difference(&asked).copied().collect();
        Self {
            validators,
            asked,
            answered,
            dropped,
        }
    }

    /// What was asked for, in that order.
    fn identifiers(&self) -> Vec<&'record str> {
        let mut names: Vec<&str> = Vec::new();
        for visit in self.validators.iter().flat_map(|source| &source.visits) {
            if let Some(name) = visit.validates()
                && !names.contains(&name)
                && names.len() < MAX_IDENTIFIERS
            {
                names.push(name);
            }
        }
        names
    }

    fn judge(&self, name: &str, rules: Rules) -> Judged {
        // By token; a validation by TLS-ALPN-01 may have none.
        let mut tokens: BTreeMap<Option<&str>, Asked<'_>> = BTreeMap::new();
        let mut all = Asked::default();
        let mut regions = BTreeSet::new();
        for source in &self.validators {
            for visit in &source.visits {
                if visit.validates() != Some(name) {
                    continue;
                }
                tokens
                    .entry(visit.token.as_deref())
                    .or_default()
                    .add(source, visit);
                all.add(source, visit);
                if visit.is_answer() {
                    regions.extend(source.place.as_ref().and_then(|place| place.region));
                }
            }
        }
        let best = tokens
            .values()
            .max_by_key(|asked| (asked.answered.len(), asked.networks.len()));
        let (networks, answered) = best.map_or((0, 0), |best| {
            (count(&best.networks), count(&best.answered))
        });
        let dropped = count(&self.dropped);
        let refused = networks - answered;
        // The primary is one of those that came.
        let exceed = |failures: u32, came: u32| failures > tolerated(came.saturating_sub(1));
        let is_too_much = exceed(refused + dropped, networks + dropped);
        // Who was dropped may have been anybody; but where several networks asked it was a CA that needs
        // them, and with so few answers it did not get what it needs.
        let is_short = networks > 1 && answered < rules.needed() && is_too_much;
        Judged {
            told: ByIdentifier {
                identifier: name.to_owned(),
                networks: count(&all.networks),
                answered: count(&all.answered),
                regions: regions.into_iter().collect(),
                has_failed: answered == 0 || exceed(refused, networks) || is_short,
            },
            is_too_much,
        }
    }
}

/// The networks that asked for something, and those that got it.
#[derive(Default)]
struct Asked<'record> {
    networks: BTreeSet<&'record str>,
    answered: BTreeSet<&'record str>,
}

impl<'record> Asked<'record> {
    fn add(&mut self, source: &'record Source, visit: &Visit) {
        self.networks.insert(&source.network);
        if visit.is_answer() {
            self.answered.insert(&source.network);
        }
    }
}

fn networks<'record>(sources: impl Iterator<Item = &'record Source>) -> BTreeSet<&'record str> {
    sources.map(|source| source.network.as_str()).collect()
}

fn count(networks: &BTreeSet<&str>) -> u32 {
    u32::try_from(networks.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
