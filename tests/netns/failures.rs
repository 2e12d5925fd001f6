//! A CA's rate limit, kept clear of: a client that failed four times in an hour gets no fifth window
//! without insisting; and nobody but the client, or its CA that got no answer, makes a failure.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::host::{HOST_4, Host};
use crate::kernel::{SHUT, open_ports};
use crate::lab::{self, Daemon, Output, inside, wait_for};

const SOON: Duration = Duration::from_secs(60);
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

/// A window for a name, with its token pushed, that this is done in.
fn window(daemon: &Daemon, lease: &str, name: &str, within: impl FnOnce()) {
    let words = ["open", "--lease", lease, "--identifier", name];
    daemon.cli(&words).success();
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    daemon.cli(&["answer", "add", name, &answer]).success();
    within();
    daemon.cli(&["answer", "remove", name, TOKEN]).success();
    daemon.cli(&["close", "--lease", lease]).success();
}

fn dry_run(daemon: &Daemon, lease: &str, more: &[&str]) -> Output {
    daemon.cli(&[&["open", "--dry-run", "--lease", lease], more].concat())
}

/// Fails so often that the next attempt is refused, at once.
fn fail_four_times(daemon: &Daemon, lease: &str, name: &str) {
    for _ in 0..4 {
        let before = dry_run(daemon, lease, &["--identifier", name]);
        assert_eq!(before.code, 0, "{before}");
        window(daemon, lease, name, || {});
    }
    let refused = dry_run(daemon, lease, &["--identifier", name]);
    assert_eq!(refused.code, 75, "{refused}");
}

fn ask(host: &Host, name: &str, token: &str) -> String {
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    let mut stream = host.connect(HOST_4, 80);
    stream.write_all(request.as_bytes()).expect("it hears");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn after_four_failures_the_next_window_is_for_who_insists() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        fail_four_times(&daemon, "one", "a.test");
        for words in [
            &["open", "--lease", "one", "--identifier", "a.test"][..],
            &[
                "open",
                "--lease",
                "two",
                "--identifier",
                "b.test",
                "--identifier",
                "A.test",
            ],
            // It names nothing, and failed before.
            &["open", "--lease", "one"],
        ] {
            let refused = daemon.cli(words);
            assert_eq!(refused.code, 75, "{words:?}: {refused}");
            for word in [
                "4 windows for a.test",
                "allowed in ",
                "--force",
                "failures_per_hour",
            ] {
                assert!(refused.stderr.contains(word), "{word}: {refused}");
            }
            assert_eq!(refused.stderr.lines().count(), 1, "one line: {refused}");
            assert_eq!(open_ports(), SHUT);
        }
        // Whoever has nothing to do with it, and who insists.
        for words in [
            &["open", "--lease", "one", "--identifier", "b.test"][..],
            &["open", "--lease", "two"],
            &[
                "open",
                "--lease",
                "one",
                "--identifier",
                "a.test",
                "--force",
            ],
        ] {
            daemon.cli(words).success();
            assert_ne!(open_ports(), SHUT, "{words:?}");
            if words.contains(&"--force") {
                // Keeping it is no new attempt.
                daemon.cli(&words[..words.len() - 1]).success();
            }
            daemon.cli(&["close", "--lease", words[2]]).success();
        }
        // A command is ended by its refusal, unless it was started with leave.
        let answer = format!("{TOKEN}.{THUMBPRINT}");
        let command = format!("acmegate answer add a.test {answer} && echo went on");
        for (force, code) in [(&[][..], 75), (&["--force"], 0)] {
            let mut exec = Command::new("sh");
            exec.env("PATH", daemon.search_path());
            let script = format!(
                "exec acmegate exec {} -- sh -c '{command}; sleep 0.1'",
                force.join(" ")
            );
            exec.args(["-c", &script]);
            let ended = lab::run(exec, SOON);
            assert_eq!(ended.code, code, "{ended}");
            assert_eq!(ended.stdout.contains("went on"), code == 0, "{ended}");
        }
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn a_window_that_its_deadline_ended_counts_and_a_restart_forgets_none() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("[budget]\nfailures_per_hour = 1\n");
        let words = ["open", "--lease", "one", "--identifier", "a.test"];
        daemon
            .cli(&[&words[..], &["--for", "1s"]].concat())
            .success();
        let answer = format!("{TOKEN}.{THUMBPRINT}");
        daemon.cli(&["answer", "add", "a.test", &answer]).success();
        let is_refused = |daemon: &Daemon| {
            let refused = dry_run(daemon, "one", &["--identifier", "a.test"]);
            refused.stderr.contains("1 window for a.test has failed")
        };
        wait_for(SOON, "its failure is known", || {
            is_refused(&daemon).then_some(())
        });
        assert_eq!(daemon.terminate(), 0);
        daemon.start_again();
        assert!(is_refused(&daemon));
    });
}

