use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn identifier(name: &str) -> Identifier {
    Identifier::parse(name).unwrap()
}

fn lease(name: &str) -> LeaseName {
    LeaseName::parse(name).unwrap()
}

/// Failures of one identifier by one caller's certbot, at these minutes.
fn failed(book: &mut Failures, name: &str, caller: u32, from: Instant, minutes: &[u32]) {
    for minute in minutes {
        let at = from + MINUTE * *minute;
        book.note(identifier(name), lease("certbot"), caller, at);
    }
}

fn refused(
    book: &Failures,
    lease_name: &str,
    caller: u32,
    names: Option<&[&str]>,
    now: Instant,
) -> Option<Refusal> {
    let identifiers: Option<Vec<Identifier>> =
        names.map(|names| names.iter().map(|name| identifier(name)).collect());
    let attempt = Attempt {
        lease: &lease(lease_name),
        caller,
        identifiers: identifiers.as_deref(),
    };
    book.refuse(attempt, 4, now)
}

#[test]
fn the_fifth_attempt_in_an_hour_waits_until_the_first_failure_is_an_hour_old() {
    let (mut book, start) = (Failures::default(), Instant::now());
    failed(&mut book, "a.test", 0, start, &[0, 10, 20]);
    let at = |minute: u32| start + MINUTE * minute;
    assert_eq!(refused(&book, "x", 0, Some(&["a.test"]), at(30)), None);
    failed(&mut book, "a.test", 0, start, &[30]);
    let refusal = refused(&book, "x", 0, Some(&["b.test", "a.test"]), at(40)).unwrap();
    assert_eq!(
        refusal,
        Refusal {
            identifier: identifier("a.test"),
            count: 4,
            since: MINUTE * 40,
            again_in: MINUTE * 20,
        }
    );
    assert_eq!(refused(&book, "x", 0, Some(&["b.test"]), at(40)), None);
    assert!(
        refused(
            &book,
            "x",
            0,
            Some(&["a.test"]),
            at(60) - Duration::from_millis(1)
        )
        .is_some()
    );
    assert_eq!(refused(&book, "x", 0, Some(&["a.test"]), at(60)), None);
    // One that insisted, and failed as well, waits for the second.
    failed(&mut book, "a.test", 0, start, &[50]);
    let refusal = refused(&book, "x", 0, Some(&["a.test"]), at(55)).unwrap();
    assert_eq!((refusal.count, refusal.again_in), (5, MINUTE * 15));
}

#[test]
fn a_lease_that_names_nothing_answers_for_what_failed_under_its_name() {
    let (mut book, now) = (Failures::default(), Instant::now());
    failed(&mut book, "a.test", 0, now, &[0, 0, 0, 0]);
    assert!(refused(&book, "certbot", 0, None, now).is_some());
    assert_eq!(refused(&book, "lego", 0, None, now), None);
    // Four failures of four names are no four failures of one.
    let mut book = Failures::default();
    for name in ["a.test", "b.test", "c.test", "d.test"] {
        failed(&mut book, name, 0, now, &[0]);
    }
    assert_eq!(refused(&book, "certbot", 0, None, now), None);
}

#[test]
fn nobody_is_locked_out_by_the_failures_of_another_account() {
    let (mut book, now) = (Failures::default(), Instant::now());
    failed(&mut book, "a.test", 1000, now, &[0; 50]);
    for names in [None, Some(&["a.test"][..])] {
        assert_eq!(refused(&book, "certbot", 0, names, now), None);
        assert!(refused(&book, "certbot", 1000, names, now).is_some());
    }
}

#[test]
fn the_book_is_bounded_and_who_floods_it_loses_his_own() {
    let (mut book, now) = (Failures::default(), Instant::now());
    failed(&mut book, "a.test", 0, now, &[0, 0, 0, 0]);
    for at in 0..2 * MAX_FAILURES {
        failed(&mut book, &format!("n{at}.test"), 1000, now, &[0]);
    }
    assert_eq!(book.failures.len(), MAX_FAILURES);
    assert!(refused(&book, "certbot", 0, Some(&["a.test"]), now).is_some());
    let mut book = Failures::default();
    failed(&mut book, "a.test", 0, now, &[0; 2 * MAX_LIMIT as usize]);
    assert_eq!(book.failures.len(), MAX_LIMIT as usize);
    for at in 0..2 * MAX_PUSHES {
        book.pushed(&identifier(&format!("n{at}.test")), 0, now);
    }
    assert_eq!(book.pushes.len(), MAX_PUSHES);
}

