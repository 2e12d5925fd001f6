//! Listens: reads the Internet's bytes and holds no power.
//!
//! What it is for: taking a connection, asking the gate, and writing one answer. What it never
//! does: decide, look a key authorization up, open a file, keep a connection for a second request,
//! or wait without a deadline. Who may be heard, what is answered and why are the gate's words;
//! the answers come from whoever implements [`Responder`], and how each connection ended is told
//! to a [`Witness`], exactly once.
//!
//! | file | |
//! | --- | --- |
//! | `accept.rs` | one task per listener; whole requests are answered without any other |
//! | `shortage.rs` | what a failed accept leads to |
//! | `connection.rs` | what could not be answered at once: slow heads, look-ups, lingering |
//! | `arrival.rs` | who came, by the kernel's word or a balancer's |
//! | `forwarded.rs` | whom a reverse proxy's fields name; pure |
//! | `judge.rs` | from bytes to the next step |
//! | `tls.rs` | port 443: from the ClientHello to a responder, to the site's server, or to nothing |
//! | `head.rs` `http.rs` | reads heads, writes answers; pure |
//! | `client_hello.rs` | reads a ClientHello out of its records; pure |
//! | `octets.rs` | reads TLS structures off the front of bytes |
//! | `place.rs` | a place among the held connections |
//! | `report.rs` | how a connection ended, told once |
//! | `responder.rs` | the handshake of a validation by TLS-ALPN-01 |
//! | `sources.rs` | how many connections each source holds |
//! | `connect.rs` | connects to a server further in |
//! | `relay.rs` `pipes.rs` | leads visitors to the site's server, octet by octet |
//! | `handshake_only.rs` `handshake.rs` | leads a handshake, and nothing else, to a responder |
//! | `edge.rs` | the clock and the buffer |

mod accept;
mod arrival;
pub mod client_hello;
mod connect;
mod connection;
mod edge;
pub mod forwarded;
pub mod handshake;
mod handshake_only;
pub mod head;
pub mod http;
mod judge;
mod octets;
mod pipes;
mod place;
mod relay;
mod report;
mod responder;
mod shortage;
mod sources;
mod tls;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::accept::Acceptor;
pub use self::http::RedirectStatus;
use self::pipes::Pipes;
use self::sources::Sources;
use crate::gate::Gate;
use crate::gate::allow_list::AllowList;
use crate::gate::event::{Responder, Witness};
use crate::gate::site::SiteId;
use crate::gate::tls::Server;
use crate::gate::window::Windows;

/// How many descriptors the pipes take at most that carry what visitors and servers send each other.
pub const PIPE_DESCRIPTORS: usize = Pipes::MAX_DESCRIPTORS;

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1: challenges by HTTP-01, and the way to HTTPS.
    Http,
    /// TLS: challenges by TLS-ALPN-01, and the site for whom it is for.
    Tls,
}

/// How many connections may be held at once, over all listeners that speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// By all sources together.
    pub total: usize,
    /// By one source: an IPv4 address, or a /64 of IPv6.
    pub per_source: usize,
}

/// What an operator may turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a peer may take to send its head.
    pub head_timeout: Duration,
    /// Connections that speak HTTP.
    pub http: Limits,
    /// Connections that speak TLS.
    pub tls: Limits,
    /// How long a peer may take to send its ClientHello.
    pub hello_timeout: Duration,
    /// How long a visitor and the site's server may both be silent.
    pub idle_timeout: Duration,
    /// What is said to those that are refused before their handshake.
    pub refusal: Refusal,
    /// How visitors are sent to HTTPS.
    pub redirect_status: RedirectStatus,
    /// Whose connections begin with a PROXY protocol header: they must, and nobody else's may.
    pub protocol_from: AllowList,
    /// Whose Forwarded and X-Forwarded-For fields are believed, and have to be there.
    pub headers_from: AllowList,
}

impl Settings {
    fn limits(&self, speaks: Speaks) -> Limits {
        match speaks {
            Speaks::Http => self.http,
            Speaks::Tls => self.tls,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Validators send their 220 octets in one segment; ten seconds forgive two lost ones.
            head_timeout: Duration::from_secs(10),
            // At about a kibibyte each this is some 10 MiB; descriptors are the scarcer good.
            http: Limits {
                total: 10_000,
                // An order of 100 names can bring 100 connections from one perspective at once.
                per_source: 256,
            },
            // Each visitor takes two descriptors, and may stay for hours.
            tls: Limits {
                total: 4096,
                per_source: 256,
            },
            hello_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            refusal: Refusal::Close,
            redirect_status: RedirectStatus::default(),
            protocol_from: AllowList::default(),
            headers_from: AllowList::default(),
        }
    }
}

/// What is said to those that are refused before their handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing: the connection is closed without an octet.
    Close,
    /// A TLS alert (RFC 8446 §6.2).
    Alert,
}

/// The sites' servers, to which visitors from the allow-list are led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// By site, in the gate's order.
    pub by_site: Vec<Option<Server>>,
    /// Where no site has one.
    pub otherwise: Option<Server>,
}

impl Servers {
    fn of(&self, site: Option<SiteId>) -> Option<Server> {
        let own = site.and_then(|site| self.by_site.get(site.0).copied().flatten());
        own.or(self.otherwise)
    }
}

/// Everything that a reload replaces, in one piece: the gate's sites are known to the responder by
/// their place, so that one without the other would answer for the wrong site.
#[derive(Clone)]
pub struct Rules {
    /// Who decides.
    pub gate: Gate,
    /// Who knows the answers to this gate's permits.
    pub responder: Arc<dyn Responder>,
    /// Where visitors are led.
    pub servers: Servers,
    /// The limits.
    pub settings: Settings,
}

/// What all listeners share.
pub struct Front {
    rules: watch::Receiver<Arc<Rules>>,
    windows: watch::Receiver<Arc<Windows>>,
    witness: Arc<dyn Witness>,
    http: Sources,
    tls: Sources,
    pipes: Pipes,
}

impl Front {
    /// A front that follows `rules` and `windows` as they change and tells `witness` how
    /// connections end. The witness is called from the task that serves the connection: it must
    /// not block.
    pub fn new(
        rules: watch::Receiver<Arc<Rules>>,
        windows: watch::Receiver<Arc<Windows>>,
        witness: Arc<dyn Witness>,
    ) -> Self {
        Self {
            rules,
            windows,
            witness,
            http: Sources::default(),
            tls: Sources::default(),
            pipes: Pipes::new(),
        }
    }

    /// How many connections are held now: those that could not be answered at once.
    pub fn held_connections(&self) -> usize {
        self.http.total() + self.tls.total()
    }

    fn sources(&self, speaks: Speaks) -> &Sources {
        match speaks {
            Speaks::Http => &self.http,
            Speaks::Tls => &self.tls,
        }
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    fn windows(&self) -> Arc<Windows> {
        Arc::clone(&self.windows.borrow())
    }
}

/// Serves `listener` until `shutdown` holds `true` or loses its sender. Then no connection is taken
/// any more, those that are held have `drain` to come to their end, and the rest is cut with
/// [`Reason::Stopping`](crate::gate::Reason::Stopping). Nothing of it runs on afterwards.
///
/// # Errors
/// The listener cannot be used (the system's or our own fault). A shortage of descriptors or memory
/// is no error: it is waited for.
pub async fn serve(
    listener: TcpListener,
    speaks: Speaks,
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
    drain: Duration,
) -> io::Result<()> {
    Acceptor::new(listener, speaks, front)?
        .run(shutdown, drain)
        .await
}
