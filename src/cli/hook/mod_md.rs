//! Apache's mod_md: MDMessageCmd is called as `EVENT DOMAIN`, in Apache 2.4.50 and newer with
//! `challenge-setup:TYPE:NAME` before the CA is told.
//!
//! A `challenge-setup` that fails makes mod_md try its next type, and with none left the renewal
//! fails and is tried again later: right where the port is shut. A `renewed` that fails would make
//! it take a finished renewal for a failed one. mod_md has its token files in its own store, by
//! name and not by token, and answers for itself: its site is an upstream.

use std::ffi::OsString;
use std::process::ExitCode;

use super::answer::text;
use super::{Daemon, lease, say, told};
use crate::cli::Failure;
use crate::control::protocol::Exit;

pub fn run(daemon: Daemon<'_>, words: &[OsString]) -> Result<ExitCode, Failure> {
    let Some(event) = words.first().and_then(|word| word.to_str()) else {
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(challenge) = event.strip_prefix("challenge-setup:") {
        let (kind, name) = challenge.split_once(':').unwrap_or((challenge, ""));
        return set_up(daemon, kind, name);
    }
    match event {
        "renewed" | "errored" => {
            let domain = words.get(1).ok_or_else(usage)?;
            let domain = text("DOMAIN", domain)?;
            let closed = match event {
                "errored" => daemon.close_failed(lease()?, domain),
                _ => daemon.close(lease()?),
            };
            // The renewal is over, well or not: the window's end must not undo it.
            Ok(match closed {
                Ok(closed) => say(vec![closed]),
                Err(failure) => told(&failure, "the window closes by itself"),
            })
        }
        // `renewing`, `installed`, `expiring`, `ocsp-renewed` and what is to come.
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn set_up(daemon: Daemon<'_>, kind: &str, name: &str) -> Result<ExitCode, Failure> {
    match kind {
        "http-01" if name.is_empty() => Err(usage()),
        // One window for all the names of the managed domain, which come one after the other.
        "http-01" => Ok(say(vec![daemon.open(lease()?, None)?])),
        // Needs no window, so none is in its way.
        "dns-01" => Ok(ExitCode::SUCCESS),
        other => Err(Failure::new(
            Exit::Unavailable,
            format!(
                "declined: acmegate opens for http-01, not {}; mod_md tries the next of MDCAChallenges",
                other.escape_debug()
            ),
        )),
    }
}

fn usage() -> Failure {
    Failure::new(
        Exit::Usage,
        "mod_md calls MDMessageCmd as EVENT DOMAIN: `MDMessageCmd /usr/bin/acmegate hook mod-md`",
    )
}
