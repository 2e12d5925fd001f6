//! Knows: where key authorizations come from.
//!
//! What it is for: answering the gate's permits, per site, from what hooks pushed, a webroot, an
//! inner ACME client, or an account's thumbprint. What it never does: decide who may ask, vouch for
//! what it found, or pass anything of the peer's on: all that leaves here towards an upstream is
//! the parsed token and the checked identifier, and where the configuration says so the two ends of
//! the peer's connection, by the PROXY protocol.
//!
//! Pushed tokens come first whatever a site's source is: a hook that announced a token knows best.

pub mod pushed;
pub mod thumbprint;
pub mod upstream;
pub mod webroot;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

pub use self::pushed::{Pushed, PushedAnswer};
pub use self::upstream::Upstream;
pub use self::webroot::Webroot;
use crate::gate::event::{Answer, Ends, Responder};
use crate::gate::tls::{Server, TlsPermit, TlsResponder};
use crate::gate::token::Thumbprint;
use crate::gate::{Permit, Reason};

/// Where a site's answers come from, besides what was pushed.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nowhere else.
    Pushed,
    /// Files that an ACME client writes.
    Webroot(Webroot),
    /// An ACME client that answers by itself, further in.
    Upstream(Upstream),
    /// The account's thumbprint: any token is answered for that account.
    Thumbprint(Thumbprint),
}

/// The sources of every site of one gate, over a store of pushed tokens that outlives them.
pub struct Answers {
    pushed: Arc<Pushed>,
    sources: Vec<Source>,
    tls: Vec<Option<Server>>,
}

impl Answers {
    /// The answers for a gate whose sites are, in this order, served by `sources`, and by the
    /// responders `tls` for TLS-ALPN-01 where nothing was pushed. A reload builds new answers over the
    /// same `pushed`.
    pub fn new(pushed: Arc<Pushed>, sources: Vec<Source>, tls: Vec<Option<Server>>) -> Self {
        Self {
            pushed,
            sources,
            tls,
        }
    }

    fn source(&self, permit: &Permit) -> &Source {
        // A site without a source answers what was pushed, and nothing else.
        self.sources.get(permit.site().0).unwrap_or(&Source::Pushed)
    }
}

impl Responder for Answers {
    fn recall(&self, permit: &Permit, now: Instant) -> Option<Answer> {
        if let Some(answer) = self.pushed.find(permit.token(), permit.identifier(), now) {
            return Some(Ok(answer));
        }
        match self.source(permit) {
            Source::Pushed => Some(Err((Reason::UnknownToken, None))),
            Source::Thumbprint(account) => Some(Ok(thumbprint::answer(permit.token(), account))),
            Source::Webroot(_) => None,
            // Nobody announced an upstream's tokens; only a window that somebody opened for this
            // identifier makes it worth asking (RFC 8555 §10.2: anybody can order for any name).
            Source::Upstream(_) if permit.is_covered() => None,
            Source::Upstream(_) => Some(Err((Reason::NotCovered, None))),
        }
    }

    fn recall_tls(&self, permit: &TlsPermit, now: Instant) -> Result<TlsResponder, Reason> {
        if let Some(answer) = self.pushed.find_tls(permit.identifier(), now) {
            return Ok(TlsResponder::Certificate(answer));
        }
        match self.tls.get(permit.site().0) {
            Some(Some(server)) if permit.is_covered() => Ok(TlsResponder::Upstream(*server)),
            Some(Some(_)) => Err(Reason::NotCovered),
            _ => Err(Reason::NoAnswer),
        }
    }

    fn look_up(&self, permit: Permit, ends: Ends) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        match self.source(&permit).clone() {
            Source::Webroot(webroot) => {
                Box::pin(async move { webroot.look_up(permit.token()).await })
            }
            Source::Upstream(upstream) if permit.is_covered() => Box::pin(async move {
                let (token, identifier) = (permit.token(), permit.identifier());
                upstream.look_up(token, identifier, ends).await
            }),
            Source::Upstream(_) => Box::pin(async { Err((Reason::NotCovered, None)) }),
            Source::Thumbprint(account) => {
                Box::pin(async move { Ok(thumbprint::answer(permit.token(), &account)) })
            }
            Source::Pushed => Box::pin(async { Err((Reason::UnknownToken, None)) }),
        }
    }
}
