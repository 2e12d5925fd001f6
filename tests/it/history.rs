//! The historian as a process: what it acknowledged is there whatever becomes of it, and nobody waits for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use acmegate::daemon::history::{DEADLINE, History, HistoryError};
use acmegate::observe::history::message::{Ask, Query, Reply};
use acmegate::observe::record::{
    MAX_OTHER_VISITS, MAX_SOURCES, MAX_VALIDATIONS, Record, Region, Role, Source, Visit,
};
use rusqlite::Connection;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::lab::historian::{Historian, beside, config, ended, now, window};
use crate::lab::{BINARY, Daemon, Numbers, TempDir, send, wait_for};

/// What is promised to callers, and what a busy machine adds.
const IN_TIME: Duration = DEADLINE.saturating_add(Duration::from_secs(1));

/// A daemon that needs nothing of the host.
const WINDOWS_ONLY: &str =
    "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n";

/// How often it is killed: `ACMEGATE_FULL=1` for a thousand times.
fn rounds() -> u64 {
    match std::env::var_os("ACMEGATE_FULL") {
        Some(_) => 1000,
        None => 40,
    }
}

#[test]
fn a_thousand_kills_during_writes_lose_nothing_that_was_acknowledged() {
    let directory = TempDir::new();
    let config = config(&directory, "max_bytes = \"1GiB\"");
    let mut numbers = Numbers(0x5eed_ac3e_9a7e_0005);
    let mut acknowledged: BTreeMap<u64, Record> = BTreeMap::new();
    let (mut opened_at, mut cut) = (now(), 0);
    for round in 0..rounds() {
        let mut historian = Historian::start(&config);
        let mut last = None;
        // It serves.
        historian.find(Query::Last);
        // What the one before acknowledged at last is there for this one.
        for (number, record) in acknowledged.iter().rev().take(3) {
            let found = historian.find(Query::Number(*number)).records;
            assert_eq!(found.iter().collect::<Vec<_>>(), [record], "round {round}");
        }
        let delay = Duration::from_micros(numbers.below(150_000));
        let pid = historian.child.id();
        let begun = Instant::now();
        let killing = std::thread::spawn(move || {
            // Spins: a sleep would kill it between writes more often than in their midst.
            while begun.elapsed() < delay {
                std::hint::spin_loop();
            }
            send(pid, Signal::KILL);
        });
        loop {
            opened_at += 1;
            let mut record = window("certbot", opened_at);
            record.beside = vec!["x".repeat(300); 1 + numbers.at(40)];
            let mut store =
                |record: &Record| match historian.ask(Ask::Store(Box::new(record.clone()))) {
                    Ok(answer) => match answer.reply {
                        Reply::Stored(stored) => Some(*stored),
                        other => panic!("{other:?}"),
                    },
                    Err(_) => None,
                };
            let Some(open) = store(&record) else { break };
            let done = ended(open.clone());
            acknowledged.insert(open.number.expect("a number"), open);
            last = Some(done.clone());
            let Some(done) = store(&done) else { break };
            acknowledged.insert(done.number.expect("a number"), done);
            last = None;
        }
        killing.join().expect("it kills");
        historian.ended();
        // What was under way may be there or not, but nothing else.
        if let Some(under_way) = last {
            cut += 1;
            let mut historian = Historian::start(&config);
            let number = under_way.number.expect("a number");
            let found = historian.find(Query::Number(number)).records.remove(0);
            assert!(
                found == under_way || acknowledged[&number] == found,
                "{found:?}"
            );
            acknowledged.insert(number, found);
        }
    }
    assert!(
        acknowledged.len() as u64 > rounds() / 2,
        "{}",
        acknowledged.len()
    );
    assert!(cut > 0, "no kill fell into the midst of a window");
    drop(Historian::start(&config).find(Query::Last));
    let state = directory.path().join("state/history");
    check_from_outside(&state, &acknowledged);
    // Nothing was ever put aside.
    let mut names: Vec<_> = fs::read_dir(&state)
        .expect("our own directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["history.db", "history.db-journal"]);
}

fn check_from_outside(state: &Path, acknowledged: &BTreeMap<u64, Record>) {
    let file = Connection::open(state.join("history.db")).expect("a database");
    let text = |sql: &str| -> String {
        file.query_row(sql, [], |row| row.get(0))
            .expect("an answer")
    };
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(
        text("PRAGMA journal_mode"),
        "delete",
        "no file of another owner comes into being"
    );
    let mut statement = file
        .prepare("SELECT number, record FROM windows")
        .expect("the table");
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    });
    let kept: BTreeMap<u64, Record> = rows
        .expect("rows")
        .map(|row| row.expect("a row"))
        .map(|(number, text)| {
            (
                number as u64,
                serde_json::from_str(&text).expect("a record"),
            )
        })
        .collect();
    for (number, record) in acknowledged {
        assert_eq!(kept.get(number), Some(record));
    }
}

