//! Decides: may this peer reach a challenge responder now, and why?
//!
//! Pure: address, bytes, state and *now* come in as arguments; a verdict with its reason comes out.
//! There is no socket, file, task or clock in here. Whoever acts on an acceptance needs a
//! [`Permit`], which only this module can make, so no path can forget to ask.

pub mod allow_list;
pub mod caller;
pub mod challenge;
pub mod command;
pub mod early;
pub mod event;
pub mod failures;
pub mod identifier;
pub mod lease;
pub mod reason;
pub mod site;
pub mod tls;
pub mod token;
pub mod usage;
pub mod window;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use self::allow_list::AllowList;
use self::identifier::Identifier;
use self::lease::{Door, Family};
pub use self::reason::{Reason, Verdict};
use self::site::{Redirect, Site, SiteId, site_for};
use self::token::{KeyAuthorization, Token};
use self::window::Windows;

/// The longest target behind the challenge prefix that is refused for its token, and longer ones for their
/// length: with a token it has under 200 octets.
pub const MAX_CHALLENGE_TARGET_BYTES: usize = 1024;
/// The longest target that is redirected (RFC 9112 §3 advises 8000 for the request line).
pub const MAX_TARGET_BYTES: usize = 8000;

/// Whether the world is kept out while no window is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Peers off the allow-list need a living lease (modes `guard` and `set`).
    Windowed,
    /// Everybody may connect; the gate alone decides (mode `gate-only`).
    Open,
}

/// Who is shown the way to HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectFor {
    /// Whoever may connect.
    #[default]
    Everybody,
    /// Peers on the allow-list, and nobody else, window or not.
    AllowList,
}

/// What the gate knows besides the request: the checked configuration.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Every `[[site]]`, in the order of the configuration.
    pub sites: Vec<Site>,
    /// Whose traffic is never kept out.
    pub allow: Arc<AllowList>,
    /// What holds while no window is open.
    pub exposure: Exposure,
    /// Who is redirected.
    pub redirect_for: RedirectFor,
}

/// Who connected, and where to.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The peer's address, never IPv4-mapped.
    pub address: IpAddr,
    /// The local port it reached.
    pub local_port: u16,
    /// The address of this host that it reached, where some lease depends on that.
    pub local_address: Option<IpAddr>,
}

impl Peer {
    /// Whether this is a door that the peer may have come by.
    pub fn may_use(&self, door: &Door) -> bool {
        door.family == Family::of(self.address)
            && door.port == self.local_port
            && door.entrance.may_be(self.local_address)
    }
}

/// What let a peer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The allow-list: nothing ends it.
    AllowList,
    /// A window: what it admits ends at this instant, unless the window is prolonged.
    Window {
        /// The window's end and its grace.
        until: Instant,
    },
    /// The mode lets everybody connect.
    Everybody,
}

/// The Host fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'head> {
    /// None at all.
    Missing,
    /// More than one.
    Repeated,
    /// Exactly one, with this value.
    Value(&'head str),
}

/// One request head, as the strict reader gives it: well-formed, but nothing in it is believed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'head> {
    /// The method, case-sensitive (RFC 9110 §9.1).
    pub method: &'head str,
    /// The target as it came.
    pub target: &'head str,
    /// The Host field.
    pub host: Host<'head>,
    /// Who asks, never IPv4-mapped.
    pub peer: IpAddr,
    /// The local port the peer reached.
    pub local_port: u16,
}

/// What the gate makes of a request.
#[must_use]
#[derive(Debug)]
pub enum Decision {
    /// A challenge that may be answered by whoever knows the token.
    Challenge(Permit),
    /// Show the way to HTTPS.
    Redirect {
        /// The absolute target, safe for a Location field.
        location: String,
        /// Which identifier was asked.
        identifier: Identifier,
    },
    /// Refuse with the reason's status.
    Refuse {
        /// Why.
        reason: Reason,
        /// Which identifier was asked, as far as that could be told.
        identifier: Option<Identifier>,
    },
}

/// The gate's word that this token of this identifier may be looked up and answered.
#[derive(Clone, Debug)]
pub struct Permit {
    token: Token,
    identifier: Identifier,
    site: SiteId,
    covered: bool,
}

impl Permit {
    /// The token that was asked.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The identifier being validated.
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// The site that answers.
    pub fn site(&self) -> SiteId {
        self.site
    }

    /// Whether a window covers the identifier, so that a token nobody announced may be asked for.
    /// Never so for the default site.
    pub fn is_covered(&self) -> bool {
        self.covered
    }
}

/// A key authorization that the gate vouches for.
#[derive(Clone, Debug)]
pub struct Vouched(KeyAuthorization);

impl Vouched {
    /// The exact body of the 200.
    pub fn to_body(&self) -> String {
        self.0.to_body()
    }
}

