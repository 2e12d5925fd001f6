//! The firewall, examined twice: read rule by rule, and by packets that are sent to a copy of it.
//!
//! The reading knows whose chain it is and what to type; what the packets prove is its evidence, and where they prove
//! otherwise they are right. What packets cannot show the reading alone tells: limits for many perspectives at once, the
//! time of day, flowtables.

use super::case::Case;
use super::finding::{Area, Code, Exam, Finding};
use super::{reading, twin};

/// What the packets say of a port that a chain shuts.
const PROVED_SHUT: &[Code] = &[
    twin::PROVED_DROPPED,
    twin::PROVED_DROPPED_FOR_SOME,
    twin::PROVED_LOST,
];
/// What is said of packets that are lost because they were sent to where nothing leads.
const LOST_BEHIND_NAT: &[&str] = &["no route leads", "forwards nothing", "no rule did it"];
/// As much of a proof as stands beside a finding of the reading.
const MOST_PROOFS: usize = 2;

/// Examines the live ruleset, or a saved one of which only packets can tell: by reading it, by a twin, or both.
pub async fn examine(
    case: &Case,
    source: twin::Source,
    is_read: bool,
    has_twin: bool,
) -> Vec<Exam> {
    let read = async {
        match is_read && source == twin::Source::Live {
            true => reading::examine(case).await,
            false => Exam::of(Area::Firewall),
        }
    };
    let tried = async {
        match has_twin {
            true => twin::examine(case, source.clone()).await,
            false => Exam::of(Area::Firewall),
        }
    };
    let (mut read, mut tried) = tokio::join!(read, tried);
    weigh(&mut read, &mut tried);
    let asked = [(is_read, read), (has_twin, tried)].into_iter();
    asked
        .filter_map(|(is_asked, exam)| is_asked.then_some(exam))
        .collect()
}

/// Lays the two beside each other, so that one cause is one finding.
fn weigh(read: &mut Exam, tried: &mut Exam) {
    if tried.findings.is_empty() {
        return;
    }
    let judged = std::mem::take(&mut read.findings);
    read.findings = judged
        .into_iter()
        .filter_map(|finding| weighed(finding, tried))
        .collect();
    // What is sent elsewhere is seldom let in here besides: that comes after.
    read.findings
        .sort_by_key(|finding| !is(finding, &[reading::SENT_ELSEWHERE, reading::SENT_NOWHERE]));
}

/// What is left of a finding beside the packets.
fn weighed(finding: Finding, tried: &mut Exam) -> Option<Finding> {
    let port = finding.port;
    let has = |tried: &Exam, codes: &[Code]| {
        let mut found = tried.findings.iter();
        found.any(|proof| proof.port == port && is(proof, codes))
    };
    match () {
        () if is(&finding, &[reading::DROPPED, reading::ONE_FAMILY]) => {
            if has(tried, PROVED_SHUT) {
                return Some(proved(finding, tried, PROVED_SHUT));
            }
            (!has(tried, &[twin::PROVED_PASSES])).then_some(finding)
        }
        () if is(&finding, &[reading::OPEN_WITHOUT_WINDOW]) => {
            let open = &[twin::PROVED_OPEN_WITHOUT_WINDOW];
            has(tried, open).then(|| proved(finding, tried, open))
        }
        () if is(&finding, &[reading::SENT_ELSEWHERE]) => {
            Some(proved(finding, tried, &[twin::PROVED_ELSEWHERE]))
        }
        () if is(&finding, &[reading::SENT_NOWHERE]) => {
            let is_it = |proof: &Finding| {
                let mut seen = proof.evidence.iter();
                is(proof, &[twin::PROVED_LOST])
                    && seen.all(|line| LOST_BEHIND_NAT.iter().any(|why| line.contains(why)))
            };
            Some(proved_by(finding, tried, is_it))
        }
        () if is(&finding, &[reading::DROPS_SOME]) => {
            let Some(chain) = chain_of(&finding) else {
                return Some(finding);
            };
            let is_it = |proof: &Finding| {
                let mut seen = proof.evidence.iter();
                is(proof, &[twin::PROVED_DROPPED_FOR_SOME])
                    && seen.all(|line| line.contains(&chain))
            };
            Some(proved_by(finding, tried, is_it))
        }
        // The reading follows no answers.
        () if is(&finding, &[reading::PASSES]) => {
            let there_and_back = &[twin::PROVED_PASSES, twin::PROVED_ANSWERS_DROPPED];
            (!has(tried, there_and_back)).then_some(finding)
        }
        // A packet needs no understanding, where one was sent.
        () if is(&finding, &[reading::NOT_UNDERSTOOD]) => {
            let mut tried = tried.findings.iter();
            (!tried.any(|proof| proof.port == port)).then_some(finding)
        }
        () => Some(finding),
    }
}

