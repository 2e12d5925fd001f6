//! `[http] redirect_for = "allow-list"`: the way to HTTPS is shown to the list alone, in every mode.

use std::time::Duration;

use acmegate::gate::{Exposure, Reason, RedirectFor};

use super::balanced::list;
use crate::harness::{Plan, Reply, TOKEN, World, lease, read_reply, validation};
use tokio::io::AsyncWriteExt;

const LISTED: [u8; 4] = [127, 0, 0, 1];
const FOREIGN: [u8; 4] = [127, 0, 0, 9];

fn plan(exposure: Exposure) -> Plan {
    Plan {
        exposure,
        allow: list(&["127.0.0.1/32", "203.0.113.0/24"]),
        redirect_for: RedirectFor::AllowList,
        ..Plan::default()
    }
}

async fn ask(world: &World, source: [u8; 4], bytes: &str) -> Reply {
    let mut stream = world.connect_from(source).await;
    stream.write_all(bytes.as_bytes()).await.unwrap();
    read_reply(&mut stream).await
}

#[tokio::test]
async fn a_redirect_is_for_the_list_and_a_challenge_for_anybody() {
    for exposure in [Exposure::Open, Exposure::Windowed] {
        let mut world = World::start(plan(exposure));
        // Lets the foreign peer in where a window is needed for that.
        let open = lease("test", world.port(), Duration::from_secs(3600));
        world.change_windows(|windows| windows.adopt(open));
        let visit = "GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n";

        let reply = ask(&world, LISTED, visit).await;
        assert_eq!(reply.status(), Some(301));
        world.ended_by(Reason::Redirected).await;

        let reply = ask(&world, FOREIGN, visit).await;
        assert_eq!(reply.status(), Some(403));
        assert_eq!(reply.field("Location"), None);
        let event = world.ended_by(Reason::NotAllowed).await;
        assert_eq!(event.identifier.as_deref(), Some("example.com"));

        let reply = ask(&world, FOREIGN, &visit.replace("GET", "HEAD")).await;
        assert_eq!((reply.status(), reply.content().as_str()), (Some(403), ""));
        world.ended_by(Reason::NotAllowed).await;

        for source in [LISTED, FOREIGN] {
            let reply = ask(&world, source, &validation("example.com", TOKEN)).await;
            assert_eq!(reply.status(), Some(200));
            world.ended_by(Reason::Answered).await;
        }
    }
}

#[tokio::test]
async fn behind_balancers_and_proxies_the_real_peer_counts() {
    let mut plan = plan(Exposure::Open);
    plan.settings.protocol_from = list(&["127.0.0.1/32"]);
    plan.settings.headers_from = list(&["127.0.0.9/32"]);
    let mut world = World::start(plan);
    for (real, status, reason) in [
        ("203.0.113.77", 301, Reason::Redirected),
        ("192.0.2.66", 403, Reason::NotAllowed),
    ] {
        let balanced = format!(
            "PROXY TCP4 {real} 198.51.100.80 40000 80\r\nGET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
        );
        assert_eq!(ask(&world, LISTED, &balanced).await.status(), Some(status));
        assert_eq!(world.ended_by(reason).await.peer.to_string(), real);
        let proxied =
            format!("GET / HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: {real}\r\n\r\n");
        assert_eq!(ask(&world, FOREIGN, &proxied).await.status(), Some(status));
        assert_eq!(world.ended_by(reason).await.peer.to_string(), real);
    }
}
