//! Port 443 as strangers try it. Behind the gate stand real web servers, most of which serve whoever
//! offers `acme-tls/1` beside other protocols and some whoever offers it alone; a stranger tries
//! everything that FOREIGNERS lists, with windows and without, and gets not one octet of theirs.
//! A visitor from the allow-list who asks the same gets the page.

use std::time::Duration;

use serde_json::Value;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen};
use crate::lab::hello::{self, ClientHello};
use crate::lab::site::{SECRET, Server, TlsSite};
use crate::lab::tls::{Client, Got, REQUEST, Sessions, Version, Writing, send_raw};
use crate::lab::{Daemon, inside, wait_for};

pub const FOREIGN: [&str; 2] = [HOST_4, HOST_6];
pub const SITE: &str = "www.example.com";
pub const ACME: &str = "acme-tls/1";
pub const HTTP: &str = "http/1.1";
const SOON: Duration = Duration::from_secs(10);

/// How the gate stands before the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It listens on 443, and the server somewhere else.
    Listening,
    /// The same, with nothing in the kernel: everybody may connect at any time.
    Alone,
    /// The server listens on 443.
    Divert,
}

impl Before {
    pub const ALL: [Self; 3] = [Self::Listening, Self::Alone, Self::Divert];

    /// Where the server listens.
    pub fn port(self) -> u16 {
        match self {
            Self::Listening | Self::Alone => 8443,
            Self::Divert => 443,
        }
    }

    /// A gate that has one site, with these keys besides.
    pub fn gate(self, site: &str) -> Daemon {
        Daemon::start(&self.config(site))
    }

    /// Its configuration.
    pub fn config(self, site: &str) -> String {
        let firewall = match self {
            Self::Alone => "[firewall]\nmode = \"gate-only\"\n",
            Self::Listening | Self::Divert => "",
        };
        let tls = match self {
            Self::Listening | Self::Alone => "listen = [\"[::]:443\"]\nserver = \"127.0.0.1:8443\"",
            Self::Divert => "listen = \"divert\"",
        };
        format!(
            "{firewall}[http]\nlisten = []\n[tls]\n{tls}\nhello_timeout = \"1s\"\n\
             [[site]]\nidentifiers = [\"{SITE}\"]\n{site}\n[log]\nformat = \"json\"\n"
        )
    }
}

