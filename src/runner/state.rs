//! What commands may have opened, written down before they run, so that a restart after anything
//! can close it.
//!
//! No command line is in the file, only what fills its blanks: whoever could write there could
//! otherwise have anything executed. It is replaced as a whole, never changed in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gate::command::{MAX_NUMBER, Opening};
use crate::gate::lease::{Families, Family, LeaseName, MAX_PORTS};

/// The name of the file in the state directory.
pub const FILE: &str = "commands.json";
/// The version of the file.
const VERSION: u32 = 1;
/// The longest file: some hundred openings are a few kilobytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The longest opening that is believed, in seconds: what `[window] max` may be at most.
const MAX_SECONDS: u64 = 24 * 3600;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    openings: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    number: u16,
    lease: String,
    ports: Vec<u16>,
    families: Vec<String>,
    seconds: u64,
}

/// Reads the file; one that is not there holds nothing.
///
/// # Errors
/// It cannot be read, or is not as [`save`] writes it.
pub fn load(path: &Path) -> io::Result<Vec<Opening>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_FILE_BYTES).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    parse(&text)
}

/// Reads the text of a file.
///
/// # Errors
/// It is not as [`save`] writes it.
pub fn parse(text: &str) -> io::Result<Vec<Opening>> {
    let document: Document = serde_json::from_str(text)?;
    if document.version != VERSION {
        return Err(io::Error::other("it is of another version"));
    }
    let mut openings: Vec<Opening> = Vec::new();
    for entry in document.openings {
        let opening = opening(entry).ok_or_else(|| io::Error::other("no opening is like that"))?;
        if openings.iter().any(|known| known.number == opening.number) {
            return Err(io::Error::other("a number stands in it twice"));
        }
        openings.push(opening);
    }
    Ok(openings)
}

fn opening(entry: Entry) -> Option<Opening> {
    let words = entry.families.iter();
    let families: Vec<Family> = words
        .map(|word| Family::ALL.into_iter().find(|family| family.word() == word))
        .collect::<Option<_>>()?;
    let is_possible = (1..=MAX_NUMBER).contains(&entry.number)
        && (1..=MAX_PORTS).contains(&entry.ports.len())
        && !entry.ports.contains(&0)
        && !families.is_empty()
        && (1..=MAX_SECONDS).contains(&entry.seconds);
    is_possible.then_some(())?;
    Some(Opening {
        number: entry.number,
        lease: LeaseName::parse(&entry.lease)?,
        ports: entry.ports,
        families: Families {
            v4: families.contains(&Family::V4),
            v6: families.contains(&Family::V6),
        },
        seconds: entry.seconds,
    })
}

/// The text of a file.
pub fn render(openings: &[Opening]) -> String {
    let openings = openings.iter().map(|opening| Entry {
        number: opening.number,
        lease: opening.lease.to_string(),
        ports: opening.ports.clone(),
        families: words(opening.families),
        seconds: opening.seconds,
    });
    let document = Document {
        version: VERSION,
        openings: openings.collect(),
    };
    // Numbers and text: nothing in it can fail to be written.
    serde_json::to_string(&document).unwrap_or_default()
}

/// The families of an opening, as words.
pub fn words(families: Families) -> Vec<String> {
    let own = Family::ALL
        .into_iter()
        .filter(|family| families.has(*family));
    own.map(|family| family.word().to_owned()).collect()
}

/// Replaces the file; one that would hold nothing is removed.
///
/// # Errors
/// Any of the system's; then the earlier file may stand.
pub fn save(path: &Path, openings: &[Opening]) -> io::Result<()> {
    if openings.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    file.write_all(render(openings).as_bytes())?;
    // A cloud's group outlives a power cut of this host; a file does where its directory, too, is on the disk.
    file.sync_all()?;
    fs::rename(beside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Opening {
        Opening {
            number: 3,
            lease: LeaseName::parse("certbot-812").unwrap(),
            ports: vec![80, 443],
            families: Families::BOTH,
            seconds: 600,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = render(&[one()]);
        assert_eq!(
            text,
            r#"{"version":1,"openings":[{"number":3,"lease":"certbot-812","ports":[80,443],"families":["ipv4","ipv6"],"seconds":600}]}"#
        );
        assert_eq!(parse(&text).unwrap(), [one()]);
    }

    #[test]
    fn what_no_runner_wrote_is_refused() {
        let good = render(&[one()]);
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("certbot-812", "certbot 812"),
            ("certbot-812", "../x"),
            ("[80,443]", "[]"),
            ("[80,443]", "[0]"),
            ("[80,443]", "[1,2,3,4,5]"),
            ("[80,443]", "[70000]"),
            ("\"ipv4\"", "\"ipx\""),
            ("[\"ipv4\",\"ipv6\"]", "[]"),
            ("600", "0"),
            ("600", "86401"),
            ("\"number\":3", "\"number\":0"),
            ("\"number\":3", "\"number\":40000"),
            ("\"seconds\"", "\"argv\":[\"rm\"],\"seconds\""),
            ("}]}", "}"),
        ] {
            assert!(good.contains(from));
            assert!(parse(&good.replace(from, to)).is_err(), "{to}");
        }
        let twice = render(&[one(), one()]);
        assert!(parse(&twice).is_err());
        assert!(parse("").is_err() && parse("\0").is_err());
    }
}
