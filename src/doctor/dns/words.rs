//! What comes out of the DNS, made fit for a sentence: short, plain, bounded.

use std::fmt::Display;
use std::net::IpAddr;

use hickory_net::proto::op::ResponseCode;
use hickory_net::proto::rr::{Name, RData};

use super::ask::Silence;
use super::chain::Trouble;
use crate::observe::report::escape;

/// How much is shown of any one text from elsewhere, in characters.
const LONGEST: usize = 120;
/// How many of a kind are shown.
const MOST: usize = 6;

/// Text from elsewhere.
pub(super) fn said(text: impl Display) -> String {
    escape::short(&text.to_string(), LONGEST)
}

/// Octets from elsewhere.
pub(super) fn octets(octets: &[u8]) -> String {
    said(String::from_utf8_lossy(octets))
}

/// A name without its last dot; the root is a dot.
pub(super) fn name(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => said(rest),
        _ => said(text),
    }
}

/// Some of a kind, and how many more there are.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    let mut shown: Vec<String> = items.iter().take(MOST).map(said).collect();
    if let Some(more) = items.len().checked_sub(MOST).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// The addresses among records.
pub(super) fn addresses<'a>(data: impl Iterator<Item = &'a RData>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = data
        .filter_map(|data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// What a failed lookup is in words.
pub(super) fn trouble(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Silent(Silence::Timeout) => "the resolver does not answer in time".to_owned(),
        Trouble::Silent(silence) => format!("the resolver: {silence}"),
        Trouble::Said(ResponseCode::ServFail) => {
            "the resolver could not find out (SERVFAIL)".to_owned()
        }
        Trouble::Said(code) => format!("the resolver says: {code}"),
        Trouble::Bogus => "the answer is not proven by signatures, and has to be".to_owned(),
    }
}
