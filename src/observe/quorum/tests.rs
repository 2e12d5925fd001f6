use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::observe::record::{Dropped, End, Place, Region, Said};

/// 2026-11-22: four remote perspectives are required.
const NOVEMBER: u64 = 1_795_327_803_000;

#[test]
fn each_day_has_its_rules() {
    // By `date -u -d DAY +%s`.
    for (seconds, remote, regions, needed) in [
        (1_757_894_399, 0, 1, 1),
        (1_757_894_400, 2, 1, 2),
        (1_773_532_799, 2, 1, 2),
        (1_773_532_800, 3, 2, 3),
        (1_781_481_600, 4, 2, 4),
        (1_797_292_799, 4, 2, 4),
        (1_797_292_800, 5, 2, 5),
        (u64::MAX / 1_000, 5, 2, 5),
    ] {
        let rules = Rules::at(seconds * 1_000);
        assert_eq!(
            (rules.remote, rules.regions),
            (remote, regions),
            "{seconds}"
        );
        assert_eq!(rules.needed(), needed, "{seconds}");
    }
    assert_eq!([0, 1, 2, 5, 6, 60].map(tolerated), [0, 0, 1, 1, 2, 2]);
}

fn visit(identifier: &str, token: Option<&str>, reason: &str) -> Visit {
    Visit {
        at: 0,
        port: 80,
        verdict: String::new(),
        reason: reason.to_owned(),
        challenge: Some("http-01".to_owned()),
        identifier: Some(identifier.to_owned()),
        token: token.map(str::to_owned),
        status: None,
        octets: 0,
        took: 0,
        detail: None,
    }
}

/// An address in a network of its own, which came for nothing yet.
fn source(network: u8, host: u8) -> Source {
    Source {
        address: IpAddr::V4(Ipv4Addr::new(10, network, 0, host)),
        network: format!("10.{network}.0.0/16"),
        place: None,
        role: Role::Unheard,
        first: 0,
        packets: 1,
        reached: false,
        dropped: None,
        visits: Vec::new(),
        more_visits: 0,
        then: None,
    }
}

fn validator(network: u8, visits: &[Visit]) -> Source {
    Source {
        role: Role::Validator,
        reached: true,
        visits: visits.to_vec(),
        ..source(network, 1)
    }
}

fn answered(network: u8) -> Source {
    validator(network, &[visit("a.test", Some("1"), "answered")])
}

fn stopped(network: u8) -> Source {
    Source {
        packets: 3,
        ..source(network, 2)
    }
}

fn record(sources: Vec<Source>) -> Record {
    Record {
        opened_at: NOVEMBER,
        end: Some(End {
            by: EndedBy::Close,
            at: 1,
            late: 0,
        }),
        sources,
        ..Record::default()
    }
}

fn outcome(sources: Vec<Source>) -> Outcome {
    assess(&record(sources)).outcome
}

#[test]
fn who_came_and_was_answered_is_no_failure_however_few_they_are() {
    assert_eq!(outcome(vec![]), Outcome::Quiet);
    for count in 1..=6 {
        assert_eq!(
            outcome((0..count).map(answered).collect()),
            Outcome::Answered
        );
    }
}

#[test]
fn as_many_may_be_dropped_as_the_rules_have_it() {
    let of = |answers: u8, drops: u8| {
        let all = (0..answers).map(answered);
        outcome(all.chain((100..100 + drops).map(stopped)).collect())
    };
    assert_eq!(of(4, 1), Outcome::Tolerated);
    // Enough were answered: the others may be strangers.
    assert_eq!(of(4, 2), Outcome::Doubtful);
    assert_eq!(of(5, 2), Outcome::Tolerated);
    assert_eq!(of(5, 90), Outcome::Doubtful);
    // Too few were.
    assert_eq!(of(3, 2), Outcome::Failed);
    assert_eq!(of(0, 1), Outcome::Failed);
    // Only one asked: no public CA, or one whose first network was not content.
    assert_eq!(of(1, 2), Outcome::Doubtful);
}

#[test]
fn one_packet_alone_is_nobody_and_a_rule_makes_somebody_of_it() {
    assert_eq!(outcome(vec![source(1, 1)]), Outcome::Quiet);
    let dropped = Source {
        dropped: Some(Dropped {
            table: "inet filter".to_owned(),
            chain: "input".to_owned(),
            rule: None,
        }),
        ..source(1, 1)
    };
    assert_eq!(outcome(vec![dropped]), Outcome::Failed);
}

