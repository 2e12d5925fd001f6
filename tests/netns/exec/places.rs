//! The places of armed leases: bounded, and given back by whoever talks.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::protocol::{Ask, Envelope, Open, VERSION};

use super::{SOON, Stage};
use crate::host::Host;
use crate::lab::{inside, wait_for};

/// Who takes every place that it can still leaves those of others, and who talks on an armed
/// connection loses it.
#[test]
fn a_flood_of_armings_leaves_room_and_garbage_ends_one() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let arm = |lease: &str| {
            let open = Open {
                lease: lease.to_owned(),
                ..Open::default()
            };
            let runtime_dir = stage.daemon.runtime_dir();
            client::arm(runtime_dir.as_ref(), open, false).expect("it answers")
        };
        let mut held = Vec::new();
        let refusal = loop {
            let armed = arm(&format!("flood-{}", held.len()));
            if armed.answer.code != 0 {
                break armed.answer;
            }
            held.push(armed.stream);
            assert!(
                held.len() < 64,
                "there is a bound below an account's places"
            );
        };
        assert_eq!(refusal.code, 75, "{}", refusal.message);
        assert!(
            refusal.message.contains("too many leases are armed"),
            "{}",
            refusal.message
        );
        assert_eq!(stage.armed().len(), held.len());
        assert!(!host.is_open(80));
        // Everything else is still heard, and nothing opens but what is asked.
        stage.daemon.cli(&["open", "--lease", "other"]).success();
        stage.daemon.cli(&["close", "--lease", "other"]).success();
        let refused = stage.run(&[], "touch $DIR/never");
        assert_eq!(refused.code, 75, "{refused}");
        assert!(!stage.has("never"));
        // Longer than any request may take.
        let quiet = Instant::now();
        wait_for(SOON, "the deadline of a request is past", || {
            (quiet.elapsed() > Duration::from_secs(3)).then_some(())
        });
        assert_eq!(stage.armed().len(), held.len());

        // One place is given back by saying something, the others by going.
        let mut talker = held.pop().expect("one of them");
        let name = format!("flood-{}", held.len());
        stage.daemon.cli(&["open", "--lease", &name]).success();
        assert!(host.lets_in(80));
        let _ = talker.write_all(b"\0\xff}{\n");
        wait_for(SOON, "the talker is disarmed", || {
            (stage.armed().len() == held.len()).then_some(())
        });
        assert!(!host.is_open(80));
        let again = arm("again");
        assert_eq!(again.answer.code, 0);
        drop((again, held));
        wait_for(SOON, "all are gone", || {
            stage.armed().is_empty().then_some(())
        });
        stage.is_over();
    });
}

/// What is refused before it is armed takes no place, and a name is armed once.
#[test]
fn a_name_is_armed_once_and_bad_requests_arm_nothing() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        let mut first = stage.spawn(&["--lease", "one"], "touch $DIR/runs; await end");
        stage.wait("runs");
        let second = stage.run(&["--lease", "one"], "touch $DIR/never");
        assert_eq!(second.code, 75, "{second}");
        assert!(second.stderr.contains("armed already"), "{second}");
        let open = Ask::Arm(Open {
            lease: "half".to_owned(),
            ..Open::default()
        });
        let envelope = Envelope {
            version: VERSION,
            ask: open,
            under: None,
        };
        let line = serde_json::to_vec(&envelope).expect("JSON");
        let socket = format!("{}/control.sock", stage.daemon.runtime_dir());
        for part in [
            &line[..line.len() / 2],
            &line[..],
            b"{\"version\":1,\"ask\":{\"arm\":{}}}\n",
        ] {
            let mut caller = UnixStream::connect(&socket).expect("it listens");
            caller.write_all(part).expect("it hears");
            drop(caller);
        }
        assert_eq!(stage.armed().len(), 1);
        assert!(!stage.has("never"));
        stage.make("end");
        assert_eq!(first.wait(SOON), 0);
        stage.is_over();
    });
}
