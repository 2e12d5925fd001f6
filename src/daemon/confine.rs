//! Whether the kernel is to limit where the daemon's account may connect to, and why not.
//!
//! The rules go by uid (`firewall/rules/confine.rs`), and so they are right only where the account is the
//! daemon's alone: root's and other people's connections are nobody's to judge here. What is said
//! here is a pure function of the configuration and the account, the same in every process.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rustix::process::{geteuid, getuid};

use super::privilege;
use crate::config::{self, Config, Mode};
use crate::firewall::ruleset::{Egress, MAX_DESTINATIONS};

/// Who the daemon's processes run as. Looked up before a process is sealed, since none can afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    /// It has the name of the account that is made for acmegate, and for nothing else.
    is_ours_alone: bool,
}

/// Whether the account is limited, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confined {
    /// It is.
    To(Egress),
    /// Mode `gate-only`: there is no table.
    NoTable,
    /// The configuration says `egress = "any"`.
    Any,
    /// Commands run under it, and who knows what they need.
    Commands,
    /// Somebody else may live there as well.
    Shared,
    /// It is root.
    Root,
    /// There are more than [`MAX_DESTINATIONS`].
    TooMany,
}

impl Account {
    /// The account of this process.
    pub fn own() -> Self {
        Self::of(geteuid().as_raw())
    }

    /// The account that a daemon with this configuration would have: for who shows, without a daemon, what
    /// one would do. `None` if there is no such account here.
    pub fn to_be(config: &Config) -> Option<Self> {
        match getuid().is_root() {
            true => privilege::uid_of(&config.daemon.user).map(Self::of),
            false => Some(Self::own()),
        }
    }

    fn of(uid: u32) -> Self {
        let name = privilege::name_of(uid);
        Self {
            uid,
            is_ours_alone: name.as_deref() == Some(&config::Daemon::default().user),
        }
    }

    /// Whether this account is limited, by this configuration.
    pub fn confined(self, config: &Config) -> Confined {
        let firewall = &config.firewall;
        let has_commands = firewall.commands.is_some() || config.notify.notifier.is_some();
        match (&firewall.mode, firewall.egress) {
            (Mode::GateOnly, _) => return Confined::NoTable,
            (_, config::Egress::Any) => return Confined::Any,
            _ if self.uid == 0 => return Confined::Root,
            (_, config::Egress::Auto) if has_commands => return Confined::Commands,
            (_, config::Egress::Auto) if !self.is_ours_alone => return Confined::Shared,
            (_, config::Egress::Auto | config::Egress::Upstreams) => {}
        }
        let to = destinations(config);
        match to.len() <= MAX_DESTINATIONS {
            true => Confined::To(Egress {
                uid: self.uid,
                to: to.into_iter().collect(),
            }),
            false => Confined::TooMany,
        }
    }
}

impl Confined {
    /// What the rules are made of.
    pub fn egress(self) -> Option<Egress> {
        match self {
            Self::To(egress) => Some(egress),
            _ => None,
        }
    }

    /// Why this is not what the configuration asks for, if it is not.
    pub fn refusal(&self, config: &Config) -> Option<&'static str> {
        let is_asked = config.firewall.egress == config::Egress::Upstreams;
        match self {
            Self::Root if is_asked => Some(
                "[firewall] egress = \"upstreams\" needs an account of acmegate's own, and this one is root: \
                 name another in [daemon] user, or leave that key out",
            ),
            Self::TooMany if is_asked => Some(
                "[firewall] egress = \"upstreams\" holds for 256 destinations at most, and here are more: leave that key out",
            ),
            _ => None,
        }
    }

    /// One line for the status.
    pub fn words(&self) -> String {
        match self {
            Self::To(egress) => {
                let Egress { uid, to } = egress;
                let to: Vec<String> = to.iter().map(ToString::to_string).collect();
                let to = match to.as_slice() {
                    [] => "nowhere".to_owned(),
                    to => to.join(", "),
                };
                format!("uid {uid} connects to {to}")
            }
            Self::NoTable => "not limited: mode gate-only has no table".to_owned(),
            Self::Any => "not limited: egress = \"any\"".to_owned(),
            Self::Commands => "not limited: commands run under the same account (egress = \"upstreams\" would hold them too)".to_owned(),
            Self::Shared => "not limited: the account is not called acmegate, so somebody else may use it (egress = \"upstreams\", if nobody does)".to_owned(),
            Self::Root => "not limited: the account is root".to_owned(),
            Self::TooMany => "not limited: more than 256 destinations".to_owned(),
        }
    }
}

