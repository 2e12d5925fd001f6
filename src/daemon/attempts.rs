//! What the desk says to an attempt that a CA would soon refuse: one line, and the way past it.
//!
//! What counts as failed is `rate_limit`'s to say.

use std::time::Duration;

use super::desk::Desk;
use super::refused::Refused;
use crate::config::format_duration;
use crate::control::protocol::Exit;
use crate::gate::failures::{Attempt, Refusal};
use crate::gate::identifier::Identifier;
use crate::gate::lease::LeaseName;

impl Desk {
    /// Refuses an attempt that the CA would soon refuse as well. `about` is what is known of its
    /// purpose besides the identifiers that it names.
    pub(super) fn within_failures(
        &self,
        (lease, holder): (&LeaseName, Option<u32>),
        caller: u32,
        identifiers: Option<&[Identifier]>,
        about: Option<&Identifier>,
    ) -> Result<(), Refused> {
        let Some(limit) = self.config.borrow().failures_per_hour else {
            return Ok(());
        };
        let attempt = Attempt {
            lease: &lease.counted(holder),
            caller,
            identifiers: about.map(std::slice::from_ref).or(identifiers),
        };
        match self.rate_limit.refuse(attempt, limit) {
            None => Ok(()),
            Some(refusal) => Err(Refused::new(Exit::TempFail, explain(&refusal))),
        }
    }
}

/// One line: which identifier, how often since when, when again, and the way past it.
fn explain(refusal: &Refusal) -> String {
    let Refusal {
        identifier,
        count,
        since,
        again_in,
    } = refusal;
    let failed = match count {
        1 => format!("1 window for {identifier} has failed"),
        count => format!("{count} windows for {identifier} have failed"),
    };
    format!(
        "{failed} in the last {}, and a CA soon refuses every order for it \
         (Let's Encrypt: after five an hour): `acmegate status` and the log say what failed; the next attempt is \
         allowed in {}, or at once with --force (see [budget] failures_per_hour)",
        whole_seconds(*since),
        whole_seconds(*again_in),
    )
}

/// In whole seconds, rounded up: whoever waits so long waits long enough.
fn whole_seconds(length: Duration) -> String {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    format_duration(Duration::from_secs(seconds.max(1))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_all_that_is_to_be_known_in_one_line() {
        let refusal = Refusal {
            identifier: Identifier::parse("a.test").unwrap(),
            count: 4,
            since: Duration::from_millis(47 * 60_000),
            again_in: Duration::from_millis(12 * 60_000 + 1),
        };
        assert_eq!(
            explain(&refusal),
            "4 windows for a.test have failed in the last 47m, and a CA soon refuses every order for it \
             (Let's Encrypt: after five an hour): `acmegate status` and the log say what failed; the next attempt \
             is allowed in 12m1s, or at once with --force (see [budget] failures_per_hour)"
        );
    }
}
