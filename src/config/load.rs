//! Loading: from a path to a checked configuration.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{ConfigError, Problem};
use super::grant::Accounts;
use super::webroot::{Disk, Webroots};
use super::{Config, check, read};

/// Where the configuration is looked for if no path is given.
pub const DEFAULT_PATH: &str = "/etc/acmegate/acmegate.toml";
/// The largest file that is read. Ten thousand sites are under 1 MiB; more is a mistake.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

impl Config {
    /// Reads the file at `path`, or at [`DEFAULT_PATH`] if it exists, or else the built-in
    /// defaults. Webroots are looked at with the eyes of the account that will read them.
    ///
    /// # Errors
    /// [`ConfigError`]: no such file (only if `path` names one), unreadable, or wrong.
    pub fn load(path: Option<&Path>, accounts: &dyn Accounts) -> Result<Self, ConfigError> {
        Self::load_with(path, accounts, &Disk)
    }

    /// As [`Config::load`], but with another look at webroots, such as [`Unchecked`](super::Unchecked) in a process
    /// that may not see them.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(
        path: Option<&Path>,
        accounts: &dyn Accounts,
        webroots: &dyn Webroots,
    ) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        let text = match read_text(file) {
            Ok(text) => text,
            Err(ReadError::Missing) if path.is_none() => return Ok(Self::default()),
            Err(error) => return Err(ConfigError::unreadable(file, error.into())),
        };
        let config = Self::parse(&text, &file.display().to_string(), accounts, webroots)?;
        Ok(Self {
            source: Some(file.to_owned()),
            ..config
        })
    }

    /// Checks the text of a file; `name` is how errors call it.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem that was found.
    pub fn parse(
        text: &str,
        name: &str,
        accounts: &dyn Accounts,
        webroots: &dyn Webroots,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let config = read::read(text, &mut problems)
            .map(|file| check::config(&file, accounts, webroots, &mut problems));
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::new(name, text, problems)),
        }
    }
}

enum ReadError {
    Missing,
    NoFile,
    TooLarge,
    NotText { line: usize },
    System(io::Error),
}

fn read_text(file: &Path) -> Result<String, ReadError> {
    // A pipe without a writer would hold up a start, or a reload and with it the stop, for ever; and what
    // is read of a pipe is gone at the next reading, so that the processes would have unlike configurations.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    let (file, about) = opened.and_then(|file| file.metadata().map(|about| (file, about)))?;
    // null(4) is the configuration without a word, which holds nobody up either.
    if !about.is_file() && !about.file_type().is_char_device() {
        return Err(ReadError::NoFile);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        ReadError::NotText { line }
    })
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::System(error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Missing => Self::of_file("there is no such file")
                .fix("name another, or none: without a file the built-in defaults work"),
            ReadError::NoFile => Self::of_file("this is no regular file")
                .fix("name a file: every process reads it, and a reload again"),
            ReadError::TooLarge => Self::of_file("the file is larger than 1 MiB")
                .fix("name a configuration of acmegate"),
            ReadError::NotText { line } => {
                Self::of_file(format!("the file is not UTF-8 text (line {line})"))
                    .fix("save it as UTF-8")
            }
            ReadError::System(error) => Self::of_file(format!("the file cannot be read: {error}"))
                .fix("the account that acmegate runs as must be able to read it and its directory: see ls -ld"),
        }
    }
}
