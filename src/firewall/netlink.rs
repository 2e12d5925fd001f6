//! The kernel, asked over netlink: read, install, change and remove what is ours.
//!
//! It touches nothing but our table and, by `elements.rs` and `foreign.rs`, single elements of the
//! administrator's set and single rules in somebody else's chains. It never runs a program. A live
//! table changes only in ways that lose no packet: chains and sets stay, rules are flushed and
//! added, lists are filled before any rule names them.

mod lists;
mod table;

use std::collections::BTreeSet;
use std::time::Instant;

use nlink::netlink::nftables::{Family as NftFamily, NFT_TABLE_F_OWNER, SetElement};
use nlink::netlink::{Connection, Nftables};

use self::lists::Filling;
pub use self::lists::Progress;
use super::elements::{
    all_elements, door_elements, emptied, foreign_set, lease_element, number, opening_element,
    replace, replace_many, time_element,
};
use super::error::{Doing, KernelError};
use super::names::{BUDGET_SET, ENTRANCE_SET, LEASE_SET, TABLE, USAGE_SET};
use super::ruleset::{Mode, Settings, budget_set, usage_set};
use super::{foreign, inspect, record};
use crate::gate::lease::{Door, Lease};
use crate::gate::usage::{MAX_LENGTH, Slot};
use crate::gate::window::{BUDGET_SPAN, Opening, Windows};

/// Openings and slots of time that one batch holds: about 200 octets each.
const MEMORIES_PER_BATCH: usize = 512;
/// How often a look-then-change is begun anew because somebody else changed the ruleset between.
const ATTEMPTS: usize = 10;

/// What making sure had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// Everything was there.
    Untouched,
    /// Rules or lists were brought up to date in place.
    Updated,
    /// The table was not there, or could not be recognised, and was made.
    Installed,
    /// The same, but its list is a long one: what is at once there of it stands, and the rest has to
    /// be filled in.
    Shortened,
}

/// What of ours stands in the kernel, for who only looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Our table is there.
    pub stands: bool,
    /// A living socket owns it.
    pub owned: bool,
    /// The rules that limit where the daemon's account connects to, in nft's words, in order.
    pub confined: Vec<String>,
}

/// Our hold on the kernel: one socket for the whole life of the process, because an owned table
/// belongs to the socket that made or adopted it.
pub struct Kernel {
    nft: Connection<Nftables>,
    owned: bool,
    can_own: Option<bool>,
    is_distrusted: bool,
    /// Our table stood before: what takes its place must be shut first and complete later.
    has_stood: bool,
    /// The socket takes large batches.
    has_room: bool,
    /// The allow-list that is to stand next.
    filling: Option<Filling>,
}

impl Kernel {
    /// Opens the socket; needs no privilege yet.
    ///
    /// # Errors
    /// [`KernelError::Refused`] when netlink sockets are refused.
    pub fn connect() -> Result<Self, KernelError> {
        let mut kernel = Self {
            nft: Connection::<Nftables>::new().doing("opening a netlink socket")?,
            owned: false,
            can_own: None,
            is_distrusted: false,
            has_stood: false,
            has_room: false,
            filling: None,
        };
        kernel.ask_for_room();
        Ok(kernel)
    }

    /// The connection, for those who only read.
    pub fn connection(&self) -> &Connection<Nftables> {
        &self.nft
    }

    /// What of ours stands now. Changes nothing.
    ///
    /// # Errors
    /// [`KernelError::Refused`], without CAP_NET_ADMIN too.
    pub async fn standing(&self) -> Result<Standing, KernelError> {
        let Some(flags) = inspect::table_flags(&self.nft).await? else {
            return Ok(Standing::default());
        };
        Ok(Standing {
            stands: true,
            owned: flags & NFT_TABLE_F_OWNER != 0,
            confined: inspect::confinement(&self.nft).await?,
        })
    }

    /// Somebody wrote into our sets: the next look takes the whole table for unrecognisable.
    pub fn distrust(&mut self) {
        self.is_distrusted = true;
    }

