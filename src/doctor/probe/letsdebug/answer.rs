//! What Let's Debug answers, read.
//!
//! How many problems and how long a text are kept is bounded. Texts stay as they came: whoever shows one escapes it.

use serde::{Deserialize, Serialize};

use crate::doctor::finding::Severity;
use crate::observe::report::escape::clip;

/// The most problems that are told of.
pub const MAX_PROBLEMS: usize = 32;
/// The longest text that is kept, in characters.
pub const MAX_TEXT: usize = 300;

/// What an order is answered with.
#[derive(Debug, Deserialize)]
pub struct Ordered {
    /// The test's number there.
    #[serde(rename = "ID")]
    pub id: u64,
}

/// What is said of a test.
#[derive(Debug, Deserialize)]
pub struct Test {
    #[serde(default)]
    status: String,
    #[serde(default)]
    result: Option<Findings>,
}

#[derive(Debug, Default, Deserialize)]
struct Findings {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    problems: Option<Vec<Reported>>,
}

#[derive(Debug, Deserialize)]
struct Reported {
    #[serde(default)]
    name: String,
    #[serde(default)]
    explanation: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    severity: String,
}

/// What it found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Of which name.
    pub of: String,
    /// Its own word for it, such as `ANotWorking`.
    pub name: String,
    /// Its explanation.
    pub explanation: String,
    /// What shows it.
    pub detail: String,
    /// How bad.
    pub severity: Severity,
}

/// How a test of one name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not over.
    Running,
    /// It is over, with these problems.
    Over(Vec<Problem>),
}

impl Test {
    /// How it stands, for the name that it is of.
    ///
    /// # Errors
    /// What the service did instead, as in `cancelled the test`.
    pub fn state(self, name: &str) -> Result<State, String> {
        let found = match self.status.as_str() {
            "Complete" => self.result.unwrap_or_default(),
            "Cancelled" => return Err("cancelled the test".to_owned()),
            _ => return Ok(State::Running),
        };
        if let Some(error) = found.error.filter(|error| !error.is_empty()) {
            return Err(format!("failed itself: {}", clip(&error, MAX_TEXT)));
        }
        let problems = found.problems.unwrap_or_default().into_iter();
        let told = problems
            .filter(|problem| problem.severity != "Debug")
            .map(|problem| Problem {
                of: name.to_owned(),
                name: clip(&problem.name, MAX_TEXT),
                explanation: clip(&problem.explanation, MAX_TEXT),
                detail: clip(&problem.detail, MAX_TEXT),
                severity: match problem.severity.as_str() {
                    "Fatal" | "Error" => Severity::Fault,
                    _ => Severity::Doubt,
                },
            });
        Ok(State::Over(told.take(MAX_PROBLEMS).collect()))
    }
}
