use std::time::Duration;

use super::identifier::Pattern;
use super::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use super::token::Thumbprint;
use super::*;

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
/// A peer from the documentation's prefixes: on no allow-list.
const FOREIGN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

fn site(identifiers: &[&str]) -> Site {
    Site {
        identifiers: identifiers
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect(),
        is_default: identifiers.is_empty(),
        redirect: Redirect::Asked,
        accounts: Vec::new(),
    }
}

fn gate(sites: Vec<Site>) -> Gate {
    Gate {
        sites,
        allow: AllowList::new(AllowList::local()).into(),
        exposure: Exposure::Windowed,
        redirect_for: RedirectFor::Everybody,
    }
}

fn open_windows(now: Instant) -> Windows {
    let mut windows = Windows::default();
    windows.adopt(Lease {
        id: 0,
        name: LeaseName::parse("a").unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families {
                v4: true,
                v6: false,
            },
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline: now + Duration::from_secs(60),
    });
    windows
}

fn decide(gate: &Gate, method: &str, target: &str, host: &str) -> Result<String, Reason> {
    let request = Request {
        method,
        target,
        host: Host::Value(host),
        peer: FOREIGN,
        local_port: 80,
    };
    match gate.decide(&request, &Windows::default(), Instant::now()) {
        Decision::Challenge(permit) => Ok(format!(
            "{} for {}",
            permit.token().as_str(),
            permit.identifier()
        )),
        Decision::Redirect { location, .. } => Ok(location),
        Decision::Refuse { reason, .. } => Err(reason),
    }
}

#[test]
fn a_foreign_peer_needs_a_window_of_its_own_family_and_port() {
    let now = Instant::now();
    let gate = gate(vec![]);
    let windows = open_windows(now);
    let admit = |address: &str, local_port, windows: &Windows, now| {
        gate.admit(
            Peer {
                address: address.parse().unwrap(),
                local_port,
                local_address: None,
            },
            windows,
            now,
        )
    };
    let until = now + Duration::from_secs(60) + window::GRACE;
    assert_eq!(
        admit("192.0.2.1", 80, &windows, now),
        Ok(Admission::Window { until })
    );
    assert_eq!(
        admit("2001:db8::1", 80, &windows, now),
        Err(Reason::NoLease)
    );
    assert_eq!(admit("192.0.2.1", 443, &windows, now), Err(Reason::NoLease));
    assert_eq!(
        admit("192.0.2.1", 80, &windows, now + Duration::from_secs(60)),
        Err(Reason::NoLease)
    );
    assert_eq!(
        admit("192.0.2.1", 80, &Windows::default(), now),
        Err(Reason::NoLease)
    );
    assert_eq!(
        admit("10.0.0.1", 80, &Windows::default(), now),
        Ok(Admission::AllowList)
    );
}

#[test]
fn where_one_address_is_open_a_peer_must_have_reached_it() {
    let now = Instant::now();
    let gate = gate(vec![]);
    let own: IpAddr = "203.0.113.7".parse().unwrap();
    let mut lease = open_windows(now).leases().next().unwrap().clone();
    lease.scope.entrance = Entrance::Address(own);
    let mut windows = Windows::default();
    windows.adopt(lease);
    let admit = |local_address: Option<IpAddr>| {
        let peer = Peer {
            address: "192.0.2.1".parse().unwrap(),
            local_port: 80,
            local_address,
        };
        gate.admit(peer, &windows, now).is_ok()
    };
    assert!(admit(Some(own)));
    assert!(!admit(Some("203.0.113.8".parse().unwrap())));
    assert!(!admit(None));
}

#[test]
fn in_gate_only_everybody_may_connect() {
    let mut gate = gate(vec![]);
    gate.exposure = Exposure::Open;
    let admit = |address: &str| {
        let peer = Peer {
            address: address.parse().unwrap(),
            local_port: 80,
            local_address: None,
        };
        gate.admit(peer, &Windows::default(), Instant::now())
    };
    assert_eq!(admit("192.0.2.1"), Ok(Admission::Everybody));
    // The site itself is for these alone, where the gate leads visitors to it.
    assert_eq!(admit("10.0.0.1"), Ok(Admission::AllowList));
}

