//! What the witness is told of each connection: the validation, what was answered, and when.

use std::time::Duration;

use acmegate::gate::{Exposure, Reason};
use tokio::io::AsyncWriteExt;

use super::balanced::list;
use crate::harness::{Plan, TOKEN, World, now, validation};

#[tokio::test]
async fn a_validation_is_told_with_its_token_whatever_it_was_answered() {
    let mut world = World::start(Plan::default());
    let unknown = TOKEN.replace('L', "M");
    for (token, reason, status) in [
        (TOKEN, Reason::Answered, 200),
        (unknown.as_str(), Reason::UnknownToken, 404),
    ] {
        let before = now();
        let reply = world.exchange(validation("example.com", token)).await;
        let event = world.ended_by(reason).await;
        assert_eq!(event.challenge.as_deref(), Some("http-01"));
        assert_eq!(event.token.as_deref(), Some(token));
        assert_eq!((event.status, reply.status()), (Some(status), Some(status)));
        assert_eq!(event.octets, reply.bytes.len() as u64);
        assert!((before..=now()).contains(&event.accepted) && !event.is_listed);
    }
}

#[tokio::test]
async fn what_is_no_validation_names_none() {
    let mut world = World::start(Plan {
        allow: list(&["127.0.0.1/32"]),
        ..Plan::default()
    });
    for (request, reason, status) in [
        (
            "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
            Reason::Redirected,
            Some(301),
        ),
        (
            "PUT / HTTP/1.1\r\nHost: example.com\r\n\r\n",
            Reason::Method,
            Some(405),
        ),
        ("\x16\x03\x01", Reason::NotHttp1, None),
    ] {
        let reply = world.exchange(request).await;
        let event = world.ended_by(reason).await;
        assert_eq!((event.challenge, event.token), (None, None));
        assert_eq!(event.status, status);
        assert_eq!(event.octets, reply.bytes.len() as u64);
        assert!(event.is_listed);
    }
}

#[tokio::test]
async fn who_was_told_nothing_has_neither_status_nor_octets() {
    let mut world = World::start(Plan {
        exposure: Exposure::Windowed,
        ..Plan::default()
    });
    world.exchange(validation("example.com", TOKEN)).await;
    let event = world.ended_by(Reason::NoLease).await;
    assert_eq!((event.status, event.octets), (None, 0));
}

#[tokio::test]
async fn a_slow_head_is_told_with_when_it_was_accepted() {
    let mut world = World::start(Plan::default());
    let mut stream = world.connect().await;
    let request = validation("example.com", TOKEN);
    let (first, rest) = request.split_at(20);
    stream.write_all(first.as_bytes()).await.unwrap();
    world.holds(1).await;
    let accepted_by = now();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    stream.write_all(rest.as_bytes()).await.unwrap();
    let event = world.ended_by(Reason::Answered).await;
    assert!(event.accepted <= accepted_by);
    assert!(now() - event.accepted >= Duration::from_secs(3));
}