#[test]
fn garbage_ends_it_and_harms_nothing() {
    let directory = TempDir::new();
    let config = config(&directory, "");
    let stored = Historian::start(&config).store(&window("a", now()));
    let too_long = [&(1024u32 * 1024 + 1).to_be_bytes()[..], b"{}"].concat();
    let deep = "[".repeat(100_000);
    let store_garbage = br#"{"id":1,"ask":{"store":{"version":"x"}}}"#;
    let framed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    for garbage in [
        vec![0xff; 64],
        vec![0; 4],
        too_long,
        framed(b"{"),
        framed(b"\xff\xfe"),
        framed(deep.as_bytes()),
        framed(store_garbage),
        framed(br#"{"id":1,"ask":"look","more":1}"#),
        framed(br#"{"id":-1,"ask":"look"}"#),
    ] {
        let mut historian = Historian::start(&config);
        historian.socket.write_all(&garbage).expect("it listens");
        historian.ended();
        assert_eq!(historian.child.wait().expect("our own").code(), Some(0));
    }
    // Half a message, and then nobody.
    let mut historian = Historian::start(&config);
    historian.socket.write_all(&[0, 0, 1]).expect("it listens");
    let shut = historian.socket.shutdown(std::net::Shutdown::Both);
    shut.expect("our own socket");
    historian.ended();
    let found = Historian::start(&config).find(Query::Last).records;
    assert_eq!(found, [stored]);
}

#[test]
fn what_is_beyond_bounds_is_refused_and_the_next_is_kept() {
    let directory = TempDir::new();
    let mut historian = Historian::start(&config(&directory, ""));
    let good = window("a", now());
    let mut bad = vec![good.clone(); 7];
    bad[0].lease = "x".repeat(41);
    bad[1].families = vec!["ipv4".to_owned(); 3];
    bad[2].holder = Some("x".repeat(5000));
    bad[3].opened_at = u64::MAX;
    bad[4].number = Some(u64::MAX);
    bad[5].beside = vec![String::new(); 2000];
    let visit = Visit {
        at: 0,
        port: 80,
        verdict: String::new(),
        reason: String::new(),
        challenge: None,
        identifier: None,
        token: None,
        status: None,
        octets: 0,
        took: 0,
        detail: None,
    };
    bad[6].sources = vec![Source {
        visits: vec![visit; MAX_VALIDATIONS + MAX_SOURCES * MAX_OTHER_VISITS + 1],
        ..source("192.0.2.1")
    }];
    for record in bad {
        let answer = historian.ask(Ask::Store(Box::new(record.clone())));
        let reply = answer.expect("it goes on").reply;
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    }
    assert_eq!(historian.store(&good).number, Some(1));
}

#[test]
fn open_windows_go_on_in_the_file_that_takes_a_damaged_ones_place() {
    let directory = TempDir::new();
    let mut historian = Historian::start(&config(&directory, ""));
    let [a, b] = ["a", "b"].map(|lease| historian.store(&window(lease, now())));
    assert_eq!((a.number, b.number), (Some(1), Some(2)));
    let file = directory.path().join("state/history/history.db");
    fs::write(file, "no database at all".repeat(1000)).expect("our own file");
    // The first number of the new file is b's then, which a brings from the old one.
    let [b, a] = [b, a].map(|record| historian.store(&record));
    assert_eq!((b.number, a.number), (Some(1), Some(2)));
    let kept = historian.find(Query::Open).records;
    let leases: Vec<&str> = kept.iter().map(|record| record.lease.as_str()).collect();
    assert_eq!(leases, ["b", "a"]);
}

#[test]
fn nobody_else_can_look_at_it_whatever_the_umask() {
    for umask in ["000", "777", "027"] {
        let directory = TempDir::new();
        let config = config(&directory, "");
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh", BINARY])
            .args(["historian", "--config", &config]);
        Historian::start_by(command).store(&window("a", now()));
        let state = directory.path().join("state/history");
        let mode = |path: &Path| {
            let found = fs::metadata(path).expect("it is there");
            found.permissions().mode() & 0o7777
        };
        assert_eq!(mode(&state), 0o700, "umask {umask}");
        for name in ["history.db", "history.db-journal"] {
            assert_eq!(mode(&state.join(name)), 0o600, "umask {umask}, {name}");
        }
        // What somebody opened up is shut again at the next start.
        for (path, open) in [(&state, 0o755), (&state.join("history.db"), 0o644)] {
            fs::set_permissions(path, fs::Permissions::from_mode(open)).expect("our own");
        }
        Historian::start(&config).find(Query::Last);
        assert_eq!(
            (mode(&state), mode(&state.join("history.db"))),
            (0o700, 0o600)
        );
    }
}

#[test]
fn a_link_in_the_place_of_the_directory_is_not_followed() {
    let directory = TempDir::new();
    let config = config(&directory, "");
    fs::create_dir(directory.path().join("elsewhere")).expect("our own directory");
    std::os::unix::fs::symlink(directory.at("elsewhere"), directory.at("state/history"))
        .expect("a link of our own");
    let mut historian = Historian::start(&config);
    let answer = historian.ask(Ask::Store(Box::new(window("a", now()))));
    let answer = answer.expect("it goes on");
    assert!(matches!(answer.reply, Reply::Failed(_)), "{answer:?}");
    assert!(
        answer.health.problems[0].contains("no directory of this account"),
        "{answer:?}"
    );
    assert_eq!(
        fs::read_dir(directory.path().join("elsewhere"))
            .expect("it")
            .count(),
        0
    );
}

#[test]
fn places_come_from_databases_and_a_new_one_is_noticed() {
    let directory = TempDir::new();
    let data = |name: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lists/mmdb/");
        fs::read(format!("{path}{name}")).expect("test data")
    };
    fs::create_dir(directory.path().join("geo")).expect("our own directory");
    let put = |bytes: &[u8]| {
        fs::write(directory.at("geo/new"), bytes).expect("our own file");
        fs::rename(directory.at("geo/new"), directory.at("geo/country.mmdb")).expect("our own");
    };
    put(b"no database");
    let report = format!(
        "databases = [\"{}\", \"{}\"]",
        directory.at("geo/country.mmdb"),
        directory.at("geo/missing.mmdb")
    );
    let mut historian = Historian::start(&config(&directory, &report));
    let came_from = |opened_at: u64, addresses: &[&str]| Record {
        sources: addresses.iter().map(|address| source(address)).collect(),
        ..window("a", opened_at)
    };
    let stored = historian.store(&came_from(now(), &["198.51.100.7"]));
    assert_eq!(stored.sources[0].place, None);
    let health = historian.ask(Ask::Look).expect("it goes on").health;
    assert_eq!(health.problems.len(), 2, "{health:?}");
    assert!(
        health.problems[0].contains("country.mmdb") && health.problems[1].contains("missing.mmdb")
    );

    put(&data("geolite-28.mmdb"));
    let stored = historian.store(&came_from(
        now() + 1,
        &["198.51.100.7", "192.0.2.1", "10.0.0.1"],
    ));
    let countries: Vec<_> = stored
        .sources
        .iter()
        .map(|source| {
            let place = source.place.as_ref();
            place.map(|place| (place.country.as_deref().unwrap_or("-"), place.region))
        })
        .collect();
    let ripe = Some(Region::Ripe);
    assert_eq!(countries, [Some(("LI", ripe)), Some(("CH", ripe)), None]);
    assert_eq!(historian.find(Query::Last).records, [stored]);
    let health = historian.ask(Ask::Look).expect("it goes on").health;
    assert_eq!(health.problems.len(), 1, "{health:?}");
}

fn source(address: &str) -> Source {
    Source {
        address: address.parse().expect("an address"),
        network: "198.51.0.0/16".to_owned(),
        place: None,
        role: Role::Validator,
        first: 0,
        packets: 1,
        reached: true,
        dropped: None,
        visits: Vec::new(),
        more_visits: 0,
        then: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_historian_that_stands_still_holds_nobody_up_and_catches_up() {
    let directory = TempDir::new();
    let mut command = Command::new(BINARY);
    command.args(["historian", "--config", &config(&directory, "")]);
    let (socket, child) = beside(command);
    socket.set_nonblocking(true).expect("our own socket");
    let pid = child.id();
    let (history, carrying) = History::new(socket, child).expect("a socket");
    let carrying = tokio::spawn(carrying);
    let first = history
        .store(&window("first", now()))
        .await
        .expect("stored");
    assert_eq!(first.number, Some(1));

    send(pid, Signal::STOP);
    let begun = Instant::now();
    let late = history.store(&ended(first)).await;
    assert_eq!(late, Err(HistoryError::Late));
    assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
    // From then on nobody waits at all.
    let begun = Instant::now();
    for number in 0..100 {
        let late = history.store(&window("more", now() + number)).await;
        assert_eq!(late, Err(HistoryError::Late));
    }
    assert_eq!(history.query(&Query::Last).await, Err(HistoryError::Late));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    let health = history.health();
    assert_eq!(health.unsaved, 64);
    assert!(health.problems[0].contains("does not answer"), "{health:?}");
    assert!(
        health.problems[1].starts_with("37 windows could not be kept"),
        "{health:?}"
    );

    send(pid, Signal::CONT);
    // What was under way is written, and the newest of the rest, without another word.
    let all = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let found = history.query(&Query::Since(0)).await;
            match found {
                Ok(found) if history.health().unsaved == 0 => return found.records,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let all = all.await.expect("it catches up");
    assert!(all[0].end.is_some(), "{:?}", all[0]);
    assert_eq!(all.len(), 65);
    assert!(
        history
            .health()
            .problems
            .iter()
            .all(|problem| !problem.contains("answer"))
    );

    send(pid, Signal::KILL);
    let gone = tokio::time::timeout(IN_TIME, carrying).await;
    gone.expect("it is noticed").expect("it ends");
    assert_eq!(
        history.store(&window("b", now())).await,
        Err(HistoryError::Gone)
    );
    assert!(
        history.health().problems[0].contains("restart"),
        "{:?}",
        history.health()
    );
}

#[tokio::test]
async fn what_waits_is_handed_over_before_the_end() {
    let directory = TempDir::new();
    let config = config(&directory, "");
    // A file that no historian can use, until it is taken away.
    fs::create_dir_all(directory.path().join("state/history/history.db")).expect("our own");
    let mut command = Command::new(BINARY);
    command.args(["historian", "--config", &config]);
    let (socket, child) = beside(command);
    socket.set_nonblocking(true).expect("our own socket");
    let (history, carrying) = History::new(socket, child).expect("a socket");
    let carrying = tokio::spawn(carrying);
    let failed = history.store(&window("a", now())).await;
    assert!(matches!(failed, Err(HistoryError::Failed(_))), "{failed:?}");
    assert_eq!(history.health().unsaved, 1);
    fs::remove_dir(directory.path().join("state/history/history.db")).expect("our own");
    history.finish().await;
    let ends = tokio::time::timeout(IN_TIME, carrying).await;
    ends.expect("it ends").expect("it ends");
    let found = Historian::start(&config).find(Query::Last).records;
    assert_eq!(found[0].lease, "a");
}

#[test]
fn what_is_no_file_of_its_own_is_named_and_may_be_moved_away() {
    let directory = TempDir::new();
    let config = config(&directory, "");
    let file = directory.path().join("state/history/history.db");
    fs::create_dir_all(directory.path().join("state/history")).expect("our own");
    let make: [fn(&Path); 3] = [
        |file| fs::create_dir(file).expect("our own"),
        |file| std::os::unix::fs::symlink("/dev/null", file).expect("our own"),
        |file| mknodat(CWD, file, FileType::Fifo, Mode::RWXU, 0).expect("our own"),
    ];
    for make in make {
        make(&file);
        let mut historian = Historian::start(&config);
        let mut store = || {
            let window = Box::new(window("a", now()));
            historian.ask(Ask::Store(window)).expect("it goes on").reply
        };
        let Reply::Failed(why) = store() else {
            panic!("stored in what is no file");
        };
        assert!(
            why.ends_with("history.db is no regular file of this account: move it away"),
            "{why}"
        );
        fs::rename(&file, directory.path().join("away")).expect("our own");
        let stored = store();
        assert!(matches!(stored, Reply::Stored(_)), "{stored:?}");
        fs::remove_file(&file).expect("our own");
        let away = directory.path().join("away");
        let removed = fs::remove_file(&away).or_else(|_| fs::remove_dir(&away));
        removed.expect("our own");
    }
}

#[test]
fn the_daemon_goes_on_without_its_historian_and_says_so() {
    let daemon = Daemon::start(WINDOWS_ONLY);
    assert!(daemon.status()["history"]["records"].is_u64());
    send(daemon.historian(), Signal::KILL);
    wait_for(Duration::from_secs(10), "the status says so", || {
        let problems = daemon.status()["problems"].to_string();
        problems.contains("the historian is gone").then_some(())
    });
    daemon.cli(&["open", "--lease", "a"]).success();
    daemon.cli(&["close", "--lease", "a"]).success();
}

#[test]
fn without_a_history_there_is_no_process_and_no_file() {
    let daemon = Daemon::start(&format!("{WINDOWS_ONLY}[report]\nhistory = false\n"));
    assert!(daemon.status()["history"].is_null());
    assert_eq!(daemon.status()["problems"], serde_json::json!([]));
    let history = Path::new(daemon.state_dir()).join("history");
    assert!(!history.exists());
}
