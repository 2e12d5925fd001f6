use proptest::prelude::*;

use super::open::{BLUR, MAX_TOKENS, RESTARTED};
use super::*;
use crate::gate::Reason;
use crate::gate::challenge::ChallengeType;
use crate::gate::event::{Sight, Sighting};
use crate::gate::lease::{Entrance, Families, Scope, Trigger};
use crate::observe::record::{
    MAX_OTHER_VISITS, MAX_SOURCES, MAX_VALIDATIONS, Outcome, Role, Source,
};

const SECOND: Duration = Duration::from_secs(1);
const WALL: u64 = 1_795_000_000_000;

fn lease(name: &str, now: Instant) -> Lease {
    Lease {
        id: 1,
        name: LeaseName::parse(name).unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: now + 600 * SECOND,
    }
}

fn identifier(text: &str) -> Identifier {
    Identifier::parse(text).unwrap()
}

fn token(number: u64) -> Token {
    Token::parse(format!("{number:043}").as_bytes()).unwrap()
}

/// A connection that ended.
struct Came<'a> {
    peer: &'a str,
    reason: Reason,
    name: &'a str,
    token: Option<u64>,
}

impl Came<'_> {
    fn tell(&self, book: &mut Book, now: Instant) {
        self.tell_of(book, now, false);
    }

    fn tell_of(&self, book: &mut Book, now: Instant, is_listed: bool) {
        let name = identifier(self.name);
        let token = self.token.map(token);
        book.visited(
            &Ended {
                reason: self.reason,
                accepted: now,
                peer: self.peer.parse().unwrap(),
                is_listed,
                local_port: 80,
                identifier: Some(&name),
                challenge: self.token.map(|_| ChallengeType::Http01),
                token: token.as_ref(),
                thumbprint: None,
                lease: None,
                status: self.reason.status(),
                octets: 250,
                detail: None,
            },
            now + Duration::from_millis(3),
        );
    }
}

fn answered<'a>(peer: &'a str, name: &'a str) -> Came<'a> {
    Came {
        peer,
        reason: Reason::Answered,
        name,
        token: Some(1),
    }
}

fn seen(source: &str, packets: u64) -> Seen {
    Seen::Sighted(Sighting {
        source: source.parse().unwrap(),
        port: 80,
        sight: Sight::Seen {
            packets,
            ago: Duration::ZERO,
        },
    })
}

/// A book with one open window.
fn open_book(now: Instant) -> (Book, LeaseName) {
    let mut book = Book::default();
    let lease = lease("certbot-1", now);
    book.opened(&lease, Why::Asked, now, WALL);
    (book, lease.name)
}

/// What the book says once the window is over.
fn complete(book: &mut Book, name: &LeaseName, now: Instant) -> Record {
    book.ended(name, EndedBy::Close, now);
    let drafts = book.take_changed(now + SETTLE);
    let last = drafts.into_iter().next_back().unwrap();
    assert!(last.is_complete && !book.is_open());
    last.record
}

#[test]
fn a_window_whose_every_network_was_answered_is_told_so() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    for peer in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"] {
        answered(peer, "example.com").tell(&mut book, start + SECOND);
    }
    let record = complete(&mut book, &name, start + 2 * SECOND);
    assert_eq!(record.assessment.outcome, Outcome::Answered);
    assert_eq!(record.assessment.answered, 4);
    assert_eq!(record.sources.len(), 4);
    let visit = &record.sources[0].visits[0];
    assert_eq!(
        (visit.at, visit.took, visit.status),
        (1000, 3000, Some(200))
    );
    assert_eq!(visit.token.as_deref().map(str::len), Some(8));
    assert_eq!(record.end.unwrap().by, EndedBy::Close);
    assert_eq!(record.end.unwrap().at, 2000);
}

