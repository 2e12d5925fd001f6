//! dehydrated: one program for all its handlers, `HANDLER ARGUMENT…`, as its
//! docs/examples/hook.sh has them.
//!
//! It stops at once when a handler fails, so a handler fails only where nothing after it could
//! succeed. It calls handlers that do not exist, to see that they are passed over; and what
//! `generate_csr` prints is taken for a request, so those that are none of ours are silent.
//!
//! Which challenge is meant it does not say. VALUE tells: a key authorization for http-01, the digest
//! in hexadecimal for tls-alpn-01. Its own certificates for the latter are not needed.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::{Answer, either_of, text};
use super::{Daemon, lease, say, told};
use crate::cli::Failure;
use crate::cli::terminal::{self, complain, plain};
use crate::control::protocol::{Exit, Response};

/// How long all the challenges of one call may take, for HOOK_CHAIN=yes brings a hundred at once.
const ALL: Duration = Duration::from_secs(30);
/// The most that is shown of what a CA said.
const MAX_SHOWN_CHARS: usize = 300;

pub fn run(daemon: Daemon<'_>, words: &[OsString]) -> Result<ExitCode, Failure> {
    let Some((handler, arguments)) = words.split_first() else {
        return Ok(ExitCode::SUCCESS);
    };
    match handler.to_str() {
        Some("startup_hook") => Ok(say(vec![daemon.open(lease()?, None)?])),
        Some("deploy_challenge") => deploy(daemon, &challenges(arguments)?),
        Some("clean_challenge") => Ok(clean(daemon, &challenges(arguments)?)),
        Some("invalid_challenge") => {
            let [name, response] = shown(arguments);
            let detail = detail_of(&response);
            complain(format_args!(
                "acmegate: the CA did not get the challenge of {}: {detail}{}; `acmegate status` and the log say who came",
                plain(&name),
                meaning(&detail)
            ));
            Ok(ExitCode::SUCCESS)
        }
        Some("request_failure") => {
            let [status, reason, kind] = shown(arguments);
            let detail = detail_of(&reason);
            let (status, kind) = (plain(&status), plain(&kind));
            complain(format_args!(
                "acmegate: the CA answered {status} to a {kind} of dehydrated: {detail}"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Some("exit_hook") => Ok(say(vec![daemon.close(lease()?)?])),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// One challenge: the name and its answer.
type Challenge<'a> = (&'a str, Answer<'a>);

/// DOMAIN TOKEN VALUE; several of them with HOOK_CHAIN=yes.
fn challenges(arguments: &[OsString]) -> Result<Vec<Challenge<'_>>, Failure> {
    if arguments.is_empty() || !arguments.len().is_multiple_of(3) {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{} arguments, where dehydrated gives DOMAIN TOKEN VALUE for each challenge",
                arguments.len()
            ),
        ));
    }
    let triples = arguments.chunks_exact(3);
    triples
        .map(|triple| {
            let answer = either_of(&triple[1], "VALUE", &triple[2])?;
            Ok((text("DOMAIN", &triple[0])?, answer))
        })
        .collect()
}

/// All or none: dehydrated calls no `clean_challenge` after a `deploy_challenge` that failed.
fn deploy(daemon: Daemon<'_>, challenges: &[Challenge<'_>]) -> Result<ExitCode, Failure> {
    if let Err((done, failure)) = for_each(challenges, |name, answer| daemon.push(name, answer)) {
        // The failure that is told is the first one.
        let _ = withdraw(daemon, &challenges[..done]);
        return Err(failure);
    }
    terminal::say(format_args!("answering for {}", names(challenges)));
    Ok(ExitCode::SUCCESS)
}

/// The order may be valid already: failing here would have dehydrated throw it away.
fn clean(daemon: Daemon<'_>, challenges: &[Challenge<'_>]) -> ExitCode {
    match withdraw(daemon, challenges) {
        Err((_, failure)) => told(&failure, "a pushed token ends by itself, within an hour"),
        Ok(()) => {
            terminal::say(format_args!(
                "no longer answering for {}",
                names(challenges)
            ));
            ExitCode::SUCCESS
        }
    }
}

fn withdraw(daemon: Daemon<'_>, challenges: &[Challenge<'_>]) -> Result<(), (usize, Failure)> {
    for_each(challenges, |name, answer| daemon.withdraw(name, answer))
}

