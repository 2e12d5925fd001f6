//! Identifiers: the names and addresses being validated (RFC 8555 §7.1.4, RFC 8738), and the Host
//! field that names one.
//!
//! It never guesses: what is neither an LDH name nor a canonical address literal is refused, so
//! that `127.1`, `0x7f000001` and `[::0:1]` are not taken for names and reach nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name in presentation form without its trailing dot (RFC 1035 §2.3.4).
pub const MAX_NAME_BYTES: usize = 253;

/// A DNS name: LDH labels, lower case, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(String);

/// What a CA validates: a DNS name or an IP address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identifier {
    /// `dns` (RFC 8555 §9.7.7).
    Dns(DnsName),
    /// `ip` (RFC 8738 §3).
    Ip(IpAddr),
}

/// What one entry of a site's `identifiers` covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// Exactly this identifier.
    Exact(Identifier),
    /// `*.name`: exactly one label in front of the name.
    Wildcard(DnsName),
}

/// Why text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentifierError {
    /// Nothing there, or longer than [`MAX_NAME_BYTES`].
    Length,
    /// A label that is empty, longer than 63 octets, not LDH, or edged by a hyphen.
    Label,
    /// It ends in a number, so resolvers would take it for an address, but it is not one in
    /// canonical form (dotted decimal, or RFC 5952 in brackets).
    Address,
    /// The port after the colon is not the one that was asked.
    Port,
}

impl DnsName {
    /// Parses an LDH name; upper case is folded, one trailing dot is cut.
    ///
    /// # Errors
    /// [`IdentifierError`]; a name whose last label is a number is [`IdentifierError::Address`].
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return Err(IdentifierError::Length);
        }
        if !text.split('.').all(is_label) {
            return Err(IdentifierError::Label);
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        if is_number(last) {
            return Err(IdentifierError::Address);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name, lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// Resolvers read a last label of digits, or of `0x` and hexadecimal digits, as part of an address.
fn is_number(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Identifier {
    /// Parses a name, a dotted IPv4 address or a bare RFC 5952 IPv6 address, as in configuration
    /// and hooks (certbot gives addresses without brackets).
    ///
    /// # Errors
    /// [`IdentifierError`].
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        if text.contains(':') {
            return canonical_v6(text).map(Self::Ip);
        }
        match DnsName::parse(text) {
            Err(IdentifierError::Address) => canonical_v4(text).map(Self::Ip),
            name => name.map(Self::Dns),
        }
    }

    /// Parses a Host field's value. A port is accepted when it is 80 or `local_port`, the port
    /// that the peer really reached.
    ///
    /// # Errors
    /// [`IdentifierError`]; all of them are the peer's fault.
    pub fn from_host(value: &str, local_port: u16) -> Result<Self, IdentifierError> {
        if let Some(rest) = value.strip_prefix('[') {
            let (literal, after) = rest.split_once(']').ok_or(IdentifierError::Address)?;
            let address = canonical_v6(literal)?;
            return match after.strip_prefix(':') {
                None if after.is_empty() => Ok(Self::Ip(address)),
                Some(port) if is_port(port, local_port) => Ok(Self::Ip(address)),
                _ => Err(IdentifierError::Port),
            };
        }
        let name = match value.split_once(':') {
            None => value,
            Some((name, port)) if is_port(port, local_port) => name,
            Some(_) => return Err(IdentifierError::Port),
        };
        Self::parse(name)
    }

    /// Parses the server name of a TLS-ALPN-01 validation: a name, or the reverse name of an address
    /// (RFC 8738 §6). Other names below `in-addr.arpa` and `ip6.arpa` are nobody's.
    ///
    /// # Errors
    /// [`IdentifierError`]; all of them are the peer's fault.
    pub fn from_server_name(value: &str) -> Result<Self, IdentifierError> {
        let name = DnsName::parse(value)?;
        let v4 = name.0.strip_suffix(".in-addr.arpa").map(reverse_v4);
        let v6 = name.0.strip_suffix(".ip6.arpa").map(reverse_v6);
        match v4.or(v6) {
            Some(address) => address.map(Self::Ip).ok_or(IdentifierError::Address),
            None => Ok(Self::Dns(name)),
        }
    }

    /// As it stands in a URL's authority: addresses of family IPv6 in brackets.
    pub fn to_authority(&self) -> String {
        match self {
            Self::Ip(IpAddr::V6(address)) => format!("[{address}]"),
            other => other.to_string(),
        }
    }
}

fn is_port(text: &str, local_port: u16) -> bool {
    text == "80" || text == local_port.to_string()
}

fn canonical_v4(text: &str) -> Result<IpAddr, IdentifierError> {
    let address: Ipv4Addr = text.parse().map_err(|_| IdentifierError::Address)?;
    Ok(IpAddr::V4(address))
}

fn canonical_v6(text: &str) -> Result<IpAddr, IdentifierError> {
    let address: Ipv6Addr = text.parse().map_err(|_| IdentifierError::Address)?;
    if address.to_string() != text {
        return Err(IdentifierError::Address);
    }
    Ok(IpAddr::V6(address))
}

/// The address of `4.3.2.1`, the front of a reverse name (RFC 1035 §3.5).
fn reverse_v4(labels: &str) -> Option<IpAddr> {
    let labels: Vec<&str> = labels.rsplit('.').collect();
    let address: Ipv4Addr = labels.join(".").parse().ok()?;
    Some(IpAddr::V4(address))
}

/// The address of 32 nibbles, least significant first (RFC 3596 §2.5).
fn reverse_v6(labels: &str) -> Option<IpAddr> {
    let mut bits: u128 = 0;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let nibble = match label.as_bytes() {
            [digit] => char::from(*digit).to_digit(16)?,
            _ => return None,
        };
        bits = bits << 4 | u128::from(nibble);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

impl Pattern {
    /// Parses an entry of a site's `identifiers`.
    ///
    /// # Errors
    /// [`IdentifierError`].
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        match text.strip_prefix("*.") {
            Some(base) => DnsName::parse(base).map(Self::Wildcard),
            None => Identifier::parse(text).map(Self::Exact),
        }
    }

    /// Whether this entry covers `identifier`. A wildcard stands for exactly one label.
    pub fn covers(&self, identifier: &Identifier) -> bool {
        match (self, identifier) {
            (Self::Exact(own), asked) => own == asked,
            (Self::Wildcard(base), Identifier::Dns(name)) => name
                .0
                .split_once('.')
                .is_some_and(|(_, rest)| rest == base.0),
            (Self::Wildcard(_), Identifier::Ip(_)) => false,
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => name.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(identifier) => identifier.fmt(f),
            Self::Wildcard(base) => write!(f, "*.{base}"),
        }
    }
}

impl fmt::Display for IdentifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "a name has 1 to 253 characters",
            Self::Label => "a label holds letters, digits and inner hyphens, 1 to 63 of them",
            Self::Address => {
                "this would be read as an address; write IPv4 as 203.0.113.7 and IPv6 as 2001:db8::1"
            }
            Self::Port => "the port is not the one that was asked",
        })
    }
}

