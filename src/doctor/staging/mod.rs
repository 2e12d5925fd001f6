//! What the caller's own ACME client came to at a CA's staging environment, and what the gate saw of it.
//!
//! Pure: `cli` runs the client, and hands in how it ended and the records of the windows that opened meanwhile.

mod client;

use super::finding::{Area, Exam, Finding, Severity};
use crate::observe::record::{Outcome, Record, Source};
use crate::observe::report::words::many;
use crate::observe::report::{about_drop, about_refusal, headline};

pub use self::client::order::Staged;
pub use self::client::stage;

crate::findings! { Client:
    /// The client got its certificate, and everybody who came was answered.
    STAGING_ISSUED = "staging-issued";
    /// Validations came to this host and were dropped there.
    NETWORKS_DROPPED = "networks-dropped";
    /// The gate refused validations.
    NETWORKS_REFUSED = "networks-refused";
    /// A window was open and nobody came.
    NOBODY_CAME = "nobody-came";
    /// The client failed, and no window opened.
    NO_WINDOW = "no-window";
    /// The client failed for a reason of its own.
    CLIENT_FAILED = "client-failed";
    /// The client did not come to an end.
    CLIENT_HANGS = "client-hangs";
    /// Its window stayed open behind it.
    WINDOW_LEFT_OPEN = "window-left-open";
}

/// How a client ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it is called.
    pub name: String,
    /// Its exit code, or 128 and the number of the signal that ended it; `None` if it had to be ended.
    pub code: Option<u8>,
    /// Its last words, a line each.
    pub last_words: Vec<String>,
}

/// The findings, the likeliest cause first, from the windows that opened while it ran.
pub fn examine(ran: &Ran, records: &[Record]) -> Exam {
    let mut exam = Exam::of(Area::Client);
    exam.looked_at.push(format!(
        "{} against staging, and {} of the gate's windows",
        ran.name,
        records.len()
    ));
    let has_failed = ran.code != Some(0);
    let causes: Vec<Finding> = records
        .iter()
        .flat_map(|record| of_window(record, has_failed))
        .collect();
    let is_explained = causes.iter().any(|one| one.severity == Severity::Fault);
    exam.findings = causes;
    match ran.code {
        Some(0) if !is_explained => exam.findings.push(Finding::new(
            STAGING_ISSUED,
            Severity::Fine,
            format!("{} got through at staging{}", ran.name, came(records)),
        )),
        Some(0) => {}
        _ if is_explained => {
            // Its own words belong to the first cause.
            if let Some(first) = exam.findings.first_mut() {
                first.evidence.push(ended(ran));
                first.evidence.extend(ran.last_words.iter().cloned());
            }
        }
        _ => exam.findings.push(unexplained(ran, records)),
    }
    exam
}

/// Of one window.
fn of_window(record: &Record, has_failed: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let severity = match has_failed || record.assessment.outcome == Outcome::Failed {
        true => Severity::Fault,
        false => Severity::Doubt,
    };
    let stopped = |source: &&Source| source.is_stopped() && source.then.is_none();
    let mut dropped: Option<Finding> = None;
    for source in record.sources.iter().filter(stopped) {
        let Some(by) = &source.dropped else { continue };
        let rule = by.rule.as_deref().unwrap_or("its policy");
        let finding = dropped.get_or_insert_with(|| {
            Finding::new(
                NETWORKS_DROPPED,
                severity,
                format!(
                    "validations were dropped by {} {}: {rule}",
                    by.table, by.chain
                ),
            )
            .seen(headline(record))
        });
        finding.evidence.push(format!(
            "{} came {}",
            source.address,
            many(source.packets, "time")
        ));
        let remedy = about_drop(by, source.address, record);
        if !finding.remedy.contains(&remedy) {
            finding.remedy.push(remedy);
        }
    }
    let unexplained = record.sources.iter().filter(stopped);
    let unexplained: Vec<String> = unexplained
        .filter(|source| source.dropped.is_none())
        .map(|source| source.address.to_string())
        .collect();
    if has_failed && dropped.is_none() && !unexplained.is_empty() {
        dropped = Some(
            Finding::new(
                NETWORKS_DROPPED,
                severity,
                "validations came to this host, and no connection came about",
            )
            .seen(headline(record))
            .seen(format!("nothing came of the packets of {}", unexplained.join(", ")))
            .remedy("see what the other findings say of rules that drop some sources; then output chains, rp_filter and the way back"),
        );
    }
    findings.extend(dropped);
    let visits = record.sources.iter().flat_map(|source| &source.visits);
    let mut refused: Option<Finding> = None;
    for visit in visits.filter(|visit| visit.challenge.is_some() && !visit.is_answer()) {
        let finding = refused.get_or_insert_with(|| {
            let finding = Finding::new(
                NETWORKS_REFUSED,
                severity,
                format!("the gate refused validations: {}", visit.reason),
            );
            finding.seen(headline(record))
        });
        if let Some(detail) = &visit.detail
            && !finding.evidence.contains(detail)
        {
            finding.evidence.push(detail.clone());
        }
        if let Some(name) = &visit.identifier
            && !finding.names.contains(name)
        {
            finding.names.push(name.clone());
        }
        let remedy = about_refusal(visit);
        if !finding.remedy.contains(&remedy) {
            finding.remedy.push(remedy);
        }
    }
    findings.extend(refused);
    if record.end.is_none() {
        findings.push(
            Finding::new(
                WINDOW_LEFT_OPEN,
                Severity::Advice,
                format!(
                    "the window {} is still open, although the client has ended",
                    record.lease
                ),
            )
            .remedy(
                "let its post-hook run `acmegate close`, or start it by `acmegate exec -- CLIENT…`",
            ),
        );
    }
    findings
}

