//! The control socket under attack: by accounts that have no grant, by messages that are none, by more
//! callers than there is room for, and by what else may stand at its path.

mod malformed;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acmegate::control::client;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::host::Host;
use crate::kernel::{SHUT, open_ports};
use crate::lab::{self, Daemon, TempDir, inside, run, wait_for};
use crate::users::inside_with_users;

const SOON: Duration = Duration::from_secs(20);
const OPENER: u32 = 21001;
const OTHER_OPENER: u32 = 21002;
const STRANGER: u32 = 21003;
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// Every verb there is, for what a stranger would like.
const ASKS: [&str; 12] = [
    r#"{"open":{"lease":"a","milliseconds":null,"ports":[],"family":null,"identifiers":null,"holder":null,"dry_run":false}}"#,
    r#"{"open":{"lease":"a","milliseconds":null,"ports":[80],"family":null,"identifiers":null,"holder":null,"dry_run":true,"force":true}}"#,
    r#"{"arm":{"lease":"a","milliseconds":null,"ports":[],"family":null,"identifiers":null,"holder":null,"dry_run":false}}"#,
    r#"{"close":{"lease":"roots"}}"#,
    r#"{"close":{"lease":"nobodys"}}"#,
    r#"{"report":{}}"#,
    r#"{"report":{"since":86400000}}"#,
    r#""watch""#,
    r#"{"answer-add":{"identifier":"a.example.com","key_authorization":"ANSWER","milliseconds":null}}"#,
    r#"{"answer-remove":{"identifier":"a.example.com","token":"LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"}}"#,
    r#""firewall-apply""#,
    r#""firewall-remove""#,
];

/// Does something as another account, in a thread of its own.
fn beside_as<T: Send + 'static>(
    uid: u32,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[]).expect("this test has every account");
        set_thread_res_gid(group, group, group).expect("this test has every account");
        set_thread_res_uid(user, user, user).expect("this test has every account");
        work()
    })
}

fn socket(daemon: &Daemon, name: &str) -> PathBuf {
    Path::new(&daemon.runtime_dir()).join(name)
}

