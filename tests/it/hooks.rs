//! Each ACME client's own hook contract, by its arguments and variables: what it asks of the
//! daemon, what it ends with, and what it makes of garbage. tests/acme has the clients themselves.

mod garbage;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Daemon, Output, run};

const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// base64url has the hyphen, so tokens begin with one; no option may be made of them.
const TOKENS: [&str; 3] = [
    "-oqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0",
    "--config8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX",
    "hVqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0",
];
const NAME: &str = "www.example.com";
/// A hook has a deadline of its own well below.
const LIMIT: Duration = Duration::from_secs(60);

fn daemon(more: &str) -> Daemon {
    Daemon::start(&format!(
        "{more}[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n\
         [[site]]\nidentifiers = [\"{NAME}\", \"b.example.com\", \"203.0.113.7\"]\n"
    ))
}

fn answer(token: &str) -> String {
    format!("{token}.{THUMBPRINT}")
}

/// `acmegate hook …` with these variables and no others.
fn hook<Word: AsRef<OsStr>>(daemon: &Daemon, words: &[Word], variables: &[(&str, &str)]) -> Output {
    let mut command = daemon.command();
    command.arg("hook").args(words).env_clear();
    command.envs(variables.iter().copied());
    run(command, LIMIT)
}

/// The lease names and the count of pushed tokens.
fn state(daemon: &Daemon) -> (Vec<String>, u64) {
    let status = daemon.status();
    let leases = status["leases"].as_array().expect("leases").iter();
    let name = |lease: &Value| lease["name"].as_str().expect("a name").to_owned();
    (
        leases.map(name).collect(),
        status["pushed"].as_u64().expect("a number"),
    )
}

/// Ends it as systemd does, which takes the runtime directory away: nobody waits for it to come back.
fn stop(daemon: &mut Daemon) {
    assert_eq!(daemon.terminate(), 0);
    std::fs::remove_dir_all(daemon.runtime_dir()).expect("its sockets");
}

fn is_shut(daemon: &Daemon) -> bool {
    state(daemon) == (Vec::new(), 0)
}

fn silent(output: &Output) -> bool {
    output.code == 0 && output.stdout.is_empty() && output.stderr.is_empty()
}

fn one_line(output: &Output) -> bool {
    output.stdout.is_empty() && output.stderr.lines().count() == 1
}

#[test]
fn a_token_that_begins_with_a_hyphen_is_no_option() {
    let daemon = daemon("");
    for token in TOKENS {
        let answer = answer(token);
        let add = [
            &["answer", "add", NAME, &answer, "--for", "1m"][..],
            &["answer", "add", "--for", "1m", NAME, &answer],
        ];
        for words in add {
            daemon.cli(words).success();
            assert_eq!(state(&daemon).1, 1, "{token}");
            daemon.cli(&["answer", "remove", NAME, token]).success();
            assert_eq!(state(&daemon).1, 0, "{token}");
        }
        daemon.cli(add[0]).success();
        daemon.cli(&["answer", "remove", NAME, &answer]).success();
        assert_eq!(state(&daemon).1, 0, "{token}");
    }
}

#[test]
fn certbot_pushes_and_withdraws_by_its_variables() {
    let daemon = daemon("");
    let answer = answer(TOKENS[0]);
    // The identifier is what 5.3 and newer mean; the domain may be left over.
    let variables = [
        ("CERTBOT_IDENTIFIER", "203.0.113.7"),
        ("CERTBOT_DOMAIN", "left.over.test"),
        ("CERTBOT_VALIDATION", answer.as_str()),
    ];
    hook(&daemon, &["certbot", "auth"], &variables).success();
    assert_eq!(state(&daemon), (Vec::new(), 1));
    hook(&daemon, &["certbot", "cleanup"], &variables).success();
    assert!(is_shut(&daemon));
}

