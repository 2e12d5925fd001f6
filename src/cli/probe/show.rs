//! What a probe came to: a page for people, or one JSON document.

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::terminal::print;
use crate::cli::{Failure, wall};
use crate::control::protocol::Exit;
use crate::doctor::letter::{Letter, text};
use crate::doctor::probe::seen::{Caa, Vantage};
use crate::doctor::probe::verdict::{Probe, of_view, way};
use crate::observe::quorum::Rules;
use crate::observe::report::escape::{self, plain};
use crate::observe::report::{Ink, Paint};

/// The version of the JSON document (docs/doctor.md).
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'probe> {
    version: u32,
    probe: &'probe Probe,
    letter: &'probe Letter,
}

/// Prints it; the exit code is the letter's.
pub fn show(probe: &Probe, rules: Rules, json: bool, paint: Paint) -> Result<ExitCode, Failure> {
    let letter = Letter::of(vec![probe.examined(rules)], probe.names.clone(), wall());
    let out = match json {
        true => {
            let document = Document {
                version: VERSION,
                probe,
                letter: &letter,
            };
            let text = serde_json::to_string_pretty(&document)
                .map_err(|error| Failure::new(Exit::Software, error))?;
            format!("{}\n", escape::json(&text))
        }
        false => page(probe, &letter, paint),
    };
    print(&out)?;
    Ok(ExitCode::from(letter.exit_code()))
}

/// Who saw what, and the letter behind it.
fn page(probe: &Probe, letter: &Letter, paint: Paint) -> String {
    let mut out = String::new();
    for vantage in &probe.vantage_points {
        of_vantage(vantage, paint, &mut out);
    }
    for service in &probe.services {
        out += &format!("{}\n", plain(&service.from));
        let came: Vec<String> = service.came_from.iter().map(ToString::to_string).collect();
        if !came.is_empty() {
            out += &format!("  its perspectives came from {}\n", came.join(", "));
        }
        for path in &service.paths {
            out += &format!("  {}: {}\n", path.source, plain(&way(path)));
        }
    }
    for path in &probe.strangers {
        out += &format!("meanwhile {} was {}\n", path.source, plain(&way(path)));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out + &text(letter, paint)
}

fn of_vantage(vantage: &Vantage, paint: Paint, out: &mut String) {
    let why = vantage
        .not_asked
        .as_ref()
        .map(|why| format!("could not be asked: {why}"));
    let why = why.or_else(|| {
        vantage
            .proves_nothing
            .as_ref()
            .map(|why| format!("proves nothing: {why}"))
    });
    match why {
        Some(why) => {
            *out += &format!(
                "{}  {}\n",
                plain(&vantage.from),
                paint.ink(Ink::Warning, &plain(&why))
            )
        }
        None => *out += &format!("{}\n", plain(&vantage.from)),
    }
    for view in &vantage.views {
        let ink = if view.is_good() { Ink::Good } else { Ink::Bad };
        let came: Vec<String> = view.came_from.iter().map(ToString::to_string).collect();
        let came = match came.is_empty() {
            true => String::new(),
            false => format!(" (came from {})", came.join(", ")),
        };
        let said = format!("{}: {}{came}", view.name, of_view(view));
        *out += &format!("  {}\n", paint.ink(ink, &plain(&said)));
        match &view.caa {
            Some(Caa::Permits) => *out += "    CAA permits it\n",
            Some(Caa::Forbids(why)) => *out += &format!("    CAA: {}\n", plain(why)),
            None => {}
        }
        if !view.name_servers.is_empty() {
            let is_good = |answer: &Option<String>| {
                matches!(
                    answer.as_deref(),
                    Some("NOERROR" | "NXDOMAIN" | "connected")
                )
            };
            let good = view
                .name_servers
                .iter()
                .filter(|server| is_good(&server.answer))
                .count();
            *out += &format!(
                "    name servers: {good} of {} answers\n",
                view.name_servers.len()
            );
        }
    }
    for path in &vantage.paths {
        *out += &format!(
            "    {} → {}: {}\n",
            path.source,
            path.destination,
            plain(&way(path))
        );
    }
}
