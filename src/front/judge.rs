//! From the bytes so far to the next step: whom they are from, the strict reader, the gate and the
//! responder's memory in a row.
//!
//! What it never does: touch the socket, or wait. It runs in the accept task for whole requests and
//! in a connection's own task for the rest, so both are judged alike.

use std::sync::Arc;
use std::time::Instant;

use super::Rules;
use super::arrival::Arrival;
use super::edge::with_date;
use super::forwarded::real_peer;
use super::head::{self, Head, Parsed};
use super::http::{Reply, render};
use super::report::Outcome;
use crate::gate::event::Answer;
use crate::gate::window::Windows;
use crate::gate::{Decision, Peer, Permit, Reason, Request};
use crate::proxy_protocol;

/// What is to be done with a connection.
pub(super) enum Step {
    /// Read on.
    NeedMore,
    /// Ask the responder, which may take a while.
    LookUp(LookUp),
    /// Send this, if there is anything to send, and close.
    Finish(Finish),
}

/// A question to the responder, with the rules that permitted it: a reload must not change whose
/// site the permit speaks of.
pub(super) struct LookUp {
    pub(super) rules: Arc<Rules>,
    pub(super) permit: Permit,
    pub(super) is_head: bool,
}

/// A step, and what the bytes told of who came.
pub(super) struct Judged {
    pub(super) step: Step,
    /// Whom they are from, where that is not who was judged.
    pub(super) arrival: Option<Box<Arrival>>,
    /// How many octets told it: they do not belong to the head.
    pub(super) taken: usize,
}

impl From<Step> for Judged {
    fn from(step: Step) -> Self {
        Self {
            step,
            arrival: None,
            taken: 0,
        }
    }
}

/// The end of a connection.
pub(super) struct Finish {
    /// The whole answer; `None` closes without a word.
    pub(super) reply: Option<Vec<u8>>,
    /// What the witness is told.
    pub(super) outcome: Outcome,
    /// Whether bytes of the peer may be unread, so that a plain close would send a reset after the
    /// answer and take it away from the peer again.
    pub(super) may_have_unread: bool,
}

impl Finish {
    /// The peer went away before it had asked anything.
    pub(super) fn gone() -> Self {
        Self::silent(Reason::PeerGone)
    }

    /// Nothing is said to the peer.
    pub(super) fn silent(reason: Reason) -> Self {
        Self {
            reply: None,
            outcome: reason.into(),
            may_have_unread: false,
        }
    }
}

/// Judges the bytes so far, of which everything that was once [`Judged::taken`] is gone.
pub(super) fn judge(
    bytes: &[u8],
    arrival: &Arrival,
    rules: &Arc<Rules>,
    windows: &Windows,
    now: Instant,
) -> Judged {
    if !arrival.owes_header {
        return request(bytes, arrival, rules, windows, now);
    }
    let header = match proxy_protocol::parse(bytes) {
        proxy_protocol::Parsed::Complete(header) => header,
        proxy_protocol::Parsed::NeedMore => return Step::NeedMore.into(),
        proxy_protocol::Parsed::Malformed => {
            return Step::Finish(Finish::silent(Reason::ProxyHeader)).into();
        }
    };
    let real = arrival.announced(header.ends, rules, windows, now);
    let rest = &bytes[header.length..];
    let judged = match real.admission {
        Ok(_) => request(rest, &real, rules, windows, now),
        Err(reason) => Step::Finish(Finish::silent(reason)).into(),
    };
    Judged {
        step: judged.step,
        arrival: Some(judged.arrival.unwrap_or_else(|| Box::new(real))),
        taken: header.length,
    }
}

