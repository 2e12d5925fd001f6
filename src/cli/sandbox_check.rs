//! `acmegate sandbox-check`: the process of `daemon::sandbox` that tries what a seal must refuse, for
//! `doctor --sandbox` and for the package's own tests.

use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::terminal::{plain, print};
use crate::control::protocol::Exit;
use crate::daemon::sandbox::{self, Attempt};

pub fn run(config: Option<&Path>, json: bool) -> Result<ExitCode, Failure> {
    let tried = sandbox::run(config)?;
    if json {
        let text =
            serde_json::to_string(&tried).map_err(|error| Failure::new(Exit::Software, error))?;
        print(&format!("{text}\n"))?;
    } else {
        for attempt in &tried {
            print(&format!("{}\n", plain(&attempt.to_string())))?;
        }
    }
    Ok(match tried.iter().all(Attempt::is_good) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
