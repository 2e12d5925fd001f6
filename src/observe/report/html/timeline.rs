//! The window as a line for each address: its first packet, its requests, their answers, the end.
//!
//! Positions are percentages, so that the drawing is as wide as the page and its text as large as any.

use std::fmt::Write as _;

use super::fate_words;
use crate::observe::record::{Record, Source};
use crate::observe::report::escape::html;
use crate::observe::report::fate::{Fate, address, place};
use crate::observe::report::words::{length, many, offset, took};

/// How many addresses are drawn.
const MAX_LANES: usize = 40;
/// How many requests of each.
const MAX_MARKS: usize = 50;
/// The height of a lane, and of the axis below them.
const LANE: usize = 40;
const AXIS: usize = 24;
/// The least time shown before and after what happened, in milliseconds.
const LEAST_MARGIN: u64 = 20;

/// What is shown, in milliseconds after the opening; never empty.
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    /// The whole window, or what happened if that is a small part of it.
    fn of(record: &Record, lanes: &[&Source]) -> Self {
        let visits = lanes.iter().flat_map(|source| &source.visits);
        let ends = visits
            .clone()
            .map(|visit| visit.at.saturating_add(visit.took / 1_000));
        let last = ends
            .chain(lanes.iter().map(|source| source.first))
            .max()
            .unwrap_or(0);
        let first = lanes.iter().map(|source| source.first).min().unwrap_or(0);
        let whole = record.end.map_or(last, |end| end.at.max(last)).max(1);
        let happened = last.saturating_sub(first);
        if happened.saturating_mul(4) >= whole {
            return Self { from: 0, to: whole };
        }
        let margin = (happened / 10).max(LEAST_MARGIN);
        Self {
            from: first.saturating_sub(margin),
            to: last.saturating_add(margin),
        }
    }

    fn holds(&self, millis: u64) -> bool {
        (self.from..=self.to).contains(&millis)
    }

    /// Where an instant is, in percent of the width.
    fn at(&self, millis: u64) -> f64 {
        let inside = millis.clamp(self.from, self.to) - self.from;
        let width = (self.to - self.from).max(1);
        // What f64 loses of such numbers nobody sees.
        2.0 + 96.0 * (inside as f64 / width as f64)
    }
}

/// Draws it, if anybody came.
pub fn draw(out: &mut String, record: &Record, number: usize) {
    let mut lanes: Vec<&Source> = record.sources.iter().collect();
    lanes.retain(|source| Fate::of(source) != Fate::Stray);
    if lanes.is_empty() {
        return;
    }
    let all = lanes.len();
    // Validators and whoever was stopped rather than visitors; then in the order in which they came.
    lanes.sort_by_key(|source| Fate::of(source));
    lanes.truncate(MAX_LANES);
    lanes.sort_by_key(|source| source.first);
    let span = Span::of(record, &lanes);
    let height = lanes.len() * LANE + AXIS;
    let _ = write!(
        out,
        "<figure>\n<figcaption>{}</figcaption>\n<svg width=\"100%\" height=\"{height}\" role=\"img\" aria-labelledby=\"timeline-{number}\">\n\
         <title id=\"timeline-{number}\">Timeline of {}</title>\n",
        caption(record, &span, all, lanes.len()),
        many(lanes.len(), "address"),
    );
    if let Some(end) = record.end.filter(|end| span.holds(end.at)) {
        let x = span.at(end.at);
        let bottom = height - AXIS;
        let _ = writeln!(
            out,
            "<line class=\"end\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"{bottom}\"><title>ended {}</title></line>",
            offset(end.at)
        );
    }
    for (at, source) in lanes.iter().enumerate() {
        lane(out, source, at * LANE, &span);
    }
    let y = height - 6;
    let middle = span.from + (span.to - span.from) / 2;
    for (x, anchor, millis) in [
        ("2%", "start", span.from),
        ("50%", "middle", middle),
        ("98%", "end", span.to),
    ] {
        let _ = writeln!(
            out,
            "<text class=\"faint\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            offset(millis)
        );
    }
    out.push_str("</svg>\n</figure>\n");
}

/// Numbers and our own words: markup as it is.
fn caption(record: &Record, span: &Span, all: usize, shown: usize) -> String {
    let mut said =
        "○ first packet, ● answered, ■ refused or something else, ✕ dropped or unreached"
            .to_owned();
    if span.from > 0 || record.end.is_some_and(|end| end.at > span.to) {
        let whole = record.end.map_or(record.deadline, |end| end.at);
        said.push_str(&format!(
            "; shown are {} of {}",
            length(span.to - span.from),
            length(whole)
        ));
    }
    if all > shown {
        said.push_str(&format!("; {shown} of {all} addresses"));
    }
    said
}

fn lane(out: &mut String, source: &Source, top: usize, span: &Span) {
    let fate = Fate::of(source);
    let (word, ink) = fate_words(fate);
    let y = top + 28;
    let _ = writeln!(
        out,
        "<text x=\"2%\" y=\"{}\">{} <tspan class=\"faint\">{}</tspan> <tspan class=\"{ink}\">{word}</tspan></text>\n\
         <line class=\"lane\" x1=\"2%\" x2=\"98%\" y1=\"{y}\" y2=\"{y}\"/>",
        top + 15,
        html(&address(source)),
        html(&place(source.place.as_ref())),
    );
    let first = span.at(source.first);
    if source.is_stopped() {
        // Positions in percent and shapes in pixels: a drawing in the drawing.
        let _ = writeln!(
            out,
            "<svg x=\"{first:.2}%\" y=\"{y}\" overflow=\"visible\"><path class=\"cross\" d=\"M-5-5L5 5M5-5L-5 5\"><title>{word}, {}</title></path></svg>",
            offset(source.first)
        );
        return;
    }
    let _ = writeln!(
        out,
        "<circle class=\"packet\" cx=\"{first:.2}%\" cy=\"{y}\" r=\"4\"><title>first packet {}</title></circle>",
        offset(source.first)
    );
    for visit in source.visits.iter().take(MAX_MARKS) {
        let until = visit.at.saturating_add(visit.took / 1_000);
        let (from, to) = (span.at(visit.at), span.at(until));
        let ink = match (visit.is_answer(), visit.challenge.is_some()) {
            (true, _) => "good",
            (false, true) => "bad",
            (false, false) => "warn",
        };
        let title = html(&format!(
            "{}: {}, {}",
            offset(visit.at),
            super::super::escape::short(&visit.reason, 32),
            took(visit.took)
        ));
        let _ = writeln!(
            out,
            "<line class=\"busy {ink}\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"{y}\" y2=\"{y}\"/>"
        );
        let _ = match visit.is_answer() {
            true => writeln!(
                out,
                "<circle class=\"{ink}\" cx=\"{to:.2}%\" cy=\"{y}\" r=\"5\"><title>{title}</title></circle>"
            ),
            false => writeln!(
                out,
                "<svg x=\"{to:.2}%\" y=\"{y}\" overflow=\"visible\"><rect class=\"{ink}\" x=\"-5\" y=\"-5\" width=\"10\" height=\"10\"><title>{title}</title></rect></svg>"
            ),
        };
    }
}
