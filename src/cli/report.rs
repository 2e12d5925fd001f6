//! `acmegate report`: who came to a window, what they got, and which rule stopped the one that failed.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Failure, finish, length, milliseconds};
use crate::control::client;
use crate::control::protocol::{Ask, Exit, ReportWord, Response};
use crate::observe::record::Record;
use crate::observe::report::{self, Paint};

/// Which windows, and how they are told.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A window's number, or a lease's name for its last one [default: the last window]
    #[arg(value_name = "WINDOW", conflicts_with = "since")]
    window: Option<String>,
    /// The last window, which is the default
    #[arg(long, conflicts_with_all = ["window", "since"])]
    last: bool,
    /// What the windows of the last days come to, such as 30d
    #[arg(long, value_name = "TIME", value_parser = length)]
    since: Option<Duration>,
    /// One JSON object instead of text (docs/report.md)
    #[arg(long)]
    json: bool,
    /// When the text has colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, without NO_COLOR
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

pub fn run(runtime_dir: &Path, args: &ReportArgs) -> Result<ExitCode, Failure> {
    let response = client::ask(runtime_dir, Ask::Report(args.word()))?;
    if response.code != 0 {
        return Ok(finish(&response, false));
    }
    let records = records(&response)?;
    let mut out = String::new();
    if args.json {
        out =
            report::json(&response.report).map_err(|error| Failure::new(Exit::Software, error))?;
    } else {
        let paint = args.paint();
        for record in &records {
            out.push_str(&report::text(record, paint));
        }
    }
    for warning in &response.warnings {
        eprintln!("acmegate: warning: {warning}");
    }
    print(&out)
}

impl ReportArgs {
    fn word(&self) -> ReportWord {
        let mut word = ReportWord::default();
        match self.window.as_deref() {
            Some(window) => match window.parse() {
                Ok(number) => word.number = Some(number),
                Err(_) => word.lease = Some(window.to_owned()),
            },
            None => word.since = self.since.map(milliseconds),
        }
        word
    }

    fn paint(&self) -> Paint {
        let is_on = match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let no_color = std::env::var_os("NO_COLOR");
                io::stdout().is_terminal() && no_color.is_none_or(|value| value.is_empty())
            }
        };
        Paint { is_on }
    }
}

fn records(response: &Response) -> Result<Vec<Record>, Failure> {
    let records = response.report.iter().cloned().map(serde_json::from_value);
    records.collect::<Result<_, _>>().map_err(|error| {
        Failure::new(
            Exit::Software,
            format!(
                "a record of the daemon cannot be read: {error}; restart acmegate after an upgrade"
            ),
        )
    })
}

/// Whoever reads no further, such as head(1), has what it wanted.
fn print(text: &str) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Os, format!("cannot write: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
