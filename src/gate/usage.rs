//! Usage: for how long the world was let in, of the last day and the last month.
//!
//! A lease's time is charged to its end when it is given, and what it did not use is given back when
//! it ends early: a book that is lost in between has counted too much, never too little. Both spans
//! roll: there is no calendar in here and no clock, `now` is an argument. Time is kept in slots of a
//! sixth of its span, so that a book stays small; a slot counts until its end has left the span.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::identifier::Identifier;
use super::lease::{Lease, LeaseName};

/// The most lease names whose time is remembered. Those that were open least are forgotten first;
/// the time of all together never is.
pub const MAX_LEASE_NAMES: usize = 32;
/// The same for identifiers.
pub const MAX_IDENTIFIERS: usize = 1024;
/// The longest lease that a configuration may allow. With it the number of an account's slots is
/// bounded.
pub const MAX_LENGTH: Duration = Duration::from_secs(24 * 3600);
/// The most slots that one account has: those that a day has, and a day that is charged in advance,
/// with one that has begun; and the same of a month.
pub const MAX_SLOTS: usize = 13 + 8;

/// A span that rolls with the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// 24 hours.
    Day,
    /// 30 days.
    Month,
}

impl Span {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// How long it is.
    pub const fn length(self) -> Duration {
        match self {
            Self::Day => Duration::from_secs(24 * 3600),
            Self::Month => Duration::from_secs(30 * 24 * 3600),
        }
    }

    /// How much later than a span ago something may lie that still counts.
    pub const fn slot(self) -> Duration {
        match self {
            Self::Day => Duration::from_secs(4 * 3600),
            Self::Month => Duration::from_secs(5 * 24 * 3600),
        }
    }

    /// The span's word in the configuration and in the kernel.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// Whose time it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Everybody's: what several leases have open at once counts once.
    Total,
    /// One lease name's of one caller, by [`Account::of`]: nobody uses up what
    /// somebody else's leases may have by calling their own the same.
    Lease(LeaseName, u32),
    /// One identifier's, of leases that name it. Only the front knows these.
    Identifier(Identifier),
}

impl Account {
    /// Whose time a lease takes, besides that of all windows.
    pub fn of(lease: &Lease) -> Self {
        Self::Lease(lease.counted_as(), lease.caller)
    }
}

/// How much time one account may have; `None` is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of any 24 hours.
    pub day: Option<Duration>,
    /// Of any 30 days.
    pub month: Option<Duration>,
}

impl Allowance {
    /// What is allowed of `span`.
    pub fn of(self, span: Span) -> Option<Duration> {
        match span {
            Span::Day => self.day,
            Span::Month => self.month,
        }
    }

    /// What is left of it when `share` of `of` parts are somebody else's.
    #[must_use]
    pub fn without(self, share: u32, of: u32) -> Self {
        let less = |limit: Duration| limit.saturating_sub(limit * share / of.max(1));
        Self {
            day: self.day.map(less),
            month: self.month.map(less),
        }
    }
}

/// How much time whom is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// All windows together.
    pub total: Allowance,
    /// Any one lease name.
    pub lease: Allowance,
    /// Any one identifier.
    pub identifier: Allowance,
}

impl TimeLimits {
    /// What an account is allowed.
    pub fn of(&self, account: &Account) -> Allowance {
        match account {
            Account::Total => self.total,
            Account::Lease(..) => self.lease,
            Account::Identifier(_) => self.identifier,
        }
    }
}

/// Which kind of limit it was that left too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// That of all windows.
    Total,
    /// That of a lease name.
    Lease,
    /// That of an identifier.
    Identifier,
}

impl Account {
    /// What it is an account of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Total => Kind::Total,
            Self::Lease(..) => Kind::Lease,
            Self::Identifier(_) => Kind::Identifier,
        }
    }
}

