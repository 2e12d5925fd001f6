//! `[allow]` and `[group.NAME]`: who is on the allow-list, and who is taken off it.
//!
//! Only words are checked here; which files they name is read by `lists`.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::country::Country;
use super::error::{Problem, nearest};
use super::file::{self, Key, NamedGroup, Paths, Section};
use super::value::directory;
use super::{Allow, Named, prefix};

/// The longest name of a group; it stands in lines for people.
const MAX_NAME_BYTES: usize = 64;

/// Checks `[allow]` and every group.
pub(super) fn allow(
    section: &Section<file::Allow>,
    groups: &[NamedGroup],
    problems: &mut Vec<Problem>,
) -> Allow {
    let keys = &section.keys;
    let default = Allow::default();
    let mut allow = Allow {
        local: keys
            .local
            .as_ref()
            .map_or(default.local, |local| *local.get_ref()),
        country_source: country_source(&keys.country_source, problems),
        ..default
    };
    let own = Words {
        prefixes: &keys.prefixes,
        files: &keys.files,
        countries: &keys.countries,
    };
    own.read(problems, &mut allow.listed, &mut allow.taken_off);
    let known: Vec<Known> = groups
        .iter()
        .map(|group| Known::read(group, problems))
        .collect();
    let used = signed(&keys.groups, "group", problems);
    for (takes_off, name, entry) in &used {
        let Some(group) = known.iter().find(|group| group.name == *name) else {
            // Groups that could not be read may be the one that is meant.
            if !groups.is_empty() || section.is_whole {
                problems.push(unknown(name, entry, &known));
            }
            continue;
        };
        if !takes_off {
            allow.listed.extend(&group.listed);
            allow.taken_off.extend(&group.taken_off);
        } else if group.taken_off == Named::default() {
            allow.taken_off.extend(&group.listed);
        } else {
            problems.push(
                Problem::new(
                    entry.span(),
                    format!("group `{name}` is taken off, and takes off itself"),
                )
                .fix("leave out the entries with ! in it, or list it without !")
                .also(group.group.section.at.clone(), "the group"),
            );
        }
    }
    if section.is_whole {
        let is_used = |group: &&Known| used.iter().any(|(_, name, _)| *name == group.name);
        let unused = known.iter().filter(|group| !is_used(group));
        allow.unused_groups = unused.map(|group| group.name.to_owned()).collect();
    }
    need_source(keys, groups, &allow, section.is_whole, problems);
    allow
}

/// Countries come from a source.
fn need_source(
    keys: &file::Allow,
    groups: &[NamedGroup],
    allow: &Allow,
    is_whole: bool,
    problems: &mut Vec<Problem>,
) {
    if !is_whole || !allow.country_source.is_empty() {
        return;
    }
    let in_groups = groups.iter().map(|group| &group.section.keys.countries);
    let first = std::iter::once(&keys.countries)
        .chain(in_groups)
        .filter_map(Option::as_ref)
        .find(|countries| !countries.get_ref().is_empty());
    // One that could not be used has been told of.
    let is_named = keys.country_source.as_ref().is_some_and(
        |source| !matches!(source.get_ref(), Paths::Several(paths) if paths.is_empty()),
    );
    if let (Some(countries), false) = (first, is_named) {
        problems.push(
            Problem::new(countries.span(), "countries need a source")
                .fix("add country_source = \"/usr/share/GeoIP/GeoLite2-Country.mmdb\" below [allow]")
                .note("an .mmdb file, a directory of lists such as de.zone, or a registry's delegated-extended file; acmegate fetches none itself"),
        );
    }
}

/// A group, read.
struct Known<'file> {
    name: &'file str,
    group: &'file NamedGroup,
    listed: Named,
    taken_off: Named,
}

impl<'file> Known<'file> {
    fn read(group: &'file NamedGroup, problems: &mut Vec<Problem>) -> Self {
        let name = group.name.get_ref().as_str();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            let message = format!("`{name}` is no name of a group");
            let fix = format!("write up to {MAX_NAME_BYTES} letters, digits, `_`, `-` and `.`");
            problems.push(Problem::new(group.name.span(), message).fix(fix));
        }
        let keys = &group.section.keys;
        let words = Words {
            prefixes: &keys.prefixes,
            files: &keys.files,
            countries: &keys.countries,
        };
        let before = problems.len();
        let (mut listed, mut taken_off) = (Named::default(), Named::default());
        words.read(problems, &mut listed, &mut taken_off);
        let is_empty = listed == Named::default() && taken_off == Named::default();
        if is_empty && group.section.is_whole && problems.len() == before {
            problems.push(
                Problem::new(group.name.span(), format!("group `{name}` names nobody"))
                    .fix("add prefixes, files or countries, or leave the group out"),
            );
        }
        Self {
            name,
            group,
            listed,
            taken_off,
        }
    }
}