#[test]
fn the_challenge_is_permitted_and_the_rest_redirected() {
    let gate = gate(vec![site(&[
        "example.com",
        "*.example.com",
        "203.0.113.7",
        "2001:db8::7",
    ])]);
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    assert_eq!(
        decide(&gate, "GET", &path, "Example.com.:80"),
        Ok(format!("{TOKEN} for example.com"))
    );
    assert_eq!(
        decide(&gate, "HEAD", &path, "[2001:db8::7]"),
        Ok(format!("{TOKEN} for 2001:db8::7"))
    );
    assert_eq!(
        decide(&gate, "GET", "/a?b=%2f", "www.example.com").as_deref(),
        Ok("https://www.example.com/a?b=%2f")
    );
    assert_eq!(
        decide(&gate, "GET", "/", "[2001:db8::7]").as_deref(),
        Ok("https://[2001:db8::7]/")
    );
    assert_eq!(
        decide(&gate, "GET", "//evil.test/", "example.com").as_deref(),
        Ok("https://example.com//evil.test/")
    );
}

#[test]
fn each_refusal_has_its_reason() {
    let gate = gate(vec![site(&["example.com"])]);
    let long = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
    let long_token = format!(
        "{}{}",
        challenge::PREFIX,
        "a".repeat(MAX_CHALLENGE_TARGET_BYTES)
    );
    for (method, target, host, reason) in [
        ("POST", "/", "example.com", Reason::Method),
        ("get", "/", "example.com", Reason::Method),
        ("CONNECT", "example.com:443", "example.com", Reason::Method),
        ("GET", "*", "example.com", Reason::TargetForm),
        (
            "GET",
            "http://example.com/",
            "example.com",
            Reason::TargetForm,
        ),
        ("GET", "/a\\b", "example.com", Reason::TargetForm),
        ("GET", "/a#b", "example.com", Reason::TargetForm),
        ("GET", "/\u{e4}", "example.com", Reason::TargetForm),
        ("GET", &long, "example.com", Reason::TargetTooLong),
        ("GET", &long_token, "example.com", Reason::TargetTooLong),
        ("GET", "/", "127.1", Reason::MalformedHost),
        ("GET", "/", "user@example.com", Reason::MalformedHost),
        ("GET", "/", "other.test", Reason::UnknownHost),
        (
            "GET",
            "/.well-known/acme-challenge/other",
            "other.test",
            Reason::UnknownHost,
        ),
        (
            "GET",
            "/.well-known/acme-challenge/short",
            "example.com",
            Reason::MalformedToken,
        ),
        (
            "GET",
            "/.well-known/acme-challenge/",
            "example.com",
            Reason::MalformedToken,
        ),
    ] {
        assert_eq!(
            decide(&gate, method, target, host),
            Err(reason),
            "{method} {target} {host}"
        );
    }
    for host in [Host::Missing, Host::Repeated] {
        let request = Request {
            method: "GET",
            target: "/",
            host,
            peer: FOREIGN,
            local_port: 80,
        };
        assert!(matches!(
            gate.decide(&request, &Windows::default(), Instant::now()),
            Decision::Refuse {
                reason: Reason::HostCount,
                ..
            }
        ));
    }
}

