//! Leases, windows, graces and openings as set elements, put into one transaction.
//!
//! Elements are deleted and added, never added over: adding over a present one keeps its old
//! comment, and on older kernels its old timeout. Nothing is committed here.

use std::time::{Duration, Instant};

use nlink::netlink::nftables::{Set, SetElement, SetKeyType, Transaction};

use super::record;
use super::ruleset::{ForeignSet, Mode, Settings, budget_set, grace_set, lease_set, window_set};
use crate::gate::lease::{Family, Lease};
use crate::gate::window::{Opening, Windows};

pub(super) fn foreign(set: &ForeignSet) -> Set {
    Set::new(&set.table, &set.name)
        .family(set.family)
        .key_type(SetKeyType::InetService)
        .per_element_timeouts()
}

/// Puts an element in place, or takes it away, whether or not one is there: a bare delete of an
/// absent element fails the whole batch, and adding over a present one keeps the old comment.
pub(super) fn replace(
    change: Transaction,
    set: &Set,
    key: SetElement,
    with: Option<(Duration, Option<String>)>,
) -> Transaction {
    let there = [key.clone().with_timeout(Duration::from_secs(1))];
    let change = change
        .add_set_elements(set, &there)
        .del_set_elements(set, std::slice::from_ref(&key));
    let Some((timeout, comment)) = with.filter(|(timeout, _)| !timeout.is_zero()) else {
        return change;
    };
    let element = key.with_timeout(timeout);
    let element = match comment {
        Some(comment) => element.with_comment(comment),
        None => element,
    };
    change.add_set_elements(set, &[element])
}

pub(super) fn window_elements(
    mut change: Transaction,
    settings: &Settings,
    windows: &Windows,
    ports: &[u16],
    now: Instant,
) -> Transaction {
    let left =
        |until: Option<Instant>| until.map(|until| (until.saturating_duration_since(now), None));
    for port in ports {
        for family in Family::ALL {
            let open = left(windows.open_until(family, *port, now));
            let admitted = left(windows.admitted_until(family, *port, now));
            change = replace(change, &window_set(family), SetElement::port(*port), open);
            change = replace(
                change,
                &grace_set(family),
                SetElement::port(*port),
                admitted,
            );
        }
        if let Mode::Set { set, .. } = &settings.mode {
            let open = left(foreign_deadline(windows, *port, now));
            change = replace(change, &foreign(set), SetElement::port(*port), open);
        }
    }
    change
}

/// The administrator's set knows no family: it is open while the port is open for either.
pub(super) fn foreign_deadline(windows: &Windows, port: u16, now: Instant) -> Option<Instant> {
    Family::ALL
        .into_iter()
        .filter_map(|family| windows.open_until(family, port, now))
        .max()
}

pub(super) fn lease_element(
    change: Transaction,
    lease: &Lease,
    lives: bool,
    now: Instant,
) -> Transaction {
    let left = lease.deadline.saturating_duration_since(now);
    let with = lives.then(|| (left, Some(record::to_comment(lease))));
    replace(change, &lease_set(), SetElement::mark(lease.id), with)
}

pub(super) fn opening_element(change: Transaction, opening: Opening, now: Instant) -> Transaction {
    let left = opening.forgotten_at.saturating_duration_since(now);
    let with = Some((left, Some(opening.caller.to_string())));
    replace(change, &budget_set(), SetElement::mark(opening.id), with)
}

/// The key of an element of a `mark` set.
pub(super) fn number(element: &SetElement) -> Option<u32> {
    element.key().try_into().ok().map(u32::from_ne_bytes)
}

pub(super) fn all_elements(
    mut change: Transaction,
    settings: &Settings,
    windows: &Windows,
    now: Instant,
) -> Transaction {
    for lease in windows.leases() {
        change = lease_element(change, lease, true, now);
    }
    for opening in windows.openings() {
        change = opening_element(change, *opening, now);
    }
    window_elements(change, settings, windows, &settings.ports, now)
}
