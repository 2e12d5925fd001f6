//! `acmegate status`: what is open, for whom, how long; and why something is shut that should not be.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;

use super::terminal::{plain, print, seconds};
use super::{Failure, security};
use crate::control::client;
use crate::control::protocol::Exit;
use crate::control::status::{History, Share, Status, Time};
use crate::observe::report::words::many;

/// How it is told.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// What holds the daemon's processes, read from the kernel: best as root
    #[arg(long)]
    security: bool,
}

pub fn run(runtime_dir: &Path, args: &StatusArgs) -> Result<ExitCode, Failure> {
    if args.security {
        security::run(runtime_dir, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = client::status(runtime_dir)?;
    if args.json {
        let text = serde_json::to_string_pretty(&status)
            .map_err(|error| Failure::new(Exit::Software, error))?;
        return print(&format!("{text}\n"));
    }
    print(&render(&status))
}

fn render(status: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "acmegate {}, {}",
        plain(&status.program),
        status
            .config
            .as_deref()
            .map_or("built-in defaults".to_owned(), plain)
    );
    for problem in &status.problems {
        let _ = writeln!(out, "  problem: {}", plain(problem));
    }
    let firewall = &status.firewall;
    let stands = match (firewall.mode.as_str(), firewall.installed, firewall.owned) {
        ("gate-only", ..) => "nothing in the kernel, the gate alone decides",
        (_, false, _) => "NOT in the kernel",
        (_, true, true) => "in the kernel, nobody else can change it",
        (_, true, false) => "in the kernel",
    };
    let _ = writeln!(out, "firewall  mode {}: {stands}", plain(&firewall.mode));
    if firewall.gaps > 0 {
        let _ = writeln!(
            out,
            "          taken away by somebody and put back {} times",
            firewall.gaps
        );
    }
    match firewall.landlock.as_str() {
        "fully" => {}
        "partly" => {
            let open: Vec<String> = firewall
                .unrestricted
                .iter()
                .map(|what| plain(what))
                .collect();
            let _ = writeln!(
                out,
                "sealed    this kernel's landlock is an older one and does not restrict {}; the rest holds",
                open.join(", ")
            );
        }
        _ => out.push_str(
            "sealed    without landlock, which this kernel or container refuses; the rest holds\n",
        ),
    }
    let _ = writeln!(
        out,
        "allow     {} IPv4 and {} IPv6 ranges",
        status.allow.ipv4_ranges, status.allow.ipv6_ranges
    );
    if let Some(commands) = &status.commands {
        for (word, command) in [("open", &commands.open), ("close", &commands.close)] {
            if let Some(command) = command {
                let _ = writeln!(out, "command   {word}: {}", plain(command));
            }
        }
        if let Some(failure) = &commands.failure {
            let _ = writeln!(out, "          last failure: {}", plain(failure));
        }
    }
    for window in &status.windows {
        let stands = match window.milliseconds {
            Some(left) if window.open => format!("open for {} more", seconds(left)),
            _ => "shut to the world".to_owned(),
        };
        let challenge = window.challenge.as_deref().map(plain);
        let by = challenge.map_or_else(String::new, |challenge| format!(" by {challenge}"));
        let _ = writeln!(
            out,
            "window    tcp {} {}{by}: {stands}",
            window.port,
            plain(&window.family)
        );
    }
    let early = &status.close_early;
    let settle = seconds(early.settle_milliseconds);
    let networks = early.quorum;
    let _ = match early.when.as_str() {
        "tokens" => writeln!(
            out,
            "early     closed {settle} after its last token is gone"
        ),
        "quorum" => writeln!(
            out,
            "early     closed {settle} after its last token is gone, or {networks} networks had each"
        ),
        _ => Ok(()),
    };
    for lease in &status.leases {
        let holder = lease
            .holder
            .as_deref()
            .map_or(String::new(), |holder| format!(" for {}", plain(holder)));
        let _ = writeln!(
            out,
            "lease     {}: {} left, uid {}{holder}",
            plain(&lease.name),
            seconds(lease.milliseconds),
            lease.caller
        );
        if let Some(entrance) = &lease.entrance {
            let _ = writeln!(out, "          opens only {}", plain(entrance));
        }
        match lease.identifiers.as_deref() {
            None => {}
            Some([]) => out.push_str(
                "          covers no identifier: a restart forgot which; open it again\n",
            ),
            Some(identifiers) => {
                let names: Vec<String> = identifiers.iter().map(|name| plain(name)).collect();
                let _ = writeln!(out, "          covers only {}", names.join(", "));
            }
        }
    }
    for armed in &status.armed {
        let holder = armed
            .holder
            .as_deref()
            .map_or(String::new(), |holder| format!(" for {}", plain(holder)));
        let stands = match armed.open {
            true => "open",
            false => "shut until its command asks",
        };
        let _ = writeln!(
            out,
            "armed     {}: {stands}, uid {}{holder}",
            plain(&armed.name),
            armed.caller
        );
    }
    let _ = writeln!(
        out,
        "budget    {} of {} openings in the last hour",
        status.budget.used, status.budget.per_hour
    );
    for time in &status.budget.time {
        let _ = writeln!(out, "          {}", time_line(time));
    }
    match status.listeners.as_slice() {
        [] => out.push_str("listener  none: windows only\n"),
        listeners => {
            for listener in listeners {
                let _ = writeln!(out, "listener  {}", plain(listener));
            }
        }
    }
    for address in &status.metrics {
        let _ = writeln!(out, "metrics   http://{}/metrics", plain(address));
    }
    for site in &status.sites {
        let names: Vec<String> = site.identifiers.iter().map(|name| plain(name)).collect();
        let _ = writeln!(
            out,
            "site      {}: {}",
            names.join(", "),
            plain(&site.answer)
        );
        if let Some(answer) = &site.tls_answer {
            let _ = writeln!(out, "          by tls-alpn-01: {}", plain(answer));
        }
        if let Some(server) = &site.server {
            let _ = writeln!(out, "          visitors are led to {}", plain(server));
        }
        for account in &site.accounts {
            let _ = writeln!(out, "          vouches for {}", plain(account));
        }
        for account in site
            .seen
            .iter()
            .filter(|account| !site.accounts.contains(account))
        {
            let _ = writeln!(out, "          seen: accounts = [\"{}\"]", plain(account));
        }
    }
    if status.pushed > 0 {
        let _ = writeln!(out, "pushed    {}", many(status.pushed, "token"));
    }
    if let Some(history) = status.history {
        let _ = writeln!(out, "history   {}", history_line(history));
    }
    if !status.connections.is_empty() {
        let counts: Vec<String> = status
            .connections
            .iter()
            .map(|count| format!("{} {}", count.count, plain(&count.reason)))
            .collect();
        let _ = writeln!(out, "since start  {}", counts.join(", "));
    }
    out
}

fn history_line(history: History) -> String {
    let since = history
        .oldest
        .and_then(|oldest| UNIX_EPOCH.checked_add(Duration::from_millis(oldest)))
        // Beyond it httpdate has no word for a year.
        .filter(|_| history.oldest < Some(253_402_300_800_000))
        .map_or(String::new(), |oldest| {
            format!(" since {}", httpdate::fmt_http_date(oldest))
        });
    let unsaved = match history.unsaved {
        0 => String::new(),
        unsaved => format!("; {unsaved} not written yet"),
    };
    format!(
        "{}{since}, {} KiB{unsaved}",
        many(history.records, "window"),
        history.bytes.div_ceil(1024)
    )
}

fn time_line(time: &Time) -> String {
    let name = time.name.as_deref().map(plain).unwrap_or_default();
    let who = match time.of.as_str() {
        "all" => "open".to_owned(),
        of => match time.caller {
            None => format!("{} {name}:", plain(of)),
            Some(uid) => format!("{} {name} of uid {uid}:", plain(of)),
        },
    };
    let share = |share: Share| match share.allowed_milliseconds {
        None => seconds(share.milliseconds),
        Some(allowed) => format!("{} of {}", seconds(share.milliseconds), seconds(allowed)),
    };
    let again = match time.fits_in_milliseconds {
        Some(0) => String::new(),
        Some(wait) => format!("; the longest window fits again in {}", seconds(wait)),
        None => "; the longest window never fits".to_owned(),
    };
    format!(
        "{who} {} in 24 hours, {} in 30 days{again}",
        share(time.day),
        share(time.month)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{
        Allow, Armed, Budget, CloseEarly, Commands, Count, Firewall, Lease, Site, Window,
    };

    #[test]
    fn a_seal_that_is_not_whole_is_told() {
        for (word, line) in [
            ("fully", None),
            (
                "partly",
                Some(
                    "sealed    this kernel's landlock is an older one and does not restrict TCP ports; the rest",
                ),
            ),
            ("not", Some("sealed    without landlock")),
        ] {
            let mut status = example();
            status.firewall.landlock = word.to_owned();
            status.firewall.unrestricted = vec!["TCP ports".to_owned()];
            let text = render(&status);
            assert_eq!(text.contains("sealed"), line.is_some(), "{text}");
            assert!(line.is_none_or(|line| text.contains(line)), "{text}");
        }
    }

    #[test]
    fn as_people_read_it() {
        insta::assert_snapshot!(render(&example()));
    }

    fn time(
        of: &str,
        name: Option<&str>,
        seconds: u64,
        allowed: Option<u64>,
        fits_in_milliseconds: Option<u64>,
    ) -> Time {
        let share = |times: u64| Share {
            milliseconds: 1000 * times * seconds,
            allowed_milliseconds: allowed.map(|seconds| 1000 * times * seconds),
        };
        Time {
            of: of.to_owned(),
            name: name.map(str::to_owned),
            caller: (of == "lease").then_some(0),
            day: share(1),
            month: share(10),
            fits_in_milliseconds,
        }
    }

    /// The daemon is asked by root, and its front reads the Internet's bytes.
    #[test]
    fn no_text_of_the_status_moves_a_cursor() {
        fn spoil(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::String(text) => "\u{1b}[2J\u{202e}".clone_into(text),
                serde_json::Value::Array(all) => all.iter_mut().for_each(spoil),
                serde_json::Value::Object(all) => all.values_mut().for_each(spoil),
                _ => {}
            }
        }
        let mut hostile = serde_json::to_value(example()).unwrap();
        spoil(&mut hostile);
        let text = render(&serde_json::from_value(hostile).unwrap());
        let is_hostile = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(is_hostile), "{text:?}");
        assert!(text.contains("\\u{1b}"));
    }

    fn example() -> Status {
        Status {
            version: 1,
            program: "0.1.0".to_owned(),
            config: Some("/etc/acmegate/acmegate.toml".to_owned()),
            problems: vec![
                "the configuration file was changed but not accepted: \u{1b}[31mx".to_owned(),
            ],
            firewall: Firewall {
                mode: "guard".to_owned(),
                installed: true,
                owned: true,
                gaps: 2,
                landlock: "fully".to_owned(),
                unrestricted: Vec::new(),
                egress: "uid 996 connects to 10.0.0.5:80".to_owned(),
            },
            allow: Allow {
                ipv4_ranges: 22_841,
                ipv6_ranges: 31_007,
            },
            commands: Some(Commands {
                open: Some("firewall-cmd --add-port={port}/tcp --timeout={seconds}".to_owned()),
                close: Some("firewall-cmd --remove-port={port}/tcp".to_owned()),
                timeout: 5_000,
                net_admin: false,
                failure: Some("`firewall-cmd` exited 252: FirewallD is not running".to_owned()),
            }),
            windows: vec![
                Window {
                    port: 80,
                    challenge: Some("http-01".to_owned()),
                    family: "ipv4".to_owned(),
                    open: true,
                    milliseconds: Some(118_400),
                },
                Window {
                    port: 80,
                    challenge: Some("http-01".to_owned()),
                    family: "ipv6".to_owned(),
                    open: false,
                    milliseconds: None,
                },
            ],
            leases: vec![Lease {
                name: "certbot-812".to_owned(),
                holder: Some("certbot (pid 812)".to_owned()),
                caller: 0,
                trigger: "asked".to_owned(),
                ports: vec![80],
                families: vec!["ipv4".to_owned()],
                entrance: Some("192.0.2.1".to_owned()),
                identifiers: Some(vec!["example.com".to_owned()]),
                milliseconds: 118_400,
            }],
            close_early: CloseEarly {
                when: "quorum".to_owned(),
                settle_milliseconds: 5000,
                quorum: 4,
            },
            armed: vec![Armed {
                name: "exec-811".to_owned(),
                holder: Some("exec:certbot (pid 811)".to_owned()),
                caller: 0,
                open: false,
            }],
            budget: Budget {
                used: 3,
                per_hour: 120,
                per_caller: 60,
                reserve: 20,
                time: vec![
                    time("all", None, 900, Some(8 * 3600), Some(0)),
                    time("lease", Some("certbot"), 840, None, Some(0)),
                    time(
                        "identifier",
                        Some("example.com"),
                        60,
                        Some(60),
                        Some(3_600_000),
                    ),
                    time("identifier", Some("example.org"), 1, Some(60), None),
                ],
            },
            listeners: vec!["[::]:80".to_owned()],
            metrics: Vec::new(),
            sites: vec![Site {
                identifiers: vec!["example.com".to_owned(), "*.example.com".to_owned()],
                answer: "pushed".to_owned(),
                tls_answer: Some("upstream 10.0.0.26:443".to_owned()),
                server: Some("10.0.0.26:443".to_owned()),
                accounts: vec![],
                seen: vec!["nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ".to_owned()],
            }],
            pushed: 1,
            connections: vec![
                Count {
                    reason: "answered".to_owned(),
                    count: 6,
                },
                Count {
                    reason: "redirected".to_owned(),
                    count: 1,
                },
            ],
            history: Some(History {
                records: 37,
                bytes: 131_072,
                oldest: Some(1_781_516_096_123),
                unsaved: 1,
            }),
        }
    }
}
