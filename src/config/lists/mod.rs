//! The files that the allow-list is read from: prefixes in text, countries from lists and databases.
//!
//! A list is known by its content, read as a whole, and never written. One that turns bad, empty or
//! suddenly tiny or vast does not replace the last good one, which stays until there is a better one: an
//! update that failed must neither shut the site's visitors out nor let everybody in. Nothing here
//! has a clock or a task: somebody asks [`Lists::has_changed`] now and then, and refreshes.

mod database;
mod delegated;
mod disk;
mod elements;
mod folder;
pub mod format;
mod mistake;
mod plain;
mod source;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::disk::Stamp;
pub use self::mistake::Mistake;
use self::source::{Good, Origin, Part, Stamps};
use self::text::MAX_RANGES;
use super::{Allow, Country, Named};
use crate::gate::allow_list::{AllowList, Entries};

/// The last second of the year 9999, after which dates have no common form.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// Half of all IPv4 addresses: more than any country has (the United States have 1.6 thousand million).
const HALF_OF_V4: u128 = 1 << 31;
/// Half of 2000::/3, all that is given out of IPv6 (IANA, 2026).
const HALF_OF_V6: u128 = 1 << 124;

/// How much is believed of a list that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It was found changed: what covers less than half of the addresses of a family that it covered
    /// before is taken for a mistake, and what begins to cover half of the Internet.
    Careful,
    /// The operator asked for it: whatever is not empty.
    Asked,
}

/// Every list that the allow-list is made of, as last read.
#[derive(Clone, Debug)]
pub struct Lists {
    sources: Vec<Source>,
    list: Arc<AllowList>,
}

/// One source: its parts that are good, perhaps from earlier, and what is wrong with it now.
#[derive(Clone, Debug)]
struct Source {
    origin: Origin,
    stamps: Stamps,
    parts: BTreeMap<Part, Good>,
    problems: Vec<String>,
}

/// The files of lists at one moment, without what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look(Vec<Option<Stamp>>);

/// Lists that cannot be used, and none from before in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError(Vec<String>);

impl ListError {
    /// A line for each: the file, what is wrong with it, and what to do. Fit for a terminal.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ListError {}

impl Lists {
    /// Reads everything.
    ///
    /// # Errors
    /// [`ListError`]: a list is bad, empty or missing, or all are too much.
    pub fn read(allow: &Allow) -> Result<Self, ListError> {
        Self::renew(None, allow, Trust::Asked)
    }

    /// Reads again what has changed on disk, and what is new in `allow`. A source that is bad, empty,
    /// missing or, with [`Trust::Careful`], suddenly tiny or vast keeps its last good content, and
    /// [`Lists::problems`] tells so.
    ///
    /// # Errors
    /// [`ListError`]: a source that is new in `allow` is bad, so that it has no good content to keep.
    /// Never with the `allow` that these lists were read for.
    pub fn refresh(&self, allow: &Allow, trust: Trust) -> Result<Self, ListError> {
        Self::renew(Some(self), allow, trust)
    }

    fn renew(before: Option<&Self>, allow: &Allow, trust: Trust) -> Result<Self, ListError> {
        let wanted = allow.wanted();
        let held = |origin: &Origin| {
            let mut sources = before.iter().flat_map(|lists| &lists.sources);
            sources.find(|source| source.origin == *origin)
        };
        let ranges_held: usize = wanted
            .iter()
            .filter_map(|(origin, parts)| Some((held(origin)?, parts)))
            .flat_map(|(source, parts)| parts.iter().filter_map(|part| source.parts.get(part)))
            .map(Good::ranges)
            .sum();
        let mut room = MAX_RANGES.saturating_sub(ranges_held);
        let mut errors = Vec::new();
        let mut sources = Vec::new();
        for (origin, parts) in &wanted {
            let held = held(origin);
            if let Some(source) = held.filter(|source| source.is_current(parts, trust)) {
                sources.push(source.of(parts));
                continue;
            }
            let reading = origin.read(parts);
            let mut source = Source {
                origin: origin.clone(),
                stamps: reading.stamps,
                parts: BTreeMap::new(),
                problems: Vec::new(),
            };
            for (part, new) in reading.parts {
                let old = held.and_then(|source| source.parts.get(&part));
                let new = new.and_then(|new| judge(origin, part, old, new, trust, &mut room));
                match (new, old) {
                    (Ok(new), _) => drop(source.parts.insert(part, new)),
                    (Err(told), Some(old)) => {
                        source.problems.push(format!("{told}; {}", old.stays()));
                        source.parts.insert(part, old.clone());
                    }
                    (Err(told), None) => errors.push(told),
                }
            }
            // A file that cannot be read is the same trouble for every country in it.
            source.problems.dedup();
            sources.push(source);
        }
        errors.dedup();
        if !errors.is_empty() {
            return Err(ListError(errors));
        }
        let list = Arc::new(compose(allow, &sources));
        Ok(Self { sources, list })
    }