/// Judges what stands behind any header: the head, and in it who it is from.
fn request(
    bytes: &[u8],
    arrival: &Arrival,
    rules: &Arc<Rules>,
    windows: &Windows,
    now: Instant,
) -> Judged {
    let head = match head::parse(bytes) {
        Parsed::NeedMore => return Step::NeedMore.into(),
        Parsed::Refused(reason) => {
            // The rest was not understood, but who asks by HEAD expects no content.
            let is_head = bytes.starts_with(b"HEAD ");
            return Step::Finish(refuse(reason.into(), is_head, true)).into();
        }
        Parsed::Complete(head) => head,
    };
    if !arrival.owes_fields(&rules.settings) {
        return decide(&head, bytes.len(), arrival.peer, rules, windows, now).into();
    }
    let Ok(address) = real_peer(head.fields, &rules.settings.headers_from) else {
        let refused = refuse(Reason::Forwarded.into(), head.method == "HEAD", true);
        return Step::Finish(refused).into();
    };
    let real = arrival.forwarded(address, rules, windows, now);
    let step = match real.admission {
        Ok(_) => decide(&head, bytes.len(), real.peer, rules, windows, now),
        Err(reason) => Step::Finish(Finish::silent(reason)),
    };
    Judged {
        step,
        arrival: Some(Box::new(real)),
        taken: 0,
    }
}

/// Asks the gate, and whoever remembers the answer. `received` counts the head's octets and those
/// behind it.
fn decide(
    head: &Head<'_>,
    received: usize,
    peer: Peer,
    rules: &Arc<Rules>,
    windows: &Windows,
    now: Instant,
) -> Step {
    let request = Request {
        method: head.method,
        target: head.target,
        host: head.host,
        peer: peer.address,
        local_port: peer.local_port,
    };
    let is_head = head.method == "HEAD";
    let may_have_unread = received > head.length || !matches!(head.method, "GET" | "HEAD");
    let finish = match rules.gate.decide(&request, windows, now) {
        Decision::Challenge(permit) => match rules.responder.recall(&permit, now) {
            Some(answer) => conclude(rules, &permit, answer, is_head),
            None => {
                return Step::LookUp(LookUp {
                    rules: Arc::clone(rules),
                    permit,
                    is_head,
                });
            }
        },
        Decision::Redirect {
            location,
            identifier,
        } => {
            let reply = Reply::Redirect(rules.settings.redirect_status, &location);
            let outcome = Outcome {
                identifier: Some(identifier),
                ..Reason::Redirected.into()
            };
            reply_with(&reply, outcome, is_head, false)
        }
        Decision::Refuse { reason, identifier } => {
            let outcome = Outcome {
                identifier,
                ..reason.into()
            };
            refuse(outcome, is_head, false)
        }
    };
    Step::Finish(Finish {
        may_have_unread,
        ..finish
    })
}

/// Has the gate vouch for an answer, wherever it came from, and renders what it makes of it.
pub(super) fn conclude(rules: &Rules, permit: &Permit, answer: Answer, is_head: bool) -> Finish {
    let identifier = Some(permit.identifier().clone());
    let key_authorization = match answer {
        Ok(key_authorization) => key_authorization,
        Err((reason, detail)) => {
            let outcome = Outcome {
                identifier,
                validation: Some(Box::new(permit.into())),
                detail,
                ..reason.into()
            };
            return refuse(outcome, is_head, false);
        }
    };
    let validation = Some(Box::new((&key_authorization).into()));
    match rules.gate.vouch(permit, key_authorization) {
        Ok(vouched) => {
            let outcome = Outcome {
                identifier,
                validation,
                ..Reason::Answered.into()
            };
            let reply = Reply::KeyAuthorization(&vouched);
            reply_with(&reply, outcome, is_head, false)
        }
        Err(reason) => {
            let outcome = Outcome {
                identifier,
                validation,
                ..reason.into()
            };
            refuse(outcome, is_head, false)
        }
    }
}

/// Answers with the reason's status, or not at all.
pub(super) fn refuse(outcome: Outcome, is_head: bool, may_have_unread: bool) -> Finish {
    let reply = Reply::Refusal(outcome.reason);
    reply_with(&reply, outcome, is_head, may_have_unread)
}

fn reply_with(reply: &Reply<'_>, outcome: Outcome, is_head: bool, may_have_unread: bool) -> Finish {
    let rendered = with_date(|date| render(reply, is_head, date));
    Finish {
        outcome: Outcome {
            status: reply.status(),
            octets: rendered
                .as_ref()
                .map_or(0, |rendered| rendered.len() as u64),
            ..outcome
        },
        reply: rendered,
        may_have_unread,
    }
}
