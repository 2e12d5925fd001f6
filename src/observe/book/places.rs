//! Who keeps a place on a record that is full: whoever asked for a validation, before who did not; of equals
//! the network that has fewest.
//!
//! Peers choose what they send and a host may have a whole network's addresses, so every list has an end, and
//! who is left out is counted.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::gate::early::Network;
use crate::observe::record::{MAX_SOURCES, Record, Role, Source, Visit};

/// The rank of who came, of who asked for a token, be it one that he made up, and of who knew one.
pub(super) const CAME: u8 = 1;
pub(super) const ASKED: u8 = 3;
pub(super) const ANSWERED: u8 = 4;

/// Lets go of one validation that was not answered, of whoever has most of them: a stranger may make
/// up tokens without end. A request that was not answered itself takes no place from who has no more.
/// `validations` is how many the record has.
pub(super) fn make_room(record: &mut Record, validations: &mut usize, of: IpAddr, is_answer: bool) {
    let in_vain = |source: &Source| {
        source
            .visits
            .iter()
            .filter(|visit| is_in_vain(visit))
            .count()
    };
    let sources = &mut record.sources;
    let own = sources.iter().find(|source| source.address == of);
    let own = own.map_or(0, in_vain);
    let most = sources.iter_mut().max_by_key(|source| in_vain(source));
    let Some(source) = most.filter(|source| is_answer || in_vain(source) > own + 1) else {
        return;
    };
    if let Some(last) = source.visits.iter().rposition(is_in_vain) {
        source.visits.remove(last);
        source.more_visits += 1;
        *validations -= 1;
    }
}

/// The source of this address, of such a rank at least; a new one finds a place, or is counted.
/// `validations` is how many the record has.
pub(super) fn place_of<'record>(
    record: &'record mut Record,
    validations: &mut usize,
    address: IpAddr,
    first: u64,
    own: u8,
) -> Option<&'record mut Source> {
    let sources = &mut record.sources;
    let known = sources.iter().position(|source| source.address == address);
    let at = match known {
        Some(at) => at,
        None => {
            let network = network(address);
            if sources.len() >= MAX_SOURCES {
                record.more_sources += 1;
                let least = least(sources, own, &network)?;
                let left = sources.remove(least);
                let left = left.visits.iter().filter(|visit| visit.challenge.is_some());
                *validations -= left.count();
            }
            sources.push(Source {
                address,
                network,
                place: None,
                role: Role::Unheard,
                first,
                packets: 0,
                reached: false,
                dropped: None,
                visits: Vec::new(),
                more_visits: 0,
                then: None,
            });
            sources.len() - 1
        }
    };
    let source = sources.get_mut(at)?;
    source.first = source.first.min(first);
    if own >= ASKED {
        source.role = Role::Validator;
    }
    Some(source)
}

/// Whose place a new source of such a rank and network takes: the last of those of the lowest rank, in the
/// network that has most of them. Of its own rank only that of a network that has more than its own: one
/// host may have a whole network's addresses.
fn least(sources: &[Source], own: u8, network: &str) -> Option<usize> {
    let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *crowds.entry(&source.network).or_default() += 1;
    }
    let crowd = |network: &str| crowds.get(network).copied().unwrap_or_default();
    let (at, source) = (sources.iter().enumerate().rev())
        .min_by_key(|(_, source)| (rank(source), Reverse(crowd(&source.network))))?;
    let is_less = match rank(source).cmp(&own) {
        Ordering::Less => true,
        Ordering::Equal => own < ANSWERED && crowd(&source.network) > crowd(network) + 1,
        Ordering::Greater => false,
    };
    is_less.then_some(at)
}

/// How much somebody's place on the record is worth.
fn rank(source: &Source) -> u8 {
    match source.role {
        _ if source.is_answered() => ANSWERED,
        Role::Unheard => u8::from(source.packets > 1),
        Role::Visitor => CAME + 1,
        Role::Validator => ASKED,
    }
}

/// Whether this asked for an answer and got none.
fn is_in_vain(visit: &Visit) -> bool {
    visit.challenge.is_some() && !visit.is_answer()
}

fn network(address: IpAddr) -> String {
    Network::of(address).to_string()
}
