//! Reads: the operator's words into values that cannot be wrong.
//!
//! `file` follows the TOML and `read` finds every key that it does not know; `check`, `allow`, `firewall`,
//! `names`, `command`, `tls`, `metrics`, `server`, `site`, `grant`, `report`, `notify` and `dns` turn words
//! into the types of this page; `error` says what to write instead.
//! `defaults` has what counts where the file is silent; `lists` reads the files that `[allow]` names, now and again.
//! Nothing here acts on what it reads, and nothing is silently corrected: a file with a mistake is
//! refused as a whole, with every mistake in it shown at once.

mod allow;
mod check;
mod command;
mod country;
mod defaults;
mod dns;
mod duration;
mod error;
mod file;
mod firewall;
mod grant;
mod listen;
pub mod lists;
mod load;
mod metrics;
mod names;
mod notify;
mod prefix;
mod proxy;
mod read;
mod report;
mod server;
mod site;
mod snippet;
mod tls;
mod upstream;
mod value;
mod warnings;
mod webroot;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use self::country::Country;
pub use self::duration::{DurationError, format_duration, parse_duration};
pub use self::error::{ConfigError, Problem};
pub use self::grant::{Accounts, Group};
pub use self::load::{DEFAULT_PATH, MAX_FILE_BYTES};
pub use self::webroot::{
    Disk, Fault, Reader, Unchecked, Webroots, drop_in_for, is_in_a_home, quoted,
};
use crate::gate::allow_list::AllowList;
use crate::gate::caller::Grant;
use crate::gate::challenge::ChallengeType;
use crate::gate::command::{Commands, Notifier};
use crate::gate::early;
use crate::gate::identifier::Pattern;
use crate::gate::site as gate_site;
use crate::gate::tls::Server;
use crate::gate::token::Thumbprint;
use crate::gate::window::{Budget, Limits};
use crate::gate::{Exposure, Gate, RedirectFor};

/// The whole checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from; `None` for the built-in defaults.
    pub source: Option<PathBuf>,
    /// `[daemon]`: who it runs as and what it keeps.
    pub daemon: Daemon,
    /// `[http]`: how it listens.
    pub http: Http,
    /// `[tls]`: how port 443 is listened on.
    pub tls: Tls,
    /// `[window]`: how long.
    pub window: Window,
    /// `[budget]`: how often, and for how long in all.
    pub budget: Budget,
    /// `[budget] failures_per_hour`: how many windows of an identifier may fail in an hour before the
    /// next is refused, 1 to [`MAX_LIMIT`](crate::gate::failures::MAX_LIMIT); `None` is any number.
    pub failures_per_hour: Option<u32>,
    /// `[firewall]`: what the kernel is told.
    pub firewall: Firewall,
    /// `[allow]` and every `[group.NAME]`: whose traffic is never kept out.
    pub allow: Allow,
    /// `[proxy]`: who speaks for others.
    pub proxy: Proxy,
    /// `[metrics]`: where figures are shown.
    pub metrics: Metrics,
    /// `[log]`: what is written down.
    pub log: Log,
    /// `[report]`: what is known of windows afterwards, and kept.
    pub report: Report,
    /// `[notify]`: who is told of windows that did not go well.
    pub notify: Notify,
    /// `[dns]`: what the doctor asks the DNS, and expects of it.
    pub dns: Dns,
    /// Every `[[grant]]`: what callers besides root may ask.
    pub grants: Vec<Grant>,
    /// Every `[[site]]`, in the order of the file; a `gate::site::SiteId` counts in here.
    pub sites: Vec<Site>,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The account that a daemon started as root becomes: a name, or a uid in digits.
    pub user: String,
    /// The directory that outlives restarts; absolute.
    pub state_dir: PathBuf,
    /// Whether a kernel that cannot seal the processes wholly is a reason not to start.
    pub require_seals: bool,
}

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The addresses to listen on, no two of which overlap; empty for windows only.
    pub listen: Vec<SocketAddr>,
    /// The loopback port to which the kernel diverts peers from outside the allow-list, if it does:
    /// `listen` is that port then.
    pub divert: Option<u16>,
    /// 301 or 308.
    pub redirect_status: u16,
    /// Who is redirected.
    pub redirect_for: RedirectFor,
    /// How long a peer may take to send its head.
    pub head_timeout: Duration,
    /// Connections of all sources together.
    pub max_connections: u32,
    /// Connections of one source, at most [`Http::max_connections`].
    pub max_connections_per_source: u32,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The addresses to listen on; empty where acmegate does not look at TLS.
    pub listen: Vec<SocketAddr>,
    /// The loopback port to which the kernel diverts peers from outside the allow-list, if it does:
    /// `listen` is that port then.
    pub divert: Option<u16>,
    /// Where visitors from the allow-list are led whose name no site has a server for.
    pub server: Option<Server>,
    /// What is said to those who are refused.
    pub refuse: Refusal,
    /// How long a peer may take to send its ClientHello.
    pub hello_timeout: Duration,
    /// How long a visitor and the server may both be silent.
    pub idle_timeout: Duration,
    /// Connections of all sources together.
    pub max_connections: u32,
    /// Connections of one source, at most [`Tls::max_connections`].
    pub max_connections_per_source: u32,
}

