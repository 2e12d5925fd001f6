//! What `status` tells: everything an operator asks first, as one JSON object.
//!
//! No token and no key authorization is in it, and no peer's address.

use serde::{Deserialize, Serialize};

/// The whole status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this document.
    pub version: u32,
    /// The program's version.
    pub program: String,
    /// The configuration file; `null` for built-in defaults.
    pub config: Option<String>,
    /// What is wrong, each with what to do next; empty when all is well.
    pub problems: Vec<String>,
    /// The firewall part.
    pub firewall: Firewall,
    /// The commands that are run besides; `null` where there are none.
    #[serde(default)]
    pub commands: Option<Commands>,
    /// How long the allow-list is.
    #[serde(default)]
    pub allow: Allow,
    /// One entry per guarded port and family.
    pub windows: Vec<Window>,
    /// When leases end before their time.
    #[serde(default)]
    pub close_early: CloseEarly,
    /// Every living lease.
    pub leases: Vec<Lease>,
    /// Every armed lease, whether it is open or not.
    #[serde(default)]
    pub armed: Vec<Armed>,
    /// The budget.
    pub budget: Budget,
    /// The addresses that the gate listens on.
    pub listeners: Vec<String>,
    /// The addresses where metrics are shown.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Every site.
    pub sites: Vec<Site>,
    /// How many pushed key authorizations wait for a validation.
    pub pushed: usize,
    /// What is kept of windows; `null` where nothing is.
    #[serde(default)]
    pub history: Option<History>,
    /// Connections by reason, since the start.
    pub connections: Vec<Count>,
}

/// The firewall part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// `guard`, `set`, `attach` or `gate-only`.
    pub mode: String,
    /// Whether our part is in the kernel.
    pub installed: bool,
    /// Whether nobody else can change it (Linux 6.9).
    pub owned: bool,
    /// How often somebody took it away and it was put back.
    pub gaps: u32,
    /// How far landlock restricts the front: `fully`, `partly` or `not`.
    pub landlock: String,
    /// What this kernel's landlock does not restrict; empty where it is whole.
    #[serde(default)]
    pub unrestricted: Vec<String>,
    /// Where the daemon's account may connect to, by our table, or why that is not limited: one line.
    #[serde(default)]
    pub egress: String,
}

/// The allow-list, as the gate has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// Ranges of IPv4 addresses.
    pub ipv4_ranges: usize,
    /// Ranges of IPv6 addresses.
    pub ipv6_ranges: usize,
}

/// The commands in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// What opens, blanks as they are written.
    pub open: Option<String>,
    /// What closes again.
    pub close: Option<String>,
    /// How long those of one opening may take together, in milliseconds.
    pub timeout: u64,
    /// Whether they keep CAP_NET_ADMIN.
    pub net_admin: bool,
    /// The last failure since the start, mended or not.
    pub failure: Option<String>,
}

/// A port and a family, and whether the world may come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The TCP port.
    pub port: u16,
    /// Which challenge comes to that port, if one does.
    #[serde(default)]
    pub challenge: Option<String>,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Whether new connections from outside the allow-list are let in.
    pub open: bool,
    /// For how much longer, in milliseconds.
    pub milliseconds: Option<u64>,
}

/// `[window] close_early` and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseEarly {
    /// `off`, `tokens` or `quorum`.
    pub when: String,
    /// For how long nothing must happen, in milliseconds.
    pub settle_milliseconds: u64,
    /// How many distinct networks make a quorum.
    pub quorum: u32,
}

/// One living lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// The process that holds it, as `command (pid N)`.
    pub holder: Option<String>,
    /// The uid that asked.
    pub caller: u32,
    /// `asked` or `automatic`.
    pub trigger: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Its families.
    pub families: Vec<String>,
    /// The address or interface that it opens alone; `null` for all.
    #[serde(default)]
    pub entrance: Option<String>,
    /// The identifiers it is bound to; `null` for all.
    pub identifiers: Option<Vec<String>>,
    /// How much longer it lives, in milliseconds.
    pub milliseconds: u64,
}

/// One armed lease: a command runs under `exec` and may open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Armed {
    /// Its name.
    pub name: String,
    /// `exec` and its command, as `exec:command (pid N)`.
    pub holder: Option<String>,
    /// The uid that armed it.
    pub caller: u32,
    /// Whether it is open now.
    pub open: bool,
}

/// The budget: openings of the last hour, and open time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Openings of the last hour.
    pub used: usize,
    /// How many an hour may have.
    pub per_hour: u32,
    /// How many one caller besides root may have.
    pub per_caller: u32,
    /// How many of them are root's own.
    pub reserve: u32,
    /// For how long windows were open: all of them first, then the lease names and the identifiers
    /// whose were open longest.
    #[serde(default)]
    pub time: Vec<Time>,
}

/// For how long windows were open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// `all`, `lease` or `identifier`.
    pub of: String,
    /// Which lease name or identifier.
    pub name: Option<String>,
    /// Whose leases.
    pub caller: Option<u32>,
    /// In the last 24 hours.
    pub day: Share,
    /// In the last 30 days.
    pub month: Share,
    /// In how many milliseconds a window of `[window] max` fits again, at the latest: 0 is now;
    /// `null` is never, for it is longer than what is allowed.
    pub fits_in_milliseconds: Option<u64>,
}

/// A part of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How long windows were open, in milliseconds.
    pub milliseconds: u64,
    /// How long they may be; `null` is any.
    pub allowed_milliseconds: Option<u64>,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its identifiers, or `default`.
    pub identifiers: Vec<String>,
    /// Where its answers come from.
    pub answer: String,
    /// Who answers by tls-alpn-01 where nothing was pushed, if anybody does.
    #[serde(default)]
    pub tls_answer: Option<String>,
    /// Where its visitors are led on port 443, where the gate does that.
    #[serde(default)]
    pub server: Option<String>,
    /// The accounts that it vouches for; empty for any.
    pub accounts: Vec<String>,
    /// The thumbprints that were seen in answers, ready for `accounts`.
    pub seen: Vec<String>,
}

/// What is kept of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How many windows are on disk.
    pub records: u64,
    /// How many octets they take there.
    pub bytes: u64,
    /// When the oldest of them was opened, in milliseconds after 1970.
    pub oldest: Option<u64>,
    /// How many wait in memory to be written.
    pub unsaved: usize,
}

/// How many connections ended for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The reason's word.
    pub reason: String,
    /// How many.
    pub count: u64,
}
