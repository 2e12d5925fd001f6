//! Where an address is: its country and its network, by databases in MaxMind's format (`.mmdb`).
//!
//! GeoLite2's and DB-IP's names of fields are understood, and IPinfo's flat ones. Nothing of it sways a
//! verdict. A database that cannot be read is told and otherwise missed; one that is replaced by
//! renaming is read anew.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use maxminddb::Reader;
use serde::{Deserialize, Deserializer};

use crate::observe::record::{Place, Record};
use crate::observe::region::region_of;

/// The longest name of an organization, in octets; longer ones are cut.
const MAX_ORGANIZATION_BYTES: usize = 120;
/// The longest database that is read.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The databases, read as long as they are used.
pub(super) struct Places {
    paths: Vec<PathBuf>,
    read: Vec<(Stamp, Reader<Vec<u8>>)>,
    problems: Vec<String>,
}

/// What tells a file from the one that is put in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl Places {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            read: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// What is wrong with them, each in one line.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Forgets what was read; they are read again when they are next needed.
    pub(super) fn put_away(&mut self) {
        self.read.clear();
    }

    /// Fills in the places of sources that have none; says whether there were any.
    pub(super) fn fill(&mut self, record: &mut Record) -> bool {
        if self.paths.is_empty() || record.sources.iter().all(|source| source.place.is_some()) {
            return false;
        }
        self.refresh();
        let mut filled = false;
        for source in &mut record.sources {
            if source.place.is_none() {
                source.place = self.of(source.address);
                filled |= source.place.is_some();
            }
        }
        filled
    }

    fn of(&self, address: IpAddr) -> Option<Place> {
        let mut place = Place::default();
        for (_, reader) in &self.read {
            // A record that is broken says nothing about the others.
            let found = reader.lookup(address);
            let found = found.and_then(|found| found.decode::<Entry>());
            let Ok(Some(entry)) = found else { continue };
            place.country = place.country.take().or_else(|| entry.country());
            place.autonomous_system = place.autonomous_system.or_else(|| entry.system());
            place.organization = place.organization.take().or_else(|| entry.organization());
        }
        place.region = place.country.as_deref().and_then(region_of);
        (place != Place::default()).then_some(place)
    }

    /// Reads what is new.
    fn refresh(&mut self) {
        let mut before = std::mem::take(&mut self.read);
        self.problems.clear();
        for path in &self.paths {
            let read = stamp(path).and_then(|stamp| {
                match before.iter().position(|(known, _)| *known == stamp) {
                    Some(at) => Ok(before.swap_remove(at)),
                    None => read(path).map(|reader| (stamp, reader)),
                }
            });
            match read {
                Ok(read) => self.read.push(read),
                Err(why) => self.problems.push(format!(
                    "{} of [report] databases cannot be used ({why}): places come from the others alone",
                    path.display()
                )),
            }
        }
    }
}

fn stamp(path: &Path) -> Result<Stamp, String> {
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "it may not be read; a directory that was not named at start needs a restart".to_owned()
        }
        _ => error.to_string(),
    })?;
    Ok(Stamp {
        path: path.to_owned(),
        device: found.dev(),
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        length: found.len(),
    })
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} octets"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Reader::from_source(bytes).map_err(|error| format!("a broken database: {error}"))
}

/// As much of an entry as counts.
#[derive(Deserialize)]
struct Entry {
    country: Option<Code>,
    country_code: Option<Code>,
    registered_country: Option<Code>,
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<String>,
    /// IPinfo's: `AS64500`.
    asn: Option<String>,
    as_name: Option<String>,
}

impl Entry {
    fn country(&self) -> Option<String> {
        let codes = [&self.country_code, &self.country, &self.registered_country];
        let code = codes
            .into_iter()
            .flatten()
            .find_map(|code| code.0.clone())?;
        let is_code = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_code.then(|| code.to_ascii_uppercase())
    }

    fn system(&self) -> Option<u32> {
        let flat = self.asn.as_deref().and_then(|asn| asn.strip_prefix("AS"));
        self.autonomous_system_number.or_else(|| flat?.parse().ok())
    }

    fn organization(&self) -> Option<String> {
        let name = self.autonomous_system_organization.as_ref();
        let name = clean(name.or(self.as_name.as_ref())?);
        (!name.is_empty()).then_some(name)
    }
}

/// Without what could steer a terminal or turn a line around, and not too long.
fn clean(name: &str) -> String {
    let kept = |c: &char| !c.is_control() && !is_bidi(*c);
    let mut clean = String::new();
    for c in name.chars().filter(kept) {
        if clean.len() + c.len_utf8() > MAX_ORGANIZATION_BYTES {
            break;
        }
        clean.push(c);
    }
    clean.trim().to_owned()
}

/// Marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9), and the line
/// separators.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A country by its code, or a table with the code in it.
struct Code(Option<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum CodeOrTable {
    Code(String),
    Table { iso_code: Option<String> },
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match CodeOrTable::deserialize(deserializer)? {
            CodeOrTable::Code(code) => (code.len() == 2).then_some(code),
            CodeOrTable::Table { iso_code } => iso_code,
        }))
    }
}
