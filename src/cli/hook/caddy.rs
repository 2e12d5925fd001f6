//! Caddy's events by its exec handler (a plugin): `EVENT IDENTIFIER`, as its configuration writes
//! them.
//!
//! Caddy works on several certificates at once, each of one name, so each has a lease of its own.
//! A `cert_obtaining` that fails ends the attempt if the handler runs in the foreground with
//! `abort_on`; Caddy tries again later.

use std::ffi::OsString;
use std::process::ExitCode;

use super::answer::text;
use super::{Daemon, say};
use crate::cli::{Failure, caller};
use crate::control::protocol::Exit;

pub fn run(daemon: Daemon<'_>, words: &[OsString]) -> Result<ExitCode, Failure> {
    let Some(event) = words.first().and_then(|word| word.to_str()) else {
        return Ok(ExitCode::SUCCESS);
    };
    // Those of today that say nothing about a validation, and those to come.
    if !["cert_obtaining", "cert_obtained", "cert_failed"].contains(&event) {
        return Ok(ExitCode::SUCCESS);
    }
    let name = text("IDENTIFIER", words.get(1).ok_or_else(usage)?)?;
    if name.starts_with('{') {
        return Err(usage());
    }
    // A wildcard is validated by dns-01 alone, which needs no window.
    if name.starts_with("*.") {
        return Ok(ExitCode::SUCCESS);
    }
    let lease = caller::lease_for(caller::client().as_ref(), name)?;
    let response = match event {
        "cert_obtaining" => daemon.open(lease, Some(vec![name.to_owned()])),
        "cert_failed" => daemon.close_failed(lease, name),
        _ => daemon.close(lease),
    };
    Ok(say(vec![response?]))
}

fn usage() -> Failure {
    Failure::new(
        Exit::Usage,
        "Caddy's exec handler gives EVENT IDENTIFIER: `exec acmegate hook caddy cert_obtaining {event.data.identifier}`",
    )
}
