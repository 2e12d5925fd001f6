//! Port 443 as strangers try it. Behind the gate stand real web servers, most of which serve whoever
//! offers `acme-tls/1` beside other protocols and some whoever offers it alone; a stranger tries
//! everything that `tls_tricks.rs` lists, with windows and without, and gets not one octet of theirs.
//! A visitor from the allow-list who asks the same gets the page.

use std::time::Duration;

use serde_json::Value;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen};
use crate::lab::site::{SECRET, Server, TlsSite};
use crate::lab::tls::{Client, Got, Sessions, Version, send_raw};
use crate::lab::{Daemon, inside, wait_for};
use crate::tls_tricks::{Does, Trick, foreigners, octets};

pub const FOREIGN: [&str; 2] = [HOST_4, HOST_6];
pub const SITE: &str = "www.example.com";
pub const ACME: &str = "acme-tls/1";
pub const HTTP: &str = "http/1.1";
const SOON: Duration = Duration::from_secs(60);

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
