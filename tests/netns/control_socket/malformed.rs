//! Ten thousand messages that are none, while somebody else is served on.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::protocol::{Ask, Open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{ASKS, SOON, STRANGER, beside_as, descriptors, granting, socket};
use crate::host::Host;
use crate::lab::{Numbers, wait_for};
use crate::users::inside_with_users;

/// How many messages, by how many callers at the same time: all of one account that has no grant.
const MESSAGES: usize = 10_000;
const CALLERS: usize = 4;
const SLOW_CALLERS: usize = 16;
/// What the daemon gives a request.
const DEADLINE: Duration = Duration::from_secs(2);

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// Its sender waits for the answer.
    Waits,
    /// It says that nothing more comes.
    Halves,
    /// It is gone at once.
    Leaves,
}

/// One that is none, and how it ends.
fn message(numbers: &mut Numbers) -> (Vec<u8>, End) {
    let whole = || {
        let ask = ASKS[1];
        format!("{{\"version\":1,\"ask\":{ask}}}\n").into_bytes()
    };
    let mut at = |bound: usize| numbers.below(bound as u64) as usize;
    let deep = |open: &str, depth: usize| {
        let text = format!("{{\"version\":1,\"ask\":{}", open.repeat(depth));
        (text + "\n").into_bytes()
    };
    match at(12) {
        // Octets of no meaning.
        0 => {
            let length = 1 + at(3000);
            let mut noise: Vec<u8> = (0..length).map(|_| at(256) as u8).collect();
            noise.push(b'\n');
            (noise, End::Waits)
        }
        // Cut off anywhere.
        1 => {
            let mut part = whole();
            part.truncate(at(part.len() - 1));
            (part, End::Halves)
        }
        2 => {
            let mut part = whole();
            part.truncate(at(part.len() - 2));
            part.push(b'\n');
            (part, End::Waits)
        }
        // One octet is another.
        3 => {
            let mut other = whole();
            let place = at(other.len() - 1);
            other[place] = b"{}[]\",:\\\0\xff"[at(10)];
            (other, End::Waits)
        }
        4 => (deep("[", 1 + at(20_000)), End::Waits),
        5 => (deep("{\"open\":", 1 + at(5000)), End::Waits),
        6 => {
            let version = [
                "0",
                "2",
                "4294967295",
                "4294967296",
                "-1",
                "1e99",
                "\"1\"",
                "null",
            ][at(8)];
            let text = format!("{{\"version\":{version},\"ask\":\"firewall-remove\"}}\n");
            (text.into_bytes(), End::Waits)
        }
        7 => {
            let key = ["more", "ask", "version", "under", ""][at(5)];
            let text = format!("{{\"version\":1,\"ask\":\"firewall-remove\",\"{key}\":[]}}\n");
            (text.into_bytes(), End::Waits)
        }
        8 => (vec![b"a{\" \0"[at(5)]; 60_000 + at(20_000)], End::Halves),
        9 => (whole(), End::Leaves),
        10 => (Vec::new(), [End::Halves, End::Leaves][at(2)]),
        _ => {
            let name = "\\u0000".repeat(1 + at(100));
            let text =
                format!("{{\"version\":1,\"ask\":{{\"close\":{{\"lease\":\"{name}\"}}}}}}\n");
            (text.into_bytes(), End::Waits)
        }
    }
}

/// Sends one; whether it was read and refused. Nothing else may come of it.
fn send(path: &Path, numbers: &mut Numbers) -> bool {
    let (message, end) = message(numbers);
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    // Whoever says too much is not heard to the end.
    let _ = stream.write_all(&message);
    match end {
        End::Leaves => return false,
        End::Halves => drop(stream.shutdown(Shutdown::Write)),
        End::Waits => {}
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let shown = String::from_utf8_lossy(&message[..message.len().min(200)]).into_owned();
    let answer: serde_json::Value = serde_json::from_slice(&answer)
        .unwrap_or_else(|error| panic!("{error} for {end:?} {shown}"));
    let said = answer["message"].as_str().unwrap_or_default();
    assert!(!said.contains('\0'), "{answer}");
    match answer["code"].as_u64() {
        Some(65) => true,
        // A changed octet may leave a question, of somebody who may not ask it.
        Some(77) => true,
        // Those who left, or are slow, have places yet.
        Some(75) if said.starts_with("too many requests") => false,
        _ => panic!("{end:?} {shown}: {answer}"),
    }
}

/// Sends octet by octet until it is told that it is too slow.
fn drip(path: &Path) {
    let begun = Instant::now();
    let mut stream = UnixStream::connect(path).expect("it listens");
    let pause = Some(Duration::from_millis(100));
    stream.set_read_timeout(pause).expect("a deadline");
    let mut answer = Vec::new();
    wait_for(SOON, "it is told", || {
        let _ = stream.write_all(b" ");
        let mut part = [0; 512];
        match stream.read(&mut part) {
            Ok(0) => Some(()),
            Ok(count) => {
                answer.extend_from_slice(&part[..count]);
                None
            }
            // A reset comes behind the answer, for what was not read.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(()),
            Err(_) => None,
        }
    });
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("did not come in time"), "{answer}");
    assert!(begun.elapsed() >= DEADLINE, "{:?}", begun.elapsed());
}

