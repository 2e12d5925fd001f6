//! One window as text: a screen of 80 columns.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::advice::{about_drop, other_advice};
use super::fate::{Fate, RULE, address, culprit, notes, place, requests};
use super::verdict;
use super::words::{attempts, doors, ended, many, names, offset, opened, plural};
use crate::observe::record::Outcome;
use crate::observe::record::{Record, Source};

/// How wide a screen is.
const COLUMNS: usize = 80;
/// Where what is said begins; before it stand labels.
const INDENT: usize = 10;
/// How many validators are listed.
const MAX_VALIDATORS: usize = 12;
/// How many rules, and how many addresses of each.
const MAX_RULES: usize = 4;
const MAX_DROPPED: usize = 3;
/// How many of those for whom no rule was found.
const MAX_UNREACHED: usize = 3;
/// How many visitors.
const MAX_VISITORS: usize = 3;

/// How many things to do, besides those for each rule.
const MAX_ADVICE: usize = 4;

/// Colour, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    /// Whether colours are written, by the codes of ECMA-48.
    pub is_on: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Nothing.
    Plain,
    /// All is well.
    Good,
    /// Something failed.
    Bad,
    /// Something may fail.
    Warning,
    /// Of less weight.
    Faint,
}

impl Paint {
    /// The text in the colour of what it means.
    pub fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if !self.is_on => return text.to_owned(),
            Ink::Plain => return text.to_owned(),
            Ink::Good => "32",
            Ink::Bad => "31;1",
            Ink::Warning => "33",
            Ink::Faint => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// One window. The first line says what it comes to; with nothing wrong it says that.
pub fn text(record: &Record, paint: Paint) -> String {
    let mut page = Page {
        out: String::new(),
        paint,
    };
    let ink = match record.assessment.outcome {
        _ if verdict::is_fine(record) => Ink::Good,
        Outcome::Failed => Ink::Bad,
        Outcome::Open => Ink::Plain,
        _ => Ink::Warning,
    };
    page.lines("", &verdict::headline(record), ink);
    page.out.push('\n');
    page.lines("opened", &opened(record), Ink::Plain);
    page.lines("", &doors(record), Ink::Plain);
    if let Some(identifiers) = &record.identifiers {
        page.lines("", &format!("for {}", names(identifiers)), Ink::Plain);
    }
    if !record.beside.is_empty() {
        page.lines(
            "",
            &format!("open beside it: {}", names(&record.beside)),
            Ink::Plain,
        );
    }
    let end = if record.assessment.was_cut {
        Ink::Bad
    } else {
        Ink::Plain
    };
    page.lines("ended", &ended(record), end);
    if let Some(said) = &record.said {
        if !said.renewed.is_empty() {
            page.lines(
                "client",
                &format!("renewed {}", names(&said.renewed)),
                Ink::Good,
            );
        }
        if !said.failed.is_empty() {
            page.lines(
                "client",
                &format!("could not renew {}", names(&said.failed)),
                Ink::Bad,
            );
        }
    }
    if let Some(attempts) = attempts(record) {
        page.lines("", &attempts, Ink::Plain);
    }
    page.out.push('\n');
    page.validators(record);
    page.dropped(record);
    page.unreached(record);
    page.visitors(record);
    let evidence = match (record.evidence.is_kept, &record.evidence.incomplete) {
        (true, None) => Ink::Faint,
        _ => Ink::Warning,
    };
    page.lines("evidence", &verdict::evidence(record), evidence);
    page.out.push('\n');
    page.identifiers(record);
    page.lines("verdict", &verdict::arithmetic(record), ink);
    if let Some(regions) = verdict::regions(record) {
        page.lines("", &regions, Ink::Plain);
    }
    page.lines("", verdict::limits(record), Ink::Faint);
    if let Some(says) = verdict::ca_says(record) {
        page.lines("", &says, Ink::Plain);
    }
    let advice = other_advice(record);
    for (at, line) in advice.iter().take(MAX_ADVICE).enumerate() {
        page.lines(if at == 0 { "do" } else { "" }, line, Ink::Plain);
    }
    page.more(advice.len(), MAX_ADVICE, "thing");
    page.out
}

struct Page {
    out: String,
    paint: Paint,
}

impl Page {
    /// A label and what is said, wrapped.
    fn lines(&mut self, label: &str, said: &str, ink: Ink) {
        let is_title = label.is_empty() && self.out.is_empty();
        let indent = if is_title { 0 } else { INDENT };
        for (at, line) in wrap(said, COLUMNS - indent).iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let width = indent;
            let _ = writeln!(self.out, "{label:<width$}{}", self.paint.ink(ink, line));
        }
    }

    fn validators(&mut self, record: &Record) {
        let all = of(record, &[Fate::Answered, Fate::Refused]);
        for (at, source) in all.iter().take(MAX_VALIDATORS).enumerate() {
            let (word, ink) = match Fate::of(source) {
                Fate::Answered => ("answered", Ink::Good),
                _ => ("refused", Ink::Bad),
            };
            let is_new = at == 0 || Fate::of(all[at - 1]) != Fate::of(source);
            let said = requests(source).into_iter().chain(notes(source, record));
            self.source(if is_new { word } else { "" }, ink, source, said.collect());
        }
        self.more(all.len(), MAX_VALIDATORS, "validator");
    }