    /// Whether a file or directory that was looked at is not as it was then. A look at each, without
    /// opening any; a file that turned out bad counts as looked at.
    pub fn has_changed(&self) -> bool {
        self.sources.iter().any(Source::has_changed)
    }

    /// How everything that was looked at is now: nobody wrote between two looks that are equal.
    pub fn look(&self) -> Look {
        let paths = self.sources.iter().flat_map(|source| source.stamps.keys());
        Look(paths.map(|path| Stamp::of(path)).collect())
    }

    /// The allow-list.
    pub fn list(&self) -> Arc<AllowList> {
        Arc::clone(&self.list)
    }

    /// What is wrong with lists that keep their last good content: a line each, fit for a terminal.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.sources.iter().flat_map(|source| &source.problems);
        problems.cloned().collect()
    }

    /// When the oldest of the lists in use was written; of several files that make one, the youngest
    /// counts.
    pub fn oldest(&self) -> Option<SystemTime> {
        let parts = self.sources.iter().flat_map(|source| source.parts.values());
        parts.filter_map(|good| good.written).min()
    }

    /// What was read from where: a name, and how many ranges of IPv4 and of IPv6.
    pub fn sources(&self) -> impl Iterator<Item = (String, usize, usize)> {
        self.sources.iter().flat_map(|source| {
            source.parts.iter().map(|(part, good)| {
                let name = name(&source.origin, *part);
                let [v4, v6] = good.counts();
                (name, v4, v6)
            })
        })
    }
}

impl Source {
    fn has_changed(&self) -> bool {
        let mut stamps = self.stamps.iter();
        stamps.any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Whether reading it again would lead to the same.
    fn is_current(&self, wanted: &BTreeSet<Part>, trust: Trust) -> bool {
        // What was too little to believe is believed when it is asked for.
        (trust == Trust::Careful || self.problems.is_empty())
            && wanted.iter().all(|part| self.parts.contains_key(part))
            && !self.has_changed()
    }

    /// Only the parts that are still wanted.
    fn of(&self, wanted: &BTreeSet<Part>) -> Self {
        let mut source = self.clone();
        source.parts.retain(|part, _| wanted.contains(part));
        source
    }
}

impl Good {
    fn counts(&self) -> [usize; 2] {
        [
            self.list.v4().as_slice().len(),
            self.list.v6().as_slice().len(),
        ]
    }

    fn ranges(&self) -> usize {
        self.counts().iter().sum()
    }

