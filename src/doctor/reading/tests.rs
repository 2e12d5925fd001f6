//! Findings of what no kernel of a test may have.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use nlink::netlink::nftables::Family;

use super::{ALL, Answer, HANDED_OVER, NOT_UNDERSTOOD, OFFLOADED, Reading, Shut, View};
use crate::config::Config;
use crate::daemon::parts;
use crate::doctor::finding::{Exam, Finding, Severity};
use crate::firewall::base_chains::{
    Doubt, IpFamily, Judgement, Path, Place, Routes, Ruleset, Transport,
};
use crate::firewall::survey::Way;
use crate::gate::allow_list::AllowList;

fn place(chain: &str, rule: Option<u64>) -> Place {
    Place {
        family: Family::Inet,
        table: "filter".to_owned(),
        base_chain: chain.to_owned(),
        chain: chain.to_owned(),
        rule,
    }
}

fn passing() -> Judgement {
    Judgement {
        path: Path::Passes { doubts: Vec::new() },
        translated: Vec::new(),
        limits: Vec::new(),
        offloaded: Vec::new(),
        timed: Vec::new(),
    }
}

fn answer(family: IpFamily, open: Judgement) -> Answer {
    Answer {
        family,
        interface: "eth0".to_owned(),
        transport: Transport::Tcp,
        port: 80,
        open,
        culprits: Vec::new(),
        over: None,
        shut: Shut::Unknown,
    }
}

/// What is found of such answers on a host where nothing else is the matter.
fn found(answers: &[Answer]) -> Exam {
    let config = Config::default();
    let reading = Reading::by_hand(Ruleset::default(), Routes::default(), Vec::<Way>::new());
    let settings = parts::orders(&config, Arc::new(AllowList::new([])), None).settings;
    let view = View {
        reading: &reading,
        config: &config,
        settings: &settings,
        names: 1,
        answers,
        words: HashMap::from([(
            place("forward", Some(7)),
            "ip protocol tcp flow add @fast".to_owned(),
        )]),
    };
    view.exam()
}

#[tokio::test]
async fn a_flowtable_on_the_way_is_advice_once_for_both_families() {
    let judgement = Judgement {
        offloaded: vec![(place("forward", Some(7)), "fast".to_owned())],
        ..passing()
    };
    let answers = [IpFamily::V4, IpFamily::V6].map(|family| answer(family, judgement.clone()));
    let exam = found(&answers);
    let offloaded: Vec<&Finding> = exam
        .findings
        .iter()
        .filter(|finding| finding.code == OFFLOADED)
        .collect();
    let [finding] = offloaded.as_slice() else {
        panic!("{offloaded:?}")
    };
    assert_eq!(
        finding.finding,
        "flowtable fast takes connections to tcp port 80 past every later chain"
    );
    assert_eq!(
        finding.evidence,
        ["inet filter forward rule 7: `ip protocol tcp flow add @fast`"]
    );
    assert_eq!(finding.severity, Severity::Advice);
}

#[tokio::test]
async fn what_nobody_understands_is_a_doubt_and_nothing_passes() {
    for (doubt, code) in [
        (Doubt::Changing, NOT_UNDERSTOOD),
        (Doubt::TooLong, NOT_UNDERSTOOD),
        (Doubt::Queued(place("input", Some(1))), HANDED_OVER),
        (Doubt::Forwarded(place("ingress", Some(1))), HANDED_OVER),
        (Doubt::Translated(place("pre", Some(1))), NOT_UNDERSTOOD),
    ] {
        let doubts = vec![doubt];
        let open = Judgement {
            path: Path::Passes { doubts },
            ..passing()
        };
        let exam = found(&[answer(IpFamily::V4, open)]);
        let codes: Vec<_> = exam.findings.iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [code]);
        assert_eq!(exam.findings[0].severity, Severity::Doubt);
    }
}

#[tokio::test]
async fn a_host_without_a_way_in_is_not_called_well() {
    let exam = found(&[]);
    assert_eq!(exam.findings, []);
    let [why] = exam.not_covered.as_slice() else {
        panic!("{exam:?}")
    };
    assert!(why.starts_with("no interface has an address"), "{why}");
}

#[test]
fn every_word_is_another() {
    let words: BTreeSet<&str> = ALL.iter().map(|code| code.word).collect();
    assert_eq!(words.len(), ALL.len());
}
