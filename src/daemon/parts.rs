//! From the checked configuration to what the parts need: the only place that knows both sides.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nlink::netlink::nftables::Family as NftFamily;

use crate::answer::{Answers, Pushed, Source, Upstream, Webroot};
use crate::config::{self, Accounts, Config, Group};
use crate::firewall::enforcer::Orders;
use crate::firewall::ruleset::{ForeignSet, Mode, Settings};
use crate::front::{self, RedirectStatus, Rules};

/// What the enforcer holds itself to.
pub fn orders(config: &Config) -> Orders {
    let mode = match &config.firewall.mode {
        config::Mode::Guard => Mode::Guard,
        config::Mode::GateOnly => Mode::GateOnly,
        config::Mode::Set(set) => Mode::Set {
            set: ForeignSet {
                family: match set.family {
                    config::SetFamily::Ip => NftFamily::Ip,
                    config::SetFamily::Ip6 => NftFamily::Ip6,
                    config::SetFamily::Inet => NftFamily::Inet,
                },
                table: set.table.clone(),
                name: set.set.clone(),
            },
            mark: config.firewall.mark,
        },
    };
    let mut ports = config.firewall.ports.clone();
    ports.sort_unstable();
    Orders {
        settings: Settings {
            mode,
            ports,
            allow: config.allow.list(),
            owned: config.firewall.owned,
        },
        limits: config.limits(),
    }
}

/// What the front follows; opens webroots. What could not be opened is answered by pushed tokens
/// alone, and said in `problems`.
///
/// # Errors
/// A configured webroot cannot be opened. The built-in one may be missing.
pub fn rules(
    config: &Config,
    pushed: &Arc<Pushed>,
    problems: &mut Vec<String>,
) -> io::Result<Rules> {
    let mut sources = Vec::new();
    for site in &config.sites {
        sources.push(match &site.source {
            config::Source::Pushed => Source::Pushed,
            config::Source::Thumbprint(thumbprint) => Source::Thumbprint(thumbprint.clone()),
            config::Source::Upstream(address) => Source::Upstream(Upstream::new(*address)),
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
                             start needs a restart)",
                            path.display()
                        ),
                    ));
                }
            },
        });
    }
    Ok(Rules {
        gate: config.gate(),
        responder: Arc::new(Answers::new(Arc::clone(pushed), sources)),
        settings: front::Settings {
            head_timeout: config.http.head_timeout,
            max_connections: config.http.max_connections as usize,
            max_per_source: config.http.max_connections_per_source as usize,
            redirect_status: match config.http.redirect_status {
                308 => RedirectStatus::PermanentRedirect,
                _ => RedirectStatus::MovedPermanently,
            },
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
    webroots.chain(config_dir(config)).collect()
}

/// The directory of the configuration, which both processes read at a reload.
pub fn config_dir(config: &Config) -> Option<PathBuf> {
    let file = config
        .source
        .clone()
        .unwrap_or_else(|| config::DEFAULT_PATH.into());
    file.parent().map(PathBuf::from)
}

/// The ports of upstreams, the only ones that the front may connect to.
pub fn upstream_ports(config: &Config) -> Vec<u16> {
    let mut ports: Vec<u16> = config
        .sites
        .iter()
        .filter_map(|site| match &site.source {
            config::Source::Upstream(address) => Some(address.port()),
            _ => None,
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Asks the host's accounts once and remembers the answers: a sealed process cannot ask again.
pub struct Remembered<Host> {
    host: Option<Host>,
    users: Mutex<HashMap<String, Option<u32>>>,
    groups: Mutex<HashMap<String, Option<Group>>>,
}

impl<Host: Accounts> Remembered<Host> {
    /// A memory over the host's accounts.
    pub fn over(host: Host) -> Self {
        Self {
            host: Some(host),
            users: Mutex::default(),
            groups: Mutex::default(),
        }
    }

    /// From now on only what is remembered is known.
    pub fn seal(&mut self) {
        self.host = None;
    }
}

impl<Host: Accounts> Accounts for Remembered<Host> {
    fn user(&self, name: &str) -> Option<u32> {
        let mut users = self
            .users
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let ask = || self.host.as_ref().and_then(|host| host.user(name));
        *users.entry(name.to_owned()).or_insert_with(ask)
    }

    fn group(&self, name: &str) -> Option<Group> {
        let mut groups = self
            .groups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let ask = || self.host.as_ref().and_then(|host| host.group(name));
        groups.entry(name.to_owned()).or_insert_with(ask).clone()
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