#[test]
fn a_redirect_can_be_for_the_allow_list_alone_and_a_challenge_never_is() {
    let mut own = gate(vec![site(&["example.com"])]);
    own.redirect_for = RedirectFor::AllowList;
    own.exposure = Exposure::Open;
    let challenge = format!("{}{TOKEN}", challenge::PREFIX);
    let ask = |target: &str, host, peer: &str| {
        let request = Request {
            method: "GET",
            target,
            host: Host::Value(host),
            peer: peer.parse().unwrap(),
            local_port: 80,
        };
        match own.decide(&request, &open_windows(Instant::now()), Instant::now()) {
            Decision::Challenge(_) => Ok("challenge"),
            Decision::Redirect { .. } => Ok("redirect"),
            Decision::Refuse { reason, identifier } => Err((reason, identifier.is_some())),
        }
    };
    for (target, host, peer, answer) in [
        ("/", "example.com", "10.0.0.1", Ok("redirect")),
        ("/", "example.com", "fd00::1", Ok("redirect")),
        (
            "/",
            "example.com",
            "192.0.2.1",
            Err((Reason::NotAllowed, true)),
        ),
        (
            "/",
            "example.com",
            "2001:db8::1",
            Err((Reason::NotAllowed, true)),
        ),
        (
            "/",
            "other.test",
            "192.0.2.1",
            Err((Reason::UnknownHost, true)),
        ),
        (&challenge, "example.com", "192.0.2.1", Ok("challenge")),
        (&challenge, "example.com", "10.0.0.1", Ok("challenge")),
    ] {
        assert_eq!(ask(target, host, peer), answer, "{target} {host} {peer}");
    }
}

#[test]
fn the_default_site_redirects_only_to_a_configured_name() {
    let mut default = site(&[]);
    let asked = gate(vec![default.clone()]);
    assert_eq!(
        decide(&asked, "GET", "/", "evil.test"),
        Err(Reason::UnknownHost)
    );
    default.redirect = Redirect::To(Identifier::parse("www.example.com").unwrap());
    let named = gate(vec![default.clone()]);
    assert_eq!(
        decide(&named, "GET", "/x", "evil.test").as_deref(),
        Ok("https://www.example.com/x")
    );
    default.redirect = Redirect::Off;
    assert_eq!(
        decide(&gate(vec![default]), "GET", "/", "evil.test"),
        Err(Reason::NoRedirect)
    );
}

#[test]
fn a_window_covers_what_was_configured_and_never_the_default_site() {
    let now = Instant::now();
    let gate = gate(vec![site(&["example.com"]), site(&[])]);
    let covered = |host, windows: &Windows| {
        let target = format!("{}{TOKEN}", challenge::PREFIX);
        let request = Request {
            method: "GET",
            target: &target,
            host: Host::Value(host),
            peer: FOREIGN,
            local_port: 80,
        };
        match gate.decide(&request, windows, now) {
            Decision::Challenge(permit) => permit.is_covered(),
            other => panic!("{other:?}"),
        }
    };
    assert!(covered("example.com", &open_windows(now)));
    assert!(!covered("example.com", &Windows::default()));
    assert!(!covered("evil.test", &open_windows(now)));
}

#[test]
fn only_the_right_token_of_a_named_account_is_vouched_for() {
    let mut own = site(&["example.com"]);
    let answer = KeyAuthorization::parse(format!("{TOKEN}.{THUMBPRINT}").as_bytes()).unwrap();
    let other =
        KeyAuthorization::parse(format!("{}.{THUMBPRINT}", TOKEN.replace('L', "M")).as_bytes())
            .unwrap();
    let permit = Permit {
        token: Token::parse(TOKEN.as_bytes()).unwrap(),
        identifier: Identifier::parse("example.com").unwrap(),
        site: SiteId(0),
        covered: false,
    };
    let any = gate(vec![own.clone()]);
    assert_eq!(
        any.vouch(&permit, answer.clone()).unwrap().to_body(),
        format!("{TOKEN}.{THUMBPRINT}")
    );
    assert_eq!(any.vouch(&permit, other).unwrap_err(), Reason::UpstreamLied);
    own.accounts = vec![Thumbprint::parse(THUMBPRINT.replace('9', "8").as_bytes()).unwrap()];
    assert_eq!(
        gate(vec![own]).vouch(&permit, answer).unwrap_err(),
        Reason::ForeignAccount
    );
}

#[test]
fn every_reason_is_one_word_of_its_own() {
    let mut words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    assert!(words.iter().all(|word| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte == b'1')
    }));
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Reason::ALL.len());
}