#[test]
fn nothing_that_peers_do_makes_a_window_fail() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let nonsense = "b".repeat(43);
        for _ in 0..5 {
            window(&daemon, "one", "a.test", || {
                assert!(ask(&host, "a.test", TOKEN).starts_with("HTTP/1.1 200 "));
                for _ in 0..20 {
                    let refused = ask(&host, "a.test", &nonsense);
                    assert!(refused.starts_with("HTTP/1.1 404 "), "{refused}");
                }
            });
            // And without any token of ours.
            let words = ["open", "--lease", "two", "--identifier", "c.test"];
            daemon.cli(&words).success();
            assert!(ask(&host, "c.test", &nonsense).starts_with("HTTP/1.1 404 "));
            daemon.cli(&["close", "--lease", "two"]).success();
        }
        // By then the others are judged as well.
        fail_four_times(&daemon, "control", "b.test");
        for (lease, name) in [("one", "a.test"), ("two", "c.test")] {
            dry_run(&daemon, lease, &["--identifier", name]).success();
            dry_run(&daemon, lease, &[]).success();
        }
    });
}

#[test]
fn a_ca_on_the_allow_list_has_its_answers_as_well() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[allow]\nprefixes = [\"0.0.0.0/0\"]\n");
        for _ in 0..5 {
            window(&daemon, "one", "a.test", || {
                assert!(ask(&host, "a.test", TOKEN).starts_with("HTTP/1.1 200 "));
            });
        }
        fail_four_times(&daemon, "control", "b.test");
        dry_run(&daemon, "one", &["--identifier", "a.test"]).success();
    });
}

#[test]
fn what_certbot_says_of_its_failures_counts_for_the_names_of_sites() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start(
            "[budget]\nfailures_per_hour = 2\n[[site]]\nidentifiers = [\"a.test\", \"b.test\"]\n",
        );
        // A client by that name, whose two hooks are what certbot runs.
        let directory = lab::TempDir::new();
        let certbot = directory.program(
            "certbot",
            "#!/bin/sh\nsh -c 'acmegate open' && sh -c 'acmegate close'\n",
        );
        let run = |failed: &str, renewed: &str| {
            let mut command = Command::new(&certbot);
            command
                .env("PATH", daemon.search_path())
                .env("FAILED_DOMAINS", failed)
                .env("RENEWED_DOMAINS", renewed);
            lab::run(command, SOON)
        };
        for _ in 0..2 {
            run("a.test elsewhere.test", "b.test").success();
        }
        let refused = run("", "");
        assert_eq!(refused.code, 75, "{refused}");
        assert!(refused.stderr.contains("2 windows for a.test"), "{refused}");
        let open = |name| dry_run(&daemon, "other", &["--identifier", name]).code;
        assert_eq!(
            [open("a.test"), open("b.test"), open("elsewhere.test")],
            [75, 0, 0]
        );
    });
}
