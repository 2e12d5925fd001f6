//! Shows records: text for a terminal, a page for a browser, two lines for a hook.
//!
//! Everything here is a function of records and flags: it reads no clock, no file and no environment.
//! Every text of a record is escaped for where it goes, although a record holds parsed values only.

mod advice;
pub mod escape;
mod fate;
mod html;
pub mod since;
mod text;
mod verdict;
pub mod words;

pub use self::advice::{about_drop, about_refusal};
pub use self::html::page;
pub use self::text::{Ink, Paint, text, wrap};
pub use self::verdict::headline;

use serde::Serialize;
use serde_json::Value;

use self::escape::clip;
use crate::observe::record::Outcome;
use crate::observe::record::{Record, VERSION};

/// The longest line that a hook prints of a window, in characters.
pub const MAX_LINE: usize = 200;

/// Records as one JSON document in ASCII, in the schema of docs/report.md. They are passed on as they
/// come, with fields of a newer version too.
///
/// # Errors
/// What serde_json cannot write; there is no such record.
pub fn json(records: &[Value]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Document<'records> {
        version: u32,
        windows: &'records [Value],
    }
    let document = Document {
        version: VERSION,
        windows: records,
    };
    serde_json::to_string_pretty(&document).map(|text| format!("{}\n", escape::json(&text)))
}

/// What a hook says of a window at its end: the verdict in one glance, and what to do or why that is
/// enough. Plain text without colour, at most [`MAX_LINE`] characters each.
pub fn two_lines(record: &Record) -> [String; 2] {
    [
        clip(&verdict::headline(record), MAX_LINE),
        clip(&second_line(record), MAX_LINE),
    ]
}

fn second_line(record: &Record) -> String {
    let ask = match record.number {
        Some(number) => format!("`acmegate report {number}`"),
        None => "`acmegate report`".to_owned(),
    };
    let assessment = &record.assessment;
    let incomplete = match (record.evidence.is_kept, &record.evidence.incomplete) {
        (true, Some(_)) => "; the kernel's evidence is incomplete",
        _ => "",
    };
    if let [first, others @ ..] = advice::advice(record).as_slice() {
        let more = match others.len() {
            0 => format!("{ask} tells more"),
            others => format!("{others} more in {ask}"),
        };
        // What to do may be cut; where there is more may not.
        let room = MAX_LINE - "do: ; ".len() - more.chars().count() - incomplete.len();
        return format!("do: {}; {more}{incomplete}", clip(first, room));
    }
    let needed = assessment.needed;
    let said = match assessment.outcome {
        Outcome::Open => return format!("it is not over yet; {ask} tells more{incomplete}"),
        Outcome::Quiet => {
            "who is not seen here was not blocked here; if it failed, look before this host and at the DNS".to_owned()
        }
        _ if assessment.answered >= needed => {
            format!("a public CA needs {needed} networks at least: enough")
        }
        _ => format!("a public CA needs {needed} networks at least; the others did not come"),
    };
    format!("{said}; {ask} tells more{incomplete}")
}

#[cfg(test)]
mod tests;
