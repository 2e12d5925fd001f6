//! `[tls]`: how port 443 is listened on, and where visitors are led.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::error::Problem;
use super::file::{self, Listen, Section};
use super::listen::{self, overlap};
use super::server::server;
use super::value::{duration, one_of, whole};
use super::{Http, Refusal, Tls};

/// Checks `[tls]`, beside a checked `[http]`, and says whether it is known where it listens.
pub(super) fn tls(
    section: &Section<file::Tls>,
    http: &Http,
    problems: &mut Vec<Problem>,
) -> (Tls, bool) {
    let keys = &section.keys;
    let default = Tls::default();
    let before = problems.len();
    let listening = listen::listen(
        &keys.listen,
        &keys.divert_port,
        section.is_whole,
        listen::TLS,
        problems,
    );
    let (listen, divert) = listening.unwrap_or((default.listen, None));
    if let Some(key) = &keys.listen {
        apart(key, &listen, http, problems);
    }
    let is_known = problems.len() == before && (keys.listen.is_some() || section.is_whole);
    let refusals = [("close", Refusal::Close), ("alert", Refusal::Alert)];
    let max_connections = whole(
        &keys.max_connections,
        "max_connections",
        16..=1_000_000,
        default.max_connections,
        problems,
    );
    let all = [http.listen.as_slice(), listen.as_slice()].concat();
    let tls = Tls {
        server: server(&keys.server, &all, problems),
        divert,
        refuse: one_of(&keys.refuse, "way to refuse", &refusals, problems)
            .unwrap_or(default.refuse),
        hello_timeout: duration(
            &keys.hello_timeout,
            "hello_timeout",
            Duration::from_secs(1)..=Duration::from_secs(60),
            default.hello_timeout,
            problems,
        ),
        idle_timeout: duration(
            &keys.idle_timeout,
            "idle_timeout",
            Duration::from_secs(10)..=Duration::from_secs(24 * 3600),
            default.idle_timeout,
            problems,
        ),
        max_connections,
        max_connections_per_source: whole(
            &keys.max_connections_per_source,
            "max_connections_per_source",
            1..=i64::from(max_connections),
            default.max_connections_per_source.min(max_connections),
            problems,
        ),
        listen,
    };
    (tls, is_known)
}

/// No listener of TLS may be one of HTTP.
fn apart(key: &Spanned<Listen>, listen: &[SocketAddr], http: &Http, problems: &mut Vec<Problem>) {
    let at = |own: usize| -> Range<usize> {
        match key.get_ref() {
            Listen::Addresses(entries) => entries.get(own).map_or(key.span(), Spanned::span),
            Listen::Word(_) => key.span(),
        }
    };
    for (number, own) in listen.iter().enumerate() {
        let Some(other) = http.listen.iter().find(|other| overlap(**other, *own)) else {
            continue;
        };
        let message =
            format!("`{own}` and `{other}` of [http] listen are the same port of the same address");
        let fix = match key.get_ref() {
            Listen::Word(_) => "choose another divert_port",
            Listen::Addresses(_) => "write the port that speaks TLS: \"[::]:443\"",
        };
        problems.push(Problem::new(at(number), message).fix(fix));
        return;
    }
}