impl std::error::Error for IdentifierError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> Result<String, IdentifierError> {
        Identifier::from_host(value, 8080).map(|identifier| identifier.to_string())
    }

    #[test]
    fn names_are_folded_and_lose_one_dot() {
        for value in [
            "Example.COM",
            "example.com.",
            "example.com:80",
            "EXAMPLE.com.:8080",
        ] {
            assert_eq!(host(value).as_deref(), Ok("example.com"), "{value}");
        }
    }

    #[test]
    fn what_a_resolver_would_read_as_an_address_is_no_name() {
        for value in [
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "1.2.3.4.5",
            "a.0x1f",
            "[::0:1]",
            "[2001:DB8::1]",
            "[2001:db8:0::1]",
            "[fe80::1%25eth0]",
            "[::1",
            "127.0.0.1.",
        ] {
            assert!(host(value).is_err(), "{value}");
        }
    }

    #[test]
    fn canonical_addresses_are_identifiers() {
        assert_eq!(host("203.0.113.7:80").as_deref(), Ok("203.0.113.7"));
        assert_eq!(host("[2001:db8::1]").as_deref(), Ok("2001:db8::1"));
        assert_eq!(host("[2001:db8::1]:8080").as_deref(), Ok("2001:db8::1"));
    }

    #[test]
    fn everything_else_in_a_host_is_refused() {
        let long = format!("{}.test", "a".repeat(64));
        let longer = format!("{}test", "abcdefgh.".repeat(29));
        for value in [
            "",
            ".",
            "..",
            "a..b",
            "example.com..",
            "user@example.com",
            "a/b",
            "a\\b",
            "a,b",
            "a b",
            "a_b.test",
            "-a.test",
            "a-.test",
            "example.com:81",
            "example.com:",
            "example.com:080",
            "ex\u{e4}mple.test",
            "*.example.com",
            "[2001:db8::1]x",
            "2001:db8::1:80:",
            &long,
            &longer,
        ] {
            assert!(host(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let pattern = Pattern::parse("*.example.com").unwrap();
        let covers = |name| pattern.covers(&Identifier::parse(name).unwrap());
        assert!(covers("www.example.com"));
        assert!(!covers("example.com"));
        assert!(!covers("a.b.example.com"));
        assert!(!covers("wwwexample.com"));
        assert!(!covers("203.0.113.7"));
    }
}
