//! What the text formats share: numbered lines, comments, and entries.

use std::net::IpAddr;

use super::super::prefix;
use super::mistake::Mistake;
use crate::gate::allow_list::Entries;

/// The most ranges that are held at once: the whole world has 400,000 of each family in the largest
/// country lists (2026). An IPv6 range takes 32 bytes, so this is 128 MiB at most.
pub(super) const MAX_RANGES: usize = 4_000_000;

/// The lines of a text, numbered from 1, without line ends and without a byte order mark.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, &str), Mistake>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    lines.map(|(before, line)| {
        let number = before + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match str::from_utf8(line) {
            Ok(text) if !text.contains('\0') => Ok((number, text)),
            _ => Err(Mistake::at(
                number,
                "this is no text",
                "name a list of prefixes, or an .mmdb file that is whole",
            )),
        }
    })
}

/// A line without its comment and the blanks around it.
pub(super) fn uncommented(line: &str) -> &str {
    line.split(['#', ';']).next().unwrap_or("").trim()
}

/// Adds a prefix, an address, or a range `a-b` of them.
///
/// # Errors
/// [`Mistake`], also if there are more than [`MAX_RANGES`]. IPv4 written as IPv6 is one.
pub(super) fn add(entries: &mut Entries, text: &str, number: usize) -> Result<(), Mistake> {
    match text.split_once('-') {
        None => {
            let prefix =
                prefix::parse(text).map_err(|(what, fix)| Mistake::at(number, what, fix))?;
            entries.add(prefix);
        }
        Some((first, last)) => range(entries, text, [first, last])
            .map_err(|(what, fix)| Mistake::at(number, what, fix))?,
    }
    within(entries)
}

/// No file fills the memory.
pub(super) fn within(entries: &Entries) -> Result<(), Mistake> {
    few_enough(entries.v4.len() + entries.v6.len())
}

/// As [`within`], of a number of ranges.
pub(super) fn few_enough(ranges: usize) -> Result<(), Mistake> {
    if ranges <= MAX_RANGES {
        return Ok(());
    }
    Err(Mistake::of_file(
        format!("more than {MAX_RANGES} ranges"),
        "name a smaller list, or one that is aggregated",
    ))
}

fn range(entries: &mut Entries, text: &str, ends: [&str; 2]) -> Result<(), (String, String)> {
    let [first, last] = ends.map(|end| end.trim().parse::<IpAddr>());
    let (Ok(first), Ok(last)) = (first, last) else {
        return Err((
            format!("`{text}` is not a range"),
            "write one such as 192.0.2.8-192.0.2.11".to_owned(),
        ));
    };
    for end in [first, last] {
        if end.to_canonical() != end {
            return Err((
                format!("`{text}` is an IPv4 range written as IPv6"),
                format!("write {}-{}", first.to_canonical(), last.to_canonical()),
            ));
        }
    }
    if first > last {
        return Err((
            format!("`{text}` ends before it begins"),
            "write the lower address first".to_owned(),
        ));
    }
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            entries.v4.push((first.to_bits(), last.to_bits()));
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            entries.v6.push((first.to_bits(), last.to_bits()));
        }
        _ => {
            return Err((
                format!("`{text}` begins in one family and ends in the other"),
                "write two addresses of one family".to_owned(),
            ));
        }
    }
    Ok(())
}