/// Sends descriptors along, with half a message and with a whole one: nobody takes them.
fn pass_descriptors(path: &Path) {
    for message in [&b"{"[..], b"{}\n"] {
        let (mut end, passed) = UnixStream::pair().expect("a pair");
        let mut stream = UnixStream::connect(path).expect("it listens");
        let descriptors = [passed.as_fd(); 100];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(
            &stream,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::empty(),
        );
        assert_eq!(sent, Ok(message.len()));
        drop(passed);
        stream.shutdown(Shutdown::Write).expect("our own");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.contains("\"code\":65"), "{answer}");
        // The last of them is closed: this one's end has come.
        end.set_read_timeout(Some(SOON)).expect("a deadline");
        assert_eq!(end.read(&mut [0]).expect("its end"), 0);
    }
}

#[test]
fn ten_thousand_malformed_messages_disturb_nobody() {
    inside_with_users(|| {
        let host = Host::new();
        let daemon = granting();
        daemon.cli(&["open", "--lease", "stays"]).success();
        daemon.status();
        let before = descriptors(&daemon);
        let path = socket(&daemon, "control.sock");
        let over = AtomicBool::new(false);
        let read = std::thread::scope(|scope| {
            let (over, runtime_dir) = (&over, daemon.runtime_dir());
            let good = scope.spawn(move || {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let open = Open {
                        lease: "good".to_owned(),
                        dry_run: served % 8 != 0,
                        ..Open::default()
                    };
                    let close = Ask::Close {
                        lease: "good".to_owned(),
                        said: None,
                    };
                    for ask in [Ask::Open(open), close] {
                        let answer = client::ask(runtime_dir.as_ref(), ask).expect("an answer");
                        assert_eq!(answer.code, 0, "{answer:?}");
                    }
                    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
                    served += 1;
                }
                served
            });
            let at = || path.clone();
            let slow = (0..SLOW_CALLERS).map(|_| {
                let path = at();
                beside_as(STRANGER, move || drip(&path))
            });
            let path = at();
            let passing = beside_as(STRANGER, move || {
                (0..50).for_each(|_| pass_descriptors(&path));
            });
            let others: Vec<_> = slow.chain([passing]).collect();
            let senders: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let path = at();
                    beside_as(STRANGER, move || {
                        let mut numbers = Numbers(0x10_000 + caller as u64);
                        let sent = (0..MESSAGES / CALLERS).map(|_| send(&path, &mut numbers));
                        sent.filter(|is_read| *is_read).count()
                    })
                })
                .collect();
            let read: Vec<_> = senders.into_iter().map(JoinHandle::join).collect();
            let others: Vec<_> = others.into_iter().map(JoinHandle::join).collect();
            over.store(true, Ordering::Relaxed);
            let served = good.join().expect("it was served on");
            assert!(others.iter().all(Result::is_ok), "see above");
            assert!(served >= 10, "served {served} times");
            println!("served {served} times beside");
            let read = read.into_iter().map(|read| read.expect("see above"));
            read.sum::<usize>()
        });
        println!("{read} of {MESSAGES} were read and refused");
        // A sixth leaves, some had no place: the others were read.
        assert!(read > MESSAGES / 2, "{read}");
        wait_for(SOON, "no descriptor is left", || {
            (descriptors(&daemon) <= before).then_some(())
        });
        let status = daemon.status();
        let leases: Vec<_> = status["leases"].as_array().into_iter().flatten().collect();
        assert!(
            leases.len() == 1 && leases[0]["name"] == "stays",
            "{status}"
        );
        assert_eq!(status["firewall"]["installed"], true);
        assert!(host.lets_in(80));
        let log = daemon.log();
        assert!(!log.contains("panicked"), "{log}");
    });
}
