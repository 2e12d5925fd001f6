//! The check of the seals on an installed system: that it finds them whole, and that it finds what is not.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acmegate::daemon::sandbox::{Attempt, examine};
use serde_json::Value;

use crate::host::Host;
use crate::lab::{BINARY, Daemon, Output, TempDir, inside, run};
use crate::users::inside_with_users;

const LIMIT: Duration = Duration::from_secs(60);
/// Every process, listener and mode.
const CONFIGS: [&str; 6] = [
    "",
    "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n",
    "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n",
    "[firewall]\nmode = \"gate-only\"\n[metrics]\nlisten = [\"127.0.0.1:9402\"]\n",
    "[http]\nlisten = \"divert\"\n[tls]\nlisten = \"divert\"\n[[site]]\nidentifiers = [\"a.example.com\"]\n\
     answer = { upstream = \"http://10.0.0.5\" }\ntls_answer = { upstream = \"10.0.0.5:443\" }\n",
    "[tls]\nlisten = [\"[::]:443\"]\nserver = \"127.0.0.1:8443\"\n\
     [firewall]\nopen_command = [\"true\"]\nclose_command = [\"true\"]\ncommand_net_admin = true\n",
];

fn written(directory: &TempDir, user: &str, text: &str) -> String {
    let state = directory.at("state");
    directory.write(
        "acmegate.toml",
        &format!("{text}[daemon]\nuser = \"{user}\"\nstate_dir = \"{state}\"\n"),
    )
}

