//! Port 443: whom a ClientHello leads where, and that nobody else gets an octet of the site's.

use std::net::SocketAddr;
use std::time::Duration;

use acmegate::answer::Source;
use acmegate::answer::pushed::PushedAnswer;
use acmegate::front::{Limits, Refusal, Servers, Settings, Speaks};
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::lease::LeaseName;
use acmegate::gate::tls::{ProxyVersion, Server};
use acmegate::gate::token::Thumbprint;
use acmegate::gate::window::GRACE;
use acmegate::gate::{Exposure, Reason};
use acmegate::proxy_protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{
    PATIENCE, Plan, THUMBPRINT, World, identifier, key_authorization, lease, now, read_reply, site,
};
use crate::lab::hello::{ClientHello, record};

/// What the site's server says to everybody who reaches it.
const SECRET: &[u8] = b"the site's own octets";
const ACME: &[&str] = &["acme-tls/1"];

/// A server that says [`SECRET`] at once and passes on what it is told.
async fn site_server() -> (Server, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                stream.write_all(SECRET).await.unwrap();
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all).await;
                let _ = told.send(all);
            });
        }
    });
    (server_at(address), heard)
}

fn server_at(address: SocketAddr) -> Server {
    Server {
        address,
        proxy_protocol: None,
    }
}

/// A listener for TLS; peers are on the allow-list or not, and there is no window.
fn plan(allow: &[&str], server: Option<Server>) -> Plan {
    Plan {
        speaks: Speaks::Tls,
        exposure: Exposure::Windowed,
        allow: AllowList::new(allow.iter().map(|prefix| prefix.parse().unwrap())),
        servers: Servers {
            by_site: Vec::new(),
            otherwise: server,
        },
        ..Plan::default()
    }
}

fn open(world: &World, seconds: u64) {
    let lease = lease("test", world.port(), Duration::from_secs(seconds));
    world.change_windows(|windows| windows.adopt(lease));
}

fn push(world: &World, name: &str) {
    let answer = PushedAnswer::TlsAlpn01(key_authorization().into());
    let hour = Duration::from_secs(3600);
    world
        .pushed
        .add(identifier(name), answer, hour, now())
        .unwrap();
}

fn visitor(name: &str) -> Vec<u8> {
    ClientHello::new()
        .name(name)
        .alpn(&["h2", "http/1.1"])
        .record()
}

fn validation(name: &str) -> Vec<u8> {
    ClientHello::new().name(name).alpn(ACME).record()
}

#[tokio::test]
async fn a_visitor_from_the_allow_list_reaches_the_server_untouched() {
    let (server, mut heard) = site_server().await;
    for hello in [
        visitor("example.com"),
        visitor("elsewhere.test"),
        ClientHello::bare().record(),
        ClientHello::new()
            .name("example.com")
            .alpn(&["http/1.1", "acme-tls/1"])
            .record(),
    ] {
        let mut world = World::start(plan(&["127.0.0.0/8"], Some(server)));
        let mut stream = world.connect().await;
        let (first, last) = hello.split_at(hello.len() / 2);
        stream.write_all(first).await.unwrap();
        stream.write_all(last).await.unwrap();
        let mut got = vec![0; SECRET.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(got, SECRET);
        stream.write_all(b"and more").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, b"");
        let all = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(all, [hello.as_slice(), b"and more"].concat());
        world.ended_by(Reason::Passed).await;
    }
}

#[tokio::test]
async fn the_server_of_the_name_comes_before_the_general_one() {
    let (general, mut of_general) = site_server().await;
    let (own, mut of_own) = site_server().await;
    let world = World::start(Plan {
        servers: Servers {
            by_site: vec![Some(own)],
            otherwise: Some(general),
        },
        ..plan(&["127.0.0.0/8"], None)
    });
    for (name, heard) in [
        ("EXAMPLE.com", &mut of_own),
        ("elsewhere.test", &mut of_general),
    ] {
        let mut stream = world.connect().await;
        stream.write_all(&visitor(name)).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, SECRET);
        let all = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(all, visitor(name));
    }
}

