//! The verdict: one glance, the arithmetic behind it, and what it cannot know.

use std::collections::BTreeSet;

use super::advice::advice;
use super::fate::{Fate, culprit, part_of_the_world, unanswered};
use super::words::{length, many, name, names, took};
use crate::observe::quorum::{Rules, tolerated};
use crate::observe::record::Outcome;
use crate::observe::record::{Record, Role, Source, Visit, Why};

/// How much of a rule's text is shown in a headline.
const BRIEF_RULE: usize = 48;

/// Whether there is nothing that anybody should look at.
pub fn is_fine(record: &Record) -> bool {
    let assessment = &record.assessment;
    matches!(assessment.outcome, Outcome::Answered | Outcome::Quiet)
        && !assessment.was_cut
        && record.end.is_some_and(|end| end.late < 1_000)
        && record.evidence.incomplete.is_none()
        && advice(record).is_empty()
}

/// The window in one glance.
pub fn headline(record: &Record) -> String {
    let assessment = &record.assessment;
    let mut line = format!("{}: ", name(record));
    if is_fine(record) {
        line.push_str("nothing wrong: ");
    } else if assessment.outcome == Outcome::Open {
        line.push_str("still open: ");
    } else if assessment.outcome == Outcome::Failed {
        line.push_str("failed");
        if let Some(said) = record.said.as_ref().filter(|said| !said.failed.is_empty()) {
            line.push_str(&format!(
                " (the client could not renew {})",
                first_of(&said.failed)
            ));
        }
        line.push_str(": ");
    }
    line.push_str(&who_came(record));
    let failed = assessment.identifiers.iter().filter(|one| one.has_failed);
    let failed: Vec<String> = failed.map(|one| one.identifier.clone()).collect();
    if assessment.outcome == Outcome::Failed
        && assessment.identifiers.len() > failed.len()
        && !failed.is_empty()
    {
        line.push_str(&format!("; not enough for {}", first_of(&failed)));
    }
    if assessment.was_cut {
        line.push_str(&format!(
            "; nobody closed it: cut after {}",
            length(record.deadline)
        ));
    }
    line
}

/// The first name, and how many more.
fn first_of(all: &[String]) -> String {
    let first = names(&all[..all.len().min(1)]);
    match all.len() {
        0 | 1 => first,
        count => format!("{first} and {} more", count - 1),
    }
}

fn who_came(record: &Record) -> String {
    let assessment = &record.assessment;
    let (asked, answered, dropped) = (assessment.networks, assessment.answered, assessment.dropped);
    let refused = asked.saturating_sub(answered);
    let came = asked.saturating_add(dropped);
    let speed = speed(record);
    match (came, answered) {
        (0, _) if assessment.outcome == Outcome::Open => return "nobody came yet".to_owned(),
        (0, _) if assessment.outcome == Outcome::Failed => {
            return "no validation came: it was stopped before this host, or led elsewhere"
                .to_owned();
        }
        (0, _) if record.why == Why::Adopted => {
            return "no validation came after acmegate was started anew".to_owned();
        }
        (0, _) => {
            return "no validation came, which is normal where the CA remembers an earlier one"
                .to_owned();
        }
        (1, 1) => return format!("1 network came and was answered{speed}"),
        (came, answered) if came == answered => {
            return format!("{came} networks came, all were answered{speed}");
        }
        _ => {}
    }
    let mut parts = vec![format!("{} came", many(came, "network"))];
    parts.push(match answered {
        0 => "none was answered".to_owned(),
        answered => format!("{answered} answered{speed}"),
    });
    if refused > 0 {
        let why = refusals(record);
        parts.push(format!("{refused} refused{why}"));
    }
    // Of those who were stopped some are known to have been dropped.
    let by_rule = dropped_by_rule(record).min(dropped);
    if by_rule > 0 {
        parts.push(format!("{by_rule} dropped{}", culprits(record)));
    }
    if dropped > by_rule {
        parts.push(format!("{} did not get through", dropped - by_rule));
    }
    parts.join(", ")
}