/// What a stranger does, and what the gate calls it.
struct Trick {
    name: String,
    does: Does,
    reason: &'static str,
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
fn foreigners(version: Version, sessions: &Sessions) -> Vec<Trick> {
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
fn octets() -> Vec<Trick> {
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

/// Does it from outside.
pub fn try_it(host: &Host, address: &str, trick: impl Into<Does>) -> Got {
    let trick = trick.into();
    let stream = host.connect(address, 443);
    host.outside(move || match trick {
        Does::Shake(client) => client.run(stream),
        Does::Send(bytes, ends) => send_raw(stream, &bytes, ends),
    })
}

/// What the gate's log calls the ends of connections from outside the allow-list, so far.
fn reasons(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let foreign = events.filter(|event| {
        let peer = event["peer"].as_str().unwrap_or_default();
        event["message"] == "connection" && !peer.starts_with("10.")
    });
    foreign
        .map(|event| event["reason"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Does it from a foreign network; gives what was got, and what the log calls it.
pub fn try_foreign(
    host: &Host,
    daemon: &Daemon,
    address: &str,
    trick: impl Into<Does>,
) -> (Got, String) {
    let past = reasons(daemon).len();
    let got = try_it(host, address, trick);
    let reason = wait_for(SOON, "the log shows how it ended", || {
        reasons(daemon).into_iter().nth(past)
    });
    (got, reason)
}

/// A visitor from the allow-list gets the page whatever else he offers.
pub fn visitors_are_served(host: &Host, server: Server) {
    for version in Version::BOTH {
        for (name, alpn) in [
            (Some(SITE), &[HTTP][..]),
            (Some(SITE), &[]),
            (None, &[HTTP]),
            (Some(SITE), &[ACME, HTTP]),
            (Some(SITE), &[HTTP, ACME]),
        ] {
            let client = Client::new(version, name, alpn);
            let got = try_it(host, HOST_PRIVATE, client);
            let what = format!("{server:?}, {version:?}, {name:?}, {alpn:?}: {got:?}");
            assert!(got.text().contains(SECRET), "{what}");
        }
    }
}

/// Every trick from both families: no octet comes back, and the log says why.
fn strangers_get_nothing(host: &Host, before: Before, server: Server, daemon: &Daemon) {
    let sessions = Sessions::new();
    for address in FOREIGN {
        // What a visitor has been given, a stranger may have stolen.
        for alpn in [&[HTTP][..], &[]] {
            let visitor = Client::new(Version::Tls13, Some(SITE), alpn).early(&sessions);
            let got = try_it(host, HOST_PRIVATE, visitor);
            assert!(got.text().contains(SECRET), "{server:?}: {got:?}");
        }
        let shakes = Version::BOTH.map(|version| foreigners(version, &sessions));
        for trick in shakes.into_iter().flatten().chain(octets()) {
            let Trick { name, does, reason } = trick;
            let may_be_early = name.starts_with("early data")
                && name.ends_with("Tls13")
                && server == Server::Nginx;
            let (got, called) = try_foreign(host, daemon, address, does);
            let what = format!("{name} at {server:?}, {before:?}, {address}: {got:?}");
            assert_eq!(got.octets, 0, "{what}");
            // Only nginx lets itself be told anything early.
            assert_eq!(got.was_early, may_be_early, "{what}");
            let expected = match reason {
                "early-data" if !got.was_early => "no-answer",
                reason => reason,
            };
            assert_eq!(called, expected, "{what}");
        }
    }
}

fn attack(server: Server) {
    for before in Before::ALL {
        let host = Host::new();
        let _site = TlsSite::start(server, before.port());
        let daemon = before.gate("");
        visitors_are_served(&host, server);
        if before == Before::Alone {
            strangers_get_nothing(&host, before, server, &daemon);
            continue;
        }
        assert_eq!(FOREIGN.map(|to| host.probe(to, 443)), [Seen::Silence; 2]);
        daemon.cli(&["open", "--lease", "a"]).success();
        strangers_get_nothing(&host, before, server, &daemon);
        visitors_are_served(&host, server);
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(FOREIGN.map(|to| host.probe(to, 443)), [Seen::Silence; 2]);
    }
}

/// With `refuse = "alert"` seven octets of the gate's own may come back, and no others.
#[test]
fn a_refusal_in_words_is_an_alert_and_nothing_else() {
    inside(|| {
        let before = Before::Listening;
        let host = Host::new();
        let _site = TlsSite::start(Server::HaProxy, before.port());
        let config = before
            .config("")
            .replace("[tls]", "[tls]\nrefuse = \"alert\"");
        let daemon = Daemon::start(&config);
        daemon.cli(&["open", "--lease", "a"]).success();
        let sessions = Sessions::new();
        let shakes = Version::BOTH.map(|version| foreigners(version, &sessions));
        for trick in shakes.into_iter().flatten() {
            let Trick { name, does, reason } = trick;
            let (got, called) = try_foreign(&host, &daemon, HOST_4, does);
            assert_eq!(
                (got.octets, got.text().as_str()),
                (7, ""),
                "{name}: {got:?}"
            );
            let error = got.error.unwrap_or_default();
            assert!(error.starts_with("received fatal alert"), "{name}: {error}");
            assert!(
                called == reason || reason == "early-data",
                "{name}: {called}"
            );
        }
        for Trick { name, does, .. } in octets() {
            let (got, _) = try_foreign(&host, &daemon, HOST_4, does);
            let is_alert = got.octets == 7 && got.data.starts_with(&[21, 3, 3, 0, 2, 2]);
            assert!(got.octets == 0 || is_alert, "{name}: {got:?}");
        }
        visitors_are_served(&host, Server::HaProxy);
    });
}

#[test]
fn nothing_of_nginx() {
    inside(|| attack(Server::Nginx));
}

#[test]
fn nothing_of_haproxy() {
    inside(|| attack(Server::HaProxy));
}

#[test]
fn nothing_of_apache() {
    inside(|| attack(Server::Apache));
}

#[test]
fn nothing_of_an_openssl_server() {
    inside(|| attack(Server::OpenSsl));
}

#[test]
fn nothing_of_a_python_server() {
    inside(|| attack(Server::Python));
}

/// Why the gate does not stop at a look at ALPN: who is led to these servers with it is served.
#[test]
fn without_the_gate_most_servers_give_the_page_to_whoever_offers_acme() {
    inside(|| {
        for (server, alone, beside) in [
            (Server::Nginx, false, true),
            (Server::HaProxy, true, true),
            (Server::Apache, false, true),
            (Server::OpenSsl, false, true),
            (Server::Python, true, true),
        ] {
            let host = Host::new();
            let _site = TlsSite::start(server, 443);
            for (alpn, expected) in [(&[ACME][..], alone), (&[ACME, HTTP], beside)] {
                for version in Version::BOTH {
                    let client = Client::new(version, Some(SITE), alpn);
                    let got = try_it(&host, HOST_4, client);
                    let is_served = got.text().contains(SECRET);
                    assert_eq!(
                        is_served, expected,
                        "{server:?}, {alpn:?}, {version:?}: {got:?}"
                    );
                }
            }
        }
    });
}
