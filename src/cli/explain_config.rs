//! `acmegate config explain`: what the gate makes of a request, by the very code that decides it.
//!
//! It reads the configuration alone: no daemon is asked and nothing is connected. What of the answer depends on
//! tokens, files and upstreams is said to.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Failure;
use super::terminal::{plain, print};
use crate::config::lists::Lists;
use crate::config::{Config, Disk, Source};
use crate::control::protocol::Exit;
use crate::daemon::privilege::HostAccounts;
use crate::gate::challenge::ChallengeType;
use crate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use crate::gate::site::{SiteId, site_for};
use crate::gate::window::Windows;
use crate::gate::{Admission, Decision, Gate, Host, Peer, Reason, Request};
use crate::observe::report::escape;

/// A request, and from whom.
#[derive(Debug, Args)]
pub struct ExplainConfigArgs {
    /// The method, such as GET
    method: String,
    /// The URL, as in http://example.com/.well-known/acme-challenge/TOKEN
    url: String,
    /// Who asks
    #[arg(long, value_name = "ADDRESS")]
    from: IpAddr,
    /// Whether a window is open for the identifier
    #[arg(long, value_name = "STATE", default_value = "shut")]
    window: State,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// One for everything is
    Open,
    /// None is
    Shut,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Told {
    /// `accept` or `drop`; for a challenge that is looked up, of the question as such.
    verdict: String,
    /// The reason's word; `null` where an answer decides.
    reason: Option<String>,
    /// What that comes to, in one sentence.
    told: String,
    /// The HTTP status; `null` where there is none, or an answer decides.
    status: Option<u16>,
    /// The identifier that the Host names.
    identifier: Option<String>,
    /// The site's number in the file, the first one 1.
    site: Option<usize>,
    /// What the site covers.
    covers: Option<Vec<String>>,
    /// By which rule the peer may connect.
    admitted_by: Option<String>,
    /// Where the visitor is sent.
    location: Option<String>,
}

pub fn run(config: Option<&Path>, args: &ExplainConfigArgs) -> Result<ExitCode, Failure> {
    let config = Config::load_with(config, &HostAccounts, &Disk)
        .map_err(|error| Failure::new(Exit::Config, error.to_string().trim_end()))?;
    let lists = Lists::read(&config.allow)
        .map_err(|error| Failure::new(Exit::Config, plain(&error.lines().join("; "))))?;
    let (host, target) = split(&args.url).map_err(|why| Failure::new(Exit::Usage, why))?;
    let gate = config.gate(lists.list());
    let now = Instant::now();
    let port = ChallengeType::Http01.port();
    let windows = match args.window {
        State::Shut => Windows::default(),
        State::Open => open_window(port, now)
            .ok_or_else(|| Failure::new(Exit::Software, "no window could be made up"))?,
    };
    let told = explain(&config, &gate, (args, host, target), (&windows, now));
    print(&match args.json {
        true => {
            let text = serde_json::to_string_pretty(&told)
                .map_err(|error| Failure::new(Exit::Software, error))?;
            format!("{}\n", escape::json(&text))
        }
        false => told.text(),
    })
}

/// The host and the target of a URL of port 80, nothing in them normalised.
fn split(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        "write the URL with http://: what comes to port 443 is decided by its ClientHello, not by a URL"
            .to_owned()
    })?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    match host {
        "" => Err("the URL names no host".to_owned()),
        host => Ok((host, if target.is_empty() { "/" } else { target })),
    }
}

/// A window for everything on this port, as `acmegate open` would have it.
fn open_window(port: u16, now: Instant) -> Option<Windows> {
    const LENGTH: Duration = Duration::from_secs(60);
    let mut windows = Windows::default();
    let lease = Lease {
        id: 1,
        name: LeaseName::parse("explain")?,
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![port],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: now + LENGTH,
    };
    windows.write_down(lease, now);
    Some(windows)
}

