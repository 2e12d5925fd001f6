//! `acmegate doctor` as a whole: the page that documents it, its parts, its exit status.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use acmegate::doctor::finding::{Area, Code, Exam};
use acmegate::doctor::letter::Letter;
use acmegate::doctor::probe::verdict;
use acmegate::doctor::{daemon, dns, listener, outlook, reading, sandbox, sites, staging, twin};

use crate::lab::{BINARY, Output, TempDir, run};
use crate::schema;

const SCHEMA: &str = include_str!("../../docs/doctor.schema.json");
const PAGE: &str = include_str!("../../docs/doctor.md");

/// Every exam's codes.
const CODES: &[&[Code]] = &[
    daemon::configuration::ALL,
    listener::ALL,
    daemon::ALL,
    dns::codes::ALL,
    reading::ALL,
    twin::ALL,
    sites::ALL,
    staging::ALL,
    outlook::ALL,
    sandbox::ALL,
    verdict::ALL,
];

#[test]
fn the_page_has_every_finding_in_its_area_and_no_other() {
    let mut shown = BTreeSet::new();
    for section in PAGE.split("\n## ").skip(1) {
        let area = section.lines().next().unwrap();
        let rows = section
            .split_once("| finding | |")
            .map_or("", |(_, rows)| rows);
        for row in rows.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (code, _) = row.split_once('`').unwrap();
            assert!(
                shown.insert((area.to_owned(), code.to_owned())),
                "{code} stands twice"
            );
        }
    }
    let codes = CODES.iter().flat_map(|codes| codes.iter());
    let known: BTreeSet<(String, String)> = codes
        .map(|code| (code.area.as_str().to_owned(), code.word.to_owned()))
        .collect();
    assert_eq!(shown, known);
}

/// The doctor of a host where nothing runs, by a configuration of the test's own.
fn doctor(config: &str, arguments: &[&str]) -> Output {
    let directory = TempDir::new();
    let file = directory.write("acmegate.toml", config);
    let mut command = Command::new(BINARY);
    command
        .args(["--config", &file, "--runtime-dir"])
        .arg(directory.path())
        .arg("doctor")
        .args(arguments);
    run(command, Duration::from_secs(20))
}

#[test]
fn what_it_tells_is_as_the_schema_says() {
    let output = doctor("", &["--json", "--only", "daemon", "example.com"]);
    assert_eq!(output.code, 2, "{output}");
    assert_eq!(schema::check(SCHEMA, &output.stdout), [""; 0]);
    let areas = [
        Area::Configuration,
        Area::Listener,
        Area::Daemon,
        Area::Dns,
        Area::Firewall,
        Area::Site,
        Area::Client,
        Area::Vantage,
        Area::Outlook,
        Area::Sandbox,
    ];
    let exams = areas.map(|area| Exam {
        looked_at: vec!["x".to_owned()],
        ..Exam::of(area)
    });
    let letter = Letter::of(exams.into(), vec!["\u{1b}é".to_owned()], 1);
    let document = letter.json().expect("JSON");
    assert!(document.is_ascii());
    assert_eq!(schema::check(SCHEMA, &document), [""; 0]);
    let spoiled = document.replace("looked_at", "looked");
    assert_ne!(schema::check(SCHEMA, &spoiled), [""; 0]);
}

#[test]
fn a_bad_file_is_the_only_finding() {
    let output = doctor("[http]\nlisten = 80\n", &["--json"]);
    assert_eq!(output.code, 2, "{output}");
    let letter: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let findings = letter["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0]["code"], "configuration-refused");
    let evidence = findings[0]["evidence"].to_string();
    assert!(evidence.contains("acmegate.toml:2:10"), "{evidence}");
}

#[test]
fn the_exit_status_is_the_worst_severity() {
    let only = |part| doctor("", &["--only", part]).code;
    assert_eq!(only("configuration"), 0);
    assert_eq!(only("outlook"), 0);
    assert_eq!(only("daemon"), 2);
    assert_eq!(doctor("", &["--only", "nothing"]).code, 64);
    assert_eq!(doctor("", &["no_name"]).code, 64);
}
