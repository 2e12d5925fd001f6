//! One attempt of a sealed process, as the process tells it to who asked for the check.

use std::io;

use serde::{Deserialize, Serialize};

use crate::observe::report::escape::short;

/// The most that is told of a complaint.
const MAX_COMPLAINT_CHARS: usize = 300;

/// One attempt of one process, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `front`, `front (thread)`, `enforcer`, `reader`, `historian`, `runner`, or `account`.
    pub process: String,
    /// What was tried.
    pub what: String,
    /// Whether it is to work: work that a process is there for, or mischief.
    pub should_work: bool,
    /// Whether it did. Mischief that failed otherwise than by a refusal counts as if it had.
    pub works: bool,
    /// The kernel's answer; `null` if there was none.
    pub answer: Option<String>,
}

impl Attempt {
    /// What became of an attempt, which is to work or not.
    pub fn of(process: &str, (what, result): (&str, io::Result<()>), should_work: bool) -> Self {
        let is_refused = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ConnectionRefused
            )
        };
        Self {
            process: process.to_owned(),
            what: what.to_owned(),
            should_work,
            works: match (&result, should_work) {
                (result, true) => result.is_ok(),
                (Ok(()), false) => true,
                (Err(error), false) => !is_refused(error),
            },
            answer: result.err().map(|error| error.to_string()),
        }
    }

    /// Reads what the process told, on its two streams.
    ///
    /// # Errors
    /// It told nothing that is of it: one line.
    pub fn read(said: &str, complained: &str) -> Result<Vec<Self>, String> {
        serde_json::from_str(said).map_err(|_| {
            let line = complained.lines().next().unwrap_or("it said nothing");
            let line = short(line, MAX_COMPLAINT_CHARS);
            format!("the check of the seals failed: {line}")
        })
    }

    /// Whether the seal is as it should be, here.
    pub fn is_good(&self) -> bool {
        self.works == self.should_work
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match (self.is_good(), self.should_work) {
            (true, true) => "works",
            (true, false) => "refused",
            (false, true) => "DOES NOT WORK",
            (false, false) => "NOT REFUSED",
        };
        write!(f, "{:15} {:42} {verdict}", self.process, self.what)?;
        match &self.answer {
            Some(answer) if !self.is_good() => write!(f, ": {answer}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_short_line() {
        let told = |complained: &str| Attempt::read("", complained).unwrap_err();
        assert_eq!(told(""), "the check of the seals failed: it said nothing");
        assert_eq!(
            told("no\x1b[2J\nmore"),
            "the check of the seals failed: no\\u{1b}[2J"
        );
        assert!(told(&"x".repeat(9000)).len() < 400);
    }
}
