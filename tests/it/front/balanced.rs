//! Behind balancers that speak the PROXY protocol: whom they name is the peer, and nobody else may
//! name anybody.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use acmegate::front::Settings;
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::event::Ends;
use acmegate::gate::lease::{Entrance, Families, LeaseName};
use acmegate::gate::tls::ProxyVersion;
use acmegate::gate::window::GRACE;
use acmegate::gate::{Exposure, Reason};
use acmegate::proxy_protocol::{MAX_V1_BYTES, MAX_V2_BYTES, write};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Plan, TOKEN, World, lease, now, read_reply, validation};

const BALANCER: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 9];
const REAL: &str = "203.0.113.77";
const REAL_V6: &str = "2001:db8::77";
/// What a balancer sends for itself (LOCAL).
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

pub fn list(prefixes: &[&str]) -> AllowList {
    AllowList::new(prefixes.iter().map(|prefix| prefix.parse().unwrap()))
}

/// A front that a balancer stands before; in mode `gate-only`.
fn behind() -> Plan {
    Plan {
        settings: Settings {
            protocol_from: list(&["127.0.0.1/32"]),
            ..Settings::default()
        },
        ..Plan::default()
    }
}

/// The same in a mode with windows, with this allow-list.
fn shut(allow: &[&str]) -> Plan {
    Plan {
        exposure: Exposure::Windowed,
        allow: list(allow),
        ..behind()
    }
}

fn header(version: ProxyVersion, source: &str) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    let destination = match source {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, 80]),
        IpAddr::V6(_) => "2001:db8::80".parse().unwrap(),
    };
    let ends = Ends {
        source: SocketAddr::new(source, 40000),
        destination: SocketAddr::new(destination, 80),
    };
    write(version, &ends)
}

fn v1(source: &str) -> Vec<u8> {
    header(ProxyVersion::V1, source)
}

fn with_validation(header: &[u8]) -> Vec<u8> {
    [header, validation("example.com", TOKEN).as_bytes()].concat()
}

