//! `acmegate config explain`: the gate's own decision, in words.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{BINARY, Output, TempDir, run};

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const STRANGER: &str = "198.51.100.7";
const CONFIG: &str = r#"
[[site]]
identifiers = ["a.example.com", "*.example.org"]
answer = "pushed"
[[site]]
identifiers = ["b.example.com"]
answer = { upstream = "http://10.0.0.5:5080" }
redirect = "off"
"#;

fn explain(arguments: &[&str]) -> Output {
    let directory = TempDir::new();
    let file = directory.write("acmegate.toml", CONFIG);
    let mut command = Command::new(BINARY);
    command
        .args(["--config", &file, "config", "explain"])
        .args(arguments);
    run(command, Duration::from_secs(20))
}

/// Verdict, reason, status and site of a request.
fn told(method: &str, url: &str, from: &str, window: &str) -> (String, Value, Value, Value) {
    let output = explain(&[method, url, "--from", from, "--window", window, "--json"]).success();
    let told: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let verdict = told["verdict"].as_str().expect("a word").to_owned();
    (
        verdict,
        told["reason"].clone(),
        told["status"].clone(),
        told["site"].clone(),
    )
}

#[test]
fn each_decision_is_told_with_its_site_and_reason() {
    let challenge = |host: &str| format!("http://{host}/.well-known/acme-challenge/{TOKEN}");
    let page = "http://a.example.com/page".to_owned();
    let none = Value::Null;
    for (method, url, from, window, verdict, reason, status, site) in [
        (
            "GET",
            challenge("a.example.com"),
            STRANGER,
            "shut",
            "drop",
            "no-lease",
            0,
            0,
        ),
        (
            "GET",
            challenge("a.example.com"),
            STRANGER,
            "open",
            "accept",
            "",
            0,
            1,
        ),
        (
            "GET",
            challenge("a.example.com"),
            "10.1.2.3",
            "shut",
            "accept",
            "",
            0,
            1,
        ),
        (
            "GET",
            challenge("x.example.org"),
            "::ffff:10.1.2.3",
            "shut",
            "accept",
            "",
            0,
            1,
        ),
        (
            "GET",
            challenge("b.example.com"),
            STRANGER,
            "open",
            "accept",
            "",
            0,
            2,
        ),
        (
            "GET",
            challenge("b.example.com"),
            "10.1.2.3",
            "shut",
            "drop",
            "not-covered",
            404,
            2,
        ),
        (
            "GET",
            challenge("c.example.com"),
            STRANGER,
            "open",
            "drop",
            "unknown-host",
            421,
            0,
        ),
        (
            "GET",
            challenge("a.example.com") + "/",
            STRANGER,
            "open",
            "drop",
            "malformed-token",
            404,
            1,
        ),
        (
            "POST",
            challenge("a.example.com"),
            STRANGER,
            "open",
            "drop",
            "method",
            405,
            0,
        ),
        (
            "GET",
            page.clone(),
            STRANGER,
            "open",
            "accept",
            "redirected",
            301,
            1,
        ),
        (
            "GET",
            "http://b.example.com".to_owned(),
            STRANGER,
            "open",
            "drop",
            "no-redirect",
            404,
            2,
        ),
    ] {
        let number = |value: u64| {
            (value > 0)
                .then_some(value)
                .map_or(none.clone(), Value::from)
        };
        let word = (!reason.is_empty()).then_some(reason);
        let expected = (
            verdict.to_owned(),
            word.map_or(none.clone(), Value::from),
            number(status),
            number(site),
        );
        assert_eq!(
            told(method, &url, from, window),
            expected,
            "{method} {url} {from} {window}"
        );
    }
}

#[test]
fn as_people_read_it() {
    let url = format!("http://b.example.com/.well-known/acme-challenge/{TOKEN}");
    let output = explain(&["GET", &url, "--from", STRANGER, "--window", "open"]).success();
    assert_eq!(
        output.stdout,
        "accept: the upstream 10.0.0.5:5080 is asked for the token\n\
         \x20 connects by an open window\n\
         \x20 identifier  b.example.com\n\
         \x20 site        number 2 of the file: b.example.com\n"
    );
    let output = explain(&["GET", &url, "--from", STRANGER]).success();
    assert_eq!(
        output.stdout,
        "drop: no rule lets it connect\n  reason      no-lease\n"
    );
}

#[test]
fn what_is_no_request_to_port_80_is_refused() {
    for (url, word) in [
        ("https://a.example.com/", "http://"),
        ("a.example.com", "http://"),
        ("http:///page", "no host"),
    ] {
        let output = explain(&["GET", url, "--from", STRANGER]);
        assert_eq!(output.code, 64, "{output}");
        assert!(output.stderr.contains(word), "{output}");
    }
}
