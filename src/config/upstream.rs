//! Upstreams: `http://`, an address, perhaps a port. Nothing else.
//!
//! No names: they would have to be looked up while a validation waits, and whoever answers that
//! look-up would choose where the request goes. No `https`: HTTP-01 is plain HTTP (RFC 8555 §8.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of an upstream that names none: where a client's own HTTP-01 server stands.
const DEFAULT_PORT: u16 = 80;

/// Why text is not an upstream, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) fix: String,
    pub(super) note: Option<&'static str>,
}

impl Wrong {
    fn new(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: fix.into(),
            note: None,
        }
    }

    fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }
}

/// Reads an upstream; `listen` are the addresses that would be a loop.
///
/// # Errors
/// [`Wrong`].
pub(super) fn parse(text: &str, listen: &[SocketAddr]) -> Result<SocketAddr, Wrong> {
    let authority = authority(text)?;
    let (host, port) = split(authority)?;
    let address: IpAddr = match host.parse() {
        Ok(address) => address,
        Err(_) => {
            let fix = "write the address: \"http://10.0.0.5\" or \"http://[2001:db8::5]:8080\"";
            return Err(Wrong::new(format!("`{host}` is not an address"), fix).note(
                "a name would be looked up while a validation waits, and whoever answers that would choose the upstream",
            ));
        }
    };
    let address = address.to_canonical();
    if let Some(why) = unfit(address) {
        return Err(Wrong::new(
            format!("`{address}` is {why}"),
            "write the inner host's own address",
        ));
    }
    let upstream = SocketAddr::new(address, port);
    if let Some(own) = listen.iter().find(|own| is_own(**own, upstream)) {
        return Err(Wrong::new(
            format!("`{upstream}` is where acmegate listens itself ({own})"),
            "write the address or port that the ACME client listens on",
        ));
    }
    Ok(upstream)
}

fn authority(text: &str) -> Result<&str, Wrong> {
    let authority = match text.split_once("://") {
        Some(("http", authority)) => authority,
        Some(("https", authority)) => {
            return Err(Wrong::new(
                "an upstream speaks http, not https",
                format!("write \"http://{authority}\""),
            )
            .note(
                "the validation itself is plain HTTP, and the answer is public (RFC 8555 §8.3)",
            ));
        }
        Some((scheme, _)) => {
            let message = format!("an upstream speaks http, not {scheme}");
            return Err(Wrong::new(message, "write \"http://10.0.0.5\""));
        }
        None => {
            let message = "an upstream starts with http://";
            return Err(Wrong::new(message, format!("write \"http://{text}\"")));
        }
    };
    if let Some(at) = authority.find(['/', '?', '#', '\\']) {
        let bare = &authority[..at];
        let message = format!("`{}` has no place in an upstream", &authority[at..]);
        return Err(Wrong::new(message, format!("write \"http://{bare}\""))
            .note("the path is always that of the challenge"));
    }
    if let Some((_, bare)) = authority.rsplit_once('@') {
        let message = "an upstream has no user name";
        return Err(Wrong::new(message, format!("write \"http://{bare}\"")));
    }
    Ok(authority)
}

/// Host and port. Brackets are demanded for IPv6, where a port could not be told from a group.
fn split(authority: &str) -> Result<(&str, u16), Wrong> {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(Wrong::new(
                "a bracket without its end",
                "write \"http://[2001:db8::5]\"",
            ));
        };
        return match after.strip_prefix(':') {
            _ if host.parse::<Ipv6Addr>().is_err() => Err(Wrong::new(
                format!("`{host}` is not an IPv6 address"),
                "write one such as \"http://[2001:db8::5]\"",
            )),
            None if after.is_empty() => Ok((host, DEFAULT_PORT)),
            None => Err(Wrong::new(
                format!("`{after}` has no place in an upstream"),
                format!("write \"http://[{host}]\""),
            )),
            Some(digits) => Ok((host, port(digits)?)),
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        let message = "an IPv6 address in a URL stands in brackets";
        return Err(Wrong::new(
            message,
            format!("write \"http://[{authority}]\""),
        ));
    }
    match authority.split_once(':') {
        None => Ok((authority, DEFAULT_PORT)),
        Some((host, digits)) => Ok((host, port(digits)?)),
    }
}

fn port(digits: &str) -> Result<u16, Wrong> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if port > 0 && is_number => Ok(port),
        _ => Err(Wrong::new(
            format!("there is no port `{digits}`"),
            "write 1 to 65535",
        )),
    }
}