/// Sends a line and reads to the end, which comes by itself.
fn say(path: &Path, line: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn granting() -> Daemon {
    let grants = [OPENER, OTHER_OPENER]
        .map(|uid| format!("[[grant]]\nuser = \"{uid}\"\nmay = [\"open\", \"close\"]\n"));
    let config = format!(
        "[budget]\nper_hour = 3600\nper_caller = 3000\nfailures_per_hour = \"unlimited\"\n{}",
        grants.concat()
    );
    Daemon::start(&config)
}

#[test]
fn an_account_without_a_grant_gets_one_refusal_for_every_verb_and_nothing_else() {
    inside_with_users(|| {
        let host = Host::new();
        let daemon = granting();
        daemon
            .cli(&["open", "--lease", "roots", "--for", "5m"])
            .success();
        let (before, status) = (lab::ruleset(), daemon.status());
        let path = socket(&daemon, "control.sock");
        for ask in ASKS {
            let ask = ask.replace("ANSWER", ANSWER);
            for under in ["", r#","under":"roots""#] {
                let line = format!("{{\"version\":1,\"ask\":{ask}{under}}}\n");
                let path = path.clone();
                let answer = beside_as(STRANGER, move || say(&path, &line));
                let answer = answer.join().expect("no panic").expect("it is told");
                assert_eq!(answer.lines().count(), 1, "{ask}: {answer}");
                let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                let message = answer["message"].as_str().unwrap_or_default();
                assert_eq!(answer["code"], 77, "{ask}: {answer}");
                assert!(message.starts_with("uid 21003 may not "), "{ask}: {answer}");
                // Not even whose lease has the name.
                assert!(!message.contains("roots"), "{ask}: {answer}");
                let fields = answer.as_object().expect("an object");
                let is_nothing = |value: &serde_json::Value| {
                    *value == false || value.as_array().is_some_and(Vec::is_empty)
                };
                let more = fields.iter().filter(|(name, value)| {
                    let is_word = ["version", "code", "message"].contains(&name.as_str());
                    !is_word && !is_nothing(value)
                });
                assert_eq!(more.count(), 0, "{ask}: {answer}");
            }
        }
        let now = daemon.status();
        for key in ["leases", "armed", "pushed", "firewall", "budget"] {
            // What is left of a lease goes on.
            let without_time = |status: &serde_json::Value| {
                let text = status[key].to_string();
                text.replace(|digit: char| digit.is_ascii_digit(), "")
            };
            assert_eq!(without_time(&now), without_time(&status), "{key}");
        }
        let moves = |rules: &str| rules.matches("timeout").count();
        assert_eq!(moves(&lab::ruleset()), moves(&before));
        daemon.cli(&["close", "--lease", "roots"]).success();
        assert!(!host.is_open(80));
        // Where nobody has a grant, nobody else gets so far.
        drop(daemon);
        let daemon = Daemon::start("");
        let path = socket(&daemon, "control.sock");
        let knocked = beside_as(STRANGER, move || UnixStream::connect(path).map(drop));
        let error = knocked.join().expect("no panic").expect_err("it is shut");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        // And whoever connects to the other one is not heard.
        let path = socket(&daemon, "observe.sock");
        let told = beside_as(STRANGER, move || {
            let mut stream = UnixStream::connect(path)?;
            let _ = stream.write_all(b"{\"version\":1,\"ask\":\"firewall-remove\"}\n");
            let mut text = String::new();
            // What was not read comes back as a reset behind what was told.
            let _ = stream.read_to_string(&mut text);
            Ok::<_, std::io::Error>(text)
        });
        let told = told.join().expect("no panic").expect("anybody may look");
        assert!(told.starts_with("{\"version\":1,\"program\":"), "{told}");
        assert_eq!(daemon.status()["firewall"]["installed"], true);
    });
}

/// Callers that come again and again until this is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Each of these accounts holds as many idle callers as it is given, on both sockets, and has one
    /// that asks without end.
    fn start(daemon: &Daemon, accounts: &[u32]) -> Self {
        let (stop, refused) = (Arc::default(), Arc::default());
        let mut threads = Vec::new();
        for uid in accounts {
            for name in ["control.sock", "observe.sock"] {
                let path = socket(daemon, name);
                let stop: Arc<AtomicBool> = Arc::clone(&stop);
                threads.push(beside_as(*uid, move || hold(&path, &stop)));
            }
            let path = socket(daemon, "control.sock");
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            threads.push(beside_as(*uid, move || ask_on(&path, &stop, &refused)));
        }
        Self {
            stop,
            refused,
            threads,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Holds more than there is room for, silent ones, and puts new ones in the place of some again and again.
fn hold(path: &Path, stop: &AtomicBool) {
    const HELD: usize = 160;
    const AT_ONCE: usize = 16;
    let mut held = std::collections::VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        held.extend((0..AT_ONCE).flat_map(|_| UnixStream::connect(path)));
        if held.len() > HELD {
            held.drain(..AT_ONCE);
            // Not a race for the processor, which is the system's to share out.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

fn ask_on(path: &Path, stop: &AtomicBool, refused: &AtomicUsize) {
    let line = format!("{{\"version\":1,\"ask\":{}}}\n", ASKS[1]);
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut stream) = UnixStream::connect(path) else {
            continue;
        };
        let _ = stream.set_read_timeout(Some(SOON));
        let _ = stream.write_all(line.as_bytes());
        // Who is turned away is not read, which is told by a reset behind the answer.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if String::from_utf8_lossy(&answer).contains("too many requests") {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_flood_of_callers_keeps_root_from_nothing() {
    inside_with_users(|| {
        let host = Host::new();
        let daemon = granting();
        let descriptors = || descriptors(&daemon);
        daemon.cli(&["open", "--lease", "roots"]).success();
        daemon.cli(&["close", "--lease", "roots"]).success();
        let before = descriptors();
        let flood = Flood::start(&daemon, &[OPENER, OTHER_OPENER, STRANGER]);
        wait_for(SOON, "there is no room any more", || {
            (flood.refused.load(Ordering::Relaxed) > 0).then_some(())
        });
        for round in 0..5 {
            let begun = Instant::now();
            daemon.cli(&["open", "--lease", "roots"]).success();
            assert!(host.lets_in(80), "{round}");
            daemon
                .cli(&["answer", "add", "a.example.com", ANSWER])
                .success();
            assert_eq!(daemon.status()["leases"][0]["name"], "roots");
            daemon.cli(&["close", "--lease", "roots"]).success();
            assert!(!host.is_open(80), "{round}");
            assert!(
                begun.elapsed() < SOON,
                "round {round}: {:?}",
                begun.elapsed()
            );
        }
        assert!(flood.refused.load(Ordering::Relaxed) > 0);
        drop(flood);
        let free = format!("no more descriptors than {before}, their places are free again");
        wait_for(SOON, &free, || (descriptors() <= before).then_some(()));
        let path = socket(&daemon, "control.sock");
        let line = format!("{{\"version\":1,\"ask\":{}}}\n", ASKS[1]);
        let heard = beside_as(OPENER, move || say(&path, &line));
        let heard = heard.join().expect("no panic").expect("an answer");
        assert!(heard.contains("would open"), "{heard}");
        assert_eq!(open_ports(), SHUT);
    });
}

/// How many descriptors the front has.
fn descriptors(daemon: &Daemon) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.front()));
    open.expect("our own process").count()
}

/// What stands where a socket is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Thing {
    File,
    LinkToFile,
    LinkToNothing,
    LinkToSocket,
    Directory,
    Pipe,
    Served,
    ServedOfAnotherType,
}