    /// Those who were dropped, by what dropped them.
    fn dropped(&mut self, record: &Record) {
        let all = of(record, &[Fate::Dropped]);
        let mut rules: Vec<(String, Vec<&Source>)> = Vec::new();
        for source in &all {
            let Some(dropped) = &source.dropped else {
                continue;
            };
            let culprit = culprit(dropped, RULE);
            match rules.iter_mut().find(|(known, _)| *known == culprit) {
                Some((_, sources)) => sources.push(source),
                None => rules.push((culprit, vec![source])),
            }
        }
        for (culprit, sources) in rules.iter().take(MAX_RULES) {
            self.lines("dropped", &format!("by {culprit}"), Ink::Bad);
            for source in sources.iter().take(MAX_DROPPED) {
                self.stopped(source, record);
            }
            self.more(sources.len(), MAX_DROPPED, "address");
            if let Some((first, dropped)) = sources
                .first()
                .and_then(|source| Some((source, source.dropped.as_ref()?)))
            {
                let todo = about_drop(dropped, first.address, record);
                self.lines("", &format!("do: {todo}"), Ink::Plain);
            }
        }
        self.more(rules.len(), MAX_RULES, "rule");
    }

    /// Those who tried again, and nobody knows what stopped them.
    fn unreached(&mut self, record: &Record) {
        let all = of(record, &[Fate::Unreached]);
        if !all.is_empty() {
            self.lines(
                "unreached",
                "no rule was found that dropped them, and no connection came about:",
                Ink::Bad,
            );
        }
        for source in all.iter().take(MAX_UNREACHED) {
            self.stopped(source, record);
        }
        self.more(all.len(), MAX_UNREACHED, "address");
    }

    fn stopped(&mut self, source: &Source, record: &Record) {
        let packets = many(source.packets, "first packet");
        let said: Vec<String> = std::iter::once(packets)
            .chain(notes(source, record))
            .collect();
        self.source("", Ink::Plain, source, vec![said.join("; ")]);
    }

    fn visitors(&mut self, record: &Record) {
        let all = of(record, &[Fate::Visitor]);
        for (at, source) in all.iter().take(MAX_VISITORS).enumerate() {
            let said: Vec<String> = requests(source)
                .into_iter()
                .chain(notes(source, record))
                .collect();
            let label = if at == 0 { "visitors" } else { "" };
            self.source(label, Ink::Faint, source, vec![said.join("; ")]);
        }
        self.more(all.len(), MAX_VISITORS, "visitor");
        let strays = of(record, &[Fate::Stray]).len() as u64;
        if strays > 0 {
            let said = format!(
                "{} sent one first packet and never tried again: scans, or spoofed",
                many(strays, "address")
            );
            self.lines("strays", &said, Ink::Faint);
        }
        if record.more_sources > 0 {
            let said = format!(
                "{} others came, who are not on the record",
                many(record.more_sources, "time")
            );
            self.lines("", &said, Ink::Warning);
        }
    }

    /// An address: when, who, where, and what is said of it, beside that where it fits.
    fn source(&mut self, label: &str, ink: Ink, source: &Source, said: Vec<String>) {
        let place = place(source.place.as_ref());
        let mut line = format!("{:<9} {} {place}", offset(source.first), address(source));
        line.truncate(line.trim_end().len());
        let mut said: VecDeque<String> = said.into();
        if let Some(first) = said.front() {
            let width = INDENT + line.chars().count() + 2;
            if width + first.chars().count() <= COLUMNS {
                line = format!("{line}  {first}");
                said.pop_front();
            }
        }
        let label = self.paint.ink(ink, &format!("{label:<INDENT$}"));
        let _ = writeln!(self.out, "{label}{line}");
        for line in said {
            self.lines("", &format!("  {line}"), Ink::Plain);
        }
    }

    fn more(&mut self, all: usize, shown: usize, one: &str) {
        if all > shown {
            let left = all - shown;
            let said = format!("  and {left} more {}", plural(left as u64, one));
            self.lines("", &said, Ink::Faint);
        }
    }

    /// Identifiers beside each other, where there are several or one failed.
    fn identifiers(&mut self, record: &Record) {
        let all = &record.assessment.identifiers;
        if all.len() < 2 && !all.iter().any(|one| one.has_failed) {
            return;
        }
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by_key(|one| !one.has_failed);
        for (at, one) in sorted.iter().take(super::words::NAMES).enumerate() {
            let name = super::escape::short(&one.identifier, super::words::NAME);
            let (word, ink) = match (one.has_failed, record.end.is_some()) {
                (false, _) => ("", Ink::Plain),
                (true, true) => (": failed", Ink::Bad),
                (true, false) => (": not enough yet", Ink::Plain),
            };
            let networks = many(one.networks, "network");
            let said = format!("{name}: {} of {networks} answered{word}", one.answered);
            self.lines(if at == 0 { "names" } else { "" }, &said, ink);
        }
        self.more(all.len(), super::words::NAMES, "name");
    }
}

/// The sources of such a fate, sorted by fate and then as they came.
fn of<'record>(record: &'record Record, fates: &[Fate]) -> Vec<&'record Source> {
    let mut all: Vec<&Source> = record
        .sources
        .iter()
        .filter(|source| fates.contains(&Fate::of(source)))
        .collect();
    all.sort_by_key(|source| Fate::of(source));
    all
}

/// Breaks a line at spaces; a word that is longer than a line is broken where that ends. Spaces before
/// the first word stand before every line, and leave half of it to words.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let indent: String = text
        .chars()
        .take(columns / 2)
        .take_while(|character| *character == ' ')
        .collect();
    let mut lines = Vec::new();
    let mut line = indent.clone();
    let mut width = indent.len();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        if width > indent.len() && width + 1 + word.len() > columns {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            width = indent.len();
        }
        if width > indent.len() {
            line.push(' ');
            width += 1;
        }
        while width + word.len() > columns {
            let rest = word.split_off(columns - width);
            line.extend(word);
            lines.push(std::mem::replace(&mut line, indent.clone()));
            width = indent.len();
            word = rest;
        }
        width += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}
