use std::time::SystemTime;

use super::*;
use crate::gate::Reason;
use crate::gate::lease::Family;
use crate::observe::record::Assessment;
use crate::observe::record::{End, Evidence};

fn moment() -> Moment {
    Moment {
        version: "9.9.9",
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        mode: "guard",
        landlock: "fully",
        windows: vec![Window {
            port: 80,
            family: Family::V4,
            is_open: true,
        }],
        leases: 2,
        armed: 1,
        connections: vec![(Reason::Answered, 7), (Reason::NoLease, 0)],
        held: 3,
        installed: true,
        owned: false,
        reassertions: 4,
        waiting: Duration::from_millis(1500),
        list_is_whole: true,
        ranges: [(Family::V4, 5), (Family::V6, 6)],
        list_problems: 0,
        oldest_list: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000)),
        budget: Budget {
            openings: 8,
            openings_limit: 120,
            spans: vec![
                Span {
                    name: "day",
                    used: Duration::from_secs(90),
                    limit: Some(Duration::from_secs(28_800)),
                },
                Span {
                    name: "month",
                    used: Duration::from_secs(900),
                    limit: None,
                },
            ],
        },
        pushed: 9,
        problems: 10,
        history: Some(History {
            windows: 11,
            octets: 12,
            unsaved: 0,
            is_failing: false,
        }),
    }
}

fn ended(by: EndedBy, outcome: Outcome) -> Record {
    Record {
        lease: "<script>\u{1b}[2J\u{202e}".to_owned(),
        end: Some(End {
            by,
            at: 14_500,
            late: 0,
        }),
        evidence: Evidence {
            packets: 20,
            incomplete: Some("a set was full".to_owned()),
            ..Evidence::default()
        },
        assessment: Assessment {
            outcome,
            networks: 5,
            answered: 4,
            dropped: 1,
            ..Assessment::default()
        },
        ..Record::default()
    }
}

#[test]
fn every_series_is_there_before_anything_happened() {
    let metrics = Metrics::new().unwrap();
    let text = metrics.text(&moment(), Instant::now()).unwrap();
    let ends = text.matches("\nacmegate_windows_ended_total{").count();
    assert_eq!(ends, ENDS.len() * OUTCOMES.len());
    assert_eq!(text.matches("\nacmegate_windows_opened_total{").count(), 3);
    for line in [
        "acmegate_windows_ended_total{ended_by=\"deadline\",outcome=\"failed\"} 0",
        "acmegate_connections_total{reason=\"no-lease\",verdict=\"drop\"} 0",
        "acmegate_connections_total{reason=\"answered\",verdict=\"accept\"} 7",
        "acmegate_answer_duration_seconds_count{challenge=\"tls-alpn-01\"} 0",
        "acmegate_budget_limit_seconds{span=\"day\"} 28800",
        "acmegate_enforcer_waiting_seconds 1.5",
        "process_start_time_seconds 1700000000",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(!text.contains("acmegate_budget_limit_seconds{span=\"month\"}"));
}

#[test]
fn a_window_counts_once_it_ended_and_nothing_of_it_is_a_label() {
    let metrics = Metrics::new().unwrap();
    let draft = |record, is_new, is_complete| Draft {
        id: 1,
        record,
        is_new,
        is_complete,
    };
    let begun = Record {
        why: Why::Token,
        ..Record::default()
    };
    metrics.follow(&draft(begun.clone(), true, false));
    metrics.follow(&draft(begun, false, false));
    let over = ended(EndedBy::Deadline, Outcome::Tolerated);
    // Its end is known, and what it came to is not yet.
    metrics.follow(&draft(over.clone(), false, false));
    metrics.follow(&draft(over, false, true));
    let text = metrics.text(&moment(), Instant::now()).unwrap();
    for line in [
        "acmegate_windows_opened_total{why=\"token\"} 1",
        "acmegate_windows_ended_total{ended_by=\"deadline\",outcome=\"tolerated\"} 1",
        "acmegate_window_duration_seconds_bucket{le=\"15\"} 1",
        "acmegate_window_duration_seconds_bucket{le=\"5\"} 0",
        "acmegate_window_networks_bucket{le=\"4\"} 0",
        "acmegate_window_networks_bucket{le=\"5\"} 1",
        "acmegate_networks_answered_total 4",
        "acmegate_networks_dropped_total 1",
        "acmegate_evidence_packets_total 20",
        "acmegate_windows_evidence_incomplete_total 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    assert!(!text.contains("script") && text.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn latencies_are_told_apart_by_challenge() {
    let metrics = Metrics::new().unwrap();
    metrics.answered(ChallengeType::Http01, Duration::from_micros(300));
    metrics.answered(ChallengeType::TlsAlpn01, Duration::from_millis(30));
    let text = metrics.text(&moment(), Instant::now()).unwrap();
    for line in [
        "acmegate_answer_duration_seconds_bucket{challenge=\"http-01\",le=\"0.0005\"} 1",
        "acmegate_answer_duration_seconds_bucket{challenge=\"http-01\",le=\"0.0001\"} 0",
        "acmegate_answer_duration_seconds_bucket{challenge=\"tls-alpn-01\",le=\"0.05\"} 1",
        "acmegate_answer_duration_seconds_bucket{challenge=\"tls-alpn-01\",le=\"0.01\"} 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
}

#[test]
fn exposure_is_told_while_it_lasts_and_counts_once() {
    let metrics = Metrics::new().unwrap();
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let told = |at: Instant| {
        let text = metrics.text(&moment(), at).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("acmegate_window_open_seconds_total "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(told(start), "0");
    metrics.exposed(true, start);
    assert_eq!(told(after(3)), "3");
    // A second window opens beside the first one.
    metrics.exposed(true, after(4));
    metrics.exposed(false, after(10));
    assert_eq!(told(after(60)), "10");
    metrics.exposed(true, after(60));
    metrics.exposed(false, after(61));
    assert_eq!(told(after(62)), "11");
}

/// A hook that closes has its own record handed on before those that wait for a disk.
#[test]
fn windows_are_counted_in_whatever_order_they_are_told() {
    let metrics = Metrics::new().unwrap();
    for id in [2, 1] {
        metrics.follow(&Draft {
            id,
            record: Record::default(),
            is_new: true,
            is_complete: false,
        });
    }
    let text = metrics.text(&moment(), Instant::now()).unwrap();
    let line = "\nacmegate_windows_opened_total{why=\"asked\"} 2\n";
    assert!(text.contains(line), "{text}");
}
