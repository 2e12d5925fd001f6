//! The kernel, asked over netlink: read, install, change and remove what is ours.
//!
//! It touches nothing but our table and, by `elements.rs` and `foreign.rs`, single elements of the
//! administrator's set and single rules in somebody else's chains. It never runs a program. A live table changes only in ways that lose no packet: chains and
//! sets stay, rules are flushed and added, lists are filled before any rule names them.

use std::collections::BTreeSet;
use std::time::Instant;

use nlink::netlink::nftables::{
    Family as NftFamily, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, Rule, RuleSpec, SetElement,
    Transaction,
};
use nlink::netlink::{Connection, Nftables};

use super::elements::{
    all_elements, door_elements, emptied, foreign_set, lease_element, number, opening_element,
    replace, replace_many, time_element,
};
use super::error::{Doing, KernelError};
use super::ruleset::{
    BUDGET_SET, ENTRANCE_SET, LEASE_SET, Mode, Settings, TABLE, USAGE_SET, budget_set, usage_set,
};
use super::{foreign, inspect, record};
use crate::gate::lease::{Door, Family, Lease};
use crate::gate::usage::{MAX_LENGTH, Slot};
use crate::gate::window::{BUDGET_SPAN, Opening, Windows};

/// Ranges that one message can hold: an nftables attribute ends at 64 KiB, a batch at the socket's
/// send buffer (212,992 octets by default).
const RANGES_PER_BATCH: usize = 700;
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
}

impl Kernel {
    /// Opens the socket; needs no privilege yet.
    ///
    /// # Errors
    /// [`KernelError::Refused`] when netlink sockets are refused.
    pub fn connect() -> Result<Self, KernelError> {
        Ok(Self {
            nft: Connection::<Nftables>::new().doing("opening a netlink socket")?,
            owned: false,
            can_own: None,
            is_distrusted: false,
            has_stood: false,
        })
    }

