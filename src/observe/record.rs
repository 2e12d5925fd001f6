//! A window's record: who opened it and why, who came, what they got, and how it ended.
//!
//! This is what `report` shows, what the history keeps and what `--json` prints: its field names are the
//! documented schema (docs/report.md). It holds no token and no key authorization, only a short hash of
//! a token; every text in it that a peer could have chosen is a parsed value. Nothing here reads a clock:
//! instants are milliseconds after the window's opening.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::gate::lease::LeaseName;

/// The version of this schema. Fields are only ever added to one version, and what reads records takes one
/// that is missing for nothing.
pub const VERSION: u32 = 1;
/// How many sources a record keeps by name; more are counted.
pub const MAX_SOURCES: usize = 256;
/// How many validations one record keeps, of all sources together; more are counted.
pub const MAX_VALIDATIONS: usize = 1536;
/// How many other requests of one source are kept; more are counted.
pub const MAX_OTHER_VISITS: usize = 16;
/// How many ports one record has: those of its renewals too, between which a reload may have changed
/// which there are.
pub const MAX_RECORDED_PORTS: usize = 16;
/// How many of the identifiers that it was limited to one record names.
pub const MAX_NAMED: usize = 1024;
/// How many identifiers the client's own word keeps.
pub const MAX_SAID: usize = 128;

/// One window, from its opening to its end: the life of one lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// Its number in the history; `null` until it has one.
    pub number: Option<u64>,
    /// The lease's name.
    pub lease: String,
    /// The uid that asked.
    pub caller: u32,
    /// The process for which it was held: command and pid.
    pub holder: Option<String>,
    /// Why it was opened.
    pub why: Why,
    /// Which TCP ports were opened, ascending.
    pub ports: Vec<u16>,
    /// Which families: `ipv4`, `ipv6`.
    pub families: Vec<String>,
    /// By which address or interface alone.
    pub entrance: Option<String>,
    /// Which identifiers it was limited to.
    pub identifiers: Option<Vec<String>>,
    /// When it was opened, in milliseconds after 1970 (UTC), by the clock of the host.
    pub opened_at: u64,
    /// For how long it was last given, in milliseconds after its opening.
    pub deadline: u64,
    /// How often it was renewed.
    pub renewals: u32,
    /// How it ended; `null` while it is open.
    pub end: Option<End>,
    /// Leases that were open on one of its ports at the same time: what came may have come for them.
    pub beside: Vec<String>,
    /// Who came, the first one first; at most [`MAX_SOURCES`].
    pub sources: Vec<Source>,
    /// How often somebody else came, who is not kept by name.
    pub more_sources: u64,
    /// What the kernel saw.
    pub evidence: Evidence,
    /// What the ACME client itself said at the end, if it said anything.
    pub said: Option<Said>,
    /// Identifiers for which it counts as a failed attempt (`[budget] failures_per_hour`).
    #[serde(default)]
    pub failed: Vec<String>,
    /// What all this comes to.
    pub assessment: Assessment,
}

impl Record {
    /// The name under which its time and its failures are counted: without the process id of its holder, which a client's
    /// own lease has behind. `None` if that is no lease's name.
    pub fn counted_as(&self) -> Option<LeaseName> {
        // Its id is the last number in a holder's words.
        let holder = self.holder.as_deref().unwrap_or_default();
        let numbers = holder.rsplit(|character: char| !character.is_ascii_digit());
        let pid = numbers.filter_map(|number| number.parse().ok()).next();
        LeaseName::parse(&self.lease).map(|lease| lease.counted(pid))
    }
}

/// Why a window was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Somebody asked for it.
    #[default]
    Asked,
    /// A token of an armed lease was pushed.
    Token,
    /// The kernel had it open when acmegate started.
    Adopted,
}

/// How a window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// By what.
    pub by: EndedBy,
    /// When, in milliseconds after the opening.
    pub at: u64,
    /// How much later than it should have, in milliseconds.
    pub late: u64,
}

/// What ended a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedBy {
    /// Its holder closed it, or an administrator.
    Close,
    /// Every token was answered, or withdrawn (`[window] close_early`).
    Early,
    /// The process for which it was held died.
    HolderGone,
    /// Nobody closed it: its own deadline came.
    Deadline,
    /// `acmegate firewall remove`.
    Removed,
    /// A reload that no longer names its ports.
    Reload,
    /// acmegate was stopped for good.
    Stop,
    /// acmegate was not there when it ended: the kernel ended it.
    Unwatched,
}

/// Somebody who came: one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its address, never IPv4-mapped.
    pub address: IpAddr,
    /// Its network, of which one CA's perspectives each have their own: /16 of IPv4, /32 of IPv6.
    pub network: String,
    /// Where that is, as far as data are there.
    pub place: Option<Place>,
    /// What it came for.
    pub role: Role,
    /// Its first packet, in milliseconds after the opening.
    pub first: u64,
    /// How many first packets of connections the kernel counted; 0 where it does not count.
    pub packets: u64,
    /// Whether a connection of it came about.
    pub reached: bool,
    /// What dropped its packets on this host, if that was found.
    pub dropped: Option<Dropped>,
    /// Its requests, the first one first; at most [`MAX_OTHER_VISITS`] that are no validations.
    pub visits: Vec<Visit>,
    /// How many more there were.
    pub more_visits: u64,
    /// The address that came over IPv4 after this one had failed over IPv6, most likely the same
    /// perspective.
    pub then: Option<IpAddr>,
}

/// What somebody came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It asked for a token, or an identifier, of this window: a perspective of a CA.
    Validator,
    /// It asked for something else.
    Visitor,
    /// It never got to say.
    Unheard,
}

