//! Answers by TLS-ALPN-01: pushed by the control socket, by a client's hook, given to openssl by
//! the daemon; and windows by challenge type.

use std::process::Command;
use std::time::Duration;

use crate::lab::{Daemon, Output, run};

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const OTHER_TOKEN: &str = "-oqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const OTHER: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
/// SHA-256 of token, full stop, thumbprint, by openssl.
const DIGEST: &str = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
const HEXADECIMAL: &str = "2c:fb:08:c1:3a:3b:a3:c0:68:1b:4f:af:8c:2c:86:40:60:56:49:52:0f:c4:8f:a2:fd:7d:f7:e9:e5:0e:41:9a";
const NAME: &str = "www.example.com";
const LIMIT: Duration = Duration::from_secs(30);

fn daemon(more: &str) -> Daemon {
    Daemon::start(&format!(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[tls]\nlisten = [\"127.0.0.1:0\"]\n\
         [firewall]\nmode = \"gate-only\"\nports = [80, 443]\n\
         [[site]]\nidentifiers = [\"{NAME}\", \"203.0.113.7\"]\n{more}"
    ))
}

fn listener(daemon: &Daemon, at: usize) -> String {
    let listeners = daemon.status()["listeners"].clone();
    listeners[at].as_str().expect("a listener").to_owned()
}

/// What a validator sees whose first protocol is `acme-tls/1`.
fn asked(daemon: &Daemon, server_name: &str) -> Output {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &listener(daemon, 1)]);
    openssl.args(["-servername", server_name, "-alpn", "acme-tls/1"]);
    run(openssl, LIMIT)
}

/// The digest in the certificate that a validator gets, in hexadecimal.
fn proven(daemon: &Daemon, server_name: &str) -> Option<String> {
    let said = asked(daemon, server_name).stdout;
    let (_, certificate) = said.split_once("-----BEGIN CERTIFICATE-----")?;
    let (certificate, _) = certificate.split_once("-----END CERTIFICATE-----")?;
    let file = crate::lab::TempDir::new();
    let path = file.at("certificate");
    let certificate =
        format!("-----BEGIN CERTIFICATE-----{certificate}-----END CERTIFICATE-----\n");
    std::fs::write(&path, certificate).expect("a file");
    let mut openssl = Command::new("openssl");
    openssl.args(["asn1parse", "-in", &path]);
    let parsed = run(openssl, LIMIT).success().stdout;
    let (_, digest) = parsed.split_once("[HEX DUMP]:0420")?;
    Some(digest.lines().next()?.to_lowercase())
}

fn digest() -> Option<String> {
    Some(HEXADECIMAL.replace(':', ""))
}

fn pushed(daemon: &Daemon) -> u64 {
    daemon.status()["pushed"].as_u64().expect("a number")
}

fn hook(daemon: &Daemon, words: &[&str]) -> Output {
    let mut command = daemon.command();
    command.arg("hook").args(words).env_clear();
    run(command, LIMIT)
}

fn open_ports(daemon: &Daemon) -> Vec<u64> {
    let status = daemon.status();
    let windows = status["windows"].as_array().expect("windows");
    let open = windows
        .iter()
        .filter(|window| window["open"] == true && window["family"] == "ipv4");
    open.map(|window| window["port"].as_u64().expect("a port"))
        .collect()
}

#[test]
fn a_pushed_answer_is_given_by_its_challenge_until_it_is_withdrawn() {
    let daemon = daemon("");
    let whole = format!("{TOKEN}.{THUMBPRINT}");
    assert_eq!(proven(&daemon, NAME), None);
    let add = |words: &[&str]| {
        let words = [&["answer", "add", "--tls-alpn-01"], words].concat();
        let said = daemon.cli(&words).success();
        assert!(said.stdout.contains("by tls-alpn-01"), "{said}");
    };
    let remove = |token: &str| {
        let words = ["answer", "remove", "--tls-alpn-01", NAME, token];
        daemon.cli(&words).success();
        assert_eq!(proven(&daemon, NAME), None);
    };
    add(&[NAME, &whole]);
    assert_eq!(proven(&daemon, NAME), digest());
    assert_eq!(proven(&daemon, "7.113.0.203.in-addr.arpa"), None);
    // What was pushed for one challenge is not there for the other.
    let words = ["answer", "remove", NAME, TOKEN];
    let said = daemon.cli(&words).success();
    assert!(said.stdout.contains("nothing to withdraw"), "{said}");
    let mut curl = Command::new("curl");
    let host = format!("Host: {NAME}");
    let listener = listener(&daemon, 0);
    let url = format!("http://{listener}/.well-known/acme-challenge/{TOKEN}");
    curl.args(["--silent", "--include", "--header", &host, &url]);
    let got = run(curl, LIMIT).success().stdout;
    assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
    remove(&whole);

    add(&[NAME, "--token", TOKEN, "--digest", DIGEST, "--for", "1m"]);
    assert_eq!(proven(&daemon, NAME), digest());
    // A newer one is what a validator gets, and the older one when that is gone.
    add(&[NAME, &format!("{OTHER_TOKEN}.{THUMBPRINT}")]);
    assert_ne!(proven(&daemon, NAME), digest());
    let words = ["answer", "remove", "--tls-alpn-01", NAME, OTHER_TOKEN];
    daemon.cli(&words).success();
    assert_eq!(proven(&daemon, NAME), digest());
    remove(TOKEN);

    add(&["203.0.113.7", &whole]);
    assert_eq!(proven(&daemon, "7.113.0.203.in-addr.arpa"), digest());
    assert!(!daemon.log().contains(DIGEST) && !daemon.log().contains(&whole));
}

