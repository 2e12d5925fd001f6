//! The exam: the world knocks at the twin's door, with the window shut and open.

mod ways_out;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::entrances::doors;
use super::knock::undecided;
use super::order::{Answer, Order, PATIENCE, Source, Window};
use super::visits::{Visit, visits};
use super::{NOT_CARRIED, TwinError, prove_by};
use crate::doctor::case::Case;
use crate::doctor::finding::{Area, Exam, Finding, Severity};
use crate::doctor::path::{End, Fate};
use crate::firewall::ruleset::{Mode, Settings, Shut};
use crate::gate::lease::Family;

crate::findings! { Firewall:
    /// Packets of the whole world were dropped in the twin while the window was open.
    PROVED_DROPPED = "proved-dropped";
    /// Those of some regions were, and others passed.
    PROVED_DROPPED_FOR_SOME = "proved-dropped-for-some";
    /// They went missing, and no rule did it.
    PROVED_LOST = "proved-lost";
    /// They passed, and what answers them was dropped on its way out.
    PROVED_ANSWERS_DROPPED = "proved-answers-dropped";
    /// They passed, to another port or another host.
    PROVED_ELSEWHERE = "proved-elsewhere";
    /// They passed while no window was open.
    PROVED_OPEN_WITHOUT_WINDOW = "proved-open-without-a-window";
    /// Those of the allow-list were dropped while no window was open.
    PROVED_LISTED_DROPPED = "proved-listed-dropped";
    /// They passed.
    PROVED_PASSES = "proved-passes";
}

/// A quorum forgives one perspective of three or more; when more than this share is shut out, it fails.
const FORGIVEN: usize = 4;
/// As many lines of evidence as anybody reads.
const MOST_EVIDENCE: usize = 6;

/// Copies the live ruleset, or a saved one, and tells what becomes of the world's first packets.
pub async fn examine(case: &Case, source: Source) -> Exam {
    examine_by(Path::new("/proc/self/exe"), case, source).await
}

/// The same by another copy of this program.
pub async fn examine_by(program: &Path, case: &Case, source: Source) -> Exam {
    let mut exam = Exam::of(Area::Firewall);
    let settings = case.settings();
    let doors = match doors().await {
        Ok(doors) if !doors.is_empty() => doors,
        Ok(_) => {
            let told = "no twin was made: no interface of this host has an address that the Internet could ask for";
            exam.not_covered.push(told.to_owned());
            return exam;
        }
        Err(error) => {
            exam.not_covered.push(format!("no twin was made: {error}"));
            return exam;
        }
    };
    let visits = visits(&doors, &settings.ports, &case.allow);
    let windows = match settings.mode {
        Mode::GateOnly => vec![Window::Open],
        _ => vec![Window::Shut, Window::Open],
    };
    let order = Order {
        source,
        settings: Some(settings.clone()),
        windows: windows.clone(),
        knocks: visits.iter().map(|visit| visit.knock.clone()).collect(),
        patience: PATIENCE,
    };
    let answer = match prove_by(program, &order).await {
        Ok(answer) => answer,
        Err(error) => {
            refuse(&mut exam, &error);
            return exam;
        }
    };
    exam.looked_at.push(format!(
        "a twin of the ruleset ({}), {} first packets with the window {}",
        answer.copied,
        visits.len(),
        match windows.len() {
            1 => "open",
            _ => "shut and open",
        }
    ));
    exam.looked_at.extend(
        answer
            .otherwise
            .iter()
            .map(|what| format!("otherwise than live, without consequence: {what}")),
    );
    exam.not_covered.extend(
        answer
            .not_carried
            .iter()
            .map(|what| format!("not in the twin: {what}")),
    );
    let runs = Runs::of(&visits, &windows, &answer);
    if !answer.has_guard && settings.mode != Mode::GateOnly {
        // Without our part nothing opens, and that is somebody else's finding.
        return exam;
    }
    open_findings(&mut exam, &runs);
    shut_findings(&mut exam, &runs, &settings);
    exam
}

