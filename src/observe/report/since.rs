//! What many windows come to: outcomes, networks that are new, networks that never got through, and for
//! how long windows were open.
//!
//! It compares a span with what came before it, as far as records reach. It never makes a list of whom
//! to let in, and says why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::escape::{clip, short};
use super::fate::{Fate, RULE, culprit, place, unanswered};
use super::text::{Ink, Paint, wrap};
use super::verdict::{headline, is_fine};
use super::words::{NAME, day, length, many, plural};
use crate::observe::record::Outcome;
use crate::observe::record::{Record, Role, Source};

/// How many rows of one table are shown.
const MAX_ROWS: usize = 12;
/// How wide a column of the text is at most, and a line.
const MAX_COLUMN: usize = 34;
const COLUMNS: usize = 80;

/// What the daemon counts against `[budget] month`, for the last 30 days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Whose time it is.
    pub of: Account,
    /// How much of it is used, in milliseconds.
    pub used: u64,
    /// How much there is, in milliseconds; `None` is any.
    pub allowed: Option<u64>,
}

/// Whose time a window takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// Everybody's; what is open at once counts once.
    All,
    /// A lease name's, without the process id of its holder, of one uid.
    Lease(String, u32),
    /// An identifier's.
    Identifier(String),
}

/// Many windows.
#[derive(Clone, Debug)]
pub struct Summary {
    from: u64,
    span: u64,
    /// Whether there is anything before the span.
    has_before: bool,
    windows: u64,
    fine: u64,
    outcomes: [(Outcome, &'static str, u64); 6],
    cut: u64,
    networks: u64,
    new: Vec<[String; 4]>,
    stopped: Vec<[String; 4]>,
    open: Vec<[String; 3]>,
    look: Vec<String>,
}

/// Rows of text under a head.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Its columns.
    pub head: Vec<String>,
    /// Its rows, each as long as the head.
    pub rows: Vec<Vec<String>>,
}

/// Whether a record lies in the span of so many milliseconds before now.
pub fn is_within(record: &Record, span: u64, now: u64) -> bool {
    record.opened_at >= now.saturating_sub(span)
}

impl Summary {
    /// What the last `span` milliseconds come to; `records` should reach as far again before that.
    /// `now` is in milliseconds after 1970.
    pub fn of(records: &[Record], span: u64, now: u64, budgets: &[Budget]) -> Self {
        let (within, before): (Vec<&Record>, Vec<&Record>) = records
            .iter()
            .partition(|record| is_within(record, span, now));
        let counted = |outcome: Outcome| {
            within
                .iter()
                .filter(|record| record.assessment.outcome == outcome)
                .count() as u64
        };
        let outcomes = [
            (Outcome::Answered, "answered"),
            (Outcome::Tolerated, "answered with some that failed"),
            (Outcome::Quiet, "without a validation"),
            (Outcome::Doubtful, "doubtful"),
            (Outcome::Failed, "failed"),
            (Outcome::Open, "still open"),
        ];
        let known: BTreeSet<&str> = before.iter().flat_map(|record| came(record)).collect();
        let now_came: BTreeSet<&str> = within.iter().flat_map(|record| came(record)).collect();
        Self {
            from: now.saturating_sub(span),
            span,
            has_before: !before.is_empty(),
            windows: within.len() as u64,
            fine: within.iter().filter(|record| is_fine(record)).count() as u64,
            outcomes: outcomes.map(|(outcome, word)| (outcome, word, counted(outcome))),
            cut: within
                .iter()
                .filter(|record| record.assessment.was_cut)
                .count() as u64,
            networks: now_came.len() as u64,
            new: new_networks(&within, &known),
            stopped: never_through(&within, &before),
            open: open_time(&within, now, budgets),
            look: to_look_at(&within),
        }
    }

    /// One line.
    pub fn headline(&self) -> String {
        let wrong = self.windows - self.fine;
        let said = match (self.windows, wrong) {
            (0, _) => "none was opened".to_owned(),
            (_, 0) => "nothing wrong".to_owned(),
            (_, wrong) => format!("{wrong} to look at"),
        };
        format!(
            "{} since {}: {said}",
            many(self.windows, "window"),
            day(self.from)
        )
    }

    /// What is said before the tables.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        let outcomes: Vec<String> = (self.outcomes.iter())
            .filter(|(_, _, count)| *count > 0)
            .map(|(_, word, count)| format!("{count} {word}"))
            .collect();
        if !outcomes.is_empty() {
            said.push(format!("By outcome: {}.", outcomes.join(", ")));
        }
        if self.cut > 0 {
            said.push(format!(
                "Nobody closed {} of them: cut by their deadlines.",
                self.cut
            ));
        }
        said.push(match self.has_before {
            true => format!(
                "Validators came from {}; {} new, compared with the {} before.",
                many(self.networks, "network"),
                self.new.len(),
                length(self.span)
            ),
            false => format!(
                "Validators came from {}; nothing is recorded before {} to compare them with.",
                many(self.networks, "network"),
                day(self.from)
            ),
        });
        said.push("acmegate never makes an allow-list of these: CAs do not publish from where they validate and change it at will, so a list of the last month's networks would fail the next renewal; and whoever runs a scanner could write himself onto it.".to_owned());
        said
    }

