//! Whom a reverse proxy speaks for, by its Forwarded (RFC 7239) and X-Forwarded-For fields.
//!
//! What it is for: finding the right-most address that is no proxy's own in the fields of a peer that
//! is configured to be believed. What it never does: decide who is believed, or look further to the
//! left than it must. Every proxy adds on the right what it saw itself; what stands further to the
//! left came with the request and is whatever the peer made up.
//!
//! A proxy writes one kind of field and often passes on the other as it came, so that with both there
//! it is not known whose word each is. They must agree then: who forges the other one either says the
//! same or is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::gate::allow_list::AllowList;

/// Fields that do not say for whom the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold;

/// The real peer, never IPv4-mapped, by the field lines of a well-formed head, of which those whom
/// `proxies` holds are believed.
///
/// # Errors
/// [`Untold`]: there is no such field, it names proxies alone, what a believed proxy wrote is
/// malformed, `unknown` or a made-up word (RFC 7239 §6.3), or both kinds are there and differ.
pub fn real_peer(fields: &[u8], proxies: &AllowList) -> Result<IpAddr, Untold> {
    let fields = str::from_utf8(fields).map_err(|_| Untold)?;
    let values = |wanted: &'static str| {
        fields.rsplit("\r\n").filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then_some(value)
        })
    };
    let mut forwarded = values("forwarded").peekable();
    let mut listed = values("x-forwarded-for").peekable();
    match (forwarded.peek().is_some(), listed.peek().is_some()) {
        (true, false) => by_forwarded(forwarded, proxies),
        (false, true) => by_list(listed, proxies),
        (true, true) => {
            let real = by_forwarded(forwarded, proxies)?;
            match by_list(listed, proxies)? == real {
                true => Ok(real),
                false => Err(Untold),
            }
        }
        (false, false) => Err(Untold),
    }
}

/// By values of X-Forwarded-For, the last line first.
fn by_list<'field>(
    values: impl Iterator<Item = &'field str>,
    proxies: &AllowList,
) -> Result<IpAddr, Untold> {
    for entry in values.flat_map(|value| value.rsplit(',')) {
        let address = listed_address(entry.trim_ascii()).ok_or(Untold)?;
        if !proxies.contains(address) {
            return Ok(address);
        }
    }
    Err(Untold)
}

/// An address as proxies list it: with a port or without, IPv6 in brackets or plain.
fn listed_address(entry: &str) -> Option<IpAddr> {
    let address = match entry.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) => node_address(entry),
    };
    address.map(|address| address.to_canonical())
}

/// By values of Forwarded, the last line first.
fn by_forwarded<'field>(
    values: impl Iterator<Item = &'field str>,
    proxies: &AllowList,
) -> Result<IpAddr, Untold> {
    for value in values {
        // From its beginning, because of what quotes enclose. Who opens a quote to the left of what
        // the proxy appends leaves a quote without its end, or a text right behind one.
        let mut hops = Vec::new();
        let mut rest = value;
        loop {
            let (hop, after) = element(rest)?;
            hops.push(hop);
            match after {
                Some(after) => rest = after,
                None => break,
            }
        }
        for hop in hops.into_iter().rev() {
            let address = hop.ok_or(Untold)?;
            if !proxies.contains(address) {
                return Ok(address);
            }
        }
    }
    Err(Untold)
}

/// One element of a Forwarded value (RFC 7239 §4): the address of its `for`, if it has one that is an
/// address, and what stands behind the comma, if there is one.
fn element(text: &str) -> Result<(Option<IpAddr>, Option<&str>), Untold> {
    let mut node = None;
    let mut has_node = false;
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=').ok_or(Untold)?;
        let name = name.trim_ascii_start();
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(Untold);
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("for") {
            // RFC 7239 §4: no parameter stands twice in an element.
            if std::mem::replace(&mut has_node, true) {
                return Err(Untold);
            }
            node = node_address(&value);
        }
        let after = after.trim_ascii_start();
        match after.as_bytes().first() {
            None => return Ok((node, None)),
            Some(b',') => return Ok((node, Some(&after[1..]))),
            Some(b';') => rest = &after[1..],
            Some(_) => return Err(Untold),
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> Result<(String, &str), Untold> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .bytes()
            .position(|byte| !is_token(byte))
            .unwrap_or(text.len());
        return match end {
            0 => Err(Untold),
            end => Ok((text[..end].to_owned(), &text[end..])),
        };
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next().ok_or(Untold)?.1),
            letter => value.push(letter),
        }
    }
    Err(Untold)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A node (RFC 7239 §6): IPv4 or bracketed IPv6, with a port or a made-up one, or without.