fn refuse(exam: &mut Exam, error: &TwinError) {
    exam.not_covered.push(format!("no twin was made: {error}"));
    let ways = error.ways_out().iter();
    exam.not_covered
        .extend(ways.map(|way| format!("  to allow it: {way}")));
}

/// What became of each visit in each run.
pub(super) struct Runs<'a> {
    shut: Vec<Seen<'a>>,
    open: Vec<Seen<'a>>,
}

#[derive(Clone, Copy)]
struct Seen<'a> {
    visit: &'a Visit,
    fate: &'a Fate,
    /// What became of the answer.
    reply: Option<&'a Fate>,
    advice: Option<&'a str>,
}

impl<'a> Runs<'a> {
    fn of(visits: &'a [Visit], windows: &[Window], answer: &'a Answer) -> Self {
        let run = |wanted: Window| {
            let index = windows.iter().position(|window| *window == wanted);
            let of_run = |index: usize| {
                let replies = answer.replies.get(index)?;
                Some((answer.fates.get(index)?, replies, answer.advice.get(index)?))
            };
            let Some((fates, replies, advice)) = index.and_then(of_run) else {
                return Vec::new();
            };
            let seen = visits.iter().zip(fates).zip(replies).zip(advice);
            seen.map(|(((visit, fate), reply), advice)| Seen {
                visit,
                fate,
                reply: reply.as_ref(),
                advice: advice.as_deref(),
            })
            .collect()
        };
        Self {
            shut: run(Window::Shut),
            open: run(Window::Open),
        }
    }

    /// Of an order with one run, in which the window was open.
    pub(super) fn of_open(visits: &'a [Visit], answer: &'a Answer) -> Self {
        Self::of(visits, &[Window::Open], answer)
    }
}

impl Seen<'_> {
    fn is_of(&self, port: u16, family: Family) -> bool {
        self.visit.knock.port == port && Family::of(self.visit.knock.source) == family
    }

    /// `from 23.20.30.40 (North America) to 192.0.2.1 by eth0: inet filter input: its policy drop`
    fn evidence(&self) -> String {
        let knock = &self.visit.knock;
        let mut text = format!("from {}", knock.source);
        let _ = match self.visit.region {
            Some(region) => write!(text, " ({region})"),
            None => write!(text, " (on the allow-list)"),
        };
        let _ = write!(text, " to {} by {}: ", knock.destination, knock.interface);
        let _ = match (&self.fate.end, self.fate.culprit()) {
            (End::Dropped { rejects: true }, Some(step)) => write!(text, "rejected by {step}"),
            (End::Dropped { .. }, Some(step)) => write!(text, "dropped by {step}"),
            (End::Dropped { .. }, None) => write!(text, "dropped"),
            (End::Lost(why), _) => write!(text, "lost: {why}"),
            (End::Delivered { address, port }, _) => {
                write!(text, "delivered to {address} port {port}")
            }
            (
                End::Forwarded {
                    interface,
                    address,
                    port,
                },
                _,
            ) => write!(text, "sent on to {address} port {port} by {interface}"),
        };
        text
    }

    /// Whether a rule on its way, or on its answer's, is not the one that stands on the host.
    fn is_uncertain(&self) -> bool {
        let replied = self.reply.into_iter().flat_map(|reply| &reply.steps);
        let mut steps = self.fate.steps.iter().chain(replied);
        steps.any(|step| step.verdict == NOT_CARRIED)
    }

    /// Whether it was let in, and its answer was not let out.
    fn is_silenced(&self) -> bool {
        let reply = self.reply.filter(|reply| undecided(reply).is_none());
        self.fate.passes() && reply.is_some_and(|reply| !reply.passes())
    }

    /// Whether it passes there and back, as far as that can be told.
    fn gets_through(&self) -> bool {
        self.fate.passes() && !self.is_silenced()
    }
}

