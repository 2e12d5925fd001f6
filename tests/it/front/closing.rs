//! No answer is lost by a reset.

use std::time::Duration;

use acmegate::gate::Reason;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::harness::{PATIENCE, Plan, Reply, TOKEN, World, read_reply, validation};

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

#[tokio::test]
async fn an_answer_that_nobody_takes_is_told_as_such() {
    // The peer is gone with a reset before its request is read: it sent and closed unread.
    let mut world = World::start(Plan::default());
    let stream = world.connect().await;
    world.holds(1).await;
    stream.set_zero_linger().unwrap();
    stream
        .try_write(validation("example.com", TOKEN).as_bytes())
        .unwrap();
    drop(stream);
    let event = world.ended().await;
    assert!(
        matches!(event.reason, Reason::PeerGone | Reason::Answered),
        "{event:?}"
    );
    world.holds(0).await;
}
