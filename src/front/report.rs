//! Tells the witness how a connection ended, exactly once.
//!
//! Every connection carries a [`Report`] from its first moment. Whoever ends it tells the outcome;
//! if it is dropped untold, as by a stop, that is the outcome.

use std::sync::Arc;
use std::time::Instant;

use super::Front;
use super::arrival::Arrival;
use crate::gate::challenge::ChallengeType;
use crate::gate::event::Ended;
use crate::gate::identifier::Identifier;
use crate::gate::lease::LeaseName;
use crate::gate::tls::TlsPermit;
use crate::gate::token::{KeyAuthorization, Thumbprint, TlsAnswer, Token};
use crate::gate::window::Windows;
use crate::gate::{Admission, Peer, Permit, Reason};

/// Why something came to no good end, and what is to be told of it; never peer bytes.
pub(super) type Failure = (Reason, Option<String>);

/// What the witness is told besides who and where.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) reason: Reason,
    pub(super) identifier: Option<Identifier>,
    /// The validation that it was, if it was one.
    pub(super) validation: Option<Box<Validation>>,
    pub(super) detail: Option<String>,
    /// The HTTP status of the answer, and how many octets that has, where anything is answered.
    pub(super) status: Option<u16>,
    pub(super) octets: u64,
}

/// Of a validation, what may be told.
#[derive(Debug)]
pub(super) struct Validation {
    challenge: ChallengeType,
    token: Option<Token>,
    /// The account that was answered for, or was refused as a foreign one.
    thumbprint: Option<Thumbprint>,
}

impl From<&Permit> for Validation {
    fn from(permit: &Permit) -> Self {
        Self {
            challenge: ChallengeType::Http01,
            token: Some(permit.token().clone()),
            thumbprint: None,
        }
    }
}

impl From<&TlsPermit> for Validation {
    fn from(_: &TlsPermit) -> Self {
        Self {
            challenge: ChallengeType::TlsAlpn01,
            token: None,
            thumbprint: None,
        }
    }
}

impl From<&KeyAuthorization> for Validation {
    fn from(answer: &KeyAuthorization) -> Self {
        Self {
            challenge: ChallengeType::Http01,
            token: Some(answer.token().clone()),
            thumbprint: Some(answer.thumbprint().clone()),
        }
    }
}

impl From<&TlsAnswer> for Validation {
    fn from(answer: &TlsAnswer) -> Self {
        Self {
            challenge: ChallengeType::TlsAlpn01,
            token: Some(answer.token().clone()),
            thumbprint: answer.thumbprint().cloned(),
        }
    }
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            identifier: None,
            validation: None,
            detail: None,
            status: None,
            octets: 0,
        }
    }
}

impl Outcome {
    /// The peer went away before it took its answer: it got nothing, whatever was decided.
    pub(super) fn untaken(self) -> Self {
        Self {
            reason: Reason::PeerGone,
            detail: Some(format!("it did not take its answer: {}", self.reason)),
            status: None,
            octets: 0,
            ..self
        }
    }
}

/// The duty to tell.
pub(super) struct Report {
    pub(super) front: Arc<Front>,
    pub(super) peer: Peer,
    pub(super) lease: Option<LeaseName>,
    /// When the kernel handed the connection over.
    pub(super) accepted: Instant,
    is_listed: bool,
    is_told: bool,
}

impl Report {
    pub(super) fn new(front: Arc<Front>, peer: Peer, accepted: Instant) -> Self {
        Self {
            front,
            peer,
            lease: None,
            accepted,
            is_listed: false,
            is_told: false,
        }
    }

    /// From now on this is about a peer that may have come by another.
    pub(super) fn is_of(&mut self, arrival: &Arrival, windows: &Windows, now: Instant) {
        self.peer = arrival.peer;
        self.is_listed = arrival.admission == Ok(Admission::AllowList);
        self.lease = match arrival.admission {
            Ok(Admission::Window { .. }) => {
                let lease = windows.lease_for(|door| arrival.peer.may_use(door), now);
                lease.cloned()
            }
            _ => None,
        };
    }

    /// Tells the outcome, unless one was told before.
    pub(super) fn tell(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let validation = outcome.validation.as_deref();
        self.front.witness.ended(&Ended {
            reason: outcome.reason,
            accepted: self.accepted,
            is_listed: self.is_listed,
            peer: self.peer.address,
            local_port: self.peer.local_port,
            identifier: outcome.identifier.as_ref(),
            challenge: validation.map(|validation| validation.challenge),
            token: validation.and_then(|validation| validation.token.as_ref()),
            thumbprint: validation.and_then(|validation| validation.thumbprint.as_ref()),
            lease: self.lease.as_ref(),
            status: outcome.status,
            octets: outcome.octets,
            detail: outcome.detail.as_deref(),
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(Reason::Stopping.into());
    }
}
