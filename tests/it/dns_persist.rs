//! `acmegate dns-persist`: what it prints, and what it refuses.

use std::process::Command;
use std::time::Duration;

use crate::lab::{BINARY, Output, run};

const ACCOUNT: &str = "https://acme-v02.api.letsencrypt.org/acme/acct/1234";

fn dns_persist(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("dns-persist").args(arguments);
    run(command, Duration::from_secs(10))
}

#[test]
fn the_record_is_a_line_of_a_zone_file() {
    let given = [
        "Example.org.",
        "--issuer",
        "letsencrypt.org",
        "--account",
        ACCOUNT,
    ];
    let output = dns_persist(&given).success();
    assert_eq!(
        output.stdout,
        format!(
            "_validation-persist.example.org. IN TXT \"letsencrypt.org; accounturi={ACCOUNT}\"\n"
        )
    );
    let more = [&given[..], &["--wildcard", "--until", "2099-12-31"]].concat();
    let output = dns_persist(&more).success();
    assert!(
        output
            .stdout
            .ends_with("; policy=wildcard; persistUntil=4102444799\"\n"),
        "{output}"
    );
}

#[test]
fn what_no_record_can_say_is_refused() {
    let given = |name: &'static str, issuer: &'static str, account: &'static str| {
        vec![name, "--issuer", issuer, "--account", account]
    };
    let until = |date: &'static str| {
        let all = given("example.org", "letsencrypt.org", ACCOUNT);
        [all, vec!["--until", date]].concat()
    };
    for (arguments, said) in [
        (
            given("*.example.org", "letsencrypt.org", ACCOUNT),
            "--wildcard",
        ),
        (given("192.0.2.1", "letsencrypt.org", ACCOUNT), "address"),
        (
            given("example.org", "Let's Encrypt", ACCOUNT),
            "the CA's name in CAA records",
        ),
        (
            given("example.org", "letsencrypt.org", "1234"),
            "the account's URL",
        ),
        (
            given(
                "example.org",
                "letsencrypt.org",
                "https://a.test/1;policy=wildcard",
            ),
            "the account's URL",
        ),
        (until("2001-01-01"), "has passed"),
        (until("soon"), "write a date"),
        (until("2099-02-30"), "write a date"),
    ] {
        let output = dns_persist(&arguments);
        assert_eq!(output.code, 64, "{arguments:?} {output}");
        assert!(output.stderr.contains(said), "{arguments:?} {output}");
        assert_eq!(output.stdout, "");
    }
}