    /// Whether nobody else can change our table.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Reads the leases, openings and times that the kernel kept.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub async fn adopt(&self, now: Instant) -> Result<Windows, KernelError> {
        let mut windows = Windows::default();
        if inspect::table_flags(&self.nft).await?.is_none() {
            return Ok(windows);
        }
        let entrances = inspect::elements(&self.nft, ENTRANCE_SET).await?;
        for element in inspect::elements(&self.nft, LEASE_SET).await? {
            let left = element.expiration().unwrap_or_default();
            let entrance = entrances
                .iter()
                .find(|entrance| entrance.key() == element.key())
                .and_then(SetElement::comment);
            let lease = element
                .comment()
                .and_then(|comment| record::from_comment(comment, entrance, now + left));
            if let (Some(lease), Some(id)) = (lease, number(&element)) {
                windows.adopt(Lease { id, ..lease });
            }
        }
        for element in inspect::elements(&self.nft, BUDGET_SET).await? {
            let caller = element.comment().and_then(|comment| comment.parse().ok());
            let left = element.expiration().unwrap_or_default().min(BUDGET_SPAN);
            if let (Some(caller), Some(id)) = (caller, number(&element)) {
                windows.adopt_opening(Opening {
                    id,
                    caller,
                    forgotten_at: now + left,
                });
            }
        }
        for element in inspect::elements(&self.nft, USAGE_SET).await? {
            let time = element.comment().and_then(record::time_from_comment);
            if let (Some((account, span, spent)), Some(id)) = (time, number(&element)) {
                let longest = span.length() + span.slot() + MAX_LENGTH;
                let left = element.expiration().unwrap_or(longest).min(longest);
                let slot = Slot {
                    id,
                    span,
                    spent,
                    forgotten_at: now + left,
                };
                windows.adopt_time(account, slot);
            }
        }
        Ok(windows)
    }

    /// Tells the kernel of one lease, from the book as it was to the book as it is: acquired or
    /// renewed when `windows` holds it, else released. The opening and the time that it takes, or
    /// gives back, are remembered in the same transaction.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    pub async fn write(
        &self,
        settings: &Settings,
        before: &Windows,
        windows: &Windows,
        changed: &Lease,
        now: Instant,
    ) -> Result<(), KernelError> {
        if settings.mode == Mode::GateOnly {
            return Ok(());
        }
        // A renewal may leave a door out, which then closes now and not at its old time.
        let earlier = before.lease(&changed.name).into_iter();
        let doors: BTreeSet<Door> = (earlier.chain([changed]))
            .flat_map(|lease| lease.scope.doors())
            .collect();
        let openings: Vec<SetElement> = (windows.openings_since(before, now))
            .filter_map(|opening| opening_element(opening, now))
            .collect();
        let (taken, given_back) = windows.usage().changes_since(before.usage());
        let taken: Vec<SetElement> = (taken.iter())
            .filter_map(|(account, slot)| time_element(account, slot, now))
            .collect();
        let mut tries = ATTEMPTS;
        loop {
            tries -= 1;
            let mut change = self.nft.transaction();
            change = lease_element(change, changed, windows.lease(&changed.name).is_some(), now);
            change = door_elements(change, settings, windows, &doors, now);
            change = replace_many(change, &budget_set().to_set(), &openings, &[]);
            change = replace_many(change, &usage_set().to_set(), &taken, &given_back);
            match change.commit(&self.nft).await {
                Err(error) if tries > 0 && (error.is_restart() || error.is_busy()) => {}
                done => return done.doing("changing the window"),
            }
        }
    }

    /// Takes away what an earlier run left in other people's chains and this one does not name.
    ///
    /// # Errors
    /// [`KernelError`], after everything was tried.
    pub async fn sweep(&self, settings: &Settings) -> Result<(), KernelError> {
        let kept = match &settings.mode {
            Mode::Attach(chains) => chains.as_slice(),
            Mode::Guard | Mode::Set(_) | Mode::GateOnly => &[],
        };
        foreign::detach(&self.nft, kept).await
    }

    /// Empties every set of doors and fills it again, in one transaction: what somebody may have put
    /// there is gone, and what is open stays so.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    pub async fn rewrite(
        &self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<(), KernelError> {
        let mut change = self.nft.transaction();
        for set in settings.door_sets() {
            change = emptied(change, &set.name);
        }
        change = all_elements(change, settings, windows, now);
        change.commit(&self.nft).await.doing("writing the windows")
    }

    /// Writes every lease, window and grace anew, with the time that is left.
    ///
    /// # Errors
    /// [`KernelError`]; then nothing has changed.
    pub async fn write_all(
        &self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<(), KernelError> {
        if settings.mode == Mode::GateOnly {
            return Ok(());
        }
        let change = all_elements(self.nft.transaction(), settings, windows, now);
        change.commit(&self.nft).await.doing("writing the windows")
    }

    /// Writes anew what the budget remembers, of which there may be thousands: piece by piece, for no
    /// rule reads it.
    ///
    /// # Errors
    /// [`KernelError`]; then a part of it is written.
    pub async fn write_memory(&self, windows: &Windows, now: Instant) -> Result<(), KernelError> {
        let openings = windows.openings().iter();
        let openings: Vec<_> = openings
            .filter_map(|opening| opening_element(opening, now))
            .collect();
        let times = windows.usage().slots();
        let times: Vec<_> = times
            .filter_map(|(account, slot)| time_element(account, slot, now))
            .collect();
        for (set, elements) in [(budget_set(), openings), (usage_set(), times)] {
            for part in elements.chunks(MEMORIES_PER_BATCH) {
                let change = replace_many(self.nft.transaction(), &set.to_set(), part, &[]);
                let done = change.commit(&self.nft).await;
                done.doing("writing what the budget remembers")?;
            }
        }
        Ok(())
    }

    /// Takes away everything that is ours. What is not there is not missed.
    ///
    /// # Errors
    /// [`KernelError::Refused`], after everything was tried.
    pub async fn remove(&mut self, settings: &Settings) -> Result<(), KernelError> {
        let mut first_error = foreign::detach(&self.nft, &[]).await;
        if let Mode::Set(set) = &settings.mode
            && inspect::check_foreign_set(&self.nft, settings)
                .await
                .is_ok()
        {
            let mut change = self.nft.transaction();
            for port in &settings.ports {
                change = replace(change, &foreign_set(set), SetElement::port(*port), None);
            }
            let done = change.commit(&self.nft).await;
            first_error = first_error.and(done.doing("taking our elements away"));
        }
        if inspect::table_flags(&self.nft).await?.is_some() {
            let change = self.nft.transaction().del_table(TABLE, NftFamily::Inet);
            match change.commit(&self.nft).await {
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_permission_denied() => return Err(KernelError::Owned),
                done => done.doing("taking our table away")?,
            }
        }
        self.owned = false;
        first_error
    }
}