/// `[tls] refuse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: the connection is closed without an octet.
    Close,
    /// A TLS alert.
    Alert,
}

/// `[window]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The longest lease, 1 s to 24 h.
    pub max: Duration,
    /// When a lease ends before its time.
    pub early: early::Rule,
}

/// `[firewall]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// What the kernel is asked to do.
    pub mode: Mode,
    /// The TCP ports that windows open. Empty only in mode `gate-only`.
    pub ports: Vec<u16>,
    /// The one bit of the packet mark that is ours, where the mode needs one.
    pub mark: u32,
    /// What becomes of what may not pass.
    pub closed: Closed,
    /// Whether our table is made an owned one where the kernel can.
    pub owned: bool,
    /// Where the daemon's account may connect to.
    pub egress: Egress,
    /// What is run besides when a window opens and closes; `None` where nothing is.
    pub commands: Option<Commands>,
}

/// `[firewall] egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// To upstreams, servers and the webhook alone, where the account is ours alone and no commands run
    /// under it.
    Auto,
    /// To them alone in any case, commands too.
    Upstreams,
    /// Anywhere, as far as our table is concerned.
    Any,
}

/// `[firewall] mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A table of our own drops what comes to the ports outside of windows.
    Guard,
    /// Only elements of this set, which the administrator's own rule reads.
    Set(SetName),
    /// One rule of ours at the head of each of these chains.
    Attach(Vec<ChainName>),
    /// Nothing in the kernel; the gate alone decides.
    GateOnly,
}

impl Mode {
    /// The mode as it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Set(_) => "set",
            Self::Attach(_) => "attach",
            Self::GateOnly => "gate-only",
        }
    }
}

/// A chain of nftables, as `nft list chain` wants it named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainName {
    /// The table's family.
    pub family: SetFamily,
    /// The table.
    pub table: String,
    /// The chain in it.
    pub chain: String,
}

/// `[firewall] closed`, per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// IPv4.
    pub v4: Shut,
    /// IPv6.
    pub v6: Shut,
}

/// What becomes of a packet that may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Silence.
    Drop,
    /// A TCP reset.
    Reject,
    /// It goes on to what stood there before; only where peers are diverted in windows.
    Pass,
}

/// A set of nftables, as `nft list set` wants it named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetName {
    /// The table's family.
    pub family: SetFamily,
    /// The table.
    pub table: String,
    /// The set in it.
    pub set: String,
}

/// The families of tables that see TCP ports of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetFamily {
    /// IPv4 only.
    Ip,
    /// IPv6 only.
    Ip6,
    /// Both.
    Inet,
}

/// `[allow]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Whether loopback, link-local and private ranges are on the list.
    pub local: bool,
    /// Who is listed.
    pub listed: Named,
    /// Who is taken off, whoever listed it; [`Allow::local`] too.
    pub taken_off: Named,
    /// Where the networks of countries are found: an .mmdb file, a directory of lists, or
    /// delegated-extended files; empty without countries.
    pub country_source: Vec<PathBuf>,
    /// Groups that nothing names.
    pub unused_groups: Vec<String>,
}

/// What one side of the allow-list names, groups resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Prefixes as written.
    pub prefixes: Vec<IpNet>,
    /// List files; absolute.
    pub files: Vec<PathBuf>,
    /// Countries of [`Allow::country_source`].
    pub countries: Vec<Country>,
}

/// `[proxy]`. Nobody, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// Whose connections begin with a PROXY protocol header.
    pub protocol_from: Vec<IpNet>,
    /// Whose Forwarded and X-Forwarded-For fields are believed.
    pub headers_from: Vec<IpNet>,
}

/// `[metrics]`. Nowhere, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The loopback addresses to listen on, no two of which overlap.
    pub listen: Vec<SocketAddr>,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// For people or for machines.
    pub format: Format,
    /// The least important events that are written.
    pub level: Level,
}

/// `[notify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The command that is run, if one is.
    pub notifier: Option<Notifier>,
    /// Where the event is posted, if it is.
    pub webhook: Option<Webhook>,
    /// Of which windows is told.
    pub when: When,
}

