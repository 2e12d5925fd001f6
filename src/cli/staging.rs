//! `acmegate doctor --staging -- CLIENT…`: the caller's own ACME client, against a CA's staging environment.
//!
//! What the client says goes to standard error as it comes, so that standard output has the letter alone; it gets no
//! input, so that it can wait for no answer. It has a deadline, and its end is waited for, whatever ends this.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::exec::{Tree, code_of};
use super::signals::Signals;
use super::terminal::{complain, plain};
use super::{Failure, milliseconds, wall};
use crate::control::client;
use crate::control::protocol::{Ask, Exit, Opaque, ReportWord};
use crate::doctor::finding::{Area, Exam};
use crate::doctor::staging::{self, Ran, Staged, stage};
use crate::observe::record::Record;

/// How long a client may take: orders of many names, and a CA that is slow.
const DEADLINE: Duration = Duration::from_secs(15 * 60);
/// How long it may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long windows may take to close behind it.
const SETTLE: Duration = Duration::from_secs(5);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// How many of its last lines are kept, and how long each.
const LAST_WORDS: usize = 12;
const MAX_LINE: usize = 240;

/// Which client, and which CA.
#[derive(Debug, Args)]
pub struct StagingArgs {
    /// Run this ACME client against its CA's staging environment, and tell what the gate saw of it
    #[arg(long, requires = "command")]
    staging: bool,
    /// The staging directory of another CA than Let's Encrypt
    #[arg(long, value_name = "URL", requires = "staging")]
    staging_server: Option<String>,
    /// The ACME client and its arguments, as they are in earnest
    #[arg(last = true, value_name = "CLIENT", requires = "staging")]
    command: Vec<OsString>,
}

/// A client that is ready to be run.
#[derive(Debug)]
pub struct Trial {
    staged: Staged,
    scratch: Scratch,
}

impl StagingArgs {
    /// What is to be run; `None` if nothing is. Nothing was started yet.
    ///
    /// # Errors
    /// [`Failure`], 64: it cannot be made a staging order for certain.
    pub fn trial(&self) -> Result<Option<Trial>, Failure> {
        if !self.staging {
            return Ok(None);
        }
        let scratch = Scratch::new().map_err(|error| Failure::new(Exit::Os, error))?;
        let staged = stage(&self.command, self.staging_server.as_deref(), &scratch.0)
            .map_err(|why| Failure::new(Exit::Usage, plain(&why)))?;
        Ok(Some(Trial { staged, scratch }))
    }
}

impl Trial {
    /// Runs it, waits for its end, and asks the gate what it saw.
    ///
    /// # Errors
    /// [`Failure`]: it cannot be started, or a signal ended this; the client has ended by then.
    pub async fn run(self, runtime_dir: &Path) -> Result<Exam, Failure> {
        let system = |error: io::Error| Failure::new(Exit::Os, error);
        for word in &self.staged.words {
            complain(format_args!("acmegate: {}", plain(word)));
        }
        if let Some((path, text)) = &self.staged.script {
            fs::write(path, text)
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
                .map_err(system)?;
        }
        let begun = (Instant::now(), wall());
        let mut signals = Signals::listen().map_err(system)?;
        let mut ran = Ran {
            name: self.staged.name.to_owned(),
            code: Some(0),
            last_words: Vec::new(),
        };
        for command in &self.staged.commands {
            let (code, last_words) = one(command, begun.0 + DEADLINE, &mut signals).await?;
            ran = Ran {
                code,
                last_words,
                ..ran
            };
            if ran.code != Some(0) {
                break;
            }
        }
        drop(self.scratch);
        Ok(match windows_since(runtime_dir, begun).await {
            Ok(records) => staging::examine(&ran, &records),
            Err(why) => {
                let mut exam = staging::examine(&ran, &[]);
                exam.not_covered
                    .push(format!("what the gate saw of {}: {why}", ran.name));
                exam
            }
        })
    }
}

/// An exam for a client that was not run.
pub fn not_run() -> Exam {
    let mut exam = Exam::of(Area::Client);
    exam.not_covered.push(
        "what the ACME client comes to at staging: it was not run, because a validation fails already; mend that first"
            .to_owned(),
    );
    exam
}

