//! The status: what every part knows, put together. Nothing is changed here.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::commands::Commands;
use super::desk::Desk;
use super::now;
use crate::config::{Config, Source};
use crate::control::protocol::VERSION;
use crate::control::status::{self, Status};
use crate::firewall::message::List;
use crate::gate::challenge::ChallengeType;
use crate::gate::early::When;
use crate::gate::identifier::Pattern;
use crate::gate::lease::{Door, Entrance, Family, Trigger};
use crate::gate::site::site_for;
use crate::gate::usage::{Account, Kind};
use crate::gate::window::Windows;
use crate::locked::locked;

/// How long the enforcer may think before an operator hears of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many lease names, and how many identifiers, the status tells the time of.
const MOST_TOLD: usize = 16;

/// Everything that an operator asks first, as of now.
pub fn tell(desk: &Desk) -> Status {
    let now = now();
    let config = desk.config.borrow().clone();
    let windows = desk.leases.windows().borrow().clone();
    let health = desk.leases.health();
    let left = |until: Instant| millis(until.saturating_duration_since(now));
    let mut problems = locked(&desk.problems).clone();
    problems.extend(locked(&desk.list_problems).iter().cloned());
    problems.extend(desk.notices.problem());
    if !health.note.is_empty() {
        problems.push(format!("shut: {}", health.note));
    }
    match health.list {
        List::Whole => {}
        List::Filling { percent, ranges } => problems.push(format!(
            "the allow-list is being put into the kernel: {percent} % of {ranges} ranges are there; until it is \
             whole the one before counts, or after a flush the local networks alone"
        )),
        List::Refused { errno } => problems.push(format!(
            "the kernel did not take the allow-list ({}); the one before counts, and it is tried again",
            std::io::Error::from_raw_os_error(errno.cast_signed())
        )),
    }
    if let Some(waiting) = desk.leases.waiting().filter(|waiting| *waiting > PATIENCE) {
        problems.push(format!(
            "the enforcer has owed an answer for {} s: nothing can be opened meanwhile",
            waiting.as_secs()
        ));
    }
    let runner = desk.leases.commands().map(Commands::health);
    if let Some(health) = runner.as_ref().filter(|health| !health.problem.is_empty()) {
        problems.push(health.problem.clone());
    }
    let commands = desk.leases.commands();
    problems.extend(commands.and_then(|commands| commands.fight(&windows)));
    let history = desk.history.health();
    problems.extend_from_slice(&history.problems);
    let sites = config.gate_sites();
    let mut guarded = config.firewall.ports.clone();
    guarded.sort_unstable();
    let seen = desk.observer.thumbprints();
    Status {
        version: VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        config: config
            .source
            .as_ref()
            .map(|path| path.display().to_string()),
        problems,
        history: history.is_on.then_some(status::History {
            records: history.records,
            bytes: history.bytes,
            oldest: history.oldest,
            unsaved: history.unsaved,
        }),
        firewall: status::Firewall {
            mode: config.firewall.mode.as_str().to_owned(),
            installed: health.is_installed,
            owned: health.is_owned,
            gaps: health.gaps,
            landlock: desk.landlocked.as_str().to_owned(),
            unrestricted: desk
                .landlocked
                .missing()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            egress: desk.account.confined(&config).words(),
        },
        commands: config
            .firewall
            .commands
            .as_ref()
            .filter(|_| runner.is_some())
            .map(|commands| status::Commands {
                open: commands.open.as_ref().map(ToString::to_string),
                close: commands.close.as_ref().map(ToString::to_string),
                timeout: millis(commands.timeout),
                net_admin: commands.net_admin,
                failure: runner
                    .map(|health| health.failure)
                    .filter(|failure| !failure.is_empty()),
            }),
        allow: {
            let rules = desk.rules.borrow();
            let allow = &rules.gate.allow;
            status::Allow {
                ipv4_ranges: allow.v4().as_slice().len(),
                ipv6_ranges: allow.v6().as_slice().len(),
            }
        },
        windows: guarded
            .iter()
            .flat_map(|port| Family::ALL.map(|family| (*port, family)))
            .map(|(port, family)| {
                let is_meant = |door: &Door| door.family == family && door.port == port;
                let until = windows.open_where(is_meant, now);
                let mut challenges = ChallengeType::ALL.into_iter();
                let challenge = challenges.find(|challenge| challenge.port() == port);
                status::Window {
                    port,
                    challenge: challenge.map(|challenge| challenge.to_string()),
                    family: family.word().to_owned(),
                    open: until.is_some(),
                    milliseconds: until.map(left),
                }
            })
            .collect(),
        close_early: {
            let rule = config.window.early;
            status::CloseEarly {
                when: match rule.when {
                    When::Off => "off".to_owned(),
                    When::Tokens => "tokens".to_owned(),
                    When::Quorum => "quorum".to_owned(),
                },
                settle_milliseconds: millis(rule.settle),
                quorum: rule.quorum,
            }
        },
        leases: windows
            .leases()
            .filter(|lease| lease.deadline > now)
            .map(|lease| status::Lease {
                name: lease.name.to_string(),
                holder: lease
                    .holder
                    .as_ref()
                    .map(|holder| format!("{} (pid {})", holder.command, holder.pid)),
                caller: lease.caller,
                trigger: match lease.trigger {
                    Trigger::Asked => "asked".to_owned(),
                    Trigger::Automatic => "automatic".to_owned(),
                },
                ports: lease.scope.ports.clone(),
                entrance: match &lease.scope.entrance {
                    Entrance::Any => None,
                    entrance => Some(entrance.to_string()),
                },
                families: Family::ALL
                    .into_iter()
                    .filter(|family| lease.scope.families.has(*family))
                    .map(|family| family.word().to_owned())
                    .collect(),
                identifiers: lease
                    .scope
                    .identifiers
                    .as_ref()
                    .map(|names| names.iter().map(ToString::to_string).collect()),
                milliseconds: left(lease.deadline),
            })
            .collect(),
        armed: desk
            .armed
            .list()
            .into_iter()
            .map(|(name, terms)| status::Armed {
                open: windows
                    .lease(&name)
                    .is_some_and(|lease| lease.deadline > now),
                name: name.to_string(),
                holder: terms
                    .open
                    .holder
                    .map(|holder| format!("{} (pid {})", holder.command, holder.pid)),
                caller: terms.caller.uid,
            })
            .collect(),
        budget: status::Budget {
            used: windows
                .openings()
                .iter()
                .filter(|opening| opening.forgotten_at > now)
                .count(),
            per_hour: config.budget.per_hour,
            per_caller: config.budget.per_caller,
            reserve: config.budget.reserve,
            time: times(&config, &windows, now),
        },
        listeners: desk.listeners.iter().map(ToString::to_string).collect(),
        metrics: desk.scraped_at.iter().map(ToString::to_string).collect(),
        sites: config
            .sites
            .iter()
            .enumerate()
            .map(|(at, site)| status::Site {
                identifiers: match site.gate.is_default {
                    true => vec!["default".to_owned()],
                    false => site
                        .gate
                        .identifiers
                        .iter()
                        .map(Pattern::to_string)
                        .collect(),
                },
                answer: match &site.source {
                    Source::Pushed => "pushed".to_owned(),
                    Source::Webroot(path) => format!("webroot {}", path.display()),
                    Source::Upstream(server) => format!("upstream {}", server.address),
                    Source::Thumbprint(_) => "thumbprint".to_owned(),
                },
                tls_answer: site
                    .tls_source
                    .map(|server| format!("upstream {}", server.address)),
                server: site
                    .server
                    .or(config.tls.server)
                    .filter(|_| !config.tls.listen.is_empty())
                    .map(|server| server.address.to_string()),
                accounts: site
                    .gate
                    .accounts
                    .iter()
                    .map(|account| account.as_str().to_owned())
                    .collect(),
                seen: seen
                    .iter()
                    .filter(|(name, _)| site_for(&sites, name).is_some_and(|(id, _)| id.0 == at))
                    .map(|(_, account)| account.as_str().to_owned())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
            })
            .collect(),
        pushed: desk.pushed.list(now).len(),
        connections: desk
            .observer
            .counts()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| status::Count {
                reason: reason.word().to_owned(),
                count,
            })
            .collect(),
    }
}