#[test]
fn a_token_that_nobody_has_makes_no_validator_where_another_was_answered() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    answered("192.0.2.1", "example.com").tell(&mut book, start);
    let stranger = Came {
        peer: "198.51.100.9",
        reason: Reason::UnknownToken,
        name: "example.com",
        token: Some(9),
    };
    stranger.tell(&mut book, start);
    // Alone it may be the CA's first look, which fails.
    let alone = Came {
        name: "other.example.com",
        peer: "203.0.113.9",
        ..stranger
    };
    alone.tell(&mut book, start);
    let record = complete(&mut book, &name, start + SECOND);
    let role = |peer: &str| {
        let mut sources = record.sources.iter();
        let of = sources.find(|source| source.address.to_string() == peer);
        of.unwrap().role
    };
    assert_eq!(role("192.0.2.1"), Role::Validator);
    assert_eq!(role("198.51.100.9"), Role::Visitor);
    assert_eq!(role("203.0.113.9"), Role::Validator);
}

#[test]
fn who_was_seen_and_never_got_through_is_dropped_and_who_came_once_is_nobody() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    answered("192.0.2.1", "example.com").tell(&mut book, start);
    book.witnessed(&seen("198.51.100.1", 3), start + SECOND);
    book.witnessed(&seen("203.0.113.1", 1), start + SECOND);
    book.witnessed(
        &Seen::Sighted(Sighting {
            source: "198.51.100.1".parse().unwrap(),
            port: 80,
            sight: Sight::Dropped {
                table: "inet filter".to_owned(),
                chain: "input".to_owned(),
                rule: None,
            },
        }),
        start + 2 * SECOND,
    );
    let record = complete(&mut book, &name, start + 3 * SECOND);
    assert_eq!(record.assessment.dropped, 1);
    let dropped = &record.sources[1];
    assert_eq!(dropped.dropped.as_ref().unwrap().chain, "input");
    assert!(dropped.is_stopped() && !dropped.reached);
}

#[test]
fn who_came_to_the_window_before_or_after_is_not_said_to_have_been_stopped_at_this_one() {
    let start = Instant::now();
    let (mut book, first) = open_book(start);
    answered("192.0.2.1", "example.com").tell(&mut book, start + SECOND);
    let ended = start + 2 * SECOND;
    book.ended(&first, EndedBy::Close, ended);
    let second = lease("certbot-2", ended + SECOND / 2);
    book.opened(&second, Why::Asked, ended + SECOND / 2, WALL + 2500);
    let seen_ago = |source: &str, ago| {
        Seen::Sighted(Sighting {
            source: source.parse().unwrap(),
            port: 80,
            sight: Sight::Seen { packets: 3, ago },
        })
    };
    let reached = Seen::Sighted(Sighting {
        source: "203.0.113.2".parse().unwrap(),
        port: 80,
        sight: Sight::Reached,
    });
    let now = ended + SECOND;
    // Told late, of a moment before the first one's end; and of now.
    book.witnessed(&seen_ago("198.51.100.1", SECOND + SECOND / 10), now);
    book.witnessed(&seen_ago("203.0.113.1", SECOND / 10), now);
    book.witnessed(&reached, now);
    let addresses = |record: &Record| {
        let sources = record.sources.iter();
        let addresses: Vec<_> = sources.map(|source| source.address.to_string()).collect();
        addresses
    };
    let record = book.last_of(&first).unwrap();
    assert_eq!(addresses(&record), ["192.0.2.1", "198.51.100.1"]);
    let record = book.last_of(&second.name).unwrap();
    assert_eq!(addresses(&record), ["203.0.113.1", "203.0.113.2"]);
}

#[test]
fn what_is_seen_of_a_port_or_family_that_is_shut_is_not_written_down() {
    let start = Instant::now();
    let mut book = Book::default();
    let only_v4 = Lease {
        scope: Scope {
            families: Families {
                v4: true,
                v6: false,
            },
            ..lease("a", start).scope
        },
        ..lease("a", start)
    };
    book.opened(&only_v4, Why::Asked, start, WALL);
    book.witnessed(&seen("2001:db8::1", 2), start);
    answered("2001:db8::2", "example.com").tell(&mut book, start);
    assert_eq!(book.all()[0].sources, []);
}

