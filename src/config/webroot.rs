//! Webroots: whether a directory is there and can be read by the account that will read it.

use std::path::{Path, PathBuf};

/// Looks at webroots. An argument, so that checking a file needs no disk.
pub trait Webroots {
    /// Whether the directory exists and its files can be reached.
    ///
    /// # Errors
    /// [`Fault`], naming the first component that fails.
    fn look(&self, webroot: &Path) -> Result<(), Fault>;
}

/// The component of a webroot that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not exist.
    Missing(PathBuf),
    /// It is something else than a directory.
    NoDirectory(PathBuf),
    /// It may not be entered or read.
    Closed {
        /// The directory.
        path: PathBuf,
        /// By whom, in words.
        reader: String,
    },
    /// Something else, in the system's words.
    Other(PathBuf, String),
}

/// Looks at the real directories.
#[derive(Clone, Debug)]
pub struct Disk;

/// Looks at nothing and is content.
#[derive(Clone, Copy, Debug)]
pub struct Unchecked;

impl Webroots for Unchecked {
    fn look(&self, _webroot: &Path) -> Result<(), Fault> {
        Ok(())
    }
}
