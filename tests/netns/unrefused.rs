//! What the seals refuse while the daemon lives a mixed life, as strace sees it: nothing but what is known, and known
//! to do no harm. A library that comes to need another system call in a rare path shows here.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host};
use crate::kernel::nft;
use crate::lab::{Daemon, TempDir, inside, wait_for};

/// strace makes every call some ten times as long.
const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const HELLO: &[u8] = include_bytes!("../data/hello/curl.bin");
/// Refused, and good for that: the call, a part of its arguments, and why nobody misses it.
const KNOWN: [(&str, &str, &str); 11] = [
    (
        "clone3",
        "",
        "glibc falls back to clone(2), whose flags a filter can read",
    ),
    (
        "shutdown",
        "SHUT_WR",
        "the last thing that enforcer and historian do to their socket pair",
    ),
    (
        "openat",
        "/dev/urandom",
        "SQLite's seed for names and nonces; the time and the pid do",
    ),
    ("open", "/dev/urandom", "the same, by musl"),
    (
        "fcntl",
        "F_SETFD, FD_CLOEXEC",
        "musl says twice of a copy that no program inherits it; F_DUPFD_CLOEXEC did",
    ),
    (
        "openat",
        "/proc/sys/vm/overcommit_memory",
        "glibc before it gives a part of a thread's heap back; madvise(2) does",
    ),
    (
        "prctl",
        "0x41555856",
        "rustix looks for the vDSO; clock_gettime(2) does",
    ),
    ("open", "/proc/self/auxv", "the same"),
    ("openat", "/proc/self/auxv", "the same, on aarch64"),
    (
        "fchown",
        "",
        "SQLite of root, whom it is only in tests; owners are right when files are made",
    ),
    (
        "setsockopt",
        "BUFFORCE",
        "the kernel's own answer in a user namespace: for sending, and on Linux 6.1 for receiving",
    ),
];

#[test]
fn nothing_that_the_processes_need_is_refused_to_them() {
    inside(|| {
        let host = Host::new();
        let ground = TempDir::new();
        let server = serve();
        let text = life(&ground, server);
        let seen = ground.at("refused");
        let strace = [
            "strace",
            "-f",
            // Both lives into one file: without it the second one is all that is left to look at.
            "-A",
            "-qq",
            "-Z",
            "-e",
            "signal=none",
            "-o",
            &seen,
        ];
        let mut daemon = Daemon::with(&text).under(&strace).start();

        open_and_validate(&host, &daemon);
        stand_still(&daemon);
        reload(&daemon, &ground, &text);
        nft(&["flush", "ruleset"]);
        wait_for(SOON, "the table is back", || {
            let table = nft(&["list", "tables"]);
            table.contains("acmegate").then_some(())
        });
        while_somebody_has_the_database(&daemon, || {
            for lease in ["a", "b"] {
                daemon.cli(&["close", "--lease", lease]);
            }
        });
        wait_for(SOON, "windows are history", || {
            let told = daemon.cli(&["report", "--json"]).success().stdout;
            (told.lines().count() >= 2).then_some(())
        });
        for words in [
            &["status", "--security"][..],
            &["metrics"],
            &["doctor", "--only", "daemon"],
        ] {
            daemon.cli(words);
        }
        ground.write("lists/office", "203.0.113.0/24\n");
        assert_eq!(daemon.end_by(Signal::USR1), 0);
        daemon.start_again();
        assert_eq!(daemon.terminate(), 0);

        let seen = fs::read_to_string(&seen).expect("what strace wrote");
        let refused: Vec<&str> = seen.lines().filter(|line| is_refusal(line)).collect();
        // The historian's, once in each life: strace has seen both.
        let seeds = refused.iter().filter(|line| line.contains("/dev/urandom"));
        assert!(seeds.count() >= 2, "{seen}");
        let unknown = refused.iter().filter(|line| {
            let is_known = |(call, part, _): &(&str, &str, &str)| {
                let words = line
                    .split_once(' ')
                    .map_or("", |(_, words)| words.trim_start());
                words.starts_with(&format!("{call}(")) && line.contains(part)
            };
            !KNOWN.iter().any(is_known)
        });
        let unknown: Vec<_> = unknown.collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
    });
}

/// Whether the answer is one of a seal's: of a filter, or of landlock.
fn is_refusal(line: &str) -> bool {
    [" EPERM (", " EACCES (", " ENOSYS ("]
        .iter()
        .any(|error| line.contains(error))
}

/// A configuration in which everybody has work.
fn life(ground: &TempDir, server: u16) -> String {
    for name in ["lists", "zones", "webroot/.well-known/acme-challenge"] {
        fs::create_dir_all(ground.path().join(name)).expect("a directory of our own");
    }
    ground.write("lists/office", "203.0.113.0/24\n");
    ground.write("zones/li.zone", "198.51.100.0/24\n");
    let token = format!("webroot/.well-known/acme-challenge/{TOKEN}");
    ground.write(&token, &format!("{TOKEN}.{THUMBPRINT}"));
    format!(
        "[http]\nlisten = [\"[::]:80\"]\n\
         [tls]\nlisten = [\"[::]:443\"]\nserver = {{ address = \"127.0.0.1:{server}\", proxy_protocol = \"v2\" }}\n\
         [window]\nclose_early = \"tokens\"\nsettle = \"1s\"\n\
         [allow]\nfiles = [\"{lists}/office\"]\ncountries = [\"LI\"]\ncountry_source = \"{zones}\"\n\
         [metrics]\nlisten = [\"127.0.0.1:9402\"]\n\
         [report]\nmax_bytes = \"8MiB\"\n\
         [notify]\nwebhook = \"http://127.0.0.1:{server}/hook\"\nwhen = [\"always\"]\ncommand = [\"cat\"]\n\
         [[site]]\nidentifiers = [\"u.example.com\"]\nanswer = {{ upstream = \"http://127.0.0.1:{server}\" }}\n\
         [[site]]\nidentifiers = [\"p.example.com\"]\nanswer = \"pushed\"\n\
         [[site]]\nidentifiers = [\"w.example.com\"]\nanswer = {{ webroot = \"{webroot}\" }}\n",
        lists = ground.at("lists"),
        zones = ground.at("zones"),
        webroot = ground.at("webroot"),
    )
}

