//! What became of one packet on its way through the ruleset, by the kernel's own word.
//!
//! The twin sends such packets and traces them, `explain` shows one path, `probe` shows those of real peers.
//! Plain data: nothing here reads or sends anything.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A first packet, as somebody on the Internet sends it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Knock {
    /// The interface that it comes in by, at most 15 octets.
    pub interface: String,
    /// Whose it is.
    pub source: IpAddr,
    /// The address of this host that it is for, of the same family.
    pub destination: IpAddr,
    /// The transport.
    pub protocol: Protocol,
    /// The port of this host.
    pub port: u16,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Where it ended.
    pub end: End,
    /// Every rule that matched and every policy that was asked, in the order of the kernel.
    pub steps: Vec<Step>,
}

/// Where a packet ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "end", content = "at")]
pub enum End {
    /// It would reach a socket of this host: every chain on its path let it pass.
    Delivered {
        /// The local address, after whatever translation.
        address: IpAddr,
        /// The local port.
        port: u16,
    },
    /// It was sent on to another host, such as a container whose port is published.
    Forwarded {
        /// The interface that it leaves by.
        interface: String,
        /// To whom.
        address: IpAddr,
        /// To which port.
        port: u16,
    },
    /// The last step dropped it.
    Dropped {
        /// The sender is told (`reject`), and fails at once instead of timing out.
        rejects: bool,
    },
    /// It went missing, and no rule did it: routing, reverse path filter. The reason in a few words.
    Lost(String),
}

/// One decision on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The table with its family, as in `inet filter`.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle as `nft -a list chain` shows it; `None` for a policy.
    pub handle: Option<u64>,
    /// The rule as nft(8) lists it; `None` for a policy.
    pub rule: Option<String>,
    /// The verdict, in nft's word: `accept`, `drop`, `jump web`, `continue` …
    pub verdict: String,
}

impl Fate {
    /// Whether the packet got where somebody may answer it.
    pub fn passes(&self) -> bool {
        matches!(self.end, End::Delivered { .. } | End::Forwarded { .. })
    }

    /// The rule or policy that dropped it.
    pub fn culprit(&self) -> Option<&Step> {
        match self.end {
            End::Dropped { .. } => self.steps.last(),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    /// `inet filter input: tcp dport 80 drop`, or `inet filter input: its policy drop`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            chain,
            verdict,
            ..
        } = self;
        match &self.rule {
            Some(rule) => write!(f, "{table} {chain}: {rule}"),
            None => write!(f, "{table} {chain}: its policy {verdict}"),
        }
    }
}