#[test]
fn a_site_that_names_accounts_takes_no_digest_of_another_one() {
    let daemon = daemon(&format!("accounts = [\"{OTHER}\", \"{THUMBPRINT}\"]\n"));
    let by_digest = |token: &str| {
        let words = ["answer", "add", "--tls-alpn-01", NAME, "--token", token];
        daemon.cli(&[&words[..], &["--digest", DIGEST]].concat())
    };
    let refused = by_digest(OTHER_TOKEN);
    assert!(
        refused.code == 78 && refused.stderr.contains("none of the site's `accounts`"),
        "{refused}"
    );
    assert_eq!(pushed(&daemon), 0);
    by_digest(TOKEN).success();
    assert_eq!(proven(&daemon, NAME), digest());
    let stranger = THUMBPRINT.replace('9', "8");
    let whole = format!("{TOKEN}.{stranger}");
    let refused = daemon.cli(&["answer", "add", "--tls-alpn-01", NAME, &whole]);
    assert!(
        refused.code == 78 && refused.stderr.contains(&stranger),
        "{refused}"
    );
}

#[test]
fn what_is_no_answer_is_refused() {
    let daemon = daemon("");
    let whole = format!("{TOKEN}.{THUMBPRINT}");
    let add = ["answer", "add", NAME];
    for (code, words) in [
        (64, &[][..]),
        (64, &["--tls-alpn-01"]),
        (64, &["--digest", DIGEST, "--token", TOKEN]),
        (64, &["--tls-alpn-01", "--digest", DIGEST]),
        (64, &["--tls-alpn-01", "--token", TOKEN, &whole]),
        (
            64,
            &[
                "--tls-alpn-01",
                "--digest",
                DIGEST,
                "--token",
                TOKEN,
                &whole,
            ],
        ),
        (65, &["--tls-alpn-01", DIGEST]),
        (
            65,
            &["--tls-alpn-01", "--digest", &DIGEST[1..], "--token", TOKEN],
        ),
        (
            65,
            &["--tls-alpn-01", "--digest", DIGEST, "--token", "short"],
        ),
    ] {
        let refused = daemon.cli(&[&add[..], words].concat());
        assert_eq!(refused.code, code, "{words:?}: {refused}");
    }
    assert_eq!(pushed(&daemon), 0);
    let unknown = ["answer", "add", "--tls-alpn-01", "unknown.test", &whole];
    assert_eq!(daemon.cli(&unknown).code, 78);
}

#[test]
fn uacme_gets_its_digest_answered_and_port_443_open() {
    let daemon = daemon("");
    for end in ["done", "failed"] {
        let uacme = |method: &str| {
            let words = ["uacme", method, "tls-alpn-01", NAME, TOKEN, DIGEST];
            hook(&daemon, &words).success()
        };
        let begun = uacme("begin");
        assert_eq!(begun.stdout.lines().count(), 1, "{begun}");
        assert_eq!(open_ports(&daemon), [443]);
        assert_eq!(proven(&daemon, NAME), digest());
        uacme(end);
        assert_eq!(open_ports(&daemon), [0; 0]);
        assert_eq!(pushed(&daemon), 0);
        assert_eq!(proven(&daemon, NAME), None);
    }
    let whole = format!("{TOKEN}.{THUMBPRINT}");
    for (wrong, code) in [(whole.as_str(), 65), ("", 65), (&"a".repeat(2000), 65)] {
        let words = ["uacme", "begin", "tls-alpn-01", NAME, TOKEN, wrong];
        assert_eq!(hook(&daemon, &words).code, code);
        assert_eq!((pushed(&daemon), open_ports(&daemon)), (0, Vec::new()));
    }
}

/// Whatever the site is validated by otherwise, the challenge that uacme begins with has its port.
#[test]
fn uacme_opens_port_80_for_http_01_where_a_site_has_another_challenge() {
    let daemon = daemon("challenges = [\"tls-alpn-01\"]\n");
    let whole = format!("{TOKEN}.{THUMBPRINT}");
    let words = ["uacme", "begin", "http-01", NAME, TOKEN, &whole];
    hook(&daemon, &words).success();
    assert_eq!(open_ports(&daemon), [80]);
}

