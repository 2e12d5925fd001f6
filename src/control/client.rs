//! The caller's side: one question, one answer, one deadline. It never hangs: a hook that hangs
//! hangs the ACME client.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{UnixCredentials, getsockopt};
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{
    Ask, CONTROL_SOCKET, END_OF_METRICS, Envelope, Exit, MAX_RESPONSE_BYTES, OBSERVE_SOCKET, Open,
    Response, VERSION,
};
use super::status::Status;
use super::under::{self, NoName};

/// How long a question may take as a whole. The daemon's own part is milliseconds; where commands
/// are run, 9 s at most (`daemon::commands`).
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long a hook waits for a daemon that is restarting: longer than RestartSec= of our unit.
const PATIENCE: Duration = Duration::from_secs(7);
/// How often it looks.
const RETRY: Duration = Duration::from_millis(100);
/// How much is read at once.
const PART_BYTES: usize = 4096;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody serves the socket.
    NotRunning(PathBuf),
    /// The socket's mode keeps this caller out.
    NotPermitted(PathBuf),
    /// Somebody else serves the socket than whom its directory belongs to.
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Who serves it.
        uid: u32,
    },
    /// No answer within [`DEADLINE`].
    TooSlow,
    /// The daemon ended while it was asked.
    HungUp,
    /// Too many ask for the status at the same time, in the daemon's own words.
    Busy(String),
    /// The environment names a lease that is none.
    NoLease(NoName),
    /// What came is no answer that this version knows: of another version, or of another program.
    Foreign(serde_json::Error),
    /// The system refused.
    System(io::Error),
}

impl ClientError {
    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NotRunning(_) | Self::Stranger { .. } => Exit::Unavailable,
            Self::NotPermitted(_) => Exit::NoPerm,
            Self::TooSlow | Self::HungUp | Self::Busy(_) => Exit::TempFail,
            Self::NoLease(_) => Exit::Usage,
            Self::Foreign(_) | Self::System(_) => Exit::Os,
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
            Self::Stranger { path, uid } => write!(
                f,
                "{} is served by uid {uid}, neither root's nor whose its directory is: nothing was asked; \
                 find out who put it there, remove it and restart acmegate",
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
            Self::Busy(message) => f.write_str(message),
            Self::NoLease(error) => error.fmt(f),
            Self::Foreign(error) => write!(
                f,
                "the answer is of another version, or not acmegate's ({error}): `systemctl restart acmegate` after an \
                 upgrade"
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
    let path = runtime_dir.join(CONTROL_SOCKET);
    let bytes = exchange(&path, &request(ask)?, PATIENCE, |_| false)?;
    parse(&bytes)
}

/// The process that serves the daemon's sockets, by the kernel's word; `None` if it lives in another pid namespace.
///
/// # Errors
/// [`ClientError`].
pub fn daemon_pid(runtime_dir: &Path) -> Result<Option<u32>, ClientError> {
    let path = runtime_dir.join(OBSERVE_SOCKET);
    let deadline = Instant::now() + DEADLINE;
    let stream = connect(&path, deadline)?;
    let pid = peer(&stream).map_err(ClientError::System)?.pid();
    // 0 is a process that is not seen from here.
    Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0))
}

/// A conversation that goes on after its first answer.
#[derive(Debug)]
pub struct Staying {
    /// The daemon's answer, which may be a refusal.
    pub answer: Response,
    /// Until this is shut down or closed more lines may come on it; an armed lease is armed as long.
    pub stream: UnixStream,
    /// What has come of these already.
    pub rest: Vec<u8>,
}

/// Arms a lease. With `patience`, a daemon that is restarting is waited for.
///
/// # Errors
/// [`ClientError`]; a refusal is a [`Response`], not an error.
pub fn arm(runtime_dir: &Path, open: Open, patience: bool) -> Result<Staying, ClientError> {
    let patience = if patience { PATIENCE } else { Duration::ZERO };
    stay(runtime_dir, Ask::Arm(open), patience)
}

/// Asks to be told of windows as they change: every line is a [`Response`] whose `report` has the
/// windows of that moment.
///
/// # Errors
/// [`ClientError`]; a refusal is a [`Response`], not an error.
pub fn watch(runtime_dir: &Path) -> Result<Staying, ClientError> {
    stay(runtime_dir, Ask::Watch, Duration::ZERO)
}

fn stay(runtime_dir: &Path, ask: Ask, patience: Duration) -> Result<Staying, ClientError> {
    let begun = Instant::now();
    let deadline = begun + DEADLINE;
    let path = runtime_dir.join(CONTROL_SOCKET);
    let mut stream = connect_patiently(&path, deadline, begun + patience)?;
    let sent = send(&mut stream, &request(ask)?, deadline);
    let mut line = Vec::new();
    let read = read_until(&mut stream, &mut line, deadline, has_line);
    let rest = line.split_off(line_length(&line));
    check(&line, sent, read)?;
    Ok(Staying {
        answer: parse(&line)?,
        stream,
        rest,
    })
}

