//! What every contract makes of garbage, and of a daemon that is not there.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use super::{LIMIT, NAME, TOKENS, answer, daemon, hook, is_shut, one_line, stop};
use crate::lab::run;

/// What a hook must end with, its words, and its variables.
type Case<'a> = (i32, &'a [&'a str], &'a [(&'a str, &'a str)]);

#[test]
fn garbage_is_refused_by_every_contract_with_one_line_and_nothing_is_done() {
    let daemon = daemon("");
    let good = answer(TOKENS[2]);
    let long = answer(&"a".repeat(100_000));
    let name = "a".repeat(100_000);
    let (token, digest) = (TOKENS[2], "gfj9Xq-Rg85nM");
    let domain = ("CERTBOT_DOMAIN", NAME);
    let lego = "LEGO_HOOK_CERT_DOMAINS";
    let cases: &[Case<'_>] = &[
        (64, &["certbot", "auth"], &[]),
        (64, &["certbot", "auth"], &[domain]),
        (64, &["certbot", "auth"], &[("CERTBOT_VALIDATION", &good)]),
        (
            64,
            &["certbot", "auth"],
            &[domain, ("CERTBOT_VALIDATION", digest)],
        ),
        (
            65,
            &["certbot", "auth"],
            &[domain, ("CERTBOT_VALIDATION", &long)],
        ),
        (
            65,
            &["certbot", "auth"],
            &[domain, ("CERTBOT_VALIDATION", "a.b")],
        ),
        (
            65,
            &["certbot", "auth"],
            &[("CERTBOT_DOMAIN", "a b"), ("CERTBOT_VALIDATION", &good)],
        ),
        (
            65,
            &["certbot", "cleanup"],
            &[domain, ("CERTBOT_VALIDATION", "a.b")],
        ),
        (
            65,
            &["certbot", "auth"],
            &[("CERTBOT_DOMAIN", &name), ("CERTBOT_VALIDATION", &good)],
        ),
        (64, &["dehydrated", "deploy_challenge"], &[]),
        (65, &["uacme", "begin", "http-01", &name, token, &good], &[]),
        (65, &["lego", "pre"], &[(lego, &name)]),
        (65, &["caddy", "cert_obtaining", &name], &[]),
        (64, &["dehydrated", "deploy_challenge", NAME, token], &[]),
        (
            64,
            &["dehydrated", "deploy_challenge", NAME, token, digest],
            &[],
        ),
        (
            64,
            &["dehydrated", "deploy_challenge", NAME, token, &good, NAME],
            &[],
        ),
        (
            65,
            &["dehydrated", "deploy_challenge", NAME, token, &long],
            &[],
        ),
        (
            65,
            &["dehydrated", "deploy_challenge", "a b", token, &good],
            &[],
        ),
        (
            65,
            &["dehydrated", "deploy_challenge", NAME, TOKENS[0], &good],
            &[],
        ),
        (64, &["dehydrated", "clean_challenge", NAME], &[]),
        (64, &["uacme", "begin", "http-01", NAME, token, digest], &[]),
        (64, &["uacme", "later", "http-01", NAME, token, &good], &[]),
        (
            65,
            &["uacme", "begin", "http-01", NAME, TOKENS[0], &good],
            &[],
        ),
        (65, &["uacme", "begin", "http-01", NAME, token, &long], &[]),
        (65, &["uacme", "begin", "http-01", "", token, &good], &[]),
        (64, &["lego", "pre"], &[]),
        (65, &["lego", "pre"], &[(lego, "")]),
        (65, &["lego", "pre"], &[(lego, "www.example.com,a b")]),
        (64, &["mod-md", "challenge-setup:http-01:"], &[]),
        (64, &["mod-md", "challenge-setup:http-01"], &[]),
        (69, &["mod-md", "challenge-setup:"], &[]),
        (64, &["mod-md", "renewed"], &[]),
        (64, &["caddy", "cert_obtaining"], &[]),
        (
            64,
            &["caddy", "cert_obtaining", "{event.data.identifier}"],
            &[],
        ),
        (65, &["caddy", "cert_obtaining", "a b"], &[]),
    ];
    for (code, words, variables) in cases {
        let output = hook(&daemon, words, variables);
        assert_eq!(output.code, *code, "{words:?}: {output}");
        assert!(one_line(&output), "{words:?}: {output}");
        assert!(is_shut(&daemon), "{words:?}");
    }
    // What clap refuses comes with its usage.
    for words in [
        &["certbot"][..],
        &["certbot", "later"],
        &["dehydrated"],
        &["uacme", "begin", "http-01", NAME, token],
        &["uacme", "begin", "http-01", NAME, token, &good, "more"],
        &["lego"],
        &["mod-md"],
        &["caddy"],
        &["unheard-of"],
    ] {
        let output = hook(&daemon, words, &[]);
        assert!(
            output.code == 64 && !output.stderr.is_empty(),
            "{words:?}: {output}"
        );
    }
    assert!(is_shut(&daemon));
}

