//! The enforcer: the one process that may change the firewall.
//!
//! It keeps the book of leases itself, within bounds that it reads itself, and believes nothing
//! that the front says. It executes nothing, and the only bytes it reads are fixed frames and netlink;
//! its own configuration is read for it by a thread without power. When the front goes away, so does
//! it; the kernel keeps the windows.

mod fill;
mod follow;
mod look;
mod reading;
mod watch;

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio_stream::StreamExt;

use self::look::Looks;
use self::reading::Readings;
pub use self::reading::{Answer, Read, Reader};
use super::error::KernelError;
use super::events::{Batch, Events};
use super::evidence::Evidence;
use super::fight::Fight;
use super::message::{Claim, FRAME_BYTES, Frame, Health, Reply, Request};
use super::netlink::Kernel;
use super::ruleset::{Mode, Settings};
use super::survey::{Finding, Survey};
use crate::gate::lease::{Lease, Scope};
use crate::gate::window::{Limits, Refusal, Windows};

/// Events that are looked after at once, before the front is heard again.
const EVENTS_AT_ONCE: usize = 4096;

/// What the enforcer holds itself to.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What stands in the kernel.
    pub settings: Settings,
    /// What nobody gets more of.
    pub limits: Limits,
}

/// The enforcer's state.
pub struct Enforcer {
    orders: Orders,
    readings: Readings,
    /// What was read and is not followed yet.
    prepared: Option<Answer>,
    kernel: Kernel,
    survey: Survey,
    windows: Windows,
    health: Health,
    /// What the kernel calls this process when it tells who changed the ruleset.
    own_name: String,
    /// After `firewall remove`: nothing is put back until somebody asks.
    is_withdrawn: bool,
    /// Who took our part away, while it is not back.
    lost_to: Option<String>,
    fight: Fight,
    /// Until when nothing is put back, while somebody keeps taking it away.
    truce: Option<Instant>,
    /// When the next portion of an allow-list is written, while one is on its way.
    fill_at: Option<Instant>,
    /// With which error number the kernel refused one, if it did.
    list_refused: Option<u32>,
    /// Who comes to open windows; nothing where the kernel is not asked, or refuses.
    evidence: Option<Evidence>,
    looks: Looks,
}

impl Enforcer {
    /// Opens every socket that will be needed; afterwards the process can be sealed.
    ///
    /// # Errors
    /// [`KernelError`] when netlink is refused.
    pub fn prepare(orders: Orders, reader: Box<dyn Reader>) -> Result<(Self, Events), KernelError> {
        let evidence = match orders.settings.mode {
            Mode::GateOnly => None,
            _ => Evidence::prepare()
                .inspect_err(|error| tracing::warn!(%error, "no report will say who was dropped"))
                .ok(),
        };
        let enforcer = Self {
            kernel: Kernel::connect()?,
            survey: Survey::connect()?,
            orders,
            readings: Readings::by(reader),
            prepared: None,
            windows: Windows::default(),
            health: Health::default(),
            own_name: rustix::thread::name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            is_withdrawn: false,
            lost_to: None,
            fight: Fight::default(),
            truce: None,
            fill_at: None,
            list_refused: None,
            evidence,
            looks: Looks::default(),
        };
        Ok((enforcer, Events::subscribe()?))
    }

