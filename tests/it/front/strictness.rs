//! What port 80 accepts and refuses, row by row, and at every cut.

use std::time::Duration;

use acmegate::answer::Source;
use acmegate::front::{Limits, RedirectStatus, Settings};
use acmegate::gate::Reason;
use acmegate::gate::site::{Redirect, Site};
use tokio::io::AsyncWriteExt;

use crate::harness::{
    PATH, Plan, THUMBPRINT, TOKEN, World, answering, identifier, ok, read_reply, site, validation,
};

fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

const HOST: &str = "Host: example.com\r\n";

#[tokio::test]
async fn a_pushed_token_is_answered_as_the_rfc_wants_it() {
    let mut world = World::start(Plan::default());
    let reply = world.exchange(validation("example.com", TOKEN)).await;
    assert_eq!(reply.status(), Some(200));
    assert_eq!(reply.content(), format!("{TOKEN}.{THUMBPRINT}"));
    for (name, value) in [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", "87"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ] {
        assert_eq!(reply.field(name).as_deref(), Some(value), "{name}");
    }
    let date = httpdate::parse_http_date(&reply.field("Date").unwrap()).unwrap();
    assert!(date.elapsed().unwrap() < Duration::from_secs(60));
    assert!(!reply.was_reset);
    let event = world.ended_by(Reason::Answered).await;
    assert_eq!(event.identifier.as_deref(), Some("example.com"));
    assert_eq!(event.thumbprint.as_deref(), Some(THUMBPRINT));
    assert_eq!(world.front.held_connections(), 0);
}