fn explain(
    config: &Config,
    gate: &Gate,
    (args, host, target): (&ExplainConfigArgs, &str, &str),
    (windows, now): (&Windows, Instant),
) -> Told {
    let port = ChallengeType::Http01.port();
    let address = args.from.to_canonical();
    let peer = Peer {
        address,
        local_port: port,
        local_address: None,
    };
    let admission = match gate.admit(peer, windows, now) {
        Ok(admission) => admission,
        Err(reason) => return refused(reason, None, None, "no rule lets it connect".to_owned()),
    };
    let by = match admission {
        Admission::AllowList => "the allow-list",
        Admission::Window { .. } => "an open window",
        Admission::Everybody => "the mode (gate-only), which lets everybody connect",
    };
    let request = Request {
        method: &args.method,
        target,
        host: Host::Value(host),
        peer: address,
        local_port: port,
    };
    let told = match gate.decide(&request, windows, now) {
        Decision::Challenge(permit) => {
            let covers = permit.is_covered();
            let (reason, told) = match config.sites.get(permit.site().0).map(|site| &site.source) {
                Some(Source::Upstream(server)) if covers => (
                    None,
                    format!("the upstream {} is asked for the token", server.address),
                ),
                Some(Source::Upstream(_)) => (
                    Some(Reason::NotCovered),
                    "answered if it was pushed; the upstream is asked only while a window covers the identifier".to_owned(),
                ),
                Some(Source::Webroot(path)) => (
                    None,
                    format!("answered if it was pushed, or from {}", path.display()),
                ),
                Some(Source::Thumbprint(_)) => (
                    Some(Reason::Answered),
                    "answered by the account's thumbprint".to_owned(),
                ),
                Some(Source::Pushed) | None => (None, "answered if it was pushed".to_owned()),
            };
            let mut found = Told::of(Some(permit.identifier().to_string()), told);
            found.verdict = "accept".to_owned();
            found.reason = reason.map(|reason| reason.word().to_owned());
            found.status = reason.and_then(Reason::status);
            if reason == Some(Reason::NotCovered) {
                found.verdict = Reason::NotCovered.verdict().to_string();
            }
            found.of_site(config, permit.site())
        }
        Decision::Redirect {
            location,
            identifier,
        } => {
            let reason = Reason::Redirected;
            let mut found = Told::of(
                Some(identifier.to_string()),
                format!("shown the way to {location}"),
            );
            found.verdict = reason.verdict().to_string();
            found.reason = Some(reason.word().to_owned());
            found.status = Some(config.http.redirect_status);
            found.location = Some(location);
            match site_for(&gate.sites, &identifier) {
                Some((site, _)) => found.of_site(config, site),
                None => found,
            }
        }
        Decision::Refuse { reason, identifier } => {
            let site = identifier
                .as_ref()
                .and_then(|identifier| site_for(&gate.sites, identifier));
            let found = refused(
                reason,
                identifier.as_ref().map(ToString::to_string),
                reason.status(),
                "the gate refuses it".to_owned(),
            );
            match site {
                Some((site, _)) => found.of_site(config, site),
                None => found,
            }
        }
    };
    Told {
        admitted_by: Some(by.to_owned()),
        ..told
    }
}

fn refused(reason: Reason, identifier: Option<String>, status: Option<u16>, told: String) -> Told {
    Told {
        verdict: reason.verdict().to_string(),
        reason: Some(reason.word().to_owned()),
        status,
        ..Told::of(identifier, told)
    }
}

impl Told {
    fn of(identifier: Option<String>, told: String) -> Self {
        Self {
            verdict: String::new(),
            reason: None,
            told,
            status: None,
            identifier,
            site: None,
            covers: None,
            admitted_by: None,
            location: None,
        }
    }

    fn of_site(self, config: &Config, id: SiteId) -> Self {
        let site = config.sites.get(id.0);
        let covers = site.map(|site| match site.gate.is_default {
            true => vec!["every other name".to_owned()],
            false => site
                .gate
                .identifiers
                .iter()
                .map(ToString::to_string)
                .collect(),
        });
        Self {
            site: Some(id.0 + 1),
            covers,
            ..self
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.verdict, self.told)];
        let reason = self.reason.as_ref().map(|reason| match self.status {
            Some(status) => format!("{reason} (status {status})"),
            None => reason.clone(),
        });
        let site = self.site.map(|number| {
            let covers = self.covers.as_deref().unwrap_or_default().join(", ");
            format!("number {number} of the file: {covers}")
        });
        for (label, value) in [
            ("connects by", self.admitted_by.clone()),
            ("identifier", self.identifier.clone()),
            ("site", site),
            ("reason", reason),
        ] {
            if let Some(value) = value {
                lines.push(format!("  {label:<12}{value}"));
            }
        }
        let lines: Vec<String> = lines.iter().map(|line| plain(line)).collect();
        lines.join("\n") + "\n"
    }
}
