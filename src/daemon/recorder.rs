//! The recorder: tells the book of records what happens to windows, and hands on what the book says.
//!
//! It sways nothing: a record that cannot be kept stops no validation. With no window open the path of
//! a request loads one flag here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::now;
use crate::gate::event::{Ended, Evidence, Witness};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Lease, LeaseName};
use crate::gate::token::Token;
use crate::observe::Observer;
use crate::observe::book::{Book, Draft};
use crate::observe::record::{EndedBy, Record, Said, Why};

/// How often what changed is handed on at most: a validation brings a dozen changes at once.
const SETTLE: Duration = Duration::from_millis(500);

/// The front's one recorder.
#[derive(Debug)]
pub struct Recorder {
    book: Mutex<Book>,
    is_open: AtomicBool,
    /// Counts changes, for those who follow.
    changes: watch::Sender<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            book: Mutex::default(),
            is_open: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        }
    }
}

impl Recorder {
    /// A lease was acquired or renewed, at this instant.
    pub fn opened(&self, lease: &Lease, at: Instant) {
        self.change(|book| book.opened(lease, Why::Asked, at, wall()));
    }

    /// It was a token that opened it.
    pub fn opened_for_token(&self, name: &LeaseName) {
        self.change(|book| book.opened_for_token(name));
    }

    /// A lease lived when the daemon started; `stored` is what the history has of it.
    pub fn taken_up(&self, lease: &Lease, stored: Option<Record>) {
        self.change(|book| book.taken_up(lease, stored, now(), wall()));
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

    /// A token was announced.
    pub fn announced(&self, identifier: &Identifier, token: &Token) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|book| book.announced(identifier, token));
        }
    }

    /// The kernel saw something.
    pub fn witnessed(&self, evidence: &Evidence) {
        self.change(|book| book.witnessed(evidence, now()));
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

    fn change(&self, change: impl FnOnce(&mut Book)) {
        let mut book = self.lock();
        change(&mut book);
        self.is_open.store(book.is_open(), Ordering::Relaxed);
        drop(book);
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing in here panics half-way through a change.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Recorder {
    fn ended(&self, event: &Ended<'_>) {
        if self.is_open.load(Ordering::Relaxed) {
            self.change(|book| book.visited(event, now()));
        }
    }
}

/// Hands on what changes in the book. Runs until dropped.
pub async fn watch_records(recorder: Arc<Recorder>, observer: Arc<Observer>) {
    let mut changes = recorder.changes();
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
                tokio::time::sleep(SETTLE).await;
                changes.mark_unchanged();
            }
        }
        let drafts = {
            let mut book = recorder.lock();
            book.expire(now());
            let drafts = book.take_changed(now());
            recorder.is_open.store(book.is_open(), Ordering::Relaxed);
            drafts
        };
        for draft in drafts {
            observer.metrics().follow(&draft);
            recorder.hand_on(draft).await;
        }
    }
}

impl Recorder {
    async fn hand_on(&self, draft: Draft) {
        let Draft {
            record,
            is_complete,
            ..
        } = draft;
        if is_complete {
            tracing::info!(
                lease = %record.lease,
                outcome = ?record.assessment.outcome,
                networks = record.assessment.networks,
                answered = record.assessment.answered,
                dropped = record.assessment.dropped,
                "window"
            );
        }
    }
}

/// The clock of the host in milliseconds after 1970, for people alone: nothing is decided by it.
fn wall() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "a record says when it was, and that is what the host's clock says"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
