//! Country databases in MaxMind's format, version 2.0 (`.mmdb`).
//!
//! The record of a network names its country as GeoLite2 and DB-IP do (`country.iso_code`, or else
//! `registered_country.iso_code`), or flat, as IPinfo does (`country_code`, or a `country` of two
//! letters). The search tree is walked here, for every step has to count: the crate's own walk never
//! ends in a tree whose branches join again and again. Records are the crate's to decode.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use maxminddb::{MaxMindDbError, Reader};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::super::country::Country;
use super::mistake::Mistake;
use super::text;
use crate::gate::allow_list::{Bits, Entries};

/// Stands before the metadata, for the last time in the last 128 KiB of the file.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
const MARKER_WITHIN: usize = 128 * 1024;
/// How often a node may be visited on average. A tree has one way to each; databases that keep
/// IPv4 in other places of IPv6 too do so by pointing to its one root, which is passed over there.
const MAX_VISITS: u64 = 4;
/// How long records may be decoded. The largest databases take a second or two; but many records can
/// share one of 65,536 values, which a file of 20 MB makes an hour of. Of the thread's own time, so
/// that a busy machine refuses nothing.
const MAX_DECODING: Duration = Duration::from_secs(20);

/// Whether a file is such a database.
pub(super) fn is_one(bytes: &[u8]) -> bool {
    let end = &bytes[bytes.len().saturating_sub(MARKER_WITHIN)..];
    end.windows(MARKER.len()).any(|window| window == MARKER)
}

/// Reads the networks of the countries that are wanted.
///
/// # Errors
/// [`Mistake`]: broken, or without countries.
pub(super) fn read(
    bytes: &[u8],
    wanted: &BTreeSet<Country>,
) -> Result<BTreeMap<Country, Entries>, Mistake> {
    read_within(MAX_DECODING, bytes, wanted)
}

fn read_within(
    decoding: Duration,
    bytes: &[u8],
    wanted: &BTreeSet<Country>,
) -> Result<BTreeMap<Country, Entries>, Mistake> {
    let reader = Reader::from_source(bytes).map_err(|error| broken(&error))?;
    let metadata = reader.metadata();
    let tree = Tree {
        bytes,
        nodes: metadata.node_count,
        record_bits: metadata.record_size,
    };
    let mut walk = Walk {
        tree,
        reader: &reader,
        wanted,
        known: HashMap::new(),
        found: BTreeMap::new(),
        ranges: 0,
        has_countries: false,
        visits_left: u64::from(metadata.node_count) * MAX_VISITS,
        give_up: time_spent() + decoding,
    };
    if metadata.ip_version == 6 {
        let v4 = walk.tree.v4_root();
        walk.below(0, Family::V6 { v4 })?;
        walk.below(v4, Family::V4)?;
    } else {
        walk.below(0, Family::V4)?;
    }
    if !walk.has_countries {
        let kind = &metadata.database_type;
        return Err(Mistake::of_file(
            format!("no network of this database ({kind}) has a country"),
            "name a country database",
        ));
    }
    Ok(walk.found)
}

/// What this thread has had of the processors' time.
fn time_spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn broken(error: &MaxMindDbError) -> Mistake {
    Mistake::of_file(format!("a broken database: {error}"), "fetch it again")
}

/// The search tree: two records for each node, which name nodes, or data behind them.
struct Tree<'file> {
    bytes: &'file [u8],
    nodes: u32,
    record_bits: u16,
}

impl Tree<'_> {
    /// The left and the right record of a node.
    fn node(&self, number: u32) -> Option<[u32; 2]> {
        let size = usize::from(self.record_bits) / 4;
        let start = usize::try_from(number).ok()?.checked_mul(size)?;
        let node = self.bytes.get(start..start.checked_add(size)?)?;
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        Some(match self.record_bits {
            28 => {
                let middle = u32::from(node[3]);
                [
                    (middle >> 4) << 24 | word(&node[..3]),
                    (middle & 0x0f) << 24 | word(&node[4..]),
                ]
            }
            _ => [word(&node[..size / 2]), word(&node[size / 2..])],
        })
    }

    /// Where IPv4 begins: below ::/96, or at a record that holds more than that.
    fn v4_root(&self) -> u32 {
        let mut number = 0;
        for _ in 0..96 {
            match self.node(number) {
                Some([left, _]) if number < self.nodes => number = left,
                _ => break,
            }
        }
        number
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    /// The root of IPv4 is walked by itself. 6to4, Teredo and IPv4-mapped addresses, where they are
    /// no networks of their own, lead to it too.
    V6 {
        v4: u32,
    },
}

impl Family {
    fn bits(self) -> u32 {
        match self {
            Self::V4 => 32,
            Self::V6 { .. } => 128,
        }
    }

