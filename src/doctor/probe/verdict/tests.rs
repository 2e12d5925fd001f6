use super::*;
use crate::doctor::path::{Fate, Step};
use crate::doctor::probe::seen::{Fetch, NameServer};

const NAME: &str = "www.example.com";
const TODAY: Rules = Rules {
    remote: 4,
    regions: 2,
};

fn vantage(from: &str, outcomes: &[(Family, Outcome)]) -> Vantage {
    let fetches = outcomes.iter().map(|(family, outcome)| Fetch {
        family: *family,
        outcome: outcome.clone(),
        took: Some(12),
    });
    Vantage {
        from: format!("ssh:{from}"),
        views: vec![View {
            name: NAME.to_owned(),
            fetches: fetches.collect(),
            ..View::default()
        }],
        ..Vantage::default()
    }
}

fn good(from: &str) -> Vantage {
    let right = Outcome::Answered {
        status: 200,
        matches: true,
    };
    vantage(from, &[(Family::Ipv4, right)])
}

fn silent(from: &str) -> Vantage {
    vantage(
        from,
        &[(Family::Ipv4, Outcome::Silent("timeout".to_owned()))],
    )
}

fn examined(vantage_points: Vec<Vantage>) -> Exam {
    let mut probe = Probe {
        names: vec![NAME.to_owned()],
        vantage_points,
        ..Probe::default()
    };
    probe.judge(TODAY);
    probe.examined(TODAY)
}

fn codes(exam: &Exam) -> Vec<&'static str> {
    exam.findings
        .iter()
        .map(|finding| finding.code.word)
        .collect()
}

#[test]
fn a_cas_own_rule_is_applied() {
    let many = |failing: usize, all: usize| {
        let one = |at: usize| match at < failing {
            true => silent("x"),
            false => good("x"),
        };
        codes(&examined((0..all).map(one).collect()))
    };
    assert_eq!(many(0, 5), ["answered"]);
    assert_eq!(many(1, 5), ["tolerated"]);
    assert_eq!(many(2, 5), ["no-quorum"]);
    assert_eq!(many(2, 6), ["tolerated"]);
    assert_eq!(many(3, 6), ["no-quorum"]);
    assert_eq!(many(0, 1), ["answered", "fewer-than-a-ca"]);
    assert_eq!(many(1, 1), ["no-quorum", "fewer-than-a-ca"]);
    assert_eq!(many(2, 2), ["no-quorum", "fewer-than-a-ca"]);
}

#[test]
fn whoever_proves_nothing_or_was_not_asked_does_not_count() {
    let listed = Vantage {
        proves_nothing: Some("198.51.100.7 is on the allow-list".to_owned()),
        ..good("listed")
    };
    let gone = Vantage {
        not_asked: Some("ssh: no route".to_owned()),
        ..Vantage::default()
    };
    let exam = examined(vec![listed.clone(), gone.clone()]);
    assert_eq!(codes(&exam), ["proves-nothing"]);
    assert_eq!(exam.not_covered.len(), 1);
    assert!(exam.findings[0].evidence[0].contains("allow-list"));
    let exam = examined(vec![listed, gone, silent("a"), good("b")]);
    assert_eq!(codes(&exam), ["tolerated", "fewer-than-a-ca"]);
}

#[test]
fn the_rule_that_dropped_it_is_named() {
    let step = Step {
        table: "inet geo".to_owned(),
        chain: "early".to_owned(),
        handle: Some(4),
        rule: Some("ip saddr 198.51.100.0/24 drop".to_owned()),
        verdict: "drop".to_owned(),
    };
    let other = Step {
        chain: "late".to_owned(),
        ..step.clone()
    };
    let dropped_by = |step: Step| Vantage {
        paths: vec![Path {
            source: "198.51.100.7".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            fate: Fate {
                end: End::Dropped { rejects: false },
                steps: vec![step],
            },
        }],
        ..silent("geo")
    };
    let exam = examined(vec![
        dropped_by(step.clone()),
        dropped_by(other),
        dropped_by(step),
        silent("far"),
    ]);
    let finding = &exam.findings[0];
    assert_eq!(finding.code, NO_QUORUM);
    assert_eq!(finding.remedy.len(), 2, "each once: {finding:?}");
    let seen = finding.evidence.join("\n");
    assert!(
        seen.contains("198.51.100.7: dropped by inet geo early: ip saddr 198.51.100.0/24 drop"),
        "{seen}"
    );
    assert!(seen.contains("none of its packets was seen"), "{seen}");
    assert!(finding.remedy[0].contains("nft -a list chain inet geo early"));
}

