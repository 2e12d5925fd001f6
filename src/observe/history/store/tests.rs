//! The file on a real disk: what is kept, what goes, and what becomes of files that are not as they should be.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::observe::record::{Role, Source};

const DAY: u64 = 24 * 3600 * 1000;
const NOW: u64 = 20_620 * DAY;

struct Ground(PathBuf);

impl Ground {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("acmegate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        Self(directory.canonicalize().unwrap())
    }

    fn open(&self) -> Store {
        Store::open(&self.0, settings(), at(NOW)).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.0.join("history.db")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings() -> Settings {
    Settings {
        keep: Duration::from_millis(90 * DAY),
        max_bytes: 8 * 1024 * 1024,
        databases: Vec::new(),
    }
}

/// A clock that goes by itself.
fn at(now: u64) -> Clock {
    Clock {
        now,
        ran: Duration::from_secs(1),
    }
}

fn window(lease: &str, opened_at: u64) -> Record {
    Record {
        version: 1,
        lease: lease.to_owned(),
        opened_at,
        deadline: 600_000,
        ..Record::default()
    }
}

fn ended(record: &Record) -> Record {
    Record {
        end: Some(End {
            by: EndedBy::Close,
            at: 9000,
            late: 0,
        }),
        ..record.clone()
    }
}

fn source(number: u32) -> Source {
    let address = Ipv4Addr::from_bits(0x0a00_0000 + number);
    Source {
        address: address.into(),
        network: format!("10.{}.0.0/16", address.octets()[1]),
        place: None,
        role: Role::Validator,
        first: 12,
        packets: 1,
        reached: true,
        dropped: None,
        visits: Vec::new(),
        more_visits: 0,
        then: None,
    }
}

fn numbers(store: &Store, query: &Query) -> Vec<u64> {
    let found = store.find(query).unwrap();
    found
        .records
        .iter()
        .map(|own| own.number.unwrap())
        .collect()
}

#[test]
fn what_is_stored_is_found_in_every_way() {
    let ground = Ground::new("found");
    let mut store = ground.open();
    let first = window("certbot", NOW - 3 * DAY);
    assert_eq!(store.store(&first, at(NOW)), Ok(1));
    assert_eq!(store.store(&window("lego", NOW - 2 * DAY), at(NOW)), Ok(2));
    assert_eq!(store.store(&window("certbot", NOW - DAY), at(NOW)), Ok(3));
    drop(store);
    // By whoever opens it next.
    let store = ground.open();
    let found = store.find(&Query::Number(1)).unwrap();
    let numbered = Record {
        number: Some(1),
        ..first
    };
    assert_eq!((found.records, found.left_off), (vec![numbered], 0));
    for (query, expected) in [
        (Query::Last, &[3][..]),
        (Query::LastOf("lego".to_owned()), &[2]),
        (Query::LastOf("certbot".to_owned()), &[3]),
        (Query::LastOf("' OR 1 --".to_owned()), &[]),
        (Query::Since(NOW - 2 * DAY), &[2, 3]),
        (Query::Since(u64::MAX), &[]),
        (Query::Number(u64::MAX), &[]),
        (Query::Open, &[1, 2, 3]),
    ] {
        assert_eq!(numbers(&store, &query), expected, "{query:?}");
    }
    let health = store.health().unwrap();
    assert_eq!((health.records, health.oldest), (3, Some(NOW - 3 * DAY)));
    assert_eq!(health.bytes, fs::metadata(ground.file()).unwrap().len());
}

#[test]
fn one_window_is_one_record_however_often_it_comes() {
    let ground = Ground::new("once");
    let mut store = ground.open();
    let open = window("certbot", NOW);
    assert_eq!(store.store(&open, at(NOW)), Ok(1));
    // Its number was never heard, because the answer came too late.
    assert_eq!(store.store(&ended(&open), at(NOW)), Ok(1));
    assert!(numbers(&store, &Query::Open).is_empty());
    let other = Record { caller: 7, ..open };
    assert_eq!(store.store(&other, at(NOW)), Ok(2));
    let last = Record {
        number: Some(2),
        sources: vec![source(1), source(1), source(2)],
        ..other
    };
    assert_eq!(store.store(&last, at(NOW)), Ok(2));
    assert_eq!(
        perspectives(&store),
        [(2, "10.0.0.1".to_owned()), (2, "10.0.0.2".to_owned())]
    );
}

fn perspectives(store: &Store) -> Vec<(u64, String)> {
    let sql = "SELECT window, address FROM perspectives ORDER BY window, address";
    let mut statement = store.connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((unsigned(row, 0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_number_of_another_file_is_none_and_takes_no_other_windows_place() {
    let ground = Ground::new("number");
    let mut store = ground.open();
    let with = |number, lease| Record {
        number: Some(number),
        ..window(lease, NOW)
    };
    for number in [1, u64::MAX, 0, 1] {
        assert_eq!(store.store(&with(number, "a"), at(NOW)), Ok(1), "{number}");
    }
    assert_eq!(store.store(&with(1, "b"), at(NOW)), Ok(2));
    let found = store.find(&Query::Since(0)).unwrap().records;
    let leases: Vec<&str> = found.iter().map(|record| record.lease.as_str()).collect();
    assert_eq!(leases, ["a", "b"]);
    // What was let go of keeps its number.
    let sql = "DELETE FROM windows WHERE number = 1";
    store.connection.execute(sql, []).unwrap();
    assert_eq!(store.store(&with(1, "a"), at(NOW)), Ok(1));
}

#[test]
fn what_nobody_watches_any_more_is_ended() {
    let ground = Ground::new("settle");
    let mut store = ground.open();
    for name in ["a", "b", "c"] {
        store.store(&window(name, NOW), at(NOW)).unwrap();
    }
    let done = Record {
        number: Some(3),
        ..ended(&window("c", NOW))
    };
    store.store(&done, at(NOW)).unwrap();
    assert_eq!(store.settle(&[2], at(NOW)), Ok(1));
    assert_eq!(numbers(&store, &Query::Open), [2]);
    let found = store.find(&Query::Since(0)).unwrap().records;
    let by: Vec<_> = found.iter().map(|own| own.end.map(|end| end.by)).collect();
    assert_eq!(by, [Some(EndedBy::Unwatched), None, Some(EndedBy::Close)]);
    assert_eq!(found[0].end.unwrap().at, found[0].deadline);
    assert_ne!(found[0].assessment.outcome, found[1].assessment.outcome);
}

#[test]
fn records_and_their_addresses_go_when_they_are_old() {
    let ground = Ground::new("age");
    let mut store = ground.open();
    let with_address = Record {
        sources: vec![source(0x11_2233)],
        ..window("old", NOW)
    };
    store.store(&with_address, at(NOW)).unwrap();
    store.age = Age::new(NOW + 89 * DAY);
    let new = window("new", NOW + 89 * DAY);
    store.store(&new, at(NOW + 89 * DAY)).unwrap();
    assert_eq!(numbers(&store, &Query::Since(0)), [1, 2]);
    let address = b"10.17.34.51";
    let holds = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(address.len()).any(|window| window == address)
    };
    assert!(holds(&ground.file()));
    // One day more, and it is gone to the last octet.
    store.age = Age::new(NOW + 90 * DAY);
    store.retain(at(NOW + 90 * DAY + 1)).unwrap();
    assert_eq!(numbers(&store, &Query::Since(0)), [2]);
    assert!(perspectives(&store).is_empty());
    assert!(!holds(&ground.file()));
    // Numbers are not given twice.
    assert_eq!(
        store.store(&window("next", NOW + 90 * DAY), at(NOW + 90 * DAY)),
        Ok(3)
    );
}

#[test]
fn a_clock_that_jumps_by_years_deletes_nothing() {
    let ground = Ground::new("jump");
    let mut store = ground.open();
    for number in 0..5 {
        store
            .store(&window("a", NOW - number * DAY), at(NOW))
            .unwrap();
    }
    let wrong = NOW + 40 * 365 * DAY;
    assert_eq!(store.store(&window("future", wrong), at(wrong)), Ok(6));
    store.retain(at(wrong)).unwrap();
    drop(store);
    // Nor does a restart in the wrong time.
    let mut store = Store::open(&ground.0, settings(), at(wrong)).unwrap();
    store.retain(at(wrong)).unwrap();
    assert_eq!(numbers(&store, &Query::Since(0)).len(), 6);
    // Set right again, the one from the future is as old as its arrival, and the others as they are.
    store.retain(at(NOW)).unwrap();
    assert_eq!(numbers(&store, &Query::Since(0)).len(), 6);
    store.age = Age::new(NOW + 91 * DAY);
    store.retain(at(NOW + 91 * DAY)).unwrap();
    assert!(numbers(&store, &Query::Since(0)).is_empty());
}

#[test]
fn a_clock_that_is_set_back_deletes_nothing_and_orders_by_number() {
    let ground = Ground::new("back");
    let mut store = ground.open();
    store.store(&window("a", NOW), at(NOW)).unwrap();
    assert_eq!(store.store(&window("a", 5), at(5)), Ok(2));
    assert_eq!(numbers(&store, &Query::Last), [2]);
    assert_eq!(numbers(&store, &Query::LastOf("a".to_owned())), [2]);
    store.retain(at(5)).unwrap();
    assert_eq!(numbers(&store, &Query::Since(0)), [1, 2]);
}

#[test]
fn the_file_stays_below_its_size_and_the_oldest_go() {
    let ground = Ground::new("size");
    let mut store = ground.open();
    let most = settings().max_bytes;
    let sources: Vec<Source> = (0..200).map(source).collect();
    for number in 0..300 {
        let record = Record {
            sources: sources.clone(),
            ..window("a", NOW + number)
        };
        assert_eq!(store.store(&record, at(NOW)), Ok(number + 1));
        let bytes = fs::metadata(ground.file()).unwrap().len();
        assert!(bytes <= most, "{bytes} of {most}");
    }
    let kept = numbers(&store, &Query::Since(0));
    assert!((20..300).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), Some(&300));
    assert!(kept.windows(2).all(|two| two[1] == two[0] + 1), "{kept:?}");
    // A lower bound is kept too, and the file gets smaller.
    store.configure(Settings {
        max_bytes: 2 * 1024 * 1024,
        ..settings()
    });
    store.retain(at(NOW)).unwrap();
    let bytes = fs::metadata(ground.file()).unwrap().len();
    assert!(bytes <= 2 * 1024 * 1024, "{bytes}");
    assert_eq!(numbers(&store, &Query::Last), [300]);
}

#[test]
fn an_older_file_is_brought_up() {
    let ground = Ground::new("older");
    let old = Connection::open(ground.file()).unwrap();
    old.execute_batch(STEPS[0]).unwrap();
    old.execute_batch("PRAGMA user_version = 1").unwrap();
    // As the first version wrote it; its field names are for ever.
    let record = include_str!("../../../../tests/data/history/record-1.json");
    let sql = "INSERT INTO windows VALUES (7, 'certbot', 0, ?1, ?1, 0, ?2)";
    old.execute(sql, (signed(NOW), record)).unwrap();
    drop(old);
    let mut store = ground.open();
    assert_eq!(pragma(&store.connection, "user_version"), Ok(SCHEMA));
    let found = store.find(&Query::Number(7)).unwrap();
    assert_eq!((found.records.len(), found.left_off), (1, 0));
    let expected: Vec<_> = found.records[0]
        .sources
        .iter()
        .map(|own| (7, own.address.to_string()))
        .collect();
    assert_eq!(perspectives(&store), expected);
    assert_eq!(expected.len(), 2);
    assert_eq!(store.store(&window("a", NOW), at(NOW)), Ok(8));
}

#[test]
fn a_newer_file_is_refused_and_left_as_it_is() {
    let ground = Ground::new("newer");
    let newer = Connection::open(ground.file()).unwrap();
    newer
        .execute_batch("CREATE TABLE windows (shape TEXT); PRAGMA user_version = 3")
        .unwrap();
    drop(newer);
    let before = fs::read(ground.file()).unwrap();
    let refused = Store::open(&ground.0, settings(), at(NOW)).err();
    assert_eq!(refused, Some(StoreError::Newer(3)));
    assert_eq!(fs::read(ground.file()).unwrap(), before);
    assert_eq!(fs::read_dir(&ground.0).unwrap().count(), 1);
}

#[test]
fn damaged_files_are_put_aside_and_only_so_many() {
    let ground = Ground::new("damaged");
    for round in 0..5 {
        fs::write(
            ground.file(),
            format!("{round}: no database at all").repeat(300),
        )
        .unwrap();
        let mut store = ground.open();
        assert_eq!(store.store(&window("a", NOW), at(NOW)), Ok(1), "{round}");
    }
    let aside = aside::list(&ground.0);
    assert_eq!(aside.len(), 3);
    let mut kept: Vec<_> = aside
        .iter()
        .map(|path| fs::read(path).unwrap()[0])
        .collect();
    kept.sort_unstable();
    assert_eq!(kept, b"234");
    // They stay as long as records may, and no longer.
    let mut store = ground.open();
    store.age = Age::new(0);
    store.retain(at(0)).unwrap();
    assert_eq!(aside::list(&ground.0).len(), 3);
    store.age = Age::new(u64::MAX / 2);
    store.retain(at(u64::MAX / 2)).unwrap();
    assert!(aside::list(&ground.0).is_empty());
}

#[test]
fn a_page_that_was_damaged_is_noticed() {
    let ground = Ground::new("page");
    let mut store = ground.open();
    for number in 0..50 {
        store.store(&window("a", NOW + number), at(NOW)).unwrap();
    }
    drop(store);
    let mut bytes = fs::read(ground.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0x5a);
    fs::write(ground.file(), bytes).unwrap();
    let store = ground.open();
    assert_eq!(numbers(&store, &Query::Since(0)), [0; 0]);
    assert_eq!(aside::list(&ground.0).len(), 1);
}

#[test]
fn a_journal_that_was_left_behind_is_rolled_back() {
    let ground = Ground::new("journal");
    let mut store = ground.open();
    store.store(&window("a", NOW), at(NOW)).unwrap();
    // What is on the disk when the power goes in the midst of a change that has begun to be written.
    store
        .connection
        .execute_batch("PRAGMA cache_size = 1")
        .unwrap();
    let change = begin(&mut store.connection).unwrap();
    for number in 1..400 {
        let mut record = window("half", NOW + number);
        record.sources = (0..20).map(source).collect();
        write(&change, &mut record, NOW).unwrap();
    }
    let journal = ground.0.join("history.db-journal");
    assert!(fs::metadata(&journal).unwrap().len() > 0);
    let other = Ground::new("journal-after");
    for name in ["history.db", "history.db-journal"] {
        fs::copy(ground.0.join(name), other.0.join(name)).unwrap();
    }
    let grown = fs::metadata(other.file()).unwrap().len();
    assert!(grown > 100_000, "{grown}: nothing of it was written yet");
    let store = other.open();
    assert_eq!(numbers(&store, &Query::Since(0)), [1]);
}

#[test]
fn nobody_else_can_read_it() {
    let ground = Ground::new("mode");
    let mut store = ground.open();
    let change = begin(&mut store.connection).unwrap();
    write(&change, &mut window("a", NOW), NOW).unwrap();
    for name in ["history.db", "history.db-journal"] {
        let mode = fs::metadata(ground.0.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn an_answer_has_a_bound_and_keeps_the_newest() {
    let ground = Ground::new("bound");
    let mut store = ground.open();
    store.configure(Settings {
        max_bytes: 64 * 1024 * 1024,
        ..settings()
    });
    let change = begin(&mut store.connection).unwrap();
    for number in 0..MAX_FOUND as u64 + 5 {
        write(&change, &mut window("a", NOW + number), NOW).unwrap();
    }
    change.commit().unwrap();
    let found = store.find(&Query::Since(0)).unwrap();
    let kept = found.records.len() as u64;
    assert_eq!(kept + found.left_off, MAX_FOUND as u64 + 5);
    assert!(kept > 5000, "{kept}");
    assert_eq!(
        found.records.last().unwrap().number,
        Some(MAX_FOUND as u64 + 5)
    );
    let bytes: usize = found
        .records
        .iter()
        .map(|record| serde_json::to_string(record).unwrap().len())
        .sum();
    assert!(bytes <= MAX_FOUND_BYTES, "{bytes}");
}
