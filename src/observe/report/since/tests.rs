use super::super::tests::example;
use super::*;
use crate::observe::quorum::assess;

const DAY: u64 = 86_400_000;
/// 2026-12-01.
const NOW: u64 = 1_796_083_200_000;

/// One of the examples, so many days ago.
fn ago(name: &str, days: u64) -> Record {
    let mut record = example(name);
    record.opened_at = NOW - days * DAY;
    record.assessment = assess(&record);
    record
}

#[test]
fn as_people_read_it() {
    let records = [
        ("fine", 45),
        ("fine", 20),
        ("quiet", 15),
        ("six", 9),
        ("flood", 4),
        ("cut", 2),
    ]
    .map(|(name, days)| ago(name, days));
    let budgets = [
        Budget {
            of: Account::All,
            used: 640_000,
            allowed: Some(5 * DAY),
        },
        Budget {
            of: Account::Lease("certbot".to_owned(), 0),
            used: 640_000,
            allowed: None,
        },
        Budget {
            of: Account::Identifier("example.com".to_owned()),
            used: 6_240,
            allowed: Some(3_600_000),
        },
    ];
    let shown = Summary::of(&records, 30 * DAY, NOW, &budgets).text(Paint { is_on: false });
    assert!(
        shown.lines().all(|line| line.chars().count() <= COLUMNS),
        "{shown}"
    );
    insta::assert_snapshot!(shown);
}

#[test]
fn without_windows_it_says_so() {
    let summary = Summary::of(&[], 30 * DAY, NOW, &[]);
    assert_eq!(
        summary.headline(),
        "0 windows since 2026-11-01: none was opened"
    );
    assert!(summary.tables().is_empty());
    let fine = Summary::of(&[ago("fine", 1)], 30 * DAY, NOW, &[]);
    assert_eq!(fine.headline(), "1 window since 2026-11-01: nothing wrong");
    // With nothing before it nothing is new.
    assert!(
        fine.tables()
            .iter()
            .all(|table| table.title != "New networks")
    );
}

fn rows(summary: &Summary, title: &str) -> Vec<Vec<String>> {
    let mut tables = summary.tables();
    tables.retain(|table| table.title == title);
    tables.pop().map_or_else(Vec::new, |table| table.rows)
}

#[test]
fn a_network_is_new_when_it_did_not_come_before() {
    let mut later = ago("fine", 1);
    let mut newcomer = later.sources[0].clone();
    newcomer.address = "198.18.0.7".parse().unwrap();
    newcomer.network = "198.18.0.0/16".to_owned();
    later.sources.push(newcomer);
    let summary = Summary::of(&[ago("fine", 40), later], 30 * DAY, NOW, &[]);
    let new = rows(&summary, "New networks");
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!(
        new[0],
        ["198.18.0.0/16", "US ARIN AS64496", "2026-11-30", "answered"]
    );
}

#[test]
fn who_was_answered_at_another_time_did_get_through() {
    let never = |records: &[Record]| {
        rows(
            &Summary::of(records, 30 * DAY, NOW, &[]),
            "Networks that never got through",
        )
    };
    let alone = never(&[ago("six", 2), ago("six", 1)]);
    let networks: Vec<&str> = alone.iter().map(|row| row[0].as_str()).collect();
    // Not the one that came over IPv4 after all.
    assert_eq!(
        networks,
        [
            "100.64.0.0/16",
            "172.16.0.0/16",
            "192.0.0.0/16",
            "203.0.0.0/16"
        ]
    );
    assert_eq!(
        alone[3][2..],
        [
            "2026-11-30 (2 times)",
            "inet geo prerouting: ip saddr @blocked counter drop"
        ]
    );
    assert_eq!(alone[1][3], "unknown-token");
    let with = never(&[ago("fine", 40), ago("six", 1)]);
    assert_eq!(with.len(), 1, "{with:?}");
    assert_eq!(with[0][0], "172.16.0.0/16");
}

#[test]
fn what_is_open_at_once_counts_once() {
    let mut beside = ago("fine", 1);
    beside.lease = "lego-9".to_owned();
    beside.holder = Some("lego (pid 9)".to_owned());
    beside.opened_at += 3_000;
    let open = rows(
        &Summary::of(&[ago("fine", 1), beside], DAY, NOW, &[]),
        "How long windows were open",
    );
    let said: Vec<[&str; 2]> = open
        .iter()
        .map(|row| [row[0].as_str(), row[1].as_str()])
        .collect();
    assert_eq!(
        said,
        [
            ["all windows", "9.2 s"],
            ["lease certbot of uid 0", "6.2 s"],
            ["lease lego of uid 0", "6.2 s"],
            ["example.com", "9.2 s"],
            ["www.example.com", "9.2 s"],
        ]
    );
    // One that is open has been so until now.
    let mut open = ago("open", 0);
    open.opened_at = NOW - 5_000;
    let still = rows(
        &Summary::of(&[open], DAY, NOW, &[]),
        "How long windows were open",
    );
    assert_eq!(still[0][1], "5.0 s");
}

proptest::proptest! {
    #[test]
    fn the_union_is_what_a_count_of_moments_says(spans in proptest::collection::vec((0u64..60, 0u64..20), 0..12)) {
        let spans: Vec<(u64, u64)> = spans.into_iter().map(|(from, length)| (from, from + length)).collect();
        let count = (0..100).filter(|at| spans.iter().any(|(from, to)| (from..to).contains(&at))).count() as u64;
        proptest::prop_assert_eq!(union(spans), count);
    }
}
