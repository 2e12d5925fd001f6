//! No answer is lost by a reset.

use std::time::Duration;

use acmegate::answer::{Source, Upstream};
use acmegate::gate::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{
    PATIENCE, Plan, Reply, THUMBPRINT, TOKEN, World, inner_server, ok, read_reply, read_request,
    site, validation,
};

const MEBIBYTE: usize = 1 << 20;

fn post(length: usize) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_post_of_a_mebibyte_finds_its_answer_and_no_reset() {
    let mut world = World::start(Plan::default());
    for _ in 0..20 {
        let (mut reader, mut writer) = world.connect().await.into_split();
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(&post(MEBIBYTE)).await;
            let _ = writer.write_all(&vec![b'a'; MEBIBYTE]).await;
            writer
        });
        let mut bytes = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes);
        // An end of file, where a reset would be an error.
        timeout(PATIENCE, read).await.unwrap().unwrap();
        let reply = Reply {
            bytes,
            was_reset: false,
        };
        assert_eq!(reply.status(), Some(405));
        assert_eq!(reply.field("Allow").as_deref(), Some("GET, HEAD"));
        assert_eq!(reply.content(), "405 Method Not Allowed\n");
        world.ended_by(Reason::Method).await;
        writing.abort();
    }
}

#[tokio::test]
async fn a_peer_that_sends_all_before_it_reads_finds_its_answer_too() {
    let mut world = World::start(Plan::default());
    let bytes = [post(MEBIBYTE), vec![b'a'; MEBIBYTE]].concat();
    let reply = world.exchange(&bytes).await;
    assert_eq!(reply.status(), Some(405));
    world.ended_by(Reason::Method).await;
    world.holds(0).await;
}

#[tokio::test]
async fn refused_heads_with_bytes_behind_them_are_answered_without_a_reset() {
    let world = World::start(Plan::default());
    let tail = vec![b'x'; 40_000];
    for (head, status) in [
        (&b"GET / HTTP/1.1\n"[..], 400),
        (
            b"GET / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 40000\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 301),
        (b"GET /", 414),
        (b"GET / HTTP/1.1\r\na: ", 431),
    ] {
        let reply = world.exchange([head, &tail].concat()).await;
        assert_eq!(reply.status(), Some(status));
        assert!(!reply.was_reset, "{status}");
    }
    world.holds(0).await;
}

#[tokio::test]
async fn who_holds_on_after_its_answer_is_let_go_after_a_second() {
    let mut world = World::start(Plan::default());
    let mut stream = world.connect().await;
    stream.write_all(&post(10)).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(405));
    world.ended_by(Reason::Method).await;
    let begun = std::time::Instant::now();
    world.holds(0).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_answer_is_taken_for_a_second_and_never_reset_before() {
    let mut world = World::start(Plan::default());
    let mut stream = world.connect().await;
    stream.set_nodelay(true).unwrap();
    stream.write_all(&post(MEBIBYTE)).await.unwrap();
    assert_eq!(read_reply(&mut stream).await.status(), Some(405));
    world.ended_by(Reason::Method).await;
    // More than is discarded, less than the kernels take besides. The clock stands still while
    // there is anything to do.
    let begun = Instant::now();
    for _ in 0..80 {
        stream.write_all(&[b'a'; 1000]).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(world.front.held_connections(), 1);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Now it is over.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.front.held_connections(), 0);
}

/// An inner server that answers when it is told to, and a front before it that has asked it.
async fn waiting() -> (World, watch::Sender<bool>, TcpStream) {
    let go = watch::Sender::new(false);
    let wait = go.subscribe();
    let (address, mut seen) = inner_server(move |mut stream, seen| {
        let mut wait = wait.clone();
        async move {
            let _ = seen.send(read_request(&mut stream).await);
            wait.wait_for(|go| *go).await.unwrap();
            let answer = ok(&format!("{TOKEN}.{THUMBPRINT}"));
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let upstream = Source::Upstream(Upstream::new(address));
    let world = World::start(Plan::of([(site(&["inner.test"]), upstream)]).covered());
    let mut stream = world.connect().await;
    let request = validation("inner.test", TOKEN);
    stream.write_all(request.as_bytes()).await.unwrap();
    seen.recv().await.unwrap();
    (world, go, stream)
}

#[tokio::test]
async fn what_comes_while_the_answer_is_looked_up_costs_nobody_the_answer() {
    let (mut world, go, mut stream) = waiting().await;
    stream.write_all(&[b'x'; 10_000]).await.unwrap();
    go.send_replace(true);
    let reply = read_reply(&mut stream).await;
    assert_eq!(reply.status(), Some(200));
    assert!(!reply.was_reset);
    world.ended_by(Reason::Answered).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_told_as_such() {
    let (mut world, go, stream) = waiting().await;
    // Gone with a reset.
    stream.set_zero_linger().unwrap();
    drop(stream);
    go.send_replace(true);
    let event = world.ended_by(Reason::PeerGone).await;
    let detail = event.detail.as_deref();
    assert_eq!(detail, Some("it did not take its answer: answered"));
    world.holds(0).await;
}
