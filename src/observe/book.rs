//! The book of records: windows that are open, and those that ended a moment ago.
//!
//! It is told what happens and writes it down; it decides nothing, reads no clock and does no I/O.
//! Everything in it is bounded, whatever peers do: who is left out is counted, and whoever asked for a
//! validation takes the place of who did not.

mod open;
mod places;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::open::{Open, hash};
use super::record::{EndedBy, Place, Record, Said, Why};
use crate::gate::event::{Ended, Evidence as Seen, Tally};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Family, Lease, LeaseName};
use crate::gate::token::Token;
use crate::gate::window::GRACE;

pub use self::open::judge;

/// How many leases beside its own one record names.
const MAX_BESIDE: usize = 64;
/// How long a record is kept open after its window's end: what was admitted may go on for its grace.
const SETTLE: Duration = Duration::from_secs(GRACE.as_secs() + 1);
/// How many records are kept that ended.
const MAX_RECENT: usize = 16;

/// The records of this moment.
#[derive(Debug, Default)]
pub struct Book {
    open: Vec<Open>,
    /// The last ones that are complete, oldest first.
    recent: Vec<Record>,
    tally: Tally,
    last_id: u64,
}

/// A record to be stored, and by which number the book knows it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The book's own number for it.
    pub id: u64,
    /// As it stands.
    pub record: Record,
    /// It is the first of this record.
    pub is_new: bool,
    /// Nothing more will be added.
    pub is_complete: bool,
}

impl Book {
    /// Whether any record takes what happens.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// A lease was acquired or renewed. `wall` is the host's clock in milliseconds after 1970.
    pub fn opened(&mut self, lease: &Lease, why: Why, now: Instant, wall: u64) {
        if let Some(open) = self.living(&lease.name) {
            open.record.renewals += 1;
            open.follow(lease);
            return;
        }
        let beside: Vec<&mut Open> = (self.open.iter_mut())
            .filter(|open| open.ended.is_none())
            .filter(|open| (lease.scope.ports.iter()).any(|port| open.record.ports.contains(port)))
            .collect();
        let names = beside
            .iter()
            .map(|open| open.record.lease.clone())
            .collect();
        for open in beside {
            let (names, name) = (&mut open.record.beside, lease.name.to_string());
            if names.len() < MAX_BESIDE && !names.contains(&name) {
                names.push(name);
            }
            open.is_changed = true;
        }
        self.last_id += 1;
        self.open.push(Open::new(
            self.last_id,
            lease,
            why,
            names,
            &self.tally,
            (now, wall),
        ));
    }

    /// A window was opened because a token was pushed. What a token only prolonged was asked for.
    pub fn opened_for_token(&mut self, name: &LeaseName) {
        if let Some(open) = self.living(name).filter(|open| open.record.renewals == 0) {
            open.record.why = Why::Token;
        }
    }

    /// A window that was open before this process was: its record goes on where the history left it.
    pub fn taken_up(&mut self, lease: &Lease, stored: Option<Record>, now: Instant, wall: u64) {
        self.opened(lease, Why::Adopted, now, wall);
        let Some(open) = self.living(&lease.name) else {
            return;
        };
        open.take_up(stored, now, wall);
        open.follow(lease);
    }

    /// A lease ended before its time.
    pub fn ended(&mut self, name: &LeaseName, by: EndedBy, now: Instant) {
        if let Some(open) = self.living(name) {
            open.end(by, now);
        }
    }

    /// Every lease ended at once, or all that are not among these.
    pub fn ended_all_but(&mut self, kept: &[&LeaseName], by: EndedBy, now: Instant) {
        for open in &mut self.open {
            if open.ended.is_none() && !kept.contains(&&open.name) {
                open.end(by, now);
            }
        }
    }

    /// Ends what reached its deadline.
    pub fn expire(&mut self, now: Instant) {
        for open in &mut self.open {
            if open.ended.is_none() && open.deadline <= now {
                open.end(EndedBy::Deadline, now);
            }
        }
    }

    /// What the client said at its end.
    pub fn said(&mut self, name: &LeaseName, said: Said) {
        let mut of_name = self.open.iter_mut().rev();
        if let Some(open) = of_name.find(|open| open.name == *name) {
            open.record.said = Some(said);
            open.is_changed = true;
        }
    }

    /// For which identifiers a window that ended counts as a failed attempt.
    pub fn failed(&mut self, ended: &Record, identifiers: &[Identifier]) {
        let mut open = self
            .open
            .iter_mut()
            .map(|open| (&mut open.record, &mut open.is_changed));
        let own =
            open.find(|(own, _)| own.lease == ended.lease && own.opened_at == ended.opened_at);
        if let Some((own, is_changed)) = own {
            own.failed = identifiers.iter().map(Identifier::to_string).collect();
            *is_changed = true;
        }
    }

