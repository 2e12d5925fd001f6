//! Would somebody else's chain drop the validation that a window is opened for?
//!
//! An `accept` of ours ends only our own base chain; a `drop` anywhere on the packet's path is
//! final. So before a window is reported as open, the foreign base chains are read ([`read()`]) and
//! one packet is walked through them ([`judge()`]): a new TCP SYN to the port, from an arbitrary
//! foreign address that stands in no list. The answer is [`Path::Drops`] only if every way through
//! the rules drops it. What cannot be known (a rule that is not understood, a list that holds some
//! of the perspectives) never refuses; it is told as a [`Doubt`].
//!
//! Nothing here changes the kernel, sends a packet or reads the elements of an address list. The
//! way of the answers (output, postrouting), bridges, and XDP or tc programs are not looked at.
//!
//! The rules are judged as the kernel's own register machine runs them (`net/netfilter/nf_tables_core.c`,
//! `nft_*.c`), so it does not matter how `nft`, `iptables-nft` or firewalld would spell them.

mod advice;
mod bits;
mod compat;
mod decode;
mod judge;
mod limit;
mod listing;
mod packet;
mod read;
mod report;
mod routes;
mod rule;
mod ruleset;
mod step;
mod stops;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use nlink::netlink::nftables::Family;

pub use judge::{Circumstances, Judgement, culprit, judge, judge_in};
pub use limit::{Limit, Measure, Per};
pub use listing::BaseChain;
pub use read::{of_rule, read};
pub use report::{Cause, Culprit, Doubt, Manager, Path, Place};
pub use routes::{Onward, Routes};
pub use ruleset::Ruleset;
pub use step::To;

/// The packet that is walked through the ruleset: the first one of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Which of the two Internet protocols carries it.
    pub family: IpFamily,
    /// The TCP port of this host that it is for.
    pub port: u16,
    /// The name of the interface that it comes in by, at most 15 octets; never the loopback.
    pub interface: String,
    /// That interface's index, if known; a rule that asks for an index is a doubt otherwise.
    pub ifindex: Option<u32>,
    /// The address of this host that it is for, if known; of `family`.
    pub destination: Option<IpAddr>,
    /// Its mark when it comes in; 0 unless a driver or tc sets one.
    pub mark: u32,
    /// Whether our own chains keep it away from connection tracking, as they do with what is
    /// diverted to the gate: no NAT chain sees it.
    pub is_untracked: bool,
    /// Its connection's mark when tracking begins; 0 for every new connection.
    pub ct_mark: u32,
    /// Sets that are to be judged as if they held `port` already: in mode `set` our element is
    /// not in the administrator's set before the window opens.
    pub accepted_sets: Vec<NamedSet>,
}

/// What carries the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// A SYN.
    #[default]
    Tcp,
    /// A datagram.
    Udp,
}

impl Transport {
    /// Its protocol number (RFC 9293, RFC 768).
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Its word in rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4: tables of the families `ip` and `inet`.
    V4,
    /// IPv6: tables of the families `ip6` and `inet`.
    V6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A set, by its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSet {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its own name, without the `@`.
    pub name: String,
}
