//! Behind reverse proxies: whom their fields name is the peer, and nobody else's fields are read.

use std::net::IpAddr;
use std::time::Duration;

use acmegate::front::Settings;
use acmegate::gate::window::GRACE;
use acmegate::gate::{Exposure, Reason};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::balanced::list;
use crate::harness::{
    Plan, TOKEN, World, inner_server, lease, now, read_reply, read_request, site, validation,
};

const PROXY: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 9];
const REAL: &str = "203.0.113.77";

/// A front that reverse proxies stand before; in mode `gate-only`.
fn behind() -> Plan {
    Plan {
        settings: Settings {
            headers_from: list(&["127.0.0.1/32", "10.0.0.2/32"]),
            ..Settings::default()
        },
        ..Plan::default()
    }
}

fn with_field(host: &str, field: &str) -> String {
    validation(host, TOKEN).replacen("\r\n", &format!("\r\n{field}\r\n"), 1)
}

#[tokio::test]
async fn the_peer_is_whom_the_fields_name() {
    let mut world = World::start(behind());
    for (fields, real) in [
        ("X-Forwarded-For: 203.0.113.77", REAL),
        ("X-Forwarded-For: 192.0.2.66, 203.0.113.77, 10.0.0.2", REAL),
        ("X-Forwarded-For: 2001:db8::77", "2001:db8::77"),
        ("Forwarded: for=192.0.2.66, for=203.0.113.77;by=_x", REAL),
        ("Forwarded: for=\"[2001:db8::77]:4711\"", "2001:db8::77"),
        (
            "Forwarded: for=203.0.113.77\r\nX-Forwarded-For: 203.0.113.77",
            REAL,
        ),
    ] {
        let reply = world.exchange(with_field("example.com", fields)).await;
        assert_eq!(reply.status(), Some(200), "{fields}");
        let event = world.ended_by(Reason::Answered).await;
        assert_eq!(event.peer.to_string(), real, "{fields}");
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_say_gets_a_400() {
    let mut world = World::start(behind());
    for fields in [
        "Accept: */*",
        "X-Forwarded-For: unknown",
        "X-Forwarded-For: 203.0.113.77, 10.0.0.2, somebody",
        "X-Forwarded-For: 10.0.0.2",
        "Forwarded: for=_hidden",
        "Forwarded: for=\"203.0.113.77",
        "Forwarded: for=10.9.9.9\r\nX-Forwarded-For: 203.0.113.77",
    ] {
        let reply = world.exchange(with_field("example.com", fields)).await;
        assert_eq!(reply.status(), Some(400), "{fields}");
        let event = world.ended_by(Reason::Forwarded).await;
        assert_eq!(event.peer, IpAddr::from(PROXY), "{fields}");
    }
    // A head that is none is refused for that.
    let reply = world.exchange("GET /\t HTTP/1.1\r\n\r\n").await;
    assert_eq!(reply.status(), Some(400));
    world.ended_by(Reason::MalformedHead).await;
}

#[tokio::test]
async fn nobody_elses_fields_are_read() {
    let mut world = World::start(behind());
    for field in [
        "X-Forwarded-For: 10.0.0.1",
        "Forwarded: for=10.0.0.1",
        "Forwarded: for=\"",
    ] {
        let mut stream = world.connect_from(STRANGER).await;
        let request = with_field("example.com", field);
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status(), Some(200));
        let event = world.ended_by(Reason::Answered).await;
        assert_eq!(event.peer, IpAddr::from(STRANGER));
    }
}

#[tokio::test]
async fn behind_a_balancer_they_are_read_if_it_names_a_proxy() {
    let mut plan = behind();
    plan.settings.protocol_from = list(&["127.0.0.0/8"]);
    let mut world = World::start(plan);
    let request = with_field("example.com", "X-Forwarded-For: 203.0.113.77");
    for (line, real) in [
        ("PROXY TCP4 10.0.0.2 198.51.100.80 40000 80\r\n", REAL),
        ("PROXY TCP4 10.0.0.9 198.51.100.80 40000 80\r\n", "10.0.0.9"),
    ] {
        let reply = world.exchange(format!("{line}{request}")).await;
        assert_eq!(reply.status(), Some(200));
        assert_eq!(world.ended().await.peer.to_string(), real);
    }
}

#[tokio::test]
async fn a_foreign_peer_behind_an_allowed_proxy_needs_a_window() {
    let plan = |allow: &[&str]| Plan {
        exposure: Exposure::Windowed,
        allow: list(allow),
        ..behind()
    };
    let mut world = World::start(plan(&["127.0.0.1/32"]));
    let request = with_field("example.com", "X-Forwarded-For: 203.0.113.77");
    assert_eq!(world.exchange(&request).await.bytes, b"");
    let event = world.ended_by(Reason::NoLease).await;
    assert_eq!(event.peer.to_string(), REAL);

    let open = lease("test", world.port(), Duration::from_secs(3600));
    world.change_windows(|windows| windows.adopt(open));
    assert_eq!(world.exchange(&request).await.status(), Some(200));
    let event = world.ended_by(Reason::Answered).await;
    assert_eq!(event.lease.as_deref(), Some("test"));

    world.change_windows(|windows| windows.release_all(now()));
    world.reload(plan(&["127.0.0.1/32", "203.0.113.0/24"]));
    assert_eq!(world.exchange(&request).await.status(), Some(200));
    assert_eq!(world.ended_by(Reason::Answered).await.lease, None);
}

#[tokio::test(start_paused = true)]
async fn a_window_ends_its_look_up_behind_an_allowed_proxy() {
    let (address, mut seen) = inner_server(|mut stream, seen| async move {
        let _ = seen.send(read_request(&mut stream).await);
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = acmegate::answer::Upstream::new(address);
    let mut plan = behind();
    plan.sites = vec![(
        site(&["inner.test"]),
        acmegate::answer::Source::Upstream(upstream),
    )];
    plan.exposure = Exposure::Windowed;
    plan.allow = list(&["127.0.0.1/32"]);
    plan.settings.http.per_source = 1;
    let mut world = World::start(plan);
    let open = lease("test", world.port(), Duration::from_secs(3600));
    world.change_windows(|windows| windows.adopt(open));
    let mut stream = world.connect().await;
    let request = with_field("inner.test", "X-Forwarded-For: 203.0.113.77");
    stream.write_all(request.as_bytes()).await.unwrap();
    seen.recv().await.unwrap();
    // The place that it holds is the real peer's, who has no other.
    assert_eq!(world.exchange(&request).await.bytes, b"");
    let event = world.ended_by(Reason::SourceLimit).await;
    assert_eq!(event.peer.to_string(), REAL);
    let other = with_field("other.test", "X-Forwarded-For: 203.0.113.78");
    assert_eq!(world.exchange(&other).await.status(), Some(421));
    world.ended_by(Reason::UnknownHost).await;

    let released = Instant::now();
    world.change_windows(|windows| windows.release_all(now()));
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    let late = GRACE + Duration::from_millis(200);
    assert!((GRACE..late).contains(&released.elapsed()));
    let event = world.ended_by(Reason::WindowClosed).await;
    assert_eq!(event.peer.to_string(), REAL);
}
