//! What is wrong with a list.

use std::path::Path;

use super::super::error::cut;
use super::super::snippet::visible;

/// One thing that is wrong with the bytes of a list, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line from 1; `None` where the whole file is wrong.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to write or do.
    pub fix: String,
}

impl Mistake {
    /// Something wrong in a line.
    pub(super) fn at(line: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            line: Some(line),
            ..Self::of_file(what, fix)
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn of_file(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            line: None,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// One line for people. What stands in a file may be a stranger's, so it is made visible.
    pub fn of(&self, file: &Path) -> String {
        let place = match self.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => file.display().to_string(),
        };
        visible(&format!("{place}: {}; {}", cut(&self.what), cut(&self.fix)))
    }
}
