//! What the values of the plain tables mean: from what was read to what cannot be wrong.
//!
//! Every function answers with a value in any case, so that the next one can go on looking; after a
//! problem the whole is thrown away. Sites and grants have files of their own.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::allow::allow;
use super::dns::dns;
use super::error::Problem;
use super::file::{self, File, Key, Section, Word};
use super::firewall::{Listeners, firewall};
use super::grant::{self, Accounts, numeric_id};
use super::listen;
use super::metrics::metrics;
use super::notify::notify;
use super::proxy::proxy;
use super::report::report;
use super::site::{self, Around};
use super::tls::tls;
use super::value::{allowance, directory, duration, one_of, whole};
use super::webroot::{Reader, Webroots};
use super::{Config, Daemon, Format, Http, Level, Log, Site, Tls, Window};
use crate::gate::RedirectFor;
use crate::gate::early::{MAX_QUORUM, Rule, When};
use crate::gate::failures::MAX_LIMIT;
use crate::gate::usage::{Allowance, MAX_LENGTH, Span, TimeLimits};
use crate::gate::window::Budget;

/// The most a budget may allow: one opening a second.
const MAX_PER_HOUR: i64 = 3600;

/// Checks a whole file.
pub(super) fn config(
    file: &File,
    accounts: &dyn Accounts,
    webroots: &dyn Webroots,
    problems: &mut Vec<Problem>,
) -> Config {
    let daemon = daemon(&file.daemon, accounts, problems);
    let (http, http_is_known) = http(&file.http, problems);
    let (tls, tls_is_known) = tls(&file.tls, &http, problems);
    let listeners = (http_is_known && tls_is_known).then(|| Listeners {
        addresses: plain(&http, &tls),
        diverts_http: http.divert.is_some(),
        diverts_tls: tls.divert.is_some(),
        at: listeners_at(file, &http),
    });
    let firewall = firewall(&file.firewall, listeners.as_ref(), problems);
    let listen = [http.listen.as_slice(), tls.listen.as_slice()].concat();
    let around = Around {
        listen: &listen,
        webroots,
        reader: Reader {
            uid: numeric_id(&daemon.user).or_else(|| accounts.user(&daemon.user)),
            name: daemon.user.clone(),
        },
    };
    let sites = if file.has_sites {
        site::sites(&file.sites, &around, problems)
    } else {
        vec![Site::built_in(&daemon.state_dir)]
    };
    let grants = file.grants.iter();
    let window = window(&file.window, problems);
    Config {
        source: None,
        budget: budget(&file.budget, window.max, problems),
        failures_per_hour: failures(&file.budget.keys.failures_per_hour, problems),
        window,
        firewall,
        allow: allow(&file.allow, &file.groups, problems),
        proxy: proxy(&file.proxy, problems),
        metrics: metrics(&file.metrics, &http, &tls, problems),
        log: log(&file.log, problems),
        report: report(&file.report, problems),
        notify: notify(&file.notify, &listen, problems),
        dns: dns(&file.dns, problems),
        grants: grants
            .filter_map(|section| grant::grant(section, accounts, problems))
            .collect(),
        sites,
        http,
        tls,
        daemon,
    }
}

/// The addresses that peers come to by themselves.
fn plain(http: &Http, tls: &Tls) -> Vec<SocketAddr> {
    let own = [(&http.listen, http.divert), (&tls.listen, tls.divert)];
    let plain = own.into_iter().filter(|(_, divert)| divert.is_none());
    plain.flat_map(|(listen, _)| listen.clone()).collect()
}

/// Where the listeners stand that a problem with them is about.
fn listeners_at(file: &File, http: &Http) -> Option<Range<usize>> {
    let of_http = file.http.keys.listen.as_ref().map(Spanned::span);
    let of_tls = file.tls.keys.listen.as_ref().map(Spanned::span);
    match http.divert {
        Some(_) => of_http,
        None => of_tls.or(of_http),
    }
}

