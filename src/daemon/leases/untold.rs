//! Leases whose openers have not heard of them yet. It decides nothing about windows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::control::protocol::Acquired;
use crate::gate::lease::LeaseName;
use crate::locked::locked;

/// Which, and by which opening last. A lease that nobody has heard of is nobody's: whoever opens it meanwhile
/// acquires it as well, and who has given up withdraws no more than its own opening.
#[derive(Debug, Default)]
pub struct Untold(Mutex<Openings>);

#[derive(Debug, Default)]
struct Openings {
    count: u64,
    last: HashMap<LeaseName, u64>,
}

impl Untold {
    /// Whether nobody has heard of it yet.
    pub fn has(&self, lease: &LeaseName) -> bool {
        self.lock().last.contains_key(lease)
    }

    /// Writes down an opening that somebody is to be told of.
    pub fn add(&self, lease: &LeaseName) -> Acquired {
        let mut openings = self.lock();
        openings.count += 1;
        let opening = openings.count;
        openings.last.insert(lease.clone(), opening);
        Acquired {
            lease: lease.clone(),
            opening,
        }
    }

    /// Somebody has heard of it: from now on an opening of it is a renewal.
    pub fn told(&self, lease: &LeaseName) {
        self.lock().last.remove(lease);
    }

    /// Whether nobody else opened it since, and nobody has heard of it; then it is forgotten.
    pub fn take(&self, acquired: &Acquired) -> bool {
        let mut openings = self.lock();
        let is_last = openings.last.get(&acquired.lease) == Some(&acquired.opening);
        if is_last {
            openings.last.remove(&acquired.lease);
        }
        is_last
    }

    fn lock(&self) -> MutexGuard<'_, Openings> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_who_gives_up_takes_it_unless_another_has_heard_of_it() {
        let lease = LeaseName::parse("a").unwrap();
        let untold = Untold::default();
        let (first, second) = (untold.add(&lease), untold.add(&lease));
        assert!(!untold.take(&first), "the second has it");
        assert!(untold.has(&lease));
        assert!(untold.take(&second), "nobody has it");
        assert!(!untold.has(&lease) && !untold.take(&second));

        let (first, second) = (untold.add(&lease), untold.add(&lease));
        untold.told(&first.lease);
        assert!(!untold.take(&second), "the first has heard of it");
    }
}
