//! From the checked configuration to what the parts need: the only place that knows both sides.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nlink::netlink::nftables::Family as NftFamily;

use super::confine::{self, Account};
use crate::answer::{Answers, Pushed, Source, Upstream, Webroot};
use crate::config::{self, Accounts, Config, Group, Unchecked};
use crate::firewall::enforcer::Orders;
use crate::firewall::ruleset::{Closed, Divert, ForeignChain, ForeignSet, Mode, Settings, Shut};
use crate::front::{self, Limits, RedirectStatus, Refusal, Rules, Servers};
use crate::gate::allow_list::AllowList;
use crate::gate::command::Commands;
use crate::locked::locked;
use crate::runner;

/// The configuration as each process beside the front reads it, for itself: the front looks at accounts and at the disk.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn load(path: Option<&Path>) -> Result<Config, String> {
    Config::load_with(path, &AnyAccount, &Unchecked).map_err(|error| error.to_string())
}

/// What the enforcer holds itself to, with the allow-list that `[allow]` led to, and the account that the
/// daemon has, if that is known: where it may connect to is limited.
pub fn orders(config: &Config, allow: Arc<AllowList>, account: Option<Account>) -> Orders {
    let mode = match &config.firewall.mode {
        config::Mode::Guard => Mode::Guard,
        config::Mode::GateOnly => Mode::GateOnly,
        config::Mode::Set(set) => Mode::Set(ForeignSet {
            family: family(set.family),
            table: set.table.clone(),
            name: set.set.clone(),
        }),
        config::Mode::Attach(chains) => {
            let chains = chains.iter().map(|chain| ForeignChain {
                family: family(chain.family),
                table: chain.table.clone(),
                name: chain.chain.clone(),
            });
            Mode::Attach(chains.collect())
        }
    };
    let mut ports = config.firewall.ports.clone();
    ports.sort_unstable();
    let divert = config
        .diverted()
        .into_iter()
        .map(|(port, to)| Divert { port, to })
        .collect();
    Orders {
        settings: Settings {
            mode,
            ports,
            allow: allow.into(),
            owned: config.firewall.owned,
            mark: config.firewall.mark,
            closed: Closed {
                v4: shut(config.firewall.closed.v4),
                v6: shut(config.firewall.closed.v6),
            },
            divert,
            observe: config.report.evidence,
            egress: account.and_then(|account| account.confined(config).egress()),
        },
        limits: config.limits(),
    }
}

fn family(family: config::SetFamily) -> NftFamily {
    match family {
        config::SetFamily::Ip => NftFamily::Ip,
        config::SetFamily::Ip6 => NftFamily::Ip6,
        config::SetFamily::Inet => NftFamily::Inet,
    }
}

fn shut(shut: config::Shut) -> Shut {
    match shut {
        config::Shut::Drop => Shut::Drop,
        config::Shut::Reject => Shut::Reject,
        config::Shut::Pass => Shut::Pass,
    }
}

/// What the runner holds itself to. Where no commands are named any more, there are none to run.
pub fn runner_orders(config: &Config) -> runner::serve::Orders {
    let commands = config.firewall.commands.clone().unwrap_or(Commands {
        open: None,
        close: None,
        timeout: Duration::from_secs(1),
        net_admin: false,
    });
    runner::serve::Orders {
        commands: Arc::new(commands),
        notifier: config.notify.notifier.clone(),
        limits: config.limits(),
        state_file: config.daemon.state_dir.join(runner::state::FILE),
    }
}

/// The programs of commands that are not on this host, each as a sentence.
pub fn missing_programs(config: &Config) -> Vec<String> {
    let commands = config.firewall.commands.iter().flat_map(Commands::each);
    commands
        .filter(|(_, command)| runner::program::find(command.program()).is_none())
        .map(|(key, command)| {
            format!(
                "[firewall] {key}: there is no program `{}` (looked for in {}): every opening would fail",
                command.program(),
                runner::program::SEARCH_PATH
            )
        })
        .chain(missing_notifier(config))
        .collect()
}

