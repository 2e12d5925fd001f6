//! Plain lists: one prefix, address or range `a-b` a line.
//!
//! `#` and `;` begin a comment, anywhere in a line; blank lines and carriage returns do not count.
//! Both families may stand in one file. So are ipdeny's zones, FireHOL's netsets, Spamhaus' DROP.

use super::mistake::Mistake;
use super::text;
use crate::gate::allow_list::Entries;

/// Reads a plain list.
///
/// # Errors
/// [`Mistake`], with the line.
pub(super) fn read(bytes: &[u8]) -> Result<Entries, Mistake> {
    let mut entries = Entries::default();
    for line in text::lines(bytes) {
        let (number, line) = line?;
        let entry = text::uncommented(line);
        if !entry.is_empty() {
            text::add(&mut entries, entry, number)?;
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = include_bytes!("../../../tests/data/lists/office.list");

    #[test]
    fn prefixes_addresses_and_ranges_are_read_through_comments() {
        let entries = read(LIST).unwrap();
        assert_eq!(
            entries.v4,
            [
                (0xc633_6400, 0xc633_64ff),
                (0xcb00_7107, 0xcb00_7107),
                (0xcb00_7108, 0xcb00_710b),
                (0xc000_0200, 0xc000_02ff),
            ]
        );
        let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
        assert_eq!(
            entries.v6,
            [
                (
                    v6("2001:db8:77::"),
                    v6("2001:db8:77:ffff:ffff:ffff:ffff:ffff")
                ),
                (v6("2001:db8::1"), v6("2001:db8::1")),
                (v6("2001:db8::10"), v6("2001:db8::1f")),
            ]
        );
    }

    #[test]
    fn carriage_returns_a_mark_and_a_missing_line_end_do_not_count() {
        let windows = String::from_utf8(LIST.to_vec())
            .unwrap()
            .replace('\n', "\r\n");
        let marked = format!("\u{feff}{}", windows.trim_end());
        assert_eq!(read(marked.as_bytes()), read(LIST));
    }

    #[test]
    fn a_bad_line_is_named_with_what_to_write() {
        for (line, what, fix) in [
            (
                "10.0.0.300",
                "`10.0.0.300` is not a prefix",
                "write one such as",
            ),
            (
                "192.0.2.0/24 DE",
                "`192.0.2.0/24 DE` is not a prefix",
                "write one such as",
            ),
            (
                "10.1.2.3/8",
                "`10.1.2.3/8` has bits set behind its prefix length",
                "write \"10.0.0.0/8\" for the network",
            ),
            (
                "::ffff:192.0.2.0/120",
                "is an IPv4 prefix written as IPv6",
                "write \"192.0.2.0/24\"",
            ),
            (
                "::ffff:192.0.2.1-::ffff:192.0.2.9",
                "is an IPv4 range written as IPv6",
                "write 192.0.2.1-192.0.2.9",
            ),
            (
                "192.0.2.9-192.0.2.1",
                "ends before it begins",
                "write the lower address first",
            ),
            (
                "192.0.2.9-2001:db8::1",
                "begins in one family",
                "write two addresses of one family",
            ),
            (
                "192.0.2.9-",
                "`192.0.2.9-` is not a range",
                "write one such as 192.0.2.8-192.0.2.11",
            ),
            (
                "192.0.2.1,192.0.2.9,DE",
                "is not a prefix",
                "write one such as",
            ),
            ("\0", "this is no text", "name a list of prefixes"),
        ] {
            let text = format!("# one\n192.0.2.0/24\n{line}\n");
            let mistake = read(text.as_bytes()).unwrap_err();
            assert_eq!(mistake.line, Some(3), "{line}");
            assert!(mistake.what.contains(what), "{mistake:?}");
            assert!(mistake.fix.contains(fix), "{mistake:?}");
        }
        let mistake = read(b"192.0.2.0/24\n\xff\xfe\n").unwrap_err();
        assert_eq!(
            (mistake.line, mistake.what.as_str()),
            (Some(2), "this is no text")
        );
    }
}
