//! `[report]`: what is kept of windows, for how long, and what is looked up about who came.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::Report;
use super::error::Problem;
use super::file::{self, Key, Section, Word};
use super::value::{directory, duration};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MIB: u64 = 1024 * 1024;
/// A record has 1 MiB at most, and one must always fit beside others.
const LEAST_BYTES: u64 = 8 * MIB;
/// The file is looked through at every start.
const MOST_BYTES: u64 = 1024 * MIB;
/// Each is looked up for every address.
const MAX_DATABASES: usize = 8;
/// The units of sizes, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)];

/// Checks `[report]`.
pub(super) fn report(section: &Section<file::Report>, problems: &mut Vec<Problem>) -> Report {
    let keys = &section.keys;
    let default = Report::default();
    let flag = |key: &Key<bool>, default| key.as_ref().map_or(default, |key| *key.get_ref());
    Report {
        evidence: flag(&keys.evidence, default.evidence),
        history: flag(&keys.history, default.history),
        keep: duration(&keys.keep, "keep", DAY..=DAY * 3650, default.keep, problems),
        max_bytes: size(&keys.max_bytes, default.max_bytes, problems),
        databases: databases(&keys.databases, problems),
    }
}

fn size(key: &Key<Word>, default: u64, problems: &mut Vec<Problem>) -> u64 {
    let Some(key) = key else {
        return default;
    };
    let (message, fix) = match key.get_ref() {
        Word::Number(number) => (
            "`max_bytes` needs a unit",
            format!("write \"{number}MiB\", or KiB, or GiB"),
        ),
        Word::Text(text) => match parse_size(text) {
            Some(bytes) if (LEAST_BYTES..=MOST_BYTES).contains(&bytes) => return bytes,
            Some(_) => (
                "`max_bytes` is out of bounds",
                "write 8MiB to 1GiB".to_owned(),
            ),
            None => (
                "`max_bytes` is not a size",
                "write a whole number and KiB, MiB or GiB, such as \"64MiB\"".to_owned(),
            ),
        },
    };
    problems.push(Problem::new(key.span(), message).fix(fix));
    default
}

/// A whole number and its unit.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| number.parse::<u64>().ok()?.checked_mul(*unit))
        .flatten()
}

fn databases(key: &Key<Vec<Spanned<String>>>, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let Some(key) = key else {
        return Vec::new();
    };
    let paths = key.get_ref();
    if paths.len() > MAX_DATABASES {
        let message = format!("`databases` names {}", paths.len());
        let fix = format!("name {MAX_DATABASES} at most");
        problems.push(Problem::new(key.span(), message).fix(fix));
    }
    paths
        .iter()
        .map(|path| directory(path, "databases", problems))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        for (text, bytes) in [
            ("64MiB", Some(64 * MIB)),
            ("1GiB", Some(1024 * MIB)),
            ("8192KiB", Some(8 * MIB)),
            ("64", None),
            ("MiB", None),
            ("+1MiB", None),
            ("1.5GiB", None),
            ("64MB", None),
            ("64 MiB", None),
            ("99999999999999999999GiB", None),
            ("18446744073709551615GiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }
}
