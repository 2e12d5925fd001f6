//! The front's book of leases: what the enforcer confirmed, published to whoever decides by it.
//!
//! The front never opens anything: it asks the enforcer, which may refuse, and writes down only
//! what was confirmed. A lease whose holder died is released a grace later.

mod ends;
mod repair;
mod untold;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc, watch};

pub use self::ends::{watch_deadlines, watch_holders};
pub use self::repair::watch_commands;
use self::untold::Untold;
use super::commands::{Commands, prepare};
use super::lease_error::LeaseError;
use super::link::{Enforcing, Link, Lost, Running};
use super::now;
use super::recorder::Recorder;
use crate::config::Config;
use crate::control::protocol::Acquired;
use crate::firewall::message::{Claim, Health, Reply, Request};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Holder, Lease, LeaseName, Scope};
use crate::gate::usage::{Slot, TimeLimits};
use crate::gate::window::{MAX_LEASES, Opening, Windows};
use crate::observe::record::EndedBy;
use crate::runner::message as runner;

/// How long the enforcer may take to read its configuration and lists; a million ranges are seconds.
const READING: Duration = Duration::from_secs(60);

/// What an opening came to.
pub struct Opened {
    /// What the enforcer says of itself and of the way.
    pub health: Health,
    /// The lease was acquired, not renewed: [`Leases::told`] or [`Leases::withdraw`] has to follow.
    pub acquired: Option<Acquired>,
}

/// The book.
pub struct Leases {
    link: Link<Enforcing>,
    commands: Option<Commands>,
    /// The runner, which may be there for notifications alone.
    runner: Option<Arc<Link<Running>>>,
    config: watch::Receiver<Arc<Config>>,
    windows: watch::Sender<Arc<Windows>>,
    holders: mpsc::Sender<(LeaseName, Holder)>,
    recorder: Arc<Recorder>,
    untold: Untold,
    /// One change at a time, from the question to the writing down.
    turn: Mutex<()>,
}

impl Leases {
    /// An empty book, and the queue of holders for [`watch_holders`].
    pub fn new(
        link: Link<Enforcing>,
        runner: Option<Arc<Link<Running>>>,
        config: watch::Receiver<Arc<Config>>,
        recorder: Arc<Recorder>,
    ) -> (Self, mpsc::Receiver<(LeaseName, Holder)>) {
        // What is run for leases is there from the start, or not at all.
        let commands = (config.borrow().firewall.commands.as_ref())
            .and_then(|_| runner.clone())
            .map(Commands::new);
        let (holders, to_watch) = mpsc::channel(MAX_LEASES);
        let windows = watch::Sender::new(Arc::new(Windows::default()));
        (
            Self {
                link,
                commands,
                runner,
                config,
                windows,
                holders,
                recorder,
                untold: Untold::default(),
                turn: Mutex::new(()),
            },
            to_watch,
        )
    }

    /// The windows, as they change.
    pub fn windows(&self) -> watch::Receiver<Arc<Windows>> {
        self.windows.subscribe()
    }

    /// How the kernel stands.
    pub fn health(&self) -> Health {
        self.link.health()
    }

    /// The front's side of the runner, where there is one.
    pub fn commands(&self) -> Option<&Commands> {
        self.commands.as_ref()
    }

    /// How long the enforcer has owed an answer, if it owes one.
    pub fn waiting(&self) -> Option<Duration> {
        self.link.waiting()
    }

