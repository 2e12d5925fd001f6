//! What the desk does for `exec`: arms a lease, opens it under its terms when the command asks or
//! pushes its first token, tells `exec` of what fails, and ends it.

use super::armed::{MAX_ARMED, MAX_ARMED_OF_ONE, NotArmed, Terms};
use super::desk::{Desk, lease_name};
use super::lease_error::LeaseError;
use super::now;
use super::refused::{Refused, not_yours};
use crate::control::protocol::{Exit, Open, Response};
use crate::control::server::Arming;
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::gate::lease::LeaseName;
use crate::gate::window::Refusal;

impl Desk {
    /// Opens: for an armed lease under its terms, and otherwise as asked.
    pub(super) async fn open(&self, caller: Caller, open: Open) -> Result<Response, Refused> {
        self.permit(caller, GateAsk::Open, "open a window")?;
        let Some(terms) = self.terms(caller, &open.lease)? else {
            return self.acquire(caller, open).await;
        };
        let is_dry = open.dry_run;
        let opened = match terms.narrow(open) {
            Ok(open) => self.acquire(terms.caller, open).await,
            Err(option) => Err(Refused::new(
                Exit::Data,
                format!(
                    "{option} asks for more than the lease {} was armed for: give it to `acmegate exec`",
                    terms.open.lease
                ),
            )),
        };
        match opened {
            Ok(opened) if is_dry || self.armed.is_armed(terms.number) => Ok(opened),
            Ok(_) => {
                // It was disarmed meanwhile, and whoever did that may have looked too early.
                self.release(&lease_name(&terms.open.lease)?).await;
                Err(over(&terms))
            }
            Err(refused) if is_dry => Err(refused),
            Err(refused) => {
                let refused = Refused {
                    ends_client: true,
                    ..refused
                };
                let told = Response::refused(refused.exit, refused.message.clone());
                self.armed.tell(terms.number, told);
                Err(refused)
            }
        }
    }

    /// The terms of a lease, if it is armed and this caller may use it. What others ask by its
    /// name is refused, and ends nobody's command.
    fn terms(&self, caller: Caller, lease: &str) -> Result<Option<Terms>, Refused> {
        let name = lease_name(lease)?;
        let Some(terms) = self.armed.terms(&name) else {
            return Ok(None);
        };
        if caller.uid != terms.caller.uid && caller.uid != 0 {
            return Err(not_yours(&name, terms.caller.uid));
        }
        match terms.is_ending {
            true => Err(over(&terms)),
            false => Ok(Some(terms)),
        }
    }

    /// Opens an armed lease that is not open, because a token is pushed under it.
    pub(super) async fn open_for_token(
        &self,
        caller: Caller,
        under: Option<String>,
    ) -> Result<Option<Response>, Refused> {
        let Some(lease) = under else { return Ok(None) };
        let is_armed = self.terms(caller, &lease)?.is_some();
        if !is_armed || self.lives(&lease_name(&lease)?) {
            return Ok(None);
        }
        let open = Open {
            lease,
            ..Open::default()
        };
        self.open(caller, open).await.map(Some)
    }

    /// Arms a lease. What no later opening could get is refused now.
    pub(super) fn arm_lease(&self, caller: Caller, open: Open) -> Result<Arming, Refused> {
        self.permit(caller, GateAsk::Open, "open a window")?;
        let (claim, _) = self.claim(caller, &open)?;
        self.permit_lease(caller, &claim.name)?;
        let is_named = |port| self.config.borrow().firewall.ports.contains(port);
        if !claim.ports.iter().all(is_named) {
            return Err(self.explain(LeaseError::Refused(Refusal::Port)));
        }
        let (number, news) = self
            .armed
            .arm(claim.name.clone(), caller, open)
            .map_err(|why| match why {
                NotArmed::Taken => Refused::new(
                    Exit::TempFail,
                    format!(
                        "the lease {} is armed already: choose another name with --lease",
                        claim.name
                    ),
                ),
                NotArmed::TooMany => Refused::new(
                    Exit::TempFail,
                    format!(
                        "too many leases are armed: {MAX_ARMED_OF_ONE} for one account, {MAX_ARMED} for all but root"
                    ),
                ),
            })?;
        let mut told = Response::done(format!("armed: lease {}", claim.name));
        if self.lives(&claim.name) {
            told.ports = claim.ports;
        }
        Ok(Arming { number, told, news })
    }

    /// The command of an arming is over, or its caller is: its lease ends.
    pub(super) async fn disarm_lease(&self, number: u64) {
        let Some((name, caller)) = self.armed.end(number) else {
            return;
        };
        self.release(&name).await;
        self.armed.forget(number);
        let done = Response::done(format!("disarmed: lease {name}"));
        self.write_down(caller, "disarm", &done);
    }

    /// Tells of armed leases that end by their time, while their commands still run. Runs until
    /// dropped.
    pub(super) async fn watch_armed(&self) {
        let mut windows = self.leases.windows();
        let mut before = windows.borrow_and_update().clone();
        while windows.changed().await.is_ok() {
            let after = windows.borrow_and_update().clone();
            let now = now();
            for ended in before.leases().filter(|lease| lease.deadline <= now) {
                if after.lease(&ended.name).is_none() {
                    self.armed.tell_of_the_end(&ended.name);
                }
            }
            before = after;
        }
    }

    async fn release(&self, name: &LeaseName) {
        if let Err(error) = self.leases.close(name).await {
            tracing::error!(lease = %name, %error, "a lease could not be released");
        }
    }
}

fn over(terms: &Terms) -> Refused {
    Refused::new(
        Exit::TempFail,
        format!(
            "the command that the lease {} was armed for is over",
            terms.open.lease
        ),
    )
}
