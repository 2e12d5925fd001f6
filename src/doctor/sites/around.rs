//! What stands around an answer: where visitors are sent, and whether a name's own address leads here from inside.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::ask::{Door, Heard, get};
use super::{NO_HAIRPIN, REDIRECT_TO_NOBODY, Trial, blocking};
use crate::daemon::port::listening_sockets;
use crate::doctor::finding::{Exam, Severity};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;

/// How long the host's resolver may take.
const RESOLVE: Duration = Duration::from_secs(5);
/// How long a connection to one's own address may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The port that a redirect leads to.
const HTTPS: u16 = 443;

/// A redirect to this host must find somebody there.
pub(super) async fn redirect(trial: &Trial<'_>, doors: &[Door], exam: &mut Exam) {
    let Some(door) = doors.first().copied() else {
        return;
    };
    let host = trial.name.to_authority();
    let to_itself = format!("https://{host}/");
    let heard = blocking(move || get(door, &host, "/")).await;
    let Some(Heard::Answer(answer)) = heard else {
        return;
    };
    let leads_here = answer.field("location") == Some(to_itself.as_str());
    if !answer.is_the_gates() || !leads_here || !listening_sockets(HTTPS).is_empty() {
        return;
    }
    exam.findings.push(
        trial
            .finding(
                REDIRECT_TO_NOBODY,
                Severity::Advice,
                format!("visitors are sent to {to_itself}, and nobody listens on port {HTTPS} of this host"),
            )
            .seen(format!("`GET /` was answered by status {}", answer.status))
            .remedy("well if another host serves it; else `redirect = \"off\"` in the [[site]]"),
    );
}

/// Clients that look themselves before they order (cert-manager, Caddy) must reach the name from inside. Gives whether
/// this host's resolver answered at all.
pub(super) async fn hairpin(trial: &Trial<'_>, exam: &mut Exam) -> bool {
    let port = match trial.site.challenges.first() {
        Some(challenge) => challenge.port(),
        None => ChallengeType::Http01.port(),
    };
    let addresses: Vec<IpAddr> = match &trial.name {
        Identifier::Ip(address) => vec![*address],
        Identifier::Dns(name) => match timeout(RESOLVE, lookup_host((name.as_str(), port))).await {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
            Ok(Err(error)) => {
                exam.not_covered
                    .push(format!("whether {name} leads here from inside: {error}"));
                return true;
            }
            Err(_) => {
                exam.not_covered.push(format!(
                    "whether {name} and what comes behind it leads here from inside: this host's resolver does not answer"
                ));
                return false;
            }
        },
    };
    for address in addresses {
        let to = SocketAddr::new(address, port);
        let why = match timeout(CONNECT, TcpStream::connect(to)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within two seconds".to_owned(),
        };
        exam.findings.push(
            trial
                .finding(
                    NO_HAIRPIN,
                    Severity::Advice,
                    format!("{address} leads nowhere from this host itself"),
                )
                .seen(format!("a connection to {to}: {why}"))
                .remedy("CAs do not mind; a client that looks itself first (cert-manager, Caddy) does: let the router hairpin, or give the name an inner address in /etc/hosts"),
        );
    }
    true
}