/// How fast answers were.
fn speed(record: &Record) -> String {
    let answers = record.sources.iter().flat_map(|source| &source.visits);
    let times = answers
        .filter(|visit| visit.is_answer())
        .map(|visit| visit.took);
    let (Some(least), Some(most)) = (times.clone().min(), times.max()) else {
        return String::new();
    };
    match (least / 1_000, most / 1_000) {
        (a, b) if a == b => format!(" in {}", took(most)),
        (0, _) => format!(" in up to {}", took(most)),
        (a, b) if b < 10_000 => format!(" in {a} to {b} ms"),
        _ => format!(" in {} to {}", took(least), took(most)),
    }
}

/// Why some were refused, each reason once.
fn refusals(record: &Record) -> String {
    let mut words: Vec<String> = Vec::new();
    for visit in record.sources.iter().flat_map(unanswered) {
        let status = visit
            .status
            .map_or_else(String::new, |status| format!("{status} "));
        let word = format!("{status}{}", super::escape::short(&visit.reason, 32));
        if !words.contains(&word) {
            words.push(word);
        }
    }
    match words.len() {
        0 => String::new(),
        1..=3 => format!(" ({})", words.join(", ")),
        more => format!(
            " ({}, and {} other reasons)",
            words[..2].join(", "),
            more - 2
        ),
    }
}

/// How many networks were dropped by something that was found.
fn dropped_by_rule(record: &Record) -> u32 {
    let asked = |source: &&Source| source.role == Role::Validator;
    let asked: BTreeSet<&str> = networks(record.sources.iter().filter(asked));
    let dropped = dropped(record).filter(|source| source.then.is_none());
    let count = networks(dropped).difference(&asked).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn dropped(record: &Record) -> impl Iterator<Item = &Source> {
    record
        .sources
        .iter()
        .filter(|source| Fate::of(source) == Fate::Dropped)
}

fn networks<'record>(sources: impl Iterator<Item = &'record Source>) -> BTreeSet<&'record str> {
    sources.map(|source| source.network.as_str()).collect()
}

/// By which rules, the first one named.
fn culprits(record: &Record) -> String {
    let mut all: Vec<String> = Vec::new();
    for dropped in dropped(record).filter_map(|source| source.dropped.as_ref()) {
        let culprit = culprit(dropped, BRIEF_RULE);
        if !all.contains(&culprit) {
            all.push(culprit);
        }
    }
    match all.as_slice() {
        [] => String::new(),
        [one] => format!(" by {one}"),
        [first, others @ ..] => {
            format!(" by {first}, and {}", many(others.len(), "other rule"))
        }
    }
}

/// What a CA needs at that day, and whether this is that.
pub fn arithmetic(record: &Record) -> String {
    let rules = Rules::at(record.opened_at);
    let assessment = &record.assessment;
    let needed = assessment.needed;
    let must = match rules.remote {
        0 => "On that day one network was enough".to_owned(),
        remote => format!(
            "On that day a public CA asks from its primary network and {remote} remote ones or more, of which {} may fail ({} of 6 or more): {needed} at least must be answered",
            tolerated(remote),
            tolerated(6),
        ),
    };
    let came = assessment.networks.saturating_add(assessment.dropped);
    let failed = came.saturating_sub(assessment.answered);
    let is = match assessment.outcome {
        Outcome::Open => "it is not over yet".to_owned(),
        Outcome::Quiet => "none came".to_owned(),
        Outcome::Answered if assessment.answered >= needed => {
            format!("{} were: enough", assessment.answered)
        }
        Outcome::Answered => format!(
            "{} came and {} answered: a CA of one's own may need no more, else the others were stopped before this host, or not sent",
            assessment.answered,
            if assessment.answered == 1 {
                "was"
            } else {
                "were"
            },
        ),
        Outcome::Tolerated => format!(
            "{} of {came} were, {failed} failed: as far as can be seen from here that is enough",
            assessment.answered
        ),
        Outcome::Doubtful => format!(
            "{} of {came} were; {failed} not, which is too many if they all were the CA's",
            assessment.answered
        ),
        Outcome::Failed if assessment.answered >= needed => {
            format!(
                "{} of {came} were, and still it failed",
                assessment.answered
            )
        }
        Outcome::Failed => format!("{} of {came} were: not enough", assessment.answered),
    };
    format!("{must}; {is}.")
}