async fn send(world: &World, bytes: &[u8]) -> TcpStream {
    let mut stream = world.connect_from(BALANCER).await;
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn the_peer_is_whom_the_header_names_however_it_is_cut() {
    let mut world = World::start(behind());
    for (version, real) in [
        (ProxyVersion::V1, REAL),
        (ProxyVersion::V1, REAL_V6),
        (ProxyVersion::V2, REAL),
        (ProxyVersion::V2, REAL_V6),
    ] {
        let header = header(version, real);
        let bytes = with_validation(&header);
        // Every cut of the header, the one right behind it, and some in the head.
        for cut in (0..header.len() + 4).chain([bytes.len() - 1]) {
            let mut stream = send(&world, &bytes[..cut]).await;
            world.holds(1).await;
            stream.write_all(&bytes[cut..]).await.unwrap();
            assert_eq!(read_reply(&mut stream).await.status(), Some(200), "{cut}");
            let event = world.ended_by(Reason::Answered).await;
            assert_eq!(event.peer.to_string(), real, "{cut}");
            world.holds(0).await;
        }
        // And each octet by itself.
        let mut stream = world.connect_from(BALANCER).await;
        stream.set_nodelay(true).unwrap();
        for octet in &bytes {
            stream.write_all(&[*octet]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(read_reply(&mut stream).await.status(), Some(200));
        assert_eq!(world.ended().await.peer.to_string(), real);
    }
}

#[tokio::test]
async fn a_window_of_one_address_admits_nobody_behind_a_balancer() {
    let mut world = World::start(shut(&["127.0.0.1/32"]));
    let mut of_one = lease("one", world.port(), Duration::from_secs(3600));
    of_one.scope.entrance = Entrance::Address(IpAddr::from(BALANCER));
    world.change_windows(|windows| windows.adopt(of_one));
    let mut stream = send(&world, &with_validation(&v1(REAL))).await;
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    world.ended_by(Reason::NoLease).await;
    // Who reaches that address by itself comes in.
    let mut stream = world.connect_from(STRANGER).await;
    let bytes = validation("example.com", TOKEN);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
    world.ended_by(Reason::Answered).await;
}

#[tokio::test]
async fn a_mapped_address_is_the_ipv4_that_it_is() {
    let mut world = World::start(behind());
    let line = "PROXY TCP6 ::ffff:203.0.113.77 2001:db8::80 40000 80\r\n";
    let mut stream = send(&world, &with_validation(line.as_bytes())).await;
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
    assert_eq!(world.ended().await.peer.to_string(), REAL);
}

#[tokio::test]
async fn a_header_that_is_none_gets_not_a_byte() {
    let mut world = World::start(behind());
    let long_v1 = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_BYTES - 15));
    let mut long_v2 = LOCAL[..14].to_vec();
    long_v2.extend(u16::try_from(MAX_V2_BYTES - 15).unwrap().to_be_bytes());
    let datagram = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c";
    for bytes in [
        validation("example.com", TOKEN).as_bytes(),
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 203.0.113.77 198.51.100.80 40000 80\n",
        b"PROXY TCP4 203.0.113.77 198.51.100.80 40000 080\r\nGET / HTTP/1.1\r\n\r\n",
        b"proxy",
        long_v1.as_bytes(),
        &long_v2,
        datagram,
    ] {
        let mut stream = send(&world, bytes).await;
        assert_eq!(read_reply(&mut stream).await.bytes, b"", "{bytes:?}");
        let event = world.ended_by(Reason::ProxyHeader).await;
        assert_eq!(event.peer, IpAddr::from(BALANCER));
    }
}

#[tokio::test]
async fn a_balancer_that_goes_within_its_header_is_gone() {
    let mut world = World::start(behind());
    for bytes in [&b""[..], b"PROXY TCP4 203"] {
        drop(send(&world, bytes).await);
        let event = world.ended_by(Reason::PeerGone).await;
        assert_eq!(event.peer, IpAddr::from(BALANCER));
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_has_three_seconds_at_least_and_else_the_time_of_a_head() {
    for (head_timeout, waited) in [(1, 3), (9, 9)] {
        let mut plan = behind();
        plan.settings.head_timeout = Duration::from_secs(head_timeout);
        let mut world = World::start(plan);
        for bytes in [&b""[..], b"PROXY TCP4 203", &LOCAL[..15]] {
            let begun = Instant::now();
            let mut stream = send(&world, bytes).await;
            world.holds(1).await;
            assert_eq!(read_reply(&mut stream).await.bytes, b"");
            let waited = Duration::from_secs(waited);
            let late = waited + Duration::from_millis(200);
            assert!((waited..late).contains(&begun.elapsed()), "{bytes:?}");
            world.ended_by(Reason::ProxyHeader).await;
        }
        // With the header there, a slow head is a slow head, and the real peer's.
        let begun = [&v1(REAL)[..], b"GET / HTTP/1.1\r\n"].concat();
        let mut stream = send(&world, &begun).await;
        assert_eq!(read_reply(&mut stream).await.status(), Some(408));
        let event = world.ended_by(Reason::HeadTimeout).await;
        assert_eq!(event.peer.to_string(), REAL);
    }
}

#[tokio::test]
async fn nobody_else_is_asked_for_a_header_or_believed_one() {
    let mut world = World::start(behind());
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut stream = world.connect_from(STRANGER).await;
        let bytes = with_validation(&header(version, "10.0.0.1"));
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status(), Some(400));
        let event = world.ended_by(Reason::MalformedHead).await;
        assert_eq!(event.peer, IpAddr::from(STRANGER));
    }
    let mut stream = world.connect_from(STRANGER).await;
    stream.write_all(&with_validation(b"")).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
    assert_eq!(world.ended().await.peer, IpAddr::from(STRANGER));
}

#[tokio::test]
async fn a_balancer_that_speaks_for_itself_is_a_peer_like_others() {
    let mut world = World::start(shut(&["127.0.0.1/32"]));
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut stream = send(&world, &with_validation(header)).await;
        assert_eq!(read_reply(&mut stream).await.status(), Some(200));
        let event = world.ended_by(Reason::Answered).await;
        assert_eq!(event.peer, IpAddr::from(BALANCER));
        // What a health check does.
        drop(send(&world, header).await);
        world.ended_by(Reason::PeerGone).await;
    }
    // A second header is no request.
    let twice = with_validation(&[LOCAL, &v1(REAL)].concat());
    let mut stream = send(&world, &twice).await;
    assert_eq!(read_reply(&mut stream).await.status(), Some(400));
    world.ended_by(Reason::MalformedHead).await;
}

