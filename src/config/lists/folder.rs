//! Directories of country lists: which files there are a country's.

use std::path::{Path, PathBuf};

use super::super::country::Country;

/// What stands around the country's code in a file's name: ipdeny, geoip-shell, and what people
/// write by hand.
const STEMS: [&str; 4] = ["{}", "{}-aggregated", "{}_ipv4", "{}_ipv6"];
/// What a file's name ends with.
const ENDINGS: [&str; 8] = [
    "zone", "list", "txt", "cidr", "ip", "iplist", "ipv4", "ipv6",
];

/// The names a country's lists may have, its code in lower and in upper case.
pub(super) fn names(country: Country) -> impl Iterator<Item = String> {
    let codes = [country.as_str().to_ascii_lowercase(), country.to_string()];
    codes.into_iter().flat_map(|code| {
        STEMS.into_iter().flat_map(move |stem| {
            let stem = stem.replace("{}", &code);
            ENDINGS.map(|ending| format!("{stem}.{ending}"))
        })
    })
}

/// The lists of a country that are in a directory.
pub(super) fn find(directory: &Path, country: Country) -> Vec<PathBuf> {
    let paths = names(country).map(|name| directory.join(name));
    paths.filter(|path| path.is_file()).collect()
}

/// What was looked for, for people.
pub(super) fn looked_for(country: Country) -> String {
    let code = country.as_str().to_ascii_lowercase();
    let stems = STEMS.map(|stem| stem.replace("{}", &code));
    format!(
        "looked for {} ending in .{}, also in upper case",
        stems.join(", "),
        ENDINGS.join(", .")
    )
}