#[test]
fn dehydrated_opens_pushes_withdraws_and_closes() {
    let daemon = daemon("");
    let dehydrated = |words: &[&str]| hook(&daemon, &[&["dehydrated"], words].concat(), &[]);
    let opened = dehydrated(&["startup_hook"]).success();
    assert_eq!(opened.stdout.lines().count(), 1, "{opened}");
    assert_eq!(state(&daemon).0.len(), 1);
    let answers = TOKENS.map(answer);
    // Held by the client, so that it ends with it, whatever becomes of its exit_hook.
    let holder = &daemon.status()["leases"][0]["holder"];
    let own = format!("(pid {})", std::process::id());
    let is_held = holder.as_str().is_some_and(|holder| holder.ends_with(&own));
    assert!(is_held, "{holder}");
    let mut chain = Vec::new();
    for ((name, token), answer) in [NAME, "b.example.com", "203.0.113.7"]
        .into_iter()
        .zip(TOKENS)
        .zip(&answers)
    {
        chain.extend([name, token, answer.as_str()]);
    }
    for (count, words) in [(1, &chain[..3]), (3, &chain[..])] {
        dehydrated(&[&["deploy_challenge"], words].concat()).success();
        assert_eq!(state(&daemon).1, count);
        dehydrated(&[&["clean_challenge"], words].concat()).success();
        assert_eq!(state(&daemon).1, 0);
    }
    // All or none: dehydrated does not clean what it could not deploy.
    let mut unknown = chain.clone();
    unknown[3] = "unknown.test";
    let refused = dehydrated(&[&["deploy_challenge"], &unknown[..]].concat());
    assert!(
        refused.code == 78 && refused.stderr.contains("unknown.test"),
        "{refused}"
    );
    assert_eq!(state(&daemon).1, 0);
    dehydrated(&["exit_hook", "an error, or none"]).success();
    assert!(is_shut(&daemon));
}

#[test]
fn dehydrated_is_told_what_a_failure_means_and_goes_on() {
    let daemon = daemon("");
    let response = r#"{"type":"http-01","status":"invalid","error":{"detail":"During secondary validation: 192.0.2.1: Timeout","status":400}}"#;
    let invalid = hook(
        &daemon,
        &["dehydrated", "invalid_challenge", NAME, response],
        &[],
    );
    assert!(invalid.code == 0 && one_line(&invalid), "{invalid}");
    for word in [
        NAME,
        "During secondary validation",
        "country",
        "acmegate status",
    ] {
        assert!(invalid.stderr.contains(word), "{word}: {invalid}");
    }
    let words = [
        "dehydrated",
        "request_failure",
        "503",
        r#"{"detail":"busy"}"#,
        "POST",
        "h: v",
    ];
    let failure = hook(&daemon, &words, &[]);
    assert!(failure.code == 0 && one_line(&failure), "{failure}");
    assert!(
        failure.stderr.contains("503 to a POST of dehydrated: busy"),
        "{failure}"
    );
}

/// It calls one that does not exist, to see whether the hook passes over it; what is printed by
/// `generate_csr` is a certificate signing request to it.
#[test]
fn dehydrateds_other_handlers_are_passed_over_without_a_word() {
    let mut daemon = daemon("");
    let bad = OsString::from_vec(vec![0xff, b'-', 0xfe]);
    let calls: [&[&OsStr]; 6] = [
        &["this_hookscript_is_broken__dehydrated_is_working_fine".as_ref()],
        &["generate_csr".as_ref(), NAME.as_ref(), "/certs".as_ref()],
        &["deploy_cert".as_ref(), "--config".as_ref(), "-x".as_ref()],
        &["unchanged_cert".as_ref(), &bad],
        &[&bad, &bad],
        &["".as_ref()],
    ];
    stop(&mut daemon);
    for words in calls {
        let words: Vec<&OsStr> = [OsStr::new("dehydrated")]
            .iter()
            .chain(words)
            .copied()
            .collect();
        let output = hook(&daemon, &words, &[]);
        assert!(silent(&output), "{words:?}: {output}");
    }
}

#[test]
fn uacme_pushes_and_opens_then_closes_and_withdraws() {
    let daemon = daemon("");
    for (token, end) in [
        (TOKENS[0], "done"),
        (TOKENS[1], "failed"),
        (TOKENS[2], "done"),
    ] {
        let answer = answer(token);
        let uacme = |method: &str, kind: &str| {
            hook(&daemon, &["uacme", method, kind, NAME, token, &answer], &[])
        };
        for kind in ["dns-01", "later-99"] {
            let declined = uacme("begin", kind);
            assert!(declined.code == 69 && one_line(&declined), "{declined}");
            assert!(declined.stderr.contains(kind), "{declined}");
            assert!(is_shut(&daemon));
        }
        let begun = uacme("begin", "http-01").success();
        assert_eq!(begun.stdout.lines().count(), 1, "{begun}");
        let (leases, pushed) = state(&daemon);
        assert_eq!((leases.len(), pushed), (1, 1));
        let ended = uacme(end, "http-01").success();
        assert_eq!(
            ended.stderr.contains("did not get"),
            end == "failed",
            "{ended}"
        );
        assert!(is_shut(&daemon));
    }
}

