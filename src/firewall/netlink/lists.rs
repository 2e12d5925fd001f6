//! The allow-list's sets: filled portion by portion, and read by a rule only when they are whole.
//!
//! What a rule of a recognisable table of ours reads is whole. What none reads is half filled or out of
//! date, whoever left it, and goes. Opening a window takes microseconds but waits for a portion that is
//! being written, so portions are small; only where nothing stands yet, and so nothing waits, are they
//! large.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nlink::netlink::nftables::{Family as NftFamily, Transaction};
use rustix::net::sockopt::set_socket_send_buffer_size_force;

use super::{Ensured, Kernel};
use crate::firewall::allow::{Listed, PORTION};
use crate::firewall::error::{Doing, KernelError};
use crate::firewall::inspect;
use crate::firewall::names::TABLE;
use crate::firewall::ruleset::Settings;
use crate::gate::lease::Family;
use crate::gate::window::Windows;

/// The send buffer that is asked for, in octets: a batch of [`LARGE`] portions, 150 octets a range.
const BATCH_BYTES: usize = 32 * 1024 * 1024;
/// Portions of one batch where the kernel granted that.
const LARGE: usize = 200;
/// How long a start waits for a list, whose front waits for a minute.
const WAITED_LONGEST: Duration = Duration::from_secs(20);
/// Ranges that a start waits for even if it must write them portion by portion (half a second). More
/// are filled in later, beside a table that is shut to all but local networks.
const WAITED_FOR: usize = 100_000;

/// A list on its way into the kernel.
#[derive(Debug)]
pub(super) struct Filling {
    target: Listed,
    /// Its sets are there.
    is_made: bool,
    /// How many ranges are, of each family.
    done: [usize; 2],
}

impl Filling {
    fn of(target: Listed) -> Self {
        Self {
            target,
            is_made: false,
            done: [0; 2],
        }
    }
}

/// How many ranges of a list that is on its way are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many.
    pub done: usize,
    /// Of so many.
    pub of: usize,
}

impl Kernel {
    /// Asks for room for large batches. Only CAP_NET_ADMIN of the first user namespace gets it, and
    /// before the process is sealed.
    pub(super) fn ask_for_room(&mut self) {
        let socket = self.nft.socket();
        self.has_room = set_socket_send_buffer_size_force(socket, BATCH_BYTES).is_ok();
    }

    /// Whether a start may wait until `list` is filled.
    pub(super) fn can_be_waited_for(&self, list: &Listed) -> bool {
        self.has_room || list.count() <= WAITED_FOR
    }

