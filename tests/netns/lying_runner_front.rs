//! The runner believes nothing: a front that was taken over has nothing run but what the
//! configuration says, and for no more than it gives.
//!
//! The test is the front: it starts the runner with a socket pair as its standard input.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acmegate::gate::command::Notice;
use acmegate::gate::lease::{Families, LeaseName, Trigger};
use acmegate::runner::book::Claim;
use acmegate::runner::message::{Fault, Reply, Request};
use acmegate::wire::{FRAME_BYTES, Frame};

use crate::lab::{BINARY, TempDir, inside, wait_for};
use crate::runner::Script;

const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);

/// A runner alone. Dropping it kills it, by its pid.
struct Runner {
    child: Child,
    stream: UnixStream,
    directory: TempDir,
}

impl Runner {
    fn start(script: &Script, more: &str) -> Self {
        Self::start_in(TempDir::new(), script, more, "2m")
    }

    fn start_in(directory: TempDir, script: &Script, more: &str, max: &str) -> Self {
        let state = directory.path().display();
        let config = format!(
            "{}ports = [80]\n{more}\n[window]\nmax = \"{max}\"\n[budget]\nper_hour = 8\nper_caller = 4\nreserve = 2\n\
             [daemon]\nuser = \"0\"\nstate_dir = \"{state}\"\n",
            script.config()
        );
        let file = directory.write("acmegate.toml", &config);
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let child = Command::new(BINARY)
            .args(["runner", "--config", &file])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("our own program");
        ours.set_read_timeout(Some(SOON)).expect("a timeout");
        Self {
            child,
            stream: ours,
            directory,
        }
    }

    fn ask(&mut self, request: &Request) -> Reply {
        self.stream
            .write_all(&request.to_frame(7))
            .expect("it reads");
        loop {
            let mut frame: Frame = [0; FRAME_BYTES];
            self.stream.read_exact(&mut frame).expect("it answers");
            match Reply::from_frame(&frame).expect("a frame of ours") {
                (0, Reply::Health(_)) => {}
                (sequence, reply) => {
                    assert_eq!(sequence, 7);
                    return reply;
                }
            }
        }
    }

