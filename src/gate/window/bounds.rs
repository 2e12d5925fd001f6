//! Bounds: what nobody gets more of, and why a lease was not given. Values only; `window.rs` holds to them.

use std::fmt;
use std::time::{Duration, Instant};

use super::super::lease::Lease;
use super::super::usage::{Shortage, TimeLimits};
use super::{MAX_LEASES, MAX_LEASES_OF_OTHERS};

/// The span that a budget counts.
pub const BUDGET_SPAN: Duration = Duration::from_secs(3600);

/// What nobody gets more of, whatever a hook asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The ports that may be opened.
    pub ports: Vec<u16>,
    /// The longest lease.
    pub max: Duration,
    /// The openings that are left to whom.
    pub budget: Budget,
}

/// How many openings an hour may see, and for how long windows may be open. A renewal of a lease
/// counts as an opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// All callers together.
    pub per_hour: u32,
    /// One caller, unless it is root.
    pub per_caller: u32,
    /// How many of `per_hour` are kept for root's own askings, and as large a share of the time of
    /// all windows.
    pub reserve: u32,
    /// For how long windows may be open. Root has no more than that either: a hook that runs wild
    /// is mostly root's.
    pub time: TimeLimits,
}

impl Budget {
    /// What time somebody has who asks for a lease.
    pub(super) fn time_for(&self, lease: &Lease) -> TimeLimits {
        match lease.is_roots() {
            true => self.time,
            false => TimeLimits {
                total: self.time.total.without(self.reserve, self.per_hour),
                ..self.time
            },
        }
    }
}

/// One opening that the budget remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its number among the kernel's elements.
    pub id: u32,
    /// Who asked.
    pub caller: u32,
    /// When it stops to count.
    pub forgotten_at: Instant,
}

/// Why a lease was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No port, too many, or one that the configuration does not name.
    Port,
    /// No family at all, or an address of another one.
    Family,
    /// No interface of this host has that address or that name.
    Entrance,
    /// Longer than the cap, or no time at all.
    Length,
    /// [`MAX_LEASES`] live already.
    TooMany,
    /// The hour's openings are used up, for this caller or for all.
    Budget,
    /// The time in which windows may be open is used up.
    Time(Shortage),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("a port that [firewall] ports does not name"),
            Self::Family => f.write_str("no address family, or an address of another family"),
            Self::Entrance => f.write_str(
                "an address or an interface that this host does not have (`ip address` shows them)",
            ),
            Self::Length => f.write_str("a length that [window] max does not allow"),
            Self::TooMany => write!(
                f,
                "{MAX_LEASES} leases live already, or {MAX_LEASES_OF_OTHERS} that are not root's own: \
                 `acmegate status` shows them, `acmegate close --lease NAME` ends one"
            ),
            Self::Budget => f.write_str("the budget of openings per hour is used up"),
            Self::Time(_) => f.write_str("too little is left of the time that windows may be open"),
        }
    }
}
