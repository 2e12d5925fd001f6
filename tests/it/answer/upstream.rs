//! Inner servers: the honest, the rude, the slow, the closed and the lying.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use acmegate::answer::{Source, Upstream};
use acmegate::gate::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Event, PATIENCE, Plan, Reply, THUMBPRINT, TOKEN, World, answering, canonical, inner_server, ok,
    read_reply, read_request, site, validation,
};

fn whole() -> String {
    format!("{TOKEN}.{THUMBPRINT}")
}

fn before(address: SocketAddr) -> Plan {
    let upstream = Source::Upstream(Upstream::new(address));
    Plan::of([(site(&["inner.test", "2001:db8::7"]), upstream)])
}

async fn ask(address: SocketAddr) -> (Reply, Event) {
    let mut world = World::start(before(address).covered());
    let reply = world.exchange(validation("inner.test", TOKEN)).await;
    let event = world.ended().await;
    (reply, event)
}

#[tokio::test]
async fn the_question_is_ours_and_the_answer_is_the_key_authorization_alone() {
    let (address, mut seen) = answering(format!(
        "HTTP/1.1 200 OK\r\nServer: inner\r\nSet-Cookie: a=b\r\nContent-Length: {}\r\n\r\n{}\r\n",
        whole().len() + 2,
        whole()
    ))
    .await;
    let mut world = World::start(before(address).covered());
    for (host, authority) in [
        ("INNER.test.:80", "inner.test"),
        ("[2001:db8::7]", "[2001:db8::7]"),
    ] {
        let request = validation(host, TOKEN).replace(
            "Accept: */*\r\n",
            "Cookie: secret\r\nX-Forwarded-For: 127.0.0.1\r\nRange: bytes=0-1\r\n",
        );
        let reply = world.exchange(request).await;
        assert_eq!(reply.status(), Some(200));
        assert_eq!(reply.content(), whole());
        assert_eq!(reply.field("Set-Cookie"), None);
        assert_eq!(reply.field("Server"), None);
        world.ended_by(Reason::Answered).await;
        let question = String::from_utf8(seen.recv().await.unwrap()).unwrap();
        assert_eq!(question, canonical(authority, TOKEN));
    }
    // HEAD asks the same question.
    let reply = world
        .exchange(validation("inner.test", TOKEN).replacen("GET", "HEAD", 1))
        .await;
    assert_eq!(
        (reply.status(), reply.content()),
        (Some(200), String::new())
    );
    let question = String::from_utf8(seen.recv().await.unwrap()).unwrap();
    assert_eq!(question, canonical("inner.test", TOKEN));
}

#[tokio::test]
async fn every_honest_way_to_say_it_passes() {
    let (first, second) = whole().split_at(40).to_owned_pair();
    for answer in [
        // certbot's standalone server: HTTP/1.0, ended by the close.
        format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{}",
            whole()
        ),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n", whole()),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             28\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            second.len()
        ),
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok(&whole())),
    ] {
        let (address, _seen) = answering(answer.clone()).await;
        let (reply, event) = ask(address).await;
        assert_eq!(event.reason, Reason::Answered, "{answer}: {event:?}");
        assert_eq!(reply.content(), whole());
    }
}

trait OwnedPair {
    fn to_owned_pair(self) -> (String, String);
}

impl OwnedPair for (&str, &str) {
    fn to_owned_pair(self) -> (String, String) {
        (self.0.to_owned(), self.1.to_owned())
    }
}

