//! Early close: a window shuts when its tokens are gone or have been seen by a quorum of networks,
//! with real packets from several networks; and not before.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, socket_address};
use crate::lab::{Daemon, TempDir, inside, ip, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// `settle` in these tests.
const SETTLE: Duration = Duration::from_secs(1);
/// Longer than that, by enough for a busy machine.
const LONGER: Duration = Duration::from_millis(2500);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// Sources outside, besides the host's own neighbours: two in one network, and others.
const SOURCES_4: [&str; 4] = ["198.51.100.7", "198.51.7.7", "203.0.113.7", "198.18.0.7"];
const SOURCES_6: [&str; 2] = ["3fff:1::7", "3fff:2::7"];

/// A host that is asked from several networks.
fn host() -> Host {
    let host = Host::new();
    host.outside(|| {
        for address in SOURCES_4 {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        for address in SOURCES_6 {
            ip(&format!("addr add {address}/128 dev lo nodad"));
        }
    });
    ip("route add default via 192.0.2.2");
    ip("-6 route add default via 2001:db8:1::2");
    host
}

fn config(when: &str, more: &str) -> String {
    format!("[window]\nclose_early = \"{when}\"\nsettle = \"1s\"\nquorum = 3\n{more}")
}

/// One validation from this source; what it got.
#[track_caller]
fn validate(host: &Host, from: &str, name: &str, token: &str) -> String {
    let from: IpAddr = from.parse().expect("an address");
    let to = match from {
        IpAddr::V4(from) if from.is_private() => HOST_PRIVATE,
        IpAddr::V4(_) => HOST_4,
        IpAddr::V6(_) => HOST_6,
    };
    let (from, to) = (SocketAddr::new(from, 0), socket_address(to, 80));
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    host.outside(move || {
        let domain = Domain::for_address(to);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&from.into()).expect("the source's address");
        socket
            .connect_timeout(&to.into(), Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("{from}: {error}"));
        let mut stream = TcpStream::from(socket);
        stream.write_all(request.as_bytes()).expect("it hears");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    })
}

#[track_caller]
fn validates(host: &Host, from: &str, name: &str, token: &str) {
    let answer = validate(host, from, name, token);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{from}: {answer}");
}

fn push(daemon: &Daemon, name: &str, more: &[&str]) {
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    let words = [&["answer", "add", name, &answer], more].concat();
    daemon.cli(&words).success();
}

fn leases(daemon: &Daemon) -> usize {
    daemon.status()["leases"].as_array().map_or(0, Vec::len)
}

/// It stays open for longer than a while in which nothing happens.
#[track_caller]
fn stays(host: &Host, daemon: &Daemon) {
    let begun = Instant::now();
    wait_for(SOON, "a while is over", || {
        (begun.elapsed() > LONGER).then_some(())
    });
    assert_eq!(leases(daemon), 1, "{}", daemon.log());
    assert!(host.lets_in(80));
}

/// It shuts, a while after `since` and no sooner; the log says why, once.
#[track_caller]
fn shuts(host: &Host, daemon: &Daemon, since: Instant, why: &str) {
    wait_for(SOON, "it closes", || (leases(daemon) == 0).then_some(()));
    let took = since.elapsed();
    assert!(took >= SETTLE, "{took:?}");
    assert!(took < SETTLE + LONGER, "{took:?}");
    assert!(!host.is_open(80));
    let log = daemon.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("closed early"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(why), "{}", told[0]);
}

#[test]
fn it_shuts_when_the_last_token_is_gone_and_not_before() {
    inside(|| {
        let host = host();
        let daemon = Daemon::start(&config("tokens", ""));
        let text = daemon.cli(&["status"]).success().stdout;
        assert!(
            text.contains("early     closed 1s after its last token is gone\n"),
            "{text}"
        );
        // Left over from before it was opened: nothing of this lease.
        push(&daemon, "old.example.com", &["--for", "2s"]);
        daemon.cli(&["open", "--lease", "a"]).success();
        stays(&host, &daemon);
        push(&daemon, "a.example.com", &[]);
        push(&daemon, "b.example.com", &[]);
        let remove = |name: &str| daemon.cli(&["answer", "remove", name, TOKEN]).success();
        remove("a.example.com");
        stays(&host, &daemon);
        // No quorum counts here.
        for source in ["192.0.2.2", SOURCES_4[0], SOURCES_4[2], SOURCES_6[0]] {
            validates(&host, source, "b.example.com", TOKEN);
        }
        stays(&host, &daemon);
        let since = Instant::now();
        remove("b.example.com");
        shuts(&host, &daemon, since, "tokens-gone");
    });
}

#[test]
fn it_shuts_when_the_last_token_has_expired_and_stays_open_where_it_is_told_nothing() {
    inside(|| {
        let host = host();
        let mut daemon = Daemon::start(&config("tokens", ""));
        daemon.cli(&["open", "--lease", "a"]).success();
        let pushed = Instant::now();
        push(&daemon, "a.example.com", &["--for", "1s"]);
        shuts(
            &host,
            &daemon,
            pushed + Duration::from_millis(900),
            "tokens-gone",
        );
        // Two at once could have each other's tokens; named identifiers tell.
        daemon.cli(&["open", "--lease", "one"]).success();
        daemon
            .cli(&["open", "--lease", "two", "--identifier", "a.example.com"])
            .success();
        push(&daemon, "a.example.com", &["--for", "1s"]);
        wait_for(SOON, "it closes", || (leases(&daemon) == 1).then_some(()));
        stays(&host, &daemon);
        assert_eq!(daemon.status()["leases"][0]["name"], "one");
        assert_eq!(daemon.terminate(), 0);
        // The control: by default nothing is closed early.
        let daemon = Daemon::start("");
        daemon.cli(&["open", "--lease", "a"]).success();
        push(&daemon, "a.example.com", &["--for", "1s"]);
        stays(&host, &daemon);
        assert_eq!(daemon.status()["close_early"]["when"], "off");
    });
}

#[test]
fn it_shuts_when_a_quorum_of_networks_had_every_token() {
    inside(|| {
        let host = host();
        let daemon = Daemon::start(&config("quorum", ""));
        daemon.cli(&["open", "--lease", "a"]).success();
        push(&daemon, "a.example.com", &[]);
        let ask = |source| validates(&host, source, "a.example.com", TOKEN);
        // Many peers, two networks; and one that is no perspective.
        for source in [
            "192.0.2.2",
            SOURCES_4[0],
            SOURCES_4[1],
            SOURCES_4[0],
            "10.0.0.2",
        ] {
            ask(source);
        }
        // Another token, which it has not: no validation.
        let refused = validate(&host, SOURCES_4[2], "a.example.com", &"x".repeat(43));
        assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
        stays(&host, &daemon);
        let third = Instant::now();
        ask(SOURCES_6[0]);
        // A straggler begins the while anew.
        wait_for(SOON, "half a while", || {
            (third.elapsed() > SETTLE / 2).then_some(())
        });
        assert_eq!(leases(&daemon), 1);
        let last = Instant::now();
        ask(SOURCES_6[1]);
        shuts(&host, &daemon, last, "quorum");
    });
}

#[test]
fn of_a_webroot_every_named_identifier_must_be_seen_by_a_quorum() {
    inside(|| {
        let host = host();
        let webroot = TempDir::new();
        for token in ["a".repeat(43), "b".repeat(43)] {
            let answer = format!("{token}.{THUMBPRINT}");
            webroot.write(&format!(".well-known/acme-challenge/{token}"), &answer);
        }
        let path = webroot.path().display();
        let sites = format!(
            "[[site]]\nidentifiers = [\"a.example.com\", \"b.example.com\"]\nanswer = {{ webroot = \"{path}\" }}\n"
        );
        let daemon = Daemon::start(&config("quorum", &sites));
        let names = [
            "--identifier",
            "a.example.com",
            "--identifier",
            "b.example.com",
        ];
        daemon
            .cli(&[&["open", "--lease", "a"], &names[..]].concat())
            .success();
        for source in [SOURCES_4[0], SOURCES_4[2], SOURCES_4[3]] {
            validates(&host, source, "a.example.com", &"a".repeat(43));
        }
        stays(&host, &daemon);
        for source in [SOURCES_4[0], SOURCES_6[0]] {
            validates(&host, source, "b.example.com", &"b".repeat(43));
        }
        stays(&host, &daemon);
        let last = Instant::now();
        validates(&host, SOURCES_6[1], "b.example.com", &"b".repeat(43));
        shuts(&host, &daemon, last, "quorum");
    });
}

#[test]
fn tokens_that_peers_make_up_shut_nothing() {
    inside(|| {
        let host = host();
        let sites = format!(
            "[[site]]\nidentifiers = [\"a.example.com\"]\nanswer = {{ thumbprint = \"{THUMBPRINT}\" }}\n"
        );
        let daemon = Daemon::start(&config("quorum", &sites));
        daemon.cli(&["open", "--lease", "a"]).success();
        for source in [
            SOURCES_4[0],
            SOURCES_4[2],
            SOURCES_4[3],
            SOURCES_6[0],
            SOURCES_6[1],
        ] {
            validates(&host, source, "a.example.com", &"x".repeat(43));
        }
        stays(&host, &daemon);
    });
}

#[test]
fn a_reload_turns_it_on_and_off() {
    inside(|| {
        let host = host();
        let daemon = Daemon::start("");
        let reload = |text: &str, when: &str| {
            daemon.write_config(text);
            daemon.signal(rustix::process::Signal::HUP);
            wait_for(SOON, when, || {
                (daemon.status()["close_early"]["when"] == when).then_some(())
            });
        };
        daemon.cli(&["open", "--lease", "a"]).success();
        reload(&config("tokens", ""), "tokens");
        push(&daemon, "a.example.com", &[]);
        let since = Instant::now();
        daemon
            .cli(&["answer", "remove", "a.example.com", TOKEN])
            .success();
        shuts(&host, &daemon, since, "tokens-gone");
        reload("", "off");
        daemon.cli(&["open", "--lease", "a"]).success();
        push(&daemon, "a.example.com", &["--for", "1s"]);
        stays(&host, &daemon);
    });
}
