//! Port 443: how many may come at once, and what becomes of them when the gate stops.

use std::time::Duration;

use acmegate::front::{Limits, Servers, Settings, Speaks};
use acmegate::gate::Reason;
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::tls::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Plan, World, read_reply};
use crate::lab::hello::ClientHello;

fn plan(total: usize, per_source: usize, server: Option<Server>) -> Plan {
    Plan {
        speaks: Speaks::Tls,
        allow: AllowList::new(["127.0.0.0/8".parse().unwrap()]),
        settings: Settings {
            tls: Limits { total, per_source },
            ..Settings::default()
        },
        servers: Servers {
            by_site: Vec::new(),
            otherwise: server,
        },
        ..Plan::default()
    }
}

fn visitor() -> Vec<u8> {
    let hello = ClientHello::new().name("example.com");
    hello.alpn(&["http/1.1"]).record()
}

#[tokio::test]
async fn all_sources_together_have_a_limit() {
    let mut world = World::start(plan(4, 2, None));
    let mut held = Vec::new();
    for source in [1, 1, 2, 2] {
        held.push(world.connect_from([127, 0, 0, source]).await);
    }
    world.holds(4).await;
    let mut refused = world.connect_from([127, 0, 0, 3]).await;
    assert_eq!(read_reply(&mut refused).await.bytes, b"");
    world.ended_by(Reason::TotalLimit).await;
    // A place that is given back can be taken again.
    drop(held.pop());
    world.ended_by(Reason::PeerGone).await;
    let mut next = world.connect_from([127, 0, 0, 3]).await;
    next.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(read_reply(&mut next).await.bytes, b"");
    world.ended_by(Reason::NotTls).await;
}

/// A stop waits for visitors as long as it may, and then cuts them and whoever has said half of it.
#[tokio::test]
async fn a_stop_cuts_visitors_and_half_hellos_alike() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: listener.local_addr().unwrap(),
        proxy_protocol: None,
    };
    let drain = Duration::from_millis(300);
    let mut world = World::start_with(plan(100, 100, Some(server)), drain);
    let mut passed = world.connect().await;
    passed.write_all(&visitor()).await.unwrap();
    let (mut site, _) = listener.accept().await.unwrap();
    site.write_all(b"the site's own octets").await.unwrap();
    let mut half = world.connect().await;
    half.write_all(&visitor()[..50]).await.unwrap();
    world.holds(2).await;
    world.shutdown.send_replace(true);
    assert_eq!(read_reply(&mut half).await.bytes, b"");
    assert_eq!(
        read_reply(&mut passed).await.bytes,
        b"the site's own octets"
    );
    for _ in 0..2 {
        world.ended_by(Reason::Stopping).await;
    }
    // The site learns of it as well.
    let mut heard = Vec::new();
    let _ = site.read_to_end(&mut heard).await;
    assert_eq!(heard, visitor());
}