/// Keeps alive what serves a socket.
enum Kept {
    Nothing,
    Stream(UnixListener),
    Datagram(UnixDatagram),
}

impl Thing {
    const ALL: [Self; 8] = [
        Self::File,
        Self::LinkToFile,
        Self::LinkToNothing,
        Self::LinkToSocket,
        Self::Directory,
        Self::Pipe,
        Self::Served,
        Self::ServedOfAnotherType,
    ];

    fn put(self, path: &Path, other: &TempDir) -> Kept {
        let target = other.path().join("target");
        match self {
            Self::File => fs::write(path, "precious").expect("a new file"),
            Self::LinkToFile => {
                fs::write(&target, "precious").expect("a new file");
                symlink(target, path).expect("a link");
            }
            Self::LinkToNothing => symlink(other.path().join("nothing"), path).expect("a link"),
            Self::LinkToSocket => {
                symlink(&target, path).expect("a link");
                return Kept::Stream(UnixListener::bind(target).expect("a socket"));
            }
            Self::Directory => fs::create_dir(path).expect("a directory"),
            Self::Pipe => {
                let mut mkfifo = std::process::Command::new("mkfifo");
                mkfifo.arg(path);
                run(mkfifo, SOON).success();
            }
            Self::Served => return Kept::Stream(UnixListener::bind(path).expect("a socket")),
            Self::ServedOfAnotherType => {
                return Kept::Datagram(UnixDatagram::bind(path).expect("a socket"));
            }
        }
        Kept::Nothing
    }

