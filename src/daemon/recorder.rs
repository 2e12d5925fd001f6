//! The recorder: tells the book of records what happens to windows, and hands on what the book says.
//!
//! It sways nothing: a record that cannot be kept stops no validation. With no window open the path of
//! a request loads one flag here.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, ready};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};

use super::history::{History, HistoryError};
use super::notices::Notices;
use super::now;
use super::rate_limit::RateLimit;
use super::wall_clock;
use crate::config::Config;
use crate::gate::event::{Ended, Evidence, Witness};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Lease, LeaseName};
use crate::gate::token::Token;
use crate::gate::window::Windows;
use crate::locked::locked;
use crate::observe::Observer;
use crate::observe::book::{Book, Draft, judge};
use crate::observe::history::message::Query;
use crate::observe::record::{EndedBy, Place, Record, Said, Why};

/// How often what changed is handed on at most: a validation brings a dozen changes at once.
const SETTLE: Duration = Duration::from_millis(500);

/// So many sources and requests make the pause longer by one; a validation by six perspectives has 12.
const ENTRIES_PER_PAUSE: usize = 32;
/// What is known of a window is on disk so soon, whoever comes.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// How long a window that failed counts, and the longest that one may have lasted (`[window] max`).
const RECALLED_MILLIS: u64 = 25 * 3600 * 1000;

/// The front's one recorder.
pub struct Recorder {
    book: Mutex<Book>,
    is_open: AtomicBool,
    /// Counts changes, for those who follow.
    changes: watch::Sender<u64>,
    observer: Arc<Observer>,
    history: Arc<History>,
    notices: Arc<Notices>,
    rate_limit: Arc<RateLimit>,
    config: watch::Receiver<Arc<Config>>,
    evidence: Mutex<mpsc::Receiver<Evidence>>,
}

/// Whom the recorder tells, and asks.
pub struct Around {
    /// Counts what it writes.
    pub observer: Arc<Observer>,
    /// Keeps it.
    pub history: Arc<History>,
    /// Tells of it.
    pub notices: Arc<Notices>,
    /// Learns what failed.
    pub rate_limit: Arc<RateLimit>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
}

impl Recorder {
    /// A recorder with an empty book; what the kernel saw comes by `evidence`.
    pub fn new(around: Around, evidence: mpsc::Receiver<Evidence>) -> Self {
        let Around {
            observer,
            history,
            notices,
            rate_limit,
            config,
        } = around;
        Self {
            evidence: Mutex::new(evidence),
            book: Mutex::default(),
            is_open: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            observer,
            history,
            notices,
            rate_limit,
            config,
        }
    }