fn unknown(name: &str, entry: &Spanned<String>, known: &[Known<'_>]) -> Problem {
    let names = || known.iter().map(|group| group.name);
    let fix = match nearest(name, names()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if known.is_empty() => "write it as a table of its own: [group.NAME]".to_owned(),
        None => format!("the groups are {}", names().collect::<Vec<_>>().join(", ")),
    };
    Problem::new(entry.span(), format!("there is no group `{name}`")).fix(fix)
}

/// The keys that `[allow]` and groups share.
struct Words<'file> {
    prefixes: &'file Key<Vec<Spanned<String>>>,
    files: &'file Key<Vec<Spanned<String>>>,
    countries: &'file Key<Vec<Spanned<String>>>,
}

impl Words<'_> {
    fn read(&self, problems: &mut Vec<Problem>, listed: &mut Named, taken_off: &mut Named) {
        // A prefix may stand here twice: what is copied together from elsewhere often has it so.
        for entry in self.prefixes.iter().flat_map(Spanned::get_ref) {
            let (takes_off, text) = sign(entry);
            match prefix::parse(text) {
                Ok(prefix) => side(takes_off, listed, taken_off).prefixes.push(prefix),
                Err((message, fix)) => problems.push(Problem::new(entry.span(), message).fix(fix)),
            }
        }
        for (takes_off, text, entry) in signed(self.files, "file", problems) {
            if let Some(path) = path(text, entry, "files", problems) {
                side(takes_off, listed, taken_off).files.push(path);
            }
        }
        for (takes_off, text, entry) in signed(self.countries, "country", problems) {
            match Country::parse(text) {
                Ok(country) => side(takes_off, listed, taken_off).countries.push(country),
                Err((message, fix)) => problems.push(Problem::new(entry.span(), message).fix(fix)),
            }
        }
    }
}

fn side<'named>(
    takes_off: bool,
    listed: &'named mut Named,
    taken_off: &'named mut Named,
) -> &'named mut Named {
    if takes_off { taken_off } else { listed }
}

/// Whether an entry takes off, and what it names.
fn sign(entry: &Spanned<String>) -> (bool, &str) {
    let text = entry.get_ref().as_str();
    match text.strip_prefix('!') {
        Some(named) => (true, named),
        None => (false, text),
    }
}

/// The entries of an array, none of which stands there twice, with ! or without.
fn signed<'file>(
    key: &'file Key<Vec<Spanned<String>>>,
    what: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(bool, &'file str, &'file Spanned<String>)> {
    let mut entries: Vec<(bool, &str, &Spanned<String>)> = Vec::new();
    for entry in key.iter().flat_map(Spanned::get_ref) {
        let (takes_off, named) = sign(entry);
        match entries.iter().find(|(_, known, _)| *known == named) {
            None => entries.push((takes_off, named, entry)),
            Some((before, _, first)) => {
                let message = if *before == takes_off {
                    format!("{what} `{named}` stands here twice")
                } else {
                    format!("{what} `{named}` is listed and taken off")
                };
                let problem = Problem::new(entry.span(), message).fix("leave one out");
                problems.push(problem.also(first.span(), "first here"));
            }
        }
    }
    entries
}

fn country_source(key: &Key<Paths>, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let name = "country_source";
    let mut sources: Vec<PathBuf> = Vec::new();
    match key.as_ref().map(|key| (key, key.get_ref())) {
        None => {}
        Some((key, Paths::One(text))) => {
            let entry = Spanned::new(key.span(), text.clone());
            sources.extend(path(text, &entry, name, problems));
        }
        Some((_, Paths::Several(entries))) => {
            for entry in entries {
                let Some(path) = path(entry.get_ref(), entry, name, problems) else {
                    continue;
                };
                if sources.contains(&path) {
                    let message = format!("`{}` stands here twice", path.display());
                    problems.push(Problem::new(entry.span(), message).fix("leave one out"));
                } else {
                    sources.push(path);
                }
            }
        }
    }
    sources
}

/// An absolute path in a directory that the sealed processes may be given to read.
fn path(
    text: &str,
    entry: &Spanned<String>,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<PathBuf> {
    let before = problems.len();
    let path = directory(&Spanned::new(entry.span(), text.to_owned()), name, problems);
    if problems.len() == before && path.parent().is_none_or(|parent| parent == Path::new("/")) {
        problems.push(
            Problem::new(entry.span(), format!("`{text}` has no directory of its own"))
                .fix("put it below one, such as /etc/acmegate")
                .note("the sealed processes may read the directory, as a list is replaced by renaming, and here that is the whole disk"),
        );
    }
    (problems.len() == before).then_some(path)
}

impl Named {
    fn extend(&mut self, other: &Self) {
        self.prefixes.extend_from_slice(&other.prefixes);
        self.files.extend_from_slice(&other.files);
        self.countries.extend_from_slice(&other.countries);
    }
}
