//! `listen` of `[http]` and `[tls]`: addresses with ports, each of which can be bound beside the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use toml::Spanned;

use super::error::{Problem, nearest};
use super::file::{Key, Listen};

/// What stands where nothing is written.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    /// The port that peers come to.
    pub(super) port: u16,
    /// Where diverted peers are handed to, unless `divert_port` says otherwise.
    pub(super) divert_port: u16,
    /// The address that is meant by whoever writes a port alone.
    pub(super) address: &'static str,
}

/// For `[http]`.
pub(super) const HTTP: Usual = Usual {
    port: 80,
    divert_port: 8402,
    address: "[::]",
};
/// For `[tls]`.
pub(super) const TLS: Usual = Usual {
    port: 443,
    divert_port: 8403,
    address: "[::]",
};

/// For `[metrics]`.
pub(super) const METRICS: Usual = Usual {
    port: 9402,
    divert_port: 0,
    address: "127.0.0.1",
};

/// Reads where to listen: the addresses, and the loopback port that peers are diverted to. `None` where
/// nothing says it, which a table that `is_whole` means so.
pub(super) fn listen(
    key: &Key<Listen>,
    divert_port: &Key<i64>,
    is_whole: bool,
    usual: Usual,
    problems: &mut Vec<Problem>,
) -> Option<(Vec<SocketAddr>, Option<u16>)> {
    let Some(key) = key else {
        if is_whole {
            problems.extend(divert_port.as_ref().map(unused));
        }
        return None;
    };
    let before = problems.len();
    let port = match divert_port {
        None => usual.divert_port,
        Some(port) => match u16::try_from(*port.get_ref()) {
            Ok(port) if port > 0 => port,
            _ => {
                let message = format!("there is no port {}", port.get_ref());
                problems.push(Problem::new(port.span(), message).fix("write 1 to 65535"));
                usual.divert_port
            }
        },
    };
    Some(match key.get_ref() {
        Listen::Word(word) if word == "divert" => {
            // Loopback alone: from outside nobody reaches the port by its own number.
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let addresses = loopback.map(|address| SocketAddr::new(address, port));
            (addresses.into(), Some(port))
        }
        Listen::Word(word) => {
            let message = format!("`{word}` is not where to listen");
            let fix = match with_port(word, usual) {
                fix if nearest(word, ["divert"]).is_some() => {
                    format!("write \"divert\", or addresses: {fix}")
                }
                fix => format!("{fix} in brackets, or \"divert\""),
            };
            problems.push(Problem::new(key.span(), message).fix(fix));
            (Vec::new(), None)
        }
        Listen::Addresses(entries) => {
            if problems.len() == before {
                problems.extend(divert_port.as_ref().map(unused));
            }
            (addresses(entries, usual, problems), None)
        }
    })
}

/// A port to divert to where nothing is diverted.
fn unused(divert_port: &Spanned<i64>) -> Problem {
    let message = "`divert_port` is for listen = \"divert\" alone";
    Problem::new(divert_port.span(), message).fix("leave it out, or write listen = \"divert\"")
}

/// The addresses of an array, no two of which overlap.
pub(super) fn addresses(
    entries: &[Spanned<String>],
    usual: Usual,
    problems: &mut Vec<Problem>,
) -> Vec<SocketAddr> {
    let mut listeners: Vec<(SocketAddr, Range<usize>)> = Vec::new();
    for entry in entries {
        let address = match entry.get_ref().parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => {
                let message = format!("`{}` is not an address with a port", entry.get_ref());
                problems.push(
                    Problem::new(entry.span(), message).fix(with_port(entry.get_ref(), usual)),
                );
                continue;
            }
        };
        if let IpAddr::V6(v6) = address.ip()
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let fix = format!("write \"{v4}:{}\"", address.port());
            problems.push(Problem::new(entry.span(), "an IPv4 address written as IPv6").fix(fix));
            continue;
        }
        if let Some((other, at)) = listeners.iter().find(|(other, _)| overlap(*other, address)) {
            let message = if *other == address {
                format!("`{address}` stands here twice")
            } else {
                format!("`{address}` and `{other}` are the same port of the same address")
            };
            let note = "[::] listens for IPv4 too, and an unspecified address for every other";
            let mut problem = Problem::new(entry.span(), message)
                .fix("leave one of them out")
                .also(at.clone(), "the other one");
            if *other != address {
                problem = problem.note(note);
            }
            problems.push(problem);
            continue;
        }
        listeners.push((address, entry.span()));
    }
    listeners.into_iter().map(|(address, _)| address).collect()
}

/// Whether the second of two listeners could not be bound. Port 0 is a new port each time.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_in = |wide: SocketAddr, narrow: SocketAddr| match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    a.port() == b.port() && a.port() != 0 && (a == b || takes_in(a, b) || takes_in(b, a))
}

fn with_port(text: &str, usual: Usual) -> String {
    let text = text.trim();
    let port = text.strip_prefix("*:").or(text.strip_prefix(':'));
    if text == "divert" {
        "write listen = \"divert\", without brackets: it takes the place of all addresses"
            .to_owned()
    } else if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        format!("write \"{}\"", SocketAddr::new(address, usual.port))
    } else if let Ok(port) = port.unwrap_or(text).parse::<u16>() {
        format!("write \"{}:{port}\"", usual.address)
    } else {
        let (any, port) = (usual.address, usual.port);
        match any {
            "[::]" => format!("write one such as \"{any}:{port}\" or \"192.0.2.1:{port}\""),
            _ => format!("write one such as \"{any}:{port}\""),
        }
    }
}
