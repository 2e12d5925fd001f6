//! Tells: the log, the metrics, the counts and thumbprints that `status` shows, windows' records and
//! their history, and the report of each window.
//!
//! What is seen here sways no verdict. Nothing keyed by a peer is kept but in records.

pub mod book;
pub mod history;
pub mod log;
pub mod metrics;
mod pairing;
pub mod quorum;
pub mod record;
pub mod region;
pub mod report;
pub mod scrape;
mod seen;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::log::Flood;
use self::metrics::Metrics;
use self::seen::Seen;
use crate::gate::Reason;
use crate::gate::event::{Ended, Witness};
use crate::gate::identifier::Identifier;
use crate::gate::token::{Thumbprint, Token};
use crate::locked::locked;

/// Counts and writes down how connections end.
pub struct Observer {
    metrics: Metrics,
    counts: Vec<AtomicU64>,
    told: Mutex<Told>,
}

struct Told {
    flood: Flood,
    seen: Seen,
}

impl Observer {
    /// An observer that has seen nothing yet.
    pub fn new(metrics: Metrics, now: Instant) -> Self {
        Self {
            metrics,
            counts: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            told: Mutex::new(Told {
                flood: Flood::new(now),
                seen: Seen::default(),
            }),
        }
    }

    /// What is counted besides.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Connections by reason, every reason once.
    pub fn counts(&self) -> Vec<(Reason, u64)> {
        let counts = Reason::ALL.iter().zip(&self.counts);
        counts
            .map(|(reason, count)| (*reason, count.load(Ordering::Relaxed)))
            .collect()
    }

    /// The accounts that were answered for, or refused, by identifier.
    pub fn thumbprints(&self) -> Vec<(Identifier, Thumbprint)> {
        self.told().seen.list()
    }

    /// Says how many events were not written, if any were not. To be called every few seconds.
    pub fn tick(&self, now: Instant) {
        if let Some(unwritten) = self.told().flood.settle(now) {
            tracing::warn!(
                unwritten,
                "more happened than is written down; `acmegate status` counts every connection"
            );
        }
    }

    /// Whether one more ask of an account that is not root is written down.
    pub fn may_write_ask(&self, now: Instant) -> bool {
        self.told().flood.may_write_ask(now)
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        locked(&self.told)
    }
}

impl Witness for Observer {
    fn ended(&self, event: &Ended<'_>) {
        let at = Reason::ALL
            .iter()
            .position(|reason| *reason == event.reason);
        if let Some(count) = at.and_then(|at| self.counts.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let now = tokio::time::Instant::now().into_std();
        if let (Reason::Answered | Reason::Relayed, Some(challenge)) =
            (event.reason, event.challenge)
        {
            let took = now.saturating_duration_since(event.accepted);
            self.metrics.answered(challenge, took);
        }
        let mut told = self.told();
        // The doctor makes up both.
        let is_trial = event.token.is_some_and(Token::is_trial);
        if let (false, Some(identifier), Some(thumbprint)) =
            (is_trial, event.identifier, event.thumbprint)
        {
            told.seen.note(identifier, thumbprint);
        }
        if event.reason == Reason::Passed || told.flood.may_write(event.reason, now) {
            drop(told);
            log::connection(event);
        }
    }
}
