//! Caps and deadlines.
//!
//! Where the clock is paused it moves only when nothing is left to do, so that a deadline is met to
//! the millisecond without anybody waiting for it.

use std::time::Duration;

use acmegate::answer::{Source, Upstream, Webroot};
use acmegate::front::{Limits, Settings};
use acmegate::gate::Reason;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{
    PATIENCE, Plan, THUMBPRINT, TOKEN, World, answering, inner_server, ok, read_reply, site,
    validation,
};

fn settings(total: usize, per_source: usize) -> Plan {
    Plan {
        settings: Settings {
            http: Limits { total, per_source },
            ..Settings::default()
        },
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_validations_at_once_from_one_source_pass() {
    let directory = crate::answer::directory("a-hundred");
    let challenges = directory.join(".well-known/acme-challenge");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::write(challenges.join(TOKEN), format!("{TOKEN}.{THUMBPRINT}")).unwrap();
    let webroot = Source::Webroot(Webroot::open(&directory).unwrap());
    let mut world = World::start(Plan::of([(site(&["inner.test"]), webroot)]));
    let address = world.address;
    let mut peers = JoinSet::new();
    for _ in 0..100 {
        peers.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = validation("inner.test", TOKEN);
            stream.write_all(request.as_bytes()).await.unwrap();
            read_reply(&mut stream).await
        });
    }
    for reply in peers.join_all().await {
        assert_eq!(reply.status(), Some(200));
    }
    for _ in 0..100 {
        world.ended_by(Reason::Answered).await;
    }
}

#[tokio::test]
async fn the_connection_past_a_sources_limit_is_refused_and_other_sources_are_not() {
    let mut world = World::start(settings(1000, 256));
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(world.connect().await);
    }
    world.holds(256).await;
    let mut refused = world.connect().await;
    assert_eq!(read_reply(&mut refused).await.bytes, b"");
    let event = world.ended_by(Reason::SourceLimit).await;
    assert_eq!(event.peer.to_string(), "127.0.0.1");

    let mut other = world.connect_from([127, 0, 0, 2]).await;
    let request = validation("example.com", TOKEN);
    other.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut other).await.status(), Some(200));
    world.ended_by(Reason::Answered).await;

    // A place that is given back can be taken again.
    drop(held.pop());
    world.ended_by(Reason::PeerGone).await;
    world.holds(255).await;
    assert_eq!(world.exchange(&request).await.status(), Some(200));
}

#[tokio::test]
async fn all_sources_together_have_a_limit_too() {
    let mut world = World::start(settings(8, 4));
    let mut held = Vec::new();
    for source in [1, 2] {
        for _ in 0..4 {
            held.push(world.connect_from([127, 0, 0, source]).await);
        }
    }
    world.holds(8).await;
    let mut refused = world.connect_from([127, 0, 0, 3]).await;
    assert_eq!(read_reply(&mut refused).await.bytes, b"");
    world.ended_by(Reason::TotalLimit).await;
}

#[tokio::test]
async fn a_peer_that_goes_away_is_told_as_such() {
    let mut world = World::start(Plan::default());
    drop(world.connect().await);
    world.ended_by(Reason::PeerGone).await;
    let mut stream = world.connect().await;
    stream.write_all(b"GET / HT").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    world.ended_by(Reason::PeerGone).await;
    world.holds(0).await;
}

#[tokio::test]
async fn a_peer_that_asks_and_stops_sending_is_answered() {
    let world = World::start(Plan::default());
    let mut stream = world.connect().await;
    let request = validation("example.com", TOKEN);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
}

