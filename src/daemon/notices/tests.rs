use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::observe::record::Assessment;
use crate::observe::record::{Role, Source};

fn assessed(outcome: Outcome, dropped: u32, was_cut: bool) -> Record {
    Record {
        number: Some(7),
        lease: "certbot-812".to_owned(),
        assessment: Assessment {
            outcome,
            dropped,
            was_cut,
            ..Assessment::default()
        },
        ..Record::default()
    }
}

const DEFAULT: When = When {
    failed: true,
    dropped: true,
    cut: true,
    always: false,
};

#[test]
fn of_which_windows_is_told() {
    let only = |when: When| When { ..when };
    let good = assessed(Outcome::Answered, 0, false);
    assert_eq!(kind(&good, DEFAULT), None);
    let always = only(When {
        always: true,
        ..DEFAULT
    });
    assert_eq!(kind(&good, always), Some("window"));
    for (record, word) in [
        (assessed(Outcome::Failed, 2, true), "failed"),
        (assessed(Outcome::Doubtful, 2, false), "failed"),
        (assessed(Outcome::Tolerated, 1, true), "dropped"),
        (assessed(Outcome::Quiet, 0, true), "cut"),
    ] {
        assert_eq!(kind(&record, DEFAULT), Some(word));
        assert_eq!(kind(&record, When::default()), None);
    }
}

#[test]
fn an_event_is_one_bounded_line_of_ascii() {
    let mut record = assessed(Outcome::Failed, 0, false);
    let source = |at: u32| Source {
        address: std::net::Ipv4Addr::from(at).into(),
        network: "\u{1b}[31m\u{85}\u{202e}<script>".repeat(20),
        place: None,
        role: Role::Validator,
        first: 0,
        packets: 0,
        reached: true,
        dropped: None,
        visits: Vec::new(),
        more_visits: 0,
        then: None,
    };
    record.sources = (0..256).map(source).collect();
    let text = event("failed", 3, Some(&record));
    assert!(text.len() <= MAX_EVENT_BYTES);
    assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let event: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["event"], "failed");
    assert_eq!(event["unsent"], 3);
    assert_eq!(event["summary"].as_array().unwrap().len(), 2);
    let kept = event["record"]["sources"].as_array().unwrap().len();
    let more = event["record"]["more_sources"].as_u64().unwrap();
    assert!(event["is_shortened"] == true && kept > 0 && kept as u64 + more == 256);
    record.sources.truncate(1);
    let whole: serde_json::Value =
        serde_json::from_str(&super::event("failed", 0, Some(&record))).unwrap();
    assert_eq!(whole["is_shortened"], false);
    let read: Record = serde_json::from_value(whole["record"].clone()).unwrap();
    assert_eq!(read, record);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_told_in_an_hour_and_how_many_were_not() {
    let mut told = Told::default();
    let start = Instant::now();
    for _ in 0..MAX_PER_HOUR {
        assert_eq!(told.take(start), Some(0));
    }
    assert_eq!(told.due(start), None);
    for _ in 0..1000 {
        assert_eq!(told.take(start + HOUR / 2), None);
    }
    assert_eq!(told.due(start + HOUR / 2), Some(start + HOUR));
    assert_eq!(told.take(start + HOUR), Some(1000));
    assert_eq!(told.sent.len(), 1);
    assert_eq!(told.due(start + HOUR), None);
    // What found no place in the queue is told as soon as there is time.
    told.unsent = 5;
    assert_eq!(told.due(start + HOUR), Some(start + HOUR));
}

/// A server that does this with one connection; what it was sent, and what was made of it.
async fn posted_to(answer: &'static [u8], is_silent: bool) -> (String, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Webhook {
        address: listener.local_addr().unwrap(),
        path: "/hook?a=b".to_owned(),
    };
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut said, mut part) = (Vec::new(), [0; 4096]);
        while !said.ends_with(b"{\"a\":1}") {
            let count = stream.read(&mut part).await.unwrap();
            said.extend_from_slice(&part[..count]);
        }
        if is_silent {
            let _ = stream.read(&mut part).await;
        }
        // It goes away when it has heard enough.
        for _ in 0..1000 {
            if stream.write_all(answer).await.is_err() {
                break;
            }
        }
        String::from_utf8(said).unwrap()
    });
    let limit = Duration::from_millis(500);
    let posted = timeout(limit, post(&webhook, "{\"a\":1}")).await;
    let posted = posted.unwrap_or_else(|_| Err("late".to_owned()));
    (serving.await.unwrap(), posted)
}

#[tokio::test]
async fn a_webhook_is_posted_to_and_its_answer_is_bounded() {
    let (said, posted) = posted_to(b"HTTP/1.1 204 No Content\r\n\r\n", false).await;
    assert_eq!(posted, Ok(()));
    assert!(said.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{said}");
    assert!(
        said.contains("content-type: application/json\r\n"),
        "{said}"
    );
    assert!(said.contains("content-length: 7\r\n"), "{said}");
    for (answer, is_silent, why) in [
        (&b"HTTP/1.1 500 No\r\n\r\n"[..], false, "status 500"),
        (
            b"HTTP/1.1 302 Go\r\nLocation: /\r\n\r\n",
            false,
            "status 302",
        ),
        (b"nonsense", false, "invalid HTTP version parsed"),
        (b"", true, "late"),
    ] {
        let (_, posted) = posted_to(answer, is_silent).await;
        assert_eq!(posted, Err(why.to_owned()));
    }
    // Without end.
    let endless = Box::leak(
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 100_000]]
            .concat()
            .into(),
    );
    let (_, posted) = posted_to(endless, false).await;
    assert_eq!(posted, Ok(()));
    // Nobody there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Webhook {
        address: free.local_addr().unwrap(),
        path: "/".to_owned(),
    };
    drop(free);
    let refused = post(&webhook, "{}").await.unwrap_err();
    assert!(refused.starts_with("connect: "), "{refused}");
}
