//! What the front and the historian say to each other: a length of four octets in network order, then so
//! much JSON.
//!
//! Neither believes the other. The historian takes no text, and no list, longer than is said here; the
//! front takes what it gets for data and for nothing else.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Health, StoreError};
use crate::gate::lease::MAX_LEASE_NAME_BYTES;
use crate::observe::record::{
    MAX_NAMED, MAX_OTHER_VISITS, MAX_RECORDED_PORTS, MAX_SAID, MAX_SOURCES, MAX_VALIDATIONS,
    Record, Source,
};

/// The longest question, in octets; a record has to fit.
pub const MAX_QUESTION_BYTES: usize = 1024 * 1024;
/// The longest answer, in octets.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// How much of an answer is records, in octets.
pub(super) const MAX_FOUND_BYTES: usize = MAX_ANSWER_BYTES - 256 * 1024;
/// How many records an answer has at most.
pub const MAX_FOUND: usize = 10_000;
/// The longest text of a record, in octets: a rule as nft lists it.
const MAX_TEXT_BYTES: usize = 4096;
/// How many entries its other lists have.
const MAX_LIST: usize = 1024;
/// The end of the year 9999, in milliseconds after 1970.
const LATEST: u64 = 253_402_300_799_999;

/// What the front asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its number; the answer has the same.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// To keep a record: a new one if it has no number that the history gave it, or what became of that one.
    Store(Box<Record>),
    /// For records.
    Query(Query),
    /// To end every record that is still open but these, because nobody watches them any more.
    Settle(Vec<u64>),
    /// To read the configuration again.
    Reload,
    /// How the history is.
    Look,
}

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Query {
    /// The one of this number.
    Number(u64),
    /// The last one.
    Last,
    /// The last one of the lease of this name.
    LastOf(String),
    /// Those that were opened at this instant or later, in milliseconds after 1970.
    Since(u64),
    /// Those that have not ended.
    Open,
}

/// What the historian answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The number of the question.
    pub id: u64,
    /// How the history is now.
    pub health: Health,
    /// What was asked for.
    pub reply: Reply,
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// The record is on disk: with its number, and with places.
    Stored(Box<Record>),
    /// What was found.
    Found(Found),
    /// It is done.
    Done,
    /// It could not be done now; it may be later.
    Failed(String),
    /// It will never be done.
    Refused(String),
}

/// Records, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// At most [`MAX_FOUND`], the newest.
    pub records: Vec<Record>,
    /// How many more there are that do not fit here, or cannot be read by this version.
    pub left_off: u64,
}

/// Bytes that are no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A message with its length before it; `None` if it is too long.
pub fn encode<T: Serialize>(message: &T, max_bytes: usize) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).ok()?;
    let length = frame.len() - 4;
    if length > max_bytes {
        return None;
    }
    frame[..4].copy_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    Some(frame)
}

/// The length that stands before a message.
///
/// # Errors
/// [`Malformed`]: nothing is that long.
pub fn length(header: [u8; 4], max_bytes: usize) -> Result<usize, Malformed> {
    match usize::try_from(u32::from_be_bytes(header)) {
        Ok(length) if (1..=max_bytes).contains(&length) => Ok(length),
        _ => Err(Malformed),
    }
}

/// Reads a message, without its length.
///
/// # Errors
/// [`Malformed`].
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(message).map_err(|_| Malformed)
}

/// A record that is not longer than a question may be: of one that is, the last requests of each source
/// go first, then the last sources, and both are counted. `None` if that does not help.
pub fn fitted(mut record: Record) -> Option<Record> {
    const ROOM: usize = MAX_QUESTION_BYTES - 1024;
    let fits = |record: &Record| serde_json::to_vec(record).is_ok_and(|json| json.len() <= ROOM);
    for (sources, visits) in [(MAX_SOURCES, 4), (MAX_SOURCES, 1), (64, 1), (0, 0)] {
        if fits(&record) {
            return Some(record);
        }
        let dropped = record
            .sources
            .split_off(sources.min(record.sources.len()))
            .len();
        record.more_sources = record.more_sources.saturating_add(dropped as u64);
        for source in &mut record.sources {
            let dropped = source
                .visits
                .split_off(visits.min(source.visits.len()))
                .len();
            source.more_visits = source.more_visits.saturating_add(dropped as u64);
        }
    }
    fits(&record).then_some(record)
}