/// Whoever connects is told something, and hears more than a pipe's worth.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            std::thread::spawn(move || {
                let mut peer = peer.expect("a peer");
                let _ = peer.read(&mut [0; 4096]);
                let body = "x".repeat(200_000);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = peer.write_all((head + &body).as_bytes());
            });
        }
    });
    port
}

fn open_and_validate(host: &Host, daemon: &Daemon) {
    daemon
        .cli(&["open", "--lease", "a", "--for", "1m"])
        .success();
    let named = ["open", "--lease", "b", "--identifier", "w.example.com"];
    daemon.cli(&named).success();
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    daemon
        .cli(&["answer", "add", "p.example.com", &answer])
        .success();
    for name in ["u", "p", "w", "unknown"] {
        for address in [HOST_4, HOST_6] {
            let request = format!(
                "GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: {name}.example.com\r\n\
                 Connection: close\r\n\r\n"
            );
            tell(host.connect(address, 80), request.as_bytes());
        }
    }
    tell(host.connect(HOST_4, 80), b"GET / HT");
    tell(host.connect(HOST_PRIVATE, 443), b"not TLS");
    // A visitor, who is led to the server.
    tell(host.connect(HOST_PRIVATE, 443), HELLO);
    let scrape = TcpStream::connect("127.0.0.1:9402").expect("figures are shown");
    tell(
        scrape,
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    daemon.cli(&["answer", "remove", "p.example.com", TOKEN]);
}

/// Says it, and hears the answer to its end.
fn tell(mut peer: TcpStream, words: &[u8]) {
    peer.set_read_timeout(Some(SOON)).expect("a socket");
    // Whoever is refused may hear of it before the end.
    let _ = peer.write_all(words);
    let _ = peer.shutdown(Shutdown::Write);
    let _ = peer.read_to_end(&mut Vec::new());
}

/// Stopped and told to go on, whoever waited for a time goes on waiting by restart_syscall(2).
fn stand_still(daemon: &Daemon) {
    daemon.signal(Signal::STOP);
    daemon.signal(Signal::CONT);
}

/// A backup, or somebody's look by sqlite3: the historian waits for a while.
fn while_somebody_has_the_database(daemon: &Daemon, work: impl FnOnce()) {
    let database = format!("{}/history/history.db", daemon.state_dir());
    let somebody = rusqlite::Connection::open(database).expect("there is one");
    somebody
        .execute_batch("BEGIN EXCLUSIVE")
        .expect("nobody else has it");
    work();
    let call = match cfg!(target_env = "musl") {
        true => libc::SYS_nanosleep,
        false => libc::SYS_clock_nanosleep,
    };
    let waits = format!("{call} ");
    let does = format!("/proc/{}/syscall", daemon.historian());
    wait_for(SOON, "the historian waits for it", || {
        let does = fs::read_to_string(&does).expect("our own process");
        does.starts_with(&waits).then_some(())
    });
}

/// A good one, a bad one, one whose list is gone.
fn reload(daemon: &Daemon, ground: &TempDir, text: &str) {
    let reloads = |words: &str, count: usize| {
        daemon.signal(Signal::HUP);
        wait_for(SOON, words, || {
            (daemon.log().matches(words).count() >= count).then_some(())
        });
    };
    let new = ground.write("lists/new", "203.0.113.0/25\n");
    fs::rename(new, ground.path().join("lists/office")).expect("a file of our own");
    daemon.write_config(&text.replace("settle = \"1s\"", "settle = \"2s\""));
    reloads("configuration reloaded", 1);
    daemon.write_config("[http]\nno_such_key = 1\n");
    reloads("no_such_key", 1);
    daemon.write_config(text);
    fs::remove_file(ground.path().join("lists/office")).expect("a file of our own");
    reloads("configuration reloaded", 2);
}

/// As under a TasksMax= that is too low; strace answers in the kernel's place.
#[test]
fn no_room_for_threads_is_said_in_one_line() {
    inside(|| {
        let no_room = "inject=clone:error=EAGAIN:when=3+";
        let strace = [
            "strace",
            "-f",
            // Both lives into one file: without it the second one is all that is left to look at.
            "-A",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=clone",
            "-e",
            no_room,
        ];
        let refused = Daemon::with("").under(&strace).refuse();
        assert_eq!(refused.code, 71, "{refused}");
        assert!(refused.stderr.contains("raise TasksMax="), "{refused}");
        assert!(!refused.stderr.contains("panicked"), "{refused}");
    });
}