fn check(config: &str, under: &[&str]) -> Output {
    let mut words = under.to_vec();
    words.extend([BINARY, "--config", config, "sandbox-check"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    run(command, LIMIT)
}

/// The codes that the doctor finds, and its exit status.
fn doctor(config: &str, under: &[&str], arguments: &[&str]) -> (Vec<String>, Output) {
    let mut words = under.to_vec();
    words.extend([BINARY, "--config", config, "doctor", "--json"]);
    words.extend(arguments);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let done = run(command, LIMIT);
    let letter: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done}"));
    let findings = letter["findings"].as_array().expect("a list");
    let codes = findings.iter().map(|finding| finding["code"].as_str());
    let codes = codes.map(|code| code.expect("a word").to_owned()).collect();
    (codes, done)
}

const SANDBOX: &[&str] = &["--only", "sandbox"];
/// A kernel that has no landlock is shown by strace, which answers in its place.
const NO_LANDLOCK: &[&str] = &[
    "strace",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=landlock_create_ruleset",
    "-e",
    "inject=landlock_create_ruleset:error=EOPNOTSUPP",
];

#[test]
fn the_doctor_tries_the_seals_if_it_is_asked_to() {
    inside_with_users(|| {
        let directory = TempDir::new();
        std::fs::create_dir(directory.at("state")).expect("a directory of our own");
        let config = written(&directory, "nobody", "[firewall]\nmode = \"gate-only\"\n");
        let (codes, done) = doctor(&config, &[], SANDBOX);
        assert_eq!(codes, ["seals-hold"], "{done}");
        assert_eq!(done.code, 0, "{done}");
        let part = ["--only", "configuration", "--sandbox"];
        let (codes, done) = doctor(&config, &[], &part);
        assert_eq!(codes, ["configuration-good", "seals-hold"], "{done}");
        let (codes, done) = doctor(&config, &[], &["--only", "configuration"]);
        assert_eq!(codes, ["configuration-good"], "{done}");
    });
}

#[test]
fn the_doctor_tells_a_missing_layer() {
    inside(|| {
        let directory = TempDir::new();
        let config = written(&directory, "0", "");
        let (codes, done) = doctor(&config, NO_LANDLOCK, SANDBOX);
        assert_eq!(done.code, 1, "{done}");
        assert!(!codes.is_empty(), "{done}");
        assert!(codes.iter().all(|code| code == "seal-leaks"), "{done}");
        let letter: Value = serde_json::from_str(&done.stdout).expect("JSON");
        let finding = &letter["findings"].as_array().expect("a list").iter();
        let passwords = finding.clone().find(|finding| {
            let said = finding["finding"].as_str();
            said.is_some_and(|said| said.ends_with(": open /etc/passwd"))
        });
        let evidence = &passwords.expect("a finding of it")["evidence"];
        assert!(evidence.to_string().contains("front: it works"), "{done}");
    });
}

#[test]
fn the_check_finds_every_seal_whole_in_every_mode() {
    inside_with_users(|| {
        for text in CONFIGS {
            // Where the account may go in, as into /etc/acmegate.
            let directory = TempDir::new();
            std::fs::create_dir(directory.at("state")).expect("a directory of our own");
            let config = written(&directory, "nobody", text);
            let found = examine(Path::new(BINARY), Some(Path::new(&config))).expect(text);
            let bad: Vec<&Attempt> = found.iter().filter(|one| !one.is_good()).collect();
            assert!(bad.is_empty(), "{text}: {bad:?}");
            for process in [
                "front",
                "front (thread)",
                "enforcer",
                "reader",
                "historian",
                "runner",
            ] {
                let of = found.iter().filter(|one| one.process == process);
                let refused = of.filter(|one| !one.should_work).count();
                let least = if process == "runner" { 3 } else { 30 };
                assert!(refused >= least, "{text}: {process}: {refused}");
            }
            let own: Vec<(&str, &str)> = found
                .iter()
                .filter(|one| one.should_work)
                .map(|one| (one.process.as_str(), one.what.as_str()))
                .collect();
            let read = "read the configuration";
            assert_eq!(
                own,
                [
                    ("front", read),
                    ("front", "accept a connection"),
                    ("reader", read),
                    ("historian", read),
                    ("historian", "write in its directory"),
                    ("runner", "start a program"),
                ],
                "{text}"
            );
            let done = check(&config, &[]).success();
            assert!(done.stdout.contains("refused"), "{done}");
        }
    });
}

#[test]
fn what_holds_the_account_is_checked_where_it_should_hold() {
    inside_with_users(|| {
        let _host = Host::new();
        let state = TempDir::new();
        let daemon = Daemon::start(&format!(
            "[firewall]\negress = \"upstreams\"\n[daemon]\nuser = \"nobody\"\nstate_dir = \"{}\"\n",
            state.at("state")
        ));
        let done = check(&daemon.config(), &[]).success();
        let of_account = done
            .stdout
            .lines()
            .filter(|line| line.starts_with("account"));
        assert_eq!(of_account.count(), 6, "{done}");
        let config = daemon.config();
        let (codes, done) = doctor(&config, &[], SANDBOX);
        assert_eq!(codes, ["seals-hold"], "{done}");
        // Without the table the account goes where it likes, and the check says so.
        let text = std::fs::read_to_string(&config).expect("its configuration");
        drop(daemon);
        crate::lab::nft("flush ruleset");
        let directory = TempDir::new();
        let config = directory.write("acmegate.toml", &text);
        let failed = check(&config, &[]);
        assert_eq!(failed.code, 1, "{failed}");
        assert!(failed.stdout.contains("is acmegate running?"), "{failed}");
        let (codes, told) = doctor(&config, &[], SANDBOX);
        assert_eq!(codes, ["account-not-limited"], "{told}");
        assert_eq!(told.code, 1, "{told}");
    });
}

/// What only landlock refuses is found to work, and nothing is told to be well.
#[test]
fn what_a_seal_lets_through_is_found() {
    inside(|| {
        let directory = TempDir::new();
        let config = written(&directory, "0", "");
        check(&config, &[]).success();
        let failed = check(&config, NO_LANDLOCK);
        assert_eq!(failed.code, 1, "{failed}");
        for what in ["open /etc/passwd", "connect to another port"] {
            let line = failed
                .stdout
                .lines()
                .find(|line| line.starts_with("front ") && line.contains(what));
            assert!(
                line.is_some_and(|line| line.contains("NOT REFUSED")),
                "{what}: {failed}"
            );
        }
        let line = failed
            .stdout
            .lines()
            .find(|line| line.contains("start a program"));
        assert!(
            line.is_some_and(|line| line.ends_with("refused")),
            "{failed}"
        );
    });
}

#[test]
fn a_configuration_that_is_none_is_no_check() {
    inside(|| {
        let directory = TempDir::new();
        let config = directory.write("acmegate.toml", "[nothing]\n");
        let refused = check(&config, &[]);
        assert_eq!(refused.code, 78, "{refused}");
        let error = examine(Path::new(BINARY), Some(Path::new(&config))).expect_err("no check");
        assert!(
            error.starts_with("the check of the seals failed: "),
            "{error}"
        );
    });
}
