//! tls-alpn-01 end to end: an answer is pushed, and a handshake shows whether its certificate comes (RFC 8737 §3).

use super::ask::{Door, Shaken, shake};
use super::{
    HANDSHAKE_FAILS, SITE_ANSWERS, Trial, UPSTREAM_GONE, UPSTREAM_REACHED, blocking, loopback,
};
use crate::control::protocol::ChallengeName;
use crate::doctor::finding::{Exam, Severity};
use crate::gate::tls::Server;
use crate::gate::token::KeyAuthorization;

/// The object identifier of acmeIdentifier, 1.3.6.1.5.5.7.1.31, in DER.
const ACME_IDENTIFIER: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x1f];

/// Tries it at every door, and the site's responder where it has one.
pub(super) async fn examine(trial: &Trial<'_>, doors: &[Door], exam: &mut Exam) {
    if doors.is_empty() {
        exam.not_covered.push(format!(
            "what answers {} by tls-alpn-01: the gate does not listen for it ([tls] listen)",
            trial.name
        ));
        return;
    }
    if let Some(server) = trial.site.tls_source {
        responder(trial, server, exam).await;
    }
    let Some((_pushed, answer)) = trial.push(ChallengeName::TlsAlpn01, exam).await else {
        return;
    };
    let mut agreed = Vec::new();
    for door in doors {
        let (door, name) = (*door, trial.name.clone());
        let Some(shaken) = blocking(move || shake(door, &name)).await else {
            continue;
        };
        let how = match shaken {
            Shaken::Done {
                is_agreed: true,
                certificate,
            } if carries(&certificate, &answer) => {
                agreed.push(door.address.to_string());
                continue;
            }
            Shaken::Done {
                is_agreed: true, ..
            } => "a certificate that does not carry the answer that was pushed".to_owned(),
            Shaken::Done { .. } => {
                "a handshake without `acme-tls/1`, as an ordinary web server makes it".to_owned()
            }
            Shaken::Nothing if !trial.case.allow.contains(loopback(door.address)) => {
                exam.not_covered.push(trial.without_a_word(door));
                continue;
            }
            Shaken::Nothing => "the connection was closed without a word".to_owned(),
            Shaken::Failed(why) => format!("no handshake: {why}"),
            Shaken::NotReached(why) => {
                exam.not_covered.push(format!(
                    "what {} answers by tls-alpn-01 at {}: {why}",
                    trial.name, door.address
                ));
                continue;
            }
        };
        exam.findings.push(
            trial
                .finding(
                    HANDSHAKE_FAILS,
                    Severity::Fault,
                    "a validation by tls-alpn-01 gets no answer",
                )
                .seen(format!(
                    "an answer was pushed and {} asked for it: {how}",
                    door.address
                ))
                .remedy(format!(
                    "`ss -ltnp sport = {}` names who listens: acmegate must, by `listen` or \"divert\" in [tls]",
                    door.address.port()
                )),
        );
        return;
    }
    if !agreed.is_empty() {
        exam.findings.push(trial.finding(
            SITE_ANSWERS,
            Severity::Fine,
            format!(
                "the gate answers tls-alpn-01 by a pushed token (tried at {})",
                agreed.join(" and ")
            ),
        ));
    }
}

/// A responder further in: whether it is there, and speaks TLS.
async fn responder(trial: &Trial<'_>, server: Server, exam: &mut Exam) {
    let door = Door {
        address: server.address,
        proxy: server.proxy_protocol,
        by_loopback: false,
    };
    let name = trial.name.clone();
    let Some(shaken) = blocking(move || shake(door, &name)).await else {
        return;
    };
    let address = server.address;
    exam.findings.push(match shaken {
        Shaken::NotReached(why) => trial
            .finding(
                UPSTREAM_GONE,
                Severity::Doubt,
                format!("nothing answers at the responder {address} now"),
            )
            .seen(format!("a connection to it: {why}"))
            .remedy("well if the ACME client listens there only while it asks; else start it, or correct `tls_answer`"),
        // Without an order it may have no certificate to show.
        Shaken::Nothing | Shaken::Failed(_) | Shaken::Done { .. } => trial.finding(
            UPSTREAM_REACHED,
            Severity::Fine,
            format!("the responder {address} is reached"),
        ),
    });
}

/// Whether a certificate has acmeIdentifier with this very digest: its identifier, and behind it an octet string in
/// an octet string of 32 octets, critical before it.
fn carries(certificate: &[u8], answer: &KeyAuthorization) -> bool {
    const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];
    const VALUE: &[u8] = &[0x04, 0x22, 0x04, 0x20];
    let digest = answer.digest();
    let wanted = [ACME_IDENTIFIER, CRITICAL, VALUE, digest.as_bytes()].concat();
    certificate
        .windows(wanted.len())
        .any(|part| part == wanted.as_slice())
}
