//! `acmegate metrics`: figures for a monitoring system, as text.

use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::terminal::print;
use crate::control::client;

pub fn run(runtime_dir: &Path) -> Result<ExitCode, Failure> {
    print(&client::metrics(runtime_dir)?)
}