/// uacme calls neither `done` nor `failed` for what it declined.
#[test]
fn uacme_declines_whole_when_the_window_is_refused() {
    let daemon = daemon("[budget]\nper_hour = 2\nreserve = 1\n");
    for lease in ["a", "b"] {
        daemon.cli(&["open", "--lease", lease]);
        daemon.cli(&["close", "--lease", lease]);
    }
    let answer = answer(TOKENS[0]);
    let words = ["uacme", "begin", "http-01", NAME, TOKENS[0], &answer];
    let declined = hook(&daemon, &words, &[]);
    assert!(declined.code == 75 && one_line(&declined), "{declined}");
    assert!(is_shut(&daemon));
}

#[test]
fn lego_opens_for_the_names_of_its_certificate() {
    let daemon = daemon("");
    let names = [(
        "LEGO_HOOK_CERT_DOMAINS",
        "www.example.com,*.example.com,b.example.com",
    )];
    hook(&daemon, &["lego", "pre"], &names).success();
    assert_eq!(state(&daemon).0.len(), 1);
    let lease = &daemon.status()["leases"][0];
    let text = lease.to_string();
    assert!(
        text.contains("b.example.com") && !text.contains('*'),
        "{text}"
    );
    // The post-hook's variables are nobody's business.
    hook(&daemon, &["lego", "post"], &[]).success();
    assert!(is_shut(&daemon));
    let wildcard = hook(
        &daemon,
        &["lego", "pre"],
        &[("LEGO_HOOK_CERT_DOMAINS", "*.a.test")],
    );
    assert!(
        wildcard.code == 65 && wildcard.stderr.contains("dns-01"),
        "{wildcard}"
    );
    // What lego 4 sets says nothing to this contract.
    let old = hook(&daemon, &["lego", "pre"], &[("LEGO_CERT_DOMAIN", NAME)]);
    assert!(old.code == 64 && old.stderr.contains("lego 4"), "{old}");
    assert!(is_shut(&daemon));
}

#[test]
fn mod_md_opens_before_the_ca_is_told_and_closes_after() {
    let mut daemon = daemon("");
    let mod_md = |daemon: &Daemon, event: &str| hook(daemon, &["mod-md", event, NAME], &[]);
    for end in ["renewed", "errored"] {
        for name in [NAME, "b.example.com"] {
            mod_md(&daemon, &format!("challenge-setup:http-01:{name}")).success();
            assert_eq!(state(&daemon).0.len(), 1, "one window for all its names");
        }
        for other in [
            "renewing",
            "installed",
            "expiring",
            "ocsp-renewed",
            "later",
            "",
        ] {
            assert!(silent(&mod_md(&daemon, other)), "{other}");
            assert_eq!(state(&daemon).0.len(), 1, "{other}");
        }
        mod_md(&daemon, end).success();
        assert!(is_shut(&daemon));
    }
    // Its other types: one needs no window, the other gets none.
    assert!(silent(&mod_md(
        &daemon,
        "challenge-setup:dns-01:www.example.com"
    )));
    let declined = mod_md(&daemon, "challenge-setup:tls-alpn-01:www.example.com");
    assert!(declined.code == 69 && one_line(&declined), "{declined}");
    assert!(is_shut(&daemon));
    stop(&mut daemon);
    let refused = mod_md(&daemon, "challenge-setup:http-01:www.example.com");
    assert!(refused.code == 69 && one_line(&refused), "{refused}");
    // A renewal that is done is not undone by a window that closes by itself.
    let told = mod_md(&daemon, "renewed");
    assert!(told.code == 0 && one_line(&told), "{told}");
}

#[test]
fn caddy_has_a_lease_for_each_name() {
    let daemon = daemon("");
    let caddy = |event: &str, name: &str| hook(&daemon, &["caddy", event, name], &[]).success();
    caddy("cert_obtaining", NAME);
    caddy("cert_obtaining", "b.example.com");
    assert_eq!(state(&daemon).0.len(), 2);
    caddy("cert_obtained", NAME);
    assert_eq!(state(&daemon).0.len(), 1, "the other one's is still needed");
    caddy("cert_failed", "b.example.com");
    assert!(is_shut(&daemon));
    for (event, name) in [
        ("cert_obtaining", "*.example.com"),
        ("cert_ocsp_revoked", NAME),
        ("started", "{event.data.identifier}"),
    ] {
        assert!(silent(&caddy(event, name)), "{event} {name}");
    }
    assert!(is_shut(&daemon));
}
