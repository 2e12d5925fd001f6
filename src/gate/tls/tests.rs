use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::gate::allow_list::AllowList;
use crate::gate::identifier::Pattern;
use crate::gate::site::{Redirect, Site};
use crate::gate::token::{KeyAuthorization, Thumbprint, Token};
use crate::gate::{Exposure, RedirectFor};

const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const OTHER: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

fn site(identifiers: &[&str], accounts: &[&str]) -> Site {
    let patterns = identifiers.iter().map(|text| Pattern::parse(text).unwrap());
    let accounts = accounts
        .iter()
        .map(|text| Thumbprint::parse(text.as_bytes()).unwrap());
    Site {
        identifiers: patterns.collect(),
        is_default: identifiers.is_empty(),
        redirect: Redirect::Off,
        accounts: accounts.collect(),
    }
}

fn gate() -> Gate {
    Gate {
        sites: vec![
            site(&["a.test", "192.0.2.7", "2001:db8::7"], &[]),
            site(&["b.test"], &[THUMBPRINT]),
        ],
        allow: AllowList::default().into(),
        exposure: Exposure::Windowed,
        redirect_for: RedirectFor::Everybody,
    }
}

fn hello(name: &str, offer: Offer) -> Hello<'_> {
    Hello {
        server_name: ServerName::Value(name),
        offer,
        has_early_data: false,
    }
}

fn in_window() -> Admission {
    Admission::Window {
        until: Instant::now() + Duration::from_secs(9),
    }
}

fn decide(hello: &Hello<'_>, admission: Admission) -> Result<Option<String>, Reason> {
    match gate().decide_tls(hello, admission, &Windows::default(), Instant::now()) {
        TlsDecision::Challenge(permit) => Ok(Some(permit.identifier().to_string())),
        TlsDecision::Pass { .. } => Ok(None),
        TlsDecision::Refuse { reason, .. } => Err(reason),
    }
}

#[test]
fn only_an_offer_of_nothing_else_leads_to_a_responder_and_never_to_the_site() {
    for admission in [in_window(), Admission::AllowList, Admission::Everybody] {
        let challenge = decide(&hello("a.test", Offer::AcmeTls), admission);
        assert_eq!(challenge, Ok(Some("a.test".to_owned())));
        let unknown = decide(&hello("c.test", Offer::AcmeTls), admission);
        assert_eq!(unknown, Err(Reason::UnknownHost));
    }
}

#[test]
fn everything_else_reaches_the_site_from_the_allow_list_alone() {
    for (offer, reason) in [
        (Offer::Nothing, Reason::NotAllowed),
        (Offer::Others, Reason::NotAllowed),
        (Offer::AcmeTlsAmongOthers, Reason::MixedAlpn),
    ] {
        for name in ["a.test", "c.test"] {
            assert_eq!(decide(&hello(name, offer), Admission::AllowList), Ok(None));
            for admission in [in_window(), Admission::Everybody] {
                assert_eq!(decide(&hello(name, offer), admission), Err(reason));
            }
        }
    }
}

#[test]
fn addresses_are_asked_for_by_their_reverse_names() {
    let v6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    for (name, address) in [
        ("7.2.0.192.in-addr.arpa", "192.0.2.7"),
        ("7.2.0.192.IN-ADDR.ARPA", "192.0.2.7"),
        (v6, "2001:db8::7"),
    ] {
        let asked: IpAddr = address.parse().unwrap();
        let found = decide(&hello(name, Offer::AcmeTls), in_window());
        assert_eq!(found, Ok(Some(asked.to_string())), "{name}");
    }
    // An address itself is no server name (RFC 6066 §3).
    for (name, reason) in [
        ("192.0.2.7", Reason::MalformedServerName),
        ("2001:db8::7", Reason::MalformedServerName),
        ("007.2.0.192.in-addr.arpa", Reason::MalformedServerName),
        ("2.0.192.in-addr.arpa", Reason::MalformedServerName),
        ("8.2.0.192.in-addr.arpa", Reason::UnknownHost),
        ("a_b.test", Reason::MalformedServerName),
    ] {
        let found = decide(&hello(name, Offer::AcmeTls), in_window());
        assert_eq!(found, Err(reason), "{name}");
    }
}

#[test]
fn a_hello_without_a_name_or_with_early_data_is_no_validation() {
    let of = |server_name, has_early_data| Hello {
        server_name,
        offer: Offer::AcmeTls,
        has_early_data,
    };
    for (hello, reason) in [
        (of(ServerName::Missing, false), Reason::NoServerName),
        (
            of(ServerName::Malformed, false),
            Reason::MalformedServerName,
        ),
        (of(ServerName::Value("a.test"), true), Reason::EarlyData),
    ] {
        assert_eq!(decide(&hello, in_window()), Err(reason));
        // The site's own server shall not see it either.
        assert_eq!(decide(&hello, Admission::AllowList), Err(reason));
    }
}

#[test]
fn an_answer_is_vouched_for_by_account() {
    let gate = gate();
    let permit = |name| match gate.decide_tls(
        &hello(name, Offer::AcmeTls),
        in_window(),
        &Windows::default(),
        Instant::now(),
    ) {
        TlsDecision::Challenge(permit) => permit,
        other => panic!("{other:?}"),
    };
    let token = Token::parse(&[b'a'; 43]).unwrap();
    let of = |thumbprint: &str| {
        let thumbprint = Thumbprint::parse(thumbprint.as_bytes()).unwrap();
        TlsAnswer::from(KeyAuthorization::new(token.clone(), thumbprint))
    };
    let (own, foreign) = (of(THUMBPRINT), of(OTHER));
    let nobodys = TlsAnswer::of_digest(token.clone(), own.digest().clone());
    assert!(gate.vouch_tls(&permit("a.test"), foreign.clone()).is_ok());
    assert!(gate.vouch_tls(&permit("a.test"), nobodys.clone()).is_ok());
    let vouched = gate.vouch_tls(&permit("b.test"), own.clone()).unwrap();
    assert_eq!(vouched.identifier().to_string(), "b.test");
    assert_eq!(vouched.answer(), &own);
    for answer in [foreign, nobodys] {
        let refused = gate.vouch_tls(&permit("b.test"), answer);
        assert_eq!(refused.unwrap_err(), Reason::ForeignAccount);
    }
}

#[test]
fn a_permit_is_covered_by_a_window_for_the_name_or_by_the_allow_list_and_never_for_the_default_site()
 {
    let is_covered = |gate: &Gate, admission| {
        let (hello, now) = (hello("a.test", Offer::AcmeTls), Instant::now());
        match gate.decide_tls(&hello, admission, &Windows::default(), now) {
            TlsDecision::Challenge(permit) => permit.is_covered(),
            other => panic!("{other:?}"),
        }
    };
    let named = gate();
    assert!(is_covered(&named, Admission::AllowList));
    // The window that let the peer in is not one of these: it may be of other names.
    assert!(!is_covered(&named, in_window()));
    assert!(!is_covered(&named, Admission::Everybody));
    let default = Gate {
        sites: vec![site(&[], &[])],
        ..gate()
    };
    for admission in [Admission::AllowList, in_window(), Admission::Everybody] {
        assert!(!is_covered(&default, admission));
    }
}
