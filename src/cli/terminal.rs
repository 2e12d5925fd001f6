//! What all subcommands print alike.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::Failure;
use crate::config::format_duration;
use crate::control::protocol::Exit;
use crate::observe::report::Paint;
use crate::observe::report::escape::lines;
pub use crate::observe::report::escape::plain;

/// When text has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, without NO_COLOR
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// What standard output gets by it.
    pub fn paint(self) -> Paint {
        let is_on = match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let no_color = std::env::var_os("NO_COLOR");
                io::stdout().is_terminal() && no_color.is_none_or(|value| value.is_empty())
            }
        };
        Paint { is_on }
    }
}

/// Prints a text that was asked for. Whoever reads no further, such as head(1), has what it wanted.
///
/// # Errors
/// [`Failure`], if it cannot be written.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    print_part(text).map(|_| ExitCode::SUCCESS)
}

/// Prints a part of what goes on and on, and whether somebody is still there who reads it.
///
/// # Errors
/// [`Failure`], if it cannot be written.
pub fn print_part(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    written(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

/// What writing to standard output came to: whether somebody is still there who reads it.
///
/// # Errors
/// [`Failure`], if it could not be written.
pub fn written(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Os, format!("cannot write: {error}"))),
    }
}

/// Prints a line about what was done. That nobody can read it, as where a hook's output goes to a full
/// disk, undoes nothing of it: a window that is open is no failure of the hook that opened it.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{}", harmless(&line));
}

/// Prints a line to standard error, where that takes one. The exit status tells the same.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", harmless(&line));
}

/// Much of it is what the daemon answered, whose front reads the Internet's bytes: nothing of that moves root's cursor.
fn harmless(line: &impl Display) -> String {
    lines(&line.to_string())
}

/// A length for people: whole seconds, for nobody waits for the rest.
pub fn seconds(milliseconds: u64) -> String {
    format_duration(Duration::from_secs(milliseconds.div_ceil(1000))).to_string()
}