/// What somebody off the allow-list may send inside a window, and why it is refused.
fn tricks() -> Vec<(Vec<u8>, Reason, u8)> {
    let of = |alpn: &[&str]| ClientHello::new().name("example.com").alpn(alpn);
    vec![
        (visitor("example.com"), Reason::NotAllowed, 49),
        (ClientHello::bare().record(), Reason::NotAllowed, 49),
        (
            of(&["http/1.1", "acme-tls/1"]).record(),
            Reason::MixedAlpn,
            49,
        ),
        (
            of(&["acme-tls/1", "http/1.1"]).record(),
            Reason::MixedAlpn,
            49,
        ),
        (
            of(&["acme-tls/1", "acme-tls/1"]).record(),
            Reason::MixedAlpn,
            49,
        ),
        (of(&["ACME-TLS/1"]).record(), Reason::NotAllowed, 49),
        (of(ACME).with(42, []).record(), Reason::EarlyData, 49),
        (
            ClientHello::new().alpn(ACME).record(),
            Reason::NoServerName,
            112,
        ),
        (validation("192.0.2.1"), Reason::MalformedServerName, 112),
        (validation("unknown.test"), Reason::UnknownHost, 112),
        (validation("example.com"), Reason::NoAnswer, 49),
        (record(b"\x01\x00\x00\x02zz"), Reason::MalformedHello, 50),
    ]
}