#[test]
fn what_was_admitted_is_still_written_down_after_the_end_and_what_came_later_is_not() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    book.ended(&name, EndedBy::Close, start + SECOND);
    let admitted = answered("192.0.2.1", "example.com");
    admitted.tell(&mut book, start + SECOND);
    answered("192.0.2.2", "example.com").tell(&mut book, start + 2 * SECOND);
    assert_eq!(book.take_changed(start + 3 * SECOND).len(), 1);
    let record = book.last_of(&name).unwrap();
    assert_eq!(record.sources.len(), 1);
}

#[test]
fn nobody_closing_it_is_told_with_how_late_it_was() {
    let start = Instant::now();
    let (mut book, _) = open_book(start);
    let late = start + 600 * SECOND + Duration::from_millis(40);
    book.expire(start + 599 * SECOND);
    assert!(book.all()[0].end.is_none());
    book.expire(late);
    let end = book.all()[0].end.unwrap();
    assert_eq!((end.by, end.late), (EndedBy::Deadline, 40));
    assert!(book.all()[0].assessment.was_cut);
}

#[test]
fn a_renewal_goes_on_and_a_new_lease_of_the_name_begins_anew() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    book.opened(
        &lease("certbot-1", start + SECOND),
        Why::Asked,
        start + SECOND,
        WALL,
    );
    assert_eq!(book.all().len(), 1);
    assert_eq!(book.all()[0].renewals, 1);
    book.ended(&name, EndedBy::Close, start + 2 * SECOND);
    book.opened(
        &lease("certbot-1", start + 3 * SECOND),
        Why::Asked,
        start + 3 * SECOND,
        WALL + 3000,
    );
    answered("192.0.2.1", "example.com").tell(&mut book, start + 4 * SECOND);
    let all = book.all();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].sources.len(), all[1].sources.len()), (0, 1));
}

/// A hook that closes has its own record handed on before those that wait: each is counted all the same.
#[test]
fn the_first_of_each_record_is_said_to_be_new_in_whatever_order_they_go() {
    let now = Instant::now();
    let mut book = Book::default();
    let names = ["a", "b", "c"].map(|name| {
        let lease = lease(name, now);
        book.opened(&lease, Why::Asked, now, 0);
        lease.name
    });
    let first = book.take_changed_of(&names[2]).unwrap();
    assert!(first.is_new);
    let others: Vec<(u64, bool)> = (book.take_changed(now).iter())
        .map(|draft| (draft.id, draft.is_new))
        .collect();
    assert_eq!(others, [(1, true), (2, true)]);
    book.ended_all_but(&[], EndedBy::Close, now);
    let ended = book.take_changed(now);
    assert!(ended.len() == 3 && ended.iter().all(|draft| !draft.is_new));
}

#[test]
fn of_two_windows_at_once_each_has_what_its_identifiers_are_for() {
    let start = Instant::now();
    let mut book = Book::default();
    for (name, identifiers) in [("a", "a.test"), ("b", "b.test")] {
        let lease = Lease {
            scope: Scope {
                identifiers: Some(vec![identifier(identifiers)]),
                ..lease(name, start).scope
            },
            ..lease(name, start)
        };
        book.opened(&lease, Why::Asked, start, WALL);
    }
    answered("192.0.2.1", "b.test").tell(&mut book, start);
    answered("192.0.2.2", "neither.test").tell(&mut book, start);
    let all = book.all();
    assert_eq!(all[0].beside, ["b"]);
    assert_eq!(all[1].beside, ["a"]);
    assert_eq!(all[0].sources.len(), 1, "who is for neither is in both");
    assert_eq!(all[1].sources.len(), 2);
}

#[test]
fn a_name_that_the_window_was_not_opened_for_is_no_validation_of_it() {
    let start = Instant::now();
    let mut book = Book::default();
    let lease = Lease {
        scope: Scope {
            identifiers: Some(vec![identifier("example.com")]),
            ..lease("a", start).scope
        },
        ..lease("a", start)
    };
    book.opened(&lease, Why::Asked, start, WALL);
    answered("192.0.2.1", "example.com").tell(&mut book, start);
    let stranger = Came {
        name: "192.0.2.99",
        ..made_up("198.51.100.9")
    };
    stranger.tell(&mut book, start);
    let record = complete(&mut book, &lease.name, start + SECOND);
    assert_eq!(record.sources[1].role, Role::Visitor);
    assert_eq!(record.assessment.outcome, Outcome::Answered);
}