/// Upstreams, servers and the webhook: where the front connects to, and nobody else of us to anything.
pub fn destinations(config: &Config) -> BTreeSet<SocketAddr> {
    let answers = config.sites.iter().filter_map(|site| match &site.source {
        config::Source::Upstream(address) => Some(*address),
        _ => None,
    });
    let servers = config
        .sites
        .iter()
        .flat_map(|site| [site.tls_source, site.server])
        .chain([config.tls.server])
        .flatten();
    let webhook = config.notify.webhook.as_ref();
    let all = (answers.chain(servers).map(|server| server.address))
        .chain(webhook.map(|webhook| webhook.address));
    // What is written ::ffff:10.0.0.5 goes as 10.0.0.5.
    all.map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Unchecked;
    use crate::daemon::parts;

    const OURS: Account = Account {
        uid: 996,
        is_ours_alone: true,
    };

    fn config(text: &str) -> Config {
        Config::parse(text, "test.toml", &parts::AnyAccount, &Unchecked).unwrap()
    }

    #[test]
    fn an_account_is_limited_only_where_it_is_ours_alone() {
        let shared = Account {
            is_ours_alone: false,
            ..OURS
        };
        let root = Account {
            uid: 0,
            is_ours_alone: true,
        };
        let command = "[firewall]\nopen_command = [\"true\"]\nclose_command = [\"true\"]\n";
        let notify = "[notify]\ncommand = [\"true\"]\n";
        let asked = "[firewall]\negress = \"upstreams\"\n";
        let gate_only = "[firewall]\nmode = \"gate-only\"\n";
        let nowhere = |uid| {
            Confined::To(Egress {
                uid,
                to: Vec::new(),
            })
        };
        for (account, text, expected) in [
            (OURS, "", nowhere(996)),
            (OURS, "[firewall]\negress = \"auto\"\n", nowhere(996)),
            (OURS, "[firewall]\negress = \"any\"\n", Confined::Any),
            (OURS, command, Confined::Commands),
            (OURS, notify, Confined::Commands),
            (OURS, gate_only, Confined::NoTable),
            (shared, "", Confined::Shared),
            (shared, asked, nowhere(996)),
            (OURS, &format!("{asked}{notify}"), nowhere(996)),
            (root, "", Confined::Root),
            (root, asked, Confined::Root),
        ] {
            let config = config(text);
            let confined = account.confined(&config);
            assert_eq!(confined, expected, "{text}");
            let is_refused = account == root && text == asked;
            assert_eq!(confined.refusal(&config).is_some(), is_refused, "{text}");
        }
    }

    #[test]
    fn it_may_reach_what_the_configuration_names_and_each_once() {
        let text = "[notify]\nwebhook = \"http://10.0.0.9:8080/x\"\n\
                    [tls]\nserver = \"127.0.0.1:8443\"\nlisten = [\"[::]:443\"]\n\
                    [[site]]\nidentifiers = [\"a.example.com\"]\nanswer = { upstream = \"http://10.0.0.5\" }\n\
                    [[site]]\nidentifiers = [\"b.example.com\"]\nanswer = { upstream = \"http://10.0.0.5\" }\n\
                    [[site]]\nidentifiers = [\"c.example.com\"]\nanswer = { upstream = \"http://[::ffff:10.0.0.6]:81\" }\n";
        let config = config(text);
        assert_eq!(
            OURS.confined(&config).words(),
            "uid 996 connects to 10.0.0.5:80, 10.0.0.6:81, 10.0.0.9:8080, 127.0.0.1:8443"
        );
        assert_eq!(parts::upstream_ports(&config), [80, 81, 8080, 8443]);
    }

    #[test]
    fn more_destinations_than_rules_are_not_limited() {
        let site = |number: usize| {
            format!(
                "[[site]]\nidentifiers = [\"n{number}.example.com\"]\nanswer = {{ upstream = \"http://10.0.{}.{}\" }}\n",
                number / 256,
                number % 256
            )
        };
        let sites = |count| (1..=count).map(site).collect::<String>();
        assert!(
            OURS.confined(&config(&sites(MAX_DESTINATIONS)))
                .egress()
                .is_some()
        );
        let too_many = sites(MAX_DESTINATIONS + 1);
        for (asked, is_refused) in [("", false), ("[firewall]\negress = \"upstreams\"\n", true)] {
            let config = config(&format!("{asked}{too_many}"));
            let confined = OURS.confined(&config);
            assert_eq!(confined, Confined::TooMany);
            assert_eq!(confined.refusal(&config).is_some(), is_refused, "{asked}");
        }
    }
}
