//! Who has the ports that validations come to: the gate in both families, or somebody in its place.
//!
//! It reads the tables of listening sockets and asks the daemon's public status; it connects to nobody and
//! changes nothing. Of a daemon that does not run there is one finding, with what keeps it away where that can be seen.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use super::unit::by_the_unit;
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::status::Status;
use crate::daemon::port::{Listening, listening_sockets};
use crate::gate::challenge::ChallengeType;
use crate::gate::lease::Family;
use crate::gate::site::site_for;

crate::findings! { Listener:
    /// The gate listens where validations come.
    GATE_LISTENS = "gate-listens";
    /// Windows only: somebody else answers, as configured.
    OTHER_ANSWERS = "other-answers";
    /// The daemon does not run, and somebody has its port.
    PORT_TAKEN = "port-taken";
    /// The daemon does not run, and its unit hides a webroot that it must open.
    UNIT_HIDES_WEBROOT = "unit-hides-webroot";
    /// The daemon does not run, and nothing is seen that keeps it away.
    NOT_RUNNING = "not-running";
    /// Somebody else listens on the gate's port beside it.
    SHADOWED = "shadowed";
    /// The gate listens elsewhere than the configuration says.
    LISTENS_ELSEWHERE = "listens-elsewhere";
    /// One address family has no listener although this host has it.
    ONE_FAMILY = "one-family";
    /// The gate listens, and on another port than validations come to.
    OTHER_PORT = "other-port";
    /// Nobody listens there, and the gate is not to.
    NOBODY_LISTENS = "nobody-listens";
}

/// How long looking may take that needs an answer of the local kernel alone.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was seen of the host.
struct Seen {
    /// What the daemon tells; `None` where none runs.
    status: Option<Status>,
    /// The front's process, as far as it could be told.
    front: Option<u32>,
}

/// Looks at every port that the case's names are validated by.
pub async fn examine(case: &Case) -> Exam {
    let case = case.clone();
    let looked = tokio::task::spawn_blocking(move || look(&case)).await;
    looked.unwrap_or_else(|_| {
        let mut exam = Exam::of(Area::Listener);
        exam.not_covered
            .push("who listens: looking ended early".to_owned());
        exam
    })
}

fn look(case: &Case) -> Exam {
    let mut exam = Exam::of(Area::Listener);
    let status = match client::status(&case.runtime_dir) {
        Ok(status) => Some(status),
        Err(ClientError::NotRunning(_)) => None,
        Err(error) => {
            exam.not_covered
                .push(format!("who listens for the gate: {error}"));
            return exam;
        }
    };
    let front = status
        .as_ref()
        .and_then(|_| client::daemon_pid(&case.runtime_dir).ok().flatten());
    let seen = Seen { status, front };
    for challenge in challenges(case) {
        exam.looked_at
            .push(format!("who listens for {challenge}, IPv4 and IPv6"));
        match &seen.status {
            Some(status) => exam
                .findings
                .extend(at(challenge, &case.config, status, seen.front)),
            // The other port has no other cause.
            None if exam.findings.is_empty() => {
                exam.findings.extend(taken(challenge, &case.config))
            }
            None => {}
        }
    }
    if seen.status.is_none() && exam.findings.is_empty() {
        let hidden = hidden_by_the_unit(&case.config);
        exam.findings.push(hidden.unwrap_or_else(not_running));
    }
    if !case.is_root {
        exam.not_covered.push(
            "which processes other users' sockets belong to: run as root to have them named"
                .to_owned(),
        );
    }
    exam
}

