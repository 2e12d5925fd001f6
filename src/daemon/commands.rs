//! The front's side of the runner: what it is asked, within the time that a hook waits.
//!
//! The book of leases says when; the runner says whether it worked. Whoever waits is answered
//! before it gives up, and what takes longer is done when nobody waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::lease_error::LeaseError;
use super::link::{Link, Lost, Running};
use super::now;
use crate::firewall::message::Claim;
use crate::gate::lease::LeaseName;
use crate::gate::window::Windows;
use crate::locked::locked;
use crate::runner::book;
use crate::runner::message::{Fault, Health, Reply, Request};
use crate::runner::serve::MARGIN;

/// When a hook has its answer at the latest: before it gives up (`control::client::DEADLINE`, 10 s),
/// with time left for the kernel.
const ANSWERED: Duration = Duration::from_secs(9);
/// How often, in the life of a lease, what somebody shut is opened again.
const MAX_REPAIRS: u32 = 5;
/// How long closing everything may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Asks the runner.
pub struct Commands {
    link: Arc<Link<Running>>,
    /// The opening that counts, by lease.
    openings: Mutex<HashMap<LeaseName, u16>>,
    /// How often what a lease had opened was shut by somebody else, and what shut it last.
    repairs: Mutex<HashMap<LeaseName, (u32, String)>>,
}

impl Commands {
    /// Over a link to a runner.
    pub fn new(link: Arc<Link<Running>>) -> Self {
        Self {
            link,
            openings: Mutex::default(),
            repairs: Mutex::default(),
        }
    }

    /// How commands stand, as last told.
    pub fn health(&self) -> Health {
        self.link.health()
    }

    /// Whether a command is run once more for what somebody shut; not for ever.
    pub fn may_repair(&self, lease: &LeaseName, why: &str) -> bool {
        let mut repairs = locked(&self.repairs);
        let (count, last) = repairs.entry(lease.clone()).or_default();
        *count += 1;
        why.clone_into(last);
        *count <= MAX_REPAIRS
    }

    /// A lease was acquired, renewed or released: what was before is over.
    pub fn forgive(&self, lease: &LeaseName) {
        locked(&self.repairs).remove(lease);
    }

    /// Forgets leases that ended by their deadlines: what they had opened the runner closes by itself. Only in the turn of
    /// who changes the book: an opening that counts is here before its lease is there.
    pub fn forget_ended(&self, windows: &Windows) {
        let lives = |lease: &LeaseName| windows.lease(lease).is_some();
        self.openings().retain(|lease, _| lives(lease));
        locked(&self.repairs).retain(|lease, _| lives(lease));
    }

    /// What keeps being shut, so that it is no longer opened again, of leases that live.
    pub fn fight(&self, windows: &Windows) -> Option<String> {
        let mut repairs = locked(&self.repairs);
        repairs.retain(|lease, _| windows.lease(lease).is_some());
        let (lease, (_, why)) = repairs
            .iter()
            .find(|(_, (count, _))| *count > MAX_REPAIRS)?;
        Some(format!(
            "somebody keeps shutting what a command opens for lease {lease}, it is not opened again: {why}"
        ))
    }

    /// Has the opening command run for whoever waits since `begun`; the answer is the number of the
    /// opening, which [`Commands::keep`] or [`Commands::undo`] settles.
    ///
    /// # Errors
    /// [`LeaseError`]; then nothing is left open by this.
    pub async fn open(&self, claim: &Claim, begun: Instant) -> Result<u16, LeaseError> {
        let within = left(begun);
        if within.is_zero() {
            let text = "not opened: the commands of other openings took too long; try again";
            return Err(LeaseError::Command(Fault::Slow, text.to_owned()));
        }
        let request = Request::Open {
            claim: book::Claim {
                lease: claim.name.clone(),
                caller: claim.caller,
                trigger: claim.trigger,
                ports: claim.ports.clone(),
                families: claim.families,
                length: claim.length,
            },
            within,
        };
        match self.ask(request).await? {
            Reply::Opened(Some(number)) => Ok(number),
            Reply::Failed(fault, text) => {
                Err(LeaseError::Command(fault, format!("not opened: {text}")))
            }
            _ => Err(LeaseError::Lost),
        }
    }