/// One request as a line. What is pushed says for which armed lease; what opens and closes has a
/// lease of its own.
fn request(ask: Ask) -> Result<Vec<u8>, ClientError> {
    let under = match &ask {
        Ask::AnswerAdd { .. } => under::lease().map_err(ClientError::NoLease)?,
        _ => None,
    };
    let mut line = serde_json::to_vec(&Envelope {
        version: VERSION,
        ask,
        under: under.map(|lease| lease.to_string()),
    })
    .map_err(|error| ClientError::System(io::Error::other(error)))?;
    line.push(b'\n');
    Ok(line)
}

/// Reads the status.
///
/// # Errors
/// [`ClientError`].
pub fn status(runtime_dir: &Path) -> Result<Status, ClientError> {
    let path = runtime_dir.join(OBSERVE_SOCKET);
    let bytes = exchange(&path, b"", Duration::ZERO, has_line)?;
    let line = &bytes[..line_length(&bytes)];
    parse(line).map_err(|error| busy(line).unwrap_or(error))
}

/// Reads the metrics, which stand behind the status.
///
/// # Errors
/// [`ClientError`]: never a part of them, because the text says where it ends.
pub fn metrics(runtime_dir: &Path) -> Result<String, ClientError> {
    let path = runtime_dir.join(OBSERVE_SOCKET);
    let mut bytes = exchange(&path, b"", Duration::ZERO, |_| false)?;
    let text = bytes.split_off(line_length(&bytes));
    match String::from_utf8(text) {
        Ok(text) if text.ends_with(END_OF_METRICS) => Ok(text),
        _ => Err(busy(&bytes).unwrap_or(ClientError::HungUp)),
    }
}

/// What whoever finds no place at the observe socket is told in the place of the status.
fn busy(line: &[u8]) -> Option<ClientError> {
    let refusal = parse::<Response>(line).ok()?;
    Some(ClientError::Busy(refusal.message))
}

/// Whether a daemon serves this directory.
pub fn is_running(runtime_dir: &Path) -> bool {
    connect(&runtime_dir.join(OBSERVE_SOCKET), Instant::now() + DEADLINE).is_ok()
}

fn exchange(
    path: &Path,
    line: &[u8],
    patience: Duration,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, ClientError> {
    let begun = Instant::now();
    let deadline = begun + DEADLINE;
    let mut stream = connect_patiently(path, deadline, begun + patience)?;
    let sent = send(&mut stream, line, deadline);
    let mut bytes = Vec::new();
    let read = read_until(&mut stream, &mut bytes, deadline, is_enough);
    check(&bytes, sent, read)?;
    Ok(bytes)
}

/// Whether what was read last ended a line.
fn has_line(bytes: &[u8]) -> bool {
    bytes[bytes.len().saturating_sub(PART_BYTES)..].contains(&b'\n')
}

/// How long the first line is with its end, or what there is of it.
fn line_length(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    end.map_or(bytes.len(), |end| end + 1)
}

fn send(stream: &mut UnixStream, line: &[u8], deadline: Instant) -> io::Result<()> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(line)
}

/// Whether an exchange came to an answer. A refusal may already wait although the daemon stopped
/// reading: the answer counts.
fn check(bytes: &[u8], sent: io::Result<()>, read: io::Result<()>) -> Result<(), ClientError> {
    let slow_or_broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TooSlow,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ClientError::HungUp,
        _ => ClientError::System(error),
    };
    if matches!(&read, Err(error) if error.kind() == io::ErrorKind::TimedOut) {
        return Err(ClientError::TooSlow);
    }
    if bytes.is_empty() {
        sent.map_err(slow_or_broken)?;
        read.map_err(slow_or_broken)?;
        return Err(ClientError::HungUp);
    }
    Ok(())
}

/// Reads an answer. One that ends too early was cut off by the daemon's own end, unless it is longer than any.
fn parse<Answer: DeserializeOwned>(bytes: &[u8]) -> Result<Answer, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| {
        match error.is_eof() && (bytes.len() as u64) < MAX_RESPONSE_BYTES {
            true => ClientError::HungUp,
            false => ClientError::Foreign(error),
        }
    })
}

/// How long somebody tries to connect.
struct Patience {
    until: Instant,
    /// There was a socket that nobody served: its daemon was not stopped, it died, and may be about to
    /// start again.
    was_there: bool,
}

impl Patience {
    /// Whether it is tried again. A daemon that starts takes the old socket away before it makes its own.
    fn goes_on(&mut self, is_there: bool, now: Instant) -> bool {
        self.was_there |= is_there;
        self.was_there && now < self.until
    }
}