#[test]
fn a_dead_address_and_a_silent_name_server_are_doubts() {
    let right = Outcome::Answered {
        status: 200,
        matches: true,
    };
    let mut both = vantage(
        "a",
        &[
            (Family::Ipv6, Outcome::Silent("timeout".to_owned())),
            (Family::Ipv4, right),
        ],
    );
    let server = |transport, answer: Option<&str>| NameServer {
        name: "ns.example.com".to_owned(),
        address: "192.0.2.53".to_owned(),
        transport,
        answer: answer.map(str::to_owned),
    };
    both.views[0].name_servers = vec![
        server("udp", Some("NOERROR")),
        server("tcp", None),
        server("udp", Some("REFUSED")),
    ];
    let exam = examined(vec![both]);
    assert_eq!(
        codes(&exam),
        [
            "answered",
            "fewer-than-a-ca",
            "silent-family",
            "name-server-silent"
        ]
    );
    let evidence = &exam.findings[3].evidence;
    assert_eq!(
        evidence[..],
        [
            "ssh:a: ns.example.com (192.0.2.53) does not answer over TCP",
            "ssh:a: ns.example.com (192.0.2.53) answers REFUSED over UDP"
        ]
    );
}

#[test]
fn a_caa_record_that_forbids_is_a_fault() {
    let mut vantage = good("a");
    vantage.views[0].caa = Some(Caa::Forbids("it names another CA".to_owned()));
    let exam = examined(vec![vantage]);
    let finding = exam.findings.last().unwrap();
    assert_eq!(
        (finding.code, finding.severity),
        (CAA_FORBIDS, Severity::Fault)
    );
}

#[test]
fn as_many_as_a_ca_has_are_its_primary_one_and_its_remote_ones() {
    let many = |all: usize| codes(&examined((0..all).map(|_| good("x")).collect()));
    assert_eq!(many(4), ["answered", "fewer-than-a-ca"]);
    assert_eq!(many(5), ["answered"]);
}

#[test]
fn those_that_got_the_answer_must_be_in_as_many_regions_as_a_ca_needs() {
    use crate::observe::record::Region;
    let at = |region: Region, vantage: Vantage| Vantage {
        regions: vec![region],
        ..vantage
    };
    let one = |second: Region, last: Vantage| {
        let exam = examined(vec![
            at(Region::Arin, good("a")),
            at(second, good("b")),
            last,
        ]);
        let found = exam.findings.into_iter();
        found
            .map(|finding| (finding.code.word, finding.severity))
            .collect::<Vec<_>>()
    };
    let of_one_region = ("one-region", Severity::Doubt);
    let failing = || at(Region::Ripe, silent("c"));
    assert!(one(Region::Arin, failing()).contains(&of_one_region));
    assert!(!one(Region::Ripe, failing()).contains(&of_one_region));
    // Where all of them got it, nobody says that another region would not.
    assert!(!one(Region::Arin, at(Region::Arin, good("c"))).contains(&of_one_region));
    // Of one whose region is not known, it may be another.
    let unknown = examined(vec![at(Region::Arin, good("a")), good("b"), failing()]);
    assert!(!codes(&unknown).contains(&"one-region"), "{unknown:?}");
}

#[test]
fn what_this_host_itself_does_not_get_is_a_fault() {
    let here = |outcome| {
        let probe = Probe {
            names: vec![NAME.to_owned()],
            here: vec![Here {
                name: NAME.to_owned(),
                outcome,
            }],
            ..Probe::default()
        };
        probe.examined(TODAY)
    };
    let exam = here(Outcome::Answered {
        status: 200,
        matches: false,
    });
    let finding = &exam.findings[0];
    assert_eq!(
        (finding.code, finding.severity),
        (NOT_ANSWERED_HERE, Severity::Fault)
    );
    assert_eq!(finding.names, [NAME]);
    let right = Outcome::Answered {
        status: 200,
        matches: true,
    };
    assert_eq!(here(right).findings, []);
}

/// Of somebody who failed, and whose packets were not seen: he may be one of those that were dropped meanwhile.
#[test]
fn strangers_stand_beside_a_failure_that_nothing_else_explains() {
    let stranger = Path {
        source: "203.0.113.9".parse().unwrap(),
        destination: "192.0.2.1".parse().unwrap(),
        fate: Fate {
            end: End::Dropped { rejects: false },
            steps: Vec::new(),
        },
    };
    let told = |vantage: Vantage| {
        let mut probe = Probe {
            names: vec![NAME.to_owned()],
            vantage_points: vec![vantage],
            strangers: vec![stranger.clone(); MAX_STRANGERS + 1],
            ..Probe::default()
        };
        probe.judge(TODAY);
        let exam = probe.examined(TODAY);
        let evidence = exam.findings[0].evidence.iter();
        evidence
            .filter(|line| line.starts_with("meanwhile, perhaps one of these: 203.0.113.9"))
            .count()
    };
    assert_eq!(told(silent("a")), MAX_STRANGERS);
    assert_eq!(told(good("a")), 0);
    let seen = Vantage {
        paths: vec![Path {
            source: "198.51.100.7".parse().unwrap(),
            ..stranger.clone()
        }],
        ..silent("a")
    };
    assert_eq!(told(seen), 0);
}

#[test]
fn a_name_server_that_knows_no_such_name_answers() {
    let mut vantage = good("a");
    let server = |answer: &str| NameServer {
        name: "ns.example.com".to_owned(),
        address: "192.0.2.53".to_owned(),
        transport: "udp",
        answer: Some(answer.to_owned()),
    };
    vantage.views[0].name_servers = vec![server("NXDOMAIN"), server("connected")];
    assert!(!codes(&examined(vec![vantage])).contains(&"name-server-silent"));
}