/// `[notify] webhook`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The HTTP server: never unspecified, multicast, or a listener of our own.
    pub address: SocketAddr,
    /// The path and query that are asked for; begins with a slash.
    pub path: String,
}

/// `[notify] when`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Windows that failed, or most likely did.
    pub failed: bool,
    /// Windows in which networks were dropped on this host.
    pub dropped: bool,
    /// Windows that nobody closed.
    pub cut: bool,
    /// Every one.
    pub always: bool,
}

/// `[report]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether windows are kept on disk at all.
    pub history: bool,
    /// For how long they and the addresses in them are, 1 day to 3650 days.
    pub keep: Duration,
    /// How many octets they may take, 8 MiB to 1 GiB; the oldest go first.
    pub max_bytes: u64,
    /// Where countries and networks of addresses are looked up: .mmdb files; absolute.
    pub databases: Vec<PathBuf>,
    /// Whether the kernel counts who comes to open windows, and traces who is dropped.
    pub evidence: bool,
}

/// `[dns]`. Nothing, by default: the host's resolvers, and whatever leads to an address of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The resolvers to ask, in order; those of /etc/resolv.conf if there are none.
    pub resolvers: Vec<SocketAddr>,
    /// DNSKEY records of the root; absolute. The root's own keys if there is none.
    pub trust_anchor: Option<PathBuf>,
    /// Addresses by which the world reaches this host, besides those it has: NAT, a balancer.
    pub public: Vec<IpAddr>,
    /// The CAs that issue for this host, as CAA records name them; lower case.
    pub issuers: Vec<String>,
    /// The URIs of the ACME accounts that ask them.
    pub accounts: Vec<String>,
    /// Names whose dns-persist-01 record is expected.
    pub persist: Vec<Pattern>,
}

/// `[log] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log] level`, in tracing's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What stops acmegate from working.
    Error,
    /// What an operator should look at.
    Warn,
    /// One event per connection, window and change.
    Info,
    /// What a developer asks for.
    Debug,
    /// Everything.
    Trace,
}

/// One `[[site]]`.
#[derive(Clone, Debug)]
pub struct Site {
    /// What the gate needs of it.
    pub gate: gate_site::Site,
    /// Where answers come from, after the pushed tokens, which always come first.
    pub source: Source,
    /// Who answers by TLS-ALPN-01 where nothing was pushed, if anybody does.
    pub tls_source: Option<Server>,
    /// Where visitors from the allow-list are led, instead of `[tls] server`.
    pub server: Option<Server>,
    /// How it is validated, and so which ports a window for it opens by default: at least one.
    pub challenges: Vec<ChallengeType>,
}

/// Where a site's key authorizations come from, besides pushed tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nowhere else.
    Pushed,
    /// Files below this absolute directory.
    Webroot(PathBuf),
    /// An HTTP server: never unspecified, multicast, or a listener of our own.
    Upstream(Server),
    /// Every token is answered for this account.
    Thumbprint(Thumbprint),
}

impl Config {
    /// The sites, as far as the gate needs them.
    pub fn gate_sites(&self) -> Vec<gate_site::Site> {
        self.sites.iter().map(|site| site.gate.clone()).collect()
    }

    /// What the gate decides by, with the allow-list that `[allow]` led to.
    pub fn gate(&self, allow: Arc<AllowList>) -> Gate {
        Gate {
            sites: self.gate_sites(),
            allow,
            exposure: match self.firewall.mode {
                Mode::Guard | Mode::Set(_) | Mode::Attach(_) => Exposure::Windowed,
                Mode::GateOnly => Exposure::Open,
            },
            redirect_for: self.http.redirect_for,
        }
    }

    /// Which guarded ports are diverted, and to which loopback port of the gate.
    pub fn diverted(&self) -> Vec<(u16, u16)> {
        let tls_port = ChallengeType::TlsAlpn01.port();
        let is_listened_on = |port| self.tls.listen.iter().any(|own| own.port() == port);
        let mut ports = self.firewall.ports.clone();
        ports.sort_unstable();
        let target = |port: u16| match (self.tls.divert, self.http.divert) {
            (Some(to), _) if port == tls_port => Some(to),
            (_, Some(to)) if !is_listened_on(port) => Some(to),
            _ => None,
        };
        ports
            .into_iter()
            .filter_map(|port| Some((port, target(port)?)))
            .collect()
    }

    /// What no lease exceeds.
    pub fn limits(&self) -> Limits {
        Limits {
            ports: self.firewall.ports.clone(),
            max: self.window.max,
            budget: self.budget,
        }
    }
}

#[cfg(test)]
mod tests;