#[tokio::test]
async fn every_row_of_strictness_has_its_answer_and_its_reason() {
    let never = Site {
        redirect: Redirect::Off,
        ..site(&["off.test"])
    };
    let mut world = World::start(Plan::of([
        (site(&["example.com", "203.0.113.7"]), Source::Pushed),
        (never, Source::Pushed),
    ]));
    let challenge = format!("{PATH}{TOKEN}");
    let long = format!("/{}", "a".repeat(8000));
    let long_token = format!("{PATH}{}", "a".repeat(1100));
    let other = TOKEN.replace('L', "M");
    let row = |bytes: Vec<u8>, status: Option<u16>, reason: Reason| (bytes, status, reason);
    let raw = |text: &str, status, reason| (text.as_bytes().to_vec(), status, reason);
    let rows = [
        // Methods.
        row(get(&challenge, HOST), Some(200), Reason::Answered),
        raw(
            &format!("HEAD {challenge} HTTP/1.1\r\n{HOST}\r\n"),
            Some(200),
            Reason::Answered,
        ),
        raw(
            &format!("POST {challenge} HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"),
            Some(405),
            Reason::Method,
        ),
        raw(
            "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
            Some(405),
            Reason::Method,
        ),
        raw(
            &format!("TRACE / HTTP/1.1\r\n{HOST}\r\n"),
            Some(405),
            Reason::Method,
        ),
        raw(
            &format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n"),
            Some(405),
            Reason::Method,
        ),
        raw(
            &format!("get / HTTP/1.1\r\n{HOST}\r\n"),
            Some(405),
            Reason::Method,
        ),
        // Versions and other protocols.
        raw(
            &format!("GET {challenge} HTTP/1.0\r\n{HOST}\r\n"),
            Some(200),
            Reason::Answered,
        ),
        raw("GET /\r\n", None, Reason::NotHttp1),
        raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None, Reason::NotHttp1),
        row(
            get("/", &format!("{HOST}Upgrade: h2c\r\n")),
            None,
            Reason::NotHttp1,
        ),
        row(b"\x16\x03\x01\x00\xc8\x01".to_vec(), None, Reason::NotHttp1),
        raw(
            &format!("GET / HTTP/1.2\r\n{HOST}\r\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        // Targets.
        row(
            get("http://example.com/", HOST),
            Some(400),
            Reason::TargetForm,
        ),
        row(get("*", HOST), Some(400), Reason::TargetForm),
        row(get("example.com:80", HOST), Some(400), Reason::TargetForm),
        row(get(&long, HOST), Some(414), Reason::TargetTooLong),
        row(get(&long_token, HOST), Some(414), Reason::TargetTooLong),
        // Paths: byte-exact prefix and token, or no challenge.
        row(
            get(&format!("{PATH}{other}"), HOST),
            Some(404),
            Reason::UnknownToken,
        ),
        row(
            get(&format!("{PATH}short"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(get(PATH, HOST), Some(404), Reason::MalformedToken),
        row(
            get(&format!("{challenge}/"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(
            get(&format!("{challenge}?a=b"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(
            get(&format!("{challenge};a"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(
            get(&format!("{challenge}%00"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(
            get(&format!("{PATH}../{TOKEN}"), HOST),
            Some(404),
            Reason::MalformedToken,
        ),
        row(
            get(&format!("/{challenge}"), HOST),
            Some(301),
            Reason::Redirected,
        ),
        row(
            get(&format!("/.{challenge}"), HOST),
            Some(301),
            Reason::Redirected,
        ),
        row(
            get(&challenge.replace("acme", "%61cme"), HOST),
            Some(301),
            Reason::Redirected,
        ),
        row(
            get(&challenge.replace("acme", "ACME"), HOST),
            Some(301),
            Reason::Redirected,
        ),
        row(
            get(&format!("{challenge}\\"), HOST),
            Some(400),
            Reason::TargetForm,
        ),
        row(
            get(&format!("{challenge}#a"), HOST),
            Some(400),
            Reason::TargetForm,
        ),
        row(
            get(&format!("{challenge}\0"), HOST),
            Some(400),
            Reason::MalformedHead,
        ),
        row(
            get(&format!("{challenge}\x01"), HOST),
            Some(400),
            Reason::MalformedHead,
        ),
        row(
            get(&format!("{challenge}\u{80}"), HOST),
            Some(400),
            Reason::MalformedHead,
        ),
        // Line ends.
        raw(
            &format!("GET {challenge} HTTP/1.1\nHost: example.com\n\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        raw(
            &format!("GET {challenge} HTTP/1.1\r{HOST}\r\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        row(
            get(&challenge, "Host: example.com\r\n folded\r\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        row(
            get(&challenge, "Host : example.com\r\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        raw(
            &format!("\r\nGET {challenge} HTTP/1.1\r\n{HOST}\r\n"),
            Some(200),
            Reason::Answered,
        ),
        raw(
            &format!("\r\n\r\nGET {challenge} HTTP/1.1\r\n{HOST}\r\n"),
            Some(400),
            Reason::MalformedHead,
        ),
        // Hosts.
        row(get(&challenge, ""), Some(400), Reason::HostCount),
        row(
            get(&challenge, &format!("{HOST}{HOST}")),
            Some(400),
            Reason::HostCount,
        ),
        row(
            get(&challenge, "Host: u@example.com\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: example.com/\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: example.com\\\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: example.com,a.test\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: example.com a.test\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: example.com:81\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host:\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: 127.1\r\n"),
            Some(400),
            Reason::MalformedHost,
        ),
        row(
            get(&challenge, "Host: EXAMPLE.com.:80\r\n"),
            Some(200),
            Reason::Answered,
        ),
        row(
            get(&challenge, "Host: 203.0.113.7\r\n"),
            Some(404),
            Reason::UnknownToken,
        ),
        row(
            get(&challenge, "Host: 203.0.113.8\r\n"),
            Some(421),
            Reason::UnknownHost,
        ),
        row(
            get(&challenge, "Host: other.test\r\n"),
            Some(421),
            Reason::UnknownHost,
        ),
        row(
            get("/", "Host: off.test\r\n"),
            Some(404),
            Reason::NoRedirect,
        ),
        // Bodies.
        row(
            get(&challenge, &format!("{HOST}Content-Length: 0\r\n")),
            Some(200),
            Reason::Answered,
        ),
        row(
            get(&challenge, &format!("{HOST}Content-Length: 5\r\n")),
            Some(400),
            Reason::Body,
        ),
        row(
            get(&challenge, &format!("{HOST}Transfer-Encoding: chunked\r\n")),
            Some(400),
            Reason::Body,
        ),
        row(
            get(
                &challenge,
                &format!("{HOST}Content-Length: 0\r\nTransfer-Encoding: x\r\n"),
            ),
            Some(400),
            Reason::Body,
        ),
        // Sizes.
        row(
            get(&challenge, &format!("{HOST}{}", "a: b\r\n".repeat(64))),
            Some(431),
            Reason::HeadTooLarge,
        ),
        row(
            get(&challenge, &format!("{HOST}a: {}\r\n", "b".repeat(8192))),
            Some(431),
            Reason::HeadTooLarge,
        ),
        // What is ignored.
        row(
            get(
                &challenge,
                &format!("{HOST}Expect: 100-continue\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\n"),
            ),
            Some(200),
            Reason::Answered,
        ),
        row(
            [get(&challenge, HOST), get("/second", HOST)].concat(),
            Some(200),
            Reason::Answered,
        ),
    ];
    for (bytes, status, reason) in rows {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let reply = world.exchange(&bytes).await;
        assert_eq!(reply.status(), status, "{shown:?}");
        world.ended_by(reason).await;
        // One answer, one end, and only a redirect names a place.
        let text = String::from_utf8_lossy(&reply.bytes).into_owned();
        assert_eq!(
            text.matches("HTTP/1.1 ").count(),
            usize::from(status.is_some())
        );
        if status.is_some() {
            assert!(!reply.was_reset, "{shown:?}");
            assert_eq!(reply.field("Connection").as_deref(), Some("close"));
            let is_redirect = reason == Reason::Redirected;
            assert_eq!(reply.field("Location").is_some(), is_redirect, "{shown:?}");
        }
    }
    assert!(world.events.try_recv().is_err());
}

#[tokio::test]
async fn visitors_are_sent_to_https_under_a_name_that_was_configured() {
    let named = Site {
        redirect: Redirect::To(identifier("www.example.com")),
        ..site(&[])
    };
    let plan = |redirect_status| Plan {
        settings: Settings {
            redirect_status,
            ..Settings::default()
        },
        ..Plan::of([
            (site(&["example.com"]), Source::Pushed),
            (named.clone(), Source::Pushed),
        ])
    };
    let mut world = World::start(plan(RedirectStatus::MovedPermanently));
    let reply = world.exchange(get("/a?b=%2f", HOST)).await;
    assert_eq!(reply.status(), Some(301));
    let location = reply.field("Location");
    assert_eq!(location.as_deref(), Some("https://example.com/a?b=%2f"));
    assert_eq!(reply.field("Strict-Transport-Security"), None);
    world.ended_by(Reason::Redirected).await;

    world.reload(plan(RedirectStatus::PermanentRedirect));
    let reply = world.exchange(get("/x", "Host: evil.test\r\n")).await;
    assert_eq!(reply.status(), Some(308));
    let location = reply.field("Location");
    assert_eq!(location.as_deref(), Some("https://www.example.com/x"));
}

#[tokio::test]
async fn head_gets_the_fields_of_get_and_nothing_else() {
    let world = World::start(Plan::default());
    for target in [format!("{PATH}{TOKEN}"), "/".to_owned(), format!("{PATH}x")] {
        let get = get(&target, HOST);
        let head = [b"HEAD", &get[3..]].concat();
        let (get, head) = (world.exchange(get).await, world.exchange(head).await);
        let without_date = |text: String| {
            let lines = text.lines().filter(|line| !line.starts_with("Date:"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(without_date(get.head()), without_date(head.head()));
        assert_eq!(head.content(), "");
        let length = get.field("Content-Length").unwrap();
        assert_eq!(length, get.content().len().to_string());
    }
}

#[tokio::test]
async fn the_default_site_reaches_no_upstream_even_in_a_window() {
    let (address, mut seen) = answering(ok(&format!("{TOKEN}.{THUMBPRINT}"))).await;
    let upstream = Source::Upstream(acmegate::answer::Upstream::new(address));
    let mut world = World::start(Plan::of([(site(&[]), upstream)]).covered());
    let reply = world.exchange(validation("evil.test", TOKEN)).await;
    assert_eq!(reply.status(), Some(404));
    world.ended_by(Reason::NotCovered).await;
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_request_is_understood_wherever_it_is_cut() {
    let mut world = World::start(Plan::default());
    let request = validation("example.com", TOKEN);
    for cut in 1..request.len() {
        let (first, second) = request.as_bytes().split_at(cut);
        let mut stream = world.connect().await;
        stream.set_nodelay(true).unwrap();
        stream.write_all(first).await.unwrap();
        world.holds(1).await;
        stream.write_all(second).await.unwrap();
        let reply = read_reply(&mut stream).await;
        assert_eq!(reply.status(), Some(200), "cut at {cut}");
        assert!(!reply.was_reset);
        world.ended_by(Reason::Answered).await;
        world.holds(0).await;
    }
    // And octet by octet.
    let mut stream = world.connect().await;
    stream.set_nodelay(true).unwrap();
    for octet in request.as_bytes().chunks(1) {
        stream.write_all(octet).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(read_reply(&mut stream).await.status(), Some(200));
}

#[tokio::test]
async fn every_truncation_is_waited_for_and_then_timed_out() {
    let mut world = World::start(Plan {
        settings: Settings {
            head_timeout: Duration::from_millis(500),
            http: Limits {
                total: 10_000,
                per_source: 1000,
            },
            ..Settings::default()
        },
        ..Plan::default()
    });
    let request = validation("example.com", TOKEN);
    let mut streams = Vec::new();
    for cut in 0..request.len() {
        let mut stream = world.connect().await;
        stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
        streams.push(stream);
    }
    for (cut, stream) in streams.iter_mut().enumerate() {
        let reply = read_reply(stream).await;
        // Who has said nothing is told nothing.
        assert_eq!(reply.status(), (cut > 0).then_some(408), "cut at {cut}");
        assert!(!reply.was_reset);
    }
    for _ in 0..request.len() {
        world.ended_by(Reason::HeadTimeout).await;
    }
}