/// The challenges that the names are validated by, http-01 first; that one if no site says.
pub(super) fn challenges(case: &Case) -> Vec<ChallengeType> {
    let sites = case.config.gate_sites();
    let mut found: Vec<ChallengeType> = case
        .names
        .iter()
        .filter_map(|name| site_for(&sites, name))
        .filter_map(|(id, _)| case.config.sites.get(id.0))
        .flat_map(|site| site.challenges.clone())
        .collect();
    if found.is_empty() {
        found = case
            .config
            .sites
            .iter()
            .flat_map(|site| site.challenges.clone())
            .collect();
    }
    if found.is_empty() {
        found.push(ChallengeType::Http01);
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Where the gate is to listen for a challenge, and the loopback port that peers are diverted to.
pub(super) fn wanted(config: &Config, challenge: ChallengeType) -> (&[SocketAddr], Option<u16>) {
    match challenge {
        ChallengeType::Http01 => (&config.http.listen, config.http.divert),
        ChallengeType::TlsAlpn01 => (&config.tls.listen, config.tls.divert),
    }
}

/// The section that says where.
fn section(challenge: ChallengeType) -> &'static str {
    match challenge {
        ChallengeType::Http01 => "[http]",
        ChallengeType::TlsAlpn01 => "[tls]",
    }
}

fn at(
    challenge: ChallengeType,
    config: &Config,
    status: &Status,
    front: Option<u32>,
) -> Vec<Finding> {
    let (wanted, divert) = wanted(config, challenge);
    let port = challenge.port();
    let section = section(challenge);
    if wanted.is_empty() {
        return vec![windows_only(challenge)];
    }
    let own: Vec<SocketAddr> = status
        .listeners
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    let missing: Vec<String> = wanted
        .iter()
        .filter(|address| !own.iter().any(|own| serves(*own, **address)))
        .map(ToString::to_string)
        .collect();
    let mut findings = Vec::new();
    if missing.len() == wanted.len() {
        findings.push(
            Finding::new(
                LISTENS_ELSEWHERE,
                Severity::Fault,
                format!(
                    "the running gate does not listen on {}, where the configuration has it",
                    missing.join(", ")
                ),
            )
            .seen(format!(
                "it listens on {}",
                match own.as_slice() {
                    [] => "nothing".to_owned(),
                    own => joined(own),
                }
            ))
            .remedy("listeners change by a restart: `systemctl restart acmegate`"),
        );
        return findings;
    }
    if let (Some(_), Some(first)) = (divert, wanted.first()) {
        // Whoever has the port itself keeps it; what is diverted comes to the loopback port.
        let to = joined(wanted);
        findings.extend(others(first.port(), &own, front).map(|(at, who)| {
            shadowed(at, &who, Severity::Fault).remedy(format!(
                "give the gate another port: `divert_port` in {section}"
            ))
        }));
        if findings.is_empty() {
            findings.push(Finding::new(
                GATE_LISTENS,
                Severity::Fine,
                format!("the gate listens on {to}, where peers of port {port} are diverted to"),
            ));
        }
        return findings;
    }
    let here: Vec<SocketAddr> = own
        .iter()
        .copied()
        .filter(|own| own.port() == port)
        .collect();
    if here.is_empty() {
        let mut finding = Finding::new(
            OTHER_PORT,
            Severity::Doubt,
            format!("validations come to port {port}, and the gate listens on {}", joined(&own)),
        )
        .remedy(format!(
            "something must hand port {port} on to it, such as a balancer or DNAT; else write `listen` with port {port} in {section}"
        ));
        for (at, who) in listening_sockets(port) {
            finding = finding.seen(format!("{who} listens on {at}"));
        }
        return vec![finding];
    }
    for (at, who) in others(port, &own, front) {
        let lacks = !here
            .iter()
            .any(|own| own.is_ipv4() == at.is_ipv4() || is_both(*own));
        let severity = match at.ip().is_unspecified() || lacks {
            true => Severity::Fault,
            false => Severity::Doubt,
        };
        findings.push(shadowed(at, &who, severity).remedy(format!(
            "move it behind the gate (another port, and `answer = {{ upstream = … }}`), or let the gate share the port: `listen = \"divert\"` in {section}"
        )));
    }
    if findings.is_empty() {
        findings.extend(lacking_family(port, &here, section));
    }
    if findings.is_empty() {
        findings.push(Finding::new(
            GATE_LISTENS,
            Severity::Fine,
            format!("the gate listens on {}", joined(&here)),
        ));
    }
    findings
}

/// Who keeps a gate that is not there from its port.
fn taken(challenge: ChallengeType, config: &Config) -> Option<Finding> {
    let (wanted, divert) = wanted(config, challenge);
    let section = section(challenge);
    let (at, who, address) = wanted.iter().find_map(|address| {
        let mut sockets = listening_sockets(address.port()).into_iter();
        let (at, who) = sockets.find(|(at, _)| conflicts(*at, *address))?;
        Some((at, who, address))
    })?;
    let finding = Finding::new(
        PORT_TAKEN,
        Severity::Fault,
        format!("acmegate does not run, and its port {} is taken", at.port()),
    )
    .seen(format!(
        "{who} listens on {at}; the gate is to listen on {address}"
    ));
    Some(finding.remedy(match divert {
        Some(_) => format!("give connections another port to be handed to: `divert_port` in {section}, then `systemctl start acmegate`"),
        None => format!(
            "move it behind the gate (another port, and `answer = {{ upstream = … }}`), or let the gate share the port: `listen = \"divert\"` in {section}; then `systemctl start acmegate`"
        ),
    }))
}

fn hidden_by_the_unit(config: &Config) -> Option<Finding> {
    let (seen, way_out) = by_the_unit(config)?;
    let finding = Finding::new(
        UNIT_HIDES_WEBROOT,
        Severity::Fault,
        "acmegate does not run, and its unit hides a webroot that it must open",
    )
    .seen(seen)
    .remedy(way_out);
    Some(finding)
}

fn not_running() -> Finding {
    Finding::new(
        NOT_RUNNING,
        Severity::Fault,
        "acmegate does not run: no window opens and no challenge is answered",
    )
    .seen("nobody serves its sockets")
    .remedy("`systemctl enable --now acmegate`; `journalctl -u acmegate` says why it stopped")
}

/// Nothing of the gate's listens, by configuration.
fn windows_only(challenge: ChallengeType) -> Finding {
    let port = challenge.port();
    let sockets: Vec<(SocketAddr, Listening)> = listening_sockets(port)
        .into_iter()
        .filter(|(at, _)| !at.ip().is_loopback())
        .collect();
    if sockets.is_empty() {
        return Finding::new(
            NOBODY_LISTENS,
            Severity::Doubt,
            format!("nobody listens on port {port} now"),
        )
        .seen("acmegate is for windows only (`listen = []`)")
        .remedy(format!(
            "well if the ACME client itself listens while it asks (standalone); else start what is to answer {challenge}"
        ));
    }
    let words: Vec<String> = sockets
        .iter()
        .map(|(at, who)| format!("{who} on {at}"))
        .collect();
    Finding::new(
        OTHER_ANSWERS,
        Severity::Fine,
        format!("port {port} is answered by {}", words.join(", ")),
    )
}

/// Sockets on `port` that are not the gate's, loopback ones left out unless the gate's are there too.
fn others(
    port: u16,
    own: &[SocketAddr],
    front: Option<u32>,
) -> impl Iterator<Item = (SocketAddr, Listening)> {
    let is_loopback = own
        .iter()
        .any(|own| own.port() == port && own.ip().is_loopback());
    let own = own.to_vec();
    listening_sockets(port)
        .into_iter()
        .filter(move |(at, who)| {
            let is_gate = match front {
                Some(front) if !who.holders.is_empty() => {
                    who.holders.iter().any(|holder| holder.pid == front)
                }
                // Whose it is cannot be seen: what the gate says is its own is its own.
                _ => own.contains(at) || own.iter().any(|own| serves(*own, *at)),
            };
            !is_gate && (is_loopback || !at.ip().is_loopback())
        })
}

fn shadowed(at: SocketAddr, who: &Listening, severity: Severity) -> Finding {
    let whose = match at.ip() {
        address if address.is_unspecified() && address.is_ipv6() => "all of IPv6".to_owned(),
        address if address.is_unspecified() => "all of IPv4".to_owned(),
        address => address.to_string(),
    };
    Finding::new(
        SHADOWED,
        severity,
        format!("{who} answers port {} of {whose}, not the gate", at.port()),
    )
    .seen(format!("{who} listens on {at}"))
}

/// A family that this host has and that nobody serves.
fn lacking_family(port: u16, here: &[SocketAddr], section: &str) -> Option<Finding> {
    let lacking = Family::ALL.into_iter().find(|family| {
        let is_served = here
            .iter()
            .any(|own| Family::of(own.ip()) == *family || is_both(*own));
        !is_served && own_address(*family).is_some()
    })?;
    let word = match lacking {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let address = own_address(lacking)?;
    Some(
        Finding::new(
            ONE_FAMILY,
            Severity::Doubt,
            format!("nobody answers {word} on port {port}"),
        )
        .seen(format!(
            "the gate listens on {}, and this host has {address}",
            joined(here)
        ))
        .remedy(format!(
            "`listen = [\"[::]:{port}\"]` in {section} serves both families; or publish no {} record",
            match lacking {
                Family::V4 => "A",
                Family::V6 => "AAAA",
            }
        )),
    )
}

/// Whether a listener is one for both families: ours on `[::]`, unless IPv4 is refused there. Silence is
/// a firewall's, which may keep this host from itself and nobody else from it.
fn is_both(own: SocketAddr) -> bool {
    own.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        && TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, own.port()).into(), AT_ONCE)
            .map_or_else(
                |error| error.kind() != ErrorKind::ConnectionRefused,
                |_| true,
            )
}