#[test]
fn who_came_again_over_ipv4_counts_once_and_by_that() {
    let first = |then: IpAddr| Source {
        then: Some(then),
        address: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
        network: "2001:db8::/32".to_owned(),
        ..stopped(9)
    };
    let second = answered(1);
    let told = assess(&record(vec![first(second.address), second.clone()]));
    assert_eq!(
        (told.outcome, told.networks, told.dropped),
        (Outcome::Answered, 1, 0)
    );
    // By a handshake over IPv6 that failed, too.
    let mut refused = first(second.address);
    refused.role = Role::Validator;
    refused.visits = vec![visit("a.test", None, "no-answer")];
    assert_eq!(outcome(vec![refused, second.clone()]), Outcome::Answered);
    // Stopped both times, it is one that failed.
    let again = stopped(1);
    let told = assess(&record(vec![first(again.address), again]));
    assert_eq!((told.outcome, told.dropped), (Outcome::Failed, 1));
    // Whoever is not on the record answers for nobody.
    let told = assess(&record(vec![first(answered(7).address), answered(1)]));
    assert_eq!(told.dropped, 1);
}

#[test]
fn another_address_of_an_answered_network_is_no_other_network() {
    let told = assess(&record(vec![answered(1), stopped(1)]));
    assert_eq!(
        (told.outcome, told.networks, told.dropped),
        (Outcome::Answered, 1, 0)
    );
    let refused = validator(1, &[visit("a.test", Some("1"), "upstream-slow")]);
    let told = assess(&record(vec![refused, stopped(1)]));
    assert_eq!(
        (told.outcome, told.networks, told.dropped),
        (Outcome::Failed, 1, 0)
    );
}

#[test]
fn tokens_that_a_stranger_makes_up_make_no_failure() {
    let mut all: Vec<Source> = (0..4).map(answered).collect();
    for network in 100..150 {
        all.push(validator(
            network,
            &[visit("a.test", Some("made-up"), "unknown-token")],
        ));
    }
    let told = assess(&record(all));
    assert_eq!(told.outcome, Outcome::Tolerated);
    assert!(!told.identifiers[0].has_failed);
    assert_eq!(
        (told.identifiers[0].networks, told.identifiers[0].answered),
        (54, 4)
    );
    // With the validation's own token it is one.
    let mut all: Vec<Source> = (0..4).map(answered).collect();
    all.push(validator(
        100,
        &[visit("a.test", Some("1"), "unknown-token")],
    ));
    all.push(validator(
        101,
        &[visit("a.test", Some("1"), "unknown-token")],
    ));
    assert_eq!(outcome(all), Outcome::Failed);
}

#[test]
fn whoever_named_no_identifier_and_got_nothing_failed() {
    let mut nameless = visit("", Some("1"), "unknown-host");
    nameless.identifier = None;
    assert_eq!(
        outcome(vec![validator(1, &[nameless.clone()])]),
        Outcome::Failed
    );
    assert_eq!(
        outcome(vec![answered(2), validator(1, &[nameless])]),
        Outcome::Tolerated
    );
}

#[test]
fn handshakes_are_judged_without_a_token() {
    let relayed = |network| validator(network, &[visit("a.test", None, "relayed")]);
    let told = assess(&record(vec![relayed(1), relayed(2)]));
    assert_eq!(
        (told.outcome, told.identifiers.len()),
        (Outcome::Answered, 1)
    );
    let refused = validator(3, &[visit("a.test", None, "no-answer")]);
    assert_eq!(outcome(vec![refused]), Outcome::Failed);
}

#[test]
fn visitors_are_not_judged() {
    let mut visitor = validator(1, &[visit("a.test", None, "redirected")]);
    visitor.role = Role::Visitor;
    visitor.visits[0].challenge = None;
    assert_eq!(outcome(vec![visitor]), Outcome::Quiet);
}

#[test]
fn the_client_has_it_from_the_ca() {
    let with = |sources: Vec<Source>, renewed: &[&str], failed: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut record = record(sources);
        record.said = Some(Said {
            renewed: names(renewed),
            failed: names(failed),
        });
        assess(&record)
    };
    let drops = || vec![answered(1), answered(2), stopped(3), stopped(4)];
    assert_eq!(outcome(drops()), Outcome::Failed);
    assert_eq!(with(drops(), &["A.test"], &[]).outcome, Outcome::Tolerated);
    let told = with((0..4).map(answered).collect(), &[], &["A.TEST"]);
    assert_eq!(
        (told.outcome, told.identifiers[0].has_failed),
        (Outcome::Failed, true)
    );
    assert_eq!(with(vec![], &[], &["a.test"]).outcome, Outcome::Failed);
    // Its CA was answered elsewhere, or remembers an earlier validation.
    let elsewhere = with(vec![stopped(1)], &["a.test"], &[]);
    assert_eq!(elsewhere.outcome, Outcome::Tolerated);
    assert_eq!(outcome(vec![stopped(1)]), Outcome::Failed);
    // It says nothing of either.
    assert_eq!(with(vec![], &[], &[]).outcome, Outcome::Quiet);
}

