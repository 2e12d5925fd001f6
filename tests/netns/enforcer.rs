//! The enforcer alone, with the test in the place of its front.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acmegate::firewall::message::{Claim, FRAME_BYTES, Frame, Reply, Request};
use acmegate::gate::lease::{Entrance, Families, LeaseName, Trigger};

use crate::lab::{BINARY, TempDir, wait_for};

const SOON: Duration = Duration::from_secs(10);

/// An enforcer. Dropping it kills it, by its pid.
pub struct Enforcer {
    child: Child,
    pub stream: UnixStream,
    directory: Option<TempDir>,
}

impl Enforcer {
    /// Starts one in the caller's own namespaces and waits until it is sealed.
    pub fn start(config: &str) -> Self {
        let directory = TempDir::new();
        let mut enforcer = Self::start_in(&directory, config, &[]);
        enforcer.directory = Some(directory);
        enforcer
    }

    /// The same with its configuration in a directory of the caller's, and an environment.
    pub fn start_in(directory: &TempDir, config: &str, environment: &[(&str, &str)]) -> Self {
        let file = directory.write("acmegate.toml", config);
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let child = Command::new(BINARY)
            .args(["enforcer", "--config", &file])
            .envs(environment.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("our own program");
        ours.set_read_timeout(Some(SOON)).expect("a timeout");
        let mut enforcer = Self {
            child,
            stream: ours,
            directory: None,
        };
        // It answers: the table stands, and the seal is on.
        let replies = enforcer.ask(&Request::Snapshot);
        assert!(
            matches!(&replies[..], [Reply::Health(health)] if health.is_installed),
            "{replies:?}"
        );
        enforcer
    }

    /// Asks, and waits for every reply.
    pub fn ask(&mut self, request: &Request) -> Vec<Reply> {
        self.say(&request.to_frame(7))
    }

    /// Asks for a lease; gives the last reply.
    pub fn open(&mut self, claim: &Claim) -> Reply {
        let mut replies = self.ask(&Request::Open(claim.clone()));
        replies.pop().expect("an answer")
    }

    /// The same in bytes.
    pub fn say(&mut self, frame: &Frame) -> Vec<Reply> {
        self.stream.write_all(frame).expect("it reads");
        let mut replies = Vec::new();
        loop {
            let mut frame: Frame = [0; FRAME_BYTES];
            self.stream.read_exact(&mut frame).expect("it answers");
            let (sequence, reply) = Reply::from_frame(&frame).expect("a frame of ours");
            // What comes unasked is about the kernel, and no answer.
            if sequence == 0 {
                continue;
            }
            assert_eq!(sequence, 7);
            let goes_on = !reply.is_last();
            replies.push(reply);
            if !goes_on {
                return replies;
            }
        }
    }

    /// Waits until it ended by itself.
    pub fn ends(&mut self) -> i32 {
        let status = wait_for(SOON, "the enforcer ends", || {
            self.child.try_wait().expect("our own child")
        });
        status.code().unwrap_or(-1)
    }
}

impl Drop for Enforcer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A good claim: port 80 of both families, for a minute.
pub fn claim(name: &str) -> Claim {
    Claim {
        name: LeaseName::parse(name).expect("a name"),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        ports: vec![80],
        families: Families::BOTH,
        entrance: Entrance::Any,
        is_scoped: false,
        length: Duration::from_secs(60),
    }
}
