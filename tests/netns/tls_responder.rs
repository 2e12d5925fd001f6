//! What comes behind an offer of exactly `acme-tls/1`: a handshake with a responder, and not one
//! octet more, whatever the stranger sends after it, and even where the operator has named a web
//! server as the responder. And what is left when the gate is killed, or the window ends.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen};
use crate::lab::hasty::Hasty;
use crate::lab::hello::ClientHello;
use crate::lab::site::{SECRET, Server, TlsSite};
use crate::lab::tls::{Client, Got, Version, Writing};
use crate::lab::{Daemon, inside, run, wait_for};
use crate::tls_attack::{
    ACME, Before, FOREIGN, HTTP, SITE, try_foreign, try_it, visitors_are_served,
};
use crate::tls_tricks::Does;

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const OTHER_THUMBPRINT: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
const SOON: Duration = Duration::from_secs(10);

fn push(daemon: &Daemon) {
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    let words = ["answer", "add", "--tls-alpn-01", SITE, &answer];
    daemon.cli(&words).success();
}

fn open(daemon: &Daemon) {
    let words = [
        "open",
        "--lease",
        "a",
        "--tls-alpn-01",
        "--identifier",
        SITE,
    ];
    daemon.cli(&words).success();
}

fn validation(version: Version) -> Client {
    Client::new(version, Some(SITE), &[ACME])
}

/// Nothing of the site's, of whatever layer above TLS.
#[track_caller]
fn got_no_data(got: &Got, what: &str) {
    assert_eq!(got.data, b"", "{what}: {got:?}");
}

#[test]
fn our_own_responder_shakes_hands_and_says_nothing() {
    inside(|| {
        for before in Before::ALL {
            let host = Host::new();
            let _site = TlsSite::start(Server::HaProxy, before.port());
            let daemon = before.gate("");
            push(&daemon);
            if before != Before::Alone {
                assert_eq!(FOREIGN.map(|to| host.probe(to, 443)), [Seen::Silence; 2]);
                open(&daemon);
            }
            for (address, version) in FOREIGN.into_iter().zip(Version::BOTH) {
                for (client, reason) in [
                    (validation(version).silent(), "answered"),
                    (
                        validation(version).writing(Writing::Records).silent(),
                        "answered",
                    ),
                    (validation(version), "not-handshake"),
                ] {
                    let (got, called) = try_foreign(&host, &daemon, address, client);
                    let what = format!("{before:?}, {version:?}");
                    got_no_data(&got, &what);
                    assert!(got.is_complete, "{what}: {got:?}");
                    assert_eq!(got.alpn.as_deref(), Some(ACME.as_bytes()), "{what}");
                    assert_eq!(called, reason, "{what}: {got:?}");
                }
                let mixed = Client::new(version, Some(SITE), &[ACME, HTTP]);
                let (got, called) = try_foreign(&host, &daemon, address, mixed);
                assert_eq!((got.octets, called.as_str()), (0, "mixed-alpn"));
            }
            visitors_are_served(&host, Server::HaProxy);
        }
    });
}

#[test]
fn a_broken_handshake_and_a_foreign_account_are_called_what_they_are() {
    inside(|| {
        let before = Before::Listening;
        let host = Host::new();
        let daemon = before.gate("");
        push(&daemon);
        open(&daemon);
        // The hello, and then what is no TLS at all.
        let hello = ClientHello::new().name(SITE).alpn(&[ACME]).record();
        let broken = [&hello[..], b"GET /page HTTP/1.1\r\n\r\n"].concat();
        let (_, called) = try_foreign(&host, &daemon, HOST_4, Does::Send(broken, false));
        assert_eq!(called, "handshake-failed");
        // From now on the site names its accounts, and what was pushed is another one's.
        daemon.write_config(&before.config(&format!("accounts = [\"{OTHER_THUMBPRINT}\"]")));
        daemon.signal(Signal::HUP);
        wait_for(SOON, "the new configuration is in force", || {
            let client = validation(Version::Tls13).silent();
            let (got, called) = try_foreign(&host, &daemon, HOST_4, client);
            (called != "answered")
                .then(|| assert_eq!((got.octets, &*called), (0, "foreign-account")))
        });
        let words = ["answer", "add", "--tls-alpn-01", SITE];
        let answer = format!("{TOKEN}.{THUMBPRINT}");
        let refused = daemon.cli(&[&words[..], &[&answer]].concat());
        assert_eq!(refused.code, 78, "{refused}");
    });
}

