//! Let's Debug (github.com/letsdebug/letsdebug): a public service that tries a name from outside, and asks Let's
//! Encrypt's staging CA as well. Never asked unless the administrator says so, for a name leaves the host and the
//! results are public there.
//!
//! Its JSON API as its README has it: a POST of method, domain and options gives a number; a GET of that result is
//! repeated until it is complete. It is told which token to ask for and what has to come (`http_request_path`,
//! `http_expect_response`), so that its own question is answered by the real gate.

pub mod answer;

use std::time::Instant;

use serde::Serialize;

use self::answer::{MAX_TEXT, Ordered, Test};
pub use self::answer::{Problem, State};
use super::Question;
use super::web::{self, Url};
use crate::observe::report::escape::clip;

/// Where it is.
pub const USUAL: &str = "https://letsdebug.net";

/// What leaves the host, in one line for people, before it does.
pub fn leaving(url: &Url, names: &[String]) -> String {
    format!(
        "to {} go the name{} {} and a random token with its answer: it asks this host and Let's Encrypt's staging CA, \
         and shows anybody what it found",
        url.host(),
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    )
}

#[derive(Debug, Serialize)]
struct Order {
    method: &'static str,
    domain: String,
    options: Options,
}

#[derive(Debug, Serialize)]
struct Options {
    http_request_path: String,
    http_expect_response: String,
}

/// Orders a test; its number there. Blocking.
///
/// # Errors
/// One line: why it could not be asked.
pub fn order(url: &Url, question: &Question, deadline: Instant) -> Result<u64, String> {
    let order = Order {
        method: "http-01",
        domain: question.name.to_string(),
        options: Options {
            http_request_path: question.answer.token().as_str().to_owned(),
            http_expect_response: question.answer.to_body(),
        },
    };
    let body = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
    let (status, answer) = web::ask(url, None, Some(&body), deadline)?;
    let Ordered { id } = read(url, status, &answer)?;
    Ok(id)
}

/// Asks how a test stands. Blocking.
///
/// # Errors
/// As [`order`].
pub fn look(url: &Url, question: &Question, id: u64, deadline: Instant) -> Result<State, String> {
    let name = question.name.to_string();
    let (status, answer) = web::ask(&url.at(&format!("/{name}/{id}")), None, None, deadline)?;
    let test: Test = read(url, status, &answer)?;
    test.state(&name)
        .map_err(|why| format!("{} {why}", url.host()))
}

fn read<Answer: serde::de::DeserializeOwned>(
    url: &Url,
    status: u16,
    answer: &[u8],
) -> Result<Answer, String> {
    match status {
        200 => serde_json::from_slice(answer)
            .map_err(|error| format!("what {} answered is not of its API: {error}", url.host())),
        429 => Err(format!(
            "{} was asked too often: try again in a minute",
            url.host()
        )),
        _ => Err(format!(
            "{} answered {status}: {}",
            url.host(),
            clip(&String::from_utf8_lossy(answer), MAX_TEXT)
        )),
    }
}
