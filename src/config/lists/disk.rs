//! List files on disk: their bytes, and stamps by which a change is seen.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::mistake::Mistake;

/// The largest file that is read. The largest country databases have 30 MiB (2026), the joint file
/// of the registries 50 MiB.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// What changes when a file is written, replaced or touched. A clock that is set back or a copy that
/// keeps its times leaves the change of status, which nobody can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file or directory; `None` if it cannot be seen.
    pub(super) fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What was found at a path.
pub(super) struct Content {
    /// Its stamp from before it was read.
    pub(super) stamp: Option<Stamp>,
    /// When it was written.
    pub(super) modified: Option<SystemTime>,
    /// Its bytes.
    pub(super) bytes: Result<Vec<u8>, Mistake>,
}

/// Reads a file as a whole.
pub(super) fn read(path: &Path) -> Content {
    // A pipe with no writer would hold us up for ever.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    match opened {
        Ok((file, metadata)) => Content {
            stamp: Some(Stamp::from(&metadata)),
            modified: metadata.modified().ok(),
            bytes: bytes(file, &metadata),
        },
        Err(error) => Content {
            stamp: Stamp::of(path),
            modified: None,
            bytes: Err(unreadable(&error)),
        },
    }
}

fn bytes(file: File, before: &Metadata) -> Result<Vec<u8>, Mistake> {
    if before.is_dir() {
        return Err(Mistake::of_file(
            "this is a directory",
            "name a file; a directory of country lists stands alone in country_source",
        ));
    }
    if !before.is_file() {
        return Err(Mistake::of_file("this is no file", "name a file"));
    }
    if before.size() > MAX_FILE_BYTES {
        let mebibytes = MAX_FILE_BYTES >> 20;
        return Err(Mistake::of_file(
            format!("larger than {mebibytes} MiB"),
            "name a list of prefixes or countries",
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(before.size()).unwrap_or(0));
    // As long as it was: what grows under our eyes has changed, and is told below.
    let mut reader = (&file).take(before.size());
    let read = reader.read_to_end(&mut bytes).and_then(|_| file.metadata());
    match read {
        Ok(after) if Stamp::from(&after) == Stamp::from(before) => Ok(bytes),
        Ok(_) => Err(Mistake::of_file(
            "it changes while it is read",
            "replace lists by renaming: mv new.list office.list",
        )),
        Err(error) => Err(unreadable(&error)),
    }
}

fn unreadable(error: &io::Error) -> Mistake {
    match error.kind() {
        ErrorKind::NotFound => Mistake::of_file(
            "there is no such file",
            "put it there, or take it out of [allow]",
        ),
        ErrorKind::PermissionDenied => Mistake::of_file(
            "it may not be read",
            "the account of acmegate must be able to (ls -ld), and a directory that held no list at the start needs a restart",
        ),
        _ => Mistake::of_file(format!("it cannot be read: {error}"), "see to the disk"),
    }
}
