//! What an examination left in a webroot that was killed before it could clear up.
//!
//! Taken away is only what can be nothing else: a file by the name of a trial's token, of the examining user's own,
//! no longer than such a file is, and older than any examination that still runs. No link is followed. Directories
//! stay: whoever made an empty one, the next ACME client needs it.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, Stat, fstat, statat, unlinkat};

use super::DEADLINE;
use crate::gate::token::{TRIAL, Token};

/// As many entries are looked at.
const MOST: usize = 10_000;

/// Clears a directory of challenges, of what is older than the examination that has just put up the file `own`.
///
/// # Errors
/// The system's; nothing depends on it.
pub(super) fn clear(directory: impl AsFd, own: impl AsFd) -> io::Result<()> {
    let own = fstat(own)?;
    let directory = directory.as_fd();
    for entry in Dir::read_from(directory)?.take(MOST) {
        let entry = entry?;
        let name = entry.file_name();
        let is_trial = name.to_bytes().starts_with(TRIAL.as_bytes());
        if !is_trial || Token::parse(name.to_bytes()).is_err() {
            continue;
        }
        let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_left(&found, &own) {
            unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn is_left(found: &Stat, own: &Stat) -> bool {
    // The file system's own clock: it is the same for both.
    let patience = i64::try_from(2 * DEADLINE.as_secs()).unwrap_or(i64::MAX);
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && found.st_uid == own.st_uid
        && found.st_nlink == 1
        && found.st_size <= own.st_size
        && found.st_mtime.saturating_add(patience) < own.st_mtime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_nothing_else_is_left() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let own = fstat(file).unwrap();
        let with = |change: fn(&mut Stat)| {
            let mut found = own;
            found.st_mtime -= 121;
            found.st_nlink = 1;
            change(&mut found);
            is_left(&found, &own)
        };
        assert!(with(|_| {}));
        assert!(with(|found| found.st_size = 0));
        assert!(!with(|found| found.st_mtime += 1));
        assert!(!with(|found| found.st_uid += 1));
        assert!(!with(|found| found.st_nlink = 2));
        assert!(!with(|found| found.st_size += 1));
        assert!(!with(|found| found.st_mode = 0o040_755));
        assert!(!with(|found| found.st_mode = 0o120_777));
    }
}