/// A host without a port 80: http-01 comes first in the order, and is declined.
#[test]
fn uacme_declines_http_01_where_nothing_listens_for_it() {
    let daemon = Daemon::start(&format!(
        "[http]\nlisten = []\n[tls]\nlisten = [\"127.0.0.1:0\"]\n\
         [firewall]\nmode = \"gate-only\"\nports = [443]\n[[site]]\nidentifiers = [\"{NAME}\"]\n"
    ));
    let whole = format!("{TOKEN}.{THUMBPRINT}");
    let declined = hook(&daemon, &["uacme", "begin", "http-01", NAME, TOKEN, &whole]);
    assert!(
        declined.code == 78 && declined.stderr.contains("[http] does not listen"),
        "{declined}"
    );
    assert_eq!((pushed(&daemon), open_ports(&daemon)), (0, Vec::new()));
    let begin = ["uacme", "begin", "tls-alpn-01", NAME, TOKEN, DIGEST];
    hook(&daemon, &begin).success();
    assert_eq!((pushed(&daemon), open_ports(&daemon)), (1, vec![443]));
}

#[test]
fn uacme_tries_its_next_challenge_where_this_one_cannot_come() {
    let begin = ["uacme", "begin", "tls-alpn-01", NAME, TOKEN, DIGEST];
    let site = format!("[[site]]\nidentifiers = [\"{NAME}\"]\n");
    for (config, why) in [
        (
            "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [443]\n",
            "[tls] does not listen",
        ),
        (
            "[http]\nlisten = [\"127.0.0.1:0\"]\n[tls]\nlisten = [\"127.0.0.1:0\"]\n\
             [firewall]\nmode = \"gate-only\"\nports = [80]\n",
            "write ports = [80, 443]",
        ),
    ] {
        let daemon = Daemon::start(&format!("{config}{site}"));
        let declined = hook(&daemon, &begin);
        assert!(
            declined.code == 78 && declined.stderr.contains(why),
            "{declined}"
        );
        assert_eq!((pushed(&daemon), open_ports(&daemon)), (0, Vec::new()));
    }
}

#[test]
fn dehydrated_tells_its_digest_in_hexadecimal() {
    let daemon = daemon("challenges = [\"tls-alpn-01\"]\n");
    let dehydrated = |words: &[&str]| hook(&daemon, &[&["dehydrated"], words].concat()).success();
    dehydrated(&["startup_hook"]);
    assert_eq!(open_ports(&daemon), [443]);
    dehydrated(&["deploy_challenge", NAME, TOKEN, HEXADECIMAL]);
    assert_eq!(proven(&daemon, NAME), digest());
    dehydrated(&["clean_challenge", NAME, TOKEN, HEXADECIMAL]);
    assert_eq!((pushed(&daemon), proven(&daemon, NAME)), (0, None));
    dehydrated(&["exit_hook"]);
    assert_eq!(open_ports(&daemon), [0; 0]);
}

#[test]
fn a_window_opens_for_the_challenges_that_are_named_or_that_its_sites_have() {
    let daemon = daemon(
        "[[site]]\nidentifiers = [\"tls.test\"]\nchallenges = [\"tls-alpn-01\"]\n\
         [[site]]\nidentifiers = [\"both.test\"]\nchallenges = [\"http-01\", \"tls-alpn-01\"]\n",
    );
    for (words, ports) in [
        (&["--http-01"][..], &[80][..]),
        (&["--tls-alpn-01"], &[443]),
        (&["--http-01", "--tls-alpn-01"], &[80, 443]),
        (&["--tls-alpn-01", "--port", "80"], &[80, 443]),
        (&["--port", "443"], &[443]),
        (&["--identifier", NAME], &[80]),
        (&["--identifier", "tls.test"], &[443]),
        (&["--identifier", "both.test"], &[80, 443]),
        (
            &["--identifier", NAME, "--identifier", "tls.test"],
            &[80, 443],
        ),
        (&["--identifier", "tls.test", "--http-01"], &[80]),
        (&[], &[80, 443]),
    ] {
        daemon
            .cli(&[&["open", "--lease", "a"], words].concat())
            .success();
        assert_eq!(open_ports(&daemon), ports, "{words:?}");
        daemon.cli(&["close", "--lease", "a"]).success();
    }
    let status = daemon.cli(&["status"]).success();
    assert!(
        status.stdout.contains("tcp 443 ipv6 by tls-alpn-01: shut"),
        "{status}"
    );
    let only = Daemon::start(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n",
    );
    for command in [
        &["open", "--tls-alpn-01"][..],
        &["open", "--dry-run", "--tls-alpn-01"],
    ] {
        let refused = only.cli(command);
        assert!(
            refused.code == 78 && refused.stderr.contains("write ports = [80, 443]"),
            "{refused}"
        );
    }
    let refused = only.cli(&["exec", "--tls-alpn-01", "--", "true"]);
    assert_eq!(refused.code, 78, "{refused}");
}
