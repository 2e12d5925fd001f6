//! The caller's side: one question, one answer, one deadline. It never hangs: a hook that hangs
//! hangs the ACME client.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{
    Ask, CONTROL_SOCKET, Envelope, Exit, MAX_RESPONSE_BYTES, OBSERVE_SOCKET, Response, VERSION,
};
use super::status::Status;

/// How long a question may take as a whole. The daemon's own part is milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long a hook waits for a daemon that is restarting: longer than RestartSec= of our unit.
const PATIENCE: Duration = Duration::from_secs(7);
/// How often it looks.
const RETRY: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody serves the socket.
    NotRunning(std::path::PathBuf),
    /// The socket's mode keeps this caller out.
    NotPermitted(std::path::PathBuf),
    /// No answer within [`DEADLINE`].
    TooSlow,
    /// The daemon ended while it was asked.
    HungUp,
    /// The system refused, or the answer cannot be read.
    System(io::Error),
}

impl ClientError {
    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotRunning(_) => Exit::Unavailable,
            Self::NotPermitted(_) => Exit::NoPerm,
            Self::TooSlow | Self::HungUp => Exit::TempFail,
            Self::System(_) => Exit::Os,
        }
    }
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "acmegate is not running (nobody listens on {}): `systemctl start acmegate`, or `acmegate run`",
                path.display()
            ),
            Self::NotPermitted(path) => write!(
                f,
                "this user may not use {}: run as root, or let a [[grant]] name this user",
                path.display()
            ),
            Self::TooSlow => write!(
                f,
                "acmegate did not answer within {} s; `acmegate status` or its log may say why",
                DEADLINE.as_secs()
            ),
            Self::HungUp => f.write_str(
                "acmegate ended before it answered, so this may not be done; try again: `systemctl status acmegate` says how it is",
            ),
            Self::System(error) => write!(f, "cannot talk to acmegate: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Asks the daemon.
///
/// # Errors
/// [`ClientError`]; a refusal is a [`Response`], not an error.
pub fn ask(runtime_dir: &Path, ask: Ask) -> Result<Response, ClientError> {
    let mut line = serde_json::to_vec(&Envelope {
        version: VERSION,
        ask,
    })
    .map_err(|error| ClientError::System(io::Error::other(error)))?;
    line.push(b'\n');
    exchange(&runtime_dir.join(CONTROL_SOCKET), &line, PATIENCE)
}

/// Reads the status.
///
/// # Errors
/// [`ClientError`].
pub fn status(runtime_dir: &Path) -> Result<Status, ClientError> {
    exchange(&runtime_dir.join(OBSERVE_SOCKET), b"", Duration::ZERO)
}

/// Whether a daemon serves this directory.
pub fn is_running(runtime_dir: &Path) -> bool {
    connect(&runtime_dir.join(OBSERVE_SOCKET)).is_ok()
}

fn exchange<Answer: DeserializeOwned>(
    path: &Path,
    line: &[u8],
    patience: Duration,
) -> Result<Answer, ClientError> {
    let begun = Instant::now();
    let mut stream = connect_patiently(path, begun, patience)?;
    let slow_or_broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TooSlow,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ClientError::HungUp,
        _ => ClientError::System(error),
    };
    let left = DEADLINE.saturating_sub(begun.elapsed());
    stream
        .set_read_timeout(Some(left.max(Duration::from_millis(1))))
        .map_err(ClientError::System)?;
    // A refusal may already wait although the daemon stopped reading: the answer counts.
    let sent = stream.write_all(line);
    let mut answer = Vec::new();
    let read = (&mut stream)
        .take(MAX_RESPONSE_BYTES)
        .read_to_end(&mut answer);
    if answer.is_empty() {
        sent.map_err(slow_or_broken)?;
        read.map_err(slow_or_broken)?;
        return Err(ClientError::HungUp);
    }
    serde_json::from_slice(&answer).map_err(|error| ClientError::System(io::Error::other(error)))
}

/// Connects; while a socket is there that nobody serves, tries again: its daemon was not stopped,
/// it died, and may be about to start again.
fn connect_patiently(
    path: &Path,
    begun: Instant,
    patience: Duration,
) -> Result<UnixStream, ClientError> {
    loop {
        match connect(path) {
            Err(ClientError::NotRunning(_)) if path.exists() && begun.elapsed() < patience => {
                thread::sleep(RETRY);
            }
            done => return done,
        }
    }
}

fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotADirectory => ClientError::NotRunning(path.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path.to_owned()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TooSlow,
        _ => ClientError::System(error),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(ClientError::System)?;
    // On a Unix socket this also bounds connect(2) itself, which waits while the queue is full.
    socket
        .set_write_timeout(Some(DEADLINE))
        .map_err(ClientError::System)?;
    socket
        .set_read_timeout(Some(DEADLINE))
        .map_err(ClientError::System)?;
    let address = SockAddr::unix(path).map_err(ClientError::System)?;
    socket.connect(&address).map_err(explain)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}
