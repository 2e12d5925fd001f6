//! Windows as one page: nothing is loaded and no script runs, whatever stands in a record.
//!
//! The policy in the page's head allows our own style sheet, by its digest, and nothing else; what
//! comes from a record is escaped besides. All that the drawings show stands in the tables, too.

mod timeline;
mod world;

use std::fmt::Write as _;

use super::advice::advice;
use super::escape::html;
use super::fate::{self, Fate, RULE, address, culprit, notes, part_of_the_world, requests};
use super::since::{Summary, Table};
use super::verdict;
use super::words::{attempts, doors, ended, instant, many, name, names, offset, opened, plural};
use crate::observe::record::Outcome;
use crate::observe::record::{Place, Record, Source};

const STYLE: &str = include_str!("style.css");
/// The SHA-256 digest of [`STYLE`] in base64 (CSP Level 3, §2.3.1).
const STYLE_DIGEST: &str = "qC3FbQqtDYg79eFi1bzyZQPLq9J44F9KB1sHOc9PGH8=";
/// How many windows one page shows whole.
pub const MAX_WINDOWS: usize = 100;

/// One page of windows. With a summary, that stands first and each window can be unfolded; `made_at` is
/// in milliseconds after 1970.
pub fn page(records: &[Record], summary: Option<&Summary>, made_at: u64) -> String {
    let title = match (summary, records) {
        (Some(summary), _) => summary.headline(),
        (None, [record]) => format!("{}: {}", name(record), word(record)),
        (None, records) => many(records.len(), "window"),
    };
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{STYLE_DIGEST}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{0}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"brand\">acmegate report</p>\n<h1>{0}</h1>\n</header>\n",
        html(&title)
    );
    match summary {
        Some(summary) => over(&mut out, summary, records),
        None => {
            for (at, record) in records.iter().rev().take(MAX_WINDOWS).enumerate() {
                if records.len() > 1 {
                    let _ = writeln!(out, "<h2>{}</h2>", html(&name(record)));
                }
                window(&mut out, record, at);
            }
        }
    }
    let _ = write!(
        out,
        "<footer>Made at {} by acmegate {}. It holds addresses: keep it as you keep logs.</footer>\n\
         </main>\n</body>\n</html>\n",
        instant(made_at),
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// A class of colour for what a window came to.
fn class(record: &Record) -> &'static str {
    match record.assessment.outcome {
        _ if verdict::is_fine(record) => "good",
        Outcome::Failed => "bad",
        Outcome::Open => "",
        _ => "warn",
    }
}

fn word(record: &Record) -> &'static str {
    match record.assessment.outcome {
        _ if verdict::is_fine(record) => "nothing wrong",
        Outcome::Open => "still open",
        Outcome::Quiet => "no validation came",
        Outcome::Answered => "answered",
        Outcome::Tolerated => "answered, some failed",
        Outcome::Doubtful => "doubtful",
        Outcome::Failed => "failed",
    }
}