/// Whether what listens on `own` is what was wanted: where there is no IPv6, `[::]` becomes `0.0.0.0`.
fn serves(own: SocketAddr, wanted: SocketAddr) -> bool {
    let is_any = own.ip().is_unspecified() && wanted.ip().is_unspecified();
    own == wanted || own.port() == wanted.port() && is_any && own.is_ipv4()
}

/// Whether a socket that listens on `at` keeps another from `wanted` (ip(7), ipv6(7)).
fn conflicts(at: SocketAddr, wanted: SocketAddr) -> bool {
    let is_both = |address: SocketAddr| address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    at.ip() == wanted.ip()
        || at.ip().is_unspecified() && (at.is_ipv4() == wanted.is_ipv4() || is_both(at))
        || wanted.ip().is_unspecified() && (at.is_ipv4() == wanted.is_ipv4() || is_both(wanted))
}

/// The address by which this host would go out; nothing is sent.
pub(super) fn own_address(family: Family) -> Option<IpAddr> {
    let (from, to): (SocketAddr, SocketAddr) = match family {
        Family::V4 => (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(198, 51, 100, 1), 9).into(),
        ),
        Family::V6 => (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        ),
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

fn joined(addresses: &[SocketAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_whom_from_a_port() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let conflict = |at: &str, wanted: &str| conflicts(address(at), address(wanted));
        assert!(conflict("0.0.0.0:80", "[::]:80"));
        assert!(conflict("[::]:80", "0.0.0.0:80"));
        assert!(conflict("192.0.2.1:80", "[::]:80"));
        assert!(conflict("192.0.2.1:80", "0.0.0.0:80"));
        assert!(conflict("[2001:db8::1]:80", "[::]:80"));
        assert!(!conflict("192.0.2.1:80", "192.0.2.2:80"));
        assert!(!conflict("[2001:db8::1]:80", "0.0.0.0:80"));
        assert!(!conflict("0.0.0.0:80", "[2001:db8::1]:80"));
    }

    #[test]
    fn without_ipv6_any_address_of_ipv4_will_do() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(serves(address("0.0.0.0:80"), address("[::]:80")));
        assert!(!serves(address("[::]:80"), address("0.0.0.0:80")));
        assert!(!serves(address("0.0.0.0:81"), address("[::]:80")));
    }
}