    /// Whether it is what it was, and nothing came of it.
    fn is_whole(self, path: &Path, other: &TempDir, kept: &Kept) -> bool {
        let is_precious =
            |path: &Path| fs::read_to_string(path).is_ok_and(|text| text == "precious");
        let kind = fs::symlink_metadata(path).expect("it is there").file_type();
        let nobody_came = match kept {
            Kept::Stream(listener) => {
                listener.set_nonblocking(true).expect("fcntl");
                // It may be looked at whether it is served.
                listener
                    .accept()
                    .is_ok_and(|(mut peer, _)| peer.read(&mut [0]).is_ok_and(|count| count == 0))
                    || self == Self::LinkToSocket
            }
            Kept::Datagram(socket) => {
                socket.set_nonblocking(true).expect("fcntl");
                socket.recv(&mut [0]).is_err()
            }
            Kept::Nothing => true,
        };
        let target = other.path().join("target");
        nobody_came
            && match self {
                Self::File => is_precious(path),
                Self::LinkToFile => kind.is_symlink() && is_precious(&target),
                Self::LinkToNothing => kind.is_symlink() && !other.path().join("nothing").exists(),
                Self::LinkToSocket => kind.is_symlink() && target.exists(),
                Self::Directory => kind.is_dir(),
                Self::Pipe => kind.is_fifo(),
                Self::Served | Self::ServedOfAnotherType => kind.is_socket(),
            }
    }
}

/// Starts it where something is in the way: it refuses, and says of what.
#[track_caller]
fn refuses(daemon: &Daemon, path: &Path, what: &str) {
    let mut command = daemon.command();
    command.arg("run");
    let refused = run(command, SOON);
    assert_eq!(refused.code, 71, "{what}: {refused}");
    assert_eq!(refused.stderr.lines().count(), 1, "one line: {refused}");
    let name = path.display().to_string();
    assert!(refused.stderr.contains(&name), "{what}: {refused}");
}

#[test]
fn what_the_daemon_did_not_leave_at_its_path_is_neither_followed_nor_removed() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("");
        assert_eq!(daemon.terminate(), 0);
        for name in ["control.sock", "observe.sock"] {
            let path = socket(&daemon, name);
            for thing in Thing::ALL {
                let _ = fs::remove_file(&path);
                let other = TempDir::new();
                let kept = thing.put(&path, &other);
                refuses(&daemon, &path, &format!("{thing:?}"));
                assert!(thing.is_whole(&path, &other, &kept), "{name}: {thing:?}");
                let removed = match thing {
                    Thing::Directory => fs::remove_dir(&path),
                    _ => fs::remove_file(&path),
                };
                removed.expect("what we put there");
            }
        }
        // Its lock is a file of its own, never by a link, and no pipe's end is waited for.
        let (lock, other) = (socket(&daemon, "lock"), TempDir::new());
        for thing in [Thing::LinkToFile, Thing::LinkToNothing, Thing::Pipe] {
            fs::remove_file(&lock).expect("the one before");
            let kept = thing.put(&lock, &other);
            let directory = lock.parent().expect("a directory");
            refuses(&daemon, directory, &format!("{thing:?}"));
            assert!(thing.is_whole(&lock, &other, &kept), "lock: {thing:?}");
        }
        fs::remove_file(&lock).expect("the one before");
        // What it left itself, killed in whatever state, is no hindrance.
        daemon.start_again();
        daemon.kill();
        assert!(socket(&daemon, "control.sock").exists(), "the control");
        daemon.start_again();
        daemon.cli(&["open", "--lease", "a"]).success();
    });
}

