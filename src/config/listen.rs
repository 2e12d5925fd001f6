//! `[http] listen`: addresses with ports, each of which can be bound beside the others.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use toml::Spanned;

use super::error::Problem;

/// Reads the addresses to listen on.
pub(super) fn listen(entries: &[Spanned<String>], problems: &mut Vec<Problem>) -> Vec<SocketAddr> {
    let mut listeners: Vec<(SocketAddr, Range<usize>)> = Vec::new();
    for entry in entries {
        let address = match entry.get_ref().parse::<SocketAddr>() {
            Ok(address) => address,
            Err(_) => {
                let message = format!("`{}` is not an address with a port", entry.get_ref());
                problems.push(Problem::new(entry.span(), message).fix(with_port(entry.get_ref())));
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
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_in = |wide: SocketAddr, narrow: SocketAddr| match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    a.port() == b.port() && a.port() != 0 && (a == b || takes_in(a, b) || takes_in(b, a))
}

fn with_port(text: &str) -> String {
    let text = text.trim();
    let port = text.strip_prefix("*:").or(text.strip_prefix(':'));
    if text == "divert" {
        "not in this version; write \"[::]:80\"".to_owned()
    } else if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        format!("write \"{}\"", SocketAddr::new(address, 80))
    } else if let Ok(port) = port.unwrap_or(text).parse::<u16>() {
        format!("write \"[::]:{port}\"")
    } else {
        "write one such as \"[::]:80\" or \"192.0.2.1:80\"".to_owned()
    }
}