/// A client that failed although nothing that the gate saw tells why.
fn unexplained(ran: &Ran, records: &[Record]) -> Finding {
    let is_heard = records.iter().any(|record| {
        record
            .sources
            .iter()
            .any(|source| !source.visits.is_empty())
    });
    let mut finding = match (ran.code, records) {
        (None, _) => Finding::new(
            CLIENT_HANGS,
            Severity::Fault,
            format!("{} did not end by itself, and was ended", ran.name),
        )
        .remedy("see what it waits for: its own log; a hook that hangs hangs the client"),
        (_, []) => Finding::new(
            NO_WINDOW,
            Severity::Fault,
            format!("{} failed, and no window opened while it ran", ran.name),
        )
        .remedy(format!(
            "if it was a validation that failed: let its hooks open one, `acmegate install-hooks {}` or `acmegate exec -- {}`",
            ran.name, ran.name
        )),
        (_, [first, ..]) if !is_heard => Finding::new(
            NOBODY_CAME,
            Severity::Fault,
            format!("{} failed: its window was open, and no validation came to this host", ran.name),
        )
        .seen(headline(first))
        .remedy("what is before this host stops them, or the name leads elsewhere: the router's or provider's firewall, port forwarding, A and AAAA records"),
        _ => Finding::new(
            CLIENT_FAILED,
            Severity::Fault,
            format!("{} failed, although whoever came was answered", ran.name),
        )
        .remedy("its own words say why; `acmegate report` tells who came"),
    };
    finding.evidence.push(ended(ran));
    finding.evidence.extend(ran.last_words.iter().cloned());
    finding
}

fn ended(ran: &Ran) -> String {
    match ran.code {
        Some(code) => format!("{} ended with status {code}; its last words:", ran.name),
        None => format!("the last words of {}:", ran.name),
    }
}

