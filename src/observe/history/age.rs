//! By which clock a record is old.
//!
//! The host's clock may be wrong by years: a machine without a battery starts in 1970, a typing mistake
//! makes it 2062. Had the history believed it at once, one such hour would delete everything. So a jump
//! forward counts only after a day of running with it; a step back counts at once, since it deletes
//! nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a jump must have lasted until it is believed, and how far one is no jump: a host that was
/// off for a night.
const PATIENCE: u64 = Duration::from_secs(24 * 3600).as_millis() as u64;

/// The clock that ages are told by, in milliseconds after 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Age {
    /// What was last believed.
    pub(super) believed: u64,
    /// For how long the historian has run since.
    pub(super) waited: u64,
}

impl Age {
    /// A history that begins now.
    pub(super) fn new(now: u64) -> Self {
        Self {
            believed: now,
            waited: 0,
        }
    }

    /// What time it is for the history, by the host's clock and how long it has run since it last asked.
    pub(super) fn tell(&mut self, now: u64, ran: Duration) -> u64 {
        let ran = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
        self.waited = self.waited.saturating_add(ran);
        let plausible = self
            .believed
            .saturating_add(self.waited)
            .saturating_add(PATIENCE);
        if now <= plausible || self.waited >= PATIENCE {
            *self = Self::new(now);
        }
        self.believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const YEAR: u64 = 365 * 24 * HOUR;
    const NOW: u64 = 56 * YEAR;

    fn hour() -> Duration {
        Duration::from_millis(HOUR)
    }

    #[test]
    fn a_clock_that_goes_is_believed() {
        let mut age = Age::new(NOW);
        for hours in 1..100 {
            assert_eq!(age.tell(NOW + hours * HOUR, hour()), NOW + hours * HOUR);
        }
        // Off for a night, and a clock put right by a few hours.
        assert_eq!(age.tell(NOW + 120 * HOUR, hour()), NOW + 120 * HOUR);
    }

    #[test]
    fn a_jump_of_years_is_believed_after_a_day_and_not_before() {
        let mut age = Age::new(NOW);
        for hours in 1..24 {
            assert_eq!(age.tell(NOW + YEAR + hours * HOUR, hour()), NOW, "{hours}");
        }
        let later = NOW + YEAR + 24 * HOUR;
        assert_eq!(age.tell(later, hour()), later);
    }

    #[test]
    fn a_jump_that_is_put_right_leaves_nothing_behind() {
        let mut age = Age::new(NOW);
        assert_eq!(age.tell(NOW + 40 * YEAR, hour() * 23), NOW);
        let right = NOW + 24 * HOUR;
        assert_eq!(age.tell(right, hour()), right);
        assert_eq!(age, Age::new(right));
    }

    #[test]
    fn a_step_back_is_believed_at_once() {
        let mut age = Age::new(NOW);
        assert_eq!(age.tell(0, Duration::ZERO), 0);
        // And 1970 is not believed to be over just because somebody says so.
        assert_eq!(age.tell(NOW, hour()), 0);
        assert_eq!(age.tell(NOW, hour() * 23), NOW);
    }
}