/// Runs one command to its end.
async fn one(
    command: &[String],
    deadline: Instant,
    signals: &mut Signals,
) -> Result<(Option<u8>, Vec<String>), Failure> {
    let system = |error: io::Error| Failure::new(Exit::Os, error);
    // By way of a process that has it end with us, whatever ends us.
    let mut child = Command::new("/proc/self/exe")
        .arg("exec-command")
        .arg(std::process::id().to_string())
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(system)?;
    let (said, mut hearing) = mpsc::channel(LAST_WORDS);
    let readers = [
        child
            .stdout
            .take()
            .map(|out| tokio::spawn(tee(out, said.clone()))),
        child
            .stderr
            .take()
            .map(|out| tokio::spawn(tee(out, said.clone()))),
    ];
    drop(said);
    let mut last_words = Vec::new();
    let mut ended = None;
    let mut interrupted = None;
    loop {
        tokio::select! {
            Some(line) = hearing.recv() => keep(&mut last_words, line),
            status = child.wait() => {
                ended = Some(status.map_err(system)?);
                break;
            }
            () = sleep_until(deadline) => break,
            came = signals.next() => {
                interrupted = Some(came.name);
                break;
            }
        }
    }
    if ended.is_none() {
        let ending = end(&mut child);
        tokio::pin!(ending);
        // Whoever says much at its end is heard until then, or it would wait for that.
        loop {
            tokio::select! {
                done = &mut ending => break done.map_err(system)?,
                Some(line) = hearing.recv() => keep(&mut last_words, line),
            }
        }
    }
    // A daemon that it started may hold its output open; what was said by now is enough.
    let rest = Instant::now() + LOOK;
    while let Ok(Some(line)) = tokio::time::timeout_at(rest, hearing.recv()).await {
        keep(&mut last_words, line);
    }
    for reader in readers.into_iter().flatten() {
        reader.abort();
    }
    match interrupted {
        Some(name) => Err(Failure::new(
            Exit::TempFail,
            format!("ended by {name}, and so was the ACME client"),
        )),
        None => Ok((ended.map(code_of), last_words)),
    }
}

/// Ends a client and everything that it started, and waits for it.
async fn end(child: &mut Child) -> io::Result<()> {
    let Some(pid) = child.id() else {
        return Ok(());
    };
    let mut tree = Tree::terminate(pid);
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_ok() {
        return Ok(());
    }
    tree.kill();
    child.wait().await.map(drop)
}

/// Passes a stream on to standard error, line by line, and tells each line.
async fn tee(stream: impl AsyncRead + Unpin, said: mpsc::Sender<String>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    // What has no line end is passed on in parts of a bounded length.
    loop {
        line.clear();
        let Ok(part) = lines.fill_buf().await else {
            return;
        };
        if part.is_empty() {
            return;
        }
        let length = part
            .iter()
            .position(|octet| *octet == b'\n')
            .map_or(part.len(), |at| at + 1);
        line.extend_from_slice(&part[..length]);
        lines.consume(length);
        // Nobody to tell is no reason to stop listening.
        let _ = io::stderr().write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let brief: String = text.trim_end().chars().take(MAX_LINE).collect();
        if !brief.is_empty() && said.send(brief).await.is_err() {
            return;
        }
    }
}

fn keep(last_words: &mut Vec<String>, line: String) {
    if last_words.len() == LAST_WORDS {
        last_words.remove(0);
    }
    last_words.push(line);
}

/// The windows that opened since, once they have closed, or as they are if they do not.
async fn windows_since(
    runtime_dir: &Path,
    (begun, begun_at): (Instant, u64),
) -> Result<Vec<Record>, String> {
    let settled = Instant::now() + SETTLE;
    loop {
        let word = ReportWord {
            since: Some(milliseconds(begun.elapsed() + LOOK)),
            ..ReportWord::default()
        };
        let runtime_dir = runtime_dir.to_owned();
        let asked =
            tokio::task::spawn_blocking(move || client::ask(&runtime_dir, Ask::Report(word))).await;
        let response = asked
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        if response.code != 0 {
            return Err(response.message);
        }
        let records: Result<Vec<Record>, _> = response.report.iter().map(Opaque::read).collect();
        let mut records = records.map_err(|error| error.to_string())?;
        records.retain(|record| record.opened_at >= begun_at);
        let is_over = records.iter().all(|record| record.end.is_some());
        if is_over || Instant::now() >= settled {
            return Ok(records);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A directory of this process's alone, gone with everything in it when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let name = format!("acmegate-staging-{}-{}", std::process::id(), wall());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is keys and certificates of a staging environment, worth nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does something until it is done or a signal says that it is to end; then it is dropped, and so takes down what it put up.
///
/// # Errors
/// [`Failure`], 75, with the signal's name.
pub async fn unless_ended<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Os, error))?;
    tokio::select! {
        done = work => Ok(done),
        came = signals.next() => Err(Failure::new(
            Exit::TempFail,
            format!("ended by {}; what was put up was taken down", came.name),
        )),
    }
}
