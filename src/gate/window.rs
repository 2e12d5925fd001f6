//! Windows: open while one lease lives, never longer than the cap, within the budget.
//!
//! The same book is kept twice: by the enforcer, whose copy decides what the kernel is told, and
//! by the front, whose copy decides whom it serves. Neither reads a clock; `now` is an argument.

mod bounds;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use self::bounds::{BUDGET_SPAN, Budget, Limits, Opening, Refusal};
pub use self::time::Time;
use super::identifier::Identifier;
use super::lease::{Door, Entrance, Lease, LeaseName, MAX_PORTS};
use super::usage::{Account, Slot, Usage};

/// The most leases that may live at once, and so the size of the kernel's sets.
pub const MAX_LEASES: usize = 64;
/// How many of them may be others' than those that root asked for: root always finds a place.
pub const MAX_LEASES_OF_OTHERS: usize = 48;
/// How long what a window admitted may live on. A transfer in flight is 200 bytes; five seconds
/// forgive a retransmission or two.
pub const GRACE: Duration = Duration::from_secs(5);
/// Every living lease, the openings of the last hour, the time of the last month, and what recently
/// closed.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    leases: BTreeMap<LeaseName, Lease>,
    /// Until when what was admitted to a port may live on, where that is not a living lease's doing.
    graces: BTreeMap<Door, Instant>,
    openings: Vec<Opening>,
    usage: Usage,
}

impl Windows {
    /// Takes over a lease that the kernel kept, without asking anyone. Its time is charged already.
    pub fn adopt(&mut self, lease: Lease) {
        self.leases.insert(lease.name.clone(), lease);
    }

    /// Takes over an opening that the kernel remembered.
    pub fn adopt_opening(&mut self, opening: Opening) {
        self.openings.push(opening);
    }

    /// Takes over time that the kernel remembered.
    pub fn adopt_time(&mut self, account: Account, slot: Slot) {
        self.usage.adopt(account, slot);
    }

    /// Writes down a lease that somebody else's book gave, or that is given back: its time is
    /// charged, and what it opened before and opens no longer has its grace as at a close.
    pub fn write_down(&mut self, lease: Lease, now: Instant) {
        self.expire(now);
        self.settling(now, |windows| {
            if let Some(renewed) = windows.leases.insert(lease.name.clone(), lease) {
                windows.keep_grace(&renewed, now + GRACE);
            }
        });
    }

    /// Brings a lease to an earlier end.
    pub fn shorten(&mut self, name: &LeaseName, deadline: Instant, now: Instant) {
        self.settling(now, |windows| {
            if let Some(lease) = windows.leases.get_mut(name) {
                lease.deadline = lease.deadline.min(deadline);
            }
        });
    }

    /// Counts an opening that somebody else's book gave.
    pub fn count(&mut self, caller: u32, now: Instant) {
        self.openings.push(Opening {
            id: after_the_last(self.openings.iter().map(|opening| opening.id)),
            caller,
            forgotten_at: now + BUDGET_SPAN,
        });
    }

    /// Takes over from an earlier book what no snapshot tells: which identifiers its leases are
    /// for and what time these had, and that what ended in it may live on for its grace.
    pub fn remember(&mut self, earlier: &Self, now: Instant) {
        let mut earlier = earlier.clone();
        earlier.expire(now);
        for lease in self.leases.values_mut() {
            if let Some(known) = earlier.leases.get(&lease.name) {
                lease.scope.identifiers.clone_from(&known.scope.identifiers);
            }
        }
        let of_identifiers = |windows: &Self| {
            let mut horizons = windows.horizons();
            horizons.retain(|account, _| matches!(account, Account::Identifier(_)));
            horizons
        };
        let (before, after) = (of_identifiers(&earlier), of_identifiers(self));
        self.usage.adopt_identifiers(earlier.usage);
        self.usage.settle(&before, &after, now);
        let gone = earlier
            .leases
            .values()
            .filter(|lease| !self.leases.contains_key(&lease.name));
        for lease in gone.cloned().collect::<Vec<_>>() {
            self.keep_grace(&lease, now + GRACE);
        }
        for (key, until) in earlier.graces {
            let grace = self.graces.entry(key).or_insert(until);
            *grace = until.max(*grace);
        }
    }

