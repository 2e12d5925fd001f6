//! Closes leases early: sees what happens to tokens and hands it to the gate's book, and releases
//! the leases that the book says are done.
//!
//! With the feature off nothing here takes a lock: the path of a request loads one flag.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::Notify;

use super::leases::Leases;
use super::now;
use super::rate_limit::RateLimit;
use super::recorder::Recorder;
use crate::config::{Config, Source};
use crate::gate::Reason;
use crate::gate::allow_list::AllowList;
use crate::gate::early::{Early, Network, When};
use crate::gate::event::{Ended, Witness};
use crate::gate::identifier::Identifier;
use crate::gate::site::{Site, site_for};
use crate::gate::token::Token;
use crate::gate::window::Windows;
use crate::locked::locked;

/// The watch over leases that may end early.
pub struct EarlyClose {
    is_on: AtomicBool,
    counts_networks: AtomicBool,
    book: Mutex<Book>,
    /// What a peer is here is no perspective of a CA: the operator's own look, a proxy.
    local: AllowList,
    changed: Notify,
}

struct Book {
    early: Early,
    sites: Vec<Site>,
    /// Whether the site of the same place answers any token.
    is_any: Vec<bool>,
}

impl EarlyClose {
    /// A watch by this configuration.
    pub fn new(config: &Config) -> Self {
        let early = Self {
            is_on: AtomicBool::new(false),
            counts_networks: AtomicBool::new(false),
            book: Mutex::new(Book {
                early: Early::default(),
                sites: Vec::new(),
                is_any: Vec::new(),
            }),
            local: AllowList::new(AllowList::local()),
            changed: Notify::new(),
        };
        early.configure(config);
        early
    }

    /// Follows another configuration. What was seen before is forgotten.
    pub fn configure(&self, config: &Config) {
        let rule = config.window.early;
        {
            let mut book = self.lock();
            book.early = Early::new(rule);
            book.sites = config.gate_sites();
            book.is_any = config
                .sites
                .iter()
                .map(|site| matches!(site.source, Source::Thumbprint(_)))
                .collect();
        }
        self.is_on.store(rule.when != When::Off, Ordering::Relaxed);
        self.counts_networks
            .store(rule.when == When::Quorum, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Which leases live. To be called before whoever opened one is told, so that its first token
    /// comes after.
    pub fn follow(&self, windows: &Windows) {
        self.note(|early| early.follow(windows.leases(), now()));
    }

    /// A token was pushed.
    pub fn pushed(&self, identifier: &Identifier, token: &Token, until: Instant) {
        self.note(|early| early.pushed(identifier, token, until));
    }

    /// A pushed token was withdrawn.
    pub fn withdrawn(&self, identifier: &Identifier, token: &Token) {
        self.note(|early| early.withdrawn(identifier, token, now()));
    }

    fn note(&self, change: impl FnOnce(&mut Early)) {
        if self.is_on.load(Ordering::Relaxed) {
            change(&mut self.lock().early);
            self.changed.notify_one();
        }
    }

    fn answered(&self, identifier: &Identifier, token: &Token, peer: IpAddr) {
        if self.local.contains(peer) {
            return;
        }
        let mut book = self.lock();
        let site = site_for(&book.sites, identifier);
        let is_any = site.is_some_and(|(id, _)| book.is_any.get(id.0) == Some(&true));
        book.early
            .answered(identifier, token, Network::of(peer), is_any, now());
        drop(book);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }
}

/// Tells one witness, the recorder and the rate limit everything, and this watch what it wants to know.
pub struct Overheard<Inner> {
    inner: Arc<Inner>,
    early: Arc<EarlyClose>,
    recorder: Arc<Recorder>,
    rate_limit: Arc<RateLimit>,
}

impl<Inner> Overheard<Inner> {
    /// A witness that listens in on what `inner` is told.
    pub fn new(
        inner: Arc<Inner>,
        early: Arc<EarlyClose>,
        recorder: Arc<Recorder>,
        rate_limit: Arc<RateLimit>,
    ) -> Self {
        Self {
            inner,
            early,
            recorder,
            rate_limit,
        }
    }
}

impl<Inner: Witness> Witness for Overheard<Inner> {
    fn ended(&self, event: &Ended<'_>) {
        self.inner.ended(event);
        self.recorder.ended(event);
        self.rate_limit.ended(event);
        if self.early.counts_networks.load(Ordering::Relaxed)
            && event.reason == Reason::Answered
            && let (Some(identifier), Some(token)) = (event.identifier, event.token)
        {
            self.early.answered(identifier, token, event.peer);
        }
    }
}

/// Releases leases that are done. Runs until dropped.
pub async fn watch_early(early: Arc<EarlyClose>, leases: Arc<Leases>) {
    let mut windows = leases.windows();
    loop {
        let due = {
            let windows = Arc::clone(&windows.borrow_and_update());
            let mut book = early.lock();
            book.early.follow(windows.leases(), now());
            book.early.take_due(now())
        };
        for due in due {
            match leases.close_unrenewed(&due.name, due.deadline).await {
                Ok(true) => {
                    tracing::info!(lease = %due.name, why = due.why.word(), "closed early");
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(lease = %due.name, %error, "a lease could not be closed early");
                }
            }
        }
        let next = early.lock().early.next();
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = early.changed.notified() => {}
            changed = windows.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