/// Where an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its country by ISO 3166-1, in upper case.
    pub country: Option<String>,
    /// The region of the Internet registry that the country belongs to.
    pub region: Option<Region>,
    /// Its autonomous system.
    pub autonomous_system: Option<u32>,
    /// That one's name.
    pub organization: Option<String>,
}

/// The regions of the five Internet registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// Africa.
    Afrinic,
    /// Asia and the Pacific.
    Apnic,
    /// North America.
    Arin,
    /// Latin America and the Caribbean.
    Lacnic,
    /// Europe, the Middle East, Central Asia.
    Ripe,
}

/// What dropped somebody's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The table, with its family: `inet filter`.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule as nft(8) lists it; `null` for the chain's policy.
    pub rule: Option<String>,
}

/// One request, or one connection that came to none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// When its connection was accepted, in milliseconds after the opening.
    pub at: u64,
    /// The port it reached.
    pub port: u16,
    /// `accept` or `drop`.
    pub verdict: String,
    /// Why: a word of the gate's list of reasons.
    pub reason: String,
    /// The challenge that it tried to validate, `http-01` or `tls-alpn-01`; `null` if it did not.
    pub challenge: Option<String>,
    /// The identifier that was asked for.
    pub identifier: Option<String>,
    /// The first 8 hexadecimal digits of the SHA-256 digest of the token that was asked for.
    pub token: Option<String>,
    /// The HTTP status that was answered.
    pub status: Option<u16>,
    /// How many octets were answered.
    pub octets: u64,
    /// From accept to the end of the answer, in microseconds.
    pub took: u64,
    /// What an operator may want to know besides.
    pub detail: Option<String>,
}

/// What the kernel saw of first packets on the window's ports, everybody's on the allow-list left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whether the kernel was watched at all; else nothing is known of who was dropped.
    pub is_kept: bool,
    /// How many first packets came.
    pub packets: u64,
    /// Of how many addresses, as far as they were kept.
    pub seen: u64,
    /// How many of these finished a handshake.
    pub reached: u64,
    /// Why it is incomplete; `null` if it is whole.
    pub incomplete: Option<String>,
}

/// What an ACME client says at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Identifiers of certificates that it renewed.
    pub renewed: Vec<String>,
    /// Identifiers of certificates that it could not renew.
    pub failed: Vec<String>,
}

/// What a record comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// In one word.
    pub outcome: Outcome,
    /// By identifier, in the order in which they were asked for; at most 100.
    pub identifiers: Vec<ByIdentifier>,
    /// Networks whose packets came and from which no connection came about, although they tried more
    /// than once or a rule was found that dropped them; without those that came over IPv4 afterwards, or
    /// from another address. No network is counted here and in `networks`.
    pub dropped: u32,
    /// Networks from which somebody asked for an answer, and so are validators as far as that can be
    /// told.
    pub networks: u32,
    /// Networks that were answered.
    pub answered: u32,
    /// How many networks have to be answered at that day.
    pub needed: u32,
    /// Nobody closed the window: it was cut by its deadline.
    pub was_cut: bool,
}

/// What a window came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is still open.
    #[default]
    Open,
    /// No validation came, which is normal where the CA remembers an earlier one.
    Quiet,
    /// Every network that came was answered.
    Answered,
    /// Some failed, and no more than a CA may tolerate.
    Tolerated,
    /// More were dropped than a CA may tolerate, if all of them were its perspectives; whoever asked was
    /// answered.
    Doubtful,
    /// More failed, or nobody was answered, or the client says that it failed.
    Failed,
}

impl Outcome {
    /// The word for logs, metrics and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Quiet => "quiet",
            Self::Answered => "answered",
            Self::Tolerated => "tolerated",
            Self::Doubtful => "doubtful",
            Self::Failed => "failed",
        }
    }
}

/// What came of one identifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByIdentifier {
    /// Which one.
    pub identifier: String,
    /// Networks that asked for it.
    pub networks: u32,
    /// Networks that were answered.
    pub answered: u32,
    /// The regions of these; empty where no data are there.
    pub regions: Vec<Region>,
    /// Whether it failed.
    pub has_failed: bool,
}

impl Source {
    /// Whether one of its requests was answered with a key authorization or its handshake was carried.
    pub fn is_answered(&self) -> bool {
        self.visits.iter().any(Visit::is_answer)
    }

    /// Whether its packets came, and no connection came about.
    pub fn is_stopped(&self) -> bool {
        !self.reached && self.visits.is_empty()
    }

    /// Whether it tried again after it was stopped, as validators do, or was found to be dropped. Scans
    /// and spoofed packets come once.
    pub fn is_in_earnest(&self) -> bool {
        self.is_stopped() && (self.packets > 1 || self.dropped.is_some())
    }
}

impl Visit {
    /// Whether this was an answer to a validation.
    pub fn is_answer(&self) -> bool {
        matches!(self.reason.as_str(), "answered" | "relayed")
    }

    /// The identifier that this was a validation of, if it was one and said so.
    pub fn validates(&self) -> Option<&str> {
        self.identifier
            .as_deref()
            .filter(|_| self.challenge.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_runs_of_one_client_are_one() {
        for (holder, counted) in [
            (Some("certbot (pid 812)"), "certbot"),
            (Some("certbot 812"), "certbot"),
            (Some("python3 (pid 9)"), "certbot-812"),
            (Some("certbot"), "certbot-812"),
            (None, "certbot-812"),
        ] {
            let record = Record {
                lease: "certbot-812".to_owned(),
                holder: holder.map(str::to_owned),
                ..Record::default()
            };
            let found = record.counted_as().unwrap();
            assert_eq!(found.as_str(), counted, "{holder:?}");
        }
    }
}
