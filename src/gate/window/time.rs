//! Time: what leases take of the time that windows may be open, and whether more of it is left.
//!
//! How it is counted is `gate/usage.rs`'s; here it is which lease takes whose, and when. There is no clock in here.

use std::time::{Duration, Instant};

use super::super::lease::Lease;
use super::super::usage::{Account, Allowance, Horizons, Shortage, Span, TimeLimits};
use super::Windows;

/// What one account has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// Whose.
    pub account: Account,
    /// Of the last day.
    pub day: Duration,
    /// Of the last month.
    pub month: Duration,
    /// Whether a lease of the length that was asked about fits.
    pub fits: Result<(), Shortage>,
}

impl Windows {
    /// Whether the time that a lease would take is left, in each of its accounts.
    ///
    /// # Errors
    /// The first account that has too little, and what there is of it.
    pub fn within_time(
        &self,
        lease: &Lease,
        limits: TimeLimits,
        now: Instant,
    ) -> Result<(), (Account, Shortage)> {
        let horizons = self.horizons();
        let length = lease.deadline.saturating_duration_since(now);
        for account in accounts_of(lease) {
            let until = horizons.get(&account).copied();
            let fits = self.fits(&account, until, limits.of(&account), length, now);
            fits.map_err(|shortage| (account, shortage))?;
        }
        Ok(())
    }

    fn fits(
        &self,
        account: &Account,
        charged_until: Option<Instant>,
        allowance: Allowance,
        length: Duration,
        now: Instant,
    ) -> Result<(), Shortage> {
        // What is open for another lease in any case costs nothing more.
        let from = charged_until.map_or(now, |until| until.max(now));
        let more = (now + length).saturating_duration_since(from);
        self.usage.fits(account, allowance, more, length, now)
    }

    /// Until when the time of each account is charged.
    pub(super) fn horizons(&self) -> Horizons {
        let mut horizons = Horizons::new();
        for lease in self.leases.values() {
            for account in accounts_of(lease) {
                let until = horizons.entry(account).or_insert(lease.deadline);
                *until = lease.deadline.max(*until);
            }
        }
        horizons
    }

    /// Changes leases, and charges or gives back the time that this makes.
    pub(super) fn settling(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        let before = self.horizons();
        change(self);
        let after = self.horizons();
        self.usage.settle(&before, &after, now);
    }

    /// What every account has used up to now, that of all windows first, and whether a lease of
    /// `length` fits into what `limits` leave of it.
    pub fn times(&self, limits: TimeLimits, length: Duration, now: Instant) -> Vec<Time> {
        let horizons = self.horizons();
        let accounts = self.usage.accounts().map(|(account, _)| account);
        let others = accounts.filter(|account| **account != Account::Total);
        [&Account::Total]
            .into_iter()
            .chain(others)
            .map(|account| {
                let until = horizons.get(account).copied();
                let to_come = until.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
                let spent = |span| {
                    let used = self.usage.used(account, span, now);
                    used.saturating_sub(to_come)
                };
                Time {
                    day: spent(Span::Day),
                    month: spent(Span::Month),
                    fits: self.fits(account, until, limits.of(account), length, now),
                    account: account.clone(),
                }
            })
            .collect()
    }
}

/// Whose time a lease takes.
fn accounts_of(lease: &Lease) -> impl Iterator<Item = Account> + '_ {
    let identifiers = lease.scope.identifiers.iter().flatten();
    [Account::Total, Account::of(lease)]
        .into_iter()
        .chain(identifiers.cloned().map(Account::Identifier))
}
