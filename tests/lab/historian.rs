//! The historian without its front: a test speaks to it in the front's place.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acmegate::observe::history::message::{
    Answer, Ask, Found, MAX_ANSWER_BYTES, Query, Question, Reply, decode, encode, length,
};
use acmegate::observe::record::{End, EndedBy, Record};

use super::{BINARY, TempDir, wait_for};

/// How long it may think in a test: longer than its front would wait, on a machine that does more.
const PATIENCE: Duration = Duration::from_secs(60);

/// A historian, and the front's end of its socket. It is killed when this is dropped.
pub struct Historian {
    pub socket: UnixStream,
    pub child: Child,
    id: u64,
}

impl Historian {
    /// Starts one with a configuration file.
    pub fn start(config: &str) -> Self {
        let mut command = Command::new(BINARY);
        command.args(["historian", "--config", config]);
        Self::start_by(command)
    }

    /// Starts one by another program, which must hand on its standard input.
    pub fn start_by(command: Command) -> Self {
        let (socket, child) = beside(command);
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("our own socket");
        Self {
            socket,
            child,
            id: 0,
        }
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, ask: Ask) -> io::Result<Answer> {
        self.id += 1;
        let question = Question { id: self.id, ask };
        let frame = encode(&question, usize::MAX).expect("any length");
        self.socket.write_all(&frame)?;
        let mut header = [0; 4];
        self.socket.read_exact(&mut header)?;
        let length = length(header, MAX_ANSWER_BYTES).expect("a length");
        let mut message = vec![0; length];
        self.socket.read_exact(&mut message)?;
        let answer: Answer = decode(&message).expect("an answer");
        assert_eq!(answer.id, self.id);
        Ok(answer)
    }

    /// Stores a record, which must work.
    #[track_caller]
    pub fn store(&mut self, record: &Record) -> Record {
        match self.ask(Ask::Store(Box::new(record.clone()))) {
            Ok(Answer {
                reply: Reply::Stored(record),
                ..
            }) => *record,
            other => panic!("not stored: {other:?}"),
        }
    }

    /// Looks records up, which must work.
    #[track_caller]
    pub fn find(&mut self, query: Query) -> Found {
        match self.ask(Ask::Query(query)) {
            Ok(Answer {
                reply: Reply::Found(found),
                ..
            }) => found,
            other => panic!("not found: {other:?}"),
        }
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) {
        wait_for(PATIENCE, "the historian ends", || {
            self.child.try_wait().expect("our own child")
        });
    }
}

impl Drop for Historian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program with one end of a socket pair as its standard input.
pub fn beside(mut command: Command) -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null());
    (ours, command.spawn().expect("the program under test"))
}

/// A configuration for it alone, and the directory that it is in.
pub fn config(directory: &TempDir, report: &str) -> String {
    let state = directory.at("state");
    std::fs::create_dir_all(&state).expect("our own directory");
    let text = format!(
        "[daemon]\nuser = \"0\"\nstate_dir = \"{state}\"\n[http]\nlisten = []\n[firewall]\nmode = \"gate-only\"\n\
         [report]\n{report}\n"
    );
    directory.write("etc/acmegate.toml", &text)
}

/// The host's clock, in milliseconds after 1970: what is older than a history may be does not stay.
pub fn now() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the historian under test tells ages by the host's clock"
    )]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

/// The record of a window that is open.
pub fn window(lease: &str, opened_at: u64) -> Record {
    Record {
        version: 1,
        lease: lease.to_owned(),
        opened_at,
        deadline: 600_000,
        ports: vec![80],
        ..Record::default()
    }
}

/// What becomes of it.
pub fn ended(record: Record) -> Record {
    Record {
        end: Some(End {
            by: EndedBy::Close,
            at: 9000,
            late: 0,
        }),
        ..record
    }
}