fn came(records: &[Record]) -> String {
    match records {
        [] => "; no window opened, so the CA may have remembered an earlier validation".to_owned(),
        [one] => format!("; {}", headline(one)),
        many => format!("; {} windows opened", many.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::{Dropped, Role, Visit};

    fn ran(code: Option<u8>) -> Ran {
        Ran {
            name: "certbot".to_owned(),
            code,
            last_words: vec!["Some challenges have failed.".to_owned()],
        }
    }

    fn source() -> Source {
        Source {
            address: "203.0.113.10".parse().unwrap(),
            network: "203.0.0.0/16".to_owned(),
            place: None,
            role: Role::Unheard,
            first: 1,
            packets: 3,
            reached: false,
            dropped: None,
            visits: Vec::new(),
            more_visits: 0,
            then: None,
        }
    }

    fn record(sources: Vec<Source>) -> Record {
        let end = crate::observe::record::End {
            by: crate::observe::record::EndedBy::Close,
            at: 10,
            late: 0,
        };
        Record {
            lease: "certbot-812".to_owned(),
            ports: vec![80],
            end: Some(end),
            sources,
            ..Record::default()
        }
    }

    #[track_caller]
    fn only(code: Option<u8>, records: &[Record]) -> Finding {
        let mut exam = examine(&ran(code), records);
        assert_eq!(exam.findings.len(), 1, "{exam:#?}");
        exam.findings.remove(0)
    }

    #[test]
    fn what_the_gate_saw_is_the_cause_and_the_clients_words_are_evidence() {
        let mut dropped = source();
        dropped.dropped = Some(Dropped {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            rule: None,
        });
        let finding = only(Some(1), &[record(vec![dropped])]);
        assert_eq!(
            (finding.code, finding.severity),
            (NETWORKS_DROPPED, Severity::Fault)
        );
        assert!(finding.finding.contains("inet filter input"));
        assert!(
            finding
                .evidence
                .iter()
                .any(|line| line.contains("Some challenges"))
        );
        assert!(!finding.remedy.is_empty());

        let finding = only(Some(1), &[record(vec![source()])]);
        assert_eq!(finding.code, NETWORKS_DROPPED);
        assert!(finding.evidence[1].contains("203.0.113.10"), "{finding:?}");

        let mut refused = source();
        refused.visits.push(Visit {
            at: 5,
            port: 80,
            verdict: "drop".to_owned(),
            reason: "unknown-token".to_owned(),
            challenge: Some("http-01".to_owned()),
            identifier: Some("a.test".to_owned()),
            token: None,
            status: Some(404),
            octets: 0,
            took: 10,
            detail: None,
        });
        let finding = only(Some(1), &[record(vec![refused])]);
        assert_eq!(finding.code, NETWORKS_REFUSED);
        assert_eq!(finding.names, ["a.test"]);
        assert!(finding.remedy[0].contains("announces its token"));
    }

    #[test]
    fn a_failure_without_a_cause_on_this_host_is_told_by_what_was_not_seen() {
        assert_eq!(only(Some(1), &[]).code, NO_WINDOW);
        assert_eq!(only(Some(1), &[record(Vec::new())]).code, NOBODY_CAME);
        assert_eq!(only(None, &[]).code, CLIENT_HANGS);
        let mut answered = source();
        answered.reached = true;
        answered.visits.push(Visit {
            at: 5,
            port: 80,
            verdict: "accept".to_owned(),
            reason: "answered".to_owned(),
            challenge: Some("http-01".to_owned()),
            identifier: None,
            token: None,
            status: Some(200),
            octets: 87,
            took: 10,
            detail: None,
        });
        let records = [record(vec![answered])];
        assert_eq!(only(Some(1), &records).code, CLIENT_FAILED);
        let fine = only(Some(0), &records);
        assert_eq!((fine.code, fine.severity), (STAGING_ISSUED, Severity::Fine));
    }

    #[test]
    fn a_window_that_outlives_its_client_is_advice() {
        let mut open = record(Vec::new());
        open.end = None;
        let exam = examine(&ran(Some(0)), &[open]);
        let codes: Vec<_> = exam.findings.iter().map(|one| one.code).collect();
        assert_eq!(codes, [WINDOW_LEFT_OPEN, STAGING_ISSUED]);
    }

    #[test]
    fn who_got_in_later_was_not_dropped() {
        let mut dropped = source();
        dropped.dropped = Some(Dropped {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            rule: None,
        });
        let mut later = dropped.clone();
        later.then = Some("203.0.113.11".parse().unwrap());
        let codes = |source: Source| {
            let exam = examine(&ran(Some(0)), &[record(vec![source])]);
            let found = exam.findings.into_iter();
            found
                .map(|one| (one.code, one.severity))
                .collect::<Vec<_>>()
        };
        // The client got its certificate: whoever was dropped was no matter today.
        assert_eq!(
            codes(dropped.clone()),
            [
                (NETWORKS_DROPPED, Severity::Doubt),
                (STAGING_ISSUED, Severity::Fine)
            ]
        );
        assert_eq!(codes(later), [(STAGING_ISSUED, Severity::Fine)]);
        // A validation that failed is a fault, whatever the client exits with.
        let mut failed = record(vec![dropped]);
        failed.assessment.outcome = Outcome::Failed;
        let finding = only(Some(0), &[failed]);
        assert_eq!(
            (finding.code, finding.severity),
            (NETWORKS_DROPPED, Severity::Fault)
        );
    }
}
