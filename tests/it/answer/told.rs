//! Inner servers that are told by the PROXY protocol who the peer is.

use std::net::{Ipv4Addr, SocketAddr};

use acmegate::answer::{Source, Upstream};
use acmegate::gate::Reason;
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::event::Ends;
use acmegate::gate::tls::{ProxyVersion, Server};
use acmegate::proxy_protocol::write;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    Plan, THUMBPRINT, TOKEN, World, answering, canonical, inner_server, ok, read_reply, site,
    validation,
};

const PEER: [u8; 4] = [127, 0, 0, 9];

fn before(address: SocketAddr, version: ProxyVersion) -> Plan {
    let upstream = Upstream::new(Server {
        address,
        proxy_protocol: Some(version),
    });
    Plan::of([(site(&["inner.test"]), Source::Upstream(upstream))]).covered()
}

/// What the peer's connection is, seen from its own side.
struct Asked {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Sends this from [`PEER`]; the answer of the inner server reaches it.
async fn ask(world: &mut World, bytes: &[u8]) -> Asked {
    let mut stream = world.connect_from(PEER).await;
    stream.write_all(bytes).await.unwrap();
    let asked = Asked {
        source: stream.local_addr().unwrap(),
        destination: stream.peer_addr().unwrap(),
    };
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
    world.ended_by(Reason::Answered).await;
    asked
}

#[tokio::test]
async fn the_header_goes_before_the_question_and_names_the_peer() {
    let request = validation("inner.test", TOKEN);
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (address, mut seen) = answering(ok(&format!("{TOKEN}.{THUMBPRINT}"))).await;
        let mut world = World::start(before(address, version));
        let Asked {
            source,
            destination,
        } = ask(&mut world, request.as_bytes()).await;
        let mut expected = write(
            version,
            &Ends {
                source,
                destination,
            },
        );
        expected.extend(canonical("inner.test", TOKEN).into_bytes());
        assert_eq!(seen.recv().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn behind_balancers_and_proxies_it_names_the_real_peer() {
    let everybody_here = || AllowList::new(["127.0.0.0/8".parse().unwrap()]);
    let line = "PROXY TCP6 2001:db8::77 2001:db8::80 40000 80\r\n";
    let plain = validation("inner.test", TOKEN);
    let with_field = plain.replacen("\r\n", "\r\nX-Forwarded-For: 203.0.113.77\r\n", 1);

    let (address, mut seen) = answering(ok(&format!("{TOKEN}.{THUMBPRINT}"))).await;
    let mut plan = before(address, ProxyVersion::V1);
    plan.settings.protocol_from = everybody_here();
    let mut world = World::start(plan);
    ask(&mut world, format!("{line}{plain}").as_bytes()).await;
    let expected = format!("{line}{}", canonical("inner.test", TOKEN));
    assert_eq!(seen.recv().await.unwrap(), expected.as_bytes());

    // A field has no port, and what it was reached at is only known here.
    let mut plan = before(address, ProxyVersion::V1);
    plan.settings.headers_from = everybody_here();
    let mut world = World::start(plan);
    let Asked { destination, .. } = ask(&mut world, with_field.as_bytes()).await;
    let expected = format!(
        "PROXY TCP4 203.0.113.77 {} 0 {}\r\n{}",
        Ipv4Addr::LOCALHOST,
        destination.port(),
        canonical("inner.test", TOKEN)
    );
    assert_eq!(seen.recv().await.unwrap(), expected.as_bytes());

    // What a balancer reached is its own word; the peer is the proxy's.
    let mut plan = before(address, ProxyVersion::V1);
    plan.settings.protocol_from = everybody_here();
    plan.settings.headers_from = AllowList::new(["2001:db8::77/128".parse().unwrap()]);
    let mut world = World::start(plan);
    ask(&mut world, format!("{line}{with_field}").as_bytes()).await;
    let expected = format!(
        "PROXY TCP6 ::ffff:203.0.113.77 2001:db8::80 0 80\r\n{}",
        canonical("inner.test", TOKEN)
    );
    assert_eq!(seen.recv().await.unwrap(), expected.as_bytes());
}

#[tokio::test]
async fn a_rude_server_that_answers_without_reading_is_heard_all_the_same() {
    let (address, _) = inner_server(|mut stream, _| async move {
        let answer = ok(&format!("{TOKEN}.{THUMBPRINT}"));
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let mut world = World::start(before(address, ProxyVersion::V2));
    ask(&mut world, validation("inner.test", TOKEN).as_bytes()).await;
}
