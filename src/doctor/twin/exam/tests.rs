//! How bad it is what the exam found, by what became of four packets and their answers.

use std::net::Ipv4Addr;

use super::*;
use crate::doctor::path::{Knock, Protocol, Step};

fn step(verdict: &str) -> Step {
    Step {
        table: "inet filter".to_owned(),
        chain: "input".to_owned(),
        handle: Some(7),
        rule: Some("a rule".to_owned()),
        verdict: verdict.to_owned(),
    }
}

fn passed(verdict: &str) -> Fate {
    Fate {
        end: End::Delivered {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 80,
        },
        steps: vec![step(verdict)],
    }
}

fn dropped(verdict: &str) -> Fate {
    Fate {
        end: End::Dropped { rejects: false },
        steps: vec![step(verdict), step("drop")],
    }
}

/// What is found of four packets from as many places, in an open window.
fn found(seen: [(Fate, Option<Fate>); 4]) -> (&'static str, Severity) {
    let visit = |last: u8| Visit {
        knock: Knock {
            interface: "eth0".to_owned(),
            source: Ipv4Addr::new(23, 20, 30, last).into(),
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            protocol: Protocol::Tcp,
            port: 80,
        },
        region: Some("Europe"),
    };
    let visits: Vec<Visit> = (1..=4).map(visit).collect();
    let (fates, replies) = seen.into_iter().unzip();
    let answer = Answer {
        fates: vec![fates],
        replies: vec![replies],
        advice: vec![vec![None; 4]],
        ..Answer::default()
    };
    let mut exam = Exam::of(Area::Firewall);
    open_findings(&mut exam, &Runs::of_open(&visits, &answer));
    assert_eq!(exam.findings.len(), 1, "{exam:?}");
    (exam.findings[0].code.word, exam.findings[0].severity)
}

/// Of four packets the first so many are dropped.
fn so_many(count: usize, verdict: &str) -> (&'static str, Severity) {
    found(std::array::from_fn(|number| match number < count {
        true => (dropped(verdict), None),
        false => (passed("accept"), None),
    }))
}

#[test]
fn a_fault_is_a_doubt_where_a_rule_on_the_way_is_not_in_the_twin() {
    assert_eq!(so_many(4, "continue"), ("proved-dropped", Severity::Fault));
    assert_eq!(so_many(4, NOT_CARRIED), ("proved-dropped", Severity::Doubt));
    let for_some = "proved-dropped-for-some";
    assert_eq!(so_many(2, "continue"), (for_some, Severity::Fault));
    assert_eq!(so_many(2, NOT_CARRIED), (for_some, Severity::Doubt));
    // A quorum does without one of four.
    assert_eq!(so_many(1, "continue"), (for_some, Severity::Doubt));
}

#[test]
fn so_it_is_where_the_rule_is_on_an_answers_way() {
    let silenced = |reply: Fate| {
        let seen = || (passed("accept"), Some(reply.clone()));
        found([seen(), seen(), seen(), seen()])
    };
    let word = "proved-answers-dropped";
    assert_eq!(silenced(dropped("continue")), (word, Severity::Fault));
    assert_eq!(silenced(dropped(NOT_CARRIED)), (word, Severity::Doubt));
    let passes = ("proved-passes", Severity::Fine);
    assert_eq!(silenced(passed(NOT_CARRIED)), passes);
}
