//! What the parts tell each other through the gate: who is asked for an answer, and who is told how
//! a connection ended. The gate only names these traits; `answer` and `observe` implement them.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::Permit;
use super::challenge::ChallengeType;
use super::identifier::Identifier;
use super::lease::LeaseName;
use super::reason::Reason;
use super::tls::{TlsPermit, TlsResponder};
use super::token::{KeyAuthorization, Thumbprint, Token};

/// How one connection ended. Told exactly once per connection.
#[derive(Clone, Debug)]
pub struct Ended<'connection> {
    /// Why, and with it the verdict.
    pub reason: Reason,
    /// When it was accepted.
    pub accepted: Instant,
    /// The peer, never IPv4-mapped.
    pub peer: IpAddr,
    /// Whether the peer is on the allow-list.
    pub is_listed: bool,
    /// The local port it reached.
    pub local_port: u16,
    /// The identifier it asked for, as far as that could be told.
    pub identifier: Option<&'connection Identifier>,
    /// The challenge that was to be validated, if one was.
    pub challenge: Option<ChallengeType>,
    /// The token that was asked for, or answered by a handshake.
    pub token: Option<&'connection Token>,
    /// The account that was answered for, or that was refused.
    pub thumbprint: Option<&'connection Thumbprint>,
    /// The lease whose window admitted it.
    pub lease: Option<&'connection LeaseName>,
    /// The HTTP status that was answered.
    pub status: Option<u16>,
    /// How many octets were answered, as far as acmegate itself wrote them.
    pub octets: u64,
    /// What an operator may want to know besides, such as an upstream's status. Never peer bytes.
    pub detail: Option<&'connection str>,
}

/// What the kernel saw of somebody on a port whose window is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whose packets, never IPv4-mapped.
    pub source: IpAddr,
    /// The guarded port they were sent to.
    pub port: u16,
    /// What became of them, as far as is known by now.
    pub sight: Sight,
}

/// What became of somebody's packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// First packets of connections came.
    Seen {
        /// How many by now.
        packets: u64,
        /// How long ago the last one of these came.
        ago: Duration,
    },
    /// One of its handshakes was finished.
    Reached,
    /// One of its first packets was traced, and dropped on this host.
    Dropped {
        /// The table with its family, as in `inet filter`.
        table: String,
        /// The chain.
        chain: String,
        /// The rule as nft(8) lists it; `None` for the chain's policy.
        rule: Option<String>,
    },
}

/// What the kernel counted since the daemon started; differences of two of these mean something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whether it is watched at all.
    pub is_kept: bool,
    /// First packets on guarded ports while their windows were open, the allow-list's left out.
    pub packets: u64,
    /// Of how many addresses and ports, as far as these were kept.
    pub seen: u64,
    /// How many of them finished a handshake.
    pub reached: u64,
    /// Why some were not kept; `None` if none were lost.
    pub incomplete: Option<String>,
}

/// What the kernel tells of the packets of an open window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Of one source.
    Sighted(Sighting),
    /// Of all together.
    Tallied(Tally),
}

/// The two ends of the connection that a peer opened, for servers that want to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The peer; port 0 where only its address is known.
    pub source: SocketAddr,
    /// What it reached: of this host, or of the balancer that it came by.
    pub destination: SocketAddr,
}

/// Is told how connections end.
pub trait Witness: Send + Sync {
    /// One connection ended.
    fn ended(&self, event: &Ended<'_>);
}

/// An answer, or the reason there is none and a word for the operator.
pub type Answer = Result<KeyAuthorization, (Reason, Option<String>)>;

/// Knows key authorizations.
pub trait Responder: Send + Sync {
    /// Answers from memory, or says that this needs [`Responder::look_up`] by `None`.
    fn recall(&self, permit: &Permit, now: Instant) -> Option<Answer>;

    /// Who answers a validation by TLS-ALPN-01; from memory alone.
    ///
    /// # Errors
    /// [`Reason::NoAnswer`], or [`Reason::NotCovered`] for a responder that only a window makes worth
    /// asking.
    fn recall_tls(&self, permit: &TlsPermit, now: Instant) -> Result<TlsResponder, Reason>;

    /// Answers with files and upstreams. Has its own deadlines and never waits for ever. `ends` are
    /// for upstreams that are told who asks, and for nobody else.
    fn look_up(&self, permit: Permit, ends: Ends) -> Pin<Box<dyn Future<Output = Answer> + Send>>;
}