    /// A token was announced for an identifier.
    pub fn announced(&mut self, identifier: &Identifier, token: &Token) {
        for open in &mut self.open {
            let is_its = (open.identifiers.as_ref()).is_none_or(|names| names.contains(identifier));
            if open.ended.is_none() && is_its {
                open.know(hash(token));
            }
        }
    }

    /// A connection ended. Who is on the allow-list needs no window, and is in no record.
    pub fn visited(&mut self, event: &Ended<'_>, now: Instant) {
        if event.is_listed {
            return;
        }
        let family = Family::of(event.peer);
        let is_meant = |open: &&mut Open| {
            open.record.ports.contains(&event.local_port)
                && open.families.contains(&family)
                && open.opened <= event.accepted
                && open.ended.is_none_or(|ended| event.accepted <= ended)
        };
        // Of leases that are open at once, those that the identifier is for.
        let covers = |open: &Open| match (event.identifier, &open.identifiers) {
            (Some(asked), Some(names)) => names.contains(asked),
            _ => true,
        };
        let is_covered = self
            .open
            .iter_mut()
            .filter(is_meant)
            .any(|open| covers(open));
        for open in self.open.iter_mut().filter(is_meant) {
            if !is_covered || covers(open) {
                open.visited(event, now);
            }
        }
    }

    /// What the kernel saw.
    pub fn witnessed(&mut self, evidence: &Seen, now: Instant) {
        match evidence {
            Seen::Tallied(tally) => {
                for open in &mut self.open {
                    open.tallied(tally, now);
                }
                self.tally = tally.clone();
            }
            Seen::Sighted(sighting) => {
                let family = Family::of(sighting.source);
                for open in &mut self.open {
                    if open.record.ports.contains(&sighting.port)
                        && open.families.contains(&family)
                        && open.is_of_its_time(sighting, now)
                    {
                        open.sighted(sighting, now);
                    }
                }
            }
        }
    }

    /// What has changed since this was last called, to be stored.
    pub fn take_changed(&mut self, now: Instant) -> Vec<Draft> {
        let mut drafts = Vec::new();
        self.open.retain_mut(|open| {
            let is_complete = open.ended.is_some_and(|ended| now >= ended + SETTLE);
            if open.is_changed || is_complete {
                drafts.push(draft(open, is_complete));
            }
            if is_complete {
                if self.recent.len() >= MAX_RECENT {
                    self.recent.remove(0);
                }
                self.recent.push(open.settled());
            }
            !is_complete
        });
        drafts
    }

    /// What has changed of the last window of this name, if it is not complete.
    pub fn take_changed_of(&mut self, name: &LeaseName) -> Option<Draft> {
        let mut open = self.open.iter_mut().rev();
        let open = open.find(|open| open.name == *name && open.is_changed)?;
        Some(draft(open, false))
    }

    /// When [`Book::take_changed`] has something new by time alone.
    pub fn next_change(&self) -> Option<Instant> {
        let ends = self.open.iter().map(|open| match open.ended {
            Some(ended) => ended + SETTLE,
            None => open.deadline,
        });
        ends.min()
    }

    /// What the history made of a draft: its number, and where its sources are.
    pub fn stored(&mut self, id: u64, number: Option<u64>, places: &BTreeMap<IpAddr, Place>) {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return;
        };
        open.record.number = number.or(open.record.number);
        for source in &mut open.record.sources {
            if let Some(place) = places.get(&source.address) {
                source.place = Some(place.clone());
            }
        }
    }

    /// Puts the last word on a complete record in the place of ours.
    pub fn completed(&mut self, record: &Record) {
        let ours = (self.recent.iter_mut())
            .rev()
            .find(|ours| ours.lease == record.lease && ours.opened_at == record.opened_at);
        if let Some(ours) = ours {
            ours.clone_from(record);
        }
    }

    /// The record of the last window of this name, complete or not.
    pub fn last_of(&self, name: &LeaseName) -> Option<Record> {
        let mut open = self.open.iter().rev();
        open.find(|open| open.name == *name)
            .map(Open::settled)
            .or_else(|| {
                let mut recent = self.recent.iter().rev();
                recent.find(|record| record.lease == name.as_str()).cloned()
            })
    }

    /// Every record that is here, the oldest first.
    pub fn all(&self) -> Vec<Record> {
        let mut all = self.recent.clone();
        all.extend(self.open.iter().map(Open::settled));
        all
    }

    fn living(&mut self, name: &LeaseName) -> Option<&mut Open> {
        let mut open = self.open.iter_mut();
        open.find(|open| open.ended.is_none() && open.name == *name)
    }
}

/// What is to be stored of a record now; from here on it has not changed.
fn draft(open: &mut Open, is_complete: bool) -> Draft {
    open.is_changed = false;
    Draft {
        id: open.id,
        record: open.settled(),
        is_new: !std::mem::replace(&mut open.has_draft, true),
        is_complete,
    }
}

#[cfg(test)]
mod tests;
