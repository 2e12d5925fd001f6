//! The letter as text: a screen of 80 columns.

use std::fmt::Write as _;

use super::Letter;
use crate::doctor::finding::{Area, Finding, Severity};
use crate::observe::report::escape::plain;
use crate::observe::report::words::many;
use crate::observe::report::{Ink, Paint, wrap};

/// How wide a screen is.
const COLUMNS: usize = 80;
/// Where what is said begins; before it stand labels.
const INDENT: usize = 10;

/// How many names of one finding are written out; JSON has all of them.
const MAX_NAMES: usize = 5;
/// How much evidence of one finding is.
const MAX_EVIDENCE: usize = 8;

/// The letter. The first line says what it comes to; with nothing wrong it is short.
pub fn text(letter: &Letter, paint: Paint) -> String {
    let mut page = Page {
        out: String::new(),
        paint,
    };
    page.title(&headline(letter), ink(letter.severity));
    for finding in &letter.findings {
        if finding.severity > Severity::Fine {
            page.finding(finding);
        }
    }
    let fine: Vec<&Finding> = letter
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Fine)
        .collect();
    if !fine.is_empty() {
        page.out.push('\n');
    }
    for (at, finding) in fine.into_iter().enumerate() {
        page.said(
            if at == 0 { "fine" } else { "" },
            &sentence(finding),
            Ink::Good,
        );
    }
    if letter.looked_at.iter().any(|looked| !looked.at.is_empty()) {
        page.out.push('\n');
    }
    let looked = letter
        .looked_at
        .iter()
        .filter(|looked| !looked.at.is_empty());
    for (at, looked) in looked.enumerate() {
        let said = format!("{}: {}", looked.area, looked.at.join("; "));
        page.said(if at == 0 { "examined" } else { "" }, &said, Ink::Faint);
    }
    for (at, line) in letter.not_covered.iter().enumerate() {
        page.said(if at == 0 { "not seen" } else { "" }, line, Ink::Warning);
    }
    page.out
}

fn headline(letter: &Letter) -> String {
    let who = match letter.names.as_slice() {
        [] => "this host".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, rest @ ..] => format!("{one} and {} others", rest.len()),
    };
    let count = |severity| {
        let of = letter
            .findings
            .iter()
            .filter(|finding| finding.severity == severity);
        of.count()
    };
    match letter.severity {
        Severity::Fault => {
            let faults = many(count(Severity::Fault), "fault");
            format!("A validation of {who} fails: {faults}")
        }
        Severity::Doubt => {
            let doubts = letter.findings.iter();
            let doubts = doubts.filter(|finding| finding.severity == Severity::Doubt);
            // What seals hold is in nobody's way.
            let (seals, doubts): (Vec<&Finding>, Vec<&Finding>) =
                doubts.partition(|finding| finding.code.area == Area::Sandbox);
            match (doubts.len(), seals.len()) {
                (0, 0) => {
                    format!("Nothing was found in the way of {who}, and not everything was seen")
                }
                (0, seals) => format!(
                    "Nothing was found in the way of {who}, and the seals do not hold: {}",
                    many(seals, "doubt")
                ),
                (doubts, seals) => format!(
                    "A validation of {who} may fail: {}",
                    many(doubts + seals, "doubt")
                ),
            }
        }
        Severity::Advice | Severity::Fine => format!("Nothing is in the way of {who}"),
    }
}

/// The names it is true of, and what was found.
fn sentence(finding: &Finding) -> String {
    match finding.names.as_slice() {
        [] => finding.finding.clone(),
        names if names.len() > MAX_NAMES => {
            let shown = names[..MAX_NAMES - 1].join(", ");
            let others = names.len() - (MAX_NAMES - 1);
            format!("{shown} and {others} others: {}", finding.finding)
        }
        names => format!("{}: {}", names.join(", "), finding.finding),
    }
}

fn ink(severity: Severity) -> Ink {
    match severity {
        Severity::Fine => Ink::Good,
        Severity::Advice => Ink::Plain,
        Severity::Doubt => Ink::Warning,
        Severity::Fault => Ink::Bad,
    }
}

struct Page {
    out: String,
    paint: Paint,
}

impl Page {
    fn title(&mut self, said: &str, ink: Ink) {
        for line in wrap(&plain(said), COLUMNS) {
            let _ = writeln!(self.out, "{}", self.paint.ink(ink, &line));
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.out.push('\n');
        let label = finding.severity.as_str();
        self.said(label, &sentence(finding), ink(finding.severity));
        for (at, line) in finding.evidence.iter().take(MAX_EVIDENCE).enumerate() {
            self.said(if at == 0 { "seen" } else { "" }, line, Ink::Plain);
        }
        if let more @ 1.. = finding.evidence.len().saturating_sub(MAX_EVIDENCE) {
            self.said("", &format!("and {more} more, in `--json`"), Ink::Faint);
        }
        for (at, line) in finding.remedy.iter().enumerate() {
            self.said(if at == 0 { "do" } else { "" }, line, Ink::Plain);
        }
    }

    /// A label and what is said, wrapped.
    fn said(&mut self, label: &str, said: &str, ink: Ink) {
        for (at, line) in wrap(&plain(said), COLUMNS - INDENT).iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let line = self.paint.ink(ink, line);
            let _ = writeln!(self.out, "{label:<INDENT$}{line}");
        }
    }
}