    fn address(self, bits: u128) -> IpAddr {
        match (self, u32::try_from(bits)) {
            (Self::V4, Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

struct Walk<'file, 'reader> {
    tree: Tree<'file>,
    reader: &'reader Reader<&'file [u8]>,
    wanted: &'reader BTreeSet<Country>,
    /// What the data that a record names says: many networks have the same.
    known: HashMap<u32, Option<Country>>,
    found: BTreeMap<Country, Entries>,
    ranges: usize,
    has_countries: bool,
    visits_left: u64,
    /// When the time for it has been spent.
    give_up: Duration,
}

impl Walk<'_, '_> {
    /// Reads every network below a record, ascending.
    fn below(&mut self, root: u32, family: Family) -> Result<(), Mistake> {
        let mut ahead = vec![(root, 0u128, 0u32)];
        while let Some((number, address, depth)) = ahead.pop() {
            if number >= self.tree.nodes {
                self.network(number, address, depth, family)?;
                continue;
            }
            if matches!(family, Family::V6 { v4 } if v4 == number) {
                continue;
            }
            let left_and_right = self.tree.node(number).filter(|_| depth < family.bits());
            let visits_left = self.visits_left.checked_sub(1);
            let (Some([left, right]), Some(visits_left)) = (left_and_right, visits_left) else {
                return Err(Mistake::of_file(
                    "a broken database: its search tree goes in circles",
                    "fetch it again",
                ));
            };
            self.visits_left = visits_left;
            let bit = 1 << (family.bits() - depth - 1);
            ahead.push((right, address | bit, depth + 1));
            ahead.push((left, address, depth + 1));
        }
        Ok(())
    }

    fn network(
        &mut self,
        number: u32,
        first: u128,
        depth: u32,
        family: Family,
    ) -> Result<(), Mistake> {
        let holds_only_v4 = matches!(family, Family::V6 { .. }) && first == 0 && depth == 96;
        if number == self.tree.nodes || holds_only_v4 {
            return Ok(());
        }
        let country = match self.known.get(&number) {
            Some(known) => *known,
            None => {
                if time_spent() > self.give_up {
                    return Err(Mistake::of_file(
                        "a broken database: its records take too long to read",
                        "fetch it again",
                    ));
                }
                let country = self.country(family.address(first))?;
                self.has_countries |= country.is_some();
                self.known.insert(number, country);
                country
            }
        };
        let Some(country) = country.filter(|country| self.wanted.contains(country)) else {
            return Ok(());
        };
        let last = first
            | u128::MAX
                .checked_shr(128 - family.bits() + depth)
                .unwrap_or(0);
        let entries = self.found.entry(country).or_default();
        let is_new = match (family, u32::try_from(first), u32::try_from(last)) {
            (Family::V4, Ok(first), Ok(last)) => append(&mut entries.v4, first, last),
            _ => append(&mut entries.v6, first, last),
        };
        self.ranges += usize::from(is_new);
        text::few_enough(self.ranges)
    }

    fn country(&self, address: IpAddr) -> Result<Option<Country>, Mistake> {
        let record = self.reader.lookup(address);
        let record = record.and_then(|found| found.decode::<Record>());
        record
            .map(|record| record.and_then(Record::country))
            .map_err(|error| broken(&error))
    }
}

/// Adds a range behind all others; whether it is one more.
fn append<Number: Bits>(ranges: &mut Vec<(Number, Number)>, first: Number, last: Number) -> bool {
    match ranges.last_mut() {
        Some((_, before)) if before.next() == Some(first) => {
            *before = last;
            false
        }
        _ => {
            ranges.push((first, last));
            true
        }
    }
}

/// As much of a network's data as counts.
#[derive(Deserialize)]
struct Record {
    country_code: Option<Code>,
    country: Option<Code>,
    registered_country: Option<Code>,
}

impl Record {
    fn country(self) -> Option<Country> {
        [self.country_code, self.country, self.registered_country]
            .into_iter()
            .flatten()
            .find_map(|Code(country)| country)
    }
}

/// A country by its code, or a table with the code in it. A name of a country is none.
struct Code(Option<Country>);

#[derive(Deserialize)]
struct Table {
    iso_code: Option<Code>,
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CodeVisitor;

        impl<'de> Visitor<'de> for CodeVisitor {
            type Value = Code;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a country")
            }

            fn visit_str<E>(self, code: &str) -> Result<Code, E> {
                Ok(Code(Country::of_source(code.as_bytes())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Code, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(table.iso_code.unwrap_or(Code(None)))
            }
        }

        deserializer.deserialize_any(CodeVisitor)
    }
}

#[cfg(test)]
pub(super) mod tests;
