//! The log: one event per connection, with fields; text for people, JSON for machines.
//!
//! No key authorization is ever written, and no octet that a peer chose: what is written of a
//! request are parsed values. A flood of connections cannot become a flood of lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::gate::event::Ended;
use crate::gate::{Reason, Verdict};

/// Lines that may come at once.
const BURST: u32 = 200;
/// Lines a second on average; a validation of 100 names by 6 perspectives still fits the burst
/// and a few seconds.
const PER_SECOND: u32 = 20;
/// How often what was not written is told.
const SETTLE_EVERY: Duration = Duration::from_secs(10);

/// Starts writing to standard error.
pub fn start(json: bool, level: LevelFilter) {
    let stderr = std::io::stderr;
    // journald writes the time itself, and colours would only be escape codes there.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let registry = tracing_subscriber::registry().with(level);
    let text = fmt::layer()
        .with_writer(stderr)
        .with_target(false)
        .with_ansi(colours);
    // A second start in one process, as in tests, keeps the first.
    let _ = match (json, in_journal) {
        (true, _) => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(stderr)
                    .with_target(false),
            )
            .try_init(),
        (false, true) => registry.with(text.without_time()).try_init(),
        (false, false) => registry.with(text).try_init(),
    };
}

/// Writes the one event of a connection.
pub fn connection(event: &Ended<'_>) {
    let identifier = event.identifier.map(tracing::field::display);
    let lease = event.lease.map(tracing::field::display);
    let account = event.thumbprint.map(|thumbprint| thumbprint.as_str());
    if event.reason == Reason::Passed {
        // The site's own server writes down its visitors.
        tracing::debug!(peer = %event.peer, port = event.local_port, identifier, "visitor");
        return;
    }
    tracing::info!(
        verdict = %event.reason.verdict(),
        reason = event.reason.word(),
        peer = %event.peer,
        port = event.local_port,
        identifier,
        account,
        lease,
        detail = event.detail,
        "connection"
    );
}

/// Bounds the lines that peers, and callers of the control socket, can cause. Answers have a measure
/// of their own, so that noise cannot hide a validation.
#[derive(Debug)]
pub struct Flood {
    answers: Bucket,
    rest: Bucket,
    asks: Bucket,
    unwritten: u64,
    settled: Instant,
}

impl Flood {
    /// Full measures.
    pub fn new(now: Instant) -> Self {
        Self {
            answers: Bucket::new(now),
            rest: Bucket::new(now),
            asks: Bucket::new(now),
            unwritten: 0,
            settled: now,
        }
    }

    /// Whether this event is written; counts it when not.
    pub fn may_write(&mut self, reason: Reason, now: Instant) -> bool {
        let bucket = match reason.verdict() {
            Verdict::Accept if matches!(reason, Reason::Answered | Reason::Relayed) => {
                &mut self.answers
            }
            _ => &mut self.rest,
        };
        let may = bucket.take(now);
        self.unwritten += u64::from(!may);
        may
    }

    /// Whether what an account other than root asked is written; counts it when not.
    pub fn may_write_ask(&mut self, now: Instant) -> bool {
        let may = self.asks.take(now);
        self.unwritten += u64::from(!may);
        may
    }

    /// How many were not written since it was last told; `None` if none, or too soon.
    pub fn settle(&mut self, now: Instant) -> Option<u64> {
        if self.unwritten == 0 || now.saturating_duration_since(self.settled) < SETTLE_EVERY {
            return None;
        }
        self.settled = now;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let gained = since.as_millis().saturating_mul(u128::from(PER_SECOND)) / 1000;
        if gained > 0 {
            self.left = self
                .left
                .saturating_add(u32::try_from(gained).unwrap_or(BURST))
                .min(BURST);
            self.filled = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_noise_is_cut_and_does_not_hide_an_answer() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        let written = (0..100_000u32)
            .filter(|at| {
                flood.may_write(
                    Reason::NoLease,
                    start + Duration::from_micros(u64::from(*at) * 100),
                )
            })
            .count();
        let ten_seconds = (BURST + 10 * PER_SECOND) as usize;
        assert!(written <= ten_seconds, "{written}");
        let later = start + Duration::from_secs(10);
        assert!(flood.may_write(Reason::Answered, later));
        assert_eq!(flood.settle(later), Some(100_000 - written as u64));
        assert_eq!(flood.settle(later + SETTLE_EVERY), None);
    }

    #[test]
    fn a_flood_of_asks_is_cut_and_hides_no_connection() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        let written = (0..1000).filter(|_| flood.may_write_ask(start)).count();
        assert_eq!(written, BURST as usize);
        assert!(flood.may_write(Reason::UnknownToken, start));
        let told = flood.settle(start + SETTLE_EVERY);
        assert_eq!(told, Some(1000 - written as u64));
    }

    #[test]
    fn a_slow_trickle_is_written_whole() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        for at in 0..2_000 {
            assert!(flood.may_write(Reason::UnknownToken, start + Duration::from_millis(60) * at));
        }
    }
}
