//! How many connections each source holds.
//!
//! Only held connections are counted: what is answered at once never comes here. So the table has
//! at most as many entries as the global cap allows connections, whatever the peers do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Front, Limits, Settings, Speaks};
use crate::gate::Reason;
use crate::locked::locked;

/// Who counts as one source: an IPv4 address, or the /64 that an IPv6 host chooses from freely
/// (RFC 4291 §2.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The table of all listeners of a front.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    held: HashMap<Source, usize>,
    total: usize,
}

impl Sources {
    /// Whether one more connection from `address` may be held; `None` is nobody's in particular.
    pub(super) fn admit(&self, address: Option<IpAddr>, limits: Limits) -> Result<(), Reason> {
        self.lock().admit(address.map(Source::of), limits)
    }

    /// How many connections are held.
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        locked(&self.0)
    }
}

impl Table {
    fn admit(&self, source: Option<Source>, limits: Limits) -> Result<(), Reason> {
        if self.total >= limits.total {
            return Err(Reason::TotalLimit);
        }
        self.has_room(source, limits)
    }

    /// Whether three quarters of all places are taken.
    fn is_pressed(&self, limits: Limits) -> bool {
        self.total * 4 >= limits.total * 3
    }

    fn has_room(&self, source: Option<Source>, limits: Limits) -> Result<(), Reason> {
        let held = source.and_then(|source| self.held.get(&source));
        match held {
            Some(held) if *held >= limits.per_source => Err(Reason::SourceLimit),
            _ => Ok(()),
        }
    }

    fn count(&mut self, source: Option<Source>) {
        if let Some(source) = source {
            *self.held.entry(source).or_default() += 1;
        }
    }

    fn discount(&mut self, source: Option<Source>) {
        if let Some(source) = source
            && let Some(held) = self.held.get_mut(&source)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&source);
            }
        }
    }
}

/// The place of one held connection; dropping it gives the place back.
pub(super) struct Ticket {
    front: Arc<Front>,
    speaks: Speaks,
    source: Option<Source>,
}

impl Ticket {
    /// Takes a place, of nobody's share if it is not known whose. The second value says whether three
    /// quarters of all places are taken.
    pub(super) fn take(
        front: &Arc<Front>,
        speaks: Speaks,
        address: Option<IpAddr>,
        settings: &Settings,
    ) -> Result<(Self, bool), Reason> {
        let source = address.map(Source::of);
        let limits = settings.limits(speaks);
        let mut table = front.sources(speaks).lock();
        table.admit(source, limits)?;
        table.total += 1;
        table.count(source);
        let is_pressed = table.is_pressed(limits);
        drop(table);
        let ticket = Self {
            front: Arc::clone(front),
            speaks,
            source,
        };
        Ok((ticket, is_pressed))
    }

    /// From now on the place is of this source's share.
    pub(super) fn pass_to(
        &mut self,
        address: Option<IpAddr>,
        settings: &Settings,
    ) -> Result<(), Reason> {
        let source = address.map(Source::of);
        if source == self.source {
            return Ok(());
        }
        let mut table = self.front.sources(self.speaks).lock();
        table.has_room(source, settings.limits(self.speaks))?;
        table.count(source);
        table.discount(std::mem::replace(&mut self.source, source));
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.front.sources(self.speaks).lock();
        table.total -= 1;
        table.discount(self.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_a_64() {
        let source = |address: &str| Source::of(address.parse().unwrap());
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
    }

    #[test]
    fn the_total_is_refused_before_the_source() {
        let limits = Limits {
            total: 2,
            per_source: 1,
        };
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|text| Source::of(text.parse().unwrap()));
        let mut table = Table::default();
        assert_eq!(table.admit(Some(a), limits), Ok(()));
        table.held.insert(a, 1);
        table.total = 1;
        assert_eq!(table.admit(None, limits), Ok(()));
        assert_eq!(table.admit(Some(a), limits), Err(Reason::SourceLimit));
        assert_eq!(table.admit(Some(b), limits), Ok(()));
        table.total = 2;
        for anybody in [Some(b), None] {
            assert_eq!(table.admit(anybody, limits), Err(Reason::TotalLimit));
        }
    }

    #[test]
    fn three_quarters_are_no_less_whatever_the_total_is() {
        for (total, least) in [(16, 12), (17, 13), (18, 14), (19, 15), (20, 15)] {
            let limits = Limits {
                total,
                per_source: total,
            };
            let is_pressed = |taken| {
                let table = Table {
                    total: taken,
                    ..Table::default()
                };
                table.is_pressed(limits)
            };
            assert!(
                is_pressed(least) && !is_pressed(least - 1),
                "{least} of {total}"
            );
        }
    }
}
