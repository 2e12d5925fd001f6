//! The connection that keeps a lease armed, and its return after a restart of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cli::terminal::complain;
use crate::control::client::{self, ClientError, Staying};
use crate::control::protocol::{Ask, Exit, MAX_REQUEST_BYTES, Open, Response};

/// How long a daemon may be gone before it is said: longer than RestartSec= of our unit.
const PATIENCE: Duration = Duration::from_secs(7);
/// How often it is looked for.
const RETRY: Duration = Duration::from_millis(200);
/// How long the daemon may take to shut what was open.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the holder of an arming hears.
#[derive(Debug)]
pub enum News {
    /// What was asked for the lease failed: the command must end.
    Refused(Response),
    /// Something worth knowing; the command goes on.
    Note(String),
    /// The lease is armed no longer. Told once.
    Lost(String),
}

type Tried = Result<Staying, ClientError>;

/// An armed lease.
#[derive(Debug)]
pub struct Arming {
    runtime_dir: PathBuf,
    open: Open,
    /// Whether it is to be open at once.
    now: bool,
    stream: Option<UnixStream>,
    line: Vec<u8>,
    /// When the daemon was lost, and for how long that was not said.
    lost_at: Option<Instant>,
    was_told: bool,
    has_given_up: bool,
    next_try: Instant,
    trying: Option<JoinHandle<Tried>>,
}

impl Arming {
    /// An arming that its connection keeps.
    ///
    /// # Errors
    /// The system's.
    pub fn new(runtime_dir: &Path, open: Open, now: bool, armed: Staying) -> std::io::Result<Self> {
        Ok(Self {
            runtime_dir: runtime_dir.to_owned(),
            open,
            now,
            stream: Some(to_async(armed.stream)?),
            line: armed.rest,
            lost_at: None,
            was_told: false,
            has_given_up: false,
            next_try: Instant::now(),
            trying: None,
        })
    }

    /// Waits for news. Nothing is lost if it is dropped and called again.
    pub async fn next(&mut self) -> News {
        loop {
            if self.stream.is_some() {
                match self.read().await {
                    Some(note) if note.code == 0 => return News::Note(note.message),
                    Some(refused) => return News::Refused(refused),
                    None => continue,
                }
            }
            if self.has_given_up {
                std::future::pending::<()>().await;
            }
            if let Some(why) = self.arm_again().await {
                return News::Lost(why);
            }
        }
    }

    /// Ends the lease and waits until the daemon says that it is shut, by closing its end. A
    /// refusal that was on its way is told.
    pub async fn disarm(mut self) -> Option<Response> {
        let mut refused = None;
        let farewell = async {
            if let Some(stream) = &mut self.stream {
                let _ = stream.shutdown().await;
            }
            while self.stream.is_some() {
                let last = self.read().await.filter(|told| told.code != 0);
                refused = last.or(refused.take());
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            complain(
                "acmegate: the daemon does not say that the window is shut; the kernel shuts it on time",
            );
        }
        refused
    }

    /// One step: a whole line, if one is there; without a stream afterwards the daemon is gone.
    async fn read(&mut self) -> Option<Response> {
        if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            return serde_json::from_slice(&line).ok();
        }
        let stream = self.stream.as_mut()?;
        let read = stream.read_buf(&mut self.line).await;
        if !matches!(read, Ok(count) if count > 0) || self.line.len() > MAX_REQUEST_BYTES {
            self.stream = None;
            self.line.clear();
            self.lost_at = Some(Instant::now());
        }
        None
    }

    /// One try; why it is over, when that is to be said.
    async fn arm_again(&mut self) -> Option<String> {
        tokio::time::sleep_until(self.next_try).await;
        let (runtime_dir, open, now) = (self.runtime_dir.clone(), self.open.clone(), self.now);
        let trying = self.trying.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || arm(&runtime_dir, open, now))
        });
        let tried = trying.await;
        self.trying = None;
        self.next_try = Instant::now() + RETRY;
        let (is_final, why) = match tried {
            Ok(Ok(armed)) if armed.answer.code == 0 => match to_async(armed.stream) {
                Ok(stream) => {
                    self.stream = Some(stream);
                    self.line = armed.rest;
                    self.lost_at = None;
                    return None;
                }
                Err(error) => (false, error.to_string()),
            },
            Ok(Ok(Staying { answer, .. })) => (answer.code != Exit::TempFail as u8, answer.message),
            Ok(Err(error)) => (false, error.to_string()),
            Err(error) => (true, error.to_string()),
        };
        self.has_given_up = is_final;
        let is_long = self.lost_at.is_none_or(|at| at.elapsed() >= PATIENCE);
        let is_to_be_told = (is_final || is_long) && !self.was_told;
        self.was_told |= is_to_be_told;
        is_to_be_told.then(|| format!("the lease {} is armed no longer: {why}", self.open.lease))
    }
}

/// Arms again after the daemon was lost. What was to be open at once is opened again, unless a
/// restart has kept it.
fn arm(runtime_dir: &Path, open: Open, now: bool) -> Tried {
    let armed = client::arm(runtime_dir, open.clone(), false)?;
    let is_shut = armed.answer.ports.is_empty();
    if now && is_shut && armed.answer.code == 0 {
        // If this fails, the connection tells.
        let _ = client::ask(runtime_dir, Ask::Open(open));
    }
    Ok(armed)
}

fn to_async(stream: std::os::unix::net::UnixStream) -> std::io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
