//! Tells the witness how a connection ended, exactly once.
//!
//! Every connection carries a [`Report`] from its first moment. Whoever ends it tells the outcome;
//! if it is dropped untold, as by a stop, that is the outcome.

use std::sync::Arc;
use std::time::Instant;

use super::Front;
use super::arrival::Arrival;
use crate::gate::event::Ended;
use crate::gate::identifier::Identifier;
use crate::gate::lease::LeaseName;
use crate::gate::token::{KeyAuthorization, Thumbprint, TlsAnswer, Token};
use crate::gate::window::Windows;
use crate::gate::{Admission, Peer, Reason};

/// Why something came to no good end, and what is to be told of it; never peer bytes.
pub(super) type Failure = (Reason, Option<String>);

/// What the witness is told besides who and where.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) reason: Reason,
    pub(super) identifier: Option<Identifier>,
    /// What was answered, or was refused as nobody's or a foreign account's.
    pub(super) answer: Option<Box<Told>>,
    pub(super) detail: Option<String>,
}

/// Of an answer, what may be told.
#[derive(Debug)]
pub(super) struct Told {
    token: Token,
    thumbprint: Option<Thumbprint>,
}

impl From<&KeyAuthorization> for Told {
    fn from(answer: &KeyAuthorization) -> Self {
        Self {
            token: answer.token().clone(),
            thumbprint: Some(answer.thumbprint().clone()),
        }
    }
}

impl From<&TlsAnswer> for Told {
    fn from(answer: &TlsAnswer) -> Self {
        Self {
            token: answer.token().clone(),
            thumbprint: answer.thumbprint().cloned(),
        }
    }
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            identifier: None,
            answer: None,
            detail: None,
        }
    }
}

impl Outcome {
    /// The peer went away before it took its answer: it got nothing, whatever was decided.
    pub(super) fn untaken(self) -> Self {
        Self {
            reason: Reason::PeerGone,
            detail: Some(format!("it did not take its answer: {}", self.reason)),
            ..self
        }
    }
}

/// The duty to tell.
pub(super) struct Report {
    pub(super) front: Arc<Front>,
    pub(super) peer: Peer,
    pub(super) lease: Option<LeaseName>,
    is_told: bool,
}

impl Report {
    pub(super) fn new(front: Arc<Front>, peer: Peer) -> Self {
        Self {
            front,
            peer,
            lease: None,
            is_told: false,
        }
    }

    /// From now on this is about a peer that may have come by another.
    pub(super) fn is_of(&mut self, arrival: &Arrival, windows: &Windows, now: Instant) {
        self.peer = arrival.peer;
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
        let answer = outcome.answer.as_deref();
        self.front.witness.ended(&Ended {
            reason: outcome.reason,
            peer: self.peer.address,
            local_port: self.peer.local_port,
            identifier: outcome.identifier.as_ref(),
            token: answer
                .filter(|_| outcome.reason == Reason::Answered)
                .map(|answer| &answer.token),
            thumbprint: answer.and_then(|answer| answer.thumbprint.as_ref()),
            lease: self.lease.as_ref(),
            detail: outcome.detail.as_deref(),
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell(Reason::Stopping.into());
    }
}