/// Addresses that are no host's.
pub(super) fn unfit(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("no host's address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("link-local, which says nothing without an interface")
        }
        _ => None,
    }
}

/// Whether a listener of ours would take the connection. A listener on every address also has those
/// that are not known here; the loopback ones are.
pub(super) fn is_own(own: SocketAddr, upstream: SocketAddr) -> bool {
    let takes_all = match own.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && upstream.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    own.port() == upstream.port()
        && (own.ip() == upstream.ip() || takes_all && is_loopback(upstream.ip()))
}

/// Whether nothing but this host has the address.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_beside(text: &str, listen: &[&str]) -> Result<String, String> {
        let listen: Vec<SocketAddr> = listen.iter().map(|own| own.parse().unwrap()).collect();
        parse(text, &listen)
            .map(|upstream| upstream.to_string())
            .map_err(|wrong| format!("{}; {}", wrong.message, wrong.fix))
    }

    #[test]
    fn an_address_and_perhaps_a_port_is_an_upstream() {
        for (text, upstream) in [
            ("http://10.0.0.5", "10.0.0.5:80"),
            ("http://10.0.0.5:8080", "10.0.0.5:8080"),
            ("http://[2001:db8::5]", "[2001:db8::5]:80"),
            ("http://[2001:db8::5]:8080", "[2001:db8::5]:8080"),
            ("http://[::ffff:10.0.0.5]", "10.0.0.5:80"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ] {
            assert_eq!(
                parse_beside(text, &["[::]:80"]).as_deref(),
                Ok(upstream),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_else_is_refused_with_what_to_write() {
        for (text, fix) in [
            ("10.0.0.5", "write \"http://10.0.0.5\""),
            ("https://10.0.0.5", "write \"http://10.0.0.5\""),
            ("ftp://10.0.0.5", "write \"http://10.0.0.5\""),
            ("HTTP://10.0.0.5", "write \"http://10.0.0.5\""),
            ("http://10.0.0.5/", "write \"http://10.0.0.5\""),
            ("http://10.0.0.5:81/x?y", "write \"http://10.0.0.5:81\""),
            ("http://10.0.0.5?y", "write \"http://10.0.0.5\""),
            ("http://me:pw@10.0.0.5", "write \"http://10.0.0.5\""),
            ("http://2001:db8::5", "write \"http://[2001:db8::5]\""),
            ("http://[2001:db8::5", "write \"http://[2001:db8::5]\""),
            ("http://[2001:db8::5]80", "write \"http://[2001:db8::5]\""),
            (
                "http://[10.0.0.5]",
                "write one such as \"http://[2001:db8::5]\"",
            ),
            ("http://10.0.0.5:", "write 1 to 65535"),
            ("http://10.0.0.5:0", "write 1 to 65535"),
            ("http://10.0.0.5:+1", "write 1 to 65535"),
            ("http://10.0.0.5:65536", "write 1 to 65535"),
            ("http://0.0.0.0", "write the inner host's own address"),
            ("http://[::]", "write the inner host's own address"),
            ("http://224.0.0.1", "write the inner host's own address"),
            ("http://[ff02::1]", "write the inner host's own address"),
            (
                "http://255.255.255.255",
                "write the inner host's own address",
            ),
            ("http://[fe80::1]", "write the inner host's own address"),
        ] {
            let error = parse_beside(text, &[]).unwrap_err();
            assert!(error.ends_with(&format!("; {fix}")), "{text}: {error}");
        }
        for name in [
            "http://inner.example",
            "http://",
            "http://127.1",
            "http://localhost:80",
        ] {
            assert!(
                parse(name, &[]).unwrap_err().note.unwrap().contains("name"),
                "{name}"
            );
        }
    }

    #[test]
    fn acmegate_is_not_its_own_upstream() {
        for (upstream, listen, is_loop) in [
            ("http://127.0.0.1", "[::]:80", true),
            ("http://[::1]", "[::]:80", true),
            ("http://127.0.0.1", "0.0.0.0:80", true),
            ("http://[::1]", "0.0.0.0:80", false),
            ("http://192.0.2.1:81", "192.0.2.1:81", true),
            ("http://192.0.2.2:81", "192.0.2.1:81", false),
            ("http://127.0.0.1:81", "[::]:80", false),
        ] {
            assert_eq!(
                parse_beside(upstream, &[listen]).is_err(),
                is_loop,
                "{upstream} {listen}"
            );
        }
    }
}