    fn stays(&self) -> String {
        let date = self.written.filter(|at| {
            at.duration_since(UNIX_EPOCH)
                .is_ok_and(|since| since <= LAST_DATE)
        });
        match date {
            Some(at) => format!("the last good one, of {}, stays", date_of(at)),
            None => "the last good one stays".to_owned(),
        }
    }
}

fn date_of(at: SystemTime) -> String {
    httpdate::fmt_http_date(at)
}

fn name(origin: &Origin, part: Part) -> String {
    let first = origin.paths().first();
    let path = first.map_or(Path::new(""), PathBuf::as_path).display();
    match (part, origin.paths().len()) {
        (None, _) => path.to_string(),
        (Some(country), 0 | 1) => format!("{country} of {path}"),
        (Some(country), files) => format!("{country} of {path} and {} more", files - 1),
    }
}

/// Whether a new list may take the place of the old one, if there is one, and fits.
fn judge(
    origin: &Origin,
    part: Part,
    old: Option<&Good>,
    new: Good,
    trust: Trust,
    room: &mut usize,
) -> Result<Good, String> {
    if let (Some(old), Trust::Careful) = (old, trust) {
        let families = [
            (
                "IPv4",
                HALF_OF_V4,
                old.list.v4().addresses(),
                new.list.v4().addresses(),
            ),
            (
                "IPv6",
                HALF_OF_V6,
                old.list.v6().addresses(),
                new.list.v6().addresses(),
            ),
        ];
        for (family, half, before, now) in families {
            let covers = if now < before.div_ceil(2) {
                format!("less than half of the {family} addresses that it covered before")
            } else if now >= half && before < half {
                // One line, 0.0.0.0/0, would let everybody in.
                format!("half of all {family} addresses or more, and did not before")
            } else {
                continue;
            };
            return Err(format!(
                "{}: covers {covers}; if that is right, reload acmegate",
                name(origin, part)
            ));
        }
    }
    let held = old.map_or(0, Good::ranges);
    match (*room + held).checked_sub(new.ranges()) {
        Some(left) => {
            *room = left;
            Ok(new)
        }
        None => Err(format!(
            "{}: {} ranges, which with all others are more than {MAX_RANGES}; name fewer or smaller lists",
            name(origin, part),
            new.ranges()
        )),
    }
}

/// What everybody lists, without what anybody takes off.
fn compose(allow: &Allow, sources: &[Source]) -> AllowList {
    let part = |origin: &Origin, part: Part| {
        let source = sources.iter().find(|source| source.origin == *origin);
        source.and_then(|source| source.parts.get(&part))
    };
    let countries = Origin::Countries(allow.country_source.clone());
    let entries = |named: &Named| {
        let mut entries = Entries::default();
        Extend::extend(&mut entries, named.prefixes.iter().copied());
        let files: BTreeSet<&PathBuf> = named.files.iter().collect();
        let files = files
            .into_iter()
            .map(|path| part(&Origin::File(path.clone()), None));
        let codes: BTreeSet<Country> = named.countries.iter().copied().collect();
        let codes = codes.into_iter().map(|code| part(&countries, Some(code)));
        for good in files.chain(codes).flatten() {
            entries.v4.extend_from_slice(good.list.v4().as_slice());
            entries.v6.extend_from_slice(good.list.v6().as_slice());
        }
        entries
    };
    let mut listed = entries(&allow.listed);
    if allow.local {
        Extend::extend(&mut listed, AllowList::local());
    }
    AllowList::from_entries(listed, entries(&allow.taken_off))
}

impl Allow {
    /// Every source that is named, once, and the parts of it that are.
    fn wanted(&self) -> BTreeMap<Origin, BTreeSet<Part>> {
        let mut wanted: BTreeMap<Origin, BTreeSet<Part>> = BTreeMap::new();
        for named in [&self.listed, &self.taken_off] {
            for path in &named.files {
                let origin = Origin::File(path.clone());
                wanted.insert(origin, BTreeSet::from([None]));
            }
            for country in &named.countries {
                let origin = Origin::Countries(self.country_source.clone());
                wanted.entry(origin).or_default().insert(Some(*country));
            }
        }
        wanted
    }

    /// What a sealed process must be able to read: directories of country lists, those in which list
    /// files stand, as one is replaced by renaming another, and those that links lead to.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut directories = BTreeSet::new();
        let mut add = |path: &Path| {
            let target = path.canonicalize().ok();
            for place in [Some(path.to_owned()), target].into_iter().flatten() {
                let directory = if path.is_dir() {
                    Some(place)
                } else {
                    place.parent().map(Path::to_owned)
                };
                directories.extend(directory);
            }
        };
        for (origin, parts) in self.wanted() {
            for path in origin.paths() {
                add(path);
                for country in parts.iter().flatten().filter(|_| path.is_dir()) {
                    folder::find(path, *country)
                        .iter()
                        .for_each(|file| add(file));
                }
            }
        }
        directories.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
