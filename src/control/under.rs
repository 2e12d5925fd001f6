//! Which lease was armed for the command that this process belongs to.
//!
//! `exec` puts its name into the environment of its command, and so of all that the command
//! starts. sudo and su clear the environment of what they start, but what they were started with
//! still stands in /proc for whoever may read it; so root below sudo finds it too.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::protocol::LEASE_VARIABLE;
use crate::gate::lease::LeaseName;

/// How far up is looked; deeper trees of wrappers than this do not happen.
const MAX_DEPTH: usize = 16;

/// The variable holds something that is no lease name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoName(String);

impl fmt::Display for NoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{LEASE_VARIABLE} is `{}`, which is no lease name: `acmegate exec` sets it, and nobody else should",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for NoName {}

/// The lease that was armed for this process, if one was.
///
/// # Errors
/// [`NoName`].
pub fn lease() -> Result<Option<LeaseName>, NoName> {
    let Some(value) = std::env::var_os(LEASE_VARIABLE).or_else(of_an_ancestor) else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    LeaseName::parse(&text)
        .map(Some)
        .ok_or_else(|| NoName(text.into_owned()))
}

fn of_an_ancestor() -> Option<OsString> {
    let mut pid = std::os::unix::process::parent_id();
    for _ in 0..MAX_DEPTH {
        if pid <= 1 {
            return None;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if let Some(value) = value_in(&environment) {
            return Some(value);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        pid = parent_in(&status)?;
    }
    None
}

/// proc_pid_environ(5): `NAME=value`, each ended by a zero octet.
fn value_in(environment: &[u8]) -> Option<OsString> {
    environment.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(LEASE_VARIABLE.as_bytes())?;
        let value = value.strip_prefix(b"=")?;
        Some(OsString::from_vec(value.to_vec()))
    })
}

/// proc_pid_status(5).
fn parent_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_found_by_its_whole_name() {
        let environment = b"ACMEGATE_LEASES=x\0NOT_ACMEGATE_LEASE=y\0ACMEGATE_LEASE=exec-7\0A=b\0";
        assert_eq!(value_in(environment).unwrap(), "exec-7");
        assert_eq!(value_in(b"ACMEGATE_LEASES=x\0"), None);
        assert_eq!(value_in(b""), None);
        assert_eq!(parent_in("Name:\tsh\nPPid:\t12\nUid:\t0"), Some(12));
        assert_eq!(parent_in(""), None);
    }
}
