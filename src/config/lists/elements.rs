//! Elements of nftables sets, as geoip-shell keeps its lists: `elements={ a/b, c/d }`.
//!
//! A list may go over several lines and hold several blocks. `#` begins a comment.

use super::mistake::Mistake;
use super::text;
use crate::gate::allow_list::Entries;

/// Whether a list begins like this format.
pub(super) fn begins(line: &str) -> bool {
    line.starts_with("elements")
}

/// Reads every block.
///
/// # Errors
/// [`Mistake`]: with the line, or a block that does not end, as in a file that was cut off.
pub(super) fn read(bytes: &[u8]) -> Result<Entries, Mistake> {
    let mut entries = Entries::default();
    let mut is_inside = false;
    for line in text::lines(bytes) {
        let (number, line) = line?;
        let mut rest = text::uncommented(line);
        while !rest.is_empty() {
            if is_inside {
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                let (entry, behind) = rest.split_at(end);
                if !entry.trim().is_empty() {
                    text::add(&mut entries, entry.trim(), number)?;
                }
                is_inside = !behind.starts_with('}');
                rest = behind.get(1..).unwrap_or("").trim_start();
            } else {
                rest = opening(rest).ok_or_else(|| {
                    Mistake::at(
                        number,
                        "expected the beginning of elements",
                        "write elements={ 192.0.2.0/24, 198.51.100.0/24 }",
                    )
                })?;
                is_inside = true;
            }
        }
    }
    if is_inside {
        return Err(Mistake::of_file(
            "the elements have no end: the file is cut off",
            "fetch it again",
        ));
    }
    Ok(entries)
}

/// What stands behind `elements = {`.
fn opening(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("elements")?.trim_start();
    let rest = rest.strip_prefix('=')?.trim_start();
    rest.strip_prefix('{').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_over_lines() {
        let entries = read(include_bytes!(
            "../../../tests/data/lists/elements/li_ipv4.ip"
        ))
        .unwrap();
        assert_eq!(
            entries.v4,
            [
                (0xc633_6400, 0xc633_647f),
                (0xcb00_7100, 0xcb00_71ff),
                (0xc000_0208, 0xc000_020b),
                (0xc612_0000, 0xc613_ffff),
            ]
        );
        assert_eq!(read(b"elements={ }").unwrap(), Entries::default());
        assert_eq!(read(b"elements={2001:db8::/32}").unwrap().v6.len(), 1);
    }

    #[test]
    fn what_is_no_element_is_named() {
        for (text, line, what) in [
            (
                "elements={ 192.0.2.0/24,\n x }",
                Some(2),
                "`x` is not a prefix",
            ),
            (
                "elements={ 192.0.2.0/24 198.51.100.0/24 }",
                Some(1),
                "is not a prefix",
            ),
            (
                "elements={ 192.0.2.0/24 } more",
                Some(1),
                "expected the beginning",
            ),
            ("elements 192.0.2.0/24", Some(1), "expected the beginning"),
            (
                "elements={ 192.0.2.0/24,\n192",
                Some(2),
                "`192` is not a prefix",
            ),
            ("elements={ 192.0.2.0/24,\n198.51.100.0/24", None, "cut off"),
        ] {
            let mistake = read(text.as_bytes()).unwrap_err();
            assert_eq!(mistake.line, line, "{text}");
            assert!(mistake.what.contains(what), "{mistake:?}");
        }
    }
}