    /// An opening counts; an earlier one of the same lease is closed when nobody waits.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn keep(&self, lease: &LeaseName, opening: u16) -> Result<(), Lost> {
        self.openings().insert(lease.clone(), opening);
        self.settle(lease, Some(opening), Duration::ZERO)
            .await
            .map(drop)
    }

    /// An opening does not count, and is closed when nobody waits; what a lease that was to be
    /// renewed had opened before stays.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn undo(
        &self,
        lease: &LeaseName,
        opening: u16,
        was_renewal: bool,
    ) -> Result<(), Lost> {
        let before = self.openings().get(lease).copied();
        let before = before.filter(|before| was_renewal && *before != opening);
        self.settle(lease, before, Duration::ZERO).await.map(drop)
    }

    /// Closes what a lease opened and no other needs.
    ///
    /// # Errors
    /// [`LeaseError::Command`] when that fails; it is then tried again.
    pub async fn close(&self, lease: &LeaseName, begun: Instant) -> Result<(), LeaseError> {
        self.openings().remove(lease);
        self.forgive(lease);
        done(self.settle(lease, None, left(begun)).await?)
    }

    async fn settle(
        &self,
        lease: &LeaseName,
        kept: Option<u16>,
        within: Duration,
    ) -> Result<Reply, Lost> {
        self.ask(Request::Settle {
            lease: lease.clone(),
            kept,
            within,
        })
        .await
    }

    /// Takes over what commands opened before this start for leases that live; the rest is closed.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn adopt(&self, windows: &Windows, now: Instant) -> Result<(), Lost> {
        for lease in windows.leases() {
            let request = Request::Living {
                lease: lease.name.clone(),
                length: lease.deadline.saturating_duration_since(now),
            };
            match self.ask(request).await? {
                Reply::Opened(Some(opening)) => {
                    self.openings().insert(lease.name.clone(), opening);
                }
                _ => tracing::warn!(
                    lease = %lease.name,
                    "a lease lives, but what its command opened is not known: open it again"
                ),
            }
        }
        self.ask(Request::Sweep).await.map(drop)
    }

    /// What leases that ended by a reload had opened is closed when nobody waits.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn settle_ended(&self, windows: &Windows) -> Result<(), Lost> {
        let known: Vec<LeaseName> = self.openings().keys().cloned().collect();
        for lease in known.iter().filter(|name| windows.lease(name).is_none()) {
            self.openings().remove(lease);
            self.settle(lease, None, Duration::ZERO).await?;
        }
        Ok(())
    }

    /// Closes everything.
    ///
    /// # Errors
    /// [`LeaseError::Command`] when something may still be open.
    pub async fn close_all(&self) -> Result<(), LeaseError> {
        self.openings().clear();
        locked(&self.repairs).clear();
        done(self.ask(Request::CloseAll { within: CLOSING }).await?)
    }

    async fn ask(&self, request: Request) -> Result<Reply, Lost> {
        let reply = self.link.ask(request).await?.pop().ok_or(Lost)?;
        if let Reply::Health(health) = &reply {
            self.link.note_health(health.clone());
        }
        Ok(reply)
    }

    fn openings(&self) -> MutexGuard<'_, HashMap<LeaseName, u16>> {
        locked(&self.openings)
    }
}

/// Has the runner read the configuration again, and keep it aside.
///
/// # Errors
/// [`LeaseError::Command`] when it cannot use it.
pub async fn prepare(runner: &Link<Running>) -> Result<(), LeaseError> {
    match runner.ask(Request::Prepare).await?.pop() {
        Some(Reply::Failed(fault, text)) => Err(LeaseError::Command(fault, text)),
        _ => Ok(()),
    }
}

fn done(reply: Reply) -> Result<(), LeaseError> {
    match reply {
        Reply::Failed(fault, text) => Err(LeaseError::Command(
            fault,
            format!("released, but what a command opened may still be open: {text}"),
        )),
        _ => Ok(()),
    }
}

/// What is left of the time that a hook waits, for the commands themselves.
fn left(begun: Instant) -> Duration {
    let waited = now().saturating_duration_since(begun);
    ANSWERED.saturating_sub(waited).saturating_sub(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::lease::{Entrance, Families, Lease, Scope, Trigger};

    #[tokio::test]
    async fn what_ended_by_its_deadline_is_not_kept_for_ever() {
        let (front, _runner) = tokio::net::UnixStream::pair().unwrap();
        let (link, _, _carried) = Link::new(front);
        let commands = Commands::new(Arc::new(link));
        let [living, ended] = ["living", "ended"].map(|name| LeaseName::parse(name).unwrap());
        for lease in [&living, &ended] {
            commands.openings().insert(lease.clone(), 1);
            assert!(commands.may_repair(lease, "a reload"));
        }
        let mut windows = Windows::default();
        windows.adopt(Lease {
            id: 1,
            name: living.clone(),
            holder: None,
            caller: 0,
            trigger: Trigger::Asked,
            scope: Scope {
                ports: vec![80],
                families: Families::BOTH,
                entrance: Entrance::Any,
                identifiers: None,
            },
            deadline: now() + Duration::from_secs(60),
        });
        commands.forget_ended(&windows);
        let openings: Vec<LeaseName> = commands.openings().keys().cloned().collect();
        let repairs: Vec<LeaseName> = locked(&commands.repairs).keys().cloned().collect();
        assert_eq!((openings, repairs), (vec![living.clone()], vec![living]));
    }
}