#[test]
fn another_accounts_socket_is_neither_stolen_nor_trusted() {
    inside_with_users(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("");
        assert_eq!(daemon.terminate(), 0);
        let directory = daemon.runtime_dir();
        // As of a directory that was made too wide.
        let wide = |mode| {
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("our own");
        };
        wide(0o777);
        let heard = Arc::new(AtomicUsize::new(0));
        for name in ["control.sock", "observe.sock"] {
            let (path, heard) = (socket(&daemon, name), Arc::clone(&heard));
            let _ = fs::remove_file(&path);
            let listening = beside_as(STRANGER, {
                let path = path.clone();
                move || UnixListener::bind(path).expect("anybody may write there")
            });
            let listener = listening.join().expect("no panic");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("we are root");
            // It says yes to everything, to whoever trusts it. It ends with the test's process.
            std::thread::spawn(move || {
                for mut caller in listener.incoming().flatten() {
                    let mut request = [0; 4096];
                    let _ = caller.set_read_timeout(Some(Duration::from_millis(200)));
                    if let Ok(count) = caller.read(&mut request) {
                        heard.fetch_add(count, Ordering::Relaxed);
                    }
                    let _ = caller.write_all(b"{\"version\":1,\"code\":0,\"message\":\"open\"}\n");
                }
            });
        }
        wide(0o755);
        refuses(
            &daemon,
            &socket(&daemon, "control.sock"),
            "a stranger's socket",
        );
        for arguments in [
            &["open", "--lease", "a"][..],
            &["close", "--lease", "a"],
            &["answer", "add", "a.example.com", ANSWER],
            &["report"],
            &["watch"],
            &["exec", "--", "true"],
            &["status"],
            &["metrics"],
        ] {
            let refused = daemon.cli(arguments);
            assert_eq!(refused.code, 69, "{arguments:?}: {refused}");
            let said = "is served by uid 21003, neither root's nor whose its directory is";
            assert!(refused.stderr.contains(said), "{arguments:?}: {refused}");
            assert_eq!(refused.stderr.lines().count(), 1, "one line: {refused}");
        }
        // Its own programs may believe it.
        let own = directory.clone();
        let believes = beside_as(STRANGER, move || client::is_running(own.as_ref()));
        assert!(believes.join().expect("no panic"), "who serves it himself");
        assert!(!client::is_running(directory.as_ref()), "root");
        assert_eq!(heard.load(Ordering::Relaxed), 0, "not one octet was told");
        // Nor one that nobody serves any more is removed for its owner.
        for name in ["control.sock", "observe.sock"] {
            fs::remove_file(socket(&daemon, name)).expect("we are root");
        }
        let path = socket(&daemon, "control.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        std::os::unix::fs::chown(&path, Some(STRANGER), None).expect("we are root");
        refuses(&daemon, &path, "a stranger's leftover");
        fs::remove_file(&path).expect("we are root");
        // The directory's owner is who the service manager made it for.
        std::os::unix::fs::chown(&directory, Some(STRANGER), None).expect("we are root");
        let listening = beside_as(STRANGER, {
            let path = path.clone();
            move || UnixListener::bind(path).expect("its own directory")
        });
        let listener = listening.join().expect("no panic");
        let answering = std::thread::spawn(move || {
            let (mut caller, _) = listener.accept().expect("a caller");
            let _ = caller.read(&mut [0; 4096]);
            let _ = caller.write_all(b"{\"version\":1,\"code\":75,\"message\":\"heard you\"}\n");
        });
        let heard = daemon.cli(&["close", "--lease", "a"]);
        assert_eq!(heard.code, 75, "{heard}");
        answering.join().expect("no panic");
    });
}

#[test]
fn what_is_no_socket_is_no_daemon() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("");
        assert_eq!(daemon.terminate(), 0);
        let path = socket(&daemon, "observe.sock");
        for thing in [
            Thing::File,
            Thing::LinkToFile,
            Thing::LinkToNothing,
            Thing::Directory,
            Thing::Pipe,
        ] {
            let _ = fs::remove_file(&path);
            let other = TempDir::new();
            let kept = thing.put(&path, &other);
            let refused = daemon.cli(&["status"]);
            assert_eq!(refused.code, 69, "{thing:?}: {refused}");
            assert!(refused.stderr.contains("not running"), "{refused}");
            assert!(thing.is_whole(&path, &other, &kept), "{thing:?}");
            if thing == Thing::Directory {
                fs::remove_dir(&path).expect("what we put there");
            }
        }
    });
}