impl Gate {
    /// Whether a peer may be listened to at all.
    ///
    /// # Errors
    /// [`Reason::NoLease`]: in the modes with windows, the kernel's verdict is repeated here, so
    /// that a rule that somebody removed opens nothing.
    pub fn admit(&self, peer: Peer, windows: &Windows, now: Instant) -> Result<Admission, Reason> {
        // Who is on it may have more than others, in every mode.
        if self.allow.contains(peer.address) {
            return Ok(Admission::AllowList);
        }
        if self.exposure == Exposure::Open {
            return Ok(Admission::Everybody);
        }
        match windows.open_where(|door| peer.may_use(door), now) {
            Some(deadline) => Ok(Admission::Window {
                until: deadline + window::GRACE,
            }),
            None => Err(Reason::NoLease),
        }
    }

    /// Decides what a request gets. Nothing is normalised: the challenge passes as the byte-exact
    /// prefix and a token, or not at all.
    pub fn decide(&self, request: &Request<'_>, windows: &Windows, now: Instant) -> Decision {
        let refuse = |reason| Decision::Refuse {
            reason,
            identifier: None,
        };
        if !matches!(request.method, "GET" | "HEAD") {
            return refuse(Reason::Method);
        }
        if request.target.len() > MAX_TARGET_BYTES {
            return refuse(Reason::TargetTooLong);
        }
        if !request.target.starts_with('/') || !request.target.bytes().all(may_stand_in_target) {
            return refuse(Reason::TargetForm);
        }
        let host = match request.host {
            Host::Missing | Host::Repeated => return refuse(Reason::HostCount),
            Host::Value(host) => host,
        };
        let Ok(identifier) = Identifier::from_host(host, request.local_port) else {
            return refuse(Reason::MalformedHost);
        };
        let Some((id, site)) = site_for(&self.sites, &identifier) else {
            return Decision::Refuse {
                reason: Reason::UnknownHost,
                identifier: Some(identifier),
            };
        };
        match challenge::token_of(request.target) {
            Some(Ok(token)) => Decision::Challenge(Permit {
                // A name that only the peer has spoken must never reach an upstream.
                covered: !site.is_default && windows.covers(&identifier, now),
                token,
                identifier,
                site: id,
            }),
            Some(Err(_)) => Decision::Refuse {
                reason: if request.target.len() > MAX_CHALLENGE_TARGET_BYTES {
                    Reason::TargetTooLong
                } else {
                    Reason::MalformedToken
                },
                identifier: Some(identifier),
            },
            None => match redirect(site, identifier, request.target) {
                // Like the site behind it: a window is for validations alone.
                Decision::Redirect { identifier, .. } if !self.may_be_redirected(request.peer) => {
                    Decision::Refuse {
                        reason: Reason::NotAllowed,
                        identifier: Some(identifier),
                    }
                }
                decision => decision,
            },
        }
    }

    fn may_be_redirected(&self, peer: IpAddr) -> bool {
        match self.redirect_for {
            RedirectFor::Everybody => true,
            RedirectFor::AllowList => self.allow.contains(peer),
        }
    }

    /// Vouches for an answer, wherever it came from: it must be that very token's, and from an
    /// account that the site names, if it names any.
    ///
    /// # Errors
    /// [`Reason::UpstreamLied`] for another token's answer, [`Reason::ForeignAccount`].
    pub fn vouch(&self, permit: &Permit, answer: KeyAuthorization) -> Result<Vouched, Reason> {
        if answer.token() != permit.token() {
            return Err(Reason::UpstreamLied);
        }
        let accounts = self.sites.get(permit.site.0).map(|site| &site.accounts);
        match accounts {
            Some(accounts) if accounts.is_empty() || accounts.contains(answer.thumbprint()) => {
                Ok(Vouched(answer))
            }
            _ => Err(Reason::ForeignAccount),
        }
    }
}

fn redirect(site: &Site, identifier: Identifier, target: &str) -> Decision {
    let authority = match &site.redirect {
        Redirect::To(name) => name.to_authority(),
        // The default site never redirects to a name that only the peer has spoken.
        Redirect::Asked if !site.is_default => identifier.to_authority(),
        // A default site without a name of its own has nowhere to send anybody: to the world it
        // is as if the name were unknown.
        Redirect::Asked => {
            return Decision::Refuse {
                reason: Reason::UnknownHost,
                identifier: Some(identifier),
            };
        }
        Redirect::Off => {
            return Decision::Refuse {
                reason: Reason::NoRedirect,
                identifier: Some(identifier),
            };
        }
    };
    Decision::Redirect {
        location: format!("https://{authority}{target}"),
        identifier,
    }
}

/// Visible ASCII without what no URI may carry raw and what browsers never send; `%` is allowed,
/// because a redirect repeats it unread.
fn may_stand_in_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'#' | b'`')
}

#[cfg(test)]
mod tests;
