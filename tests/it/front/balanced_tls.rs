//! Port 443 behind balancers that speak the PROXY protocol, and servers that are told in turn.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use acmegate::front::{Refusal, Servers, Settings, Speaks};
use acmegate::gate::event::Ends;
use acmegate::gate::tls::{ProxyVersion, Server};
use acmegate::gate::{Exposure, Reason};
use acmegate::proxy_protocol::write;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::balanced::list;
use crate::harness::{PATIENCE, Plan, World, lease, read_reply};
use crate::lab::hello::ClientHello;

const BALANCER: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 9];
/// Who is on the allow-list, and who is not.
const LISTED: &str = "203.0.113.77";
const FOREIGN: &str = "198.51.100.7";

/// A server that hands on everything it is told, once the visitor has done.
async fn site_server() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = told.send(all);
        }
    });
    (address, heard)
}

/// The balancer and one network are on the allow-list, and there is no window.
fn plan(server: Option<Server>) -> Plan {
    Plan {
        speaks: Speaks::Tls,
        exposure: Exposure::Windowed,
        allow: list(&["127.0.0.0/8", "203.0.113.0/24"]),
        servers: Servers {
            by_site: Vec::new(),
            otherwise: server,
        },
        settings: Settings {
            protocol_from: list(&["127.0.0.1/32"]),
            // They are for HTTP alone.
            headers_from: list(&["203.0.113.77/32"]),
            ..Settings::default()
        },
        ..Plan::default()
    }
}

fn header(source: &str, version: ProxyVersion) -> Vec<u8> {
    let ends = Ends {
        source: SocketAddr::new(source.parse().unwrap(), 40000),
        destination: "203.0.113.80:443".parse().unwrap(),
    };
    write(version, &ends)
}

fn visitor() -> Vec<u8> {
    let hello = ClientHello::new().name("example.com");
    hello.alpn(&["h2", "http/1.1"]).record()
}

#[tokio::test]
async fn a_listed_visitor_behind_a_balancer_reaches_the_server_which_is_told_who_it_is() {
    let (address, mut heard) = site_server().await;
    for (from, to) in [
        (ProxyVersion::V1, None),
        (ProxyVersion::V1, Some(ProxyVersion::V2)),
        (ProxyVersion::V2, Some(ProxyVersion::V1)),
    ] {
        let mut world = World::start(plan(Some(Server {
            address,
            proxy_protocol: to,
        })));
        let before = header(LISTED, from);
        let bytes = [before.as_slice(), &visitor()].concat();
        for cut in (0..before.len() + 9).step_by(4) {
            let mut stream = world.connect_from(BALANCER).await;
            stream.set_nodelay(true).unwrap();
            stream.write_all(&bytes[..cut]).await.unwrap();
            world.holds(1).await;
            stream.write_all(&bytes[cut..]).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(read_reply(&mut stream).await.bytes, b"");
            let all = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
            let told = to.map_or_else(Vec::new, |version| header(LISTED, version));
            assert_eq!(all, [told, visitor()].concat(), "{from:?} {to:?} {cut}");
            let event = world.ended_by(Reason::Passed).await;
            assert_eq!(event.peer.to_string(), LISTED);
            world.holds(0).await;
        }
    }
}

#[tokio::test]
async fn a_foreign_peer_behind_a_listed_balancer_gets_nothing_of_the_sites() {
    let (address, mut heard) = site_server().await;
    let mut world = World::start(plan(Some(address.into())));
    let bytes = [header(FOREIGN, ProxyVersion::V2), visitor()].concat();
    for reason in [Reason::NoLease, Reason::NotAllowed] {
        let mut stream = world.connect_from(BALANCER).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, b"");
        let event = world.ended_by(reason).await;
        assert_eq!(event.peer.to_string(), FOREIGN);
        // The second one comes inside a window, which is for validations.
        let open = lease("test", world.port(), Duration::from_secs(3600));
        world.change_windows(|windows| windows.adopt(open));
    }
    assert!(heard.try_recv().is_err());
}

#[tokio::test]
async fn a_header_that_is_none_gets_not_even_an_alert_and_a_strangers_is_no_tls() {
    let mut plan = plan(None);
    plan.settings.refusal = Refusal::Alert;
    let mut world = World::start(plan);
    let announced = [header(LISTED, ProxyVersion::V1), visitor()].concat();
    for (from, bytes, reason) in [
        (BALANCER, visitor(), Reason::ProxyHeader),
        (BALANCER, b"PROXY TCP5 ".repeat(9), Reason::ProxyHeader),
        (STRANGER, announced, Reason::NotTls),
    ] {
        let mut stream = world.connect_from(from).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.bytes, b"");
        let event = world.ended_by(reason).await;
        assert_eq!(event.peer, IpAddr::from(from));
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_has_three_seconds_at_least() {
    let mut plan = plan(None);
    plan.settings.hello_timeout = Duration::from_secs(1);
    let mut world = World::start(plan);
    for bytes in [&b""[..], b"PROXY TCP4 203"] {
        let begun = Instant::now();
        let mut stream = world.connect_from(BALANCER).await;
        stream.write_all(bytes).await.unwrap();
        world.holds(1).await;
        assert_eq!(read_reply(&mut stream).await.bytes, b"");
        let three = Duration::from_secs(3);
        assert!((three..three + Duration::from_millis(200)).contains(&begun.elapsed()));
        world.ended_by(Reason::ProxyHeader).await;
    }
}

#[tokio::test]
async fn each_real_peer_has_its_own_places() {
    let mut plan = plan(None);
    plan.settings.tls.per_source = 1;
    let mut world = World::start(plan);
    let mut held = world.connect_from(BALANCER).await;
    let begun = [header(LISTED, ProxyVersion::V1), visitor()[..9].to_vec()].concat();
    held.write_all(&begun).await.unwrap();
    world.holds(1).await;
    let mut waiting = world.connect_from(BALANCER).await;
    world.holds(2).await;
    waiting.write_all(&begun).await.unwrap();
    assert_eq!(read_reply(&mut waiting).await.bytes, b"");
    let event = world.ended_by(Reason::SourceLimit).await;
    assert_eq!(event.peer.to_string(), LISTED);
    let mut other = world.connect_from(BALANCER).await;
    let bytes = [header("203.0.113.78", ProxyVersion::V1), visitor()].concat();
    other.write_all(&bytes).await.unwrap();
    read_reply(&mut other).await;
    world.ended_by(Reason::NoServer).await;
}