/// `tls_answer` leads to the web server itself, against all advice.
#[test]
fn a_web_server_that_is_taken_for_a_responder_gives_no_octet_either() {
    const ALL: [Server; 7] = [
        Server::Nginx,
        Server::HaProxy,
        Server::Apache,
        Server::OpenSsl,
        Server::Renegotiator,
        Server::Python,
        Server::Greeter,
    ];
    inside(|| {
        for server in ALL {
            for before in Before::ALL {
                let host = Host::new();
                let port = before.port();
                let _site = TlsSite::start(server, port);
                let upstream = format!("tls_answer = {{ upstream = \"127.0.0.1:{port}\" }}");
                let daemon = before.gate(&upstream);
                if before == Before::Alone {
                    let client = validation(Version::Tls13);
                    let (got, called) = try_foreign(&host, &daemon, HOST_4, client);
                    assert_eq!((got.octets, called.as_str()), (0, "not-covered"));
                }
                open(&daemon);
                for version in Version::BOTH {
                    takes_it_for_a_responder(&host, &daemon, server, version);
                }
                if server != Server::Greeter {
                    visitors_are_served(&host, server);
                }
            }
        }
    });
}

fn takes_it_for_a_responder(host: &Host, daemon: &Daemon, server: Server, version: Version) {
    // These go on with whom they share no protocol.
    let shakes = !matches!(server, Server::Nginx | Server::Apache | Server::OpenSsl);
    for (client, asks) in [
        (validation(version), true),
        (validation(version).silent(), false),
        (validation(version).writing(Writing::Records), true),
    ] {
        for address in FOREIGN {
            let (got, called) = try_foreign(host, daemon, address, client.clone());
            let what = format!("{server:?}, {version:?}, asks: {asks}, {called}");
            got_no_data(&got, &what);
            assert_eq!(got.is_complete, shakes, "{what}: {got:?}");
            let expected: &[&str] = match (shakes, asks) {
                (true, true) => &["not-handshake"],
                // Who speaks first is told from who only shakes hands, or silently cut.
                (true, false) => &["relayed", "not-handshake"],
                (false, _) => &["handshake-failed"],
            };
            assert!(expected.contains(&called.as_str()), "{what}: {got:?}");
        }
    }
}

/// A handshake within the first, to be let through as part of it.
#[test]
fn a_second_handshake_within_the_first_does_not_pass() {
    let begins_anew = |host: &Host| {
        // It begins anew at an `R`, and ends when its input does.
        let script = format!(
            "(echo R; sleep 1) |
             openssl s_client -connect {HOST_4}:443 -tls1_2 -servername {SITE} -alpn {ACME}"
        );
        let said = host.outside(move || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            run(command, SOON).text()
        });
        let second = said.split_once("RENEGOTIATING");
        let second = second.unwrap_or_else(|| panic!("no first handshake: {said}"));
        second.1.contains("verify return:1")
    };
    inside(|| {
        let host = Host::new();
        {
            let _alone = TlsSite::start(Server::Renegotiator, 443);
            assert!(begins_anew(&host), "without the gate it is let through");
        }
        let _site = TlsSite::start(Server::Renegotiator, 8443);
        let daemon = Before::Listening.gate("tls_answer = { upstream = \"127.0.0.1:8443\" }");
        open(&daemon);
        assert!(!begins_anew(&host), "{}", daemon.log());
        wait_for(SOON, "the log says why", || {
            daemon
                .log()
                .contains("\"reason\":\"not-handshake\"")
                .then_some(())
        });
    });
}

