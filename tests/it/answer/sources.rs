//! Pushed tokens, thumbprints and accounts.

use std::time::Duration;

use acmegate::answer::{PushedAnswer, Source};
use acmegate::gate::Reason;
use acmegate::gate::challenge::ChallengeType;
use acmegate::gate::site::Site;
use acmegate::gate::token::Thumbprint;

use crate::harness::{
    Plan, THUMBPRINT, TOKEN, World, answering, identifier, key_authorization, now, ok, site,
    thumbprint, validation,
};

#[tokio::test]
async fn a_pushed_token_answers_for_its_identifier_alone() {
    let mut world = World::start(Plan::of([(
        site(&["example.com", "www.example.com"]),
        Source::Pushed,
    )]));
    let status = |reply: crate::harness::Reply| reply.status().unwrap();
    let asked = |host| validation(host, TOKEN);
    assert_eq!(status(world.exchange(asked("example.com")).await), 200);
    world.ended_by(Reason::Answered).await;
    assert_eq!(status(world.exchange(asked("www.example.com")).await), 404);
    world.ended_by(Reason::UnknownToken).await;

    let name = identifier("example.com");
    assert!(world.pushed.remove(
        ChallengeType::Http01,
        &name,
        key_authorization().token(),
        now()
    ));
    assert_eq!(status(world.exchange(asked("example.com")).await), 404);
    world.ended_by(Reason::UnknownToken).await;
}

#[tokio::test]
async fn a_pushed_token_expires() {
    let mut world = World::start(Plan::default());
    let name = identifier("example.com");
    // Pushed again with no time left at all.
    world
        .pushed
        .add(
            name,
            PushedAnswer::Http01(key_authorization()),
            Duration::ZERO,
            now(),
        )
        .unwrap();
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.status(), Some(404));
    world.ended_by(Reason::UnknownToken).await;
}

#[tokio::test]
async fn what_was_pushed_comes_before_every_source_and_needs_no_window() {
    let (address, mut seen) = answering(ok("not asked")).await;
    let upstream = acmegate::answer::Upstream::new(address);
    let sites = [(site(&["example.com"]), Source::Upstream(upstream))];
    let mut world = World::start(Plan::of(sites));
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.status(), Some(200));
    world.ended_by(Reason::Answered).await;
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_thumbprint_answers_every_token() {
    let source = Source::Thumbprint(thumbprint());
    let mut world = World::start(Plan::of([(site(&["a.test"]), source)]));
    for token in [TOKEN.to_owned(), "a".repeat(22), "_".repeat(128)] {
        let reply = world.exchange(validation("a.test", &token)).await;
        assert_eq!(reply.status(), Some(200));
        assert_eq!(reply.content(), format!("{token}.{THUMBPRINT}"));
        world.ended_by(Reason::Answered).await;
    }
}

#[tokio::test]
async fn an_answer_of_an_account_that_the_site_does_not_name_is_refused() {
    let other = THUMBPRINT.replace('9', "8");
    let named = Site {
        accounts: vec![Thumbprint::parse(other.as_bytes()).unwrap()],
        ..site(&["example.com"])
    };
    let (address, _seen) = answering(ok(&format!("{TOKEN}.{THUMBPRINT}"))).await;
    let upstream = acmegate::answer::Upstream::new(address);
    let inner = Site {
        identifiers: site(&["inner.test"]).identifiers,
        ..named.clone()
    };
    let sites = [(named, Source::Pushed), (inner, Source::Upstream(upstream))];
    let mut world = World::start(Plan::of(sites).covered());
    for host in ["example.com", "inner.test"] {
        let reply = world.exchange(validation(host, TOKEN)).await;
        assert_eq!(reply.status(), Some(404));
        let event = world.ended_by(Reason::ForeignAccount).await;
        assert_eq!(event.thumbprint.as_deref(), Some(THUMBPRINT));
    }
}