/// Connects; where nobody serves the socket, again and again for as long as that has a meaning.
#[expect(
    clippy::disallowed_methods,
    reason = "a command of one thread, with a deadline; a socket that nobody serves cannot wake it"
)]
fn connect_patiently(
    path: &Path,
    deadline: Instant,
    patient_until: Instant,
) -> Result<UnixStream, ClientError> {
    let mut patience = Patience {
        until: patient_until,
        was_there: false,
    };
    loop {
        match connect(path, deadline) {
            Err(ClientError::NotRunning(_)) if patience.goes_on(path.exists(), Instant::now()) => {
                thread::sleep(RETRY);
            }
            done => return done,
        }
    }
}

/// Reads to the end, to what is enough, or to what no answer exceeds. An answer that comes drop by drop must not
/// outlive the deadline, which a timeout for each read alone would allow.
fn read_until(
    stream: &mut UnixStream,
    answer: &mut Vec<u8>,
    deadline: Instant,
    is_enough: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut part = [0; PART_BYTES];
    while (answer.len() as u64) < MAX_RESPONSE_BYTES && !is_enough(answer) {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is left until the deadline; a timeout of zero would mean none at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

fn connect(path: &Path, deadline: Instant) -> Result<UnixStream, ClientError> {
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
        .set_write_timeout(Some(left(deadline).map_err(explain)?))
        .map_err(ClientError::System)?;
    let address = SockAddr::unix(path).map_err(ClientError::System)?;
    socket.connect(&address).map_err(explain)?;
    let stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    trust(path, &stream)?;
    Ok(stream)
}

/// Whether whoever serves the socket is who may: root, this user itself, or whose the directory is, as
/// the service manager made it. Where others can write there as well, anybody could answer in
/// acmegate's name.
fn trust(path: &Path, stream: &UnixStream) -> Result<(), ClientError> {
    let uid = peer(stream).map_err(ClientError::System)?.uid();
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    let owner = std::fs::metadata(directory)
        .map_err(ClientError::System)?
        .uid();
    match uid == owner {
        true => Ok(()),
        false => Err(ClientError::Stranger {
            path: path.to_owned(),
            uid,
        }),
    }
}

/// Who began to listen at the other end, by the kernel's word (unix(7), SO_PEERCRED).
fn peer(stream: &UnixStream) -> io::Result<UnixCredentials> {
    Ok(getsockopt(stream, PeerCredentials)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_is_within_a_runtime_may_ask_who_serves() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (one, _other) = UnixStream::pair().unwrap();
            let credentials = peer(&one).unwrap();
            assert_eq!(credentials.uid(), rustix::process::geteuid().as_raw());
        });
    }

    #[test]
    fn a_daemon_that_is_just_taking_its_old_socket_away_is_waited_for() {
        let now = Instant::now();
        let patience = || Patience {
            until: now + PATIENCE,
            was_there: false,
        };
        assert!(!patience().goes_on(false, now), "it was stopped");
        let mut restarting = patience();
        assert!(restarting.goes_on(true, now));
        assert!(restarting.goes_on(false, now + RETRY));
        assert!(!restarting.goes_on(false, now + PATIENCE));
    }

    /// A directory with a socket in it, whose first caller is told this and nothing else.
    fn served<Answer>(name: &str, told: Vec<u8>, call: impl FnOnce(&Path) -> Answer) -> Answer {
        let directory = format!("acmegate-{}-{}", name.replace('.', "-"), std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir(&directory).unwrap();
        let socket = UnixListener::bind(directory.join(name)).unwrap();
        let daemon = thread::spawn(move || {
            let (mut caller, _) = socket.accept().unwrap();
            caller.write_all(&told).unwrap();
        });
        let answer = call(&directory);
        daemon.join().unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        answer
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none_and_may_be_asked_for_again() {
        let mut told = serde_json::to_vec(&Response::done("open")).unwrap();
        told.truncate(told.len() / 2);
        let answer = served(CONTROL_SOCKET, told, |directory| {
            ask(directory, Ask::FirewallApply)
        });
        assert!(matches!(answer, Err(ClientError::HungUp)), "{answer:?}");
    }

    #[test]
    fn who_finds_no_place_for_the_status_is_told_to_try_again() {
        let refusal = Response::refused(Exit::TempFail, "too many: try again");
        let mut told = serde_json::to_vec(&refusal).unwrap();
        told.push(b'\n');
        let error = served(OBSERVE_SOCKET, told.clone(), status).unwrap_err();
        assert_eq!(error.to_string(), "too many: try again");
        assert_eq!(error.exit(), Exit::TempFail);
        let error = served(OBSERVE_SOCKET, told, metrics).unwrap_err();
        assert_eq!(error.to_string(), "too many: try again");
        assert_eq!(error.exit(), Exit::TempFail);
    }
}
