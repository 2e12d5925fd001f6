//! The outlook: what would be a better way for this host, and how often its windows will open.
//!
//! Advice alone: nothing here is a reason why a validation fails. A function of the case, what the daemon says
//! and the date; how often is the arithmetic of lifetimes that CAs have announced.

use std::time::Duration;

use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use crate::config::{Config, Mode, Source, format_duration};
use crate::control::client;
use crate::control::protocol::{Ask, ReportWord};
use crate::control::status::Status;
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;

crate::findings! { Outlook:
    /// How many windows a year a certificate needs.
    WINDOWS_A_YEAR = "windows-a-year";
    /// The gate alone is enough: the port need not be shut between windows.
    PORT_80_MAY_STAY_OPEN = "port-80-may-stay-open";
    /// A challenge in DNS needs no window on this host.
    NO_WINDOW_BY_DNS = "no-window-by-dns";
    /// The port of the other challenge is open to the world already.
    NO_WINDOW_BY_TLS = "no-window-by-tls";
    /// Addresses have certificates of a week.
    ADDRESSES_ARE_SHORT_LIVED = "addresses-are-short-lived";
}

/// From when, in days after 1970, Let's Encrypt's usual certificates live how long, and how often a year they are
/// renewed and validated: after two thirds of that (letsencrypt.org, announced 2025-12).
const LIFETIMES: [Lifetime; 3] = [
    Lifetime {
        from_day: 0,
        from: "2015-09-14",
        days: 90,
        a_year: (6, 6),
    },
    Lifetime {
        from_day: 20_859,
        from: "2027-02-10",
        days: 64,
        a_year: (8, 9),
    },
    Lifetime {
        from_day: 21_230,
        from: "2028-02-16",
        days: 45,
        a_year: (12, 12),
    },
];
/// Six days and some, renewed after half of them.
const SHORT_LIVED_A_YEAR: &str = "110";
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

struct Lifetime {
    from_day: u64,
    /// The same day as people write it.
    from: &'static str,
    days: u32,
    /// At least, and at most.
    a_year: (usize, usize),
}

/// How many windows the daemon remembers of the last 30 days, as far as this caller may know.
pub fn windows_of_a_month(case: &Case) -> Option<usize> {
    let word = ReportWord {
        since: Some(30 * DAY_MILLIS),
        ..ReportWord::default()
    };
    let response = client::ask(&case.runtime_dir, Ask::Report(word)).ok()?;
    (response.code == 0).then_some(response.report.len())
}

/// Looks ahead from `now`, in milliseconds after 1970.
pub fn examine(case: &Case, status: Option<&Status>, last_month: Option<usize>, now: u64) -> Exam {
    let mut exam = Exam::of(Area::Outlook);
    exam.findings
        .push(windows_a_year(case, status, last_month, now));
    exam.findings.extend(addresses(case));
    exam.findings.extend(port_80(&case.config));
    exam.findings.extend(by_tls(&case.config));
    exam.findings.extend(by_dns(case));
    exam
}

fn windows_a_year(
    case: &Case,
    status: Option<&Status>,
    last_month: Option<usize>,
    now: u64,
) -> Finding {
    let today = now / DAY_MILLIS;
    let at = LIFETIMES
        .iter()
        .rposition(|lifetime| lifetime.from_day <= today)
        .unwrap_or(0);
    let later = LIFETIMES[at + 1..].iter().map(|lifetime| {
        let Lifetime {
            days, from, a_year, ..
        } = lifetime;
        format!("; {days} days from {from} on: {}", range(*a_year))
    });
    let Lifetime { days, a_year, .. } = LIFETIMES[at];
    let here = match case.names.len() {
        0 | 1 => String::new(),
        names => format!(
            ", and so {} for these {names} names, in one certificate or one for each",
            range((a_year.0, a_year.1 * names))
        ),
    };
    let said = format!(
        "a certificate needs about {} windows a year{here}",
        range(a_year),
    );
    let mut finding = Finding::new(WINDOWS_A_YEAR, Severity::Advice, said).seen(format!(
        "Let's Encrypt's usual certificates live for {days} days now{}; those of the profile shortlived for six: \
         about {SHORT_LIVED_A_YEAR}",
        later.collect::<String>()
    ));
    if let Some(windows @ 1..) = last_month {
        finding = finding.seen(format!(
            "{windows} windows were opened here in the last 30 days: as many as {} a year",
            (windows * 365).div_ceil(30)
        ));
    }
    let all = status.and_then(|status| {
        let mut times = status.budget.time.iter();
        times.find(|time| time.of == "all")
    });
    if let Some(time) = all.filter(|time| time.month.milliseconds > 0) {
        let open = format_duration(Duration::from_secs(time.month.milliseconds.div_ceil(1000)));
        finding = finding.seen(format!(
            "for {open} of these 30 days a window was open; none may be longer than {}",
            format_duration(case.config.window.max)
        ));
    }
    finding
}

