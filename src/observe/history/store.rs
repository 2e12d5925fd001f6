//! The file: SQLite, with a rollback journal, so that what was acknowledged is there after a crash and
//! what was half done is not.
//!
//! Its shape has a number (`PRAGMA user_version`); an older one is brought up step by step, a newer one
//! is left as it is. What SQLite forgets it overwrites with zeros. Nothing here knows of sockets or of the
//! configuration.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior};

use super::age::Age;
use super::message::{Found, MAX_FOUND, MAX_FOUND_BYTES, Query};
use super::{Health, Settings, StoreError, aside};
use crate::observe::quorum::assess;
use crate::observe::record::{End, EndedBy, Record};

/// Its name in its directory.
pub(super) const FILE: &str = "history.db";
/// How long another process that reads the file may hold it up.
const BUSY: Duration = Duration::from_millis(500);
/// What a record needs besides its own octets: pages that are begun, and its perspectives.
const BESIDE_BYTES: u64 = 128 * 1024;
/// How many octets of pages that nothing needs any more are left for the next records.
const SPARE_BYTES: u64 = 4 * 1024 * 1024;

/// How the shape grew: the first brings an empty file to schema 1, the next to 2.
const STEPS: [&str; 2] = [
    // `dated` is when a record counts as made; what clock that is, `age` says.
    "CREATE TABLE windows (
         number INTEGER PRIMARY KEY AUTOINCREMENT,
         lease TEXT NOT NULL,
         caller INTEGER NOT NULL,
         opened_at INTEGER NOT NULL,
         dated INTEGER NOT NULL,
         is_open INTEGER NOT NULL,
         record TEXT NOT NULL
     ) STRICT;
     CREATE INDEX windows_of_lease ON windows (lease, opened_at);
     CREATE INDEX windows_by_opening ON windows (opened_at);
     CREATE INDEX windows_by_date ON windows (dated);
     CREATE INDEX windows_open ON windows (number) WHERE is_open;
     CREATE TABLE age (only INTEGER PRIMARY KEY CHECK (only = 1), age TEXT NOT NULL) STRICT;",
    // Derived from the records, for whoever asks by network.
    "CREATE TABLE perspectives (
         window INTEGER NOT NULL REFERENCES windows (number) ON DELETE CASCADE,
         address TEXT NOT NULL,
         network TEXT NOT NULL,
         role TEXT NOT NULL,
         reached INTEGER NOT NULL,
         PRIMARY KEY (window, address)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX perspectives_by_network ON perspectives (network, window);
     INSERT INTO perspectives SELECT number, source ->> 'address', source ->> 'network', source ->> 'role',
             source ->> 'reached'
         FROM (SELECT number, value AS source FROM windows, json_each(record, '$.sources')) WHERE true
         ON CONFLICT DO NOTHING;",
];
/// The schema that this version writes.
pub(super) const SCHEMA: u64 = STEPS.len() as u64;

/// The open file.
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    settings: Settings,
    age: Age,
    /// Of the last time it was looked at.
    page_bytes: u64,
}

/// The host's clock, in milliseconds after 1970, and how long this process ran since it was last told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: u64,
    pub(super) ran: Duration,
}