#[test]
fn evidence_counts_from_the_opening_to_the_last_look() {
    let start = Instant::now();
    let tally = |packets| {
        Seen::Tallied(Tally {
            is_kept: true,
            packets,
            seen: packets / 10,
            reached: 2,
            incomplete: (packets > 1000).then(|| "more than are kept".to_owned()),
        })
    };
    let mut book = Book::default();
    book.witnessed(&tally(100), start);
    book.opened(&lease("a", start), Why::Asked, start, WALL);
    book.witnessed(&tally(1500), start + SECOND);
    book.ended(
        &LeaseName::parse("a").unwrap(),
        EndedBy::Close,
        start + SECOND,
    );
    book.witnessed(&tally(1600), start + SECOND);
    book.witnessed(&tally(9000), start + 4 * SECOND);
    let evidence = book.all()[0].evidence.clone();
    assert_eq!(
        (evidence.packets, evidence.seen, evidence.reached),
        (1500, 150, 0)
    );
    assert!(evidence.is_kept && evidence.incomplete.is_some());
}

#[test]
fn a_window_of_another_run_goes_on_where_the_history_left_it() {
    let start = Instant::now() + 100 * SECOND;
    let (mut book, name) = open_book(start);
    answered("192.0.2.1", "example.com").tell(&mut book, start + SECOND);
    made_up("198.51.100.9").tell(&mut book, start + SECOND);
    let tally = |packets| {
        Seen::Tallied(Tally {
            is_kept: true,
            packets,
            seen: 2,
            reached: 2,
            ..Tally::default()
        })
    };
    book.witnessed(&tally(3), start + SECOND);
    let stored = Record {
        number: Some(7),
        ..book.last_of(&name).unwrap()
    };
    let mut later = Book::default();
    let (now, wall) = (start + 9 * SECOND, WALL + 9000);
    later.taken_up(&lease("certbot-1", now), Some(stored), now, wall);
    later.witnessed(&tally(4), now);
    let known = later.last_of(&name).unwrap();
    let evidence = &known.evidence;
    assert_eq!(
        (evidence.packets, evidence.seen, evidence.reached),
        (7, 4, 4)
    );
    assert_eq!(evidence.incomplete.as_deref(), Some(RESTARTED));
    answered("192.0.2.2", "example.com").tell(&mut later, now + SECOND);
    let record = complete(&mut later, &name, now + 2 * SECOND);
    assert_eq!((record.number, record.opened_at), (Some(7), WALL));
    assert_eq!(known.sources.len(), 2);
    let roles = known.sources.iter().map(|source| source.role);
    assert!(
        roles.eq([Role::Validator, Role::Visitor]),
        "whose tokens are known is too"
    );
    assert_eq!(record.sources.len(), 3);
    assert_eq!(record.sources[2].first, 10_000);
    assert_eq!(record.end.unwrap().at, 11_000);
}

#[test]
fn of_a_window_that_is_found_open_nobody_says_that_nothing_is_wrong() {
    let now = Instant::now();
    let mut book = Book::default();
    let lease = lease("certbot-1", now);
    book.taken_up(&lease, None, now, WALL);
    let record = complete(&mut book, &lease.name, now + SECOND);
    let line = &crate::observe::report::two_lines(&record)[0];
    assert_eq!(
        line,
        "window (certbot-1): no validation came after acmegate was started anew"
    );
}

/// Somebody who asks for a token that he made up.
fn made_up(peer: &str) -> Came<'_> {
    Came {
        peer,
        reason: Reason::UnknownToken,
        name: "example.com",
        token: Some(9),
    }
}

