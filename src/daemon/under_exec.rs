//! What the desk does for `exec`: arms a lease, opens it under its terms when the command asks or
//! pushes its first token, tells `exec` of what fails, and ends it.

use super::armed::{MAX_ARMED, MAX_ARMED_OF_ONE, NotArmed, Terms};
use super::desk::Desk;
use super::lease_error::LeaseError;
use super::now;
use super::refused::{Refused, not_yours};
use super::words::lease_name;
use crate::control::protocol::{Exit, FamilyName, Open, Response};
use crate::control::server::Arming;
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Entrance, LeaseName, Scope};
use crate::gate::window::Refusal;

impl Desk {
    /// Opens: for an armed lease under its terms, and otherwise as asked. `about` is the identifier
    /// whose token makes it open, where one does.
    pub(super) async fn open(
        &self,
        caller: Caller,
        open: Open,
        about: Option<&Identifier>,
    ) -> Result<Response, Refused> {
        self.permit(caller, GateAsk::Open, "open a window")?;
        let Some(terms) = self.terms(caller, &open.lease)? else {
            return self.acquire(caller, open, about).await;
        };
        let is_dry = open.dry_run;
        let opened = match terms.narrow(open) {
            Ok(open) => self.acquire(terms.caller, open, about).await,
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

    /// Opens the port of a challenge under an armed lease, because a token is pushed under it. One
    /// that is open already keeps what it opens, and gets the port besides.
    pub(super) async fn open_for_token(
        &self,
        caller: Caller,
        under: Option<String>,
        challenge: ChallengeType,
        identifier: &Identifier,
    ) -> Result<Option<Response>, Refused> {
        let Some(lease) = under else { return Ok(None) };
        let Some(terms) = self.terms(caller, &lease)? else {
            return Ok(None);
        };
        let port = challenge.port();
        // Where it is none that may be opened, something in front forwards to one that is.
        let is_guarded = self.config.borrow().firewall.ports.contains(&port);
        let scope = self.scope(&lease_name(&lease)?);
        if scope
            .as_ref()
            .is_some_and(|scope| !is_guarded || scope.ports.contains(&port))
        {
            return Ok(None);
        }
        let armed = terms.open.named_ports();
        if is_guarded && !armed.is_empty() && !armed.contains(&port) {
            // Not a refusal that ends the command: a client may have another challenge to try.
            return Err(Refused::new(
                Exit::Data,
                format!(
                    "the lease {lease} was armed for other ports than {port}, to which {challenge} comes: give --{challenge} to `acmegate exec`"
                ),
            ));
        }
        let mut open = scope.map_or_else(Open::default, as_it_is);
        // Where ports were named when it was armed, all of those open at once.
        if is_guarded && (armed.is_empty() || !open.ports.is_empty()) {
            open.ports.push(port);
        }
        let name = lease_name(&lease)?;
        open.lease = lease;
        let opened = self.open(caller, open, Some(identifier)).await?;
        self.recorder.opened_for_token(&name);
        // Whoever armed it stays for its end, whether or not the answer is heard.
        self.leases.told(&name);
        Ok(Some(opened))
    }

    /// What a living lease opens.
    fn scope(&self, name: &LeaseName) -> Option<Scope> {
        let windows = self.leases.windows();
        let windows = windows.borrow();
        let lease = windows.lease(name).filter(|lease| lease.deadline > now());
        lease.map(|lease| lease.scope.clone())
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
        self.recorder.lease_ended(name);
    }
}

/// What would open the same.
fn as_it_is(scope: Scope) -> Open {
    let (address, interface) = match scope.entrance {
        Entrance::Any => (None, None),
        Entrance::Address(address) => (Some(address), None),
        Entrance::Interface(interface) => (None, Some(interface.name().to_owned())),
    };
    let identifiers = scope.identifiers;
    Open {
        ports: scope.ports,
        family: match (scope.families.v4, scope.families.v6) {
            (true, false) => Some(FamilyName::Ipv4),
            (false, true) => Some(FamilyName::Ipv6),
            _ => None,
        },
        // Their family says itself.
        address,
        interface,
        identifiers: identifiers.map(|names| names.iter().map(Identifier::to_string).collect()),
        ..Open::default()
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
