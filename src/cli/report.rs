//! `acmegate report`: who came to a window, what they got, and which rule stopped the one that failed.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::terminal::{Color, complain, plain, print};
use super::{Failure, finish, length, milliseconds, wall};
use crate::control::client;
use crate::control::protocol::{Ask, Exit, Opaque, ReportWord, Response};
use crate::control::status::Time;
use crate::observe::record::Record;
use crate::observe::report;
use crate::observe::report::since::{Account, Budget, Summary, is_within};

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
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// Write a page for a browser, in one file that its owner alone may read
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// When the text has colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

pub fn run(runtime_dir: &Path, args: &ReportArgs) -> Result<ExitCode, Failure> {
    let response = client::ask(runtime_dir, Ask::Report(args.word()))?;
    if response.code != 0 {
        return Ok(finish(&response, false));
    }
    for warning in &response.warnings {
        complain(format_args!("acmegate: warning: {}", plain(warning)));
    }
    let records = records(&response)?;
    let now = wall();
    let since = args.since.map(|since| {
        let span = milliseconds(since);
        (
            span,
            Summary::of(&records, span, now, &budgets(runtime_dir)),
        )
    });
    let span = since.as_ref().map_or(u64::MAX, |(span, _)| *span);
    if args.json {
        let within = records.iter().zip(&response.report);
        let within = within.filter(|(record, _)| is_within(record, span, now));
        let values: Result<Vec<Value>, _> = within.map(|(_, told)| told.read()).collect();
        let text = values.and_then(|values| report::json(&values));
        let text = text.map_err(|error| Failure::new(Exit::Software, error))?;
        return print(&text);
    }
    if let Some(file) = &args.html {
        let mut within = records;
        within.retain(|record| is_within(record, span, now));
        let page = report::page(&within, since.as_ref().map(|(_, summary)| summary), now);
        write_page(file, &page)
            .map_err(|error| Failure::new(Exit::Os, format!("{}: {error}", file.display())))?;
        return print(&format!(
            "written: {}\n",
            plain(&file.display().to_string())
        ));
    }
    let paint = args.color.paint();
    match since {
        Some((_, summary)) => print(&summary.text(paint)),
        None => {
            let texts: Vec<String> = records
                .iter()
                .map(|record| report::text(record, paint))
                .collect();
            print(&texts.join("\n"))
        }
    }
}

impl ReportArgs {
    fn word(&self) -> ReportWord {
        let mut word = ReportWord::default();
        match self.window.as_deref() {
            Some(window) => match window.parse() {
                Ok(number) => word.number = Some(number),
                Err(_) => word.lease = Some(window.to_owned()),
            },
            // As far again before that, to compare it with.
            None => {
                word.since = self
                    .since
                    .map(|since| milliseconds(since).saturating_mul(2))
            }
        }
        word
    }
}

fn records(response: &Response) -> Result<Vec<Record>, Failure> {
    let records = response.report.iter().map(Opaque::read);
    records.collect::<Result<_, _>>().map_err(|error| {
        Failure::new(
            Exit::Software,
            format!(
                "a record of the daemon cannot be read: {error}; restart acmegate after an upgrade"
            ),
        )
    })
}

/// What the daemon counts against the budgets of a month. Without a word of it the report stands all
/// the same.
fn budgets(runtime_dir: &Path) -> Vec<Budget> {
    let Ok(status) = client::status(runtime_dir) else {
        return Vec::new();
    };
    let budget = |time: Time| {
        let of = match (time.of.as_str(), time.name, time.caller) {
            ("all", ..) => Account::All,
            ("lease", Some(name), Some(uid)) => Account::Lease(name, uid),
            ("identifier", Some(name), _) => Account::Identifier(name),
            _ => return None,
        };
        Some(Budget {
            of,
            used: time.month.milliseconds,
            allowed: time.month.allowed_milliseconds,
        })
    };
    status.budget.time.into_iter().filter_map(budget).collect()
}

/// Puts a file in place whole or not at all. It holds addresses: its owner alone may read it.
///
/// Only a regular file is replaced. Root could put a page in the place of a device, or of /dev/stdout, and the
/// whole host would be without it.
fn write_page(file: &Path, page: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    match fs::symlink_metadata(file) {
        Ok(there) if !there.is_file() => {
            return Err(io::Error::other(
                "what is there is no regular file, and is left: name another",
            ));
        }
        _ => {}
    }
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}", std::process::id()));
    let aside = file.with_file_name(aside);
    let mut options = OpenOptions::new();
    // Never through a link that somebody left there.
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut opened| {
            opened.write_all(page.as_bytes())?;
            opened.sync_all()
        })
        .and_then(|()| fs::rename(&aside, file));
    if let Err(error) = &written
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        // What is half there helps nobody.
        let _ = fs::remove_file(&aside);
    }
    written
}
