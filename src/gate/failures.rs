//! Failures: which identifiers failed lately, so that a client that fails again and again is stopped
//! before its CA stops it.
//!
//! A CA counts failed validations by identifier and ACME account and then refuses every further order
//! for a while (Let's Encrypt: five an hour, one more each twelve minutes, <https://letsencrypt.org/docs/rate-limits/>,
//! 2025-06); what is wrong at this host's door is then mended and still cannot be tried. So a book of the
//! last hour is kept, and an opening for an identifier that has failed too often is refused until one of
//! these failures is an hour old, or its caller insists.
//!
//! What counts is for whoever notes it (`daemon::rate_limit`), and is never a peer's doing. An identifier's
//! failures count only against the caller whose windows failed: an account of its own has an ACME account
//! of its own, and nobody can lock somebody else out by failing. Everything is bounded, and fair among
//! callers. There is no clock in here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::identifier::Identifier;
use super::lease::LeaseName;

/// For how long a failure counts: Let's Encrypt's limit is by the hour.
pub const SPAN: Duration = Duration::from_secs(3600);
/// The most failures that a configuration may allow in it, and that are kept of one identifier.
pub const MAX_LIMIT: u32 = 100;
/// The most failures that are kept. Of the caller that has most, the oldest is forgotten first.
pub const MAX_FAILURES: usize = 4096;
/// The most pushes that are remembered; the oldest is forgotten first.
pub const MAX_PUSHES: usize = 1024;

/// Somebody who wants to open a window.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'attempt> {
    /// The name under which the lease is counted (`Lease::counted_as`).
    pub lease: &'attempt LeaseName,
    /// Its uid.
    pub caller: u32,
    /// What is to be validated; `None` where that is not known, as in certbot's pre-hook.
    pub identifiers: Option<&'attempt [Identifier]>,
}

/// An identifier that failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub identifier: Identifier,
    /// How many windows failed for it in the last hour.
    pub count: u32,
    /// How long ago the first of these was.
    pub since: Duration,
    /// In how long the next attempt is allowed, if nothing more fails.
    pub again_in: Duration,
}

#[derive(Clone, Debug)]
struct Failure {
    identifier: Identifier,
    lease: LeaseName,
    caller: u32,
    at: Instant,
}

#[derive(Clone, Debug)]
struct Push {
    identifier: Identifier,
    caller: u32,
    at: Instant,
}

/// The book.
#[derive(Debug, Default)]
pub struct Failures {
    /// The oldest first.
    failures: VecDeque<Failure>,
    /// The oldest first; one of each identifier and caller.
    pushes: VecDeque<Push>,
}

impl Failures {
    /// Notes that a window failed for an identifier: whose it was, by the name under which its lease is
    /// counted. Failures may come in any order of time, as from a history.
    pub fn note(&mut self, identifier: Identifier, lease: LeaseName, caller: u32, at: Instant) {
        let failure = Failure {
            identifier,
            lease,
            caller,
            at,
        };
        let is_same = |other: &Failure| other.is_of(&failure.identifier, caller);
        let known = self.failures.iter().filter(|other| is_same(other)).count();
        let after = self.failures.partition_point(|other| other.at <= at);
        self.failures.insert(after, failure.clone());
        if known >= MAX_LIMIT as usize {
            self.forget_first(is_same);
        }
        if self.failures.len() > MAX_FAILURES {
            self.forget_of_whoever_has_most();
        }
    }

    /// Whether an attempt is refused where `limit` failures in an hour are too many: by the identifier
    /// that keeps it waiting longest.
    pub fn refuse(&self, attempt: Attempt<'_>, limit: u32, now: Instant) -> Option<Refusal> {
        let mut by_identifier: BTreeMap<&Identifier, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            let is_meant = match attempt.identifiers {
                Some(identifiers) => identifiers.contains(&failure.identifier),
                None => failure.lease == *attempt.lease,
            };
            if is_meant && failure.caller == attempt.caller && failure.is_recent(now) {
                by_identifier
                    .entry(&failure.identifier)
                    .or_default()
                    .push(failure);
            }
        }
        let refusals = by_identifier.values().filter_map(|failures| {
            let first = failures.first()?;
            // When this one no longer counts, fewer than `limit` do.
            let last_too_many = failures.len().checked_sub(limit.max(1) as usize)?;
            let free_at = failures.get(last_too_many)?.at + SPAN;
            Some(Refusal {
                identifier: first.identifier.clone(),
                count: u32::try_from(failures.len()).unwrap_or(u32::MAX),
                since: now.saturating_duration_since(first.at),
                again_in: free_at.saturating_duration_since(now),
            })
        });
        refusals.max_by_key(|refusal| refusal.again_in)
    }

    /// Notes that a caller pushed a token for an identifier: a validation is about to come.
    pub fn pushed(&mut self, identifier: &Identifier, caller: u32, now: Instant) {
        self.pushes.retain(|push| !push.is_of(identifier, caller));
        if self.pushes.len() >= MAX_PUSHES {
            self.pushes.pop_front();
        }
        self.pushes.push_back(Push {
            identifier: identifier.clone(),
            caller,
            at: now,
        });
    }

    /// Notes that somebody was answered for an identifier: whoever pushed a token for it has not failed.
    pub fn answered(&mut self, identifier: &Identifier) {
        self.pushes.retain(|push| push.identifier != *identifier);
    }

    /// The identifiers that this caller pushed tokens for since `from` and for which nobody was answered
    /// afterwards; each is told once.
    pub fn take_unanswered(
        &mut self,
        caller: u32,
        from: Instant,
        is_meant: impl Fn(&Identifier) -> bool,
    ) -> BTreeSet<Identifier> {
        let mut taken = BTreeSet::new();
        self.pushes.retain(|push| {
            let is_it = push.caller == caller && push.at >= from && is_meant(&push.identifier);
            if is_it {
                taken.insert(push.identifier.clone());
            }
            !is_it
        });
        taken
    }

    fn forget_first(&mut self, is_meant: impl Fn(&Failure) -> bool) {
        if let Some(at) = self.failures.iter().position(is_meant) {
            self.failures.remove(at);
        }
    }

    fn forget_of_whoever_has_most(&mut self) {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for failure in &self.failures {
            *counts.entry(failure.caller).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        if let Some((caller, _)) = most {
            self.forget_first(|failure| failure.caller == caller);
        }
    }
}

impl Failure {
    fn is_of(&self, identifier: &Identifier, caller: u32) -> bool {
        self.caller == caller && self.identifier == *identifier
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < SPAN
    }
}

impl Push {
    fn is_of(&self, identifier: &Identifier, caller: u32) -> bool {
        self.caller == caller && self.identifier == *identifier
    }
}

#[cfg(test)]
mod tests;