    /// The connection, for those who only read.
    pub fn connection(&self) -> &Connection<Nftables> {
        &self.nft
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

    /// Brings the kernel to what `settings` and `windows` say, whatever it was before, and reads
    /// it back.
    ///
    /// # Errors
    /// [`KernelError`]; then the port is as shut as it was.
    pub async fn ensure(
        &mut self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<Ensured, KernelError> {
        if settings.mode == Mode::GateOnly {
            return Ok(Ensured::Untouched);
        }
        match inspect::check_foreign(&self.nft, settings).await {
            // The others are attached to all the same; that one is missing is said in the end.
            Err(KernelError::NoForeignChain(_)) => {}
            checked => checked?,
        }
        let mut tries = ATTEMPTS;
        loop {
            tries -= 1;
            match self.ensure_once(settings, windows, now).await {
                Err(KernelError::Refused(_, error)) if tries > 0 && is_race(&error) => {}
                Err(error) => return Err(error),
                Ok(done) => return Ok(done),
            }
        }
    }

    async fn ensure_once(
        &mut self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<Ensured, KernelError> {
        let generation = self
            .nft
            .generation()
            .await
            .doing("reading the ruleset's generation")?;
        let done = match inspect::table_flags(&self.nft).await? {
            None => {
                self.install(settings, windows, now, self.nft.transaction())
                    .await?;
                Ensured::Installed
            }
            Some(flags) => {
                let adoptable = self.take_hold(settings, flags).await?;
                if adoptable
                    && !self.is_distrusted
                    && inspect::has_our_shape(&self.nft, settings).await?
                {
                    self.update(settings, windows, now).await?
                } else {
                    // Not recognisable: the one case in which a moment's packets may be lost.
                    let change = self
                        .nft
                        .transaction()
                        .expect_generation(generation)
                        .del_table(TABLE, NftFamily::Inet);
                    self.install(settings, windows, now, change).await?;
                    Ensured::Installed
                }
            }
        };
        self.has_stood = true;
        // Ours first: a rule that accepts our mark is of use only where something sets it.
        let attached = foreign::attach(&self.nft, settings).await?;
        let done = match (done, attached) {
            (Ensured::Untouched, true) => Ensured::Updated,
            (done, _) => done,
        };
        if done != Ensured::Untouched
            && !(inspect::is_current(&self.nft, settings).await?
                && foreign::is_attached(&self.nft, settings).await?)
        {
            return Err(KernelError::ReadBack(format!("table inet {TABLE}")));
        }
        Ok(done)
    }

    /// Makes the table ours if it can be: an orphan of a killed enforcer is adopted. `false` when
    /// only making it anew gives the ownership that is wanted.
    async fn take_hold(&mut self, settings: &Settings, flags: u32) -> Result<bool, KernelError> {
        if self.owned {
            return Ok(true);
        }
        if flags & NFT_TABLE_F_OWNER != 0 {
            return Err(KernelError::Owned);
        }
        if !settings.owned {
            return Ok(true);
        }
        if flags & NFT_TABLE_F_PERSIST == 0 {
            return Ok(!self.can_own().await);
        }
        let change = self.nft.transaction().update_table(
            TABLE,
            NftFamily::Inet,
            NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST,
        );
        change.commit(&self.nft).await.doing("adopting our table")?;
        self.owned = true;
        Ok(true)
    }

    /// Owned and persistent tables came with Linux 6.9. The kernel is asked, not its version: a
    /// table of a name that nobody uses is made and taken away in one transaction.
    async fn can_own(&mut self) -> bool {
        const PROBE: &str = "acmegate-probe";
        if let Some(known) = self.can_own {
            return known;
        }
        let flags = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST;
        let probe = self
            .nft
            .transaction()
            .add_table_with_flags(PROBE, NftFamily::Inet, flags)
            .del_table(PROBE, NftFamily::Inet);
        let can_own = probe.commit(&self.nft).await.is_ok();
        self.can_own = Some(can_own);
        can_own
    }

    async fn install(
        &mut self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
        change: Transaction,
    ) -> Result<(), KernelError> {
        let flags = if settings.owned && self.can_own().await {
            NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST
        } else {
            0
        };
        let mut change = change.add_table_with_flags(TABLE, NftFamily::Inet, flags);
        for set in settings.timed_sets() {
            change = change.add_set(set.to_set());
        }
        for family in Family::ALL {
            change = change.add_set(settings.allow_set(family));
        }
        let lists = Family::ALL.map(|family| settings.allow_elements(family));
        let small = lists.iter().flatten().map(Vec::len).sum::<usize>() <= RANGES_PER_BATCH;
        let is_filled_last = !small && self.has_stood;
        if is_filled_last {
            // Shut at once, to the allow-list too for as long as its lists take.
        } else if !small {
            // A long list is filled before any chain stands: until then the port is as it was.
            change.commit(&self.nft).await.doing("making our table")?;
            for family in Family::ALL {
                self.fill(settings, family).await?;
            }
            change = self.nft.transaction();
        } else {
            for family in Family::ALL {
                let elements = settings
                    .allow_elements(family)
                    .doing("rendering the allow-list")?;
                if !elements.is_empty() {
                    change = change.add_set_elements(&settings.allow_set(family), &elements);
                }
            }
        }
        // Elements before chains: a window that is open stays open through the change.
        change = all_elements(change, settings, windows, now);
        for chain in settings.chains() {
            change = change.add_chain(chain.to_chain().doing("rendering a chain")?);
            for rule in &chain.rules {
                change = change.add_rule(our_rule(chain.name, rule));
            }
        }
        change
            .commit(&self.nft)
            .await
            .doing("installing our table")?;
        self.owned = flags != 0;
        if is_filled_last {
            // Until its lists are whole it is no table to be recognised.
            self.is_distrusted = true;
            for family in Family::ALL {
                self.fill(settings, family).await?;
            }
        }
        self.is_distrusted = false;
        self.write_memory(windows, now).await
    }

    async fn fill(&self, settings: &Settings, family: Family) -> Result<(), KernelError> {
        let elements = settings
            .allow_elements(family)
            .doing("rendering the allow-list")?;
        for part in elements.chunks(RANGES_PER_BATCH) {
            let change = self
                .nft
                .transaction()
                .add_set_elements(&settings.allow_set(family), part);
            change
                .commit(&self.nft)
                .await
                .doing("filling the allow-list")?;
        }
        Ok(())
    }

    /// Brings rules and lists up to date, chains and timed sets staying as they are.
    async fn update(
        &self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<Ensured, KernelError> {
        if inspect::rules_are_current(&self.nft, settings).await? {
            return Ok(Ensured::Untouched);
        }
        let found = inspect::our_sets(&self.nft).await?;
        let wanted = Family::ALL.map(|family| settings.allow_set(family));
        for (family, set) in Family::ALL.into_iter().zip(&wanted) {
            if !found.iter().any(|old| old.name == set.name()) {
                let change = self.nft.transaction().add_set(set.clone());
                change
                    .commit(&self.nft)
                    .await
                    .doing("making the allow-list")?;
                self.fill(settings, family).await?;
            }
        }
        let mut change = self.nft.transaction();
        for chain in settings.chains() {
            change = change.flush_chain(TABLE, chain.name, NftFamily::Inet);
            for rule in &chain.rules {
                change = change.add_rule(our_rule(chain.name, rule));
            }
        }
        let stale = found.iter().filter(|old| {
            old.name.starts_with("allow") && !wanted.iter().any(|set| set.name() == old.name)
        });
        for old in stale {
            change = change.del_set(TABLE, &old.name, NftFamily::Inet);
        }
        change = all_elements(change, settings, windows, now);
        change.commit(&self.nft).await.doing("changing our rules")?;
        Ok(Ensured::Updated)
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
        // Their numbers only grow.
        let last = before.openings().iter().map(|opening| opening.id).max();
        let openings: Vec<SetElement> = (windows.openings().iter())
            .filter(|opening| last.is_none_or(|last| opening.id > last))
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

/// Somebody else changed the ruleset between our look and our change.
fn is_race(error: &nlink::Error) -> bool {
    error.is_restart() || error.is_busy() || error.is_not_found() || error.is_already_exists()
}

fn our_rule(chain: &str, spec: &RuleSpec) -> Rule {
    Rule::from_spec(TABLE, chain, spec.clone()).family(NftFamily::Inet)
}
