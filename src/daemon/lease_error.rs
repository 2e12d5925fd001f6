//! Why a lease was not given or not released, in words for whoever asked.

use super::link::Lost;
use crate::gate::lease::Lease;
use crate::gate::usage::{Account, Kind, Shortage};
use crate::gate::window::Refusal;
use crate::runner::message::Fault;

/// Why a lease was not given or not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseError {
    /// Out of bounds.
    Refused(Refusal),
    /// Too little is left of the time of this account.
    Spent(Account, Shortage),
    /// A foreign chain would drop the packets.
    Blocked(String),
    /// The kernel, or the enforcer, could not.
    Failed(String),
    /// A command that the configuration names did not do its work.
    Command(Fault, String),
    /// The enforcer, or the runner, is gone.
    Lost,
}

impl std::fmt::Display for LeaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "not opened: {refusal}"),
            Self::Spent(_, shortage) => write!(f, "not opened: {}", Refusal::Time(*shortage)),
            Self::Blocked(why) => write!(f, "not opened: {why}"),
            Self::Failed(why) | Self::Command(_, why) => f.write_str(why),
            Self::Lost => Lost.fmt(f),
        }
    }
}

impl LeaseError {
    /// Whose time it is that is short, where that is what the enforcer said of `lease`.
    pub(super) fn of(self, lease: &Lease) -> Self {
        match self {
            Self::Refused(Refusal::Time(shortage)) => {
                let account = match shortage.kind {
                    Kind::Lease => Account::of(lease),
                    Kind::Total | Kind::Identifier => Account::Total,
                };
                Self::Spent(account, shortage)
            }
            other => other,
        }
    }
}

impl From<Lost> for LeaseError {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}