fn word_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// Which ports and families were knocked at.
fn questions(seen: &[Seen<'_>]) -> Vec<(u16, Family)> {
    let mut questions: Vec<(u16, Family)> = Vec::new();
    for one in seen {
        let question = (one.visit.knock.port, Family::of(one.visit.knock.source));
        if !questions.contains(&question) {
            questions.push(question);
        }
    }
    questions
}

pub(super) fn open_findings(exam: &mut Exam, runs: &Runs<'_>) {
    let questions = questions(&runs.open);
    let strangers = |port: u16, family: Family| -> Vec<Seen<'_>> {
        let all = runs.open.iter().copied();
        all.filter(|one| one.visit.region.is_some() && one.is_of(port, family))
            .collect()
    };
    for &(port, family) in &questions {
        let mut world = best_door(&strangers(port, family));
        let word = word_of(family);
        if let Some(one) = world.iter().find(|one| undecided(one.fate).is_some()) {
            exam.not_covered.push(format!(
                "what becomes of first packets to TCP port {port} over {word}: {}",
                one.evidence()
            ));
        }
        world.retain(|one| undecided(one.fate).is_none());
        if world.is_empty() {
            continue;
        }
        let (passed, stopped): (Vec<Seen<'_>>, Vec<Seen<'_>>) =
            world.iter().partition(|one| one.fate.passes());
        // Who cannot get in by one family turns to the other.
        let other_passes = questions.iter().any(|&(other_port, other)| {
            let all = best_door(&strangers(other_port, other));
            other_port == port && other != family && all.iter().all(Seen::gets_through)
        });
        let is_uncertain = world.iter().any(Seen::is_uncertain);
        let fault = match is_uncertain || other_passes {
            true => Severity::Doubt,
            false => Severity::Fault,
        };
        let answers = ways_out::finding(exam, &passed, (port, word), fault, world.len());
        let is_silenced = answers.is_some();
        exam.findings.extend(answers);
        let finding = match (passed.is_empty(), stopped.first()) {
            (_, None) => {
                if let Some(finding) = elsewhere(&passed, port, word) {
                    exam.findings.push(finding);
                }
                if !is_silenced {
                    exam.findings.push(Finding::new(
                        PROVED_PASSES,
                        Severity::Fine,
                        format!("first packets of the whole world get to TCP port {port} over {word} while a window is open"),
                    ).at(port));
                }
                continue;
            }
            (true, Some(first)) if matches!(first.fate.end, End::Lost(_)) => Finding::new(
                PROVED_LOST,
                fault,
                format!(
                    "first packets to TCP port {port} over {word} go missing on this host, and no rule drops them"
                ),
            ),
            (true, Some(_)) => Finding::new(
                PROVED_DROPPED,
                fault,
                format!(
                    "TCP port {port} is shut to the whole world over {word} while a window is open"
                ),
            ),
            (false, Some(_)) => {
                let is_fatal = stopped.len() * FORGIVEN > world.len();
                let severity = if is_fatal { fault } else { Severity::Doubt };
                let mut regions: Vec<&str> =
                    stopped.iter().filter_map(|one| one.visit.region).collect();
                regions.dedup();
                Finding::new(
                    PROVED_DROPPED_FOR_SOME,
                    severity,
                    format!(
                        "TCP port {port} is shut to some of the world over {word} while a window is open: {}",
                        regions.join(", ")
                    ),
                )
            }
        };
        exam.findings
            .push(with_evidence(finding.at(port), &stopped));
    }
}