fn missing_notifier(config: &Config) -> Option<String> {
    let program = config.notify.notifier.as_ref()?.command.program();
    runner::program::find(program).is_none().then(|| {
        format!(
            "[notify] command: there is no program `{program}` (looked for in {}): nobody would be told",
            runner::program::SEARCH_PATH
        )
    })
}

/// What the front follows; opens webroots. What could not be opened is answered by pushed tokens
/// alone, and said in `problems`.
///
/// # Errors
/// A configured webroot cannot be opened. The built-in one may be missing.
pub fn rules(
    config: &Config,
    allow: Arc<AllowList>,
    pushed: &Arc<Pushed>,
    room: Room,
    problems: &mut Vec<String>,
) -> io::Result<Rules> {
    let mut sources = Vec::new();
    for site in &config.sites {
        sources.push(match &site.source {
            config::Source::Pushed => Source::Pushed,
            config::Source::Thumbprint(thumbprint) => Source::Thumbprint(thumbprint.clone()),
            config::Source::Upstream(server) => Source::Upstream(Upstream::new(*server)),
            config::Source::Webroot(path) => match Webroot::open(path) {
                Ok(webroot) => Source::Webroot(webroot),
                Err(error) if *path == built_in_webroot(config) => {
                    problems.push(format!(
                        "the built-in webroot {} cannot be used ({error}): only pushed tokens are answered",
                        path.display()
                    ));
                    Source::Pushed
                }
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!(
                            "the webroot {} cannot be opened: {error} (a webroot that was not configured at \
                             start, or was made anew since, needs a restart)",
                            path.display()
                        ),
                    ));
                }
            },
        });
    }
    Ok(Rules {
        gate: config.gate(allow),
        responder: Arc::new(Answers::new(
            Arc::clone(pushed),
            sources,
            config.sites.iter().map(|site| site.tls_source).collect(),
        )),
        servers: Servers {
            by_site: config.sites.iter().map(|site| site.server).collect(),
            otherwise: config.tls.server,
        },
        settings: front::Settings {
            head_timeout: config.http.head_timeout,
            // No more than there are descriptors for.
            http: Limits {
                total: room.http.min(config.http.max_connections as usize),
                per_source: config.http.max_connections_per_source as usize,
            },
            tls: Limits {
                total: room.tls.min(config.tls.max_connections as usize),
                per_source: config.tls.max_connections_per_source as usize,
            },
            hello_timeout: config.tls.hello_timeout,
            idle_timeout: config.tls.idle_timeout,
            refusal: match config.tls.refuse {
                config::Refusal::Close => Refusal::Close,
                config::Refusal::Alert => Refusal::Alert,
            },
            redirect_status: match config.http.redirect_status {
                308 => RedirectStatus::PermanentRedirect,
                _ => RedirectStatus::MovedPermanently,
            },
            protocol_from: AllowList::new(config.proxy.protocol_from.iter().copied()),
            headers_from: AllowList::new(config.proxy.headers_from.iter().copied()),
        },
    })
}

/// Where answers are looked for when no site is configured.
pub fn built_in_webroot(config: &Config) -> PathBuf {
    config.daemon.state_dir.join("webroot")
}

/// The directories that the front must read once it is sealed.
pub fn readable(config: &Config) -> Vec<PathBuf> {
    let webroots = config.sites.iter().filter_map(|site| match &site.source {
        config::Source::Webroot(path) => Some(path.clone()),
        _ => None,
    });
    webroots.chain(read_again(config)).collect()
}

/// The directories that both processes read at a reload: those of the configuration and of its lists.
pub fn read_again(config: &Config) -> impl Iterator<Item = PathBuf> {
    let lists = config.allow.directories();
    config_dir(config).into_iter().chain(lists)
}

