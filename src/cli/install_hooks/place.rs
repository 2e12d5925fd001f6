//! Where it is written: what stands there already, and how a file comes and goes whole.
//!
//! A file is written beside its place and comes into it whole, so nobody reads half of one. What is
//! not a regular file, or does not carry our marker unchanged, is never replaced or removed.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::files::{HookFile, is_unchanged};
use crate::cli::Failure;
use crate::control::protocol::Exit;

/// Far more than any text of ours has; what is longer is not ours.
const MAX_BYTES: u64 = 64 * 1024;
/// The mode of a directory that we make.
const DIRECTORY: u32 = 0o755;

/// What stands at a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// This very file, with this mode.
    Same,
    /// A file of ours that nobody changed, of another version or mode.
    Ours,
    /// A file of ours that somebody changed.
    Changed,
    /// Somebody else's.
    Foreign,
}

/// The place of a file below a root.
///
/// # Errors
/// A link in between that leads out of the root: the operator's fault.
pub fn below(root: &Path, file: &HookFile) -> Result<PathBuf, Failure> {
    let path = root.join(&file.path);
    let existing = path.ancestors().skip(1).find(|parent| parent.exists());
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| failure(path, &error));
    let real_root = real(root)?;
    match existing {
        Some(parent) if !real(parent)?.starts_with(&real_root) => Err(Failure::new(
            Exit::Data,
            format!("{} leads out of {}", parent.display(), root.display()),
        )),
        _ => Ok(path),
    }
}

/// What is there now.
pub fn look(path: &Path, file: &HookFile) -> Result<Found, Failure> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
        Err(error) => return Err(failure(path, &error)),
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Ok(Found::Foreign);
    }
    let bytes = fs::read(path).map_err(|error| failure(path, &error))?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    Ok(match is_unchanged(&text) {
        None => Found::Foreign,
        Some(false) => Found::Changed,
        Some(true) if text == file.text && metadata.permissions().mode() & 0o7777 == file.mode => {
            Found::Same
        }
        Some(true) => Found::Ours,
    })
}

/// Writes a file where there is none.
///
/// # Errors
/// Also if one has come there since it was looked for.
pub fn create(path: &Path, file: &HookFile) -> Result<(), Failure> {
    put(path, file, |beside| {
        // Unlike a rename, a link never takes the place of another file.
        fs::hard_link(beside, path)?;
        fs::remove_file(beside)
    })
}

/// Writes a file over one of ours.
pub fn replace(path: &Path, file: &HookFile) -> Result<(), Failure> {
    put(path, file, |beside| fs::rename(beside, path))
}

/// Removes a file of ours, and its directory if that is empty then and was there for it alone.
pub fn remove(path: &Path, file: &HookFile) -> Result<(), Failure> {
    fs::remove_file(path).map_err(|error| failure(path, &error))?;
    if let (true, Some(directory)) = (file.is_directory_ours, path.parent()) {
        // One that is not empty stays, and that is as it should be.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

fn put(
    path: &Path,
    file: &HookFile,
    into_place: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), Failure> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    make(directory).map_err(|error| failure(directory, &error))?;
    // certbot passes over names that end so, systemd over those that do not end in .conf.
    let beside = directory.join(format!(".acmegate-{}~", std::process::id()));
    let done = write_whole(&beside, file).and_then(|()| into_place(&beside));
    done.map_err(|error| {
        // What is left of it is litter; the error that is told is the first one.
        let _ = fs::remove_file(&beside);
        failure(path, &error)
    })
}

fn write_whole(path: &Path, file: &HookFile) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut new = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    new.write_all(file.text.as_bytes())?;
    // Not by the umask.
    new.set_permissions(Permissions::from_mode(file.mode))?;
    new.sync_all()
}

/// Makes a directory and those that lead there, whatever the umask.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY).create(directory) {
        Ok(()) => fs::set_permissions(directory, Permissions::from_mode(DIRECTORY)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let (exit, advice) = match error.kind() {
        io::ErrorKind::PermissionDenied => (Exit::NoPerm, ": run as root"),
        _ => (Exit::Os, ""),
    };
    Failure::new(exit, format!("{}: {error}{advice}", path.display()))
}
