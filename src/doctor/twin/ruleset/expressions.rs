//! The expressions of a rule: walked, and rewritten where the kernel does not take back what it gives out. Pure.

use super::numbers::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM};
use crate::doctor::twin::netlink::{Attribute, attributes, find, find_text, put_nested, put_text};

/// The expressions of a rule, each with its name and its own attributes.
pub fn expressions(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    attributes(list).filter_map(|expression| {
        let name = find_text(expression.payload, NFTA_EXPR_NAME)?;
        let data = find(expression.payload, NFTA_EXPR_DATA).unwrap_or_default();
        Some((name, data))
    })
}

/// The sets that a rule names.
pub(super) fn sets_of(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NFTA_LOOKUP_SET: u16 = 1;
    const NFTA_DYNSET_SET_NAME: u16 = 1;
    const NFTA_OBJREF_SET_NAME: u16 = 4;
    expressions(list).filter_map(|(name, data)| match name {
        b"lookup" => find_text(data, NFTA_LOOKUP_SET),
        b"dynset" => find_text(data, NFTA_DYNSET_SET_NAME),
        b"objref" => find_text(data, NFTA_OBJREF_SET_NAME),
        _ => None,
    })
}

/// The expressions of a rule, each of its attributes as `change` has it; `None` takes one away.
fn rewritten(list: &[u8], change: impl Fn(&[u8], &[u8], &Attribute) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut changed = Vec::with_capacity(list.len());
    for (name, data) in expressions(list) {
        let mut kept = Vec::with_capacity(data.len());
        for attribute in attributes(data) {
            kept.extend(change(name, data, &attribute).unwrap_or_default());
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
        let mut expression = Vec::new();
        put_text(&mut expression, NFTA_EXPR_NAME, name);
        put_nested(&mut expression, NFTA_EXPR_DATA, &kept);
        put_nested(&mut changed, NFTA_LIST_ELEM, &expression);
    }
    changed
}

/// The expressions of a rule as the kernel takes them: some it gives out with attributes that it refuses. Of a rule
/// that fills a set, a timeout of nothing where the set has none; of one that writes a TCP option, flags that are
/// for reading; of one that takes an option away, where in it.
pub(super) fn as_taken(list: &[u8]) -> Vec<u8> {
    const NFTA_DYNSET_TIMEOUT: u16 = 6;
    const NFTA_EXTHDR_DREG: u16 = 1;
    const NFTA_EXTHDR_OFFSET: u16 = 3;
    const NFTA_EXTHDR_LEN: u16 = 4;
    const NFTA_EXTHDR_FLAGS: u16 = 5;
    const NFTA_EXTHDR_SREG: u16 = 7;
    rewritten(list, |name, data, attribute| {
        let is_nothing = attribute.payload.iter().all(|octet| *octet == 0);
        let is_refused = match (name, attribute.kind) {
            (b"dynset", NFTA_DYNSET_TIMEOUT) | (b"exthdr", NFTA_EXTHDR_FLAGS) => is_nothing,
            (b"exthdr", NFTA_EXTHDR_OFFSET | NFTA_EXTHDR_LEN) => {
                find(data, NFTA_EXTHDR_DREG).is_none() && find(data, NFTA_EXTHDR_SREG).is_none()
            }
            _ => false,
        };
        (!is_refused).then(|| attribute.whole.to_vec())
    })
}

/// The expressions of a rule, with another set in one set's place.
pub(super) fn with_set(list: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    /// `NFTA_LOOKUP_SET` and `NFTA_DYNSET_SET_NAME`.
    const SET_NAME: u16 = 1;
    const NFTA_OBJREF_SET_NAME: u16 = 4;
    rewritten(list, |name, _, attribute| {
        let at = match name {
            b"lookup" | b"dynset" => SET_NAME,
            b"objref" => NFTA_OBJREF_SET_NAME,
            _ => 0,
        };
        let is_it = attribute.kind == at && attribute.payload.strip_suffix(&[0]) == Some(old);
        if !is_it {
            return Some(attribute.whole.to_vec());
        }
        let mut renamed = Vec::new();
        put_text(&mut renamed, at, new);
        Some(renamed)
    })
}