#[test]
fn a_window_without_an_end_is_open_and_one_without_a_close_was_cut() {
    let mut open = record(vec![stopped(1)]);
    open.end = None;
    assert_eq!(assess(&open).outcome, Outcome::Open);
    open.end = Some(End {
        by: EndedBy::Deadline,
        at: 1,
        late: 0,
    });
    assert!(assess(&open).was_cut);
}

#[test]
fn regions_are_those_of_the_answered() {
    let at = |mut source: Source, region| {
        source.place = Some(Place {
            region: Some(region),
            ..Place::default()
        });
        source
    };
    let refused = validator(3, &[visit("a.test", Some("1"), "unknown-token")]);
    let told = assess(&record(vec![
        at(answered(1), Region::Ripe),
        at(answered(2), Region::Arin),
        at(refused, Region::Lacnic),
        answered(4),
    ]));
    assert_eq!(told.identifiers[0].regions, [Region::Arin, Region::Ripe]);
}

// --- against a naive count ----------------------------------------------------------------------

/// Somebody in one of a few networks: 0 asks and is answered, 1 asks in vain, 2 is stopped, 3 sends one
/// packet, 4 asks for something made up, 5 visits.
fn anybody() -> impl Strategy<Value = Source> {
    (0u8..10, 1u8..=3, 0u8..6, 0u8..2).prop_map(|(network, host, kind, name)| {
        let name = ["a.test", "b.test"][usize::from(name)];
        let mut one = match kind {
            0 => validator(network, &[visit(name, Some("1"), "answered")]),
            1 => validator(network, &[visit(name, Some("1"), "unknown-token")]),
            2 => stopped(network),
            3 => source(network, 1),
            4 => validator(network, &[visit(name, Some("2"), "unknown-token")]),
            _ => Source {
                role: Role::Visitor,
                reached: true,
                ..source(network, 1)
            },
        };
        one.address = IpAddr::V4(Ipv4Addr::new(10, network, 0, host));
        one
    })
}

/// The same, one network after the other.
fn oracle(record: &Record) -> (Outcome, u32, u32, u32) {
    let (mut asked, mut got, mut dropped) = (0, 0, 0);
    let in_network = |network: u8| {
        let name = format!("10.{network}.0.0/16");
        record
            .sources
            .iter()
            .filter(move |source| source.network == name)
    };
    for network in 0..10 {
        if in_network(network).any(|one| one.role == Role::Validator) {
            asked += 1;
            got += u32::from(in_network(network).any(Source::is_answered));
        } else if in_network(network)
            .any(|one| one.visits.is_empty() && one.packets > 1 && !one.reached)
        {
            dropped += 1;
        }
    }
    let (mut failed, mut too_many, mut all_answered) = (false, false, asked == got && dropped == 0);
    for name in ["a.test", "b.test"] {
        let asks = |one: &Source, token: Option<&str>, answer: bool| {
            one.visits.iter().any(|visit| {
                visit.identifier.as_deref() == Some(name)
                    && (token.is_none() || visit.token.as_deref() == token)
                    && (!answer || visit.reason == "answered")
            })
        };
        let count = |token: Option<&str>, answer: bool| {
            let networks =
                (0..10).filter(|network| in_network(*network).any(|one| asks(one, token, answer)));
            networks.count() as u32
        };
        if count(None, false) == 0 {
            continue;
        }
        // Nobody is answered for what is made up.
        let (came, answers) = (count(Some("1"), false), count(Some("1"), true));
        let misses = came - answers;
        let may = |came: u32| match came.saturating_sub(1) {
            0 | 1 => 0,
            2..=5 => 1,
            _ => 2,
        };
        let is_too_much = answers > 0 && misses + dropped > may(came + dropped);
        failed |= answers == 0 || misses > may(came) || (came > 1 && answers < 4 && is_too_much);
        too_many |= is_too_much;
        all_answered &= count(None, false) == count(None, true);
    }
    let outcome = match () {
        () if failed || (got == 0 && asked + dropped > 0) => Outcome::Failed,
        () if asked + dropped == 0 => Outcome::Quiet,
        () if all_answered => Outcome::Answered,
        () if too_many => Outcome::Doubtful,
        () => Outcome::Tolerated,
    };
    (outcome, asked, got, dropped)
}

proptest! {
    #[test]
    fn it_is_what_a_naive_count_says(sources in proptest::collection::vec(anybody(), 0..16)) {
        let record = record(sources);
        let told = assess(&record);
        prop_assert_eq!((told.outcome, told.networks, told.answered, told.dropped), oracle(&record));
        prop_assert!(told.answered <= told.networks);
    }

    #[test]
    fn the_order_in_which_they_come_changes_nothing(sources in proptest::collection::vec(anybody(), 0..16)) {
        let there = assess(&record(sources.clone()));
        let back = assess(&record(sources.into_iter().rev().collect()));
        prop_assert_eq!(there.outcome, back.outcome);
        prop_assert_eq!((there.networks, there.answered, there.dropped), (back.networks, back.answered, back.dropped));
    }
}
