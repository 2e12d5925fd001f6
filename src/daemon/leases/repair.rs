//! Looks after what commands opened: a manager's reload forgets what it was told at run time.
//!
//! Only the survey of foreign chains is asked, so in mode `gate-only`, and for what another host
//! shut, nothing is noticed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Leases;
use crate::daemon::commands::Commands;
use crate::daemon::lease_error::LeaseError;
use crate::daemon::now;
use crate::firewall::message::{Claim, Request};
use crate::gate::lease::Lease;

/// How often it is looked whether what commands opened still is: a few milliseconds of reading the
/// ruleset, while a window is open. A validation takes some seconds and is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks after what commands opened, while leases live. Runs until dropped.
pub async fn watch_commands(leases: Arc<Leases>) {
    let Some(commands) = leases.commands() else {
        return std::future::pending().await;
    };
    let mut windows = leases.windows();
    loop {
        let lives = windows.wait_for(|windows| windows.leases().next().is_some());
        if lives.await.is_err() {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if leases.look_after_commands(commands).await.is_err() {
            return;
        }
    }
}

impl Leases {
    /// Looks whether foreign chains still let in what commands opened, and has the command run again
    /// for a lease that they do not.
    ///
    /// # Errors
    /// [`LeaseError::Lost`].
    async fn look_after_commands(&self, commands: &Commands) -> Result<(), LeaseError> {
        let windows = self.windows.borrow().clone();
        for lease in windows.leases() {
            let _turn = self.turn.lock().await;
            let begun = now();
            let Some(claim) = self.still(lease, begun) else {
                continue;
            };
            let asked = self.confirmed(Request::Check(claim.clone())).await;
            let Err(LeaseError::Blocked(why)) = asked else {
                continue;
            };
            if !commands.may_repair(&claim.name, &why) {
                continue;
            }
            tracing::warn!(lease = %claim.name, "somebody shut what a command opened, opening again: {why}");
            match commands.open(&claim, begun).await {
                Ok(opening) => commands.keep(&claim.name, opening).await?,
                Err(LeaseError::Lost) => return Err(LeaseError::Lost),
                // It was logged where it was run, and the next look tries again.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// What a lease that lives at `now` would be asked for with; `None` if it ended or is about to.
    fn still(&self, lease: &Lease, now: Instant) -> Option<Claim> {
        let windows = self.windows.borrow();
        let lease = windows.lease(&lease.name)?;
        let length = lease.deadline.saturating_duration_since(now);
        (length > LOOK_EVERY).then(|| Claim {
            name: lease.name.clone(),
            holder: lease.holder.clone(),
            caller: lease.caller,
            trigger: lease.trigger,
            ports: lease.scope.ports.clone(),
            families: lease.scope.families,
            entrance: lease.scope.entrance.clone(),
            is_scoped: lease.scope.identifiers.is_some(),
            length,
        })
    }
}