impl Store {
    /// Opens the file in a directory; makes it if there is none; puts a damaged one aside.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(
        directory: &Path,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        match Self::open_file(&path, settings.clone(), clock) {
            Err(StoreError::Damaged(why)) => {
                let place = aside::put(directory, &path).map_err(|error| {
                    StoreError::Other(format!(
                        "it is damaged ({why}) and cannot be put aside: {error}"
                    ))
                })?;
                tracing::error!(
                    "the history was damaged ({why}) and begins anew; what was there is {}",
                    place.display()
                );
                Self::open_file(&path, settings, clock)
            }
            opened => opened,
        }
    }

    fn open_file(path: &Path, settings: Settings, clock: Clock) -> Result<Self, StoreError> {
        // SQLite would make it readable for others; its journal gets the same mode.
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        match made {
            // SQLite says of a pipe that there is an I/O error, and of root's file that it cannot be opened.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_own_file(path).map_err(|error| at_edge(&error))? {
                    return Err(StoreError::Other(format!(
                        "{} is no regular file of this account: move it away",
                        path.display()
                    )));
                }
            }
            Err(error) => return Err(at_edge(&error)),
            Ok(_) => {}
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        let schema = pragma(&connection, "user_version")?;
        if schema > SCHEMA {
            return Err(StoreError::Newer(schema));
        }
        if schema == 0 {
            // Before its first table; later it would be written for nothing.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
        }
        connection.execute_batch(
            "PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = ON;
             PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = ON;
             PRAGMA journal_mode = TRUNCATE;
             PRAGMA synchronous = EXTRA;",
        )?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Damaged(found));
        }
        for (step, schema) in STEPS.iter().zip(1u64..).filter(|(_, next)| *next > schema) {
            let change = begin(&mut connection)?;
            change.execute_batch(step)?;
            change.pragma_update(None, "user_version", signed(schema))?;
            change.commit()?;
        }
        let page_bytes = pragma(&connection, "page_size")?;
        let age = kept_age(&connection)?.unwrap_or(Age::new(clock.now));
        Ok(Self {
            connection,
            path: path.to_owned(),
            settings,
            age,
            page_bytes,
        })
    }

    /// Holds itself to other bounds from now on.
    pub(super) fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Keeps a record, and says by which number; it is on disk then. What is too old, or has no room
    /// beside it, goes. The same opening of the same lease gets the same number however often it
    /// comes without one.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub(super) fn store(&mut self, record: &Record, clock: Clock) -> Result<u64, StoreError> {
        let mut age = self.age;
        let now = age.tell(clock.now, clock.ran);
        let change = begin(&mut self.connection)?;
        let number = number_of(&change, record)?;
        let mut numbered = record.clone();
        numbered.number = number;
        forget_old(&change, &self.settings, now)?;
        let json = json(&numbered)?;
        let room = self
            .settings
            .max_bytes
            .saturating_sub(json.len() as u64 * 2 + BESIDE_BYTES);
        forget_beyond(&change, room, self.page_bytes, number)?;
        let number = write(&change, &mut numbered, now)?;
        keep_age(&change, age)?;
        change.commit()?;
        self.age = age;
        Ok(number)
    }

    /// Ends every record that is open but those, as one that nobody watched; says how many.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub(super) fn settle(&mut self, going_on: &[u64], clock: Clock) -> Result<u64, StoreError> {
        let now = self.age.tell(clock.now, clock.ran);
        let change = begin(&mut self.connection)?;
        let open = find(&change, &Query::Open)?.records;
        let mut ended = 0;
        for mut record in open {
            if record
                .number
                .is_some_and(|number| going_on.contains(&number))
            {
                continue;
            }
            // The kernel ended it, at its deadline at the latest.
            record.end = Some(End {
                by: EndedBy::Unwatched,
                at: record.deadline,
                late: 0,
            });
            record.assessment = assess(&record);
            write(&change, &mut record, now)?;
            ended += 1;
        }
        change.commit()?;
        Ok(ended)
    }

    /// Lets go of what is too old or too much, and gives its room back to the file system.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn retain(&mut self, clock: Clock) -> Result<(), StoreError> {
        let now = self.age.tell(clock.now, clock.ran);
        let change = begin(&mut self.connection)?;
        let oldest = forget_old(&change, &self.settings, now)?;
        forget_beyond(&change, self.settings.max_bytes, self.page_bytes, None)?;
        keep_age(&change, self.age)?;
        change.commit()?;
        if let Some(directory) = self.path.parent() {
            aside::forget(directory, oldest);
        }
        let free = pragma(&self.connection, "freelist_count")?;
        let bytes: u64 = self.bytes()?;
        if free * self.page_bytes > SPARE_BYTES || bytes > self.settings.max_bytes {
            // One page with each step.
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
        }
        Ok(())
    }

    /// Looks records up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn find(&self, query: &Query) -> Result<Found, StoreError> {
        find(&self.connection, query)
    }

    /// How many there are, since when, and how large the file is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn health(&self) -> Result<Health, StoreError> {
        let sql = "SELECT count(*), min(opened_at) FROM windows";
        let (records, oldest) = self.connection.query_row(sql, [], |row| {
            Ok((unsigned(row, 0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        Ok(Health {
            records,
            oldest: oldest.and_then(|oldest| u64::try_from(oldest).ok()),
            bytes: self.bytes()?,
            problems: Vec::new(),
        })
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let pages = pragma(&self.connection, "page_count")?;
        Ok(pages * self.page_bytes)
    }
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    // Who begins by reading and then writes may find that somebody else has written meanwhile.
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Which number a record has, if one of it was kept. The number that it brings counts only if this file gave it to
/// this window: of a window that is open while a damaged file is put aside, it is the old file's.
fn number_of(change: &Transaction<'_>, record: &Record) -> Result<Option<u64>, StoreError> {
    let Record {
        lease, opened_at, ..
    } = record;
    let (opened_at, caller) = (signed(*opened_at), record.caller);
    if let Some(number) = record.number {
        let sql =
            "SELECT lease = ?2 AND opened_at = ?3 AND caller = ?4 FROM windows WHERE number = ?1";
        let is_its: Option<bool> = change
            .query_row(sql, (signed(number), lease, opened_at, caller), |row| {
                row.get(0)
            })
            .optional()?;
        // One that was let go of is nobody else's.
        if is_its.unwrap_or(number <= last_given(change)? && number > 0) {
            return Ok(Some(number));
        }
    }
    let sql = "SELECT max(number) FROM windows WHERE lease = ?1 AND opened_at = ?2 AND caller = ?3";
    let known: Option<i64> = change.query_row(sql, (lease, opened_at, caller), |row| row.get(0))?;
    Ok(known.and_then(|number| u64::try_from(number).ok()))
}

/// The last number that this file gave; 0 if none.
fn last_given(change: &Transaction<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'windows'";
    let last = change.query_row(sql, [], |row| unsigned(row, 0));
    Ok(last.optional()?.unwrap_or_default())
}

/// Writes a record and its perspectives; one without a number gets the next.
fn write(change: &Transaction<'_>, record: &mut Record, now: u64) -> Result<u64, StoreError> {
    let sql = "INSERT INTO windows (number, lease, caller, opened_at, dated, is_open, record)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (number) DO UPDATE SET is_open = excluded.is_open, record = excluded.record";
    // One from the future is as old as its arrival, or it would be kept until then.
    let dated = record.opened_at.min(now);
    let is_new = record.number.is_none();
    change.prepare(sql)?.execute((
        record.number.map(signed),
        &record.lease,
        record.caller,
        signed(record.opened_at),
        signed(dated),
        record.end.is_none(),
        json(record)?,
    ))?;
    let number = match record.number {
        Some(number) => number,
        None => u64::try_from(change.last_insert_rowid()).unwrap_or_default(),
    };
    if is_new {
        record.number = Some(number);
        let sql = "UPDATE windows SET record = ?2 WHERE number = ?1";
        change
            .prepare(sql)?
            .execute((signed(number), json(record)?))?;
    }
    change
        .prepare("DELETE FROM perspectives WHERE window = ?1")?
        .execute([signed(number)])?;
    let sql = "INSERT INTO perspectives (window, address, network, role, reached) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT DO NOTHING";
    let mut statement = change.prepare(sql)?;
    for source in &record.sources {
        let role = serde_json::to_value(source.role).unwrap_or_default();
        statement.execute((
            signed(number),
            source.address.to_string(),
            &source.network,
            role.as_str().unwrap_or_default(),
            source.reached,
        ))?;
    }
    Ok(number)
}

/// Lets go of what is older than it may be; says since when things are kept.
fn forget_old(change: &Transaction<'_>, settings: &Settings, now: u64) -> Result<u64, StoreError> {
    let keep = u64::try_from(settings.keep.as_millis()).unwrap_or(u64::MAX);
    let oldest = now.saturating_sub(keep);
    let sql = "DELETE FROM windows WHERE dated < ?1";
    change.prepare(sql)?.execute([signed(oldest)])?;
    Ok(oldest)
}

/// Lets go of the oldest until no more than so many octets are in use.
fn forget_beyond(
    change: &Transaction<'_>,
    most: u64,
    page_bytes: u64,
    but: Option<u64>,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM windows WHERE number = (SELECT min(number) FROM windows WHERE number IS NOT ?1)";
    let mut statement = change.prepare(sql)?;
    loop {
        let pages = pragma(change, "page_count")?;
        let free = pragma(change, "freelist_count")?;
        let used = (pages - free.min(pages)) * page_bytes;
        if used <= most || statement.execute([but.map(signed)])? == 0 {
            return Ok(());
        }
    }
}

fn find(connection: &Connection, query: &Query) -> Result<Found, StoreError> {
    let (condition, value): (&str, Box<dyn rusqlite::ToSql>) = match query {
        Query::Number(number) => ("number = ?1", Box::new(signed(*number))),
        Query::Last => (
            "number = (SELECT max(number) FROM windows) AND ?1",
            Box::new(true),
        ),
        Query::LastOf(lease) => (
            "number = (SELECT max(number) FROM windows WHERE lease = ?1)",
            Box::new(lease),
        ),
        Query::Since(instant) => ("opened_at >= ?1", Box::new(signed(*instant))),
        Query::Open => ("is_open AND ?1", Box::new(true)),
    };
    let sql = format!("SELECT record FROM windows WHERE {condition} ORDER BY number DESC");
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([value])?;
    let mut found = Found::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let text: &str = row
            .get_ref(0)?
            .as_str()
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        bytes += text.len();
        let fits = found.records.len() < MAX_FOUND && bytes <= MAX_FOUND_BYTES;
        match fits.then(|| serde_json::from_str(text)) {
            Some(Ok(record)) => found.records.push(record),
            _ => found.left_off += 1,
        }
    }
    found.records.reverse();
    Ok(found)
}

fn kept_age(connection: &Connection) -> Result<Option<Age>, StoreError> {
    let text: Option<String> = connection
        .query_row("SELECT age FROM age", [], |row| row.get(0))
        .optional()?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn keep_age(change: &Transaction<'_>, age: Age) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO age (only, age) VALUES (1, ?1) ON CONFLICT DO UPDATE SET age = excluded.age";
    let text = serde_json::to_string(&age).unwrap_or_default();
    change.prepare(sql)?.execute([text])?;
    Ok(())
}

fn json(record: &Record) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Refused(error.to_string()))
}

/// A number that SQLite keeps of the file.
fn pragma(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    Ok(connection.query_row(&format!("PRAGMA {name}"), [], |row| unsigned(row, 0))?)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

/// SQLite counts up to 2^63; nothing here comes near it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether the path names a regular file of this account, and not by a link; `false` where there is nothing.
pub(super) fn is_own_file(path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_file() && found.uid() == rustix::process::geteuid().as_raw()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn at_edge(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
