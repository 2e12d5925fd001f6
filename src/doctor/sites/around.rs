//! What stands around an answer: where visitors are sent, and whether a name's own address leads here from inside.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
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
/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 16;
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
    if addresses.len() > MAX_ADDRESSES {
        exam.not_covered.push(format!(
            "whether {} of the {} addresses of {} lead here from inside",
            addresses.len() - MAX_ADDRESSES,
            addresses.len(),
            trial.name
        ));
    }
    for (address, why) in leading_nowhere(&addresses, port).await {
        let to = SocketAddr::new(address, port);
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

/// Which of the first [`MAX_ADDRESSES`] cannot be connected to, and why; all are tried at once.
async fn leading_nowhere(addresses: &[IpAddr], port: u16) -> Vec<(IpAddr, String)> {
    let mut trying = JoinSet::new();
    for (at, address) in addresses.iter().copied().take(MAX_ADDRESSES).enumerate() {
        trying.spawn(async move {
            let why = match timeout(CONNECT, TcpStream::connect((address, port))).await {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer within two seconds".to_owned(),
            };
            Some((at, address, why))
        });
    }
    let mut found: Vec<_> = trying.join_all().await.into_iter().flatten().collect();
    found.sort_unstable_by_key(|(at, ..)| *at);
    let found = found.into_iter().map(|(_, address, why)| (address, why));
    found.collect()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn many_silent_addresses_take_no_longer_than_one() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // Nobody accepts, so that the kernel drops what does not fit into the queue.
        let full = socket.listen(1).unwrap();
        let to = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(CONNECT / 4, TcpStream::connect(to)).await {
            queued.push(stream.unwrap());
        }
        let begun = Instant::now();
        let found = leading_nowhere(&[to.ip(); 3 * MAX_ADDRESSES], to.port()).await;
        assert!(begun.elapsed() < 2 * CONNECT, "{:?}", begun.elapsed());
        let silent = (to.ip(), "no answer within two seconds".to_owned());
        assert_eq!(found, vec![silent; MAX_ADDRESSES]);
    }
}
