//! Our table as a whole: made, taken over, or brought up to date in ways that lose no packet.

use std::time::Instant;

use nlink::netlink::nftables::{
    Family as NftFamily, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, Object, ObjectType, Rule,
    RuleSpec, Transaction,
};

use super::{ATTEMPTS, Ensured, Kernel};
use crate::firewall::allow::PORTION;
use crate::firewall::elements::all_elements;
use crate::firewall::error::{Doing, KernelError};
use crate::firewall::inspect::Extras;
use crate::firewall::names::TABLE;
use crate::firewall::rules::optional_chains;
use crate::firewall::ruleset::{Mode, Settings, evidence_sets};
use crate::firewall::{foreign, inspect};
use crate::gate::lease::Family;
use crate::gate::window::Windows;

impl Kernel {
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
        let (done, stands) = match inspect::table_flags(&self.nft).await? {
            None => {
                let change = self.nft.transaction();
                let waits = !self.has_stood && self.can_be_waited_for(&settings.allow);
                if waits && self.install(settings, windows, now, change).await? {
                    (Ensured::Installed, settings.clone())
                } else {
                    // Shut at once, to most of the allow-list too for as long as it takes.
                    let mut change = self.nft.transaction();
                    if inspect::table_flags(&self.nft).await?.is_some() {
                        change = change.del_table(TABLE, NftFamily::Inet);
                    }
                    let stands = settings.with_allow(settings.allow.at_once());
                    self.install(&stands, windows, now, change).await?;
                    (Ensured::Installed, stands)
                }
            }
            Some(flags) => {
                let adoptable = self.take_hold(settings, flags).await?;
                if adoptable
                    && !self.is_distrusted
                    && inspect::has_our_shape(&self.nft, settings).await?
                {
                    let done = self.update(settings, windows, now).await?;
                    (done, settings.clone())
                } else {
                    // Not recognisable: the one case in which a moment's packets may be lost.
                    let change = self
                        .nft
                        .transaction()
                        .expect_generation(generation)
                        .del_table(TABLE, NftFamily::Inet);
                    let stands = settings.with_allow(settings.allow.at_once());
                    self.install(&stands, windows, now, change).await?;
                    (Ensured::Installed, stands)
                }
            }
        };
        self.has_stood = true;
        // Ours first: a rule that accepts our mark is of use only where something sets it.
        let attached = foreign::attach(&self.nft, settings).await?;
        let done = match (done, attached) {
            (Ensured::Untouched, true) => Ensured::Updated,
            (Ensured::Installed, _) if stands.allow != settings.allow => Ensured::Shortened,
            (done, _) => done,
        };
        if done != Ensured::Untouched
            && !(inspect::is_current(&self.nft, &stands).await?
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

    /// Makes our table; `false` if its list could not be filled in time, and then without chains.
    async fn install(
        &mut self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
        change: Transaction,
    ) -> Result<bool, KernelError> {
        let flags = if settings.owned && self.can_own().await {
            NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST
        } else {
            0
        };
        let mut change = change.add_table_with_flags(TABLE, NftFamily::Inet, flags);
        for counter in settings.counters() {
            change = change.add_object(&Object::counter(TABLE, counter));
        }
        for set in settings.timed_sets() {
            change = change.add_set(set.to_set());
        }
        let list = &settings.allow;
        for family in Family::ALL {
            change = change.add_set(list.set(family));
        }
        if list.is_short() {
            for family in Family::ALL {
                let elements = list.elements(family, 0, PORTION);
                if !elements.is_empty() {
                    change = change.add_set_elements(&list.set(family), &elements);
                }
            }
        } else {
            // A long list is filled before any chain stands: until then the port is as it was.
            change.commit(&self.nft).await.doing("making our table")?;
            if !self.fill_at_once(list).await? {
                return Ok(false);
            }
            change = self.nft.transaction();
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
        self.start_list_over();
        self.is_distrusted = false;
        self.write_memory(windows, now).await?;
        Ok(true)
    }

    /// Brings the rules up to date and takes away the lists that they read before, chains and timed
    /// sets staying as they are.
    async fn update(
        &self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<Ensured, KernelError> {
        if inspect::rules_are_current(&self.nft, settings).await? {
            return Ok(Ensured::Untouched);
        }
        let stale = self.stale_lists(settings).await?;
        let stands = inspect::extras(&self.nft).await?;
        let wanted = Extras::of(settings);
        let mut change = self.nft.transaction();
        for counter in wanted.counters.difference(&stands.counters) {
            change = change.add_object(&Object::counter(TABLE, counter));
        }
        for set in evidence_sets() {
            if wanted.sets.contains(&set.name) && !stands.sets.contains(&set.name) {
                change = change.add_set(set.to_set());
            }
        }
        for chain in settings.chains() {
            let is_missing =
                wanted.chains.contains(chain.name) && !stands.chains.contains(chain.name);
            change = match is_missing {
                true => change.add_chain(chain.to_chain().doing("rendering a chain")?),
                false => change.flush_chain(TABLE, chain.name, NftFamily::Inet),
            };
            for rule in &chain.rules {
                change = change.add_rule(our_rule(chain.name, rule));
            }
        }
        change = without(change, &stands, &wanted);
        for set in &stale {
            change = change.del_set(TABLE, set, NftFamily::Inet);
        }
        change = all_elements(change, settings, windows, now);
        change.commit(&self.nft).await.doing("changing our rules")?;
        Ok(Ensured::Updated)
    }
}

/// Takes away what is no longer wanted of it.
fn without(mut change: Transaction, stands: &Extras, wanted: &Extras) -> Transaction {
    let is_gone = |name: &&str| stands.chains.contains(*name) && !wanted.chains.contains(*name);
    let gone: Vec<&str> = optional_chains().filter(is_gone).collect();
    for chain in &gone {
        change = change.flush_chain(TABLE, chain, NftFamily::Inet);
    }
    for chain in &gone {
        change = change.del_chain(TABLE, chain, NftFamily::Inet);
    }
    for set in stands.sets.difference(&wanted.sets) {
        change = change.del_set(TABLE, set, NftFamily::Inet);
    }
    for counter in stands.counters.difference(&wanted.counters) {
        change = change.del_object(TABLE, counter, ObjectType::Counter, NftFamily::Inet);
    }
    change
}

/// Somebody else changed the ruleset between our look and our change.
fn is_race(error: &nlink::Error) -> bool {
    error.is_restart() || error.is_busy() || error.is_not_found() || error.is_already_exists()
}

fn our_rule(chain: &str, spec: &RuleSpec) -> Rule {
    Rule::from_spec(TABLE, chain, spec.clone()).family(NftFamily::Inet)
}