/// The time of all windows, and of those accounts that have used most.
fn times(config: &Config, windows: &Windows, now: Instant) -> Vec<status::Time> {
    let limits = config.budget.time;
    let mut times = windows.times(limits, config.window.max, now);
    times.sort_by_key(|time| (time.account.kind(), Reverse((time.month, time.day))));
    let mut told = Vec::new();
    for kind in [Kind::Total, Kind::Lease, Kind::Identifier] {
        let of_kind = times.iter().filter(|time| time.account.kind() == kind);
        told.extend(of_kind.take(MOST_TOLD).map(|time| {
            let allowed = limits.of(&time.account);
            let (of, name, caller) = match &time.account {
                Account::Total => ("all", None, None),
                Account::Lease(name, caller) => ("lease", Some(name.to_string()), Some(*caller)),
                Account::Identifier(name) => ("identifier", Some(name.to_string()), None),
            };
            status::Time {
                of: of.to_owned(),
                name,
                caller,
                day: share(time.day, allowed.day),
                month: share(time.month, allowed.month),
                fits_in_milliseconds: match time.fits {
                    Ok(()) => Some(0),
                    Err(shortage) => shortage.fits_in.map(millis),
                },
            }
        }));
    }
    told
}

fn share(spent: Duration, allowed: Option<Duration>) -> status::Share {
    status::Share {
        milliseconds: millis(spent),
        allowed_milliseconds: allowed.map(millis),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