    /// The tables; those without rows are left out.
    pub fn tables(&self) -> Vec<Table> {
        let table = |title: &str, head: &[&str], rows: Vec<Vec<String>>| Table {
            title: title.to_owned(),
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: few(rows),
        };
        let new = match self.has_before {
            true => self.new.iter().map(|row| row.to_vec()).collect(),
            false => Vec::new(),
        };
        let mut all = vec![
            table(
                "New networks",
                &["network", "where", "first seen", "became"],
                new,
            ),
            table(
                "Networks that never got through",
                &["network", "where", "last seen", "stopped by"],
                self.stopped.iter().map(|row| row.to_vec()).collect(),
            ),
            table(
                "How long windows were open",
                &["of", "open", "budget of 30 days"],
                self.open.iter().map(|row| row.to_vec()).collect(),
            ),
        ];
        all.retain(|table| !table.rows.is_empty());
        all
    }

    /// As text.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let ink = if self.fine == self.windows {
            Ink::Good
        } else {
            Ink::Warning
        };
        let _ = writeln!(out, "{}\n", paint.ink(ink, &self.headline()));
        for sentence in self.sentences() {
            for line in wrap(&sentence, COLUMNS) {
                let _ = writeln!(out, "{line}");
            }
        }
        if !self.look.is_empty() {
            out.push_str("\nTo look at\n");
        }
        for line in self
            .look
            .iter()
            .take(MAX_ROWS)
            .flat_map(|line| wrap(&format!("  {line}"), COLUMNS))
        {
            let _ = writeln!(out, "{line}");
        }
        if let Some(left) = self
            .look
            .len()
            .checked_sub(MAX_ROWS)
            .filter(|left| *left > 0)
        {
            let _ = writeln!(out, "  and {left} more {}", plural(left as u64, "window"));
        }
        for Table { title, head, rows } in self.tables() {
            let _ = writeln!(out, "\n{title}");
            let width = |at: usize| {
                let cells = rows.iter().chain([&head]).filter_map(|row| row.get(at));
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
                    .min(MAX_COLUMN)
            };
            let widths: Vec<usize> = (0..head.len()).map(width).collect();
            for (number, row) in [&head].into_iter().chain(&rows).enumerate() {
                let cells = row
                    .iter()
                    .zip(&widths)
                    .enumerate()
                    .map(|(at, (cell, width))| {
                        // What stopped somebody stands last, and has what is left of the line.
                        let is_last = at + 1 == head.len();
                        let taken: usize = widths[..at].iter().map(|width| width + 2).sum();
                        let room = if is_last {
                            COLUMNS.saturating_sub(taken + 2).max(8)
                        } else {
                            *width
                        };
                        format!("{:<width$}", clip(cell, room))
                    });
                let line = format!("  {}", cells.collect::<Vec<_>>().join("  "));
                let ink = if number == 0 { Ink::Faint } else { Ink::Plain };
                let _ = writeln!(out, "{}", paint.ink(ink, line.trim_end()));
            }
        }
        out
    }
}

fn few(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let (all, columns) = (rows.len(), rows.first().map_or(0, Vec::len));
    if all > MAX_ROWS {
        rows.truncate(MAX_ROWS);
        let mut more = vec![String::new(); columns];
        if let Some(first) = more.first_mut() {
            *first = format!("and {} more", all - MAX_ROWS);
        }
        rows.push(more);
    }
    rows
}

/// Networks of validators.
fn came(record: &Record) -> impl Iterator<Item = &str> {
    let validators = record
        .sources
        .iter()
        .filter(|source| source.role == Role::Validator);
    validators.map(|source| source.network.as_str())
}

fn new_networks(within: &[&Record], known: &BTreeSet<&str>) -> Vec<[String; 4]> {
    let mut rows: BTreeMap<&str, (usize, Fate, &Source)> = BTreeMap::new();
    for (at, record) in within.iter().enumerate() {
        for source in record
            .sources
            .iter()
            .filter(|source| source.role == Role::Validator)
        {
            if known.contains(source.network.as_str()) {
                continue;
            }
            let fate = Fate::of(source);
            let row = rows.entry(&source.network).or_insert((at, fate, source));
            row.1 = row.1.min(fate);
        }
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, (at, ..))| *at);
    let row = |(network, (at, fate, source)): (&str, (usize, Fate, &Source))| {
        let became = if fate == Fate::Answered {
            "answered"
        } else {
            "refused"
        };
        [
            short(network, NAME),
            place(source.place.as_ref()),
            day(within[at].opened_at),
            became.to_owned(),
        ]
    };
    rows.into_iter().map(row).collect()
}