#[tokio::test]
async fn nobody_else_gets_an_octet_of_the_sites() {
    let (server, mut heard) = site_server().await;
    for refusal in [Refusal::Close, Refusal::Alert] {
        let mut plan = plan(&[], Some(server));
        plan.settings.refusal = refusal;
        let mut world = World::start(plan);
        open(&world, 3600);
        for (hello, reason, description) in tricks() {
            let reply = world.exchange(&hello).await;
            let alert = vec![21, 3, 3, 0, 2, 2, description];
            let expected = match refusal {
                Refusal::Close => Vec::new(),
                Refusal::Alert => alert,
            };
            assert_eq!(reply.bytes, expected, "{reason}");
            world.ended_by(reason).await;
        }
        for (bytes, reason) in [
            (
                b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".as_slice(),
                Reason::NotTls,
            ),
            (&record(&[1; 16384]).repeat(2), Reason::HelloTooLarge),
        ] {
            let reply = world.exchange(bytes).await;
            assert!(reply.bytes.len() <= 7, "{reason}: {reply:?}");
            world.ended_by(reason).await;
        }
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn without_a_window_not_even_a_hello_is_read() {
    let (server, mut heard) = site_server().await;
    let mut world = World::start(plan(&[], Some(server)));
    push(&world, "example.com");
    assert_eq!(world.exchange(validation("example.com")).await.bytes, b"");
    world.ended_by(Reason::NoLease).await;
    assert!(heard.try_recv().is_err());
}

/// Completes the handshake of a validation as openssl does, with a request after it.
async fn openssl(world: &World, name: &str) -> String {
    let address = world.address.to_string();
    let run = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", name])
        .args(["-alpn", "acme-tls/1", "-ign_eof"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, run).await.expect("openssl").unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_is_answered_here_for_whoever_a_window_or_the_list_lets_in() {
    let (server, mut heard) = site_server().await;
    for allow in [&[][..], &["127.0.0.0/8"]] {
        let mut world = World::start(plan(allow, Some(server)));
        push(&world, "example.com");
        if allow.is_empty() {
            open(&world, 3600);
        }
        let said = openssl(&world, "example.com").await;
        assert!(said.contains("ALPN protocol: acme-tls/1"), "{said}");
        let event = world.ended_by(Reason::Answered).await;
        assert_eq!(event.identifier.as_deref(), Some("example.com"));
        assert_eq!(event.thumbprint.as_deref(), Some(THUMBPRINT));
        assert_eq!(event.lease.is_some(), allow.is_empty());
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_of_another_account_is_not_given() {
    let mut own = site(&["example.com"]);
    own.accounts = vec![Thumbprint::parse(&[b'x'; 43]).unwrap()];
    let mut world = World::start(Plan {
        sites: vec![(own, Source::Pushed)],
        ..plan(&[], None)
    });
    push(&world, "example.com");
    open(&world, 3600);
    assert_eq!(world.exchange(validation("example.com")).await.bytes, b"");
    let event = world.ended_by(Reason::ForeignAccount).await;
    assert_eq!(event.thumbprint.as_deref(), Some(THUMBPRINT));
}

#[tokio::test]
async fn an_upstream_responder_is_asked_only_where_a_window_covers_the_name() {
    let (responder, mut heard) = site_server().await;
    let plan = Plan {
        tls_sources: vec![Some(responder)],
        ..plan(&[], None)
    };
    let mut world = World::start(plan);
    let mut other = lease("other", world.port(), Duration::from_secs(3600));
    other.scope.identifiers = Some(vec![identifier("other.test")]);
    world.change_windows(|windows| windows.adopt(other));
    assert_eq!(world.exchange(validation("example.com")).await.bytes, b"");
    world.ended_by(Reason::NotCovered).await;
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        server_at(listener.local_addr().unwrap())
    };
    for (server, reason) in [(Some(gone), Reason::UpstreamGone), (None, Reason::NoServer)] {
        let mut world = World::start(plan(&["127.0.0.0/8"], server));
        assert_eq!(world.exchange(visitor("example.com")).await.bytes, b"");
        let event = world.ended_by(reason).await;
        assert_eq!(event.identifier.as_deref(), Some("example.com"));
    }
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_not_waited_for() {
    tokio::time::pause();
    let mut world = World::start(plan(&["127.0.0.0/8"], None));
    let begun = Instant::now();
    let mut stream = world.connect().await;
    stream
        .write_all(&visitor("example.com")[..40])
        .await
        .unwrap();
    world.holds(1).await;
    world.ended_by(Reason::HelloTimeout).await;
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn hellos_are_waited_for_two_seconds_while_most_places_are_taken() {
    tokio::time::pause();
    let mut plan = plan(&["127.0.0.0/8"], None);
    plan.settings.tls = Limits {
        total: 16,
        per_source: 16,
    };
    let mut world = World::start(plan);
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(world.connect().await);
    }
    world.holds(12).await;
    let begun = Instant::now();
    world.ended_by(Reason::HelloTimeout).await;
    assert_eq!(begun.elapsed().as_secs(), 2, "that of the last one");
}

#[tokio::test]
async fn a_responder_that_hangs_is_waited_for_twenty_seconds() {
    // It is connected to, by the kernel, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::start(Plan {
        tls_sources: vec![Some(server_at(listener.local_addr().unwrap()))],
        ..plan(&["127.0.0.0/8"], None)
    });
    let mut stream = world.connect().await;
    stream.write_all(&validation("example.com")).await.unwrap();
    let (mut responder, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; validation("example.com").len()];
    responder.read_exact(&mut hello).await.unwrap();
    tokio::time::pause();
    let begun = Instant::now();
    world.ended_by(Reason::UpstreamSlow).await;
    let waited = begun.elapsed();
    assert!((15..=20).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
}

#[tokio::test]
async fn a_visitor_and_a_server_that_are_silent_are_parted_after_idle_timeout() {
    let (server, _heard) = site_server().await;
    let mut plan = plan(&["127.0.0.0/8"], Some(server));
    plan.settings.idle_timeout = Duration::from_secs(20);
    let mut world = World::start(plan);
    let mut stream = world.connect().await;
    stream.write_all(&visitor("example.com")).await.unwrap();
    let mut got = vec![0; SECRET.len()];
    stream.read_exact(&mut got).await.unwrap();
    tokio::time::pause();
    let begun = Instant::now();
    world.ended_by(Reason::Passed).await;
    let waited = begun.elapsed();
    assert!((15..=20).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
}

#[tokio::test]
async fn what_a_window_let_in_ends_with_it() {
    tokio::time::pause();
    let mut world = World::start(plan(&[], None));
    open(&world, 3);
    let mut stream = world.connect().await;
    stream
        .write_all(&visitor("example.com")[..40])
        .await
        .unwrap();
    world.holds(1).await;
    let begun = Instant::now();
    world.ended_by(Reason::WindowClosed).await;
    assert!(begun.elapsed() <= Duration::from_secs(3) + GRACE + Duration::from_millis(200));
    // Closed before its time it is the same.
    open(&world, 3600);
    let mut stream = world.connect().await;
    stream
        .write_all(&visitor("example.com")[..40])
        .await
        .unwrap();
    world.holds(1).await;
    let name = LeaseName::parse("test").unwrap();
    world.change_windows(|windows| drop(windows.release(&name, now())));
    let begun = Instant::now();
    world.ended_by(Reason::WindowClosed).await;
    assert!(begun.elapsed() <= GRACE + Duration::from_millis(200));
}

#[tokio::test]
async fn who_is_taken_off_the_allow_list_is_cut() {
    let (server, _heard) = site_server().await;
    let mut world = World::start(plan(&["127.0.0.0/8"], Some(server)));
    let mut stream = world.connect().await;
    stream.write_all(&visitor("example.com")).await.unwrap();
    let mut got = vec![0; SECRET.len()];
    stream.read_exact(&mut got).await.unwrap();
    // A reload that leaves the peer on the list changes nothing.
    world.reload(plan(&["127.0.0.1/32"], Some(server)));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(world.front.held_connections(), 1);
    world.reload(plan(&["192.0.2.0/24"], Some(server)));
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    world.ended_by(Reason::NotAllowed).await;
}

#[tokio::test]
async fn tls_has_places_of_its_own() {
    let mut world = World::start(Plan {
        settings: Settings {
            tls: Limits {
                total: 100,
                per_source: 1,
            },
            ..Settings::default()
        },
        ..plan(&["127.0.0.0/8"], None)
    });
    let held: TcpStream = world.connect().await;
    world.holds(1).await;
    assert_eq!(world.exchange(visitor("example.com")).await.bytes, b"");
    world.ended_by(Reason::SourceLimit).await;
    drop(held);
    world.ended_by(Reason::PeerGone).await;
}

/// A header of the PROXY protocol, version 1, from this address.
fn from_balancer(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 203.0.113.1 40000 443\r\n").into_bytes()
}

/// A balancer on loopback, which the allow-list has; 192.0.2.0/24 is on it as well.
fn behind_a_balancer(server: Option<Server>) -> Plan {
    let mut plan = plan(&["127.0.0.0/8", "192.0.2.0/24"], server);
    plan.settings.protocol_from = AllowList::new(["127.0.0.1/32".parse().unwrap()]);
    plan
}

#[tokio::test]
async fn behind_a_balancer_the_real_peer_decides() {
    let (server, mut heard) = site_server().await;
    let mut world = World::start(behind_a_balancer(Some(server)));
    let bytes = [from_balancer("192.0.2.7"), visitor("example.com")].concat();
    for cut in [1, 20, from_balancer("192.0.2.7").len(), bytes.len() - 1] {
        let mut stream = world.connect().await;
        stream.write_all(&bytes[..cut]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&bytes[cut..]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, SECRET, "{cut}");
        let all = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(
            all,
            visitor("example.com"),
            "the header is not the server's"
        );
        let event = world.ended_by(Reason::Passed).await;
        assert_eq!(event.peer.to_string(), "192.0.2.7");
    }
    // That the balancer is on the list lets nobody else in.
    let foreign = [from_balancer("198.51.100.9"), visitor("example.com")].concat();
    assert_eq!(world.exchange(&foreign).await.bytes, b"");
    let event = world.ended_by(Reason::NoLease).await;
    assert_eq!(event.peer.to_string(), "198.51.100.9");
    open(&world, 3600);
    push(&world, "example.com");
    assert_eq!(world.exchange(&foreign).await.bytes, b"");
    world.ended_by(Reason::NotAllowed).await;
    assert!(heard.try_recv().is_err());
    for bytes in [
        visitor("example.com"),
        b"PROXY TCP4 192.0.2.7".repeat(9),
        b"PROXY TCP6 192.0.2.7 203.0.113.1 1 2\r\n".to_vec(),
    ] {
        assert_eq!(world.exchange(&bytes).await.bytes, b"");
        let event = world.ended_by(Reason::ProxyHeader).await;
        assert_eq!(event.peer.to_string(), "127.0.0.1");
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_window_ends_for_the_real_peer_too() {
    tokio::time::pause();
    let mut world = World::start(behind_a_balancer(None));
    open(&world, 3);
    let mut stream = world.connect().await;
    let bytes = [from_balancer("198.51.100.9"), visitor("example.com")].concat();
    stream.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    world.holds(1).await;
    let event = world.ended_by(Reason::WindowClosed).await;
    assert_eq!(event.peer.to_string(), "198.51.100.9");
    assert!(event.lease.is_some());
}

#[tokio::test]
async fn a_balancer_that_says_nothing_is_not_waited_for() {
    tokio::time::pause();
    let mut world = World::start(behind_a_balancer(None));
    let begun = Instant::now();
    let _stream = world.connect().await;
    world.holds(1).await;
    world.ended_by(Reason::ProxyHeader).await;
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn servers_are_told_who_the_visitor_is_if_they_want_to_know() {
    for (version, signature) in [
        (ProxyVersion::V1, &b"PROXY TCP4 "[..]),
        (ProxyVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11"),
    ] {
        let (server, mut heard) = site_server().await;
        let server = Server {
            proxy_protocol: Some(version),
            ..server
        };
        let world = World::start(behind_a_balancer(Some(server)));
        let mut stream = world.connect().await;
        let bytes = [from_balancer("192.0.2.7"), visitor("example.com")].concat();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, SECRET);
        let all = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert!(all.starts_with(signature));
        assert!(all.ends_with(&visitor("example.com")));
        let header = match proxy_protocol::parse(&all) {
            proxy_protocol::Parsed::Complete(header) => header,
            other => panic!("{other:?}"),
        };
        let ends = header.ends.unwrap();
        assert_eq!(ends.source.to_string(), "192.0.2.7:40000");
        assert_eq!(ends.destination.to_string(), "203.0.113.1:443");
    }
}
