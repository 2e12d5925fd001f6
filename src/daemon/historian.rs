//! The historian as a process: from its first instruction to its loop.
//!
//! It is a process of its own because the front, which reads the Internet's bytes, writes no file, and
//! because SQLite is C. It may write below `state_dir`/history and nowhere else, read the configuration
//! and the databases that are named there, and speak to nobody but the front. It is the one process that
//! the daemon goes on without: a validation does not wait for a disk.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::thread::CapabilitySet;

use super::child::{by_run_alone, front};
use super::enforcer::hear_no_signal;
use super::seal::{Calls, Seal};
use super::{Fatal, framed, parts};
use crate::config::Config;
use crate::control::protocol::Exit;
use crate::observe::history::Settings;
use crate::observe::history::keeper::{Keeper, Reload, TICK, prepare};
use crate::observe::history::message::{MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Question, decode};

/// How long nobody must ask until what answers need is let go of: a window's records come in a row.
const REST: Duration = Duration::from_secs(60);

/// Runs as the historian: standard input is one end of a socket pair, the other end the front's.
///
/// # Errors
/// [`Fatal`]; a front that went away is none.
pub fn run(config_path: Option<&Path>) -> Result<(), Fatal> {
    let os = |error: io::Error| Fatal::new(Exit::Os, error);
    let front = front()?;
    front.set_nonblocking(true).map_err(by_run_alone)?;
    let config = parts::load(config_path).map_err(|error| Fatal::new(Exit::Config, error))?;
    super::start_log(&config);
    super::name_process(c"acmegate-hist");
    // Addresses of others are in it.
    umask(Mode::RWXG | Mode::RWXO);
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, nothing).map_err(|error| os(error.into()))?;
    let state_dir = &config.daemon.state_dir;
    let directory = prepare(state_dir).map_err(|error| {
        let place = state_dir.join("history");
        format!("{} cannot be used ({error})", place.display())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(os)?;
    let path = config.source.clone();
    let reload: Reload =
        Box::new(move || parts::load(path.as_deref()).map(|config| settings(&config)));
    runtime.block_on(async {
        let front = tokio::net::UnixStream::from_std(front).map_err(by_run_alone)?;
        let _deaf = hear_no_signal().map_err(os)?;
        // A current-thread runtime has this one thread, and nothing of the file is read yet.
        historian_seal(&config, directory.as_deref().ok())
            .apply()
            .and_then(|done| done.demand(config.daemon.require_seals))
            .map_err(|error| {
                Fatal::new(
                    Exit::Os,
                    format!("cannot give up what the historian must not have: {error}"),
                )
            })?;
        serve(Keeper::new(directory, settings(&config), reload), front).await;
        Ok(())
    })
}

/// Answers one question after the other until the front goes away or sends what is no question.
async fn serve(mut keeper: Keeper, front: tokio::net::UnixStream) {
    let (mut from_front, mut to_front) = front.into_split();
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    loop {
        let message = framed::read(&mut from_front, MAX_QUESTION_BYTES);
        tokio::pin!(message);
        let message = loop {
            tokio::select! {
                biased;
                message = &mut message => break message,
                () = tokio::time::sleep(REST) => keeper.rest(),
                _ = tick.tick() => keeper.tick(),
            }
        };
        let question: Question = match message.map(|message| decode(&message)) {
            Ok(Ok(question)) => question,
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return,
            Ok(Err(_)) | Err(_) => {
                tracing::error!("the front sent bytes that are no message of ours: ending");
                return;
            }
        };
        let answer = keeper.obey(question);
        if framed::write(&mut to_front, &answer, MAX_ANSWER_BYTES)
            .await
            .is_err()
        {
            return;
        }
    }
}

/// What the historian may still do once it is sealed.
pub fn historian_seal(config: &Config, directory: Option<&Path>) -> Seal {
    let databases = config.report.databases.iter();
    let config_dir = parts::config_dir(config);
    Seal {
        capabilities: CapabilitySet::empty(),
        readable: databases
            .flat_map(|path| directories_of(path))
            .chain(config_dir)
            .collect(),
        writable: directory.map(Path::to_owned).into_iter().collect(),
        connect_ports: Vec::new(),
        calls: Calls::Historian,
    }
}

/// Where a file stands that may be replaced by renaming, and where it leads if it is a link.
fn directories_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok();
    let places = std::iter::once(path.to_owned()).chain(target);
    places.filter_map(|place| place.parent().map(Path::to_owned))
}

/// Starts the historian, our own program, with one end of a socket pair as its standard input and
/// nothing of our environment. `None` where nothing is kept, or where it cannot be started: then nothing
/// is kept either, and said.
pub fn start(config: &Config) -> Option<(UnixStream, Child)> {
    if !config.report.history {
        return None;
    }
    match super::start_beside("historian", config) {
        Ok(started) => Some(started),
        Err(error) => {
            tracing::error!("{error}");
            None
        }
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        keep: config.report.keep,
        max_bytes: config.report.max_bytes,
        databases: config.report.databases.clone(),
    }
}