fn over(out: &mut String, summary: &Summary, records: &[Record]) {
    for line in summary.sentences() {
        paragraph(out, "", &line);
    }
    for Table { title, head, rows } in summary.tables() {
        let _ = write!(
            out,
            "<table>\n<caption>{}</caption>\n<thead><tr>",
            html(&title)
        );
        for cell in &head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", html(cell));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in rows {
            out.push_str("<tr>");
            for (cell, label) in row.iter().zip(&head) {
                let _ = write!(
                    out,
                    "<td data-label=\"{}\">{}</td>",
                    html(label),
                    html(cell)
                );
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n");
    }
    out.push_str("<h2>Windows, the last one first</h2>\n");
    for (at, record) in records.iter().rev().take(MAX_WINDOWS).enumerate() {
        let _ = writeln!(
            out,
            "<details><summary>{} <span class=\"{}\">{}</span>, {}</summary>",
            html(&name(record)),
            class(record),
            word(record),
            instant(record.opened_at)
        );
        window(out, record, at);
        out.push_str("</details>\n");
    }
    if records.len() > MAX_WINDOWS {
        let left = records.len() - MAX_WINDOWS;
        paragraph(
            out,
            "faint",
            &format!("and {left} more {}", plural(left as u64, "window")),
        );
    }
}

fn window(out: &mut String, record: &Record, at: usize) {
    let _ = writeln!(
        out,
        "<p class=\"headline {}\">{}</p>",
        class(record),
        html(&verdict::headline(record))
    );
    out.push_str("<dl>\n");
    fact(out, "opened", "", &opened(record));
    fact(out, "doors", "", &doors(record));
    if let Some(identifiers) = &record.identifiers {
        fact(out, "for", "", &names(identifiers));
    }
    if !record.beside.is_empty() {
        fact(out, "beside", "", &names(&record.beside));
    }
    let cut = if record.assessment.was_cut { "bad" } else { "" };
    fact(out, "ended", cut, &ended(record));
    if let Some(said) = &record.said {
        if !said.renewed.is_empty() {
            fact(
                out,
                "client",
                "good",
                &format!("renewed {}", names(&said.renewed)),
            );
        }
        if !said.failed.is_empty() {
            fact(
                out,
                "client",
                "bad",
                &format!("could not renew {}", names(&said.failed)),
            );
        }
    }
    if let Some(attempts) = attempts(record) {
        fact(out, "attempt", "", &attempts);
    }
    let evidence = match (record.evidence.is_kept, &record.evidence.incomplete) {
        (true, None) => "",
        _ => "warn",
    };
    fact(out, "evidence", evidence, &verdict::evidence(record));
    out.push_str("</dl>\n");

    out.push_str("<h3>Verdict</h3>\n");
    paragraph(out, "", &verdict::arithmetic(record));
    if let Some(regions) = verdict::regions(record) {
        paragraph(out, "", &regions);
    }
    if let Some(says) = verdict::ca_says(record) {
        paragraph(out, "", &says);
    }
    paragraph(out, "faint", verdict::limits(record));
    let advice = advice(record);
    if !advice.is_empty() {
        out.push_str("<h3>What to do</h3>\n<ol>\n");
        for line in advice.iter().take(8) {
            let _ = writeln!(out, "<li>{}</li>", prose(line));
        }
        out.push_str("</ol>\n");
    }
    timeline::draw(out, record, at);
    world::draw(out, record, at);
    sources(out, record);
}

fn sources(out: &mut String, record: &Record) {
    let mut shown: Vec<(Fate, &Source)> = record
        .sources
        .iter()
        .map(|source| (Fate::of(source), source))
        .filter(|(fate, _)| *fate != Fate::Stray)
        .collect();
    shown.sort_by_key(|(fate, _)| *fate);
    if !shown.is_empty() {
        out.push_str(
            "<h3>Who came</h3>\n<table>\n<caption>Each address with the length of its network's prefix; times are after the opening.</caption>\n<thead><tr>",
        );
        for head in [
            "First packet",
            "Address",
            "Where",
            "Became",
            "Requests, answers",
        ] {
            let _ = write!(out, "<th scope=\"col\">{head}</th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (fate, source) in shown {
            row(out, fate, source, record);
        }
        out.push_str("</tbody>\n</table>\n");
    }
    let strays = record
        .sources
        .iter()
        .filter(|source| Fate::of(source) == Fate::Stray)
        .count();
    if strays > 0 {
        let said = format!(
            "{} sent one first packet and never tried again: scans, or spoofed.",
            many(strays, "address")
        );
        paragraph(out, "faint", &said);
    }
    if record.more_sources > 0 {
        let more = many(record.more_sources, "time");
        paragraph(
            out,
            "warn",
            &format!("{more} others came, who are not on the record."),
        );
    }
}

fn row(out: &mut String, fate: Fate, source: &Source, record: &Record) {
    let (word, ink) = fate_words(fate);
    let mut said = requests(source);
    if let Some(dropped) = source.dropped.as_ref().filter(|_| source.is_stopped()) {
        said.push(format!("by {}", culprit(dropped, RULE)));
    }
    if source.is_stopped() {
        said.push(many(source.packets, "first packet"));
    }
    said.extend(notes(source, record));
    let _ = write!(
        out,
        "<tr><td class=\"number\" data-label=\"First packet\">{}</td>\
         <td data-label=\"Address\"><code>{}</code></td><td data-label=\"Where\">{}</td>\
         <td data-label=\"Became\"><span class=\"fate {ink}\">{word}</span></td>\
         <td data-label=\"Requests\"><ul>",
        html(&offset(source.first)),
        html(&address(source)),
        html(&whereabouts(source.place.as_ref())),
    );
    for line in said {
        let _ = write!(out, "<li>{}</li>", html(&line));
    }
    out.push_str("</ul></td></tr>\n");
}

/// In a word, and its class of colour.
fn fate_words(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::Answered => ("answered", "good"),
        Fate::Refused => ("refused", "bad"),
        Fate::Dropped => ("dropped", "bad"),
        Fate::Unreached => ("unreached", "bad"),
        Fate::Stray => ("stray", "faint"),
        Fate::Visitor => ("visitor", "faint"),
    }
}

/// A place in full.
fn whereabouts(place: Option<&Place>) -> String {
    let short = fate::place(place);
    let Some(place) = place else {
        return short;
    };
    let mut parts = vec![short];
    parts.extend(
        place
            .organization
            .as_deref()
            .map(|name| super::escape::short(name, 48)),
    );
    parts.extend(
        place
            .region
            .map(|region| part_of_the_world(region).to_owned()),
    );
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

fn fact(out: &mut String, label: &str, class: &str, said: &str) {
    let _ = writeln!(
        out,
        "<dt>{label}</dt><dd class=\"{class}\">{}</dd>",
        prose(said)
    );
}

fn paragraph(out: &mut String, class: &str, said: &str) {
    let _ = writeln!(out, "<p class=\"{class}\">{}</p>", prose(said));
}

/// Escaped, and what stands between two backquotes as code.
fn prose(said: &str) -> String {
    let escaped = html(said);
    let parts: Vec<&str> = escaped.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped;
    }
    let mut out = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        match at % 2 {
            0 => out.push_str(part),
            _ => out.push_str(&format!("<code>{part}</code>")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
