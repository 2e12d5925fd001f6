//! What a judgement says, in the words an administrator needs.

use std::fmt;

use nlink::netlink::nftables::Family;

use super::{IpFamily, Transport};
use crate::firewall::names::TABLE;

/// Where Docker's administrators have their rules.
pub(super) const DOCKERS_OWN: &str = "DOCKER-USER";

/// What becomes of the probe in the foreign chains.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Path {
    /// No rule that is understood drops it for certain.
    Passes {
        /// What may still go wrong; at most 16 are kept.
        doubts: Vec<Doubt>,
    },
    /// Every way through the rules drops it.
    Drops(Culprit),
}

/// Where something stands in the ruleset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The base chain by which the packet came.
    pub base_chain: String,
    /// The chain itself; the same, or one that was jumped to.
    pub chain: String,
    /// The rule's handle, as `nft -a list chain` shows it; `None` for the base chain's policy.
    pub rule: Option<u64>,
}

impl Place {
    /// The base chain as it is named in a configuration: `inet filter input`.
    pub fn base_name(&self) -> String {
        [self.family.name(), &self.table, &self.base_chain].join(" ")
    }
}

impl fmt::Display for Place {
    /// `inet filter input rule 7`, the chain jumped to after its base chain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.family.name(),
            self.table,
            self.base_chain
        )?;
        if self.chain != self.base_chain {
            write!(f, " → {}", self.chain)?;
        }
        match self.rule {
            Some(handle) => write!(f, " rule {handle}"),
            None => f.write_str(" policy"),
        }
    }
}

/// Something that a passing verdict does not cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The rule drops sources that stand in some list; a perspective may be one of them.
    DropsListed(Place),
    /// Whether the packet passes depends on this rule, which is not understood.
    Unclear(Place),
    /// The rule sends the port elsewhere (DNAT, redirect): it never reaches a socket by this
    /// number, and what forwards it was not looked at.
    Translated(Place),
    /// The rule hands the packet to a program by `queue`.
    Queued(Place),
    /// The rule has the kernel answer for the socket (`synproxy`, TPROXY).
    Proxied(Place),
    /// The rule sends the packet out by another device.
    Forwarded(Place),
    /// There are more rules, or more open ones, than are followed.
    TooLong,
    /// The ruleset was changed during every attempt to read it.
    Changing,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropsListed(place) => write!(f, "{place} drops some sources"),
            Self::Unclear(place) => write!(f, "{place} decides, and is not understood"),
            Self::Translated(place) => write!(
                f,
                "{place} sends the port elsewhere, and it was not followed there (`acmegate doctor` does)"
            ),
            Self::Queued(place) => write!(f, "{place} asks a program"),
            Self::Proxied(place) => write!(f, "{place} hands the connection to a proxy"),
            Self::Forwarded(place) => write!(f, "{place} sends the packet out again"),
            Self::TooLong => f.write_str("the ruleset is too long to follow"),
            Self::Changing => f.write_str("the ruleset changes faster than it can be read"),
        }
    }
}

/// What drops the packet in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The base chain's policy.
    Policy,
    /// A rule.
    Rule {
        /// Its handle.
        handle: u64,
        /// It answers the peer (`reject`), which then fails at once instead of timing out.
        rejects: bool,
    },
}

/// Whether a rule of ours at the head of the base chain would let marked packets pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attach {
    /// It would: these chains are to be named, one for each family that has such a chain.
    To(Vec<String>),
    /// Nobody but its owner may write into the table (`flags owner`).
    Owned,
    /// The chain stands before the place where a packet could be marked: an ingress hook, or early in
    /// prerouting.
    TooEarly,
}

/// The rule or policy that certainly drops the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub cause: Cause,
    /// Who made the chain, as far as names tell.
    pub manager: Manager,
    /// Whether mode `attach` can do something about it.
    pub(super) attach: Attach,
    pub(super) port: u16,
    pub(super) packet: IpFamily,
    pub(super) transport: Transport,
    /// It drops what is sent on to another host, not what is for this one.
    pub(super) is_beyond: bool,
}

impl Culprit {
    /// Of which family the packet was.
    pub fn packet(&self) -> IpFamily {
        self.packet
    }
}

impl fmt::Display for Culprit {
    /// `inet filter input rule 7 rejects tcp port 80`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.cause {
            Cause::Rule { rejects: true, .. } => "rejects",
            Cause::Rule { rejects: false, .. } | Cause::Policy => "drops",
        };
        let transport = self.transport.as_str();
        write!(f, "{} {verb} {transport} port {}", self.place, self.port)
    }
}

/// Who looks after a chain: whoever rebuilds it, and in whose words it is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The administrator, by `nft` or `/etc/nftables.conf`; also what is not recognised.
    Nftables,
    /// iptables over nftables: rules saved by hand or by some script.
    IptablesNft,
    /// ufw.
    Ufw,
    /// firewalld.
    Firewalld,
    /// geoip-shell.
    GeoipShell,
    /// A blocklist: fail2ban, CrowdSec.
    Blocklist,
    /// Docker, for what it publishes.
    Docker,
    /// acmegate itself.
    Ours,
}

impl Manager {
    /// Its name as people know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::GeoipShell => "geoip-shell",
            Self::Blocklist => "a blocklist",
            Self::Docker => "Docker",
            Self::Ours => "acmegate",
        }
    }

    /// Guesses by the names of the table, the base chain and the table's chains.
    pub(super) fn guess<'a>(place: &Place, chains: impl Iterator<Item = &'a str>) -> Self {
        let table = place.table.as_str();
        if table == TABLE {
            return Self::Ours;
        }
        if table == "firewalld" {
            return Self::Firewalld;
        }
        if table.starts_with("geoip-shell") || place.chain.starts_with("GEOIP-SHELL") {
            return Self::GeoipShell;
        }
        if ["f2b", "fail2ban", "crowdsec"]
            .iter()
            .any(|name| table.starts_with(name))
        {
            return Self::Blocklist;
        }
        let tables = ["filter", "nat", "mangle", "raw", "security"];
        let hooks = ["PREROUTING", "INPUT", "FORWARD"];
        let iptables = matches!(place.family, Family::Ip | Family::Ip6)
            && tables.contains(&table)
            && hooks.contains(&place.base_chain.as_str());
        if !iptables {
            return Self::Nftables;
        }
        let chains: Vec<&str> = chains.collect();
        let has = |prefix| chains.iter().any(|name| name.starts_with(prefix));
        // What comes for a container passes Docker's chains, whoever set the policy.
        let is_docker = match place.base_chain.as_str() {
            "FORWARD" => has(DOCKERS_OWN) && !place.chain.starts_with("ufw"),
            _ => place.chain.starts_with("DOCKER"),
        };
        if is_docker {
            return Self::Docker;
        }
        // f2b-… are chains of fail2ban's own in somebody else's table.
        if place.chain.starts_with("f2b-") || place.chain.starts_with("CROWDSEC") {
            return Self::Blocklist;
        }
        if has("ufw-") || has("ufw6-") {
            return Self::Ufw;
        }
        Self::IptablesNft
    }
}