/// What was knocked at by the door by which most got through: a host may well be shut on its inner side.
fn best_door<'a>(seen: &[Seen<'a>]) -> Vec<Seen<'a>> {
    let mut doors: Vec<(&str, IpAddr)> = Vec::new();
    for one in seen {
        let door = (
            one.visit.knock.interface.as_str(),
            one.visit.knock.destination,
        );
        if !doors.contains(&door) {
            doors.push(door);
        }
    }
    let by = |(interface, address): &(&str, IpAddr)| -> Vec<Seen<'a>> {
        let knocks = seen.iter().copied();
        knocks
            .filter(|one| {
                one.visit.knock.interface == *interface && one.visit.knock.destination == *address
            })
            .collect()
    };
    let passed = |door: &(&str, IpAddr)| by(door).iter().filter(|one| one.gets_through()).count();
    // The first of the best.
    let best = doors.iter().rev().max_by_key(|door| passed(door));
    best.map(by).unwrap_or_default()
}

fn with_evidence(mut finding: Finding, seen: &[Seen<'_>]) -> Finding {
    for one in seen.iter().take(MOST_EVIDENCE) {
        finding = finding.seen(one.evidence());
    }
    let mut told: Vec<&str> = Vec::new();
    for advice in seen.iter().filter_map(|one| one.advice) {
        if !told.contains(&advice) {
            told.push(advice);
            finding = finding.remedy(advice.trim_end_matches('.'));
        }
    }
    if let Some(first) = seen.first() {
        let knock = &first.visit.knock;
        let path = format!(
            "the whole path: `acmegate explain {} {} --to {} --in {} --window open`",
            knock.source, knock.port, knock.destination, knock.interface
        );
        finding = finding.remedy(path);
    }
    finding
}

fn elsewhere(passed: &[Seen<'_>], port: u16, word: &str) -> Option<Finding> {
    let is_elsewhere = |one: &&Seen<'_>| match &one.fate.end {
        End::Delivered { port: arrived, .. } => *arrived != port,
        End::Forwarded { .. } => true,
        _ => false,
    };
    let elsewhere: Vec<Seen<'_>> = passed.iter().filter(is_elsewhere).copied().collect();
    let first = elsewhere.first()?;
    let finding = Finding::new(
        PROVED_ELSEWHERE,
        Severity::Doubt,
        format!(
            "what comes for TCP port {port} over {word} is sent elsewhere: whoever is there must answer the challenge"
        ),
    );
    Some(finding.at(port).seen(first.evidence()))
}

fn shut_findings(exam: &mut Exam, runs: &Runs<'_>, settings: &Settings) {
    for (port, family) in questions(&runs.shut) {
        let of_question = |one: &&Seen<'_>| one.is_of(port, family);
        let word = word_of(family);
        let all: Vec<Seen<'_>> = runs.shut.iter().filter(of_question).copied().collect();
        let (listed, strangers): (Vec<Seen<'_>>, Vec<Seen<'_>>) =
            all.into_iter().partition(|one| one.visit.region.is_none());
        let passed: Vec<Seen<'_>> = strangers
            .into_iter()
            .filter(|one| one.fate.passes())
            .collect();
        if !passed.is_empty() && settings.closed.of(family) != Shut::Pass {
            let text =
                format!("the world gets to TCP port {port} over {word} while no window is open");
            let finding = Finding::new(PROVED_OPEN_WITHOUT_WINDOW, Severity::Doubt, text).at(port);
            let seen = passed.iter().take(MOST_EVIDENCE);
            exam.findings
                .push(seen.fold(finding, |finding, one| finding.seen(one.evidence())));
        }
        let stopped: Vec<Seen<'_>> = listed
            .into_iter()
            .filter(|one| !one.fate.passes() && undecided(one.fate).is_none())
            .collect();
        if let Some(first) = stopped.first() {
            let text =
                format!("sources of the allow-list do not get to TCP port {port} over {word}");
            let finding = Finding::new(PROVED_LISTED_DROPPED, Severity::Doubt, text).at(port);
            exam.findings.push(finding.seen(first.evidence()));
        }
    }
}

#[cfg(test)]
mod tests;
