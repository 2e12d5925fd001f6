use super::*;
use crate::doctor::finding::{Area, Code};
use crate::observe::report::Paint;

const SHUT: Code = Code {
    area: Area::Firewall,
    word: "shut",
};
const ELSEWHERE: Code = Code {
    area: Area::Dns,
    word: "elsewhere",
};

fn exam(area: Area, findings: Vec<Finding>) -> Exam {
    Exam {
        looked_at: vec!["something".to_owned()],
        findings,
        ..Exam::of(area)
    }
}

fn letter(exams: Vec<Exam>) -> Letter {
    Letter::of(exams, vec!["example.com".to_owned()], 1_763_802_600_000)
}

#[test]
fn the_likeliest_cause_comes_first() {
    let shut = Finding::new(SHUT, Severity::Fault, "the port is shut");
    let doubt = Finding::new(ELSEWHERE, Severity::Doubt, "one server is slow");
    let elsewhere = Finding::new(ELSEWHERE, Severity::Fault, "the name points elsewhere");
    let letter = letter(vec![
        exam(Area::Firewall, vec![shut.clone()]),
        exam(Area::Dns, vec![doubt.clone(), elsewhere.clone()]),
    ]);
    assert_eq!(letter.findings, [elsewhere, shut, doubt]);
    assert_eq!(letter.exit_code(), 2);
}

#[test]
fn what_was_not_seen_is_a_doubt() {
    let mut unseen = exam(Area::Firewall, Vec::new());
    unseen.not_covered.push("the ruleset: not root".to_owned());
    assert_eq!(letter(vec![unseen]).exit_code(), 1);
    let fine = Finding::new(SHUT, Severity::Advice, "it could be better");
    assert_eq!(
        letter(vec![exam(Area::Firewall, vec![fine])]).exit_code(),
        0
    );
    assert_eq!(letter(Vec::new()).exit_code(), 0);
}

#[test]
fn what_is_true_of_several_names_is_told_once() {
    let silent = |name: &str, server: &str| {
        Finding::new(ELSEWHERE, Severity::Doubt, "a server is silent")
            .of(name)
            .seen(server)
            .seen("asked by TCP")
    };
    let host = Finding::new(SHUT, Severity::Doubt, "the port is shut");
    let names: Vec<String> = (0..7).map(|number| format!("{number}.example")).collect();
    let mut findings: Vec<Finding> = names
        .iter()
        .enumerate()
        .map(|(at, name)| silent(name, &format!("server {at}")))
        .collect();
    findings.extend([host.clone(), host.clone()]);
    let letter = letter(vec![exam(Area::Dns, findings)]);
    // Of the host as a whole nothing is put together.
    assert_eq!(letter.findings.len(), 3);
    let told = &letter.findings[0];
    assert_eq!(told.names, names);
    assert_eq!(told.evidence.len(), 8);
    let text = text(&letter, Paint { is_on: false });
    assert!(
        text.contains("0.example, 1.example, 2.example, 3.example and 3 others: a server"),
        "{text}"
    );
}

#[test]
fn as_people_read_it() {
    let shut = Finding::new(
        SHUT,
        Severity::Fault,
        "tcp port 80 is dropped for IPv6, window or not",
    )
    .of("example.com")
    .seen("ip6 filter INPUT policy drops a packet from 2001:db8::1\u{1b}[2J to [2001:db8:1::7]:80")
    .remedy("open port 80 in ufw (`ufw allow 80/tcp`) and use mode `guard`");
    let fine = Finding::new(ELSEWHERE, Severity::Fine, "A and AAAA point here").of("example.com");
    let mut firewall = exam(Area::Firewall, vec![shut]);
    firewall
        .not_covered
        .push("iptables-legacy: its rules are not copied".to_owned());
    let letter = letter(vec![firewall, exam(Area::Dns, vec![fine])]);
    let paint = Paint { is_on: false };
    insta::assert_snapshot!(text(&letter, paint));
    insta::assert_snapshot!(letter.json().unwrap());
}