    /// The list whose sets the rules of a standing table read, which may be by name alone; the sets
    /// that none reads are taken away. Where nothing recognisable stands it is `wanted`.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub async fn take_over_list(&mut self, wanted: &Listed) -> Result<Listed, KernelError> {
        if inspect::table_flags(&self.nft).await?.is_none() {
            return Ok(wanted.clone());
        }
        Ok(match inspect::lists_in_use(&self.nft).await? {
            Some(names) if names == *wanted.names() => wanted.clone(),
            Some(names) => Listed::by_name(names, wanted),
            None => wanted.clone(),
        })
    }

    /// From now on `target` is on its way; what was before it is given up.
    pub fn begin_list(&mut self, target: Listed) {
        self.filling = Some(Filling::of(target));
    }

    /// Nothing is on its way any more. Its sets go with the next change of rules, or the next list.
    pub fn end_list(&mut self) {
        self.filling = None;
    }

    /// The list that is on its way.
    pub fn list_on_its_way(&self) -> Option<&Listed> {
        self.filling.as_ref().map(|filling| &filling.target)
    }

    /// How far it is.
    pub fn progress(&self) -> Option<Progress> {
        let filling = self.filling.as_ref()?;
        Some(Progress {
            done: filling.done.iter().sum(),
            of: filling.target.count(),
        })
    }

    /// The table is another: what was written of a list is gone with the old one.
    pub(super) fn start_list_over(&mut self) {
        if let Some(filling) = &mut self.filling {
            *filling = Filling::of(filling.target.clone());
        }
    }

    /// The sets that rules of `settings` do not read and that nothing is on its way in.
    pub(super) async fn stale_lists(
        &self,
        settings: &Settings,
    ) -> Result<BTreeSet<String>, KernelError> {
        let filling = self.filling.iter().filter(|filling| filling.is_made);
        let kept: Vec<&String> = (settings.allow.names().iter())
            .chain(filling.flat_map(|filling| filling.target.names()))
            .collect();
        let found = inspect::our_sets(&self.nft).await?;
        let lists = found.into_iter().map(|set| set.name);
        Ok(lists
            .filter(|name| Listed::is_one(name) && !kept.contains(&name))
            .collect())
    }

    /// Takes away what no rule of `settings` reads; says whether there was anything.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub async fn sweep_lists(&self, settings: &Settings) -> Result<bool, KernelError> {
        let stale = self.stale_lists(settings).await?;
        if stale.is_empty() {
            return Ok(false);
        }
        let change = without(self.nft.transaction(), &stale);
        let done = change.commit(&self.nft).await;
        done.doing("taking old lists away").map(|()| true)
    }

    /// Writes the next portion of the list that is on its way, beside the one that `settings` stand
    /// with. `true` when it is whole: then rules may read it.
    ///
    /// # Errors
    /// [`KernelError::Refused`]; the next call tries the same portion again.
    pub async fn fill_on(&mut self, settings: &Settings) -> Result<bool, KernelError> {
        let Some(filling) = &self.filling else {
            return Ok(true);
        };
        if !filling.is_made {
            let stale = self.stale_lists(settings).await?;
            let mut change = without(self.nft.transaction(), &stale);
            for family in missing(&filling.target, &settings.allow) {
                change = change.add_set(filling.target.set(family));
            }
            change
                .commit(&self.nft)
                .await
                .doing("making the allow-list")?;
        } else if let Some((family, from)) = next(filling, &settings.allow) {
            let portion = filling.target.elements(family, from, PORTION);
            let set = filling.target.set(family);
            let change = self.nft.transaction().add_set_elements(&set, &portion);
            change
                .commit(&self.nft)
                .await
                .doing("filling the allow-list")?;
        }
        let Some(filling) = &mut self.filling else {
            return Ok(true);
        };
        match next(filling, &settings.allow) {
            Some((family, from)) if filling.is_made => {
                let count = filling.target.count_of(family);
                filling.done[family as usize] = count.min(from + PORTION);
            }
            _ => {}
        }
        filling.is_made = true;
        Ok(next(filling, &settings.allow).is_none())
    }

    /// Writes all of a list into sets that stand and that nothing reads yet; `false` if that takes too
    /// long.
    pub(super) async fn fill_at_once(&self, list: &Listed) -> Result<bool, KernelError> {
        let begun = tokio::time::Instant::now();
        let portions = if self.has_room { LARGE } else { 1 };
        for family in Family::ALL {
            let set = list.set(family);
            let starts: Vec<usize> = (0..list.count_of(family)).step_by(PORTION).collect();
            for batch in starts.chunks(portions) {
                if begun.elapsed() > WAITED_LONGEST {
                    return Ok(false);
                }
                let mut change = self.nft.transaction();
                for from in batch {
                    change = change.add_set_elements(&set, &list.elements(family, *from, PORTION));
                }
                change
                    .commit(&self.nft)
                    .await
                    .doing("filling the allow-list")?;
            }
        }
        Ok(true)
    }

    /// [`Kernel::ensure`], and waits until the whole list stands: for who has nothing else to do.
    ///
    /// # Errors
    /// As [`Kernel::ensure`].
    pub async fn ensure_whole(
        &mut self,
        settings: &Settings,
        windows: &Windows,
        now: Instant,
    ) -> Result<Ensured, KernelError> {
        let mut standing = settings.with_allow(self.take_over_list(&settings.allow).await?);
        let mut all = Ensured::Untouched;
        loop {
            let done = self.ensure(&standing, windows, now).await?;
            if all == Ensured::Untouched {
                all = done;
            }
            if done == Ensured::Shortened {
                standing.allow = standing.allow.at_once();
            }
            if standing.allow == settings.allow {
                self.end_list();
                self.sweep_lists(settings).await?;
                return Ok(all);
            }
            self.begin_list(settings.allow.clone());
            while !self.fill_on(&standing).await? {}
            standing.allow = settings.allow.clone();
        }
    }
}

/// The families whose set is not the one that stands.
fn missing(target: &Listed, standing: &Listed) -> impl Iterator<Item = Family> {
    let pairs = Family::ALL.into_iter().zip(target.names());
    let missing = pairs.zip(standing.names());
    let missing: Vec<Family> = missing
        .filter(|((_, name), stands)| name != stands)
        .map(|((family, _), _)| family)
        .collect();
    missing.into_iter()
}

/// Where the next portion begins.
fn next(filling: &Filling, standing: &Listed) -> Option<(Family, usize)> {
    missing(&filling.target, standing)
        .map(|family| (family, filling.done[family as usize]))
        .find(|(family, done)| *done < filling.target.count_of(*family))
}

fn without(change: Transaction, sets: &BTreeSet<String>) -> Transaction {
    sets.iter().fold(change, |change, set| {
        change.del_set(TABLE, set, NftFamily::Inet)
    })
}