/// Asks for one after the other, within [`ALL`]. The first failure ends it, with how many were
/// done: a daemon that does not answer once will not answer a hundred times.
fn for_each(
    challenges: &[Challenge<'_>],
    ask: impl Fn(&str, &Answer<'_>) -> Result<Response, Failure>,
) -> Result<(), (usize, Failure)> {
    let begun = Instant::now();
    for (done, (name, answer)) in challenges.iter().enumerate() {
        if begun.elapsed() > ALL {
            let message = "acmegate is too slow for all these challenges; its log may say why";
            return Err((done, Failure::new(Exit::TempFail, message)));
        }
        ask(name, answer).map_err(|failure| (done, failure))?;
    }
    Ok(())
}

/// The first name, and how many more there are; [`challenges`] makes no empty list.
fn names(challenges: &[Challenge<'_>]) -> String {
    match challenges {
        [(only, _)] => (*only).to_owned(),
        [(first, _), more @ ..] => format!("{first} and {} more", more.len()),
        [] => String::new(),
    }
}

/// The first arguments as text, whatever they hold.
fn shown<const COUNT: usize>(arguments: &[OsString]) -> [String; COUNT] {
    std::array::from_fn(|at| {
        let argument = arguments
            .get(at)
            .map_or(OsStr::new("?"), OsString::as_os_str);
        argument.to_string_lossy().into_owned()
    })
}

/// A problem document's own words (RFC 8555 §6.7), in a challenge or alone; else what there is.
fn detail_of(response: &str) -> String {
    let problem: Option<Value> = serde_json::from_str(response).ok();
    let detail = problem.as_ref().and_then(|problem| {
        let detail = problem.pointer("/error/detail");
        detail.or_else(|| problem.get("detail"))?.as_str()
    });
    let words: Vec<&str> = detail.unwrap_or(response).split_whitespace().collect();
    let words = words.join(" ");
    plain(&words.chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

/// What a CA's words mean for a firewall's keeper, where they are known (Boulder, Pebble).
fn meaning(detail: &str) -> &'static str {
    let known = [
        (
            "secondary validation",
            " (some of its networks got in and others did not: something blocks by country or list)",
        ),
        (
            "imeout during connect",
            " (something on the way drops the packets)",
        ),
        ("i/o timeout", " (something on the way drops the packets)"),
        ("onnection refused", " (nothing listens on that port there)"),
        (
            " 404",
            " (it came to something that does not know the token)",
        ),
        (" 403", " (it came to something that refused the path)"),
    ];
    let mut known = known.into_iter();
    let found = known.find(|(words, _)| detail.contains(words));
    found.map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cas_own_words_are_found_and_are_one_line() {
        let challenge = r#"{"type":"http-01","status":"invalid","error":{"type":"urn:ietf:params:acme:error:connection","detail":"192.0.2.1: Timeout during connect\n(likely firewall problem)","status":400}}"#;
        let detail = detail_of(challenge);
        assert_eq!(
            detail,
            "192.0.2.1: Timeout during connect (likely firewall problem)"
        );
        assert!(meaning(&detail).contains("drops"), "{detail}");
        assert_eq!(detail_of(r#"{"detail":"busy"}"#), "busy");
        assert_eq!(detail_of("no\x1b[31m JSON\n"), "no\\u{1b}[31m JSON");
        assert_eq!(detail_of(&"x".repeat(9000)).len(), MAX_SHOWN_CHARS);
        assert_eq!(meaning("busy"), "");
    }

    #[test]
    fn challenges_come_in_threes() {
        let words = |text: &str| {
            text.split_whitespace()
                .map(OsString::from)
                .collect::<Vec<_>>()
        };
        let two = words("a.test T1 T1.x b.test T2 T2.x");
        let found = challenges(&two).map_err(|failure| failure.message);
        let expected = vec![
            ("a.test", Answer::Http01("T1.x")),
            ("b.test", Answer::Http01("T2.x")),
        ];
        assert_eq!(found, Ok(expected));
        for wrong in ["", "a.test", "a.test T1 T1.x b.test"] {
            assert!(challenges(&words(wrong)).is_err(), "{wrong}");
        }
    }
}
