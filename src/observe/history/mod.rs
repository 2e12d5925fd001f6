//! The history: windows' records on disk, in one SQLite file, for as long as the operator wants.
//!
//! `message` is what the front and the historian say to each other, `store` the file and how its shape
//! grew, `age` by which clock a record is old, `place` where an address is, `keeper` what the historian
//! does with a question. It never decides about a peer: nothing that is kept here opens a window, and
//! nothing is ever made an allow-list of it, because a CA changes its perspectives without a word, and
//! where one asked from yesterday anybody may rent a machine today.

mod age;
mod aside;
pub mod keeper;
pub mod message;
mod place;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For how long records, and the addresses in them, are kept.
    pub keep: Duration,
    /// How many octets the file may have.
    pub max_bytes: u64,
    /// Where addresses are looked up.
    pub databases: Vec<PathBuf>,
}

/// How the history is, as the historian sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// How many records are kept.
    pub records: u64,
    /// How many octets the file has.
    pub bytes: u64,
    /// When the oldest of them was opened, in milliseconds after 1970.
    pub oldest: Option<u64>,
    /// What is wrong and what to do, each in one line.
    pub problems: Vec<String>,
}

/// Why something was not kept, or not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// No space on the device.
    Full,
    /// The file was written by a newer version, with this schema.
    Newer(u64),
    /// The file is damaged.
    Damaged(String),
    /// The record is none that is kept.
    Refused(String),
    /// The disk cannot be written, or whatever else it says.
    Other(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk of [daemon] state_dir is full: make room there"),
            Self::Newer(schema) => write!(
                f,
                "the file was written by a newer acmegate (schema {schema}, this one knows {}): install that one \
                 again, or move the file away",
                store::SCHEMA
            ),
            Self::Damaged(why) => write!(f, "the file is damaged ({why})"),
            Self::Refused(why) => write!(f, "no such record is kept: {why}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}
