//! An upstream: reached from here, and asked for a token that it cannot know.
//!
//! Whoever knows a token of its own is an ACME client in the midst of an order, so nothing can be put up there. What
//! it says to a foreign token tells whether it would be believed: 404, or a close without an answer, is right.

use super::ask::Door;
use super::{
    Outcome, Trial, UPSTREAM_GONE, UPSTREAM_REACHED, UPSTREAM_SLOW, UPSTREAM_STRANGE, token,
};
use crate::answer::Upstream;
use crate::doctor::finding::{Exam, Severity};
use crate::gate::Reason;
use crate::gate::event::Ends;
use crate::gate::tls::Server;

/// Asks it in the gate's own words, and the gate itself whether it has the name.
pub(super) async fn examine(trial: &Trial<'_>, server: Server, doors: &[Door], exam: &mut Exam) {
    let answer = match token::random(None) {
        Ok(answer) => answer,
        Err(error) => {
            exam.not_covered.push(format!("what sites answer: {error}"));
            return;
        }
    };
    for door in doors {
        match trial.ask(*door, &answer).await {
            Outcome::Wrong(finding) => {
                exam.findings.push(*finding);
                return;
            }
            Outcome::NotCovered(why) => exam.not_covered.push(why),
            // No window covers the name, or the upstream does not know the token: both are right.
            Outcome::Refused(_) | Outcome::Answered => {}
        }
    }
    let Some(door) = doors.first() else {
        return;
    };
    let ends = Ends {
        source: (super::loopback(door.address), 0).into(),
        destination: door.address,
    };
    let asked = Upstream::new(server)
        .look_up(answer.token(), &trial.name, ends)
        .await;
    let address = server.address;
    let how = format!("{address} was asked for a random token of {}", trial.name);
    let (reason, detail) = match asked {
        Err(told) => told,
        // Exactly this token's key authorization, by whatever account: it answers every token.
        Ok(_) => (Reason::UpstreamUnknown, None),
    };
    let detail = detail.unwrap_or_else(|| reason.to_string());
    let is_a_refusal = detail.starts_with("connect:");
    exam.findings.push(match reason {
        Reason::UpstreamUnknown => trial.finding(
            UPSTREAM_REACHED,
            Severity::Fine,
            format!("the upstream {address} is reached and answers"),
        ),
        Reason::UpstreamGone if !is_a_refusal => trial.finding(
            UPSTREAM_REACHED,
            Severity::Fine,
            format!("the upstream {address} is reached, and closes on tokens that it does not know ({detail})"),
        ),
        Reason::UpstreamGone => trial
            .finding(
                UPSTREAM_GONE,
                Severity::Doubt,
                format!("nothing answers at the upstream {address} now"),
            )
            .seen(format!("{how}: {detail}"))
            .remedy("well if the ACME client listens there only while it asks (standalone, lego); else start it, or correct `upstream`"),
        Reason::UpstreamSlow => trial
            .finding(
                UPSTREAM_SLOW,
                Severity::Fault,
                format!("the upstream {address} does not answer in time"),
            )
            .seen(format!("{how}: {detail}"))
            .remedy(format!("let this host through to it: its firewall, the route (`ip route get {}`)", address.ip())),
        _ => trial
            .finding(
                UPSTREAM_STRANGE,
                Severity::Doubt,
                format!("the upstream {address} answers with something that is no answer to a validation"),
            )
            .seen(format!("{how}: {detail}"))
            .remedy("let it answer what is below /.well-known/acme-challenge/ itself, by 404 where it does not know the token: no redirect to HTTPS, no page for everything"),
    });
}
