//! What the historian does with a question: it checks the record, fills in places, keeps it.
//!
//! It goes on whatever happens to the disk: a file that cannot be used is tried again with the next
//! question, and what is wrong stands in every answer.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::message::{Answer, Ask, Question, Reply, check};
use super::place::Places;
use super::store::{Clock, FILE, Store, is_own_file};
use super::{Health, Settings, StoreError, aside};
use crate::observe::book::judge;
use crate::observe::record::Record;

/// How often what is too old is looked for, besides at every record.
pub const TICK: Duration = Duration::from_secs(3600);

/// Reads the settings anew; the text of an error goes to the operator.
pub type Reload = Box<dyn FnMut() -> Result<Settings, String>>;

/// The historian's state.
pub struct Keeper {
    /// Or why there is none.
    directory: Result<PathBuf, String>,
    settings: Settings,
    reload: Reload,
    store: Option<Store>,
    places: Places,
    /// Why the file cannot be used; `None` if it can.
    problem: Option<String>,
    told_at: Instant,
}

/// Makes the directory of the history, nobody else's to look into, and puts the modes of what is there
/// right. To be called before the process is sealed.
///
/// # Errors
/// It cannot be made, or is not a directory of our own.
pub fn prepare(state_dir: &Path) -> io::Result<PathBuf> {
    let directory = state_dir.join("history");
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&directory)?;
    // Else whoever may write the state directory chooses what the historian may write.
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is no directory of this account"));
    }
    correct_mode(&directory, 0o700)?;
    let file = directory.join(FILE);
    // What is no file of ours is said when it is opened, and may have been taken away by then.
    if is_own_file(&file)? {
        correct_mode(&file, 0o600)?;
    }
    directory.canonicalize()
}

/// What is right is left alone: the disk may be read-only.
fn correct_mode(path: &Path, mode: u32) -> io::Result<()> {
    match fs::metadata(path)?.permissions().mode() & 0o777 {
        right if right == mode => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    }
}

impl Keeper {
    /// Opens what is in the directory. One that could not be prepared is known to be of no use until a
    /// restart, since a sealed process cannot make it.
    pub fn new(directory: Result<PathBuf, String>, settings: Settings, reload: Reload) -> Self {
        let mut keeper = Self {
            places: Places::new(settings.databases.clone()),
            directory,
            settings,
            reload,
            store: None,
            problem: None,
            told_at: Instant::now(),
        };
        keeper.tick();
        keeper
    }

    /// Lets go of what is too old. To be called every [`TICK`].
    pub fn tick(&mut self) {
        let clock = self.clock();
        let done = self.with_store(clock, |store| store.retain(clock));
        if let Err(error) = done {
            tracing::warn!("the history cannot be tidied up: {error}");
        }
    }

    /// Nobody asked for a while: what is only needed to answer goes.
    pub fn rest(&mut self) {
        self.places.put_away();
    }

    /// Answers a question.
    pub fn obey(&mut self, question: Question) -> Answer {
        let clock = self.clock();
        let reply = self.reply(question.ask, clock);
        let reply = reply.unwrap_or_else(|error| match error {
            StoreError::Refused(why) => Reply::Refused(why),
            error => Reply::Failed(error.to_string()),
        });
        Answer {
            id: question.id,
            health: self.health(),
            reply,
        }
    }

    fn reply(&mut self, ask: Ask, clock: Clock) -> Result<Reply, StoreError> {
        match ask {
            Ask::Store(record) => {
                let mut record = self.placed(*record)?;
                let number = self.with_store(clock, |store| store.store(&record, clock))?;
                record.number = Some(number);
                Ok(Reply::Stored(Box::new(record)))
            }
            Ask::Query(query) => self
                .with_store(clock, |store| store.find(&query))
                .map(Reply::Found),
            Ask::Settle(going_on) => {
                let ended = self.with_store(clock, |store| store.settle(&going_on, clock))?;
                if ended > 0 {
                    tracing::info!(
                        windows = ended,
                        "records of windows that nobody watched to their end"
                    );
                }
                Ok(Reply::Done)
            }
            Ask::Reload => {
                let settings = (self.reload)().map_err(StoreError::Other)?;
                self.places = Places::new(settings.databases.clone());
                self.settings = settings.clone();
                self.with_store(clock, |store| {
                    store.configure(settings.clone());
                    store.retain(clock)
                })?;
                Ok(Reply::Done)
            }
            // Perhaps it can be opened now.
            Ask::Look => self.with_store(clock, |_| Ok(Reply::Done)),
        }
    }

    /// With what the databases know, and judged by it: regions count, and who came twice is told by places.
    fn placed(&mut self, mut record: Record) -> Result<Record, StoreError> {
        check(&record)?;
        if self.places.fill(&mut record) {
            judge(&mut record);
        }
        Ok(record)
    }

    /// Does something with the file, opened again if it could not be used before; a file that turns out
    /// to be damaged is put aside, and it is done with the new one.
    fn with_store<T>(
        &mut self,
        clock: Clock,
        mut work: impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut done = self.try_with_store(clock, &mut work);
        if let Err(StoreError::Damaged(_)) = done {
            // Opening finds the damage too, as a rule, and puts it aside; else it says so again.
            self.store = None;
            done = self.try_with_store(clock, &mut work);
        }
        self.problem = match &done {
            Ok(_) | Err(StoreError::Refused(_)) => None,
            Err(error) => {
                // Whatever is wrong with the disk may be with what is in memory of it.
                self.store = None;
                Some(format!("windows are not kept on disk now: {error}"))
            }
        };
        done
    }

    fn try_with_store<T>(
        &mut self,
        clock: Clock,
        work: &mut impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let unprepared =
            |why: &String| StoreError::Other(format!("{why}; put that right and restart acmegate"));
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let directory = self.directory.as_ref().map_err(unprepared)?;
                Store::open(directory, self.settings.clone(), clock)?
            }
        };
        work(self.store.insert(store))
    }

    fn health(&self) -> Health {
        let health = self.store.as_ref().map(Store::health);
        let mut health = health.and_then(Result::ok).unwrap_or_default();
        health.problems.extend(self.problem.clone());
        let damaged = self.directory.as_deref().map(aside::list);
        health.problems.extend(damaged.iter().flatten().map(|place| {
            format!(
                "the history was damaged and began anew; look at {} and remove it, or it goes when records of its \
                 age do",
                place.display()
            )
        }));
        health.problems.extend_from_slice(self.places.problems());
        health
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "how old a record is can be told by the host's clock alone, across restarts"
    )]
    fn clock(&mut self) -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = Instant::now();
        let ran = now.saturating_duration_since(self.told_at);
        self.told_at = now;
        Clock {
            now: u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
            ran,
        }
    }
}
