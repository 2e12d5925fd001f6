//! What happens after DNAT, under limits, and beside flowtables.

use std::net::IpAddr;
use std::time::Duration;

use super::super::limit::{Limit, Measure, Per};
use super::super::step::To;
use super::super::{Circumstances, Onward, Routes, Transport, judge_in};
use super::{
    Hook, IpFamily, Path, Probe, Rules, Ruleset, Step, accept, base, compare, doubts, dport, drop,
    probe, ruleset, table,
};
use nlink::netlink::nftables::CmpOp;

const INNER: [u8; 4] = [172, 17, 0, 2];

/// `dnat to 172.17.0.2:8080`, or to this host's own port.
fn translate(address: Option<[u8; 4]>) -> Vec<Step> {
    let mut steps = vec![
        dport(),
        compare(CmpOp::Eq, &80u16.to_be_bytes()),
        Step::Value {
            to: 16,
            bytes: 8080u16.to_be_bytes().to_vec(),
        },
    ];
    if let Some(octets) = address {
        let bytes = octets.to_vec();
        steps.push(Step::Value { to: 0, bytes });
    }
    steps.push(Step::Translate {
        address: address.map(|_| (0, 0, 4)),
        port: Some((16, 16)),
    });
    steps
}

fn port(number: u16, end: Step) -> Vec<Step> {
    let is_it = compare(CmpOp::Eq, &number.to_be_bytes());
    vec![dport(), is_it, end]
}

fn with(to: Option<[u8; 4]>, input: Rules, forward: Rules) -> Ruleset {
    let pre = base("pre", Hook::Prerouting, -100, false, vec![translate(to)]);
    ruleset(vec![table(
        "filter",
        vec![
            pre,
            base("input", Hook::Input, 0, true, input),
            base("forward", Hook::Forward, 0, true, forward),
        ],
    )])
}

fn judged(ruleset: &Ruleset, routes: &Routes) -> (String, Vec<(To, Onward)>) {
    let circumstances = Circumstances {
        routes: Some(routes),
        ..Circumstances::default()
    };
    let judged = judge_in(ruleset, &probe(), &[], &circumstances);
    let translated = judged.translated.into_iter();
    let path = match judged.path {
        Path::Passes { doubts } if doubts.is_empty() => "passes".to_owned(),
        Path::Passes { doubts } => format!("{doubts:?}"),
        Path::Drops(culprit) => culprit.to_string(),
    };
    (path, translated.map(|(_, to, way)| (to, way)).collect())
}

#[test]
fn what_is_translated_meets_the_chains_of_where_it_goes_with_the_port_that_it_has_by_now() {
    let open = |number| vec![port(number, accept())];
    let to = To {
        address: Some(INNER.into()),
        port: Some(8080),
    };
    let routes = Routes::by_hand(&[], &[("172.17.0.0/16", 7)], true);
    let beyond = with(Some(INNER), open(80), open(8080));
    let way = vec![(to, Onward::Out(7))];
    assert_eq!(judged(&beyond, &routes), ("passes".to_owned(), way.clone()));
    let shut = with(Some(INNER), open(8080), open(80));
    let said = "inet filter forward policy drops tcp port 80".to_owned();
    assert_eq!(judged(&shut, &routes), (said, way));

    // An address of this host's own, and a redirection.
    let own = Routes::by_hand(&[INNER.into()], &[], true);
    let here = with(Some(INNER), open(8080), open(80));
    assert_eq!(judged(&here, &own).1, [(to, Onward::Here)]);
    assert_eq!(judged(&here, &own).0, "passes");
    let redirected = with(None, open(80), open(8080));
    let said = "inet filter input policy drops tcp port 80";
    assert_eq!(judged(&redirected, &own).0, said);
}

#[test]
fn what_goes_nowhere_is_said_and_no_chain_is_blamed() {
    let rules = with(Some(INNER), Vec::new(), Vec::new());
    for (routes, way) in [
        (Routes::by_hand(&[], &[], true), Onward::NoRoute),
        (
            Routes::by_hand(&[], &[("172.17.0.0/16", 7)], false),
            Onward::NotForwarded,
        ),
    ] {
        let (path, translated) = judged(&rules, &routes);
        assert_eq!((path.as_str(), translated[0].1), ("passes", way));
    }
    // Who gives no routes is told that it was not followed.
    let path = super::judge(&rules, &probe(), &[]);
    assert!(matches!(doubts(path)[..], [super::Doubt::Translated(_)]));
}

