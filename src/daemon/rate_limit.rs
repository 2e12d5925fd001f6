//! A CA's rate limit, kept clear of: which windows count as failed, and whether an opening is refused
//! because too many did (`gate::failures`).
//!
//! Peers choose what they ask for, whether they take their answer, and how many of them come; packets can
//! be sent in anybody's name. So nothing that a report tells of peers counts here, however bad it looks.
//! A window failed for an identifier if
//!
//! - the ACME client itself says so at its end, which it has from the CA; or
//! - whoever opened it pushed a token of it, and then **nobody** was answered: only who knows the token
//!   is, which is the CA, and where the CA got no answer its validation failed.
//!
//! A token that was pushed while several windows were open may belong to any, and counts for none unless
//! the window names its identifier.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::now;
use crate::gate::Reason;
use crate::gate::event::{Ended, Witness};
use crate::gate::failures::{Attempt, Failures, Refusal};
use crate::gate::identifier::Identifier;
use crate::gate::lease::LeaseName;
use crate::gate::site::{Site, site_for};
use crate::locked::locked;
use crate::observe::record::Record;

/// How long before a window's opening its token may have been pushed: uacme's hook pushes first, and a
/// hook waits 10 s for each of its answers.
const PUSHED_BEFORE: Duration = Duration::from_secs(10);

/// How many windows are remembered whose end is known: more than can end within the seconds in which an
/// end may be told twice.
const MAX_ENDED: usize = 256;

/// The book of what failed lately, for those who tell it and those who ask.
#[derive(Debug, Default)]
pub struct RateLimit {
    failures: Mutex<Failures>,
    /// The last windows whose end is known: lease and opening.
    ended: Mutex<VecDeque<(String, u64)>>,
}

impl RateLimit {
    fn lock(&self) -> MutexGuard<'_, Failures> {
        locked(&self.failures)
    }

    /// Whether the end of this window is news.
    fn is_news(&self, record: &Record) -> bool {
        let mut ended = locked(&self.ended);
        let window = (record.lease.clone(), record.opened_at);
        if ended.contains(&window) {
            return false;
        }
        if ended.len() >= MAX_ENDED {
            ended.pop_front();
        }
        ended.push_back(window);
        true
    }

    /// A caller pushed a token for an identifier.
    pub fn pushed(&self, identifier: &Identifier, caller: u32) {
        self.lock().pushed(identifier, caller, now());
    }

    /// Learns how a window ended, as soon as it did; what is told twice counts once. The answer is for
    /// which identifiers, of those that a site has, it failed.
    pub fn window_ended(&self, record: &Record, sites: &[Site]) -> Vec<Identifier> {
        let lease = record.counted_as().filter(|_| self.is_news(record));
        let Some(lease) = lease else {
            return Vec::new();
        };
        let now = now();
        let lasted = Duration::from_millis(record.end.map_or(0, |end| end.at));
        let opened = now.checked_sub(lasted + PUSHED_BEFORE).unwrap_or(now);
        let is_its = |identifier: &Identifier| covers(record, identifier, true);
        let unanswered = self.lock().take_unanswered(record.caller, opened, is_its);
        let mut failed: Vec<Identifier> = failed(record, unanswered).into_iter().collect();
        failed.retain(|identifier| site_for(sites, identifier).is_some());
        self.note(record, &lease, &failed, now);
        failed
    }

    /// Why an attempt is refused, if it is.
    pub fn refuse(&self, attempt: Attempt<'_>, limit: u32) -> Option<Refusal> {
        self.lock().refuse(attempt, limit, now())
    }

    /// Takes over what a history tells at the start of a window that ended so long ago.
    pub fn remember(&self, record: &Record, ago: Duration) {
        let (lease, at) = (record.counted_as(), now().checked_sub(ago));
        let (Some(lease), Some(at)) = (lease, at) else {
            return;
        };
        self.note(record, &lease, &parsed(&record.failed), at);
    }

    fn note<'a>(
        &self,
        record: &Record,
        lease: &LeaseName,
        failed: impl IntoIterator<Item = &'a Identifier>,
        at: Instant,
    ) {
        let mut failures = self.lock();
        for identifier in failed {
            failures.note(identifier.clone(), lease.clone(), record.caller, at);
        }
    }
}

impl Witness for RateLimit {
    fn ended(&self, event: &Ended<'_>) {
        if let (Reason::Answered | Reason::Relayed, Some(identifier)) =
            (event.reason, event.identifier)
        {
            self.lock().answered(identifier);
        }
    }
}

/// For which identifiers a window failed, where for some of them tokens were pushed and nobody answered.
fn failed(record: &Record, unanswered: BTreeSet<Identifier>) -> BTreeSet<Identifier> {
    let Some(said) = &record.said else {
        return unanswered;
    };
    // The client has it from the CA, which may have asked elsewhere.
    let renewed = parsed(&said.renewed);
    let told = parsed(&said.failed);
    let told = told
        .into_iter()
        .filter(|identifier| covers(record, identifier, false));
    let unanswered = unanswered.into_iter();
    told.chain(unanswered.filter(|identifier| !renewed.contains(identifier)))
        .collect()
}

fn parsed(names: &[String]) -> BTreeSet<Identifier> {
    let parsed = names.iter().map(|name| Identifier::parse(name));
    parsed.filter_map(Result::ok).collect()
}

/// Whether a window was open for this identifier; if `is_its` is asked for as well, for no other
/// window's sake.
fn covers(record: &Record, identifier: &Identifier, is_its: bool) -> bool {
    match &record.identifiers {
        Some(names) => names
            .iter()
            .any(|name| Identifier::parse(name).as_ref() == Ok(identifier)),
        None => !is_its || record.beside.is_empty(),
    }
}

#[cfg(test)]
mod tests;
