use std::net::IpAddr;

use super::*;
use crate::observe::record::{Dropped, End, Place, Region, Role, Source, VERSION, Visit, Why};

const OPENED: u64 = 1_780_272_000_000;

fn source(address: &str, country: &str, first: u64) -> Source {
    Source {
        address: address.parse::<IpAddr>().unwrap(),
        network: address.to_owned(),
        place: Some(Place {
            country: Some(country.to_owned()),
            region: Some(Region::Arin),
            ..Place::default()
        }),
        role: Role::Validator,
        first,
        packets: 1,
        reached: true,
        dropped: None,
        visits: Vec::new(),
        more_visits: 0,
        then: None,
    }
}

fn visit(at: u64, reason: &str, status: u16) -> Visit {
    Visit {
        at,
        port: 80,
        verdict: if status == 200 { "accept" } else { "drop" }.to_owned(),
        reason: reason.to_owned(),
        identifier: Some("www.example.com".to_owned()),
        challenge: Some("http-01".to_owned()),
        token: Some("0badcafe".to_owned()),
        status: Some(status),
        octets: 87,
        took: 12_345,
        detail: None,
    }
}

/// An open window of which three networks are known: one answered, one by IPv6 that got a 404, one that
/// a rule dropped.
pub(in crate::cli::watch) fn window(lease: &str) -> Record {
    let mut answered = source("203.0.113.77", "US", 1_204);
    answered.visits.push(visit(1_204, "answered", 200));
    let mut unknown = source("2001:db8:1234:5678:9abc:def0:1234:5678", "DE", 1_300);
    unknown.visits.push(visit(1_310, "unknown-token", 404));
    let mut dropped = source("198.51.100.9", "SG", 1_400);
    dropped.reached = false;
    dropped.packets = 3;
    dropped.role = Role::Unheard;
    dropped.dropped = Some(Dropped {
        table: "inet geo".to_owned(),
        chain: "prerouting".to_owned(),
        rule: Some("ip saddr @sg counter drop".to_owned()),
    });
    Record {
        version: VERSION,
        lease: lease.to_owned(),
        holder: Some("certbot (pid 812)".to_owned()),
        why: Why::Asked,
        ports: vec![80],
        families: vec!["ipv4".to_owned(), "ipv6".to_owned()],
        opened_at: OPENED,
        deadline: 600_000,
        sources: vec![answered, unknown, dropped],
        ..Record::default()
    }
}

fn ended(lease: &str, outcome: Outcome, by: EndedBy) -> Record {
    Record {
        end: Some(End {
            by,
            at: 14_000,
            late: 0,
        }),
        opened_at: OPENED - 100_000,
        assessment: Assessment {
            outcome,
            networks: 5,
            answered: 5,
            needed: 4,
            ..Assessment::default()
        },
        ..window(lease)
    }
}

fn whole() -> View {
    View {
        records: vec![
            ended("lego-77", Outcome::Answered, EndedBy::Close),
            window("certbot-812"),
            ended("by-hand", Outcome::Failed, EndedBy::Deadline),
        ],
        ..View::default()
    }
}

/// The screen's rows, filled up to its width, each in quotes.
fn drawn(view: &mut View, width: u16, height: u16) -> String {
    let rows = view.rows(width, height, OPENED + 7_000);
    assert_eq!(rows.len(), usize::from(height));
    let columns = usize::from(width);
    let quoted = rows.iter().map(|row| {
        let text = row.text(columns);
        format!("\"{text:columns$}\"\n")
    });
    quoted.collect()
}

#[test]
fn an_ordinary_terminal_shows_everything() {
    insta::assert_snapshot!(drawn(&mut whole(), 80, 24));
}

#[test]
fn a_wide_terminal_shows_whole_addresses_and_rules() {
    insta::assert_snapshot!(drawn(&mut whole(), 120, 40));
}

#[test]
fn a_small_terminal_shows_what_matters() {
    insta::assert_snapshot!(drawn(&mut whole(), 40, 12));
}

#[test]
fn a_daemon_that_is_gone_is_said_above_what_was_known() {
    let mut view = whole();
    view.lost = Some("acmegate is gone: it hung up".to_owned());
    insta::assert_snapshot!(drawn(&mut view, 80, 12));
}

#[test]
fn no_size_makes_it_panic_and_scrolling_ends_at_the_last_line() {
    for (width, height) in [(1, 1), (2, 2), (10, 3), (500, 1), (1, 200)] {
        let mut view = whole();
        view.scrolled = usize::MAX;
        drawn(&mut view, width, height);
    }
    let mut view = whole();
    view.scrolled = usize::MAX;
    let shown = drawn(&mut view, 80, 6);
    assert!(
        shown.contains("by-hand") && shown.contains("lines above"),
        "{shown}"
    );
    view.scrolled = 0;
    drawn(&mut view, 80, 24);
    assert_eq!(view.scrolled, 0);
    assert!(drawn(&mut View::default(), 80, 24).contains("no window is open"));
}

#[test]
fn hundreds_who_come_leave_the_newest_on_top() {
    let mut record = window("flooded");
    record.sources = (0..256u64)
        .map(|at| {
            let mut source = source("192.0.2.1", "US", at);
            source.visits = vec![visit(at, "unknown-token", 404); 16];
            source
        })
        .collect();
    record.more_sources = 7;
    let mut view = View {
        records: vec![record],
        ..View::default()
    };
    let shown = drawn(&mut view, 80, 24);
    let newest = shown.lines().nth(3).unwrap();
    assert!(newest.contains("0.255 s"), "{shown}");
    view.scrolled = usize::MAX;
    let shown = drawn(&mut view, 80, 24);
    assert!(
        shown.contains("7 addresses that are only counted"),
        "{shown}"
    );
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    let mut record = window("\u{1b}[2J\u{202e}evil");
    record.holder = Some("\u{7}\u{2066}".to_owned());
    record.identifiers = Some(vec!["<script>\u{9b}31m".to_owned()]);
    for source in &mut record.sources {
        source.place = Some(Place {
            country: Some("\u{1b}c".to_owned()),
            ..Place::default()
        });
        source.dropped = Some(Dropped {
            table: "\u{1b}".to_owned(),
            chain: "\u{202e}".to_owned(),
            rule: Some("comment \"\u{1b}]0;x\u{7}\"".to_owned()),
        });
    }
    let mut view = View {
        records: vec![record],
        lost: Some("\u{1b}[31m".to_owned()),
        ..View::default()
    };
    let shown = drawn(&mut view, 200, 24);
    let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(
        !shown
            .chars()
            .any(|c| c != '\n' && (c.is_control() || bidi(c))),
        "{shown:?}"
    );
    assert!(shown.contains("\\u{1b}[2J\\u{202e}evil"), "{shown}");
}

#[test]
fn numbers_and_families_that_no_window_has_are_drawn_all_the_same() {
    let mut record = window("a");
    (record.opened_at, record.deadline) = (u64::MAX, u64::MAX);
    record.more_sources = u64::MAX;
    record.families = vec!["\u{1b}[2J".to_owned()];
    for source in &mut record.sources {
        (source.first, source.more_visits) = (u64::MAX, u64::MAX);
    }
    let gone = Record {
        end: Some(End {
            by: EndedBy::Close,
            at: u64::MAX,
            late: u64::MAX,
        }),
        ..record.clone()
    };
    let mut view = View {
        records: vec![record, gone],
        ..View::default()
    };
    let text = drawn(&mut view, 120, 20);
    assert!(!text.contains('\u{1b}'), "{text}");
}