#[test]
fn the_longest_prefix_decides_and_then_the_metric() {
    let routes = Routes::by_hand(
        &[],
        &[("0.0.0.0/0", 2), ("172.16.0.0/12", 3), ("172.17.0.0/16", 4)],
        true,
    );
    let out = |text: &str| routes.onward(text.parse::<IpAddr>().expect("an address"), Some(2));
    assert_eq!(out("172.17.0.9"), Onward::Out(4));
    assert_eq!(out("172.18.0.9"), Onward::Out(3));
    assert_eq!(out("192.0.2.9"), Onward::Out(2));
    assert_eq!(out("2001:db8::1"), Onward::NoRoute);
}

fn slow(over: bool) -> Limit {
    Limit {
        measure: Measure::Rate {
            packets: 1,
            seconds: 60,
            burst: 2,
        },
        per: Per::Everybody,
        over,
        is_list: false,
    }
}

#[test]
fn a_limit_is_kept_by_one_packet_and_exceeded_by_many() {
    let input = |steps| {
        ruleset(vec![table(
            "filter",
            vec![base("input", Hook::Input, 0, false, vec![steps])],
        )])
    };
    let mut rules = input(port(80, Step::Limited(slow(true))));
    rules.tables[0].chains[0].rules[0].steps.push(drop());
    let judged = |over_limits, port| {
        let circumstances = Circumstances {
            over_limits,
            ..Circumstances::default()
        };
        judge_in(&rules, &Probe { port, ..probe() }, &[], &circumstances)
    };
    let alone = judged(false, 80);
    assert!(doubts(alone.path).is_empty());
    let [(place, limit)] = alone.limits.as_slice() else {
        panic!("{:?}", alone.limits)
    };
    assert_eq!(place.to_string(), "inet filter input rule 1");
    assert_eq!(limit.lets_through(Duration::from_secs(60)), Some(3));
    assert!(matches!(judged(true, 80).path, Path::Drops(_)));
    // A rule for another port is not met.
    assert!(judged(true, 81).limits.is_empty());
    assert!(doubts(judged(true, 81).path).is_empty());
}

#[test]
fn a_flowtable_is_told_and_decides_nothing() {
    let offload = vec![Step::Offload("fast".to_owned())];
    let rules = with(Some(INNER), Vec::new(), vec![offload, port(8080, accept())]);
    let routes = Routes::by_hand(&[], &[("172.17.0.0/16", 7)], true);
    let circumstances = Circumstances {
        routes: Some(&routes),
        ..Circumstances::default()
    };
    let judged = judge_in(&rules, &probe(), &[], &circumstances);
    assert!(doubts(judged.path).is_empty());
    let [(place, name)] = judged.offloaded.as_slice() else {
        panic!("{:?}", judged.offloaded)
    };
    assert_eq!(
        (place.to_string().as_str(), name.as_str()),
        ("inet filter forward rule 1", "fast")
    );
}

#[test]
fn a_datagram_has_no_flags_and_another_protocol() {
    let rules = ruleset(vec![table(
        "filter",
        vec![base(
            "input",
            Hook::Input,
            0,
            true,
            vec![port(53, accept())],
        )],
    )]);
    let probe = Probe {
        port: 53,
        family: IpFamily::V6,
        ..probe()
    };
    let circumstances = Circumstances {
        transport: Transport::Udp,
        ..Circumstances::default()
    };
    assert!(doubts(judge_in(&rules, &probe, &[], &circumstances).path).is_empty());
    let other = Probe { port: 54, ..probe };
    let Path::Drops(culprit) = judge_in(&rules, &other, &[], &circumstances).path else {
        panic!("it passes")
    };
    assert_eq!(
        culprit.to_string(),
        "inet filter input policy drops udp port 54"
    );
}
