//! Leases, windows, graces and openings as set elements, put into one transaction.
//!
//! Elements are deleted and added, never added over: adding over a present one keeps its old
//! comment, and on older kernels its old timeout. Nothing is committed here.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nlink::netlink::MessageBuilder;
use nlink::netlink::nftables::{
    Family as NftFamily, NFT_MSG_DELSETELEM, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE,
    RawMessage, Set, SetElement, SetKeyType, Transaction,
};

use super::names::TABLE;
use super::record;
use super::ruleset::{
    Doors, ForeignSet, Mode, Settings, door_element, entrance_set, lease_set, opened_set,
};
use crate::gate::lease::{Door, Entrance, Family, Lease};
use crate::gate::usage::{Account, Slot};
use crate::gate::window::{Opening, Windows};

/// Elements that one message holds: each is about a hundred octets, and an attribute ends at 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 256;

pub(super) fn foreign_set(set: &ForeignSet) -> Set {
    Set::new(&set.table, &set.name)
        .family(set.family)
        .key_type(SetKeyType::InetService)
        .per_element_timeouts()
}

/// Takes every element out of a set of ours: a deletion that names none (nft's `flush set`), which nlink
/// does not model.
pub(super) fn emptied(change: Transaction, set: &str) -> Transaction {
    let mut message = MessageBuilder::new(0, 0);
    let header = message.len();
    message.append_attr_str(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    message.append_attr_str(NFTA_SET_ELEM_LIST_SET, set);
    let attributes = message.as_bytes()[header..].to_vec();
    change.raw(RawMessage::new(NFT_MSG_DELSETELEM, NftFamily::Inet).attrs(attributes))
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

/// Every door that a change concerns, and those of every port where nothing is known of it: what
/// is not in the book is not in the kernel.
pub(super) fn door_elements(
    mut change: Transaction,
    settings: &Settings,
    windows: &Windows,
    doors: &BTreeSet<Door>,
    now: Instant,
) -> Transaction {
    let left =
        |until: Option<Instant>| until.map(|until| (until.saturating_duration_since(now), None));
    for door in doors {
        let (set, element) = door_element(Doors::Window, door);
        change = replace(change, &set, element, left(windows.open_until(door, now)));
        let (set, element) = door_element(Doors::Grace, door);
        change = replace(
            change,
            &set,
            element,
            left(windows.admitted_until(door, now)),
        );
    }
    if let Mode::Set(set) = &settings.mode {
        let ports: BTreeSet<u16> = doors.iter().map(|door| door.port).collect();
        for port in ports {
            let open = left(foreign_deadline(settings, windows, port, now));
            let element = SetElement::port(port);
            change = replace(
                change,
                &opened_set().to_set(),
                element.clone(),
                open.clone(),
            );
            change = replace(change, &foreign_set(set), element, open);
        }
    }
    change
}

/// The administrator's set knows neither family nor entrance: it is open while the port is open at
/// all. Where peers are diverted nothing is tracked, and their chain asks it for every packet: then it
/// stays for the grace, in which our own table shuts the port to whoever is new.
pub(super) fn foreign_deadline(
    settings: &Settings,
    windows: &Windows,
    port: u16,
    now: Instant,
) -> Option<Instant> {
    let is_of_port = |door: &Door| door.port == port;
    match settings.diverted(port) {
        Some(_) => windows.admitted_where(is_of_port, now),
        None => windows.open_where(is_of_port, now),
    }
}

pub(super) fn lease_element(
    change: Transaction,
    lease: &Lease,
    lives: bool,
    now: Instant,
) -> Transaction {
    let left = lease.deadline.saturating_duration_since(now);
    let with = lives.then(|| (left, Some(record::to_comment(lease))));
    let key = SetElement::mark(lease.id);
    let change = replace(change, &lease_set().to_set(), key.clone(), with);
    let entrance = record::entrance_comment(&lease.scope.entrance).filter(|_| lives);
    let with = entrance.map(|entrance| (left, Some(entrance)));
    replace(change, &entrance_set().to_set(), key, with)
}

/// An opening as the element that remembers it.
pub(super) fn opening_element(opening: &Opening, now: Instant) -> Option<SetElement> {
    let left = opening.forgotten_at.saturating_duration_since(now);
    let element = SetElement::mark(opening.id).with_timeout(left);
    (!left.is_zero()).then(|| element.with_comment(opening.caller.to_string()))
}

/// A slot of time as the element that remembers it; a name that does not fit is not remembered.
pub(super) fn time_element(account: &Account, slot: &Slot, now: Instant) -> Option<SetElement> {
    let comment = record::time_comment(account, slot)?;
    let left = slot.forgotten_at.saturating_duration_since(now);
    let element = SetElement::mark(slot.id).with_timeout(left);
    (!left.is_zero()).then(|| element.with_comment(comment))
}

/// Puts elements of a `mark` set in place and takes others away, as [`replace`] does, but many in
/// one message: each message has its head, and a batch must fit the socket's send buffer.
pub(super) fn replace_many(
    mut change: Transaction,
    set: &Set,
    kept: &[SetElement],
    gone: &[u32],
) -> Transaction {
    let ids = kept.iter().filter_map(number).chain(gone.iter().copied());
    let keys: Vec<SetElement> = ids.map(SetElement::mark).collect();
    for keys in keys.chunks(ELEMENTS_PER_MESSAGE) {
        let there = keys.iter().cloned();
        let there: Vec<SetElement> = there
            .map(|key| key.with_timeout(Duration::from_secs(1)))
            .collect();
        change = change
            .add_set_elements(set, &there)
            .del_set_elements(set, keys);
    }
    for kept in kept.chunks(ELEMENTS_PER_MESSAGE) {
        change = change.add_set_elements(set, kept);
    }
    change
}

/// The key of an element of a `mark` set.
pub(super) fn number(element: &SetElement) -> Option<u32> {
    element.key().try_into().ok().map(u32::from_ne_bytes)
}

/// Every lease and every door: what a table must hold to be as open and as shut as the book says.
pub(super) fn all_elements(
    mut change: Transaction,
    settings: &Settings,
    windows: &Windows,
    now: Instant,
) -> Transaction {
    for lease in windows.leases() {
        change = lease_element(change, lease, true, now);
    }
    let of_ports = settings.ports.iter().flat_map(|port| {
        Family::ALL.map(|family| Door {
            family,
            port: *port,
            entrance: Entrance::Any,
        })
    });
    let doors = of_ports.chain(windows.doors()).collect();
    door_elements(change, settings, windows, &doors, now)
}