#[test]
fn where_there_is_no_room_an_older_failure_drives_out_no_newer_one() {
    let (mut book, now) = (Failures::default(), Instant::now());
    let minutes: Vec<u32> = (1..=MAX_LIMIT).collect();
    failed(&mut book, "a.test", 0, now, &minutes);
    // As a history tells it.
    failed(&mut book, "a.test", 0, now, &[0]);
    let first = book.failures.front().unwrap();
    assert_eq!((book.failures.len(), first.at), (100, now + MINUTE));
}

#[test]
fn a_push_is_told_once_and_to_its_caller_alone() {
    let (mut book, now) = (Failures::default(), Instant::now());
    let (a, b) = (identifier("a.test"), identifier("b.test"));
    book.pushed(&a, 0, now);
    book.pushed(&b, 0, now + MINUTE);
    book.pushed(&a, 1000, now);
    assert!(book.take_unanswered(7, now, |_| true).is_empty());
    assert_eq!(
        book.take_unanswered(0, now + MINUTE, |_| true),
        BTreeSet::from([b])
    );
    assert!(book.take_unanswered(0, now, |name| *name != a).is_empty());
    assert_eq!(book.take_unanswered(0, now, |_| true), BTreeSet::from([a]));
    assert!(book.take_unanswered(0, now, |_| true).is_empty());
}

#[test]
fn who_was_answered_has_not_failed() {
    let (mut book, now) = (Failures::default(), Instant::now());
    let (a, b) = (identifier("a.test"), identifier("b.test"));
    for caller in [0, 1000] {
        book.pushed(&a, caller, now);
        book.pushed(&b, caller, now);
    }
    book.answered(&a);
    for caller in [0, 1000] {
        let left = book.take_unanswered(caller, now, |_| true);
        assert_eq!(left, BTreeSet::from([b.clone()]));
    }
    // What is pushed again is to be answered again.
    book.answered(&a);
    book.pushed(&a, 0, now);
    assert_eq!(book.take_unanswered(0, now, |_| true).len(), 1);
}

proptest! {
    /// Against counting anew from a list of everything that ever failed.
    #[test]
    fn it_agrees_with_a_list_of_everything(
        noted in prop::collection::vec((0u8..3, 0u8..2, 0u32..2, 0u32..180), 0..40),
        asked in prop::collection::vec((prop::option::of(prop::collection::vec(0u8..3, 1..3)), 0u8..2, 0u32..2, 0u32..240), 1..20),
        limit in 1u32..6,
    ) {
        let start = Instant::now();
        let name = |number: u8| identifier(&format!("n{number}.test"));
        let lease_name = |number: u8| lease(&format!("l{number}"));
        let mut book = Failures::default();
        for (identifier, lease, caller, minute) in &noted {
            book.note(name(*identifier), lease_name(*lease), *caller, start + MINUTE * *minute);
        }
        for (identifiers, lease, caller, minute) in &asked {
            let now = start + MINUTE * *minute;
            let identifiers: Option<Vec<Identifier>> =
                identifiers.as_ref().map(|all| all.iter().map(|number| name(*number)).collect());
            let attempt = Attempt {
                lease: &lease_name(*lease),
                caller: *caller,
                identifiers: identifiers.as_deref(),
            };
            let count_at = |of: u8, at: Instant| {
                noted.iter().filter(|(identifier, by, who, failed_at)| {
                    let failed_at = start + MINUTE * *failed_at;
                    *identifier == of && who == caller && failed_at + SPAN > at
                        && match &identifiers {
                            Some(identifiers) => identifiers.contains(&name(of)),
                            None => by == lease,
                        }
                }).count()
            };
            let is_refused = |at: Instant| (0..3).any(|of| count_at(of, at) >= limit as usize);
            let refusal = book.refuse(attempt, limit, now);
            prop_assert_eq!(refusal.is_some(), is_refused(now));
            if let Some(refusal) = refusal {
                let free = now + refusal.again_in;
                prop_assert!(!is_refused(free));
                prop_assert!(is_refused(free - Duration::from_millis(1)));
                prop_assert!(refusal.count >= limit);
            }
        }
    }
}