#[test]
fn what_is_not_utf_8_is_refused_by_every_contract() {
    let daemon = daemon("");
    let bad = OsString::from_vec(vec![0xff, 0xfe, b'.', b'a']);
    let good = OsString::from(answer(TOKENS[2]));
    let word = OsStr::new;
    let (name, token) = (word(NAME), word(TOKENS[2]));
    let deploy = [word("dehydrated"), word("deploy_challenge")];
    let begin = [word("uacme"), word("begin"), word("http-01")];
    let calls = [
        [&deploy[..], &[&bad, token, &good]].concat(),
        [&deploy[..], &[name, token, &bad]].concat(),
        [&begin[..], &[&bad, token, &good]].concat(),
        [&begin[..], &[name, &bad, &good]].concat(),
        [&begin[..], &[name, token, &bad]].concat(),
        vec![word("uacme"), word("begin"), &bad, name, token, &good],
        vec![word("uacme"), &bad, word("http-01"), name, token, &good],
        vec![word("mod-md"), word("renewed"), &bad],
        vec![word("caddy"), word("cert_obtaining"), &bad],
    ];
    for words in calls {
        let output = hook(&daemon, &words, &[]);
        assert!(
            output.code == 65 && one_line(&output),
            "{words:?}: {output}"
        );
        assert!(output.stderr.contains("UTF-8"), "{output}");
    }
    for (words, name) in [
        (["certbot", "auth"], "CERTBOT_DOMAIN"),
        (["lego", "pre"], "LEGO_HOOK_CERT_DOMAINS"),
    ] {
        let mut command = daemon.command();
        command.arg("hook").args(words).env_clear().env(name, &bad);
        let output = run(command, LIMIT);
        assert!(
            output.code == 65 && one_line(&output),
            "{words:?}: {output}"
        );
    }
    assert!(is_shut(&daemon));
}

#[test]
fn without_a_daemon_every_contract_says_so() {
    let mut daemon = daemon("");
    stop(&mut daemon);
    let good = answer(TOKENS[2]);
    let token = TOKENS[2];
    let certbot = [("CERTBOT_DOMAIN", NAME), ("CERTBOT_VALIDATION", &good)];
    let lego = [("LEGO_HOOK_CERT_DOMAINS", NAME)];
    let cases: &[Case<'_>] = &[
        (69, &["certbot", "auth"], &certbot),
        (69, &["certbot", "cleanup"], &certbot),
        (69, &["dehydrated", "startup_hook"], &[]),
        (
            69,
            &["dehydrated", "deploy_challenge", NAME, token, &good],
            &[],
        ),
        (69, &["dehydrated", "exit_hook"], &[]),
        // Failing here, dehydrated would throw away an order that is valid.
        (
            0,
            &["dehydrated", "clean_challenge", NAME, token, &good],
            &[],
        ),
        (69, &["uacme", "begin", "http-01", NAME, token, &good], &[]),
        (69, &["uacme", "done", "http-01", NAME, token, &good], &[]),
        (69, &["lego", "pre"], &lego),
        (69, &["lego", "post"], &[]),
        (
            69,
            &["mod-md", "challenge-setup:http-01:www.example.com", NAME],
            &[],
        ),
        (0, &["mod-md", "errored", NAME], &[]),
        (69, &["caddy", "cert_obtaining", NAME], &[]),
        (69, &["caddy", "cert_failed", NAME], &[]),
    ];
    for (code, words, variables) in cases {
        let output = hook(&daemon, words, variables);
        assert_eq!(output.code, *code, "{words:?}: {output}");
        assert!(one_line(&output), "{words:?}: {output}");
        assert!(output.stderr.contains("not running"), "{words:?}: {output}");
    }
}
