//! What the daemon tells, line by line, and again after it was gone for a while.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::Failure;
use crate::control::client::{self, ClientError, Staying};
use crate::control::protocol::{Exit, MAX_RESPONSE_BYTES, Opaque, Response};
use crate::observe::record::Record;

/// How often a daemon that is gone is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// News of the daemon.
#[derive(Debug)]
pub enum News {
    /// All windows of the moment, and the last few that ended.
    Windows(Vec<Record>),
    /// It is gone; this says why, and it is looked for.
    Lost(String),
    /// It is there and will tell nothing any more.
    Refused(Failure),
}

/// The conversation.
#[derive(Debug)]
pub struct Feed {
    runtime_dir: PathBuf,
    stream: Option<UnixStream>,
    line: Vec<u8>,
    /// How much of `line` was searched for its end.
    searched: usize,
    first: Option<Response>,
    next_try: Instant,
    /// A question that is asked at the moment.
    trying: Option<JoinHandle<Result<Staying, ClientError>>>,
}

impl Feed {
    /// Begins with what the daemon said at once.
    ///
    /// # Errors
    /// Its refusal, or the system's.
    pub fn new(runtime_dir: &Path, staying: Staying) -> Result<Self, Failure> {
        let mut feed = Self {
            runtime_dir: runtime_dir.to_owned(),
            stream: None,
            line: Vec::new(),
            searched: 0,
            first: None,
            next_try: Instant::now(),
            trying: None,
        };
        feed.take(staying)?;
        Ok(feed)
    }

    /// The next news; none is lost if this is dropped and called again. Not to be called after a
    /// refusal.
    pub async fn next(&mut self) -> News {
        if let Some(first) = self.first.take() {
            return told(first);
        }
        if self.stream.is_none() {
            return self.again().await;
        }
        match self.read().await {
            Ok(response) => told(response),
            Err(error) => {
                self.stream = None;
                self.next_try = Instant::now() + RETRY;
                News::Lost(format!("acmegate is gone: {error}"))
            }
        }
    }

    fn take(&mut self, staying: Staying) -> Result<(), Failure> {
        let Staying {
            answer,
            stream,
            rest,
        } = staying;
        if answer.code != 0 {
            return Err(Failure::new(Exit::from_code(answer.code), answer.message));
        }
        let system = |error: io::Error| Failure::new(Exit::Os, error);
        stream.set_nonblocking(true).map_err(system)?;
        self.stream = Some(UnixStream::from_std(stream).map_err(system)?);
        self.line = rest;
        self.searched = 0;
        self.first = Some(answer);
        Ok(())
    }

    async fn read(&mut self) -> io::Result<Response> {
        let gone = |why: &str| io::Error::other(why.to_owned());
        let stream = self.stream.as_mut().ok_or_else(|| gone("not connected"))?;
        loop {
            let end = self.line[self.searched..].iter().position(|b| *b == b'\n');
            if let Some(end) = end {
                let line: Vec<u8> = self.line.drain(..=self.searched + end).collect();
                self.searched = 0;
                return serde_json::from_slice(&line).map_err(io::Error::from);
            }
            self.searched = self.line.len();
            if self.line.len() as u64 > MAX_RESPONSE_BYTES {
                return Err(gone("it tells more than can be"));
            }
            if stream.read_buf(&mut self.line).await? == 0 {
                return Err(gone("it hung up"));
            }
        }
    }

    /// Looks for the daemon until it is there.
    async fn again(&mut self) -> News {
        loop {
            tokio::time::sleep_until(self.next_try).await;
            let runtime_dir = &self.runtime_dir;
            let trying = self.trying.get_or_insert_with(|| {
                let runtime_dir = runtime_dir.clone();
                tokio::task::spawn_blocking(move || client::watch(&runtime_dir))
            });
            let asked = trying.await;
            self.trying = None;
            self.next_try = Instant::now() + RETRY;
            let staying = match asked {
                Ok(Ok(staying)) => staying,
                Ok(Err(error @ ClientError::NotPermitted(_))) => {
                    return News::Refused(error.into());
                }
                _ => continue,
            };
            if staying.answer.code == Exit::TempFail as u8 {
                continue;
            }
            match self.take(staying) {
                Ok(()) => {}
                Err(refused) => return News::Refused(refused),
            }
            if let Some(first) = self.first.take() {
                return told(first);
            }
        }
    }
}

fn told(response: Response) -> News {
    if response.code != 0 {
        let exit = Exit::from_code(response.code);
        return News::Refused(Failure::new(exit, response.message));
    }
    let records = response.report.iter().map(Opaque::read);
    match records.collect() {
        Ok(records) => News::Windows(records),
        Err(error) => News::Refused(Failure::new(
            Exit::Software,
            format!("what acmegate tells is of another version than this program: {error}"),
        )),
    }
}
