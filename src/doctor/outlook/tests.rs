use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::config::{Accounts, Group, Unchecked};
use crate::control::status::{Share, Time};
use crate::gate::allow_list::AllowList;

struct Nobody;

impl Accounts for Nobody {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<Group> {
        None
    }
}

/// 2026-11-22.
const NOW: u64 = 20_779 * DAY_MILLIS;

fn case(config: &str, names: &[&str]) -> Case {
    Case {
        config: Config::parse(config, "acmegate.toml", &Nobody, &Unchecked).unwrap(),
        allow: Arc::new(AllowList::default()),
        runtime_dir: PathBuf::from("/run/acmegate"),
        names: names
            .iter()
            .map(|name| Identifier::parse(name).unwrap())
            .collect(),
        is_root: false,
    }
}

fn words(case: &Case) -> Vec<&'static str> {
    let exam = examine(case, None, None, NOW);
    assert!(
        exam.findings
            .iter()
            .all(|finding| finding.severity == Severity::Advice)
    );
    exam.findings.iter().map(|found| found.code.word).collect()
}

#[test]
fn how_often_is_told_by_the_date_and_the_names() {
    let one = case("", &["example.com"]);
    let said = |case: &Case, day: u64| {
        let finding = windows_a_year(case, None, None, day * DAY_MILLIS);
        format!("{}; {}", finding.finding, finding.evidence.join("; "))
    };
    assert_eq!(
        said(&one, 20_858),
        "a certificate needs about 6 windows a year; Let's Encrypt's usual certificates live for 90 days now; 64 days \
         from 2027-02-10 on: 8 to 9; 45 days from 2028-02-16 on: 12; those of the profile shortlived for six: about 110"
    );
    let three = case("", &["a.example.com", "b.example.com", "c.example.com"]);
    assert!(said(&three, 20_859).starts_with(
        "a certificate needs about 8 to 9 windows a year, and so 8 to 27 for these 3 names"
    ));
    assert!(said(&one, 30_000).starts_with("a certificate needs about 12 windows a year;"));
}

#[test]
fn what_the_daemon_counted_is_the_evidence() {
    let share = |milliseconds| Share {
        milliseconds,
        allowed_milliseconds: None,
    };
    let mut status = Status::default();
    status.budget.time = vec![Time {
        of: "all".to_owned(),
        name: None,
        caller: None,
        day: share(0),
        month: share(90_000),
        fits_in_milliseconds: Some(0),
    }];
    let found = windows_a_year(&case("", &[]), Some(&status), Some(5), NOW);
    assert_eq!(
        found.evidence[1..],
        [
            "5 windows were opened here in the last 30 days: as many as 61 a year",
            "for 1m30s of these 30 days a window was open; none may be longer than 10m"
        ]
    );
}

#[test]
fn port_80_may_stay_open_where_only_announced_tokens_are_answered() {
    let word = PORT_80_MAY_STAY_OPEN.word;
    assert!(words(&case("", &[])).contains(&word));
    for otherwise in [
        "[http]\nlisten = \"divert\"",
        "[firewall]\nmode = \"gate-only\"",
        "[[site]]\nidentifiers = [\"example.com\"]\nanswer = { upstream = \"http://10.0.0.5\" }",
        "[[site]]\ndefault = true\nanswer = { thumbprint = \"nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ\" }",
    ] {
        assert!(!words(&case(otherwise, &[])).contains(&word), "{otherwise}");
    }
}

#[test]
fn tls_alpn_01_needs_no_window_where_its_port_is_not_shut() {
    let word = NO_WINDOW_BY_TLS.word;
    let open = "[tls]\nlisten = [\"[::]:443\"]\n[firewall]\nports = [80]";
    assert!(words(&case(open, &[])).contains(&word));
    let shut = "[tls]\nlisten = [\"[::]:443\"]\n[firewall]\nports = [80, 443]";
    assert!(!words(&case(shut, &[])).contains(&word));
    assert!(!words(&case("", &[])).contains(&word));
}

#[test]
fn addresses_are_told_about_and_have_no_challenge_in_dns() {
    let both = words(&case("", &["203.0.113.7", "example.com"]));
    assert!(both.contains(&ADDRESSES_ARE_SHORT_LIVED.word));
    assert!(both.contains(&NO_WINDOW_BY_DNS.word));
    let alone = words(&case("", &["203.0.113.7"]));
    assert!(!alone.contains(&NO_WINDOW_BY_DNS.word));
}