/// A limit that leaves less than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Whose limit.
    pub kind: Kind,
    /// Of which span.
    pub span: Span,
    /// What is allowed.
    pub limit: Duration,
    /// What is taken of it, what is open now counted to its end.
    pub used: Duration,
    /// When the whole length asked for fits again, at the latest; `None` when it never does.
    pub fits_in: Option<Duration>,
}

/// Time of one account in one part of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number among the kernel's elements.
    pub id: u32,
    /// Of which span.
    pub span: Span,
    /// How much.
    pub spent: Duration,
    /// When it stops to count: a span after its end.
    pub forgotten_at: Instant,
}

impl Slot {
    /// How much of it lies behind `instant`, at most all.
    fn behind(&self, instant: Instant) -> Duration {
        // Later than both by a span, for there may be nothing before the clock's beginning.
        let counted_until = instant + self.span.length();
        self.forgotten_at
            .saturating_duration_since(counted_until)
            .min(self.span.slot())
    }
}

/// Until when the time of each account is taken; who is not in it has none.
pub type Horizons = BTreeMap<Account, Instant>;

/// The book of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    accounts: BTreeMap<Account, Vec<Slot>>,
    last_id: u32,
}

impl Usage {
    /// Takes over a slot that another book remembered.
    pub fn adopt(&mut self, account: Account, slot: Slot) {
        self.last_id = self.last_id.max(slot.id);
        self.slots_of(account).push(slot);
    }

    /// Takes over what another book knows of identifiers.
    pub fn adopt_identifiers(&mut self, other: Self) {
        for (account, slots) in other.accounts {
            if matches!(account, Account::Identifier(_)) {
                self.accounts.insert(account, slots);
            }
        }
    }

    /// Charges what leases take now and did not take before, and gives back what they no longer
    /// take.
    pub fn settle(&mut self, before: &Horizons, after: &Horizons, now: Instant) {
        let accounts: BTreeSet<&Account> = before.keys().chain(after.keys()).collect();
        for account in accounts {
            let until = |horizons: &Horizons| horizons.get(account).map_or(now, |at| now.max(*at));
            let (earlier, later) = (until(before), until(after));
            for span in Span::ALL {
                if later > earlier {
                    self.charge(account, span, earlier, later);
                } else {
                    self.give_back(account, span, later, earlier);
                }
            }
        }
    }

    fn charge(&mut self, account: &Account, span: Span, from: Instant, until: Instant) {
        let mut from = from;
        while from < until {
            let counted_until = from + span.length();
            let new_id = self.last_id.wrapping_add(1);
            let slots = self.slots_of(account.clone());
            let open = (slots.iter_mut())
                .filter(|slot| slot.span == span && slot.forgotten_at > counted_until)
                .min_by_key(|slot| slot.forgotten_at);
            let (spent, forgotten_at) = match open {
                Some(slot) => (&mut slot.spent, slot.forgotten_at),
                None => {
                    let forgotten_at = counted_until + span.slot();
                    slots.push(Slot {
                        id: new_id,
                        span,
                        spent: Duration::ZERO,
                        forgotten_at,
                    });
                    self.last_id = new_id;
                    continue;
                }
            };
            let length = until
                .duration_since(from)
                .min(forgotten_at.duration_since(counted_until));
            *spent += length;
            from += length;
        }
    }

    fn give_back(&mut self, account: &Account, span: Span, from: Instant, until: Instant) {
        let Some(slots) = self.accounts.get_mut(account) else {
            return;
        };
        for slot in slots.iter_mut().filter(|slot| slot.span == span) {
            let unused = slot.behind(from).saturating_sub(slot.behind(until));
            slot.spent = slot.spent.saturating_sub(unused);
        }
        slots.retain(|slot| !slot.spent.is_zero());
        if slots.is_empty() {
            self.accounts.remove(account);
        }
    }