fn node_address(node: &str) -> Option<IpAddr> {
    if let Ok(end) = node.parse::<SocketAddr>()
        && !node.contains('%')
    {
        return Some(end.ip().to_canonical());
    }
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let address: IpAddr = host.parse::<Ipv6Addr>().ok()?.into();
            (
                address,
                port.strip_prefix(':').or(port.is_empty().then_some("_"))?,
            )
        }
        None => {
            let (host, port) = node.split_once(':').unwrap_or((node, "_"));
            (host.parse::<Ipv4Addr>().ok()?.into(), port)
        }
    };
    port.starts_with('_').then(|| host.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fields: &[&str]) -> Option<String> {
        let proxies = AllowList::new(
            ["10.0.0.0/24", "2001:db8:1::/48"].map(|prefix| prefix.parse().unwrap()),
        );
        let mut lines = fields.join("\r\n");
        lines.push_str("\r\n\r\n");
        real_peer(lines.as_bytes(), &proxies)
            .ok()
            .map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_address_that_is_no_proxys_is_the_peer() {
        for (fields, real) in [
            (&["X-Forwarded-For: 192.0.2.1"][..], "192.0.2.1"),
            (&["x-forwarded-for:192.0.2.1"], "192.0.2.1"),
            (
                &["X-Forwarded-For: 192.0.2.1, 10.0.0.2,10.0.0.3"],
                "192.0.2.1",
            ),
            (&["X-Forwarded-For: 192.0.2.66, 192.0.2.1"], "192.0.2.1"),
            (&["X-Forwarded-For: made up, 192.0.2.1"], "192.0.2.1"),
            (&["X-Forwarded-For: , 192.0.2.1"], "192.0.2.1"),
            (
                &[
                    "X-Forwarded-For: 192.0.2.66",
                    "A: b",
                    "X-Forwarded-For: 192.0.2.1",
                ],
                "192.0.2.1",
            ),
            (
                &["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.2"],
                "192.0.2.1",
            ),
            (&["X-Forwarded-For: 192.0.2.1:4711"], "192.0.2.1"),
            (&["X-Forwarded-For: 2001:db8::1"], "2001:db8::1"),
            (&["X-Forwarded-For: [2001:db8::1]"], "2001:db8::1"),
            (&["X-Forwarded-For: [2001:db8::1]:4711"], "2001:db8::1"),
            (&["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1"),
            (
                &["X-Forwarded-For: 192.0.2.1, ::ffff:10.0.0.2"],
                "192.0.2.1",
            ),
            (&["Forwarded: for=192.0.2.1"], "192.0.2.1"),
            (
                &["forwarded: FOR=192.0.2.1;proto=http;by=10.0.0.2"],
                "192.0.2.1",
            ),
            (
                &["Forwarded: by=_gate;for=\"192.0.2.1:80\" ; host=a.test"],
                "192.0.2.1",
            ),
            (&["Forwarded: for=\"[2001:db8::1]:_x\""], "2001:db8::1"),
            (&["Forwarded: for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["Forwarded: for=\"192.0.2\\.1\""], "192.0.2.1"),
            (
                &["Forwarded: for=unknown, for=192.0.2.1,for=10.0.0.2"],
                "192.0.2.1",
            ),
            (
                &["Forwarded: for=\"a, for=10.0.0.2\", for=192.0.2.1"],
                "192.0.2.1",
            ),
            (
                &["Forwarded: for=\"", "Forwarded: for=192.0.2.1"],
                "192.0.2.1",
            ),
            (
                &[
                    "Forwarded: for=192.0.2.1",
                    "X-Forwarded-For: 192.0.2.66, 192.0.2.1",
                ],
                "192.0.2.1",
            ),
        ] {
            assert_eq!(told(fields).as_deref(), Some(real), "{fields:?}");
        }
    }

    #[test]
    fn what_does_not_say_it_is_refused() {
        for fields in [
            &["Host: a.test"][..],
            &["X-Real-IP: 192.0.2.1"],
            &["X-Forwarded-For:"],
            &["X-Forwarded-For: 192.0.2.1,"],
            &["X-Forwarded-For: 192.0.2.1, unknown"],
            &["X-Forwarded-For: 192.0.2.1, 10.0.0.999"],
            &["X-Forwarded-For: 192.0.2.1:99999"],
            &["X-Forwarded-For: 192.0.2.1:"],
            &["X-Forwarded-For: 192.0.2.01"],
            &["X-Forwarded-For: \"192.0.2.1\""],
            &["X-Forwarded-For: fe80::1%2"],
            &["X-Forwarded-For: [fe80::1%2]:80"],
            &["X-Forwarded-For: 10.0.0.2"],
            &["X-Forwarded-For: 10.0.0.2, 2001:db8:1::2"],
            &["Forwarded:"],
            &["Forwarded: for"],
            &["Forwarded: for="],
            &["Forwarded: =192.0.2.1"],
            &["Forwarded: for =192.0.2.1"],
            &["Forwarded: proto=http"],
            &["Forwarded: for=192.0.2.1, proto=http"],
            &["Forwarded: for=192.0.2.1;for=192.0.2.1"],
            &["Forwarded: for=192.0.2.1;"],
            &["Forwarded: for=192.0.2.1,"],
            &["Forwarded: for=192.0.2.1:80"],
            &["Forwarded: for=[2001:db8::1]"],
            &["Forwarded: for=\"2001:db8::1\""],
            &["Forwarded: for=unknown"],
            &["Forwarded: for=_hidden"],
            &["Forwarded: for=10.0.0.2"],
            &["Forwarded: for=\"x, for=192.0.2.1"],
            &["Forwarded: for=\"x, for=\"[2001:db8::1]\""],
            &["Forwarded: for=192.0.2.1", "Forwarded: for=\""],
            &["Forwarded: for=192.0.2.66", "X-Forwarded-For: 192.0.2.1"],
            &["Forwarded: for=10.0.0.2", "X-Forwarded-For: 192.0.2.1"],
        ] {
            assert_eq!(told(fields), None, "{fields:?}");
        }
    }
}