#[test]
fn with_the_gate_killed_inside_a_window_strangers_reach_nothing() {
    inside(|| {
        for (before, dead) in [
            (Before::Listening, Seen::Refused),
            (Before::Alone, Seen::Refused),
            (Before::Divert, Seen::Silence),
        ] {
            let host = Host::new();
            let _site = TlsSite::start(Server::Nginx, before.port());
            let mut daemon = before.gate("");
            push(&daemon);
            open(&daemon);
            let (_, called) =
                try_foreign(&host, &daemon, HOST_4, validation(Version::Tls13).silent());
            assert_eq!(called, "answered");
            // One that is under way, and one that would be led on if it went on.
            let halves = FOREIGN.map(|to| {
                let half = &ClientHello::new().name(SITE).alpn(&[HTTP]).record()[..60];
                let stream = host.connect(to, 443);
                std::io::Write::write_all(&mut &stream, half).expect("it is open");
                stream
            });
            daemon.kill();
            for stream in halves {
                let got = crate::lab::tls::send_raw(stream, &[], true);
                assert_eq!(got.octets, 0, "{before:?}: {got:?}");
            }
            assert_eq!(
                FOREIGN.map(|to| host.probe(to, 443)),
                [dead; 2],
                "{before:?}"
            );
            match before {
                Before::Divert => visitors_are_served(&host, Server::Nginx),
                _ => assert_eq!(host.probe(HOST_PRIVATE, 443), Seen::Refused),
            }
        }
    });
}

#[test]
fn the_end_of_the_window_cuts_a_handshake_that_hangs() {
    inside(|| {
        for before in [Before::Listening, Before::Divert] {
            for upstream in [false, true] {
                let host = Host::new();
                let port = before.port();
                let _site = TlsSite::start(Server::Python, port);
                let daemon = before.gate(&match upstream {
                    true => format!("tls_answer = {{ upstream = \"127.0.0.1:{port}\" }}"),
                    false => String::new(),
                });
                if !upstream {
                    push(&daemon);
                }
                let words = ["open", "--lease", "a", "--tls-alpn-01", "--for", "2s"];
                daemon
                    .cli(&[&words[..], &["--identifier", SITE]].concat())
                    .success();
                let begun = Instant::now();
                let hello = ClientHello::new().name(SITE).alpn(&[ACME]).record();
                let (got, called) = try_foreign(&host, &daemon, HOST_4, Does::Send(hello, false));
                let lasted = begun.elapsed();
                let what = format!("{before:?}, upstream: {upstream}, {lasted:?}: {got:?}");
                assert_eq!(called, "window-closed", "{what}");
                assert!(got.octets > 500, "a server's first flight: {what}");
                assert!(
                    !String::from_utf8_lossy(&got.data).contains(SECRET),
                    "{what}"
                );
                assert!(lasted > Duration::from_secs(1) && lasted < SOON, "{what}");
            }
        }
    });
}

/// The one limit, written down: who looks from outside cannot tell a server's Finished from data that
/// it sends at once behind it, before it has heard the peer's. So the greeting of a server that does
/// that, and is named as a responder by mistake, passes; a request does not reach it even so.
#[test]
fn of_a_server_that_speaks_before_it_has_heard_a_finished_the_greeting_alone_passes() {
    inside(|| {
        let host = Host::new();
        let hasty = Hasty::start("127.0.0.1:8443");
        let daemon = Before::Listening.gate("tls_answer = { upstream = \"127.0.0.1:8443\" }");
        open(&daemon);
        for (version, passes) in [(Version::Tls12, ""), (Version::Tls13, Hasty::GREETING)] {
            let (got, called) = try_foreign(&host, &daemon, HOST_4, validation(version));
            assert!(got.is_complete, "{version:?}: {got:?}");
            assert_eq!(
                (got.text().as_str(), called.as_str()),
                (passes, "not-handshake")
            );
        }
        assert_eq!(hasty.heard(), 0, "octets of requests");
    });
}

#[test]
fn a_visitor_whose_site_has_no_server_or_a_dead_one_is_told_from_a_stranger() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = []\n[tls]\nlisten = [\"[::]:443\"]\n\
             [[site]]\nidentifiers = [\"{SITE}\"]\n[[site]]\nidentifiers = [\"dead.test\"]\n\
             server = \"127.0.0.1:9\"\n[log]\nformat = \"json\"\n"
        ));
        for (name, reason) in [(SITE, "no-server"), ("dead.test", "upstream-gone")] {
            let got = try_it(
                &host,
                HOST_PRIVATE,
                Client::new(Version::Tls13, Some(name), &[HTTP]),
            );
            assert_eq!(got.octets, 0, "{name}");
            wait_for(SOON, "the log says why", || {
                daemon
                    .log()
                    .contains(&format!("\"reason\":\"{reason}\""))
                    .then_some(())
            });
        }
        assert_eq!(host.probe(HOST_6, 443), Seen::Silence);
    });
}
