//! `acmegate doctor` as a whole: the page that documents it, its parts, its exit status.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use acmegate::doctor::finding::{Area, Code, Exam};
use acmegate::doctor::letter::Letter;
use acmegate::doctor::probe::verdict;
use acmegate::doctor::{daemon, dns, listener, outlook, reading, sandbox, sites, staging, twin};

use crate::lab::{BINARY, Output, Process, TempDir, run, wait_for};
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

#[test]
fn a_part_that_is_skipped_is_not_looked_at() {
    let areas = |arguments: &[&str]| -> Vec<String> {
        let output = doctor("", &[&["--json"], arguments].concat());
        let letter: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let looked = letter["looked_at"].as_array().expect("a list");
        let areas = looked.iter().map(|looked| looked["area"].as_str());
        areas.flatten().map(str::to_owned).collect()
    };
    let skipped = ["dns", "rules", "twin", "sites"].map(|part| ["--skip", part]);
    assert_eq!(
        areas(skipped.as_flattened()),
        ["configuration", "listener", "daemon", "outlook"]
    );
    assert_eq!(
        doctor("", &["--only", "dns", "--skip", "dns"]).code,
        64,
        "one or the other"
    );
}

#[test]
fn more_names_than_an_order_has_are_refused() {
    let names: Vec<String> = (0..=100).map(|at| format!("a{at}.example.com")).collect();
    let mut words = vec!["--only", "outlook"];
    words.extend(names.iter().map(String::as_str));
    let refused = doctor("", &words);
    assert_eq!(refused.code, 64, "{refused}");
    assert!(refused.stderr.contains("at most 100 names"), "{refused}");
    words.pop();
    assert_eq!(doctor("", &words).code, 0);
}

/// A client by a known name that writes down what it is asked, beside a doctor with a place of its own for what is in
/// the way.
struct Trial {
    directory: TempDir,
    client: String,
}

impl Trial {
    fn new(script: &str) -> Self {
        let directory = TempDir::new();
        fs::create_dir(directory.at("scratch")).expect("a new directory");
        let asked = directory.at("asked");
        let script = format!("#!/bin/sh\necho \"$@\" >> {asked}\n{script}\n");
        let client = directory.program("uacme", &script);
        Self { directory, client }
    }

    fn command(&self, only: &str) -> Command {
        self.doctor(&["--json", "--only", only])
    }

    /// As people read it.
    fn text(&self, only: &str) -> Command {
        self.doctor(&["--only", only])
    }

    fn doctor(&self, arguments: &[&str]) -> Command {
        let config = self.directory.write("acmegate.toml", "");
        let mut command = Command::new(BINARY);
        command
            .env("TMPDIR", self.directory.at("scratch"))
            .args(["--config", &config, "--runtime-dir"])
            .arg(self.directory.path())
            .arg("doctor")
            .args(arguments)
            .args([
                "example.com",
                "--staging",
                "--staging-server",
                "http://127.0.0.1:1/dir",
            ])
            .args(["--", &self.client, "issue", "example.com"]);
        command
    }

    /// What the client was asked, a line for each time.
    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.directory.at("asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn left_nothing(&self) {
        let left = fs::read_dir(self.directory.at("scratch")).expect("ours");
        assert_eq!(left.count(), 0, "its directory is gone");
    }
}

#[test]
fn where_a_validation_fails_already_no_client_is_run() {
    let trial = Trial::new("exit 0");
    let output = run(trial.command("daemon"), Duration::from_secs(20));
    assert_eq!(output.code, 2, "{output}");
    assert!(output.stdout.contains("it was not run"), "{output}");
    assert_eq!(trial.asked(), [""; 0]);
    trial.left_nothing();
}

#[test]
fn of_a_clients_commands_each_needs_the_one_before() {
    let trial = Trial::new("exit 3");
    let output = run(trial.command("outlook"), Duration::from_secs(20));
    assert_eq!(output.code, 2, "{output}");
    assert!(output.stdout.contains("ended with status 3"), "{output}");
    let asked = trial.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].ends_with(" new"), "{asked:?}");
    trial.left_nothing();
    let trial = Trial::new("exit 0");
    run(trial.command("outlook"), Duration::from_secs(20));
    assert_eq!(trial.asked().len(), 2);
    trial.left_nothing();
}

#[test]
fn a_signal_ends_the_client_too() {
    let trial = Trial::new("echo $$ > \"$0.pid\"\nexec sleep 600");
    let mut doctor = Process::spawn(trial.command("outlook"));
    let soon = Duration::from_secs(20);
    let client: u32 = wait_for(soon, "the client runs", || {
        assert!(doctor.ended().is_none(), "{}", doctor.stderr());
        let text = fs::read_to_string(format!("{}.pid", trial.client)).ok()?;
        text.trim_end().parse().ok()
    });
    doctor.signal(Signal::TERM);
    assert_eq!(doctor.wait(soon), 75, "{}", doctor.stderr());
    let there = Path::new("/proc").join(client.to_string());
    assert!(!there.exists(), "it has ended before the doctor has");
    trial.left_nothing();
}

/// More than pipes and buffers hold, so that it ends only if somebody listens.
#[test]
fn a_client_that_says_much_at_its_end_is_heard_out() {
    let trial = Trial::new(
        "say_much() {\n  at=0\n  while [ $at -lt 8000 ]; do\n    echo \"$at: cleaning up, one thing after the other\"\n\
         \x20   at=$((at + 1))\n  done\n  : > \"$0.clean\"\n  exit 0\n}\n\
         trap say_much TERM\necho $$ > \"$0.pid\"\nsleep 600 &\nwait\n",
    );
    let mut doctor = Process::spawn(trial.command("outlook"));
    let soon = Duration::from_secs(20);
    wait_for(soon, "the client runs", || {
        assert!(doctor.ended().is_none(), "{}", doctor.stderr());
        let text = fs::read_to_string(format!("{}.pid", trial.client)).ok()?;
        text.trim_end().parse::<u32>().ok()
    });
    doctor.signal(Signal::TERM);
    assert_eq!(doctor.wait(soon), 75);
    let clean = Path::new(&trial.client).with_extension("clean");
    assert!(clean.exists(), "it was killed before it had cleaned up");
    trial.left_nothing();
}

/// Words of the client's are evidence, and what it writes is anybody's.
#[test]
fn a_line_of_hardly_anything_but_spaces_is_told() {
    let trial = Trial::new("printf '%100sfailed\\n' ' '\nexit 3");
    let output = run(trial.text("outlook"), Duration::from_secs(20));
    assert_eq!(output.code, 2, "{output}");
    assert!(output.stdout.contains("failed"), "{output}");
}

#[test]
fn names_beyond_a_hundred_are_said_to_be_left_out() {
    let site = |names: usize| {
        let names: Vec<String> = (0..names)
            .map(|at| format!("\"n{at}.example.com\""))
            .collect();
        format!("[[site]]\nidentifiers = [{}]\n", names.join(", "))
    };
    let only = ["--json", "--only", "configuration"];
    let all = doctor(&site(100), &only);
    assert_eq!(all.code, 0, "{all}");
    let more = doctor(&site(103), &only);
    assert_eq!(more.code, 1, "{more}");
    let letter: Value = serde_json::from_str(&more.stdout).expect("JSON");
    assert_eq!(letter["names"].as_array().expect("a list").len(), 100);
    let unseen = letter["not_covered"][0].as_str().expect("a line");
    assert!(unseen.starts_with("3 more names of the sites"), "{unseen}");
}