    /// Adopts what the kernel kept, then obeys the front until it goes away.
    ///
    /// # Errors
    /// [`KernelError`] if not even a first look at the kernel was possible, or if another process
    /// owns our table: then running on would only pretend.
    pub async fn serve(mut self, front: UnixStream, events: Events) -> Result<(), KernelError> {
        if self.orders.settings.mode != Mode::GateOnly {
            self.windows = self.kernel.adopt(now()).await?;
            self.sweep().await;
            self.hold_to_limits().await;
            let wanted = self.orders.settings.allow.clone();
            self.orders.settings.allow = self.kernel.take_over_list(&wanted).await?;
            match self.assert().await {
                Err(error @ (KernelError::Owned | KernelError::Refused(..))) => return Err(error),
                Err(error) => tracing::error!(%error, "the firewall is not as it should be: shut"),
                Ok(_) => {}
            }
            self.want_list(wanted).await;
            self.fill_if_short().await;
        }
        if let Some(evidence) = &mut self.evidence {
            evidence.forget_what_was(now());
        }
        let (mut from_front, mut to_front) = front.into_split();
        // From now on the front hears of every change before any answer that follows it.
        if !self
            .tell_if_changed(&Health::default(), &mut to_front)
            .await
        {
            return Ok(());
        }
        let mut changes = events.stream().await;
        let mut batch = Batch::of_others_than(std::mem::take(&mut self.own_name));
        let mut frame: Frame = [0; FRAME_BYTES];
        // Read piece by piece: an event in between must not lose the beginning of a frame.
        let mut filled = 0;
        loop {
            self.look_out();
            let (look_at, ends_at) = (self.looks.next, self.next_end());
            tokio::select! {
                // In this order: whoever waits is served before the next portion of a list.
                biased;
                read = from_front.read(&mut frame[filled..]) => {
                    match read {
                        // End of file: the front is gone, and with it the reason to run.
                        Ok(0) | Err(_) => return Ok(()),
                        Ok(count) => filled += count,
                    }
                    if filled < FRAME_BYTES {
                        continue;
                    }
                    filled = 0;
                    let Ok((sequence, request)) = Request::from_frame(&frame) else {
                        tracing::error!("the front sent bytes that are no message of ours: ending");
                        return Ok(());
                    };
                    let before = self.health.clone();
                    let (takes_away, may_end) = (request.may_take_evidence_away(), request.may_end_a_window());
                    if takes_away && !self.look_once_more(&mut to_front).await {
                        return Ok(());
                    }
                    let replies = self.obey(request).await;
                    if may_end && !self.look_once_more(&mut to_front).await {
                        return Ok(());
                    }
                    if !self.tell_if_changed(&before, &mut to_front).await {
                        return Ok(());
                    }
                    for reply in replies {
                        if to_front.write_all(&reply.to_frame(sequence)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                change = changes.next() => {
                    let Some(mut by) = batch.committed_by(change) else { continue };
                    // A busy host commits faster than its rules are read: what waits is one look.
                    for _ in 0..EVENTS_AT_ONCE {
                        let waiting = tokio::time::timeout(Duration::ZERO, changes.next());
                        let Ok(change) = waiting.await else { break };
                        if let Some(later) = batch.committed_by(change) {
                            by = by.and(later);
                        }
                    }
                    let before = self.health.clone();
                    self.look_after(&by).await;
                    if !self.tell_if_changed(&before, &mut to_front).await {
                        return Ok(());
                    }
                }
                (what, answer) = self.readings.answer() => {
                    let before = self.health.clone();
                    self.take_up(what, answer).await;
                    if !self.tell_if_changed(&before, &mut to_front).await {
                        return Ok(());
                    }
                }
                () = until(self.truce) => {
                    let before = self.health.clone();
                    self.try_again().await;
                    if !self.tell_if_changed(&before, &mut to_front).await {
                        return Ok(());
                    }
                }
                () = until(ends_at) => {
                    if !self.look_once_more(&mut to_front).await {
                        return Ok(());
                    }
                }
                () = until(look_at) => {
                    if !self.look_on(&mut to_front).await {
                        return Ok(());
                    }
                    tokio::task::yield_now().await;
                }
                () = until(self.fill_at) => {
                    let before = self.health.clone();
                    self.fill_on().await;
                    // The runtime looks who else waits only when a task pauses.
                    tokio::task::yield_now().await;
                    if !self.tell_if_changed(&before, &mut to_front).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Tells the front unasked how the kernel stands now; `false` when the front is gone.
    async fn tell_if_changed(&self, before: &Health, to_front: &mut OwnedWriteHalf) -> bool {
        if self.health == *before {
            return true;
        }
        let frame = Reply::Health(self.health.clone()).to_frame(0);
        to_front.write_all(&frame).await.is_ok()
    }

    async fn obey(&mut self, request: Request) -> Vec<Reply> {
        let done = match request {
            Request::Open(claim) => match self.open(claim).await {
                Ok(doubts) => return vec![self.cleared(&doubts)],
                Err(refusal) => Err(refusal),
            },
            Request::Check(claim) => match self.weigh(claim).await {
                Ok((.., doubts)) => return vec![self.cleared(&doubts)],
                Err(refusal) => Err(refusal),
            },
            Request::Bounds(claim) => match self.ready(&claim).await {
                Ok(scope) => self.book(claim, scope).map(drop),
                Err(refusal) => Err(refusal),
            },
            Request::Close(name) => {
                let mut windows = self.windows.clone();
                match windows.release(&name, now()) {
                    Some(lease) => self.commit(windows, &lease).await.map(drop),
                    None => Ok(()),
                }
            }
            Request::Snapshot => return self.snapshot(),
            Request::Prepare => {
                self.prepared = None;
                self.read(Read::Configuration);
                Ok(())
            }
            Request::Reload => self.reload().await,
            Request::Refresh => {
                self.read(Read::Lists);
                Ok(())
            }
            Request::Apply => {
                self.is_withdrawn = false;
                self.assert().await.map(drop).map_err(failed)
            }
            Request::Remove => self.remove().await,
        };
        vec![
            done.err()
                .unwrap_or_else(|| Reply::Health(self.health.clone())),
        ]
    }

    /// A success whose note is what may still be in the way.
    fn cleared(&self, doubts: &[String]) -> Reply {
        Reply::Health(Health {
            note: doubts.join("; "),
            surveyed: self.survey.surveyed(),
            ..self.health.clone()
        })
    }

    /// Opens, and tells what may still be in the way.
    async fn open(&mut self, claim: Claim) -> Result<Vec<String>, Reply> {
        let (windows, lease, doubts) = self.weigh(claim).await?;
        let renewed = self.windows.lease(&lease.name).cloned();
        if self.commit(windows, &lease).await? {
            return Ok(doubts);
        }
        // Somebody changed the ruleset between the survey and the window: what was found is void.
        match self.survey_for(&lease.scope).await {
            Ok(doubts) => Ok(doubts),
            Err(blocked) => {
                // As it was before: a lease that was to be renewed keeps its old time.
                let mut windows = self.windows.clone();
                windows.release(&lease.name, now());
                let before = match renewed {
                    Some(renewed) => {
                        windows.write_down(renewed.clone(), now());
                        renewed
                    }
                    None => lease,
                };
                self.commit(windows, &before).await?;
                Err(blocked)
            }
        }
    }

    /// Whether the packets could come in, as far as foreign chains go; tells what is doubtful.
    async fn survey_for(&mut self, scope: &Scope) -> Result<Vec<String>, Reply> {
        let settings = &self.orders.settings;
        if settings.mode == Mode::GateOnly {
            return Ok(Vec::new());
        }
        let nft = self.kernel.connection();
        match self.survey.look(nft, settings, scope).await {
            Ok(Finding::Clear { doubts }) => Ok(doubts),
            Ok(Finding::Shut(why)) => Err(Reply::Blocked(why)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Everything that opening needs but the change itself: the book as it would be.
    async fn weigh(&mut self, claim: Claim) -> Result<(Windows, Lease, Vec<String>), Reply> {
        let scope = self.ready(&claim).await?;
        let doubts = self.survey_for(&scope).await?;
        let (windows, lease) = self.book(claim, scope)?;
        Ok((windows, lease, doubts))
    }

    /// What the claim would open, if anything can be opened at the moment and this host has it.
    async fn ready(&mut self, claim: &Claim) -> Result<Scope, Reply> {
        if self.is_withdrawn {
            return Err(Reply::Failed(
                "the firewall part was taken away by `firewall remove`; `acmegate firewall apply` puts it back".to_owned(),
            ));
        }
        if self.orders.settings.mode != Mode::GateOnly && !self.health.is_installed {
            self.assert().await.map_err(failed)?;
        }
        let entrance = self.survey.locate(&claim.entrance).await.map_err(failed)?;
        Ok(Scope {
            ports: claim.ports.clone(),
            families: claim.families,
            entrance: entrance.ok_or(Reply::Refused(Refusal::Entrance))?,
            // The names themselves are the front's business; nothing here depends on them.
            identifiers: claim.is_scoped.then(Vec::new),
        })
    }

    /// The book with the claim in it, if the bounds allow it.
    fn book(&self, claim: Claim, scope: Scope) -> Result<(Windows, Lease), Reply> {
        let now = now();
        let lease = Lease {
            id: 0,
            name: claim.name.clone(),
            holder: claim.holder,
            caller: claim.caller,
            trigger: claim.trigger,
            scope,
            deadline: now + claim.length,
        };
        let mut windows = self.windows.clone();
        windows
            .acquire(lease, &self.orders.limits, now)
            .map_err(Reply::Refused)?;
        let lease = windows.lease(&claim.name).cloned();
        let lease = lease.ok_or_else(|| Reply::Failed("the lease was not kept".to_owned()))?;
        Ok((windows, lease))
    }

    /// Tells the kernel, and only then believes it. The answer is whether nobody else changed the
    /// ruleset since it was surveyed.
    async fn commit(&mut self, windows: Windows, lease: &Lease) -> Result<bool, Reply> {
        let settings = &self.orders.settings;
        let written = self
            .kernel
            .write(settings, &self.windows, &windows, lease, now())
            .await;
        if let Err(error) = written {
            // Perhaps our part was taken away a moment ago and the event is still on its way.
            tracing::warn!(%error, "the window could not be changed; looking after the table");
            let before = std::mem::replace(&mut self.windows, windows.clone());
            let ensured = self.ensure().await;
            self.windows = before;
            ensured.map_err(failed)?;
            let settings = &self.orders.settings;
            self.kernel
                .write_all(settings, &windows, now())
                .await
                .map_err(failed)?;
            self.kernel
                .write_memory(&windows, now())
                .await
                .map_err(failed)?;
            self.health.gaps += 1;
        }
        self.windows = windows;
        Ok(self.orders.settings.mode == Mode::GateOnly
            || self.survey.still_stands(self.kernel.connection()).await)
    }

    fn snapshot(&mut self) -> Vec<Reply> {
        let now = now();
        self.windows.expire(now);
        let leases = self.windows.leases().map(|lease| {
            Reply::Lease(Box::new(Claim {
                name: lease.name.clone(),
                holder: lease.holder.clone(),
                caller: lease.caller,
                trigger: lease.trigger,
                ports: lease.scope.ports.clone(),
                families: lease.scope.families,
                entrance: lease.scope.entrance.clone(),
                is_scoped: lease.scope.identifiers.is_some(),
                length: lease.deadline.saturating_duration_since(now),
            }))
        });
        let openings = self
            .windows
            .openings()
            .iter()
            .map(|opening| Reply::Opening {
                caller: opening.caller,
                left: opening.forgotten_at.saturating_duration_since(now),
            });
        let times = self
            .windows
            .usage()
            .slots()
            .map(|(account, slot)| Reply::Time {
                account: account.clone(),
                span: slot.span,
                spent: slot.spent,
                left: slot.forgotten_at.saturating_duration_since(now),
            });
        let health = std::iter::once(Reply::Health(self.health.clone()));
        leases.chain(openings).chain(times).chain(health).collect()
    }

    async fn remove(&mut self) -> Result<(), Reply> {
        self.windows.release_all(now());
        self.is_withdrawn = true;
        let done = match self.orders.settings.mode {
            Mode::GateOnly => Ok(()),
            _ => self.kernel.remove(&self.orders.settings).await,
        };
        self.health.is_installed = false;
        self.health.is_owned = false;
        self.health.note =
            "taken away by `firewall remove`: shut to the world in the gate itself".to_owned();
        done.map_err(failed)
    }
}

/// What the operator has still to provide is in the way, like a chain that drops.
fn failed(error: KernelError) -> Reply {
    match error.is_operators() {
        true => Reply::Blocked(error.to_string()),
        false => Reply::Failed(error.to_string()),
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) if instant <= now() => {}
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
