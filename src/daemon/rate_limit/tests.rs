use super::*;
use crate::gate::identifier::Pattern;
use crate::gate::site::Redirect;
use crate::observe::record::Said;

fn identifier(name: &str) -> Identifier {
    Identifier::parse(name).unwrap()
}

fn names(names: &[&str]) -> BTreeSet<Identifier> {
    names.iter().map(|name| identifier(name)).collect()
}

fn said(renewed: &[&str], failed: &[&str]) -> Option<Said> {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Said {
        renewed: list(renewed),
        failed: list(failed),
    })
}

#[test]
fn what_the_client_says_is_more_than_what_was_seen() {
    let unanswered = names(&["a.test", "b.test"]);
    let record = Record::default();
    assert_eq!(failed(&record, unanswered.clone()), unanswered);
    assert_eq!(failed(&record, BTreeSet::new()), BTreeSet::new());
    let record = Record {
        said: said(&["b.test"], &["c.test"]),
        ..record
    };
    assert_eq!(failed(&record, unanswered), names(&["a.test", "c.test"]));
}

#[test]
fn a_window_answers_for_what_it_covers_alone() {
    let record = Record {
        identifiers: Some(vec!["a.test".to_owned()]),
        beside: vec!["other".to_owned()],
        said: said(&[], &["a.test", "b.test", "not a name"]),
        ..Record::default()
    };
    assert_eq!(failed(&record, BTreeSet::new()), names(&["a.test"]));
    assert!(covers(&record, &identifier("a.test"), true));
    assert!(!covers(&record, &identifier("b.test"), false));
    let open_to_all = Record {
        identifiers: None,
        ..record
    };
    // Whose token it is cannot be told from another window's.
    assert!(!covers(&open_to_all, &identifier("a.test"), true));
    assert!(covers(&open_to_all, &identifier("a.test"), false));
}

#[test]
fn a_history_is_taken_over_with_its_age_and_an_end_is_news_once() {
    let rate_limit = RateLimit::default();
    let record = Record {
        lease: "certbot-812".to_owned(),
        holder: Some("certbot (pid 812)".to_owned()),
        failed: vec!["a.test".to_owned(), "no name".to_owned()],
        ..Record::default()
    };
    let lease = LeaseName::parse("certbot").unwrap();
    let refusal = |rate_limit: &RateLimit, limit| {
        let attempt = Attempt {
            lease: &lease,
            caller: 0,
            identifiers: None,
        };
        rate_limit.lock().refuse(attempt, limit, now())
    };
    for minutes in [50, 70, 10] {
        rate_limit.remember(&record, Duration::from_secs(60 * minutes));
    }
    let two = refusal(&rate_limit, 2).unwrap();
    assert_eq!((two.count, two.since.as_secs() / 60), (2, 50));
    assert_eq!(two.again_in.as_secs().div_ceil(60), 10);
    assert_eq!(refusal(&rate_limit, 3), None);

    assert!(rate_limit.is_news(&record) && !rate_limit.is_news(&record));
    for opened_at in 1..1000 {
        let record = Record {
            opened_at,
            ..record.clone()
        };
        assert!(rate_limit.is_news(&record));
    }
    assert_eq!(locked(&rate_limit.ended).len(), MAX_ENDED);
}

#[test]
fn a_token_counts_that_was_pushed_just_before_the_opening_and_nobody_was_answered_for() {
    let site = Site {
        identifiers: ["a.test", "b.test"]
            .map(|name| Pattern::parse(name).unwrap())
            .into(),
        is_default: false,
        redirect: Redirect::Off,
        accounts: Vec::new(),
    };
    let rate_limit = RateLimit::default();
    for name in ["a.test", "b.test", "elsewhere.test"] {
        rate_limit.pushed(&identifier(name), 0);
    }
    // By an upstream of its own: the answer is as good.
    rate_limit.ended(&Ended {
        reason: Reason::Relayed,
        accepted: now(),
        peer: "192.0.2.1".parse().unwrap(),
        is_listed: false,
        local_port: 443,
        identifier: Some(&identifier("b.test")),
        challenge: None,
        token: None,
        thumbprint: None,
        lease: None,
        status: None,
        octets: 0,
        detail: None,
    });
    let record = Record {
        lease: "a".to_owned(),
        ..Record::default()
    };
    let failed = rate_limit.window_ended(&record, std::slice::from_ref(&site));
    assert_eq!(failed, [identifier("a.test")]);
    assert_eq!(
        rate_limit.window_ended(&record, std::slice::from_ref(&site)),
        []
    );
}
