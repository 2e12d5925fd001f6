//! `[notify]`: who is told of windows that did not go well.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::command::command;
use super::error::Problem;
use super::file::{self, Key, Section};
use super::upstream;
use super::value::{duration, word_of};
use super::{Notify, Webhook, When};
use crate::gate::command::{Blank, Notifier};

/// How long the command may take unless it is set: a mail server that greylists answers later than that,
/// and is no matter for a notification.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Notifications wait for each other: twenty an hour of a minute each still fit.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest path of a webhook, query included, in octets.
const MAX_PATH_BYTES: usize = 1024;

/// Checks `[notify]`; `listen` are the addresses that would be a loop.
pub(super) fn notify(
    section: &Section<file::Notify>,
    listen: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Notify {
    let keys = &section.keys;
    let timeout = duration(
        &keys.timeout,
        "timeout",
        Duration::from_secs(1)..=LONGEST_TIMEOUT,
        DEFAULT_TIMEOUT,
        problems,
    );
    let command = command(&keys.command, "command", &Blank::OF_NOTICES, problems);
    Notify {
        notifier: command.map(|command| Notifier { command, timeout }),
        webhook: webhook(&keys.webhook, listen, problems),
        when: when(&keys.when, problems),
    }
}

/// An address and a path: the sealed front looks no name up, and verifies no certificate. An empty text
/// is none.
fn webhook(
    key: &Key<String>,
    listen: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Option<Webhook> {
    let key = key.as_ref().filter(|key| !key.get_ref().is_empty())?;
    let text = key.get_ref().as_str();
    if text.starts_with("https://") {
        let message = "a webhook speaks http, to an address near by";
        let fix = "let `command` run curl for https: config/notify/curl.toml";
        let note =
            "the process that serves the Internet looks no name up and verifies no certificate";
        problems.push(Problem::new(key.span(), message).fix(fix).note(note));
        return None;
    }
    let authority_at = text.find("://").map_or(0, |at| at + 3);
    let path_at = text[authority_at..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |at| authority_at + at);
    let (origin, path) = text.split_at(path_at);
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#');
    if !is_plain || path.starts_with('?') || path.len() > MAX_PATH_BYTES {
        let message = "this is no path of a webhook";
        let fix = "write \"http://127.0.0.1:8080/path\"";
        problems.push(Problem::new(key.span(), message).fix(fix));
        return None;
    }
    match upstream::parse(origin, listen) {
        Ok(address) => Some(Webhook {
            address,
            path: match path {
                "" => "/".to_owned(),
                path => path.to_owned(),
            },
        }),
        Err(wrong) => {
            let message = wrong.message.replace("an upstream", "a webhook");
            let problem = Problem::new(key.span(), message);
            let fix = "write an address, a port and a path: \"http://127.0.0.1:8080/path\"";
            problems.push(problem.fix(fix));
            None
        }
    }
}

fn when(key: &Key<Vec<Spanned<String>>>, problems: &mut Vec<Problem>) -> When {
    let Some(key) = key else {
        return Notify::default().when;
    };
    let one = When::default();
    let words = [
        (
            "failed",
            When {
                failed: true,
                ..one
            },
        ),
        (
            "dropped",
            When {
                dropped: true,
                ..one
            },
        ),
        ("cut", When { cut: true, ..one }),
        (
            "always",
            When {
                always: true,
                ..one
            },
        ),
    ];
    let mut when = When::default();
    for entry in key.get_ref() {
        match word_of(entry, &words) {
            Ok(named) => {
                when = When {
                    failed: when.failed || named.failed,
                    dropped: when.dropped || named.dropped,
                    cut: when.cut || named.cut,
                    always: when.always || named.always,
                }
            }
            Err(fix) => {
                let message = format!("`{}` is no kind of window", entry.get_ref());
                problems.push(Problem::new(entry.span(), message).fix(fix));
            }
        }
    }
    if key.get_ref().is_empty() {
        let problem = Problem::new(key.span(), "nobody would ever be told");
        problems.push(problem.fix("name what is told, or take command and webhook away"));
    }
    when
}