/// From which parts of the world somebody was answered, where that is known.
pub fn regions(record: &Record) -> Option<String> {
    let answered = record.sources.iter().filter(|source| source.is_answered());
    let known = |source: &Source| source.place.as_ref().and_then(|place| place.region);
    let mut regions: Vec<_> = answered.clone().filter_map(known).collect();
    regions.sort_unstable();
    regions.dedup();
    if regions.is_empty() {
        return None;
    }
    let parts: Vec<&str> = regions
        .iter()
        .map(|region| part_of_the_world(*region))
        .collect();
    let rules = Rules::at(record.opened_at);
    let is_short = u64::from(rules.regions) > regions.len() as u64;
    let but = match is_short && answered.clone().all(|source| known(source).is_some()) {
        true => format!(
            "; a public CA needs {} for its remote networks",
            rules.regions
        ),
        false => String::new(),
    };
    let count = many(regions.len(), "registry region");
    Some(format!("Answered in {count} ({}){but}.", parts.join("; ")))
}

/// What this report cannot know.
pub fn limits(record: &Record) -> &'static str {
    match record.assessment.outcome {
        Outcome::Open => "The primary network comes first, and the others only if it is content.",
        _ => {
            "Who is not seen here was not blocked here: the primary network comes first, a CA calls the rest off once enough were answered, and others may be stopped before this host."
        }
    }
}

/// What a CA would say then, in the words of Let's Encrypt's Boulder.
pub fn ca_says(record: &Record) -> Option<String> {
    let assessment = &record.assessment;
    let said = record.said.as_ref();
    if matches!(
        assessment.outcome,
        Outcome::Open | Outcome::Quiet | Outcome::Answered
    ) || said.is_some_and(|said| said.failed.is_empty() && !said.renewed.is_empty())
    {
        return None;
    }
    let error = match record.sources.iter().flat_map(unanswered).next() {
        _ if assessment.dropped > 0 => {
            "Timeout during connect (likely firewall problem)".to_owned()
        }
        Some(visit) => error_of(visit),
        None => return None,
    };
    let during = match assessment.answered {
        0 => "",
        _ => "During secondary validation: ",
    };
    Some(format!(
        "A CA that fails for this says: \"{during}{error}\"."
    ))
}

fn error_of(visit: &Visit) -> String {
    match (visit.status, visit.reason.as_str()) {
        (Some(200), _) => "The key authorization file from the server did not match".to_owned(),
        (Some(status), _) => format!("Invalid response from …: {status}"),
        (None, "no-answer" | "handshake-failed" | "not-handshake") => {
            "Cannot negotiate ALPN protocol \"acme-tls/1\"".to_owned()
        }
        (None, "head-timeout" | "hello-timeout") => "Timeout after connect".to_owned(),
        (None, _) => "Connection reset by peer".to_owned(),
    }
}

/// How far the kernel's word goes.
pub fn evidence(record: &Record) -> String {
    let evidence = &record.evidence;
    match (evidence.is_kept, &evidence.incomplete) {
        (false, _) => {
            "the kernel's packets were not watched: nothing is known of who was dropped".to_owned()
        }
        (true, Some(why)) => format!("incomplete: {}", super::escape::short(why, 200)),
        (true, None) => format!(
            "whole: {} of {}, {} reached the gate",
            many(evidence.packets, "first packet"),
            many(evidence.seen, "address"),
            evidence.reached,
        ),
    }
}
