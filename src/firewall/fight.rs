//! Whether to go on putting back what somebody keeps taking away. Pure: *now* is an argument.
//!
//! A manager's reload takes our part away once or a few times, and it comes back at once. A program
//! that takes it away again and again would make two programs write to the kernel without end; so
//! after [`MANY`] times within [`SPAN`] there is one attempt every [`TRUCE`], until it stays.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often in [`SPAN`] our part is put back at once. A reload of ufw or firewalld takes a handful.
const MANY: usize = 30;
/// The span in which they are counted.
const SPAN: Duration = Duration::from_secs(60);
/// How long is waited between attempts, once it is a fight.
pub(super) const TRUCE: Duration = Duration::from_secs(10);

/// The times our part was put back of late; never more than [`MANY`] of them.
#[derive(Debug, Default)]
pub(super) struct Fight {
    restored: VecDeque<Instant>,
    is_on: bool,
}

impl Fight {
    /// When our part may be put back: now, or at the end of the truce.
    pub(super) fn next_attempt(&self, now: Instant) -> Instant {
        match self.restored.back() {
            Some(last) if self.is_on && is_recent(*last, now) => (*last + TRUCE).max(now),
            _ => now,
        }
    }

    /// Our part was put back, or that was tried.
    pub(super) fn note(&mut self, now: Instant) {
        // What stayed for a whole span was the end of it.
        if self
            .restored
            .back()
            .is_none_or(|last| !is_recent(*last, now))
        {
            self.is_on = false;
        }
        self.restored.retain(|at| is_recent(*at, now));
        if self.restored.len() >= MANY {
            self.restored.pop_front();
        }
        self.restored.push_back(now);
        self.is_on |= self.restored.len() >= MANY;
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < SPAN
}

/// What the operator is told of it.
pub(super) fn words(by: &str) -> String {
    format!(
        "{by} takes our part of the ruleset away as often as it is put back ({MANY} times in {} s): tried every {} s \
         from now on. Find what runs it, or choose another [firewall] mode",
        SPAN.as_secs(),
        TRUCE.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_undone_at_once_and_a_fight_is_not_fought() {
        let start = Instant::now();
        let mut fight = Fight::default();
        let mut now = start;
        for _ in 0..MANY {
            assert_eq!(fight.next_attempt(now), now);
            fight.note(now);
            now += Duration::from_millis(50);
        }
        let mut attempts = 0;
        let end = now + SPAN * 10;
        while now < end {
            now = fight.next_attempt(now);
            fight.note(now);
            attempts += 1;
            now += Duration::from_millis(50);
        }
        assert!((55..=61).contains(&attempts), "{attempts} in ten minutes");
    }

    #[test]
    fn once_it_stays_a_later_reload_is_undone_at_once() {
        let start = Instant::now();
        let mut fight = Fight::default();
        for _ in 0..MANY {
            fight.note(start);
        }
        assert_eq!(fight.next_attempt(start), start + TRUCE);
        assert_eq!(fight.next_attempt(start + SPAN), start + SPAN);
    }
}