/// An octet a second, for ever.
async fn drip(world: &World) -> (Option<u16>, Duration) {
    let begun = Instant::now();
    let stream = world.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let dripping = tokio::spawn(async move {
        for octet in validation("example.com", TOKEN).as_bytes() {
            if writer.write_all(&[*octet]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        writer
    });
    let mut bytes = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes);
    let _ = read.await;
    let taken = begun.elapsed();
    dripping.abort();
    let reply = crate::harness::Reply {
        bytes,
        was_reset: false,
    };
    (reply.status(), taken)
}

fn is_about(taken: Duration, seconds: u64) -> bool {
    let expected = Duration::from_secs(seconds);
    (expected..expected + Duration::from_millis(200)).contains(&taken)
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_has_ten_seconds_however_it_drips() {
    let mut world = World::start(Plan::default());
    let (status, taken) = drip(&world).await;
    assert_eq!(status, Some(408));
    assert!(is_about(taken, 10), "{taken:?}");
    world.ended_by(Reason::HeadTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_head_has_two_seconds() {
    let mut world = World::start(settings(8, 8));
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(world.connect().await);
    }
    world.holds(5).await;
    let (status, taken) = drip(&world).await;
    assert_eq!(status, Some(408));
    assert!(is_about(taken, 2), "{taken:?}");
    world.ended_by(Reason::HeadTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn no_connection_lasts_longer_than_twenty_seconds() {
    let mut plan = settings(8, 8);
    plan.settings.head_timeout = Duration::from_secs(3600);
    let mut world = World::start(plan);
    let (status, taken) = drip(&world).await;
    assert_eq!(status, Some(408));
    assert!(is_about(taken, 20), "{taken:?}");
    world.ended_by(Reason::HeadTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_head_and_a_slow_upstream_share_the_twenty_seconds() {
    let (address, _seen) = inner_server(|stream, _seen| async move {
        sleep(PATIENCE * 10).await;
        drop(stream);
    })
    .await;
    let mut plan = Plan::of([(
        site(&["inner.test"]),
        Source::Upstream(Upstream::new(address)),
    )])
    .covered();
    plan.settings.head_timeout = Duration::from_secs(15);
    let mut world = World::start(plan);
    let begun = Instant::now();
    let mut stream = world.connect().await;
    let request = validation("inner.test", TOKEN);
    let (first, second) = request.as_bytes().split_at(50);
    stream.write_all(first).await.unwrap();
    sleep(Duration::from_secs(14)).await;
    stream.write_all(second).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(504));
    assert!(is_about(begun.elapsed(), 19), "{:?}", begun.elapsed());
    world.ended_by(Reason::UpstreamSlow).await;
}

#[tokio::test]
async fn both_families_are_served_and_an_ipv4_peer_is_never_told_as_a_mapped_address() {
    let listen = "::".parse().unwrap();
    let mut world = World::start(Plan {
        listen,
        ..Plan::default()
    });
    let request = validation("example.com", TOKEN);
    for address in ["127.0.0.1", "::1"] {
        let to = (address.parse::<std::net::IpAddr>().unwrap(), world.port());
        let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_reply(&mut stream).await.status(), Some(200));
        let event = world.ended_by(Reason::Answered).await;
        assert_eq!(event.peer.to_string(), address);
    }
}

#[tokio::test]
async fn a_stop_lets_held_connections_finish_and_then_cuts_them() {
    let (address, mut seen) = answering(ok(&format!("{TOKEN}.{THUMBPRINT}"))).await;
    let upstream = Source::Upstream(Upstream::new(address));
    let sites = [(site(&["inner.test"]), upstream)];
    let mut world = World::start_with(Plan::of(sites).covered(), Duration::from_millis(300));
    let mut finishing = world.connect().await;
    let mut idle = world.connect().await;
    world.holds(2).await;
    world.shutdown.send_replace(true);
    let request = validation("inner.test", TOKEN);
    finishing.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_reply(&mut finishing).await.status(), Some(200));
    world.ended_by(Reason::Answered).await;
    assert!(seen.recv().await.is_some());
    // Nobody is let in any more.
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
    assert_eq!(read_reply(&mut idle).await.bytes, b"");
    world.ended_by(Reason::Stopping).await;
    (&mut world.server).await.unwrap().unwrap();
    assert_eq!(world.front.held_connections(), 0);
}