#[test]
fn tokens_that_one_address_makes_up_leave_room_for_who_knows_one_and_for_who_was_refused() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    for _ in 0..2 * MAX_VALIDATIONS {
        made_up("192.0.2.9").tell(&mut book, start);
    }
    for peer in ["198.51.100.1", "203.0.113.1", "100.64.0.1", "2001:db8::1"] {
        answered(peer, "example.com").tell(&mut book, start);
    }
    made_up("172.16.0.1").tell(&mut book, start);
    let record = complete(&mut book, &name, start + SECOND);
    assert_eq!(record.assessment.outcome, Outcome::Answered);
    assert_eq!(record.assessment.answered, 4);
    let refused = record
        .sources
        .iter()
        .find(|source| source.network == "172.16.0.0/16");
    assert_eq!(refused.unwrap().visits.len(), 1);
    let visits = |source: &Source| source.visits.len() as u64 + source.more_visits;
    assert_eq!(
        record.sources.iter().map(visits).sum::<u64>(),
        2 * MAX_VALIDATIONS as u64 + 5
    );
}

#[test]
fn tokens_that_are_made_up_from_every_address_of_a_network_leave_room_for_others() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    for number in 0..2 * MAX_SOURCES {
        made_up(&format!("2001:db8::{number:x}")).tell(&mut book, start);
    }
    for peer in ["198.51.100.1", "203.0.113.1", "100.64.0.1", "3fff::1"] {
        answered(peer, "example.com").tell(&mut book, start);
    }
    made_up("172.16.0.1").tell(&mut book, start);
    let record = complete(&mut book, &name, start + SECOND);
    assert_eq!(record.assessment.outcome, Outcome::Answered);
    assert_eq!(record.assessment.answered, 4);
    assert_eq!(record.sources.len(), MAX_SOURCES);
    assert_eq!(record.more_sources, MAX_SOURCES as u64 + 5);
    assert!(
        record
            .sources
            .iter()
            .any(|source| source.network == "172.16.0.0/16")
    );
}

#[test]
fn who_came_before_the_opening_or_is_on_the_allow_list_is_in_no_record() {
    let before = Instant::now();
    let start = before + SECOND;
    let (mut book, name) = open_book(start);
    answered("192.0.2.1", "example.com").tell(&mut book, before);
    answered("192.0.2.2", "example.com").tell_of(&mut book, start, true);
    assert_eq!(book.last_of(&name).unwrap().sources, []);
    answered("192.0.2.3", "example.com").tell(&mut book, start);
    assert_eq!(book.last_of(&name).unwrap().sources.len(), 1);
}

#[test]
fn whoever_gets_through_after_all_was_not_dropped() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    let dropped = Seen::Sighted(Sighting {
        source: "192.0.2.1".parse().unwrap(),
        port: 80,
        sight: Sight::Dropped {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            rule: None,
        },
    });
    book.witnessed(&dropped, start);
    assert!(book.last_of(&name).unwrap().sources[0].dropped.is_some());
    answered("192.0.2.1", "example.com").tell(&mut book, start + SECOND);
    let source = book.last_of(&name).unwrap().sources.remove(0);
    assert_eq!((source.dropped, source.reached), (None, true));
}

#[test]
fn what_is_seen_is_written_down_until_a_moment_after_the_end() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    let ended = start + SECOND;
    book.ended(&name, EndedBy::Close, ended);
    let tick = Duration::from_millis(1);
    book.witnessed(&seen("192.0.2.1", 2), ended + BLUR);
    book.witnessed(&seen("192.0.2.2", 2), ended + BLUR + tick);
    // What became of its packets is found out later, and only of who came is it a matter here.
    let reached = |source: &str| {
        Seen::Sighted(Sighting {
            source: source.parse().unwrap(),
            port: 80,
            sight: Sight::Reached,
        })
    };
    book.witnessed(&reached("192.0.2.2"), ended + GRACE);
    book.witnessed(&reached("192.0.2.1"), ended + GRACE + tick);
    let sources = book.last_of(&name).unwrap().sources;
    let addresses: Vec<_> = sources
        .iter()
        .map(|source| (source.address.to_string(), source.reached))
        .collect();
    assert_eq!(addresses, [("192.0.2.1".to_owned(), false)]);
    book.witnessed(&reached("192.0.2.1"), ended + GRACE);
    assert!(book.last_of(&name).unwrap().sources[0].reached);
}

