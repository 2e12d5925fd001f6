//! What a ClientHello gets: a challenge responder, the site, or nothing (RFC 8737 §3).
//!
//! A look at ALPN alone is no gate: web servers go on when a peer offers `acme-tls/1` beside other
//! names, and some when it offers nothing else. So an offer of exactly `acme-tls/1` leads to a
//! responder and never to the site, and everything else leads to the site from the allow-list alone.

use std::net::SocketAddr;
use std::time::Instant;

use super::identifier::Identifier;
use super::site::{SiteId, site_for};
use super::token::TlsAnswer;
use super::window::Windows;
use super::{Admission, Gate, Reason};

/// The protocol name of a validation (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// What a ClientHello offers by ALPN (RFC 7301 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// No ALPN at all.
    Nothing,
    /// Exactly one name: `acme-tls/1`. What RFC 8737 §3 demands of validators.
    AcmeTls,
    /// `acme-tls/1` and more, or that name twice: no validator, but perhaps somebody who wants to
    /// be taken for one.
    AcmeTlsAmongOthers,
    /// Other names.
    Others,
}

/// The server name of a ClientHello (RFC 6066 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerName<'hello> {
    /// None at all.
    Missing,
    /// Not one host name of ASCII.
    Malformed,
    /// This one, as it came.
    Value(&'hello str),
}

/// What the gate wants to know of a ClientHello; nothing in it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'hello> {
    /// Whom the peer asks for.
    pub server_name: ServerName<'hello>,
    /// What it offers to speak.
    pub offer: Offer,
    /// Whether it announces data before the handshake is complete (RFC 8446 §4.2.10).
    pub has_early_data: bool,
}

/// What the gate makes of a ClientHello.
#[must_use]
#[derive(Debug)]
pub enum TlsDecision {
    /// A validation that may be led to a responder.
    Challenge(TlsPermit),
    /// A visitor from the allow-list, for the site's own server.
    Pass {
        /// The site that has the name, if one does.
        site: Option<SiteId>,
        /// The name, as far as there is one.
        identifier: Option<Identifier>,
    },
    /// Refuse.
    Refuse {
        /// Why.
        reason: Reason,
        /// Which identifier was asked, as far as that could be told.
        identifier: Option<Identifier>,
    },
}

/// The gate's word that a validation of this identifier may be led to a responder.
#[derive(Clone, Debug)]
pub struct TlsPermit {
    identifier: Identifier,
    site: SiteId,
    covered: bool,
}

impl TlsPermit {
    /// The identifier being validated.
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// The site that answers.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// Whether a window covers the identifier, or the allow-list has the peer, so that a responder of
    /// whose answers nobody told may be asked. Never so for the default site.
    pub fn is_covered(&self) -> bool {
        self.covered
    }
}

/// Who answers a validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsResponder {
    /// We do, with a certificate that carries this.
    Certificate(TlsAnswer),
    /// An ACME client that is a responder and nothing else.
    Upstream(Server),
}

/// A server that connections are led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is told who the peer is before the first octet, and how.
    pub proxy_protocol: Option<ProxyVersion>,
}

impl From<SocketAddr> for Server {
    /// A server that is told nothing.
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            proxy_protocol: None,
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// What the responder's certificate says, vouched for by the gate.
#[derive(Clone, Debug)]
pub struct VouchedTls {
    identifier: Identifier,
    answer: TlsAnswer,
}

impl VouchedTls {
    /// The one name of the certificate.
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// What it proves.
    pub fn answer(&self) -> &TlsAnswer {
        &self.answer
    }
}

impl Gate {
    /// Decides what a ClientHello gets from a peer that was admitted so.
    pub fn decide_tls(
        &self,
        hello: &Hello<'_>,
        admission: Admission,
        windows: &Windows,
        now: Instant,
    ) -> TlsDecision {
        let refuse = |reason| TlsDecision::Refuse {
            reason,
            identifier: None,
        };
        let identifier = match hello.server_name {
            ServerName::Value(name) => Identifier::from_server_name(name).ok(),
            ServerName::Missing | ServerName::Malformed => None,
        };
        let site = identifier
            .as_ref()
            .and_then(|identifier| site_for(&self.sites, identifier));
        if hello.offer != Offer::AcmeTls {
            let reason = match hello.offer {
                Offer::AcmeTlsAmongOthers => Reason::MixedAlpn,
                _ => Reason::NotAllowed,
            };
            return match admission {
                Admission::AllowList => TlsDecision::Pass {
                    site: site.map(|(id, _)| id),
                    identifier,
                },
                Admission::Window { .. } | Admission::Everybody => {
                    TlsDecision::Refuse { reason, identifier }
                }
            };
        }
        // A validator sends nothing after its handshake, and nothing before it is complete.
        if hello.has_early_data {
            return TlsDecision::Refuse {
                reason: Reason::EarlyData,
                identifier,
            };
        }
        let Some(identifier) = identifier else {
            return refuse(match hello.server_name {
                ServerName::Missing => Reason::NoServerName,
                ServerName::Malformed | ServerName::Value(_) => Reason::MalformedServerName,
            });
        };
        match site {
            Some((id, site)) => TlsDecision::Challenge(TlsPermit {
                // As for HTTP-01: a name that only the peer has spoken reaches no upstream.
                covered: !site.is_default
                    && (admission == Admission::AllowList || windows.covers(&identifier, now)),
                identifier,
                site: id,
            }),
            None => TlsDecision::Refuse {
                reason: Reason::UnknownHost,
                identifier: Some(identifier),
            },
        }
    }

    /// Vouches for an answer: it must be from an account that the site names, if it names any.
    ///
    /// # Errors
    /// [`Reason::ForeignAccount`], also where it is not known whose it is.
    pub fn vouch_tls(&self, permit: &TlsPermit, answer: TlsAnswer) -> Result<VouchedTls, Reason> {
        let accounts = self.sites.get(permit.site.0).map(|site| &site.accounts);
        let is_known = accounts.is_some_and(|accounts| {
            let account = answer.thumbprint();
            accounts.is_empty() || account.is_some_and(|account| accounts.contains(account))
        });
        match is_known {
            true => Ok(VouchedTls {
                identifier: permit.identifier.clone(),
                answer,
            }),
            false => Err(Reason::ForeignAccount),
        }
    }
}

#[cfg(test)]
mod tests;