#[tokio::test]
async fn lies_are_not_relayed() {
    let other = whole().replace('L', "M");
    let gzip = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 14\r\n\r\n\
                 \x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b\x04\x00\x43";
    let huge = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'a'; 1 << 20]].concat();
    let fields = "A: b\r\n".repeat(100);
    for (answer, detail) in [
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://inner.test/\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            Some("status 302"),
        ),
        (
            b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
            Some("status 500"),
        ),
        (
            format!("HTTP/1.1 206 Part\r\nContent-Length: 87\r\n\r\n{}", whole()).into_bytes(),
            Some("status 206"),
        ),
        (
            ok("<html>secret page</html>").into_bytes(),
            Some("not a key authorization"),
        ),
        (ok("").into_bytes(), Some("not a key authorization")),
        (
            ok(&format!(" {}", whole())).into_bytes(),
            Some("not a key authorization"),
        ),
        (
            ok(&other).into_bytes(),
            Some("another token's key authorization"),
        ),
        (gzip.to_vec(), Some("not a key authorization")),
        (huge, Some("more than 512 octets")),
        (
            ok(&format!("{}{}", whole(), " ".repeat(600))).into_bytes(),
            Some("more than 512 octets"),
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), None),
        (
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n{}", whole()).into_bytes(),
            None,
        ),
    ] {
        let shown = answer[..answer.len().min(100)].escape_ascii().to_string();
        let (address, _seen) = answering(answer).await;
        let (reply, event) = ask(address).await;
        assert_eq!(event.reason, Reason::UpstreamLied, "{shown}: {event:?}");
        assert_eq!(reply.status(), Some(502));
        assert_eq!(reply.content(), "502 Bad Gateway\n");
        if detail.is_some() {
            assert_eq!(event.detail.as_deref(), detail, "{shown}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_know_the_token_says_so_and_so_do_we() {
    let (address, _seen) =
        answering("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope").await;
    let (reply, event) = ask(address).await;
    assert_eq!(event.reason, Reason::UpstreamUnknown);
    assert_eq!(reply.status(), Some(404));
    assert!(!reply.content().contains("nope"));
}

#[tokio::test]
async fn closed_upstreams_are_gone() {
    // Nobody listens.
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (reply, event) = ask(address).await;
    assert_eq!(event.reason, Reason::UpstreamGone);
    assert_eq!(reply.status(), Some(502));
    assert!(event.detail.unwrap().starts_with("connect: "));

    // Closed without a word, before and after the question; in the middle of an answer.
    let (silent, _seen) = inner_server(|stream, _| async move { drop(stream) }).await;
    let (mute, _seen) = answering("").await;
    let (short, _seen) = answering("HTTP/1.1 200 OK\r\nContent-Length: 87\r\n\r\nLoq").await;
    let (torn, _seen) = answering("HTTP/1.1 200 OK\r\nConte").await;
    for (address, detail) in [
        (silent, "it closed without an answer"),
        (mute, "it closed without an answer"),
        (short, "it closed within its answer"),
        (torn, "it closed without an answer"),
    ] {
        let (reply, event) = ask(address).await;
        assert_eq!(event.reason, Reason::UpstreamGone, "{detail}: {event:?}");
        assert_eq!(reply.status(), Some(502));
        assert_eq!(event.detail.as_deref(), Some(detail));
    }
}

#[tokio::test]
async fn an_answer_that_came_before_the_question_was_read_is_heard() {
    // acme.sh's responders: they write at once, close with the question unread, and so reset.
    let (address, _seen) = inner_server(|mut stream, _| async move {
        let _ = stream.write_all(ok(&whole()).as_bytes()).await;
        let _: io::Result<()> = stream.shutdown().await;
    })
    .await;
    let (endless, _seen) = inner_server(|mut stream, _| async move {
        let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", whole());
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    for _ in 0..50 {
        for address in [address, endless] {
            let (reply, event) = ask(address).await;
            assert_eq!(event.reason, Reason::Answered, "{event:?}");
            assert_eq!(reply.content(), whole());
        }
    }
}

#[tokio::test]
async fn an_answer_in_pieces_is_put_together() {
    let (address, _seen) = inner_server(|mut stream, _| async move {
        stream.set_nodelay(true).unwrap();
        read_request(&mut stream).await;
        for octet in ok(&whole()).as_bytes().chunks(1) {
            stream.write_all(octet).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (reply, event) = ask(address).await;
    assert_eq!(event.reason, Reason::Answered);
    assert_eq!(reply.content(), whole());
}

#[tokio::test(start_paused = true)]
async fn a_slow_upstream_is_given_ten_seconds() {
    let (address, _seen) = inner_server(|mut stream, _| async move {
        read_request(&mut stream).await;
        // Something, so that it is not a matter of silence.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        sleep(PATIENCE * 10).await;
    })
    .await;
    let begun = Instant::now();
    let (reply, event) = ask(address).await;
    assert_eq!(event.reason, Reason::UpstreamSlow);
    assert_eq!(reply.status(), Some(504));
    let taken = begun.elapsed().as_secs();
    assert_eq!(taken, 10);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_behind_a_silent_firewall_is_given_two_seconds() {
    // A full backlog drops what comes next, as a firewall would.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    let (reply, event) = ask(address).await;
    assert_eq!(event.reason, Reason::UpstreamSlow, "{event:?}");
    assert_eq!(
        event.detail.as_deref(),
        Some("not connected within two seconds")
    );
    assert_eq!(reply.status(), Some(504));
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn without_a_window_that_covers_the_identifier_nothing_is_asked() {
    let (address, mut seen) = answering(ok(&whole())).await;
    let mut plan = before(address);
    let mut lease = crate::harness::lease("other", 80, Duration::from_secs(60));
    lease.scope.identifiers = Some(vec![crate::harness::identifier("other.test")]);
    plan.windows.adopt(lease);
    let mut world = World::start(plan);
    let reply = world.exchange(validation("inner.test", TOKEN)).await;
    assert_eq!(reply.status(), Some(404));
    world.ended_by(Reason::NotCovered).await;
    assert!(seen.try_recv().is_err());

    let mut lease = crate::harness::lease("own", 80, Duration::from_secs(60));
    lease.scope.identifiers = Some(vec![crate::harness::identifier("inner.test")]);
    world.change_windows(|windows| windows.adopt(lease));
    let reply = world.exchange(validation("inner.test", TOKEN)).await;
    assert_eq!(reply.status(), Some(200));
    world.ended_by(Reason::Answered).await;
}

#[tokio::test]
async fn sixty_four_questions_may_be_open_and_no_more() {
    let (address, mut seen) = inner_server(|mut stream, seen| async move {
        let _ = seen.send(read_request(&mut stream).await);
        // Until the front gives up.
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    let mut world = World::start(before(address).covered());
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = world.connect().await;
        let request = validation("inner.test", TOKEN);
        stream.write_all(request.as_bytes()).await.unwrap();
        seen.recv().await.unwrap();
        open.push(stream);
    }
    let reply = world.exchange(validation("inner.test", TOKEN)).await;
    assert_eq!(reply.status(), Some(503));
    world.ended_by(Reason::UpstreamBusy).await;
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_may_take_its_time_to_read() {
    let (address, _seen) = answering(ok(&whole())).await;
    let world = World::start(before(address).covered());
    let mut stream = world.connect().await;
    let request = validation("inner.test", TOKEN);
    stream.write_all(request.as_bytes()).await.unwrap();
    world.holds(1).await;
    world.holds(0).await;
    let reply = read_reply(&mut stream).await;
    assert_eq!(reply.content(), whole());
    assert!(!reply.was_reset);
}
