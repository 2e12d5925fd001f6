//! Damaged files, put aside: what is in them may be worth looking at, and must not stay for ever.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// How many are kept.
const MOST: u32 = 3;

fn name(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("history.db.damaged-{number}"))
}

/// SQLite looks for a journal beside its file, by this name.
fn journal(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

/// Puts a file and its journal aside, in the place of the oldest if there is no other; says where.
///
/// # Errors
/// It cannot be renamed.
pub(super) fn put(directory: &Path, file: &Path) -> io::Result<PathBuf> {
    let places: Vec<PathBuf> = (1..=MOST).map(|number| name(directory, number)).collect();
    let free = places.iter().find(|place| !place.exists());
    let place = free.or_else(|| places.iter().min_by_key(|place| modified(place)));
    let Some(place) = place else {
        return Err(io::ErrorKind::AlreadyExists.into());
    };
    // Whatever journal stayed would be played back into the file that has come to its place.
    let _ = fs::remove_file(journal(place));
    match fs::rename(journal(file), journal(place)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::rename(file, place)?,
    }
    Ok(place.clone())
}

/// Those that are there.
pub(super) fn list(directory: &Path) -> Vec<PathBuf> {
    (1..=MOST)
        .map(|number| name(directory, number))
        .filter(|place| place.exists())
        .collect()
}

/// Removes those that are older than records may be.
pub(super) fn forget(directory: &Path, oldest: u64) {
    for place in list(directory) {
        if modified(&place) < oldest {
            // What cannot be removed is told as being there.
            let _ = fs::remove_file(journal(&place));
            let _ = fs::remove_file(&place);
        }
    }
}

/// In milliseconds after 1970.
fn modified(place: &Path) -> u64 {
    let modified = fs::metadata(place).and_then(|found| found.modified());
    let since = modified
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    u64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_journal_is_left_beside_a_file_that_is_not_its_own() {
        let name = format!("acmegate-aside-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("history.db");
        fs::write(&file, "1").unwrap();
        fs::write(journal(&file), "of 1").unwrap();
        let first = put(&directory, &file).unwrap();
        assert_eq!(fs::read(journal(&first)).unwrap(), b"of 1");
        // Until the first place is the oldest again.
        for number in 2..=4 {
            fs::write(&file, number.to_string()).unwrap();
            let place = put(&directory, &file).unwrap();
            assert_eq!(fs::read(&place).unwrap(), number.to_string().as_bytes());
        }
        assert_eq!(fs::read(&first).unwrap(), b"4");
        assert!(!journal(&first).exists() && !file.exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