/// Networks that tried in earnest in the span, and were answered neither then nor before.
fn never_through(within: &[&Record], before: &[&Record]) -> Vec<[String; 4]> {
    let answered: BTreeSet<&str> = (within.iter().chain(before))
        .flat_map(|record| &record.sources)
        .filter(|source| source.is_answered())
        .map(|source| source.network.as_str())
        .collect();
    let mut rows: BTreeMap<&str, (&Record, &Source, u64)> = BTreeMap::new();
    for record in within {
        for source in &record.sources {
            let has_tried = source.is_in_earnest() || Fate::of(source) == Fate::Refused;
            // Who came by IPv4 afterwards did get through.
            if !has_tried || source.then.is_some() || answered.contains(source.network.as_str()) {
                continue;
            }
            let row = rows.entry(&source.network).or_insert((record, source, 0));
            *row = (record, source, row.2 + 1);
        }
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    // The most frequent first, and those of whom it is known what stopped them.
    rows.sort_by_key(|(_, (_, source, times))| {
        let is_known = source.dropped.is_some() || !source.visits.is_empty();
        (std::cmp::Reverse(*times), !is_known)
    });
    let row = |(network, (record, source, times)): (&str, (&Record, &Source, u64))| {
        let by = match (&source.dropped, unanswered(source).first()) {
            (_, Some(visit)) => short(&visit.reason, 32),
            (Some(dropped), None) => culprit(dropped, RULE),
            (None, None) => "nothing that was found here".to_owned(),
        };
        let often = if times > 1 {
            format!(" ({times} times)")
        } else {
            String::new()
        };
        [
            short(network, NAME),
            place(source.place.as_ref()),
            format!("{}{often}", day(record.opened_at)),
            by,
        ]
    };
    rows.into_iter().map(row).collect()
}

fn open_time(within: &[&Record], now: u64, budgets: &[Budget]) -> Vec<[String; 3]> {
    let mut spans: BTreeMap<Account, Vec<(u64, u64)>> = BTreeMap::new();
    for record in within {
        let open = match record.end {
            Some(end) => end.at,
            None => now.saturating_sub(record.opened_at).min(record.deadline),
        };
        let span = (record.opened_at, record.opened_at.saturating_add(open));
        let mut add = |account| spans.entry(account).or_default().push(span);
        add(Account::All);
        let counted = record.counted_as();
        let counted = counted.map_or_else(|| record.lease.clone(), |lease| lease.to_string());
        add(Account::Lease(counted, record.caller));
        for identifier in record.identifiers.iter().flatten() {
            add(Account::Identifier(identifier.clone()));
        }
    }
    let mut sums: Vec<(Account, u64)> = spans
        .into_iter()
        .map(|(account, spans)| (account, union(spans)))
        .collect();
    // All first; then leases and identifiers, those that were open longest first.
    let kind = |account: &Account| match account {
        Account::All => 0,
        Account::Lease(..) => 1,
        Account::Identifier(_) => 2,
    };
    sums.sort_by_key(|(account, sum)| (kind(account), std::cmp::Reverse(*sum)));
    let row = |(account, sum): &(Account, u64)| {
        let of = match account {
            Account::All => "all windows".to_owned(),
            Account::Lease(name, uid) => format!("lease {} of uid {uid}", short(name, NAME)),
            Account::Identifier(name) => short(name, NAME),
        };
        let budget = budgets.iter().find(|budget| budget.of == *account);
        let budget = budget.map_or_else(String::new, |budget| match budget.allowed {
            Some(allowed) => format!("{} of {} used", length(budget.used), length(allowed)),
            None => "none".to_owned(),
        });
        [of, length(*sum), budget]
    };
    let mut rows: Vec<[String; 3]> = Vec::new();
    for group in 0..3 {
        rows.extend(
            sums.iter()
                .filter(|(account, _)| kind(account) == group)
                .take(MAX_ROWS / 2)
                .map(row),
        );
    }
    rows
}

/// How long at least one of these was open.
fn union(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let (mut sum, mut reached) = (0_u64, 0);
    for (from, to) in spans {
        sum = sum.saturating_add(to.saturating_sub(from.max(reached)));
        reached = reached.max(to);
    }
    sum
}

/// The day and the headline of each window that is not fine, the last one first.
fn to_look_at(within: &[&Record]) -> Vec<String> {
    let strange = within.iter().rev().filter(|record| !is_fine(record));
    strange
        .map(|record| format!("{} {}", day(record.opened_at), headline(record)))
        .collect()
}

#[cfg(test)]
mod tests;