fn range((low, high): (usize, usize)) -> String {
    if low == high {
        return low.to_string();
    }
    format!("{low} to {high}")
}

fn addresses(case: &Case) -> Option<Finding> {
    let mut addresses = case
        .names
        .iter()
        .filter(|name| matches!(name, Identifier::Ip(_)))
        .peekable();
    addresses.peek()?;
    let said = format!(
        "Let's Encrypt certifies addresses by the profile shortlived alone, which needs about {SHORT_LIVED_A_YEAR} \
         windows a year"
    );
    let mut finding = Finding::new(ADDRESSES_ARE_SHORT_LIVED, Severity::Advice, said);
    finding.names = addresses.map(ToString::to_string).collect();
    Some(finding)
}

/// Where the gate has port 80, and knows every token that it answers, shutting the port adds nothing that a
/// peer could use.
fn port_80(config: &Config) -> Option<Finding> {
    let http = ChallengeType::Http01.port();
    let guards = matches!(config.firewall.mode, Mode::Guard)
        && config.firewall.ports.contains(&http)
        && config.http.divert.is_none()
        && config.http.listen.iter().any(|own| own.port() == http);
    let knows_tokens = config
        .sites
        .iter()
        .all(|site| matches!(site.source, Source::Pushed | Source::Webroot(_)));
    (guards && knows_tokens).then(|| {
        Finding::new(
            PORT_80_MAY_STAY_OPEN,
            Severity::Advice,
            "port 80 may as well stay open to the world for ever: only the gate listens there, and it answers only tokens that were announced",
        )
        .remedy("if your policy lets you: `mode = \"gate-only\"` in `[firewall]`, and `redirect_for = \"allow-list\"` in `[http]`; then no hook is needed to open anything")
    })
}

fn by_tls(config: &Config) -> Option<Finding> {
    let tls = ChallengeType::TlsAlpn01.port();
    let is_guarded = config.firewall.ports.contains(&tls);
    let is_listened_on = config.tls.listen.iter().any(|own| own.port() == tls);
    let is_used = config
        .sites
        .iter()
        .any(|site| site.challenges.contains(&ChallengeType::TlsAlpn01));
    (is_listened_on && !is_guarded && !is_used).then(|| {
        Finding::new(
            NO_WINDOW_BY_TLS,
            Severity::Advice,
            "the gate has port 443 and does not shut it: validations by tls-alpn-01 need no window",
        )
        .remedy("`challenges = [\"tls-alpn-01\"]` for the sites whose client can do it (Caddy, lego, uacme, dehydrated, mod_md; certbot cannot)")
    })
}

fn by_dns(case: &Case) -> Option<Finding> {
    let has_names = case
        .names
        .iter()
        .any(|name| matches!(name, Identifier::Dns(_)));
    has_names.then(|| {
        Finding::new(
            NO_WINDOW_BY_DNS,
            Severity::Advice,
            "challenges in DNS (dns-01, dns-persist-01) need no window here, if the zone's servers answer the whole world",
        )
        .remedy("`acmegate dns-persist NAME --issuer CA --account URI` prints the one record that dns-persist-01 wants, where your CA offers it")
    })
}

#[cfg(test)]
mod tests;