#[tokio::test]
async fn a_foreign_peer_behind_an_allowed_balancer_needs_a_window_of_its_family() {
    let mut world = World::start(shut(&["127.0.0.1/32"]));
    let ask = async |world: &mut World, real: &str| {
        let mut stream = send(world, &with_validation(&v1(real))).await;
        let reply = read_reply(&mut stream).await;
        let event = world.ended().await;
        assert_eq!(event.peer.to_string(), real);
        assert_eq!(reply.bytes.is_empty(), event.reason == Reason::NoLease);
        (event.reason, event.lease)
    };
    for real in [REAL, REAL_V6] {
        assert_eq!(ask(&mut world, real).await, (Reason::NoLease, None));
    }
    let mut open = lease("test", world.port(), Duration::from_secs(3600));
    open.scope.families = Families {
        v4: false,
        v6: true,
    };
    world.change_windows(|windows| windows.adopt(open));
    let name = Some("test".to_owned());
    assert_eq!(ask(&mut world, REAL_V6).await, (Reason::Answered, name));
    assert_eq!(ask(&mut world, REAL).await, (Reason::NoLease, None));
    world.change_windows(|windows| windows.release_all(now()));
    assert_eq!(ask(&mut world, REAL_V6).await, (Reason::NoLease, None));
    // A list that holds the real peer needs no window, and the balancer's own place on it is not his.
    world.reload(shut(&["127.0.0.1/32", "203.0.113.0/24"]));
    assert_eq!(ask(&mut world, REAL).await, (Reason::Answered, None));
    assert_eq!(ask(&mut world, REAL_V6).await, (Reason::NoLease, None));
}

#[tokio::test]
async fn a_balancer_that_nothing_lets_in_is_not_heard() {
    let mut world = World::start(shut(&["203.0.113.0/24"]));
    let mut stream = world.connect_from(BALANCER).await;
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    let event = world.ended_by(Reason::NoLease).await;
    assert_eq!(event.peer, IpAddr::from(BALANCER));
}

#[tokio::test(start_paused = true)]
async fn a_window_ends_what_it_let_in_behind_an_allowed_balancer() {
    let mut world = World::start(shut(&["127.0.0.0/8"]));
    let hour = Duration::from_secs(3600);
    let open = lease("test", world.port(), hour);
    world.change_windows(|windows| windows.adopt(open));
    let begun = [&v1(REAL)[..], b"GET / HTTP/1.1\r\n"].concat();
    let mut stream = send(&world, &begun).await;
    world.holds(1).await;
    // The real peer is known only once its bytes were read.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let released = Instant::now();
    let name = LeaseName::parse("test").unwrap();
    world.change_windows(|windows| {
        windows.release(&name, now());
    });
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    let late = GRACE + Duration::from_millis(200);
    assert!((GRACE..late).contains(&released.elapsed()));
    let event = world.ended_by(Reason::WindowClosed).await;
    assert_eq!(event.peer.to_string(), REAL);
    assert_eq!(event.lease.as_deref(), Some("test"));
}

#[tokio::test]
async fn each_real_peer_has_its_own_share_of_connections_and_the_balancer_none() {
    let mut plan = behind();
    plan.settings.http.per_source = 2;
    let mut world = World::start(plan);
    // Of these it is not known yet whose they are.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(send(&world, b"PROXY ").await);
    }
    world.holds(3).await;
    let begun = |real: &str| [&v1(real)["PROXY ".len()..], b"GET / HTTP/1.1\r\n"].concat();
    for stream in &mut waiting {
        stream.write_all(&begun(REAL)).await.unwrap();
    }
    // Two of the three may stay.
    let event = world.ended_by(Reason::SourceLimit).await;
    assert_eq!(event.peer.to_string(), REAL);
    world.holds(2).await;
    let mut one_more = send(&world, &with_validation(&v1(REAL))).await;
    assert_eq!(read_reply(&mut one_more).await.bytes, b"");
    world.ended_by(Reason::SourceLimit).await;
    let mut other = send(&world, &with_validation(&v1("203.0.113.78"))).await;
    assert_eq!(read_reply(&mut other).await.status(), Some(200));
    world.ended_by(Reason::Answered).await;
    // Their places are given back.
    drop(waiting);
    for _ in 0..2 {
        world.ended_by(Reason::PeerGone).await;
    }
    let mut again = send(&world, &with_validation(&v1(REAL))).await;
    assert_eq!(read_reply(&mut again).await.status(), Some(200));
}

#[tokio::test]
async fn who_owes_a_header_owes_it_through_a_reload() {
    let mut world = World::start(behind());
    let mut before = send(&world, b"PROXY ").await;
    world.holds(1).await;
    world.reload(Plan::default());
    let mut after = send(&world, &with_validation(b"")).await;
    assert_eq!(read_reply(&mut after).await.status(), Some(200));
    assert_eq!(world.ended().await.peer, IpAddr::from(BALANCER));
    let rest = &with_validation(&v1(REAL))["PROXY ".len()..];
    before.write_all(rest).await.unwrap();
    assert_eq!(read_reply(&mut before).await.status(), Some(200));
    assert_eq!(world.ended().await.peer.to_string(), REAL);
}
