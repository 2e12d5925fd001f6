//! How many connections each source holds.
//!
//! Only held connections are counted: what is answered at once never comes here. So the table has
//! at most as many entries as the global cap allows connections, whatever the peers do.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Front, Limits, Settings, Speaks};
use crate::gate::Reason;

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
    /// Whether one more connection from `address` may be held.
    pub(super) fn admit(&self, address: IpAddr, limits: Limits) -> Result<(), Reason> {
        self.lock().admit(Source::of(address), limits)
    }

    /// How many connections are held.
    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code in here can leave the table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn admit(&self, source: Source, limits: Limits) -> Result<(), Reason> {
        if self.total >= limits.total {
            return Err(Reason::TotalLimit);
        }
        match self.held.get(&source) {
            Some(held) if *held >= limits.per_source => Err(Reason::SourceLimit),
            _ => Ok(()),
        }
    }
}

/// The place of one held connection; dropping it gives the place back.
pub(super) struct Ticket {
    front: Arc<Front>,
    speaks: Speaks,
    source: Source,
}

impl Ticket {
    /// Takes a place. The second value says whether three quarters of all places are taken.
    pub(super) fn take(
        front: &Arc<Front>,
        speaks: Speaks,
        address: IpAddr,
        settings: &Settings,
    ) -> Result<(Self, bool), Reason> {
        let source = Source::of(address);
        let limits = settings.limits(speaks);
        let mut table = front.sources(speaks).lock();
        table.admit(source, limits)?;
        table.total += 1;
        *table.held.entry(source).or_default() += 1;
        let is_pressed = table.total >= limits.total / 4 * 3;
        drop(table);
        let ticket = Self {
            front: Arc::clone(front),
            speaks,
            source,
        };
        Ok((ticket, is_pressed))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.front.sources(self.speaks).lock();
        table.total -= 1;
        if let Some(held) = table.held.get_mut(&self.source) {
            *held -= 1;
            if *held == 0 {
                table.held.remove(&self.source);
            }
        }
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
        assert_eq!(table.admit(a, limits), Ok(()));
        table.held.insert(a, 1);
        table.total = 1;
        assert_eq!(table.admit(a, limits), Err(Reason::SourceLimit));
        assert_eq!(table.admit(b, limits), Ok(()));
        table.total = 2;
        assert_eq!(table.admit(b, limits), Err(Reason::TotalLimit));
    }
}
