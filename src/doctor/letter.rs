//! The letter at the end: what ails the host, what shows it, what helps.
//!
//! A function of what was found: it reads no clock and no environment. Everything in it is made fit for
//! terminals, whoever wrote it first.

#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use super::finding::{Exam, Finding, Severity};
use crate::observe::report::escape;

pub use self::text::text;

/// The version of the JSON document (docs/doctor.md).
pub const VERSION: u32 = 1;

/// All exams of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The version of this document: [`VERSION`].
    pub version: u32,
    /// When the host was examined, in milliseconds after 1970.
    pub examined_at: u64,
    /// What is to be validated.
    pub names: Vec<String>,
    /// The worst of all findings.
    pub severity: Severity,
    /// Every finding, the likeliest cause first.
    pub findings: Vec<Finding>,
    /// What was looked at, area by area.
    pub looked_at: Vec<Looked>,
    /// What was not covered, why, and what would allow it.
    pub not_covered: Vec<String>,
}

/// What was looked at in one area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The area's word.
    pub area: &'static str,
    /// A line each.
    pub at: Vec<String>,
}

impl Letter {
    /// Sums up: the worst comes first, and of equally bad findings the one that stands earlier on the way
    /// from a perspective to the answer, for it may well be the cause of the others.
    pub fn of(exams: Vec<Exam>, names: Vec<String>, examined_at: u64) -> Self {
        let mut letter = Self {
            version: VERSION,
            examined_at,
            names,
            severity: Severity::Fine,
            findings: Vec::new(),
            looked_at: Vec::new(),
            not_covered: Vec::new(),
        };
        for exam in exams {
            for finding in exam.findings {
                letter.take(finding);
            }
            letter.looked_at.push(Looked {
                area: exam.area.as_str(),
                at: exam.looked_at,
            });
            letter.not_covered.extend(exam.not_covered);
        }
        letter
            .findings
            .sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.code.area));
        let worst = letter.findings.first().map(|finding| finding.severity);
        let uncovered = (!letter.not_covered.is_empty()).then_some(Severity::Doubt);
        letter.severity = worst.max(uncovered).unwrap_or(Severity::Fine);
        letter
    }

    /// What is true of several names in the same words is told once.
    fn take(&mut self, finding: Finding) {
        let is_same = |known: &&mut Finding| {
            !known.names.is_empty()
                && !finding.names.is_empty()
                && known.code == finding.code
                && known.severity == finding.severity
                && known.port == finding.port
                && known.finding == finding.finding
                && known.remedy == finding.remedy
        };
        match self.findings.iter_mut().find(is_same) {
            Some(known) => {
                known.names.extend(finding.names);
                for line in finding.evidence {
                    if !known.evidence.contains(&line) {
                        known.evidence.push(line);
                    }
                }
            }
            None => self.findings.push(finding),
        }
    }

    /// What the program exits with: 0 if nothing is in the way, 1 if something may be or was not
    /// covered, 2 if a validation fails.
    pub fn exit_code(&self) -> u8 {
        match self.severity {
            Severity::Fine | Severity::Advice => 0,
            Severity::Doubt => 1,
            Severity::Fault => 2,
        }
    }

    /// One JSON document in ASCII, in the schema of docs/doctor.md.
    ///
    /// # Errors
    /// What serde_json cannot write; there is no such letter.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| format!("{}\n", escape::json(&text)))
    }
}
