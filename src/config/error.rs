//! What is wrong with a configuration, where, and what to write instead.

use std::fmt;

/// The exit code for a wrong configuration: EX_CONFIG of sysexits(3).
pub const EXIT_CODE: u8 = 78;

/// A configuration that cannot be used: every problem of the file, in its order.
#[derive(Clone, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }

    /// Every problem, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "error: {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