    /// Writes down everything that the enforcer knows, as after a restart.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn adopt(&self) -> Result<(), Lost> {
        let _turn = self.turn.lock().await;
        // The first answer comes once the enforcer has taken hold of the kernel. Counted from that
        // question every lease would end in this book so much too early.
        self.link.ask(Request::Snapshot).await?;
        let windows = self.snapshot().await?;
        if let Some(commands) = &self.commands {
            commands.adopt(&windows, now()).await?;
        }
        self.publish(windows);
        Ok(())
    }

    /// The book as the enforcer has it.
    async fn snapshot(&self) -> Result<Windows, Lost> {
        // Before the question, so that the gate shuts no later than the kernel.
        let now = now();
        let replies = self.link.ask(Request::Snapshot).await?;
        let mut windows = Windows::default();
        let mut id = 0;
        for reply in replies {
            match reply {
                Reply::Lease(claim) => {
                    // Its identifiers are not among what survives: it covers none of them.
                    let identifiers = claim.is_scoped.then(Vec::new);
                    windows.adopt(to_lease(*claim, identifiers, now));
                }
                Reply::Opening { caller, left } => {
                    id += 1;
                    windows.adopt_opening(Opening {
                        id,
                        caller,
                        forgotten_at: now + left,
                    });
                }
                Reply::Time {
                    account,
                    span,
                    spent,
                    left,
                } => {
                    id += 1;
                    let slot = Slot {
                        id,
                        span,
                        spent,
                        forgotten_at: now + left,
                    };
                    windows.adopt_time(account, slot);
                }
                // Told unasked, in its turn.
                Reply::Health(_) => {}
                _ => return Err(Lost),
            }
        }
        Ok(windows)
    }

    fn publish(&self, windows: Windows) {
        let windows = Arc::new(windows);
        self.windows.send_replace(Arc::clone(&windows));
        for lease in windows.leases() {
            self.watch_holder(lease);
        }
    }

    /// Acquires or renews a lease; the health's note is what may still be in the way.
    ///
    /// # Errors
    /// [`LeaseError`]; then nothing has changed.
    pub async fn open(
        &self,
        claim: Claim,
        identifiers: Option<Vec<Identifier>>,
    ) -> Result<Opened, LeaseError> {
        let begun = now();
        let _turn = self.turn.lock().await;
        // Before the question, so that the gate shuts no later than the kernel.
        let now = now();
        let lease = to_lease(claim.clone(), identifiers, now);
        self.within_time_of_identifiers(&lease, now)?;
        let granted = match &self.commands {
            None => self.confirmed(Request::Open(claim)).await,
            Some(commands) => self.open_by(commands, &claim, begun).await,
        };
        let health = granted.map_err(|error| error.of(&lease))?;
        // Not before the turn: what is being closed meanwhile is no lease to renew.
        let is_held = {
            let windows = self.windows.borrow();
            let held = windows.lease(&lease.name);
            held.is_some_and(|held| held.deadline > now)
        };
        let is_new = !is_held || self.untold.has(&lease.name);
        let acquired = is_new.then(|| self.untold.add(&lease.name));
        self.windows.send_modify(|windows| {
            let windows = Arc::make_mut(windows);
            windows.count(lease.caller, now);
            windows.write_down(lease.clone(), now);
        });
        self.recorder.opened(&lease, now);
        self.watch_holder(&lease);
        Ok(Opened { health, acquired })
    }

    /// Bounds first, then the commands, which may make the way free, then the survey of that way
    /// and the kernel. What a command opened is closed again if a later step fails.
    async fn open_by(
        &self,
        commands: &Commands,
        claim: &Claim,
        begun: Instant,
    ) -> Result<Health, LeaseError> {
        self.confirmed(Request::Bounds(claim.clone())).await?;
        commands.forget_ended(&self.windows.borrow());
        let renewed = self.windows.borrow().lease(&claim.name).cloned();
        let renewed = renewed.filter(|lease| lease.deadline > now());
        let opening = commands.open(claim, begun).await?;
        match self.confirmed(Request::Open(claim.clone())).await {
            Ok(health) => {
                commands.forgive(&claim.name);
                commands.keep(&claim.name, opening).await?;
                Ok(health)
            }
            Err(error) => {
                commands
                    .undo(&claim.name, opening, renewed.is_some())
                    .await?;
                Err(error)
            }
        }
    }

    /// Says whether [`Leases::open`] would be given, and changes nothing. Where commands are run
    /// first, only the bounds are known: what stands in the way may be what they move.
    ///
    /// # Errors
    /// As [`Leases::open`].
    pub async fn check(
        &self,
        claim: Claim,
        identifiers: Option<Vec<Identifier>>,
    ) -> Result<Health, LeaseError> {
        let _turn = self.turn.lock().await;
        let now = now();
        let lease = to_lease(claim.clone(), identifiers, now);
        self.within_time_of_identifiers(&lease, now)?;
        let request = match self.commands {
            None => Request::Check(claim),
            Some(_) => Request::Bounds(claim),
        };
        let confirmed = self.confirmed(request).await;
        confirmed.map_err(|error| error.of(&lease))
    }

    /// Identifiers are known here alone, so here alone their time can be limited.
    fn within_time_of_identifiers(&self, lease: &Lease, now: Instant) -> Result<(), LeaseError> {
        let limits = TimeLimits {
            identifier: self.config.borrow().budget.time.identifier,
            ..TimeLimits::default()
        };
        let windows = self.windows.borrow();
        windows
            .within_time(lease, limits, now)
            .map_err(|(account, shortage)| LeaseError::Spent(account, shortage))
    }

    /// Releases a lease; `false` when there was none of that name.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn close(&self, name: &LeaseName) -> Result<bool, LeaseError> {
        let begun = now();
        let _turn = self.turn.lock().await;
        self.release(name, EndedBy::Close, begun).await
    }

    /// Who acquired this lease has heard of it, or stays to be told.
    pub fn told(&self, name: &LeaseName) {
        self.untold.told(name);
    }

    /// Releases a lease of which nobody has heard; `false` where another opened it since, or it is over.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn withdraw(&self, acquired: &Acquired) -> Result<bool, LeaseError> {
        let begun = now();
        let _turn = self.turn.lock().await;
        match self.untold.take(acquired) {
            true => self.release(&acquired.lease, EndedBy::Close, begun).await,
            false => Ok(false),
        }
    }

    async fn release(
        &self,
        name: &LeaseName,
        by: EndedBy,
        begun: Instant,
    ) -> Result<bool, LeaseError> {
        self.confirmed(Request::Close(name.clone())).await?;
        // Whoever acquired it has nothing to withdraw any more.
        self.untold.told(name);
        let mut was_there = false;
        self.windows.send_modify(|windows| {
            was_there = Arc::make_mut(windows).release(name, now()).is_some();
        });
        self.recorder.closed(name, by);
        // The kernel first: whatever becomes of the command, nobody comes through.
        if let Some(commands) = &self.commands {
            commands.close(name, begun).await?;
        }
        Ok(was_there)
    }

    /// Releases a lease only if it is still this holder's.
    async fn close_of(&self, name: &LeaseName, holder: &Holder) -> Result<bool, LeaseError> {
        let _turn = self.turn.lock().await;
        let held_by = self
            .windows
            .borrow()
            .lease(name)
            .and_then(|lease| lease.holder.clone());
        match held_by.as_ref() == Some(holder) {
            true => self.release(name, EndedBy::HolderGone, now()).await,
            false => Ok(false),
        }
    }

    /// Releases a lease early, and only if it still ends when it did, and so was not renewed.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn close_unrenewed(
        &self,
        name: &LeaseName,
        deadline: Instant,
    ) -> Result<bool, LeaseError> {
        let _turn = self.turn.lock().await;
        let ends_at = self
            .windows
            .borrow()
            .lease(name)
            .map(|lease| lease.deadline);
        match ends_at == Some(deadline) {
            true => self.release(name, EndedBy::Early, now()).await,
            false => Ok(false),
        }
    }

    /// Has the enforcer read its configuration again. Leases of ports that it no longer names end.
    ///
    /// # Errors
    /// [`LeaseError::Failed`] when the enforcer keeps its old configuration, and
    /// [`LeaseError::Command`] when the runner does; then both do.
    pub async fn reload(&self) -> Result<(), LeaseError> {
        // Reading takes a while, in which leases come and go.
        self.link.ask(Request::Prepare).await?;
        let read = self.link.wait_for(|health| !health.is_reading);
        let read = tokio::time::timeout(READING, read).await;
        read.map_err(|_| {
            LeaseError::Failed("it has not read its configuration in time".to_owned())
        })??;
        let _turn = self.turn.lock().await;
        // Read by both before either follows it.
        if let Some(runner) = &self.runner {
            prepare(runner).await?;
        }
        self.confirmed(Request::Reload).await?;
        let mut windows = self.snapshot().await?;
        windows.remember(&self.windows.borrow(), now());
        if let Some(runner) = &self.runner {
            runner.ask(runner::Request::Switch).await?;
        }
        if let Some(commands) = &self.commands {
            commands.settle_ended(&windows).await?;
        }
        let kept = windows.leases();
        self.recorder.ended_all_but(kept, EndedBy::Reload);
        self.publish(windows);
        Ok(())
    }

    /// Has the enforcer read its lists again and follow them, in its own time.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn refresh_lists(&self) -> Result<(), Lost> {
        self.link.ask(Request::Refresh).await.map(drop)
    }

    /// Makes sure that our part of the ruleset is there.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn apply_firewall(&self) -> Result<(), LeaseError> {
        let _turn = self.turn.lock().await;
        self.confirmed(Request::Apply).await.map(drop)
    }

    /// Takes our part of the ruleset away; every lease ends, by this.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn remove_firewall(&self, by: EndedBy) -> Result<(), LeaseError> {
        let _turn = self.turn.lock().await;
        self.recorder.ended_all_but(std::iter::empty(), by);
        // Shut here first: what the kernel does no longer, the gate does.
        self.windows
            .send_modify(|windows| Arc::make_mut(windows).release_all(now()));
        let removed = self.confirmed(Request::Remove).await.map(drop);
        let closed = match &self.commands {
            Some(commands) => commands.close_all().await,
            None => Ok(()),
        };
        removed.and(closed)
    }

    async fn confirmed(&self, request: Request) -> Result<Health, LeaseError> {
        match self.link.ask(request).await?.pop() {
            Some(Reply::Health(health)) => Ok(health),
            Some(Reply::Refused(refusal)) => Err(LeaseError::Refused(refusal)),
            Some(Reply::Blocked(why)) => Err(LeaseError::Blocked(why)),
            Some(Reply::Failed(why)) => Err(LeaseError::Failed(why)),
            _ => Err(LeaseError::Lost),
        }
    }

    /// To be called when the lease is in the book: what is not there is not watched for long.
    fn watch_holder(&self, lease: &Lease) {
        if let Some(holder) = &lease.holder {
            // A full queue means that as many holders wait as leases may live; the deadline of the
            // lease stands in any case.
            let _ = self.holders.try_send((lease.name.clone(), holder.clone()));
        }
    }
}

fn to_lease(claim: Claim, identifiers: Option<Vec<Identifier>>, now: Instant) -> Lease {
    Lease {
        id: 0,
        name: claim.name,
        holder: claim.holder,
        caller: claim.caller,
        trigger: claim.trigger,
        scope: Scope {
            ports: claim.ports,
            families: claim.families,
            entrance: claim.entrance,
            identifiers,
        },
        deadline: now + claim.length,
    }
}
