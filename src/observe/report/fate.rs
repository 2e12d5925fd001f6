//! What became of somebody who came, in a word and in a sentence.

use std::net::IpAddr;

use super::escape::short;
use super::words::{NAME, many, took};
use crate::observe::record::{Dropped, Place, Record, Region, Role, Source, Visit};

/// How much of a rule's text is shown in a line.
pub const RULE: usize = 160;

/// What became of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A validation of it was answered.
    Answered,
    /// It asked for an answer and got none.
    Refused,
    /// A rule or policy of this host dropped its packets.
    Dropped,
    /// It tried again and again, no connection came about, and nothing was found that dropped it.
    Unreached,
    /// One packet came, and no more: a scan, a spoofed address, or a validator that was called off.
    Stray,
    /// It asked for something that is no validation, or for nothing.
    Visitor,
}

impl Fate {
    /// What became of a source.
    pub fn of(source: &Source) -> Self {
        if source.is_answered() {
            Self::Answered
        } else if source.is_stopped() {
            match (&source.dropped, source.packets) {
                (Some(_), _) => Self::Dropped,
                (None, 2..) => Self::Unreached,
                (None, _) => Self::Stray,
            }
        } else if source.role == Role::Validator {
            Self::Refused
        } else {
            Self::Visitor
        }
    }
}

/// Address and length of its network's prefix: `198.51.100.7/16`.
pub fn address(source: &Source) -> String {
    let length = source.network.rsplit_once('/');
    let length = length.and_then(|(_, length)| length.parse::<u8>().ok());
    match length {
        Some(length) => format!("{}/{length}", source.address),
        None => source.address.to_string(),
    }
}

/// Country, region and autonomous system as far as they are known; else nothing.
pub fn place(place: Option<&Place>) -> String {
    let Some(place) = place else {
        return String::new();
    };
    let mut parts = Vec::new();
    parts.extend(place.country.as_deref().map(|country| short(country, 8)));
    parts.extend(place.region.map(|region| registry(region).to_owned()));
    parts.extend(place.autonomous_system.map(|number| format!("AS{number}")));
    parts.join(" ")
}

/// A registry, as it calls itself.
pub fn registry(region: Region) -> &'static str {
    match region {
        Region::Afrinic => "AFRINIC",
        Region::Apnic => "APNIC",
        Region::Arin => "ARIN",
        Region::Lacnic => "LACNIC",
        Region::Ripe => "RIPE",
    }
}

/// A registry's part of the world.
pub fn part_of_the_world(region: Region) -> &'static str {
    match region {
        Region::Afrinic => "Africa",
        Region::Apnic => "Asia, Pacific",
        Region::Arin => "North America",
        Region::Lacnic => "Latin America",
        Region::Ripe => "Europe, Middle East",
    }
}

/// What dropped somebody: `inet geo prerouting: ip saddr @blocked drop`, the rule no longer than so
/// many characters.
pub fn culprit(dropped: &Dropped, characters: usize) -> String {
    let at = chain(dropped);
    match &dropped.rule {
        Some(rule) => format!("{at}: {}", short(&without_counts(rule), characters)),
        None => format!("{at}: its policy"),
    }
}

/// A rule without what its counter had counted, which differs from one trace to the next.
fn without_counts(rule: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = rule.split(' ').peekable();
    while let Some(word) = rest.next() {
        words.push(word);
        while word == "counter" && matches!(rest.peek(), Some(&("packets" | "bytes"))) {
            rest.next();
            rest.next();
        }
    }
    words.join(" ")
}

/// Table and chain.
pub fn chain(dropped: &Dropped) -> String {
    format!(
        "{} {}",
        short(&dropped.table, NAME),
        short(&dropped.chain, NAME)
    )
}

/// One request and what it got: `example.com: 404 unknown-token, under 1 ms`.
pub fn request(visit: &Visit) -> String {
    let what = match (visit.identifier.as_deref(), visit.token.is_some()) {
        (Some(identifier), _) => format!("{}: ", short(identifier, NAME)),
        (None, true) => "an unknown name: ".to_owned(),
        (None, false) => String::new(),
    };
    let status = visit
        .status
        .map_or_else(String::new, |status| format!("{status} "));
    let detail = visit.detail.as_deref();
    let detail = detail.map_or_else(String::new, |detail| format!(" ({})", short(detail, NAME)));
    format!(
        "{what}{status}{}{detail}, {}",
        short(&visit.reason, 32),
        took(visit.took)
    )
}

/// What somebody's visits came to, in lines: each kind of answer once, with its number.
pub fn requests(source: &Source) -> Vec<String> {
    let mut lines: Vec<(String, &Visit, u64)> = Vec::new();
    for visit in &source.visits {
        let same = lines.iter_mut().find(|(_, known, _)| {
            (
                &known.identifier,
                known.status,
                &known.reason,
                &known.detail,
            ) == (
                &visit.identifier,
                visit.status,
                &visit.reason,
                &visit.detail,
            )
        });
        match same {
            Some((_, _, times)) => *times += 1,
            None => lines.push((request(visit), visit, 1)),
        }
    }
    let mut lines: Vec<String> = lines
        .into_iter()
        .map(|(line, _, times)| match times {
            1 => line,
            times => format!("{line}, {times} times"),
        })
        .collect();
    if source.more_visits > 0 {
        lines.push(format!("and {}", many(source.more_visits, "more request")));
    }
    lines
}

/// Its validations that got no answer, of identifiers for which it got none at all: the last one of each.
pub fn unanswered(source: &Source) -> Vec<&Visit> {
    let mut last: Vec<&Visit> = Vec::new();
    for visit in source
        .visits
        .iter()
        .filter(|visit| visit.challenge.is_some())
    {
        last.retain(|known| known.identifier != visit.identifier);
        last.push(visit);
    }
    last.retain(|visit| {
        let mut same = source
            .visits
            .iter()
            .filter(|other| other.identifier == visit.identifier);
        source.role == Role::Validator && !same.any(Visit::is_answer)
    });
    last
}

/// What else is worth a word: retries, IPv6 before IPv4, packets that a rule dropped before one came
/// through.
pub fn notes(source: &Source, record: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(then) = source.then {
        notes.push(format!("IPv6 first, then {then} over IPv4"));
    }
    if let Some(before) = before(source.address, record) {
        notes.push(format!("came over IPv6 as {before} first"));
    }
    // One packet for each connection is none too many.
    let connections = source.visits.len() as u64 + source.more_visits;
    if source.packets > connections.max(1) && !source.is_stopped() {
        notes.push(many(
            source.packets - connections.max(1),
            "more first packet",
        ));
    }
    if let (Some(dropped), false) = (&source.dropped, source.is_stopped()) {
        notes.push(format!(
            "some of its packets were dropped by {}",
            culprit(dropped, RULE)
        ));
    }
    if source.reached && source.visits.is_empty() {
        notes.push("connected and asked for nothing".to_owned());
    }
    notes
}

/// The address that somebody came by first.
fn before(address: IpAddr, record: &Record) -> Option<IpAddr> {
    let first = record
        .sources
        .iter()
        .find(|source| source.then == Some(address));
    first.map(|source| source.address)
}
