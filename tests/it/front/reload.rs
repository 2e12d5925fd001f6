//! Rules that change while connections live.

use acmegate::answer::{Source, Upstream};
use acmegate::gate::Reason;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};

use crate::harness::{
    Plan, THUMBPRINT, TOKEN, World, inner_server, ok, read_reply, read_request, site, validation,
};

#[tokio::test]
async fn a_head_is_judged_by_the_rules_of_the_moment_it_is_complete() {
    let mut world = World::start(Plan::of([(site(&["a.test"]), Source::Pushed)]));
    let mut streams = [world.connect().await, world.connect().await];
    for stream in &mut streams {
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    }
    world.holds(2).await;
    world.reload(Plan::of([(site(&["b.test"]), Source::Pushed)]));
    for (stream, (host, status, reason)) in streams.iter_mut().zip([
        ("a.test", 421, Reason::UnknownHost),
        ("b.test", 301, Reason::Redirected),
    ]) {
        let rest = format!("Host: {host}\r\n\r\n");
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(read_reply(stream).await.status(), Some(status));
        world.ended_by(reason).await;
    }
}

#[tokio::test]
async fn a_look_up_ends_by_the_rules_it_began_with() {
    // The inner server answers when it is told to.
    let go = watch::Sender::new(false);
    let wait = go.subscribe();
    let (address, mut seen): (_, mpsc::UnboundedReceiver<Vec<u8>>) =
        inner_server(move |mut stream, seen| {
            let mut wait = wait.clone();
            async move {
                let _ = seen.send(read_request(&mut stream).await);
                wait.wait_for(|go| *go).await.unwrap();
                let answer = ok(&format!("{TOKEN}.{THUMBPRINT}"));
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
    let inner = || {
        let upstream = Upstream::new(address);
        (site(&["inner.test"]), Source::Upstream(upstream))
    };
    let mut world = World::start(Plan::of([inner()]).covered());
    let mut stream = world.connect().await;
    let request = validation("inner.test", TOKEN);
    stream.write_all(request.as_bytes()).await.unwrap();
    seen.recv().await.unwrap();

    // Now site 0 is somebody else's, who names another account.
    let mut other = site(&["other.test"]);
    let foreign = THUMBPRINT.replace('9', "8");
    other.accounts = vec![acmegate::gate::token::Thumbprint::parse(foreign.as_bytes()).unwrap()];
    world.reload(Plan::of([(other, Source::Pushed), inner()]).covered());
    go.send_replace(true);
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
    let event = world.ended_by(Reason::Answered).await;
    assert_eq!(event.identifier.as_deref(), Some("inner.test"));
}