/// Where a finding of the reading says that a rule drops, as the packets' evidence names it: `inet geo in: `.
fn chain_of(finding: &Finding) -> Option<String> {
    let (place, _) = finding.finding.split_once(" rule ")?;
    let words: Vec<&str> = place.split(' ').collect();
    match words[..] {
        [family, table, .., chain] => Some(format!(" by {family} {table} {chain}: ")),
        _ => None,
    }
}

/// The finding with what packets prove of it, which then needs no finding of its own.
fn proved(finding: Finding, tried: &mut Exam, codes: &[Code]) -> Finding {
    proved_by(finding, tried, |proof| is(proof, codes))
}

/// The same with the findings of its port that fit. It is as bad as the worst of them.
fn proved_by(mut finding: Finding, tried: &mut Exam, fits: impl Fn(&Finding) -> bool) -> Finding {
    let port = finding.port;
    let (proofs, others) = std::mem::take(&mut tried.findings)
        .into_iter()
        .partition(|proof| proof.port == port && fits(proof));
    tried.findings = others;
    let proofs: Vec<Finding> = proofs;
    for proof in proofs {
        if is(&finding, &[reading::DROPS_SOME]) {
            finding.severity = finding.severity.max(proof.severity);
            finding.evidence.push(format!("tried: {}", proof.finding));
        }
        let lines = proof.evidence.into_iter().take(MOST_PROOFS);
        finding
            .evidence
            .extend(lines.map(|line| format!("tried: {line}")));
        if let Some(path) = proof.remedy.into_iter().next_back()
            && finding.remedy.last() != Some(&path)
            && path.contains("acmegate explain")
        {
            finding.remedy.push(path);
        }
    }
    finding
}