/// The directory of the configuration.
pub fn config_dir(config: &Config) -> Option<PathBuf> {
    let file = config
        .source
        .clone()
        .unwrap_or_else(|| config::DEFAULT_PATH.into());
    // Of a name alone, as in `--config acmegate.toml`, it is the directory that we were started in.
    file.parent().map(|directory| match directory.as_os_str() {
        empty if empty.is_empty() => PathBuf::from("."),
        _ => directory.to_owned(),
    })
}

/// How many connections there are descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of those that speak HTTP.
    pub http: usize,
    /// Of those that speak TLS.
    pub tls: usize,
}

/// The ports of upstreams, servers and the webhook, the only ones that the front may connect to.
pub fn upstream_ports(config: &Config) -> Vec<u16> {
    let destinations = confine::destinations(config).into_iter();
    let ports: BTreeSet<u16> = destinations.map(|to| to.port()).collect();
    ports.into_iter().collect()
}

/// Asks the host's accounts once and remembers the answers: a sealed process cannot ask again.
pub struct Remembered<Host> {
    host: Option<Host>,
    users: Mutex<HashMap<String, u32>>,
    groups: Mutex<HashMap<String, Group>>,
    missed: Mutex<Option<String>>,
}

impl<Host: Accounts> Remembered<Host> {
    /// A memory over the host's accounts.
    pub fn over(host: Host) -> Self {
        Self {
            host: Some(host),
            users: Mutex::default(),
            groups: Mutex::default(),
            missed: Mutex::default(),
        }
    }

    /// From now on only what is remembered is known.
    pub fn seal(&mut self) {
        self.host = None;
    }

    /// A name that nobody could be asked about since this was last called, if there was one.
    pub fn take_missed(&self) -> Option<String> {
        locked(&self.missed).take()
    }

    fn remember<Found: Clone>(
        &self,
        known: &Mutex<HashMap<String, Found>>,
        name: &str,
        ask: impl FnOnce(&Host) -> Option<Found>,
    ) -> Option<Found> {
        let mut known = locked(known);
        if let Some(found) = known.get(name) {
            return Some(found.clone());
        }
        let Some(host) = &self.host else {
            *locked(&self.missed) = Some(name.to_owned());
            return None;
        };
        let found = ask(host)?;
        known.insert(name.to_owned(), found.clone());
        Some(found)
    }
}

impl<Host: Accounts> Accounts for Remembered<Host> {
    fn user(&self, name: &str) -> Option<u32> {
        self.remember(&self.users, name, |host| host.user(name))
    }

    fn group(&self, name: &str) -> Option<Group> {
        self.remember(&self.groups, name, |host| host.group(name))
    }
}

/// For those who read a configuration without caring about its grants, as the enforcer does.
pub struct AnyAccount;

impl Accounts for AnyAccount {
    fn user(&self, _name: &str) -> Option<u32> {
        Some(u32::MAX)
    }

    fn group(&self, _name: &str) -> Option<Group> {
        Some(Group {
            gid: u32::MAX,
            members: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_memory_tells_what_it_could_not_ask() {
        let mut accounts = Remembered::over(AnyAccount);
        assert!(accounts.user("early").is_some() && accounts.group("early").is_some());
        accounts.seal();
        assert!(accounts.user("early").is_some() && accounts.group("early").is_some());
        assert_eq!(accounts.take_missed(), None);
        assert!(accounts.group("late").is_none());
        assert_eq!(accounts.take_missed().as_deref(), Some("late"));
        assert_eq!(accounts.take_missed(), None);
    }

    #[test]
    fn a_configuration_without_a_directory_is_in_the_one_that_we_started_in() {
        for (file, directory) in [
            ("acmegate.toml", "."),
            ("etc/acmegate.toml", "etc"),
            ("/etc/acmegate.toml", "/etc"),
        ] {
            let config = Config {
                source: Some(PathBuf::from(file)),
                ..Config::default()
            };
            assert_eq!(config_dir(&config), Some(PathBuf::from(directory)));
        }
    }
}