    /// Acquires or renews `lease`, and counts it.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub fn acquire(
        &mut self,
        mut lease: Lease,
        limits: &Limits,
        now: Instant,
    ) -> Result<Opening, Refusal> {
        self.expire(now);
        let ports = &lease.scope.ports;
        if ports.is_empty()
            || ports.len() > MAX_PORTS
            || !ports.iter().all(|port| limits.ports.contains(port))
        {
            return Err(Refusal::Port);
        }
        if lease.scope.doors().next().is_none() {
            return Err(Refusal::Family);
        }
        let length = lease.deadline.saturating_duration_since(now);
        if length.is_zero() || length > limits.max {
            return Err(Refusal::Length);
        }
        if !self.leases.contains_key(&lease.name) {
            let of_others = self.leases.values().filter(|lease| !lease.is_roots());
            let is_full = self.leases.len() >= MAX_LEASES
                || (!lease.is_roots() && of_others.count() >= MAX_LEASES_OF_OTHERS);
            if is_full {
                return Err(Refusal::TooMany);
            }
        }
        if !self.within_budget(&lease, limits.budget) {
            return Err(Refusal::Budget);
        }
        self.within_time(&lease, limits.budget.time_for(&lease), now)
            .map_err(|(_, shortage)| Refusal::Time(shortage))?;
        lease.id = match self.leases.get(&lease.name) {
            Some(renewed) => renewed.id,
            None => after_the_last(self.leases.values().map(|lease| lease.id)),
        };
        let opening = Opening {
            id: after_the_last(self.openings.iter().map(|opening| opening.id)),
            caller: lease.caller,
            forgotten_at: now + BUDGET_SPAN,
        };
        self.openings.push(opening);
        self.write_down(lease, now);
        Ok(opening)
    }

    fn within_budget(&self, lease: &Lease, budget: Budget) -> bool {
        let used = self.openings.len();
        let fits = |limit: u32| used < limit as usize;
        if lease.is_roots() {
            return fits(budget.per_hour);
        }
        let by_caller = self
            .openings
            .iter()
            .filter(|opening| opening.caller == lease.caller);
        fits(budget.per_hour.saturating_sub(budget.reserve))
            && by_caller.count() < budget.per_caller as usize
    }

    /// Releases a lease; what it admitted has [`GRACE`] from now.
    pub fn release(&mut self, name: &LeaseName, now: Instant) -> Option<Lease> {
        self.expire(now);
        let mut released = None;
        self.settling(now, |windows| released = windows.leases.remove(name));
        let lease = released?;
        self.keep_grace(&lease, now + GRACE);
        Some(lease)
    }

    /// Releases every lease at once.
    pub fn release_all(&mut self, now: Instant) {
        for name in self.leases.keys().cloned().collect::<Vec<_>>() {
            self.release(&name, now);
        }
    }

    /// Forgets what has expired.
    pub fn expire(&mut self, now: Instant) {
        let expired: Vec<LeaseName> = self
            .leases
            .values()
            .filter(|lease| lease.deadline <= now)
            .map(|lease| lease.name.clone())
            .collect();
        for name in expired {
            if let Some(lease) = self.leases.remove(&name) {
                self.keep_grace(&lease, lease.deadline + GRACE);
            }
        }
        self.graces.retain(|_, until| *until > now);
        self.openings.retain(|opening| opening.forgotten_at > now);
        self.usage.expire(now);
    }

    fn keep_grace(&mut self, lease: &Lease, until: Instant) {
        for door in lease.scope.doors() {
            let grace = self.graces.entry(door).or_insert(until);
            *grace = until.max(*grace);
        }
    }

    /// Until when new connections may come in by this door, if it is open now.
    pub fn open_until(&self, door: &Door, now: Instant) -> Option<Instant> {
        self.open_where(|other| other == door, now)
    }

    /// Until when what was admitted by this door may live on: its end and its grace.
    pub fn admitted_until(&self, door: &Door, now: Instant) -> Option<Instant> {
        self.admitted_where(|other| other == door, now)
    }

    /// Until when any of these doors is open.
    pub fn open_where(&self, is_meant: impl Fn(&Door) -> bool, now: Instant) -> Option<Instant> {
        self.leases
            .values()
            .filter(|lease| lease.deadline > now && lease.scope.doors().any(|door| is_meant(&door)))
            .map(|lease| lease.deadline)
            .max()
    }

    /// Until when what any of these doors admitted may live on. A lease that expired gives its
    /// grace whether or not anybody has swept it out since.
    pub fn admitted_where(
        &self,
        is_meant: impl Fn(&Door) -> bool,
        now: Instant,
    ) -> Option<Instant> {
        let leases = self
            .leases
            .values()
            .filter(|lease| lease.scope.doors().any(|door| is_meant(&door)))
            .map(|lease| lease.deadline + GRACE);
        let graces = self.graces.iter().filter(|(door, _)| is_meant(door));
        leases
            .chain(graces.map(|(_, until)| *until))
            .filter(|until| *until > now)
            .max()
    }

    /// Every door of which something is known: open, or in its grace.
    pub fn doors(&self) -> BTreeSet<Door> {
        let of_leases = self.leases.values().flat_map(|lease| lease.scope.doors());
        of_leases.chain(self.graces.keys().cloned()).collect()
    }

    /// Whether a living lease covers `identifier`.
    pub fn covers(&self, identifier: &Identifier, now: Instant) -> bool {
        self.leases
            .values()
            .filter(|lease| lease.deadline > now)
            .any(|lease| match &lease.scope.identifiers {
                None => true,
                Some(identifiers) => identifiers.contains(identifier),
            })
    }

    /// The name of a living lease that opens any of these doors, for the log.
    pub fn lease_for(&self, is_meant: impl Fn(&Door) -> bool, now: Instant) -> Option<&LeaseName> {
        self.leases
            .values()
            .filter(|lease| lease.deadline > now && lease.scope.doors().any(|door| is_meant(&door)))
            .max_by_key(|lease| lease.deadline)
            .map(|lease| &lease.name)
    }

    /// Every lease that has not been seen to expire, by name.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Whether which address of this host a peer reached makes a difference.
    pub fn ask_for_addresses(&self) -> bool {
        self.leases
            .values()
            .map(|lease| &lease.scope.entrance)
            .chain(self.graces.keys().map(|door| &door.entrance))
            .any(|entrance| matches!(entrance, Entrance::Address(_)))
    }

    /// The lease of that name.
    pub fn lease(&self, name: &LeaseName) -> Option<&Lease> {
        self.leases.get(name)
    }

    /// The openings of the last hour.
    pub fn openings(&self) -> &[Opening] {
        &self.openings
    }

    /// The openings that `before` does not have.
    pub fn openings_since(&self, before: &Self, now: Instant) -> impl Iterator<Item = &Opening> {
        // Their numbers grow while any counts, and begin anew after that: who does not count may have had the same.
        let counting = (before.openings.iter()).filter(|opening| opening.forgotten_at > now);
        let last = counting.map(|opening| opening.id).max();
        let openings = self.openings.iter();
        openings.filter(move |opening| last.is_none_or(|last| opening.id > last))
    }

    /// The book of time, what is open now charged to its end.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// When anything changes by itself next.
    pub fn next_change(&self) -> Option<Instant> {
        let leases = self.leases.values().map(|lease| lease.deadline);
        leases.chain(self.graces.values().copied()).min()
    }
}

/// A number that is not among `taken`, which are all living ones.
fn after_the_last(taken: impl Iterator<Item = u32>) -> u32 {
    // Four thousand million openings are a thousand years at the largest budget.
    taken.max().unwrap_or(0).wrapping_add(1)
}

#[cfg(test)]
mod tests;
