//! The outlook: what would be a better way for this host, and how often its windows will open.
//!
//! Advice alone: nothing here is a reason why a validation fails. A function of the case, the daemon's status
//! and the date; how often is the arithmetic of lifetimes that CAs have announced.

use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use crate::config::{Config, Mode, Source, format_duration};
use crate::control::status::Status;
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;

use std::time::Duration;

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
        a_year: "6",
    },
    Lifetime {
        from_day: 20_859,
        from: "2027-02-10",
        days: 64,
        a_year: "8 to 9",
    },
    Lifetime {
        from_day: 21_230,
        from: "2028-02-16",
        days: 45,
        a_year: "12",
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
    a_year: &'static str,
}

/// Looks ahead from `now`, in milliseconds after 1970.
pub fn examine(case: &Case, status: Option<&Status>, now: u64) -> Exam {
    let mut exam = Exam::of(Area::Outlook);
    exam.findings.push(windows_a_year(case, status, now));
    exam.findings.extend(addresses(case));
    exam.findings.extend(port_80(&case.config));
    exam.findings.extend(by_tls(&case.config));
    exam.findings.extend(by_dns(case));
    exam
}

fn windows_a_year(case: &Case, status: Option<&Status>, now: u64) -> Finding {
    let today = now / DAY_MILLIS;
    let at = LIFETIMES
        .iter()
        .rposition(|lifetime| lifetime.from_day <= today)
        .unwrap_or(0);
    let later: Vec<String> = LIFETIMES[at + 1..]
        .iter()
        .map(|lifetime| format!("{} from {} on", lifetime.a_year, lifetime.from))
        .collect();
    let later = match later.as_slice() {
        [] => String::new(),
        _ => format!(" ({})", later.join(", ")),
    };
    let Lifetime { days, a_year, .. } = LIFETIMES[at];
    let said = format!(
        "each certificate needs about {a_year} windows a year{later}, by the {days} days that Let's Encrypt's \
         usual ones live; one of the profile shortlived about {SHORT_LIVED_A_YEAR}"
    );
    let mut finding = Finding::new(WINDOWS_A_YEAR, Severity::Advice, said);
    let all = status.and_then(|status| {
        let mut times = status.budget.time.iter();
        times.find(|time| time.of == "all")
    });
    if let Some(time) = all {
        let open = format_duration(Duration::from_secs(time.month.milliseconds.div_ceil(1000)));
        finding = finding.seen(format!(
            "in the last 30 days windows were open for {open} in all; none may be longer than {}",
            format_duration(case.config.window.max)
        ));
    }
    finding
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
