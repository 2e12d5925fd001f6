//! When to look who came to an open window, and telling the front what is new: several times a second,
//! never for more than about a tenth of the time, and once more before anybody hears that a window
//! is closed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;

use super::{Enforcer, now};
use crate::firewall::elements::{emptied, replace};
use crate::firewall::evidence::{self, TRACED_FOR};
use crate::firewall::message::Reply;
use crate::firewall::ruleset::{Kept, Mode, evidence_set};
use crate::gate::event::Sighting;
use crate::gate::lease::Family;

/// How often.
const EVERY: Duration = Duration::from_millis(250);
/// The next look waits so many times as long as this one took.
const REST: u32 = 10;
/// How long one step may take before whoever waits is served.
const STEP: Duration = Duration::from_millis(2);
/// How long the last look may take, for which a hook waits.
const LAST: Duration = Duration::from_millis(250);
/// So much later than we the kernel may shut.
const KERNELS_TICK: Duration = Duration::from_millis(20);
/// What is told at one look; the rest is new the next time.
const TOLD_AT_ONCE: usize = 128;

/// The looks of a session.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the next step is due, while a window is open.
    pub(super) next: Option<Instant>,
    /// How long this look has taken.
    spent: Duration,
    /// Whose packets were found to be dropped, and are still traced.
    found: Vec<(IpAddr, u16)>,
    /// Somebody's next packet was traced in this session.
    has_traced: bool,
    /// The leases that lived, as last looked.
    watched: BTreeSet<u32>,
    /// This process opened a window, or found that none was open.
    is_settled: bool,
}

impl Enforcer {
    /// Begins to look where a window was opened, before whatever is next.
    pub(super) fn look_out(&mut self) {
        let now = now();
        let is_open = self.windows.leases().any(|lease| lease.deadline > now);
        if is_open
            && self.is_observing()
            && self.looks.next.is_none()
            && let Some(evidence) = &mut self.evidence
        {
            evidence.begin(!self.looks.is_settled, now);
            self.looks.next = Some(now);
        }
        self.looks.is_settled = true;
        if self.looks.next.is_some() {
            let living = self.windows.leases().map(|lease| lease.id);
            self.looks.watched.extend(living);
        }
    }

    /// When a lease ends by itself, or has ended and nobody looked since; nothing while nobody looks.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.looks.next?;
        let living: BTreeSet<u32> = self.windows.leases().map(|lease| lease.id).collect();
        if !self.looks.watched.is_subset(&living) {
            return Some(now());
        }
        let ends = self.windows.leases().map(|lease| lease.deadline).min();
        ends.map(|ends| ends + KERNELS_TICK)
    }

    /// One step of a look, and after the last one what it has shown; `false` when the front is gone.
    pub(super) async fn look_on(&mut self, to_front: &mut OwnedWriteHalf) -> bool {
        let begun = now();
        let Some(evidence) = &mut self.evidence else {
            self.looks.next = None;
            return true;
        };
        loop {
            let is_whole = evidence.step(now());
            let spent = now().saturating_duration_since(begun);
            if is_whole {
                break;
            }
            if spent >= STEP {
                self.looks.spent += spent;
                self.looks.next = Some(now());
                return true;
            }
        }
        let is_told = self.tell_evidence(false, to_front).await;
        self.trace().await;
        let spent = self.looks.spent + now().saturating_duration_since(begun);
        self.looks.spent = Duration::ZERO;
        self.looks.next = Some(now() + EVERY.max(spent * REST));
        is_told
    }

    /// A window was closed, or its time is over: looks once more, tells what came and what it comes to, and
    /// ends where no other window is open. `false` when the front is gone.
    pub(super) async fn look_once_more(&mut self, to_front: &mut OwnedWriteHalf) -> bool {
        let begun = now();
        if self.looks.next.is_none() {
            return true;
        }
        self.windows.expire(begun);
        // What was taken away cannot be read; it was looked at before.
        let is_there = self.is_observing();
        if let Some(evidence) = self.evidence.as_mut().filter(|_| is_there) {
            let mut looks = evidence.look_again();
            while looks > 0 {
                looks -= u32::from(evidence.step(now()));
                if looks > 0 && now().saturating_duration_since(begun) >= LAST {
                    evidence.give_up();
                    break;
                }
            }
        }
        let is_told = self.tell_evidence(true, to_front).await;
        self.looks.watched = self.windows.leases().map(|lease| lease.id).collect();
        if self.looks.watched.is_empty() || !is_there {
            self.looks.next = None;
            self.looks.watched.clear();
            self.trace_no_more().await;
        }
        is_told
    }

    async fn tell_evidence(&mut self, is_last: bool, to_front: &mut OwnedWriteHalf) -> bool {
        let Some(evidence) = &mut self.evidence else {
            return true;
        };
        let most = if is_last { usize::MAX } else { TOLD_AT_ONCE };
        let mut replies: Vec<Reply> = evidence
            .news(most, is_last, now())
            .into_iter()
            .map(Reply::Sighted)
            .collect();
        for drop in evidence.drops() {
            self.looks.found.push((drop.source, drop.port));
            let sighting: Sighting = evidence::sighting(self.kernel.connection(), drop).await;
            replies.push(Reply::Sighted(sighting));
        }
        replies.extend(evidence.tally(is_last).map(Reply::Tallied));
        for reply in replies {
            if to_front.write_all(&reply.to_frame(0)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Has the next packet traced of who came and got no further, and no longer of whom it is known.
    async fn trace(&mut self) {
        let Some(evidence) = &mut self.evidence else {
            return;
        };
        let wanted = evidence.trace_next(now());
        let found = std::mem::take(&mut self.looks.found);
        if wanted.is_empty() && found.is_empty() {
            return;
        }
        let mut change = self.kernel.connection().transaction();
        let wanted = wanted
            .into_iter()
            .map(|peer| (peer, Some((TRACED_FOR, None))));
        let found = found.into_iter().map(|peer| (peer, None));
        for (peer, with) in found.chain(wanted) {
            let (family, element) = evidence::element(peer);
            let set = evidence_set(Kept::Traced, family).to_set();
            change = replace(change, &set, element, with);
        }
        self.looks.has_traced = true;
        match change.commit(self.kernel.connection()).await {
            Ok(()) => {
                self.survey.still_stands(self.kernel.connection()).await;
            }
            Err(error) => tracing::debug!(%error, "who is dropped cannot be traced"),
        }
    }

    async fn trace_no_more(&mut self) {
        self.looks.found.clear();
        if !std::mem::take(&mut self.looks.has_traced) || !self.is_observing() {
            return;
        }
        let mut change = self.kernel.connection().transaction();
        for family in Family::ALL {
            change = emptied(change, &evidence_set(Kept::Traced, family).name);
        }
        match change.commit(self.kernel.connection()).await {
            Ok(()) => {
                self.survey.still_stands(self.kernel.connection()).await;
            }
            Err(error) => tracing::debug!(%error, "who was traced is so until the kernel ends it"),
        }
    }

    fn is_observing(&self) -> bool {
        let settings = &self.orders.settings;
        settings.observe && settings.mode != Mode::GateOnly && !self.is_withdrawn
    }
}