    fn ends(&mut self) {
        wait_for(SOON, "the runner ends", || {
            self.child.try_wait().expect("our own child")
        });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn claim() -> Claim {
    Claim {
        lease: LeaseName::parse("a").expect("a name"),
        caller: 0,
        trigger: Trigger::Asked,
        ports: vec![80],
        families: Families::BOTH,
        length: Duration::from_secs(120),
    }
}

fn open(claim: Claim) -> Request {
    Request::Open {
        claim,
        within: PATIENCE,
    }
}

#[test]
fn the_runner_runs_nothing_but_what_the_configuration_says() {
    inside(|| {
        let script = Script::new("");
        let mut runner = Runner::start(&script, "");
        let none = Families {
            v4: false,
            v6: false,
        };
        let lies = [
            Claim {
                ports: vec![22],
                ..claim()
            },
            Claim {
                ports: vec![80, 22],
                ..claim()
            },
            Claim {
                ports: Vec::new(),
                ..claim()
            },
            Claim {
                families: none,
                ..claim()
            },
            Claim {
                length: Duration::from_millis(120_001),
                ..claim()
            },
            Claim {
                length: Duration::ZERO,
                ..claim()
            },
        ];
        for lie in lies {
            let reply = runner.ask(&open(lie.clone()));
            assert!(
                matches!(reply, Reply::Failed(Fault::Bounds, _)),
                "{lie:?}: {reply:?}"
            );
        }
        assert_eq!(script.calls(), [""; 0]);
        // The positive control; and the book counts for itself, renewals as well.
        for number in 0..8 {
            let reply = runner.ask(&open(claim()));
            assert!(
                matches!(reply, Reply::Opened(Some(_))),
                "{number}: {reply:?}"
            );
        }
        let reply = runner.ask(&open(claim()));
        assert!(
            matches!(reply, Reply::Failed(Fault::Bounds, _)),
            "{reply:?}"
        );
        assert!(
            script.calls().iter().all(|call| call == "open 80 120 a"),
            "{:?}",
            script.calls()
        );
    });
}

#[test]
fn the_runner_closes_on_time_even_if_its_front_never_says_so() {
    inside(|| {
        let script = Script::new("");
        let mut runner = Runner::start(&script, "");
        runner.ask(&open(Claim {
            length: Duration::from_secs(1),
            ..claim()
        }));
        // Saying that it lives on prolongs nothing.
        let living = Request::Living {
            lease: claim().lease,
            length: Duration::from_secs(3600),
        };
        assert!(matches!(runner.ask(&living), Reply::Opened(Some(1))));
        wait_for(SOON, "closed", || {
            (script.calls() == ["open 80 1 a", "close 80"]).then_some(())
        });
    });
}

#[test]
fn what_a_restart_finds_lives_no_longer_than_the_configuration_says() {
    inside(|| {
        let script = Script::new("");
        let mut runner = Runner::start(&script, "");
        runner.ask(&open(claim()));
        let directory = std::mem::replace(&mut runner.directory, TempDir::new());
        drop(runner);
        let mut runner = Runner::start_in(directory, &script, "", "1s");
        let living = Request::Living {
            lease: claim().lease,
            length: Duration::from_secs(3600),
        };
        assert!(matches!(runner.ask(&living), Reply::Opened(Some(1))));
        wait_for(SOON, "closed", || {
            (script.calls() == ["open 80 120 a", "close 80"]).then_some(())
        });
    });
}

#[test]
fn bytes_that_are_no_frame_end_the_runner_and_run_nothing() {
    inside(|| {
        let good = open(claim()).to_frame(7);
        let with = |at: usize, byte: u8| {
            let mut frame = good;
            frame[at] = byte;
            frame
        };
        let script = Script::new("");
        for frame in [
            [0; FRAME_BYTES],
            [0xff; FRAME_BYTES],
            with(0, 2),
            with(1, 99),
            with(6, 0),
            with(7, b'/'),
            with(FRAME_BYTES - 1, 1),
        ] {
            let mut runner = Runner::start(&script, "");
            runner.stream.write_all(&frame).expect("it reads");
            runner.ends();
        }
        assert_eq!(script.calls(), [""; 0]);
        // A front that goes away in the middle of a command takes it along.
        let script = Script::new("sleep 300");
        let mut runner = Runner::start(&script, "");
        runner.stream.write_all(&good).expect("it reads");
        wait_for(SOON, "it runs", || {
            (script.calls().len() == 1).then_some(())
        });
        let (nobody, _) = UnixStream::pair().expect("a socket pair");
        drop(std::mem::replace(&mut runner.stream, nobody));
        runner.ends();
    });
}

#[test]
fn what_a_lying_front_notifies_of_is_one_object_for_the_configured_command() {
    inside(|| {
        let script = Script::new("");
        let directory = TempDir::new();
        let told = directory.at("told");
        let tell = format!("[notify]\ncommand = [\"tee\", \"-a\", \"{told}\"]\n");
        let mut runner = Runner::start(&script, &tell);
        let notice = |bytes| Request::Notice {
            notice: Notice::default(),
            bytes,
        };
        let part = |at, part: &[u8]| Request::Part {
            at,
            part: part.to_vec(),
        };
        let is_refused = |reply| matches!(reply, Reply::Failed(Fault::Bounds, _));
        assert!(is_refused(runner.ask(&part(0, b"{}"))));
        assert!(is_refused(runner.ask(&notice(u32::MAX))));
        for (at, octets) in [
            (0, &b"{}{}"[..]),
            (0, b"x\ny"),
            (1, b"{\"a\""),
            (0, b"[\"\"]"),
        ] {
            assert!(!is_refused(runner.ask(&notice(octets.len() as u32))));
            assert!(is_refused(runner.ask(&part(at, octets))));
        }
        assert!(!std::path::Path::new(&told).exists());
        assert!(!is_refused(runner.ask(&notice(7))));
        assert!(!is_refused(runner.ask(&part(0, b"{\"a\":"))));
        assert!(!is_refused(runner.ask(&part(5, b"1}"))));
        wait_for(SOON, "it is told", || {
            (std::fs::read_to_string(&told).ok()? == "{\"a\":1}\n").then_some(())
        });
        assert_eq!(script.calls(), [""; 0]);
    });
}