fn is(finding: &Finding, codes: &[Code]) -> bool {
    codes.contains(&finding.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    fn exam(findings: &[(Code, u16)]) -> Exam {
        let finding = |(code, port): &(Code, u16)| {
            Finding::new(*code, Severity::Fault, code.word)
                .at(*port)
                .seen(format!("seen {}", code.word))
                .remedy("`acmegate explain …`")
        };
        Exam {
            findings: findings.iter().map(finding).collect(),
            ..Exam::of(Area::Firewall)
        }
    }

    fn words(exam: &Exam) -> Vec<&'static str> {
        let findings = exam.findings.iter();
        findings.map(|finding| finding.code.word).collect()
    }

    #[test]
    fn what_packets_prove_is_the_evidence_of_what_was_read() {
        let mut read = exam(&[(reading::ONE_FAMILY, 80)]);
        let mut tried = exam(&[(twin::PROVED_DROPPED, 80), (twin::PROVED_PASSES, 80)]);
        weigh(&mut read, &mut tried);
        assert_eq!(words(&read), ["one-family-dropped"]);
        assert_eq!(
            read.findings[0].evidence,
            ["seen one-family-dropped", "tried: seen proved-dropped"]
        );
        assert_eq!(words(&tried), ["proved-passes"]);
    }

    #[test]
    fn where_packets_prove_otherwise_they_are_right() {
        let mut read = exam(&[
            (reading::DROPPED, 80),
            (reading::NOT_UNDERSTOOD, 80),
            (reading::OPEN_WITHOUT_WINDOW, 80),
            (reading::LIMITED, 80),
            (reading::DROPPED, 443),
            (reading::NOT_UNDERSTOOD, 53),
        ]);
        let mut tried = exam(&[(twin::PROVED_PASSES, 80)]);
        weigh(&mut read, &mut tried);
        // At other ports nobody knocked.
        assert_eq!(words(&read), ["limited", "dropped", "not-understood"]);
        assert_eq!(read.findings[1].port, Some(443));
        // And what was not read as shut is a finding of theirs.
        let mut read = exam(&[(reading::PASSES, 80)]);
        let mut tried = exam(&[(twin::PROVED_DROPPED, 80)]);
        weigh(&mut read, &mut tried);
        assert_eq!(words(&read), ["passes"]);
        assert_eq!(words(&tried), ["proved-dropped"]);
        // What passes there and does not come back passes not.
        let mut read = exam(&[(reading::PASSES, 80)]);
        let mut tried = exam(&[(twin::PROVED_ANSWERS_DROPPED, 80)]);
        weigh(&mut read, &mut tried);
        assert_eq!(words(&read), [""; 0]);
    }

    #[test]
    fn without_packets_the_reading_stands_alone() {
        let codes = [(reading::PASSES, 80), (reading::NOT_UNDERSTOOD, 80)];
        let mut read = exam(&codes);
        weigh(&mut read, &mut Exam::of(Area::Firewall));
        assert_eq!(read, exam(&codes));
    }

    /// One cause is one finding, with the packets as its evidence; another cause is another finding.
    #[test]
    fn what_drops_some_is_one_finding_with_its_packets() {
        let some = "inet geo in rule 7 drops tcp port 80 from some sources";
        let with = |evidence: &str| {
            let mut read = exam(&[(reading::DROPS_SOME, 80)]);
            read.findings[0].finding = some.to_owned();
            read.findings[0].severity = Severity::Doubt;
            let mut tried = exam(&[(twin::PROVED_DROPPED_FOR_SOME, 80)]);
            tried.findings[0].evidence = vec![evidence.to_owned()];
            weigh(&mut read, &mut tried);
            (read, tried)
        };
        let (read, tried) =
            with("from 41.30.40.50 (Africa): dropped by inet geo in: ip saddr @a drop");
        assert_eq!(words(&tried), [""; 0]);
        assert_eq!(words(&read), ["drops-some-sources"]);
        assert_eq!(read.findings[0].severity, Severity::Fault);
        let evidence = &read.findings[0].evidence;
        assert_eq!(evidence[1], "tried: proved-dropped-for-some");
        assert!(
            evidence[2].starts_with("tried: from 41.30.40.50"),
            "{evidence:?}"
        );
        let (read, tried) = with("from 41.30.40.50 (Africa): dropped by inet other in: drop");
        assert_eq!(words(&read), ["drops-some-sources"]);
        assert_eq!(words(&tried), ["proved-dropped-for-some"]);
        assert_eq!(read.findings[0].severity, Severity::Doubt);
    }

    #[test]
    fn what_is_sent_nowhere_is_one_finding_with_what_was_lost() {
        for (why, is_one) in [
            ("lost: no route leads to where it is for", true),
            (
                "lost: it is for another host, and this one forwards nothing",
                true,
            ),
            ("lost: the reverse path filter (`rp_filter`)", false),
        ] {
            let mut read = exam(&[(reading::SENT_NOWHERE, 80)]);
            let mut tried = exam(&[(twin::PROVED_LOST, 80)]);
            tried.findings[0].evidence = vec![why.to_owned()];
            weigh(&mut read, &mut tried);
            assert_eq!(words(&read), ["sent-nowhere"], "{why}");
            assert_eq!(tried.findings.is_empty(), is_one, "{why}");
            let evidence = read.findings[0].evidence.iter();
            let tried = evidence.filter(|line| line.starts_with("tried: "));
            assert_eq!(tried.count(), usize::from(is_one), "{why}");
        }
    }

    #[test]
    fn who_sends_a_port_elsewhere_comes_before_who_drops_it() {
        let mut read = exam(&[(reading::ONE_FAMILY, 80), (reading::SENT_ELSEWHERE, 80)]);
        let mut tried = exam(&[(twin::PROVED_ELSEWHERE, 80), (twin::PROVED_DROPPED, 80)]);
        weigh(&mut read, &mut tried);
        assert_eq!(words(&read), ["sent-elsewhere", "one-family-dropped"]);
        assert_eq!(words(&tried), [""; 0]);
    }
}