    /// Takes up the records of leases that lived before this process did, and ends those of all others.
    pub async fn adopt(&self, windows: &Windows) {
        let stored = match self.history.query(&Query::Open).await {
            Ok(found) => found.records,
            Err(HistoryError::Off) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "what is known of open windows begins anew");
                Vec::new()
            }
        };
        let mut going_on = Vec::new();
        for lease in windows.leases() {
            let is_its = |record: &&Record| {
                record.lease == lease.name.as_str() && record.caller == lease.caller
            };
            let stored = stored.iter().rev().find(is_its);
            going_on.extend(stored.and_then(|record| record.number));
            self.change(|book| book.taken_up(lease, stored.cloned(), now(), wall()));
        }
        // What cannot be done now the next start does.
        let _ = self.history.settle(&going_on).await;
    }

    /// Tells the rate limit of the windows that ended in the last hour, before this process began.
    pub async fn recall_failures(&self) {
        let now = wall();
        let since = Query::Since(now.saturating_sub(RECALLED_MILLIS));
        // Without them the limit begins anew, as it would without a history.
        let Ok(found) = self.history.query(&since).await else {
            return;
        };
        for record in &found.records {
            if let Some(end) = record.end {
                let ago = now.saturating_sub(record.opened_at.saturating_add(end.at));
                self.rate_limit.remember(record, Duration::from_millis(ago));
            }
        }
    }

    /// A lease was acquired or renewed, at this instant.
    pub fn opened(&self, lease: &Lease, at: Instant) {
        self.change(|book| book.opened(lease, Why::Asked, at, wall()));
    }

    /// It was a token that opened it.
    pub fn opened_for_token(&self, name: &LeaseName) {
        self.change(|book| book.opened_for_token(name));
    }

    /// A lease ended before its time.
    pub fn closed(&self, name: &LeaseName, by: EndedBy) {
        self.change(|book| book.ended(name, by, now()));
    }

    /// Every lease ended that is not among these.
    pub fn ended_all_but<'a>(&self, kept: impl Iterator<Item = &'a Lease>, by: EndedBy) {
        let kept: Vec<&LeaseName> = kept.map(|lease| &lease.name).collect();
        self.change(|book| book.ended_all_but(&kept, by, now()));
    }

    /// Leases ended by their deadlines.
    pub fn expired(&self) {
        self.change(|book| book.expire(now()));
    }

    /// The client said how it went.
    pub fn said(&self, name: &LeaseName, said: Said) {
        self.change(|book| book.said(name, said));
    }

    /// The window of a lease was just closed: the next attempt may come before anybody hears of its end
    /// otherwise.
    pub fn lease_ended(&self, name: &LeaseName) {
        let last = self.last_of(name);
        if let Some(record) = last.filter(|record| record.end.is_some()) {
            self.window_ended(&record);
        }
    }

    fn window_ended(&self, record: &Record) {
        let sites = self.config.borrow().gate_sites();
        let failed = self.rate_limit.window_ended(record, &sites);
        if !failed.is_empty() {
            self.change(|book| book.failed(record, &failed));
        }
    }

    /// A token was announced.
    pub fn announced(&self, identifier: &Identifier, token: &Token) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|book| book.announced(identifier, token));
        }
    }

    /// Writes down everything that the kernel is known to have seen by now.
    pub fn take_evidence(&self) {
        let mut evidence = locked(&self.evidence);
        while let Ok(seen) = evidence.try_recv() {
            self.change(|book| book.witnessed(&seen, now()));
        }
    }

    /// The record of the last window of this name, if it is here yet.
    pub fn last_of(&self, name: &LeaseName) -> Option<Record> {
        self.lock().last_of(name)
    }

    /// Every record that is here: those of open windows, and a few that ended; the oldest first.
    pub fn all(&self) -> Vec<Record> {
        self.lock().all()
    }

    /// Counts changes, for those who want to follow.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book = self.lock();
        let changed = change(&mut book);
        self.is_open.store(book.is_open(), Ordering::Relaxed);
        drop(book);
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }
}

impl Witness for Recorder {
    fn ended(&self, event: &Ended<'_>) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|book| book.visited(event, now()));
        }
    }
}

/// Writes down what the kernel sees, as it comes. Runs until dropped.
pub async fn watch_evidence(recorder: Arc<Recorder>) {
    loop {
        // Taken and written down in one turn, so that nobody finds it in neither place.
        let written = poll_fn(|cx| {
            let seen = ready!(locked(&recorder.evidence).poll_recv(cx));
            if let Some(seen) = &seen {
                recorder.change(|book| book.witnessed(seen, now()));
            }
            Poll::Ready(seen.is_some())
        });
        if !written.await {
            return;
        }
    }
}

/// How long until what changes is handed on again: each time all of a record is written, so a window to
/// which many come is written less often.
fn pace(drafts: &[Draft]) -> Duration {
    let entries = |draft: &Draft| {
        let visits = draft
            .record
            .sources
            .iter()
            .map(|source| source.visits.len());
        draft.record.sources.len() + visits.sum::<usize>()
    };
    let all: usize = drafts.iter().map(entries).sum();
    let pauses = 1 + all / ENTRIES_PER_PAUSE;
    SETTLE
        .saturating_mul(u32::try_from(pauses).unwrap_or(u32::MAX))
        .min(MAX_PAUSE)
}