#[test]
fn requests_tokens_leases_and_past_windows_are_bounded() {
    let start = Instant::now();
    let (mut book, name) = open_book(start);
    for _ in 0..MAX_OTHER_VISITS + 3 {
        let visitor = Came {
            peer: "192.0.2.1",
            reason: Reason::Redirected,
            name: "example.com",
            token: None,
        };
        visitor.tell(&mut book, start);
    }
    let source = book.last_of(&name).unwrap().sources.remove(0);
    assert_eq!(
        (source.visits.len(), source.more_visits),
        (MAX_OTHER_VISITS, 3)
    );
    for number in 0..MAX_TOKENS as u64 + 3 {
        book.announced(&identifier("example.com"), &token(number));
    }
    assert_eq!(book.open[0].tokens.len(), MAX_TOKENS);
    // The same one again is no other one.
    for number in [0, 0].into_iter().chain(1..MAX_BESIDE + 3) {
        let (name, now) = (format!("other-{number}"), start + SECOND);
        book.opened(&lease(&name, now), Why::Asked, now, WALL);
        book.ended(&LeaseName::parse(&name).unwrap(), EndedBy::Close, now);
    }
    let beside = book.all().remove(0).beside;
    assert_eq!(beside.len(), MAX_BESIDE);
    assert_eq!(beside[..2], ["other-0", "other-1"]);
    book.ended(&name, EndedBy::Close, start + SECOND);
    let drafts = book.take_changed(start + SECOND + SETTLE);
    assert_eq!(drafts[0].record.beside, beside);
    let all = book.all();
    assert_eq!(all.len(), MAX_RECENT);
    assert_eq!(
        all[MAX_RECENT - 1].lease,
        format!("other-{}", MAX_BESIDE + 2),
        "the newest stay"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes, in whatever order: the book is bounded, loses no answer to a flood, and counts
    /// what it leaves out.
    #[test]
    fn a_flood_hides_no_validation(
        strangers in prop::collection::vec((any::<u32>(), 0..6u8), 0..3000),
        validators in 1..40u8,
    ) {
        let start = Instant::now();
        let (mut book, name) = open_book(start);
        let every = strangers.len() / usize::from(validators) + 1;
        let mut told = 0;
        for (at, (address, kind)) in strangers.iter().enumerate() {
            let peer = std::net::Ipv4Addr::from(*address).to_string();
            match kind {
                0 => book.witnessed(&seen(&peer, 1), start),
                1 => book.witnessed(&seen(&peer, 2), start),
                2 => Came { peer: &peer, reason: Reason::Redirected, name: "example.com", token: None }
                    .tell(&mut book, start),
                3 => Came { peer: &peer, reason: Reason::UnknownHost, name: "x.test", token: None }
                    .tell(&mut book, start),
                // Tokens that are made up, from anywhere and from one address again and again.
                4 => Came { peer: &peer, reason: Reason::UnknownToken, name: "example.com", token: Some(9) }
                    .tell(&mut book, start),
                _ => Came { peer: "192.0.2.9", reason: Reason::UnknownToken, name: "example.com", token: Some(9) }
                    .tell(&mut book, start),
            }
            if at % every == 0 && told < validators {
                answered(&format!("2001:db8:{told:x}::1"), "example.com").tell(&mut book, start);
                told += 1;
            }
        }
        for rest in told..validators {
            answered(&format!("2001:db8:{rest:x}::1"), "example.com").tell(&mut book, start);
        }
        let record = complete(&mut book, &name, start + SECOND);
        prop_assert!(record.sources.len() <= MAX_SOURCES);
        let kept = record.sources.iter().filter(|source| source.is_answered()).count();
        prop_assert_eq!(kept, usize::from(validators));
        let visits: usize = record.sources.iter().map(|source| source.visits.len()).sum();
        prop_assert!(visits <= MAX_VALIDATIONS + MAX_SOURCES * MAX_OTHER_VISITS);
    }
}
