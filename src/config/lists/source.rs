//! Sources of the allow-list: a list file, or where the networks of countries are found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::super::country::Country;
use super::disk::{self, Stamp};
use super::mistake::Mistake;
use super::{folder, format};
use crate::gate::allow_list::{AllowList, Entries};

/// Where a list is read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// One file, as a whole.
    File(PathBuf),
    /// `country_source`: an .mmdb file, a directory, or delegated-extended files.
    Countries(Vec<PathBuf>),
}

/// A part of a source that stays or goes as one: a country of it, or `None` for the whole.
pub(super) type Part = Option<Country>;

/// A list as it was read.
#[derive(Clone, Debug)]
pub(super) struct Good {
    /// The ranges.
    pub(super) list: Arc<AllowList>,
    /// When it was written.
    pub(super) written: Option<SystemTime>,
}

/// Files and directories that were looked at, each as it was then.
pub(super) type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// What a source holds now.
pub(super) struct Reading {
    /// By what a change will be seen.
    pub(super) stamps: Stamps,
    /// Every part that was wanted, or why it cannot be used: one line.
    pub(super) parts: BTreeMap<Part, Result<Good, String>>,
}

impl Origin {
    /// Every path that was named.
    pub(super) fn paths(&self) -> &[PathBuf] {
        match self {
            Self::File(path) => std::slice::from_ref(path),
            Self::Countries(paths) => paths,
        }
    }

    /// Reads the parts that are wanted.
    pub(super) fn read(&self, wanted: &BTreeSet<Part>) -> Reading {
        let mut looks = Looks::default();
        let countries: BTreeSet<Country> = wanted.iter().copied().flatten().collect();
        let found = match self {
            Self::File(path) => {
                let list = looks.read(path, format::prefixes);
                BTreeMap::from([(None, list.and_then(|list| used(list, path, EMPTY)))])
            }
            Self::Countries(paths) => match &paths[..] {
                [path] if path.is_dir() => from_folder(path, &countries, &mut looks),
                _ => from_files(paths, &countries, &mut looks),
            },
        };
        let written = looks.written;
        let parts = found.into_iter().map(|(part, list)| {
            let good = list.map(|list| Good {
                list: Arc::new(list),
                written,
            });
            (part, good)
        });
        Reading {
            parts: parts.collect(),
            stamps: looks.stamps,
        }
    }
}

/// What is looked at while a source is read.
#[derive(Default)]
struct Looks {
    stamps: Stamps,
    /// The youngest file.
    written: Option<SystemTime>,
}

impl Looks {
    fn read<List>(
        &mut self,
        path: &Path,
        understand: impl FnOnce(&[u8]) -> Result<List, Mistake>,
    ) -> Result<List, String> {
        let content = disk::read(path);
        self.stamps.insert(path.to_owned(), content.stamp);
        self.written = self.written.max(content.modified);
        let list = content.bytes.and_then(|bytes| understand(&bytes));
        list.map_err(|mistake| mistake.of(path))
    }
}

const EMPTY: [&str; 2] = [
    "this list is empty",
    "write the prefixes into it, or take it out of [allow]",
];

/// The ranges of what was found, if there are any.
fn used(
    entries: Entries,
    path: &Path,
    otherwise: [impl Into<String>; 2],
) -> Result<AllowList, String> {
    if entries.v4.is_empty() && entries.v6.is_empty() {
        let [what, fix] = otherwise;
        return Err(Mistake::of_file(what, fix).of(path));
    }
    Ok(AllowList::from_entries(entries, Entries::default()))
}

type Found = BTreeMap<Part, Result<AllowList, String>>;

fn from_folder(directory: &Path, countries: &BTreeSet<Country>, looks: &mut Looks) -> Found {
    let stamp = Stamp::of(directory);
    looks.stamps.insert(directory.to_owned(), stamp);
    let of = |country: Country, looks: &mut Looks| {
        let files = folder::find(directory, country);
        if files.is_empty() {
            let mistake = Mistake::of_file(
                format!("there is no list of {country}"),
                folder::looked_for(country),
            );
            return Err(mistake.of(directory));
        }
        let mut entries = Entries::default();
        for file in &files {
            entries.extend(&looks.read(file, format::prefixes)?);
        }
        used(entries, &files[0], EMPTY)
    };
    countries
        .iter()
        .map(|country| (Some(*country), of(*country, looks)))
        .collect()
}

fn from_files(paths: &[PathBuf], countries: &BTreeSet<Country>, looks: &mut Looks) -> Found {
    let mut joined: BTreeMap<Country, Entries> = BTreeMap::new();
    for path in paths {
        match looks.read(path, |bytes| format::countries(bytes, countries)) {
            Ok(found) => {
                for (country, entries) in found {
                    joined.entry(country).or_default().extend(&entries);
                }
            }
            // What one of several files lacks may be any part of any country.
            Err(told) => {
                let parts = countries.iter().map(|it| (Some(*it), Err(told.clone())));
                return parts.collect();
            }
        }
    }
    let parts = countries.iter().map(|country| {
        let entries = joined.remove(country).unwrap_or_default();
        let none = [
            format!("there is no network of {country} in it"),
            match paths {
                [_] => "take the country out of [allow], or name another source".to_owned(),
                _ => "nor in the other files of country_source: name that of its registry, too"
                    .to_owned(),
            },
        ];
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        (Some(*country), used(entries, path, none))
    });
    parts.collect()
}
