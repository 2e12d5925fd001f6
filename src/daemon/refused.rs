//! What a caller is told that does not get what it asked for: whose fault it is, what to do next, and
//! which exit code that is.

use std::time::Duration;

use super::lease_error::LeaseError;
use crate::config::{Config, format_duration};
use crate::control::protocol::{Exit, Response};
use crate::gate::lease::LeaseName;
use crate::gate::usage::{Account, Shortage, Span};
use crate::gate::window::Refusal;
use crate::runner::message::Fault;

/// Why a caller does not get what it asked for.
#[derive(Debug)]
pub struct Refused {
    pub(super) exit: Exit,
    pub(super) message: String,
    /// The command that the lease was armed for has been told, and is being ended.
    pub(super) ends_client: bool,
}

impl Refused {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            ends_client: false,
        }
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        Self {
            ends_client: refused.ends_client,
            ..Self::refused(refused.exit, refused.message)
        }
    }
}

/// What a lease error means to who asked, by the configuration in force.
pub(super) fn explain(config: &Config, error: LeaseError) -> Refused {
    let budget = config.budget;
    let (exit, more) = match &error {
        LeaseError::Refused(Refusal::Port) => (
            Exit::Data,
            format!(" (it names {:?})", config.firewall.ports),
        ),
        LeaseError::Refused(Refusal::Length) => (
            Exit::Data,
            format!(" ({})", format_duration(config.window.max)),
        ),
        LeaseError::Refused(Refusal::Family | Refusal::Entrance) => (Exit::Data, String::new()),
        LeaseError::Refused(Refusal::TooMany) => (Exit::TempFail, String::new()),
        LeaseError::Spent(account, shortage) => (Exit::TempFail, spent(account, *shortage)),
        LeaseError::Refused(Refusal::Budget | Refusal::Time(_)) => (
            Exit::TempFail,
            format!(
                " ({} an hour, {} for one account, {} of them root's own): see [budget]",
                budget.per_hour, budget.per_caller, budget.reserve
            ),
        ),
        LeaseError::Blocked(_) => (Exit::Config, String::new()),
        LeaseError::Failed(_) => (Exit::Os, String::new()),
        LeaseError::Command(fault, _) => (exit_for(*fault), String::new()),
        LeaseError::Lost => (Exit::Software, String::new()),
    };
    Refused::new(exit, format!("{error}{more}"))
}

/// Which budget, how much of it is taken, and when enough is free again.
fn spent(account: &Account, shortage: Shortage) -> String {
    let (key, who) = match account {
        Account::Total => ("", "all windows together".to_owned()),
        Account::Lease(name, caller) => ("lease_", format!("leases named {name} of uid {caller}")),
        Account::Identifier(name) => ("identifier_", format!("windows for {name}")),
    };
    let seconds = |length: Duration| {
        let whole = length.as_nanos().div_ceil(1_000_000_000);
        format_duration(Duration::from_secs(
            u64::try_from(whole).unwrap_or(u64::MAX),
        ))
    };
    let Shortage {
        span, limit, used, ..
    } = shortage;
    let again = match shortage.fits_in {
        Some(wait) => format!(
            "this length fits again in {} at the latest, if nothing more is opened",
            seconds(wait)
        ),
        None => "this length is more than all of it: ask for less with --for".to_owned(),
    };
    format!(
        " ({who}: {} of {} in {} are taken, what is open now counted to its end; {again}): see [budget] {key}{}",
        seconds(used),
        seconds(limit),
        match span {
            Span::Day => "24 hours",
            Span::Month => "30 days",
        },
        span.word()
    )
}

/// What a hook ends with when a command did not do its work.
fn exit_for(fault: Fault) -> Exit {
    match fault {
        Fault::Bounds => Exit::Data,
        Fault::Missing => Exit::Unavailable,
        Fault::Failed => Exit::Os,
        Fault::Slow => Exit::TempFail,
        Fault::Config => Exit::Config,
    }
}

pub(super) fn not_yours(name: &LeaseName, owner: u32) -> Refused {
    Refused::new(
        Exit::NoPerm,
        format!("the lease {name} belongs to uid {owner}: choose another name with --lease"),
    )
}
