//! Directories of the machine that a test replaces for itself, in its own mount namespace.

use std::process::Command;
use std::time::Duration;

use crate::lab::{TempDir, run};

/// Lays a copy of `path` over it, for this test alone.
#[track_caller]
pub fn copy_of(path: &str) -> TempDir {
    let directory = TempDir::new();
    tool("cp", &["-a", &format!("{path}/."), &directory.at("")]);
    tool("mount", &["--bind", &directory.at(""), path]);
    directory
}

/// Lays an empty directory over `path`, for this test alone.
#[track_caller]
pub fn empty(path: &str) {
    tool("mount", &["-t", "tmpfs", "tmpfs", path]);
}

/// Runs a program that must succeed; gives what it wrote to standard output.
#[track_caller]
pub fn tool(program: &str, arguments: &[&str]) -> String {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8");
    run(command, LIMIT).success().stdout
}
