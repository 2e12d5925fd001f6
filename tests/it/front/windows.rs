//! Who may be heard, and until when. The clock is paused: grace and deadlines are met exactly.

use std::time::Duration;

use acmegate::gate::allow_list::AllowList;
use acmegate::gate::lease::LeaseName;
use acmegate::gate::window::GRACE;
use acmegate::gate::{Exposure, Reason};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, advance, sleep};

use crate::harness::{Plan, TOKEN, World, lease, read_reply, validation};

const HEAD_TIMEOUT: Duration = Duration::from_secs(18);

/// A front that keeps the world out, allow-list or not.
fn shut(allow: &[&str]) -> World {
    let mut plan = Plan {
        exposure: Exposure::Windowed,
        allow: AllowList::new(allow.iter().map(|prefix| prefix.parse().unwrap())),
        ..Plan::default()
    };
    plan.settings.head_timeout = HEAD_TIMEOUT;
    World::start(plan)
}

fn open(world: &World, seconds: u64) {
    let lease = lease("test", world.port(), Duration::from_secs(seconds));
    world.change_windows(|windows| windows.adopt(lease));
}

async fn begin(world: &World) -> (TcpStream, Instant) {
    let begun = Instant::now();
    let mut stream = world.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    world.holds(1).await;
    (stream, begun)
}

fn assert_about(taken: Duration, expected: Duration) {
    let late = expected + Duration::from_millis(200);
    assert!(
        (expected..late).contains(&taken),
        "{taken:?}, not {expected:?}"
    );
}

#[tokio::test]
async fn without_a_lease_nobody_is_heard() {
    let mut world = shut(&[]);
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.bytes, b"");
    let event = world.ended_by(Reason::NoLease).await;
    assert_eq!((event.identifier, event.lease), (None, None));

    open(&world, 60);
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.status(), Some(200));
    let event = world.ended_by(Reason::Answered).await;
    assert_eq!(event.lease.as_deref(), Some("test"));

    world.change_windows(|windows| windows.release_all(crate::harness::now()));
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.bytes, b"");
    world.ended_by(Reason::NoLease).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_expires_ends_what_it_admitted_after_its_grace() {
    let mut world = shut(&[]);
    open(&world, 3);
    let (mut stream, begun) = begin(&world).await;
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    assert_about(begun.elapsed(), Duration::from_secs(3) + GRACE);
    let event = world.ended_by(Reason::WindowClosed).await;
    assert_eq!(event.lease.as_deref(), Some("test"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_released_ends_it_after_its_grace_too() {
    let mut world = shut(&[]);
    open(&world, 3600);
    let (mut stream, _) = begin(&world).await;
    advance(Duration::from_secs(1)).await;
    let released = Instant::now();
    let name = LeaseName::parse("test").unwrap();
    world.change_windows(|windows| {
        windows.release(&name, crate::harness::now());
    });
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    assert_about(released.elapsed(), GRACE);
    world.ended_by(Reason::WindowClosed).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_within_the_grace_is_still_answered() {
    let mut world = shut(&[]);
    open(&world, 3600);
    let (mut stream, _) = begin(&world).await;
    world.change_windows(|windows| windows.release_all(crate::harness::now()));
    sleep(GRACE - Duration::from_millis(500)).await;
    stream
        .write_all(b"Host: example.com\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(301));
    world.ended_by(Reason::Redirected).await;
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_prolonged_keeps_what_it_admitted() {
    let mut world = shut(&[]);
    open(&world, 3);
    let (mut stream, begun) = begin(&world).await;
    sleep(Duration::from_secs(4)).await;
    open(&world, 60);
    assert_eq!(read_reply(&mut stream).await.status(), Some(408));
    assert_about(begun.elapsed(), HEAD_TIMEOUT);
    world.ended_by(Reason::HeadTimeout).await;
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_keeper_is_gone_ends_on_time() {
    let mut world = shut(&[]);
    open(&world, 3);
    let (mut stream, begun) = begin(&world).await;
    let (other, _) = tokio::sync::watch::channel(world.windows.borrow().clone());
    drop(std::mem::replace(&mut world.windows, other));
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    assert_about(begun.elapsed(), Duration::from_secs(3) + GRACE);
    world.ended_by(Reason::WindowClosed).await;
}

#[tokio::test(start_paused = true)]
async fn a_window_ends_a_look_up_too() {
    let (address, mut seen) = crate::harness::inner_server(|mut stream, seen| async move {
        let _ = seen.send(crate::harness::read_request(&mut stream).await);
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = acmegate::answer::Upstream::new(address);
    let site = crate::harness::site(&["inner.test"]);
    let mut plan = Plan::of([(site, acmegate::answer::Source::Upstream(upstream))]);
    plan.exposure = Exposure::Windowed;
    let mut world = World::start(plan);
    open(&world, 3600);
    let mut stream = world.connect().await;
    let request = validation("inner.test", TOKEN);
    stream.write_all(request.as_bytes()).await.unwrap();
    seen.recv().await.unwrap();
    let released = Instant::now();
    world.change_windows(|windows| windows.release_all(crate::harness::now()));
    assert_eq!(read_reply(&mut stream).await.bytes, b"");
    assert_about(released.elapsed(), GRACE);
    world.ended_by(Reason::WindowClosed).await;
}

#[tokio::test(start_paused = true)]
async fn an_allow_listed_peer_is_never_cut() {
    let mut world = shut(&["127.0.0.0/8"]);
    open(&world, 1);
    let (mut stream, begun) = begin(&world).await;
    world.change_windows(|windows| windows.release_all(crate::harness::now()));
    assert_eq!(read_reply(&mut stream).await.status(), Some(408));
    assert_about(begun.elapsed(), HEAD_TIMEOUT);
    let event = world.ended_by(Reason::HeadTimeout).await;
    assert_eq!(event.lease, None);
}
