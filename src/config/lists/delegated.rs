//! Delegated-extended statistics of the regional registries, or of all in one file (NRO).
//!
//! `registry|cc|type|start|value|date|status[|…]`, after a header line and one summary line for each
//! type. An IPv4 value counts addresses, and is not always a power of two; an IPv6 value is a prefix
//! length. What is allocated or assigned counts, the rest of the registry's stock does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::super::country::Country;
use super::mistake::Mistake;
use super::text;
use crate::gate::allow_list::Entries;

/// Of a hundred records that the summary announces this many must be there. The two are made at
/// different moments, but a file that was cut off lacks more.
const LEAST_PER_CENT: u64 = 99;

/// Whether a list begins like this format.
pub(super) fn begins(line: &str) -> bool {
    line.contains('|')
}

/// Reads the networks of the countries that are wanted.
///
/// # Errors
/// [`Mistake`]: with the line, or a file that holds less than it announces.
pub(super) fn read(
    bytes: &[u8],
    wanted: &BTreeSet<Country>,
) -> Result<BTreeMap<Country, Entries>, Mistake> {
    let mut found: BTreeMap<Country, Entries> = BTreeMap::new();
    let mut count = Count::default();
    for line in text::lines(bytes) {
        let (number, line) = line?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split('|');
        let record: [&str; 7] = std::array::from_fn(|_| fields.next().unwrap_or(""));
        let [_, country, kind, start, value, fifth, status] = record;
        let wrong = |what: &str| {
            Mistake::at(
                number,
                format!("{what} in `{line}`"),
                "fetch the file again from its registry",
            )
        };
        if !count.is_headed {
            if !line.starts_with(|first: char| first.is_ascii_digit()) {
                return Err(wrong("no header of a delegated-extended file"));
            }
            count.is_headed = true;
            continue;
        }
        if fifth == "summary" {
            count
                .announce(kind, value)
                .ok_or_else(|| wrong("no number"))?;
            continue;
        }
        if status.is_empty() {
            return Err(wrong("less than seven fields"));
        }
        count.see(kind).ok_or_else(|| wrong("no known type"))?;
        let Some(country) = Country::of_source(country.as_bytes()).filter(|it| wanted.contains(it))
        else {
            continue;
        };
        if kind == "asn" || !matches!(status, "allocated" | "assigned") {
            continue;
        }
        let entries = found.entry(country).or_default();
        match kind {
            "ipv4" => entries
                .v4
                .push(v4(start, value).ok_or_else(|| wrong("no range of IPv4 addresses"))?),
            _ => entries
                .v6
                .push(v6(start, value).ok_or_else(|| wrong("no IPv6 prefix"))?),
        }
        text::within(entries)?;
    }
    count.check()?;
    Ok(found)
}

fn v4(start: &str, value: &str) -> Option<(u32, u32)> {
    let first = start.parse::<Ipv4Addr>().ok()?.to_bits();
    let more = value.parse::<u32>().ok()?.checked_sub(1)?;
    Some((first, first.checked_add(more)?))
}

fn v6(start: &str, value: &str) -> Option<(u128, u128)> {
    let start: Ipv6Addr = start.parse().ok()?;
    let net = Ipv6Net::new(start, value.parse().ok()?).ok()?;
    (net.network() == start).then(|| (net.network().to_bits(), net.broadcast().to_bits()))
}

/// How many records there are of each type, and how many there should be.
#[derive(Default)]
struct Count {
    is_headed: bool,
    seen: [u64; 3],
    announced: [u64; 3],
}

const KINDS: [&str; 3] = ["ipv4", "ipv6", "asn"];

impl Count {
    fn announce(&mut self, kind: &str, value: &str) -> Option<()> {
        let at = KINDS.iter().position(|known| *known == kind)?;
        let value: u32 = value.parse().ok()?;
        self.announced[at] += u64::from(value);
        Some(())
    }

    fn see(&mut self, kind: &str) -> Option<()> {
        let at = KINDS.iter().position(|known| *known == kind)?;
        self.seen[at] += 1;
        Some(())
    }

    fn check(&self) -> Result<(), Mistake> {
        for (at, kind) in KINDS.iter().enumerate() {
            let (seen, announced) = (self.seen[at], self.announced[at]);
            if seen * 100 < announced * LEAST_PER_CENT {
                return Err(Mistake::of_file(
                    format!(
                        "{seen} {kind} records of the {announced} that its summary announces: it is cut off"
                    ),
                    "fetch the file again from its registry",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../tests/data/lists/delegated-ripencc-extended");

    fn wanted(codes: &[&str]) -> BTreeSet<Country> {
        codes
            .iter()
            .map(|code| Country::parse(code).unwrap())
            .collect()
    }

    fn of(text: &str, code: &str) -> Result<Entries, Mistake> {
        let country = Country::parse(code).unwrap();
        let found = read(text.as_bytes(), &wanted(&[code]))?;
        Ok(found.get(&country).cloned().unwrap_or_default())
    }

    #[test]
    fn a_value_counts_addresses_and_an_ipv6_value_bits() {
        let li = of(FILE, "LI").unwrap();
        // 768 addresses are no prefix.
        assert_eq!(
            li.v4,
            [(0xc633_6400, 0xc633_66ff), (0xcb00_7100, 0xcb00_71ff)]
        );
        let start: Ipv6Addr = "2001:db8:100::".parse().unwrap();
        let end: Ipv6Addr = "2001:db8:1ff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!(li.v6, [(start.to_bits(), end.to_bits())]);
        // Only allocated and assigned; lower case of a joint file.
        assert_eq!(of(FILE, "CH").unwrap().v4, [(0xc000_0200, 0xc000_02ff)]);
        // What is in nobody's country is nobody's.
        assert_eq!(of(FILE, "DE").unwrap(), Entries::default());
        let both = read(FILE.as_bytes(), &wanted(&["LI", "CH"])).unwrap();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn a_file_that_is_cut_off_or_wrong_is_refused() {
        let lines: Vec<&str> = FILE.lines().collect();
        for (text, what) in [
            (lines[..lines.len() - 2].join("\n"), "it is cut off"),
            (FILE[..FILE.len() - 40].to_owned(), "less than seven fields"),
            (lines[2..].join("\n"), "no header"),
            (FILE.replace("|768|", "|0|"), "no range of IPv4 addresses"),
            (
                FILE.replace("|768|", "|4294967295|"),
                "no range of IPv4 addresses",
            ),
            (
                FILE.replace("198.51.100.0|", "198.51.100|"),
                "no range of IPv4 addresses",
            ),
            (
                FILE.replace("2001:db8:100::|40|", "2001:db8:100::|20|"),
                "no IPv6 prefix",
            ),
            (
                FILE.replace("2001:db8:100::|40|", "2001:db8:100::|129|"),
                "no IPv6 prefix",
            ),
            (
                FILE.replace("|ipv4|203.0.113.0|", "|ipv5|203.0.113.0|"),
                "no known type",
            ),
            (FILE.replace("|*|asn|*|1|", "|*|asn|*|x|"), "no number"),
        ] {
            let mistake = of(&text, "LI").unwrap_err();
            assert!(mistake.what.contains(what), "{what}: {mistake:?}");
        }
    }
}
