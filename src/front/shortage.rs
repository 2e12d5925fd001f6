//! What a failed accept(2) leads to: nothing, a pause, or the listener's end.
//!
//! What it never does: spin on a shortage, or tell of one as often as peers come.

use std::time::{Duration, Instant};

use rustix::io::Errno;

/// The first pause after a shortage; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// A second is what other servers wait, and less than a validator does.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How often a new shortage is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What to do about a failed accept(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It concerned one connection, which is gone.
    Ignore,
    /// Something is short; it may come back.
    BackOff,
    /// The listener itself is unfit.
    Stop,
}

impl Remedy {
    /// Sorts the errors of accept(2) by its manual page.
    pub(super) fn of(error: Errno) -> Self {
        match error {
            Errno::INTR
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::PROTO
            | Errno::TIMEDOUT
            // Linux passes network errors of the new socket on from accept(2).
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP => Self::Ignore,
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT | Errno::NOSYS => Self::Stop,
            // MFILE, NFILE, NOBUFS, NOMEM; PERM, by which firewall rules forbid one connection, but a
            // system-call filter all of them; and whatever a future kernel may say.
            _ => Self::BackOff,
        }
    }
}

/// A spell in which not all can be accepted: told once, and paused longer and longer. It is over
/// when nobody waits any more: where each end of a connection makes room for one other, every
/// accepted one would end it, and a flood of peers would be a flood of lines.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    last_pause: Option<Duration>,
    told: Option<Instant>,
    is_told: bool,
}

impl Shortage {
    /// How long to pause after this error.
    pub(super) fn pause(&mut self, error: Errno, now: Instant) -> Duration {
        let pause = match self.last_pause {
            None => MIN_PAUSE,
            Some(last) => (last * 2).min(MAX_PAUSE),
        };
        let is_new = self.last_pause.replace(pause).is_none();
        let is_quiet = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if is_new && is_quiet {
            tracing::warn!(%error, "cannot accept connections; trying again until it ends");
            self.told = Some(now);
            self.is_told = true;
        }
        pause
    }

    /// Nobody waits any more.
    pub(super) fn is_over(&mut self) {
        self.last_pause = None;
        if std::mem::take(&mut self.is_told) {
            tracing::info!("connections are accepted again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_sorted() {
        for (error, remedy) in [
            (Errno::CONNABORTED, Remedy::Ignore),
            (Errno::PROTO, Remedy::Ignore),
            (Errno::NETUNREACH, Remedy::Ignore),
            (Errno::MFILE, Remedy::BackOff),
            (Errno::NFILE, Remedy::BackOff),
            (Errno::NOBUFS, Remedy::BackOff),
            (Errno::NOMEM, Remedy::BackOff),
            (Errno::PERM, Remedy::BackOff),
            (Errno::BADF, Remedy::Stop),
            (Errno::INVAL, Remedy::Stop),
        ] {
            assert_eq!(Remedy::of(error), remedy, "{error}");
        }
    }

    #[test]
    fn a_shortage_is_waited_for_longer_and_longer_and_then_forgotten() {
        let (mut shortage, now) = (Shortage::default(), Instant::now());
        let pauses: Vec<_> = (0..9)
            .map(|_| shortage.pause(Errno::MFILE, now).as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        shortage.is_over();
        assert_eq!(shortage.pause(Errno::MFILE, now), MIN_PAUSE);
    }

    #[test]
    fn shortages_that_come_and_go_are_told_now_and_then() {
        let (mut shortage, start) = (Shortage::default(), Instant::now());
        let told = (0..6000u32).filter(|at| {
            shortage.pause(Errno::MFILE, start + MIN_PAUSE * *at);
            let is_told = shortage.is_told;
            shortage.is_over();
            is_told
        });
        assert_eq!(told.count(), 6, "a minute of them");
    }
}
