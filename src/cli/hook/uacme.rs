//! uacme --hook: `METHOD TYPE IDENT TOKEN AUTH` (uacme(1)).
//!
//! A `begin` that fails declines the challenge, and uacme tries the next type. It then calls
//! neither `done` nor `failed`, so what a failed `begin` did is undone here.

use std::ffi::OsString;
use std::process::ExitCode;
use std::thread;

use super::answer::{Answer, bounded, key_authorization_of, text};
use super::{Daemon, lease, say};
use crate::cli::Failure;
use crate::cli::terminal::{complain, plain};
use crate::control::protocol::{Exit, Response};

pub fn run(daemon: Daemon<'_>, words: &[OsString]) -> Result<ExitCode, Failure> {
    let [method, kind, identifier, token, auth] = words else {
        return Err(usage("five arguments are needed".to_owned()));
    };
    let answer = match text("TYPE", kind)? {
        "http-01" => key_authorization_of(token, "AUTH", auth)?,
        // Of this one uacme tells the digest alone.
        "tls-alpn-01" => {
            let (token, sha256) = (text("TOKEN", token)?, text("AUTH", auth)?);
            bounded("TOKEN", token)?;
            bounded("AUTH", sha256)?;
            let sha256 = sha256.to_owned();
            Answer::TlsAlpn01 { token, sha256 }
        }
        other => {
            return Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "declined: acmegate answers http-01 and tls-alpn-01, not {}",
                    other.escape_debug()
                ),
            ));
        }
    };
    let identifier = text("IDENT", identifier)?;
    match text("METHOD", method)? {
        "begin" => begin(daemon, identifier, &answer),
        "done" => {
            let lease = lease()?;
            end(daemon, || daemon.close(lease), identifier, &answer)
        }
        "failed" => {
            complain(format_args!(
                "acmegate: the CA did not get the challenge of {}; `acmegate status` and the log say who came",
                plain(identifier)
            ));
            let lease = lease()?;
            let close = || daemon.close_failed(lease, identifier);
            end(daemon, close, identifier, &answer)
        }
        other => Err(usage(format!("no method {}", other.escape_debug()))),
    }
}

fn begin(daemon: Daemon<'_>, identifier: &str, answer: &Answer<'_>) -> Result<ExitCode, Failure> {
    let pushed = daemon.push(identifier, answer)?;
    match lease().and_then(|lease| daemon.open_for(lease, answer)) {
        Ok(opened) => Ok(say(vec![pushed, opened])),
        Err(failure) => {
            // The failure that is told is the first one.
            let _ = daemon.withdraw(identifier, answer);
            Err(failure)
        }
    }
}

/// Both, whatever comes of either, and at once: a daemon that hangs takes the time of one answer.
fn end(
    daemon: Daemon<'_>,
    close: impl FnOnce() -> Result<Response, Failure> + Send,
    identifier: &str,
    answer: &Answer<'_>,
) -> Result<ExitCode, Failure> {
    let (closed, withdrawn) = thread::scope(|scope| {
        let closing = scope.spawn(close);
        let withdrawn = daemon.withdraw(identifier, answer);
        (closing.join(), withdrawn)
    });
    let closed = closed.map_err(|_| Failure::new(Exit::Software, "closing ended by a panic"))?;
    Ok(say(vec![closed?, withdrawn?]))
}

fn usage(problem: String) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("{problem}: uacme calls its hook as begin|done|failed TYPE IDENT TOKEN AUTH"),
    )
}
