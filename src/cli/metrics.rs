//! `acmegate metrics`: figures for a monitoring system, as text.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use crate::control::client;
use crate::control::protocol::Exit;

pub fn run(runtime_dir: &Path) -> Result<ExitCode, Failure> {
    let text = client::metrics(runtime_dir)?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(Exit::Os, format!("cannot write the metrics: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