/// Whether a record is one that is kept.
///
/// # Errors
/// [`StoreError::Refused`]: what is beyond bounds.
pub(super) fn check(record: &Record) -> Result<(), StoreError> {
    let said = record.said.as_ref();
    let counts = [
        (record.ports.len(), MAX_RECORDED_PORTS, "ports"),
        (record.families.len(), 2, "families"),
        (len(record.identifiers.as_ref()), MAX_NAMED, "identifiers"),
        (record.beside.len(), MAX_LIST, "leases beside it"),
        (record.sources.len(), MAX_SOURCES, "sources"),
        (
            len(said.map(|said| &said.renewed)),
            MAX_SAID,
            "renewed identifiers",
        ),
        (
            len(said.map(|said| &said.failed)),
            MAX_SAID,
            "failed identifiers",
        ),
        (
            record.assessment.identifiers.len(),
            MAX_LIST,
            "assessed identifiers",
        ),
        (record.lease.len(), MAX_LEASE_NAME_BYTES, "octets of a name"),
    ];
    if let Some((count, _, what)) = counts.iter().find(|(count, most, _)| count > most) {
        return Err(StoreError::Refused(format!("{count} {what}")));
    }
    let visits = record.sources.iter().map(|source| source.visits.len());
    if visits.sum::<usize>() > MAX_VALIDATIONS + MAX_SOURCES * MAX_OTHER_VISITS {
        return Err(StoreError::Refused("too many requests".into()));
    }
    if record.opened_at > LATEST || record.number.is_some_and(|number| number > LATEST) {
        return Err(StoreError::Refused("a number out of bounds".into()));
    }
    match texts(record).any(|text| text.len() > MAX_TEXT_BYTES) {
        true => Err(StoreError::Refused("too long a text".into())),
        false => Ok(()),
    }
}

fn len<T>(list: Option<&Vec<T>>) -> usize {
    list.map_or(0, Vec::len)
}

/// Every text that somebody else than the historian chose.
fn texts(record: &Record) -> impl Iterator<Item = &String> {
    let said = record.said.iter();
    let lists = [&record.families, &record.beside].into_iter();
    let lists = lists.chain(&record.identifiers);
    let lists = lists.chain(said.flat_map(|said| [&said.renewed, &said.failed]));
    let assessed = record.assessment.identifiers.iter();
    [
        &record.holder,
        &record.entrance,
        &record.evidence.incomplete,
    ]
    .into_iter()
    .flatten()
    .chain(lists.flatten())
    .chain(assessed.map(|own| &own.identifier))
    .chain(record.sources.iter().flat_map(texts_of))
}

fn texts_of(source: &Source) -> impl Iterator<Item = &String> {
    let dropped = source.dropped.iter();
    let dropped = dropped.flat_map(|by| [Some(&by.table), Some(&by.chain), by.rule.as_ref()]);
    let place = source.place.iter();
    let place = place.flat_map(|place| [place.country.as_ref(), place.organization.as_ref()]);
    let visits = source.visits.iter().flat_map(|visit| {
        [
            Some(&visit.verdict),
            Some(&visit.reason),
            visit.challenge.as_ref(),
            visit.identifier.as_ref(),
            visit.token.as_ref(),
            visit.detail.as_ref(),
        ]
    });
    std::iter::once(&source.network).chain(dropped.chain(place).chain(visits).flatten())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::observe::record::{Role, Visit};

    fn visit() -> Visit {
        Visit {
            at: 1,
            port: 80,
            verdict: "drop".to_owned(),
            reason: "unknown-token".to_owned(),
            challenge: Some("http-01".to_owned()),
            identifier: Some("x".repeat(253)),
            token: Some("0011aabb".to_owned()),
            status: Some(404),
            octets: 1,
            took: 1,
            detail: None,
        }
    }

    fn source(number: usize) -> Source {
        Source {
            address: Ipv4Addr::from_bits(number as u32).into(),
            network: "0.0.0.0/16".to_owned(),
            place: None,
            role: Role::Visitor,
            first: 0,
            packets: 1,
            reached: true,
            dropped: None,
            visits: vec![visit(); MAX_OTHER_VISITS],
            more_visits: 0,
            then: None,
        }
    }

    #[test]
    fn a_record_that_is_full_is_made_to_fit_and_counts_what_is_gone() {
        let full = Record {
            sources: (0..MAX_SOURCES).map(source).collect(),
            ..Record::default()
        };
        assert_eq!(check(&full), Ok(()));
        let ask = |record: &Record| Question {
            id: u64::MAX,
            ask: Ask::Store(Box::new(record.clone())),
        };
        assert_eq!(encode(&ask(&full), MAX_QUESTION_BYTES), None);
        let record = fitted(full).unwrap();
        assert!(encode(&ask(&record), MAX_QUESTION_BYTES).is_some());
        assert_eq!(
            (record.sources.len(), record.more_sources),
            (MAX_SOURCES, 0)
        );
        for source in &record.sources {
            assert_eq!((source.visits.len(), source.more_visits), (4, 12));
        }
        let small = Record {
            sources: vec![source(1)],
            ..Record::default()
        };
        assert_eq!(fitted(small.clone()), Some(small));
        let hopeless = Record {
            holder: Some("x".repeat(MAX_QUESTION_BYTES)),
            ..Record::default()
        };
        assert_eq!(fitted(hopeless), None);
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        assert_eq!(length([0, 0, 0, 1], 10), Ok(1));
        assert_eq!(length([0, 0, 0, 10], 10), Ok(10));
        for header in [[0; 4], [0, 0, 0, 11], [0xff; 4]] {
            assert_eq!(length(header, 10), Err(Malformed));
        }
    }
}