/// Hands on what changes in the book. Runs until dropped.
pub async fn watch_records(recorder: Arc<Recorder>) {
    let mut changes = recorder.changes();
    let mut pause = SETTLE;
    loop {
        let next = recorder.lock().next_change();
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // An end by itself is not waited out.
                let end = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next.into()).await,
                        None => std::future::pending().await,
                    }
                };
                let _ = tokio::time::timeout(pause, end).await;
                changes.mark_unchanged();
            }
        }
        let drafts = recorder.take_changed();
        pause = pace(&drafts);
        for draft in drafts {
            // At once: the next attempt does not wait until everything is known.
            if draft.record.end.is_some() {
                recorder.window_ended(&draft.record);
            }
            recorder.hand_on(draft).await;
        }
    }
}

impl Recorder {
    /// Hands on what has changed of this lease's window, now. Dropped half-way nothing is lost: the
    /// history tries again by itself.
    pub async fn hand_on_changed_of(&self, name: &LeaseName) {
        let draft = self.lock().take_changed_of(name);
        if let Some(draft) = draft {
            self.hand_on(draft).await;
        }
    }

    /// Hands on what has changed, because the daemon ends.
    pub async fn hand_on_changed(&self) {
        for draft in self.take_changed() {
            self.hand_on(draft).await;
        }
    }

    fn take_changed(&self) -> Vec<Draft> {
        let mut book = self.lock();
        book.expire(now());
        let drafts = book.take_changed(now());
        self.is_open.store(book.is_open(), Ordering::Relaxed);
        drafts
    }

    async fn hand_on(&self, draft: Draft) {
        self.observer.metrics().follow(&draft);
        let Draft {
            id,
            mut record,
            is_complete,
            ..
        } = draft;
        // What goes wrong with it the history says itself, in the status.
        if let Ok(stored) = self.history.store(&record).await {
            let places = stored.sources.iter();
            let places = places.filter_map(|source| Some((source.address, source.place.clone()?)));
            let places = places.collect();
            self.lock().stored(id, stored.number, &places);
            if is_complete {
                record.number = stored.number;
                self.store_last_word(&mut record, &places).await;
            }
        }
        if is_complete {
            self.lock().completed(&record);
            self.completed(&record);
        }
    }

    /// Where sources are was learnt when the record was stored, and may say more of it.
    async fn store_last_word(&self, record: &mut Record, places: &BTreeMap<IpAddr, Place>) {
        let before = record.clone();
        for source in &mut record.sources {
            source.place = places.get(&source.address).cloned();
        }
        judge(record);
        if *record != before {
            let _ = self.history.store(record).await;
        }
    }

    /// A record is complete: tells the log, and whoever is to be told.
    fn completed(&self, record: &Record) {
        self.notices.window_ended(record);
        let assessment = &record.assessment;
        tracing::info!(
            number = record.number,
            lease = %record.lease,
            outcome = assessment.outcome.word(),
            networks = assessment.networks,
            answered = assessment.answered,
            dropped = assessment.dropped,
            "window"
        );
    }
}

/// The clock of the host in milliseconds after 1970, for people alone: nothing is decided by it.
pub(super) fn wall() -> u64 {
    let since = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::Source;

    #[test]
    fn a_crowded_window_is_written_less_often_and_never_seldom() {
        let source = r#"{"address":"192.0.2.1","network":"192.0.0.0/16","place":null,"role":"unheard","first":0,
            "packets":1,"reached":false,"dropped":null,"visits":[],"more_visits":0,"then":null}"#;
        let draft = |sources: usize| {
            let source: Source = serde_json::from_str(source).unwrap();
            Draft {
                id: 1,
                record: Record {
                    sources: vec![source; sources],
                    ..Record::default()
                },
                is_new: false,
                is_complete: false,
            }
        };
        assert_eq!(pace(&[]), SETTLE);
        assert_eq!(pace(&[draft(6)]), SETTLE);
        assert_eq!(pace(&[draft(64)]), SETTLE * 3);
        let crowded: Vec<Draft> = (0..5).map(|_| draft(256)).collect();
        assert_eq!(pace(&crowded), MAX_PAUSE);
    }
}
