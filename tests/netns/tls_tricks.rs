//! What strangers try on port 443, with what the gate has to call it where nobody has pushed an
//! answer: handshakes that go on with a request, and octets that need no handshake.

use crate::lab::hello::{self, ClientHello};
use crate::lab::tls::{Client, REQUEST, Sessions, Version, Writing};
use crate::tls_attack::{ACME, HTTP, SITE};

/// What a stranger does, and what the gate calls it.
pub struct Trick {
    pub name: String,
    pub does: Does,
    pub reason: &'static str,
}

pub enum Does {
    /// A handshake, and a request after it.
    Shake(Box<Client>),
    /// These octets, and perhaps the end of that direction.
    Send(Vec<u8>, bool),
}

impl From<Client> for Does {
    fn from(client: Client) -> Self {
        Self::Shake(Box::new(client))
    }
}

/// Everything that is tried where nobody has pushed an answer.
pub fn foreigners(version: Version, sessions: &Sessions) -> Vec<Trick> {
    let client = |name, alpn: &[&'static str]| Client::new(version, name, alpn);
    let site = Some(SITE);
    let shakes = [
        ("a visitor", client(site, &[HTTP]), "not-allowed"),
        ("h2 too", client(site, &["h2", HTTP]), "not-allowed"),
        ("no ALPN", client(site, &[]), "not-allowed"),
        ("no name", client(None, &[HTTP]), "not-allowed"),
        ("nothing", client(None, &[]), "not-allowed"),
        (
            "another name",
            client(Some("a.test"), &[HTTP]),
            "not-allowed",
        ),
        ("upper case", client(site, &["ACME-TLS/1"]), "not-allowed"),
        ("acme first", client(site, &[ACME, HTTP]), "mixed-alpn"),
        ("acme second", client(site, &[HTTP, ACME]), "mixed-alpn"),
        ("acme twice", client(site, &[ACME, ACME]), "mixed-alpn"),
        ("acme without name", client(None, &[ACME]), "no-server-name"),
        (
            "acme elsewhere",
            client(Some("a.test"), &[ACME]),
            "unknown-host",
        ),
        ("acme alone", client(site, &[ACME]), "no-answer"),
        (
            "ALPN in two records",
            client(site, &[HTTP, ACME]).writing(Writing::PartedAt(ACME)),
            "mixed-alpn",
        ),
        (
            "the name in two records",
            client(site, &[HTTP]).writing(Writing::PartedAt(SITE)),
            "not-allowed",
        ),
        (
            "octet by octet",
            client(site, &[ACME, HTTP]).writing(Writing::Segments),
            "mixed-alpn",
        ),
        (
            "records of one octet",
            client(site, &[HTTP]).writing(Writing::Records),
            "not-allowed",
        ),
        (
            "acme in records of one octet",
            client(site, &[ACME]).writing(Writing::Records),
            "no-answer",
        ),
        (
            "early data",
            client(site, &[HTTP]).early(sessions),
            "not-allowed",
        ),
        (
            "early data beside acme",
            client(site, &[ACME]).early(sessions),
            "early-data",
        ),
    ];
    shakes
        .into_iter()
        .map(|(name, client, reason)| Trick {
            name: format!("{name}, {version:?}"),
            does: client.into(),
            reason,
        })
        .collect()
}

/// What needs no handshake.
pub fn octets() -> Vec<Trick> {
    let validation = || ClientHello::new().name(SITE).alpn(&[ACME]);
    let and_request = |hello: ClientHello| [hello.record(), REQUEST.as_bytes().to_vec()].concat();
    let whole = validation().record();
    let two_names = hello::names(&[(0, SITE.as_bytes()), (0, b"a.test")]);
    let tricks: Vec<(&str, Vec<u8>, bool, &str)> = vec![
        ("HTTP in clear", REQUEST.into(), false, "not-tls"),
        (
            "SSL 2.0",
            b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10".into(),
            false,
            "not-tls",
        ),
        (
            "garbage",
            (0..=255).rev().cycle().take(4096).collect(),
            false,
            "not-tls",
        ),
        (
            "an alert",
            b"\x15\x03\x01\x00\x02\x01\x00".into(),
            false,
            "not-tls",
        ),
        (
            "a ServerHello",
            hello::record(&hello::message(2, &[0; 40])),
            false,
            "malformed-hello",
        ),
        (
            "two ALPNs",
            and_request(validation().alpn(&[HTTP])),
            false,
            "malformed-hello",
        ),
        (
            "a second message",
            hello::record(&[validation().message(), validation().message()].concat()),
            false,
            "malformed-hello",
        ),
        (
            "too large",
            hello::records(&validation().with(21, vec![0; 16_384]).message(), &[10_000]),
            false,
            "hello-too-large",
        ),
        (
            "two names",
            and_request(ClientHello::new().alpn(&[ACME]).with(0, two_names)),
            false,
            "malformed-server-name",
        ),
        (
            "another encrypted hello",
            and_request(validation().with(0xfe0d, vec![0; 200])),
            false,
            "mixed-alpn",
        ),
        (
            "a request in clear",
            and_request(validation()),
            false,
            "no-answer",
        ),
        (
            "slow",
            whole[..whole.len() - 1].into(),
            false,
            "hello-timeout",
        ),
        ("half", whole[..50].into(), true, "peer-gone"),
        ("nothing at all", Vec::new(), true, "peer-gone"),
    ];
    tricks
        .into_iter()
        .map(|(name, bytes, ends, reason)| Trick {
            name: name.to_owned(),
            does: Does::Send(bytes, ends),
            reason,
        })
        .collect()
}