fn daemon(
    section: &Section<file::Daemon>,
    accounts: &dyn Accounts,
    problems: &mut Vec<Problem>,
) -> Daemon {
    let mut daemon = Daemon::default();
    if let Some(user) = &section.keys.user {
        daemon.user = match user.get_ref() {
            Word::Text(name) => name.clone(),
            Word::Number(uid) => uid.to_string(),
        };
        if numeric_id(&daemon.user).is_none() && accounts.user(&daemon.user).is_none() {
            let message = format!("there is no account `{}`", daemon.user);
            let fix = format!("create it: {}", create_user(&daemon.user));
            problems.push(Problem::new(user.span(), message).fix(fix));
        }
    }
    if let Some(state_dir) = &section.keys.state_dir {
        daemon.state_dir = directory(state_dir, "state_dir", problems);
    }
    if let Some(require_seals) = &section.keys.require_seals {
        daemon.require_seals = *require_seals.get_ref();
    }
    daemon
}

fn create_user(name: &str) -> String {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if is_plain && !name.is_empty() && !name.starts_with('-') {
        format!("useradd --system {name}")
    } else {
        "useradd --system acmegate, and name that".to_owned()
    }
}

/// Checks `[http]`, and says whether it is known where it listens.
fn http(section: &Section<file::Http>, problems: &mut Vec<Problem>) -> (Http, bool) {
    let keys = &section.keys;
    let default = Http::default();
    let before = problems.len();
    let listening = listen::listen(
        &keys.listen,
        &keys.divert_port,
        section.is_whole,
        listen::HTTP,
        problems,
    );
    let (listen, divert) = listening.unwrap_or((default.listen, None));
    // A `listen` of the wrong type has been taken out: what it said is not known.
    let is_known = problems.len() == before && (keys.listen.is_some() || section.is_whole);
    let redirect_status = match &keys.redirect_status {
        None => default.redirect_status,
        Some(status) => match status.get_ref() {
            301 => 301,
            308 => 308,
            other => {
                let message = format!("`redirect_status` {other} is not one of 301 and 308");
                let fix = match other {
                    302 => "write 301: what acmegate redirects is redirected for good",
                    303 | 307 => "write 308",
                    _ => "write 301 or 308",
                };
                problems.push(Problem::new(status.span(), message).fix(fix));
                301
            }
        },
    };
    let everybody_or_list = [
        ("everybody", RedirectFor::Everybody),
        ("allow-list", RedirectFor::AllowList),
    ];
    let redirect_for = one_of(
        &keys.redirect_for,
        "value of redirect_for",
        &everybody_or_list,
        problems,
    );
    let max_connections = whole(
        &keys.max_connections,
        "max_connections",
        16..=1_000_000,
        default.max_connections,
        problems,
    );
    let http = Http {
        listen,
        divert,
        redirect_status,
        redirect_for: redirect_for.unwrap_or(default.redirect_for),
        head_timeout: duration(
            &keys.head_timeout,
            "head_timeout",
            Duration::from_secs(1)..=Duration::from_secs(60),
            default.head_timeout,
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
    };
    (http, is_known)
}

fn window(section: &Section<file::Window>, problems: &mut Vec<Problem>) -> Window {
    let keys = &section.keys;
    let default = Window::default();
    let words = [
        ("off", When::Off),
        ("tokens", When::Tokens),
        ("quorum", When::Quorum),
    ];
    Window {
        max: duration(
            &keys.max,
            "max",
            Duration::from_secs(1)..=MAX_LENGTH,
            default.max,
            problems,
        ),
        early: Rule {
            when: one_of(&keys.close_early, "value of close_early", &words, problems)
                .unwrap_or(default.early.when),
            settle: duration(
                &keys.settle,
                "settle",
                Duration::from_secs(1)..=Duration::from_secs(300),
                default.early.settle,
                problems,
            ),
            // One network is the CA's first look, before it asks from anywhere else.
            quorum: whole(
                &keys.quorum,
                "quorum",
                2..=i64::from(MAX_QUORUM),
                default.early.quorum,
                problems,
            ),
        },
    }
}

fn budget(
    section: &Section<file::Budget>,
    longest: Duration,
    problems: &mut Vec<Problem>,
) -> Budget {
    let keys = &section.keys;
    let default = Config::default().budget;
    let bounds = 1..=MAX_PER_HOUR;
    let before = problems.len();
    let budget = Budget {
        per_hour: whole(
            &keys.per_hour,
            "per_hour",
            // One is reserved at least.
            2..=MAX_PER_HOUR,
            default.per_hour,
            problems,
        ),
        per_caller: whole(
            &keys.per_caller,
            "per_caller",
            bounds.clone(),
            default.per_caller,
            problems,
        ),
        reserve: whole(&keys.reserve, "reserve", bounds, default.reserve, problems),
        time: time(keys, longest, default.time, problems),
    };
    let at = keys.reserve.as_ref().or(keys.per_hour.as_ref());
    if let (Some(at), true) = (at, problems.len() == before && section.is_whole)
        && budget.reserve >= budget.per_hour
    {
        let Budget {
            per_hour, reserve, ..
        } = budget;
        let message = format!("a reserve of {reserve} leaves nothing of {per_hour} per hour");
        let fix = match &keys.reserve {
            None => format!("add reserve = {}, or raise this", per_hour.div_ceil(6)),
            Some(_) => format!("write a number below {per_hour}"),
        };
        problems.push(
            Problem::new(at.span(), message)
                .fix(fix)
                .note("the reserve is the part of per_hour that only root's own askings may use"),
        );
    }
    budget
}

fn time(
    keys: &file::Budget,
    longest: Duration,
    default: TimeLimits,
    problems: &mut Vec<Problem>,
) -> TimeLimits {
    let mut read = |day: &Key<Word>, month: &Key<Word>, names: [&str; 2], default: Allowance| {
        let [of_day, of_month] = names;
        Allowance {
            day: allowance(day, of_day, Span::Day.length(), default.day, problems),
            month: allowance(
                month,
                of_month,
                Span::Month.length(),
                default.month,
                problems,
            ),
        }
    };
    let total = Allowance {
        // Who allows longer windows means to open them.
        day: default.total.day.map(|day| day.max(longest)),
        ..default.total
    };
    TimeLimits {
        total: read(&keys.day, &keys.month, ["day", "month"], total),
        lease: read(
            &keys.lease_day,
            &keys.lease_month,
            ["lease_day", "lease_month"],
            default.lease,
        ),
        identifier: read(
            &keys.identifier_day,
            &keys.identifier_month,
            ["identifier_day", "identifier_month"],
            default.identifier,
        ),
    }
}

fn failures(key: &Key<Word>, problems: &mut Vec<Problem>) -> Option<u32> {
    let Some(key) = key else {
        return Config::default().failures_per_hour;
    };
    match key.get_ref() {
        Word::Text(word) if word == "unlimited" => return None,
        Word::Number(number) => {
            let limit = u32::try_from(*number).ok();
            if let Some(limit) = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)) {
                return Some(limit);
            }
        }
        Word::Text(_) => {}
    }
    let fix = format!("write 1 to {MAX_LIMIT}, or \"unlimited\"");
    let message = "`failures_per_hour` is no number of failures";
    problems.push(Problem::new(key.span(), message).fix(fix));
    None
}

fn log(section: &Section<file::Log>, problems: &mut Vec<Problem>) -> Log {
    let default = Log::default();
    let formats = [("text", Format::Text), ("json", Format::Json)];
    let levels = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    Log {
        format: one_of(&section.keys.format, "format", &formats, problems)
            .unwrap_or(default.format),
        level: one_of(&section.keys.level, "level", &levels, problems).unwrap_or(default.level),
    }
}
