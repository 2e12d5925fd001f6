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
//! | `connection.rs` | what could not be answered at once: slow heads, look-ups, lingering |
//! | `judge.rs` | from bytes to the next step |
//! | `head.rs` `http.rs` | reads heads, writes answers; pure |
//! | `report.rs` | how a connection ended, told once |
//! | `sources.rs` | how many connections each source holds |
//! | `edge.rs` | the clock and the buffer |

mod accept;
mod connection;
mod edge;
pub mod head;
pub mod http;
mod judge;
mod report;
mod sources;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::accept::Acceptor;
pub use self::http::RedirectStatus;
use self::sources::Sources;
use crate::gate::Gate;
use crate::gate::event::{Responder, Witness};
use crate::gate::window::Windows;

/// What an operator may turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a peer may take to send its head.
    pub head_timeout: Duration,
    /// How many connections may be held at once, over all listeners of a [`Front`].
    pub max_connections: usize,
    /// How many of them one source may hold: an IPv4 address, or a /64 of IPv6.
    pub max_per_source: usize,
    /// How visitors are sent to HTTPS.
    pub redirect_status: RedirectStatus,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Validators send their 220 octets in one segment; ten seconds forgive two lost ones.
            head_timeout: Duration::from_secs(10),
            // At about a kibibyte each this is some 10 MiB; descriptors are the scarcer good.
            max_connections: 10_000,
            // An order of 100 names can bring 100 connections from one perspective at once.
            max_per_source: 256,
            redirect_status: RedirectStatus::default(),
        }
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
    /// The limits.
    pub settings: Settings,
}

/// What all listeners share.
pub struct Front {
    rules: watch::Receiver<Arc<Rules>>,
    windows: watch::Receiver<Arc<Windows>>,
    witness: Arc<dyn Witness>,
    sources: Sources,
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
            sources: Sources::default(),
        }
    }

    /// How many connections are held now: those that could not be answered at once.
    pub fn held_connections(&self) -> usize {
        self.sources.total()
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
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
    drain: Duration,
) -> io::Result<()> {
    Acceptor::new(listener, front)?.run(shutdown, drain).await
}
