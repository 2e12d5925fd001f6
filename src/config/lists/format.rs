//! Which format a list has: its bytes say so, whatever it is called.

use std::collections::{BTreeMap, BTreeSet};

use super::super::country::Country;
use super::mistake::Mistake;
use super::{database, delegated, elements, plain, text};
use crate::gate::allow_list::Entries;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Database,
    Delegated,
    Elements,
    Plain,
}

fn of(bytes: &[u8]) -> Format {
    if database::is_one(bytes) {
        return Format::Database;
    }
    // What is no text is told by the reader of plain lists, with its line.
    let first = text::lines(bytes)
        .map_while(Result::ok)
        .map(|(_, line)| text::uncommented(line))
        .find(|line| !line.is_empty());
    match first {
        Some(line) if delegated::begins(line) => Format::Delegated,
        Some(line) if elements::begins(line) => Format::Elements,
        _ => Format::Plain,
    }
}

/// Reads a list of prefixes, which may be empty. Ranges are as they were found: in any order.
///
/// # Errors
/// [`Mistake`]: not a list of prefixes, a line that is wrong, a file that was cut off, too many ranges.
pub fn prefixes(bytes: &[u8]) -> Result<Entries, Mistake> {
    match of(bytes) {
        Format::Plain => plain::read(bytes),
        Format::Elements => elements::read(bytes),
        Format::Database | Format::Delegated => Err(Mistake::of_file(
            "this holds many countries",
            "name it in country_source, and its countries in countries",
        )),
    }
}

/// Reads the networks of the countries that are wanted. Some may not be in it.
///
/// # Errors
/// [`Mistake`]: no list of countries, broken, cut off, or with too many ranges.
pub fn countries(
    bytes: &[u8],
    wanted: &BTreeSet<Country>,
) -> Result<BTreeMap<Country, Entries>, Mistake> {
    match of(bytes) {
        Format::Database => database::read(bytes, wanted),
        Format::Delegated => delegated::read(bytes, wanted),
        Format::Elements => Err(without_countries()),
        // Where the text is broken, that is what is wrong with it.
        Format::Plain => plain::read(bytes).and(Err(without_countries())),
    }
}

fn without_countries() -> Mistake {
    Mistake::of_file(
        "this list says nothing of countries",
        "name it in files, or an .mmdb file, a directory of lists or a delegated-extended file here",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_content() {
        for (bytes, format) in [
            (&b"# a\n\n192.0.2.0/24\n"[..], Format::Plain),
            (b"; a\nelements={ }", Format::Elements),
            (b"elements = {", Format::Elements),
            (
                b"# a\n2|nro|20260601|0|0|20260601|+0000\n",
                Format::Delegated,
            ),
            (b"192.0.2.0/24 # a | b\n", Format::Plain),
            (b"\0\0\xab\xcd\xefMaxMind.com", Format::Database),
            (b"\0\0", Format::Plain),
            (b"", Format::Plain),
        ] {
            assert_eq!(of(bytes), format, "{bytes:?}");
        }
        let mut long = b"\xab\xcd\xefMaxMind.com".to_vec();
        long.resize(128 * 1024 + 1, b'\n');
        assert_eq!(of(&long), Format::Plain);
    }

    #[test]
    fn a_list_in_the_wrong_place_says_where_it_belongs() {
        let told = |result: Result<Entries, Mistake>| {
            let mistake = result.unwrap_err();
            format!("{}; {}", mistake.what, mistake.fix)
        };
        let of = |bytes: &[u8]| {
            let none = countries(bytes, &BTreeSet::new());
            told(none.map(|_| Entries::default()))
        };
        assert!(told(prefixes(b"2|nro|1|0|0|1|0\n")).contains("name it in country_source"));
        assert!(of(b"192.0.2.0/24\n").contains("name it in files"));
        assert!(of(b"elements={ 192.0.2.0/24 }\n").contains("name it in files"));
        assert!(of(b"").contains("says nothing of countries"));
        assert!(of(b"\0\x01").contains("this is no text"));
    }
}