    /// The slots of an account; a new one finds a place.
    fn slots_of(&mut self, account: Account) -> &mut Vec<Slot> {
        let places = match account {
            Account::Total => usize::MAX,
            Account::Lease(..) => MAX_LEASE_NAMES,
            Account::Identifier(_) => MAX_IDENTIFIERS,
        };
        if !self.accounts.contains_key(&account) {
            let same_kind = (self.accounts.iter())
                .filter(|(other, _)| other.kind() == account.kind())
                .map(|(other, slots)| (sum(slots, Span::Month), other));
            if same_kind.clone().count() >= places {
                let least = same_kind.min().map(|(_, other)| other.clone());
                least.map(|least| self.accounts.remove(&least));
            }
        }
        self.accounts.entry(account).or_default()
    }

    /// Forgets what no longer counts.
    pub fn expire(&mut self, now: Instant) {
        self.accounts.retain(|_, slots| {
            slots.retain(|slot| slot.forgotten_at > now);
            !slots.is_empty()
        });
    }

    /// How much of a span is taken, what is open now counted to its end.
    pub fn used(&self, account: &Account, span: Span, now: Instant) -> Duration {
        let slots = self.accounts.get(account).into_iter().flatten();
        slots
            .filter(|slot| slot.span == span && slot.forgotten_at > now)
            .map(|slot| slot.spent)
            .sum()
    }

    /// Whether `more` fits below a limit.
    ///
    /// # Errors
    /// [`Shortage`]; `whole` is then the length of which it tells when it fits.
    pub fn fits(
        &self,
        account: &Account,
        allowance: Allowance,
        more: Duration,
        whole: Duration,
        now: Instant,
    ) -> Result<(), Shortage> {
        for span in Span::ALL {
            let used = self.used(account, span, now);
            let Some(limit) = allowance.of(span).filter(|limit| used + more > *limit) else {
                continue;
            };
            // What is given already is never taken back, so asking for nothing more is no fault.
            if !more.is_zero() {
                return Err(Shortage {
                    kind: account.kind(),
                    span,
                    limit,
                    used,
                    fits_in: self.wait(account, span, limit.checked_sub(whole), now),
                });
            }
        }
        Ok(())
    }

    /// How long until no more than `room` is taken.
    fn wait(
        &self,
        account: &Account,
        span: Span,
        room: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let room = room?;
        let slots = self.accounts.get(account).into_iter().flatten();
        let mut ends: Vec<Instant> = slots
            .filter(|slot| slot.span == span)
            .map(|slot| slot.forgotten_at)
            .chain([now])
            .collect();
        ends.sort_unstable();
        let end = (ends.into_iter()).find(|end| self.used(account, span, *end) <= room)?;
        Some(end.saturating_duration_since(now))
    }

    /// What has to be written, and the numbers of what has to be deleted, where `before` is.
    pub fn changes_since<'book>(
        &'book self,
        before: &'book Self,
    ) -> (Vec<(&'book Account, &'book Slot)>, Vec<u32>) {
        let mut gone: BTreeMap<u32, (&Account, &Slot)> = BTreeMap::new();
        gone.extend(
            before
                .slots()
                .map(|(account, slot)| (slot.id, (account, slot))),
        );
        let mut changed = Vec::new();
        for (account, slot) in self.slots() {
            if gone.remove(&slot.id) != Some((account, slot)) {
                changed.push((account, slot));
            }
        }
        (changed, gone.into_keys().collect())
    }

    /// Every account and its slots.
    pub fn accounts(&self) -> impl Iterator<Item = (&Account, &[Slot])> {
        (self.accounts.iter()).map(|(account, slots)| (account, slots.as_slice()))
    }

    /// Every slot with its account.
    pub fn slots(&self) -> impl Iterator<Item = (&Account, &Slot)> {
        self.accounts()
            .flat_map(|(account, slots)| slots.iter().map(move |slot| (account, slot)))
    }
}

fn sum(slots: &[Slot], span: Span) -> Duration {
    let slots = slots.iter().filter(|slot| slot.span == span);
    slots.map(|slot| slot.spent).sum()
}

#[cfg(test)]
mod tests;
