//! The doctor's exam of the DNS, against real servers and a chain of signatures made here.

mod world;

use std::time::{Duration, Instant};

use acmegate::doctor::finding::Severity::{Advice, Doubt, Fault, Fine};

use crate::lab::{inside, nft};
use world::{
    HOST_4, HOST_6, NOBODY, ONE, ONE_6, OTHER_6, RESOLVER, Signed, TWO, World, Zone, examined,
    finds, is_well,
};

/// The lines of a zone file by which a name leads to this host.
fn here(name: &str) -> String {
    format!("{name} A {HOST_4}\n{name} AAAA {HOST_6}\n")
}

#[test]
fn a_name_is_told_where_it_points() {
    inside(|| {
        let world = World::new(&[Zone::new(
            "a.test.",
            &format!(
                "{}other A 198.51.100.7\nsix A {HOST_4}\nsix AAAA {OTHER_6}\nfour A 198.51.100.7\nfour AAAA {HOST_6}\n\
                 some A {HOST_4}\nsome A 198.51.100.7\nprivate A 10.0.0.7\nempty TXT x\nalias CNAME here\n\
                 gone CNAME nothing\nnat A 203.0.113.9\n",
                here("here")
            ),
        )]);
        let names = [
            "here.a.test",
            "alias.a.test",
            "other.a.test",
            "six.a.test",
            "four.a.test",
            "some.a.test",
            "private.a.test",
            "empty.a.test",
            "none.a.test",
            "gone.a.test",
        ];
        let exam = world.examine("", "", &names);
        finds(&exam, "here.a.test", Fine, "points-here", &[HOST_4, HOST_6]);
        finds(&exam, "alias.a.test", Fine, "points-here", &[HOST_4]);
        finds(
            &exam,
            "other.a.test",
            Fault,
            "points-elsewhere",
            &["198.51.100.7", HOST_4, "`other.a.test. IN A 192.0.2.1`"],
        );
        finds(
            &exam,
            "six.a.test",
            Doubt,
            "ipv6-dead",
            &[OTHER_6, "connection refused"],
        );
        finds(
            &exam,
            "four.a.test",
            Doubt,
            "ipv4-elsewhere",
            &["198.51.100.7"],
        );
        finds(
            &exam,
            "some.a.test",
            Doubt,
            "some-elsewhere",
            &["198.51.100.7"],
        );
        finds(
            &exam,
            "private.a.test",
            Fault,
            "private-address",
            &["10.0.0.7"],
        );
        finds(&exam, "empty.a.test", Fault, "no-address", &["a.test"]);
        finds(
            &exam,
            "none.a.test",
            Fault,
            "name-missing",
            &[
                "there is no name none.a.test",
                "`none.a.test. IN A 192.0.2.1`",
            ],
        );
        finds(
            &exam,
            "gone.a.test",
            Fault,
            "name-missing",
            &["alias of nothing.a.test"],
        );
        finds(&exam, "here.a.test", Fine, "servers-fine", &["a.test"]);
        finds(&exam, "here.a.test", Fine, "dnssec-fine", &["not signed"]);
        finds(
            &exam,
            "here.a.test",
            Advice,
            "caa-absent",
            &["here.a.test. IN CAA 0 issue"],
        );
        is_well(&exam, "here.a.test");
        is_well(&exam, "alias.a.test");
        assert_eq!(exam.not_covered, Vec::<String>::new());

        let _listener = world.neighbour_serves();
        let exam = world.examine(
            "public = [\"198.51.100.7\"]",
            "",
            &["six.a.test", "other.a.test", "some.a.test"],
        );
        finds(
            &exam,
            "six.a.test",
            Fault,
            "ipv6-elsewhere",
            &["somebody answers"],
        );
        is_well(&exam, "other.a.test");
        is_well(&exam, "some.a.test");
    });
}

#[test]
fn signatures_are_followed_to_the_root() {
    inside(|| {
        let zone = |name, signed| Zone::new(name, &here("@")).signed(signed);
        let mut hashed = zone("hashed.test.", Signed::OptOut);
        hashed.records += &format!(
            "{}{}away CNAME plain.test.\nbelow NS ns1.below\nns1.below A {ONE}\n",
            here("www"),
            here("*.any")
        );
        let world = World::new(&[
            zone("good.test.", Signed::Yes),
            zone("old.test.", Signed::LongAgo),
            zone("soon.test.", Signed::ThirteenDaysAgo),
            zone("key.test.", Signed::ByAnotherKey),
            zone("bare.test.", Signed::InTheParentAlone),
            zone("plain.test.", Signed::No),
            hashed,
            zone("below.hashed.test.", Signed::No),
        ]);
        let names = [
            "good.test",
            "old.test",
            "soon.test",
            "key.test",
            "bare.test",
            "plain.test",
            "none.good.test",
            "hashed.test",
            "www.hashed.test",
            "one.any.hashed.test",
            "away.hashed.test",
            "below.hashed.test",
            "none.hashed.test",
        ];
        let exam = world.examine("", "", &names);
        finds(
            &exam,
            "good.test",
            Fine,
            "dnssec-fine",
            &["proven from the root on"],
        );
        finds(&exam, "good.test", Fine, "points-here", &[]);
        finds(&exam, "plain.test", Fine, "dnssec-fine", &["not signed"]);
        finds(
            &exam,
            "old.test",
            Fault,
            "dnssec-bogus",
            &["ended", "days ago", "knotc zone-sign old.test"],
        );
        finds(&exam, "soon.test", Doubt, "dnssec-expiring", &["hours"]);
        finds(
            &exam,
            "key.test",
            Fault,
            "dnssec-bogus",
            &["DS record for key", "registrar"],
        );
        finds(&exam, "bare.test", Fault, "dnssec-bogus", &["has no keys"]);
        finds(&exam, "none.good.test", Fault, "name-missing", &[]);
        for proven in ["hashed.test", "www.hashed.test", "one.any.hashed.test"] {
            finds(
                &exam,
                proven,
                Fine,
                "dnssec-fine",
                &["proven from the root on"],
            );
            is_well(&exam, proven);
        }
        for unsigned in ["away.hashed.test", "below.hashed.test"] {
            finds(&exam, unsigned, Fine, "dnssec-fine", &["not signed"]);
            is_well(&exam, unsigned);
        }
        finds(&exam, "none.hashed.test", Fault, "name-missing", &[]);
        is_well(&exam, "good.test");
        assert_eq!(exam.not_covered, Vec::<String>::new());
        assert!(
            exam.looked_at
                .iter()
                .any(|line| line.contains("validated from the root on"))
        );
    });
}

#[test]
fn every_server_of_a_zone_is_asked() {
    inside(|| {
        let both = [("ns1", ONE), ("ns2", TWO)];
        let mut lame = Zone::with_servers("lame.test.", &both, &here("@"));
        lame.is_on_second = false;
        let mut dead = Zone::with_servers("dead.test.", &both, &here("@"));
        dead.is_served = false;
        let mut unlike = Zone::with_servers("unlike.test.", &both, &here("@"));
        unlike.second = Some((unlike.records.replace(HOST_4, "198.51.100.7"), Signed::No));
        let mut stale = Zone::with_servers("stale.test.", &both, &here("@")).signed(Signed::Yes);
        stale.second = Some((stale.records.clone(), Signed::LongAgo));
        let mut glue = Zone::with_servers("glue.test.", &both, &here("@"));
        glue.delegation = "glue.test. NS ns1.glue.test.\nglue.test. NS ns2.glue.test.\n".to_owned();
        let mut half = Zone::with_servers("half.test.", &both, &here("@"));
        half.delegation = half
            .delegation
            .replace(&format!("ns2.half.test. A {TWO}\n"), "");
        let mut nameless = Zone::with_servers("nameless.test.", &both[..1], &here("@"));
        nameless.records += "@ NS ns.nowhere.test.\n";
        nameless.delegation += "nameless.test. NS ns.nowhere.test.\n";
        let mut other = Zone::with_servers("other.test.", &both, &here("@"));
        other.delegation = format!("other.test. NS ns1.other.test.\nns1.other.test. A {ONE}\n");
        let world = World::new(&[
            Zone::with_servers(
                "well.test.",
                &[("ns1", ONE), ("ns2", TWO), ("ns1", ONE_6)],
                &here("@"),
            ),
            lame,
            dead,
            unlike,
            stale,
            glue,
            half,
            nameless,
            other,
            Zone::with_servers("silent.test.", &[("ns1", ONE), ("ns2", NOBODY)], &here("@")),
        ]);
        let names = [
            "well.test",
            "lame.test",
            "dead.test",
            "unlike.test",
            "stale.test",
            "glue.test",
            "half.test",
            "nameless.test",
            "other.test",
            "silent.test",
        ];
        let exam = world.examine("", "", &names);
        finds(
            &exam,
            "well.test",
            Fine,
            "servers-fine",
            &["3 addresses in all"],
        );
        is_well(&exam, "well.test");
        finds(
            &exam,
            "lame.test",
            Doubt,
            "server-lame",
            &[TWO, "Refused", "NS record"],
        );
        finds(
            &exam,
            "dead.test",
            Fault,
            "server-lame",
            &["no server of dead.test has the zone"],
        );
        finds(&exam, "dead.test", Fault, "lookup-failed", &["SERVFAIL"]);
        finds(
            &exam,
            "stale.test",
            Doubt,
            "server-stale",
            &["ns2.stale.test", "days ago"],
        );
        finds(
            &exam,
            "unlike.test",
            Doubt,
            "servers-disagree",
            &["198.51.100.7", "ns2.unlike.test"],
        );
        finds(
            &exam,
            "unlike.test",
            Advice,
            "serials-differ",
            &["serial 1", "serial 2"],
        );
        finds(
            &exam,
            "glue.test",
            Fault,
            "missing-glue",
            &["ns1.glue.test", "ns2.glue.test", "registrar"],
        );
        finds(
            &exam,
            "half.test",
            Doubt,
            "missing-glue",
            &["ns2.half.test"],
        );
        finds(
            &exam,
            "nameless.test",
            Doubt,
            "server-without-address",
            &["ns.nowhere.test"],
        );
        finds(
            &exam,
            "other.test",
            Advice,
            "delegation-differs",
            &["ns2.other.test"],
        );
        finds(
            &exam,
            "silent.test",
            Doubt,
            "server-silent",
            &[NOBODY, "UDP: no answer; TCP: connection refused"],
        );
        // The cause comes before what it causes.
        let words: Vec<&str> = exam
            .findings
            .iter()
            .map(|finding| finding.code.word)
            .collect();
        let at = |word| words.iter().position(|own| *own == word).unwrap();
        assert!(at("server-lame") < at("lookup-failed"), "{words:?}");
    });
}

#[test]
fn a_server_without_tcp_is_told() {
    inside(|| {
        let world = World::new(&[Zone::with_servers(
            "a.test.",
            &[("ns1", ONE), ("ns2", TWO)],
            &here("@"),
        )]);
        nft(&format!(
            "table inet t {{ chain i {{ type filter hook input priority 0; ip daddr {TWO} tcp dport 53 reject with tcp reset
 }}
}}"
        ));
        let exam = world.examine("", "", &["a.test"]);
        finds(
            &exam,
            "a.test",
            Doubt,
            "tcp-shut",
            &[TWO, "connection refused", "open TCP port 53"],
        );
        nft(&format!(
            "flush ruleset\ntable inet t {{ chain i {{ type filter hook input priority 0; ip daddr {{ {ONE}, {TWO} }} drop
 }}
}}"
        ));
        let exam = world.examine("", "", &["b.a.test"]);
        finds(
            &exam,
            "",
            Fault,
            "server-silent",
            &["no server of a.test answers", "from everywhere"],
        );
    });
}

#[test]
fn what_caa_records_say_is_compared() {
    inside(|| {
        let caa = |name: &str, values: &[&str]| {
            let records = values.iter().map(|value| format!("{name} CAA {value}\n"));
            format!("{}{}", here(name), records.collect::<String>())
        };
        let mut forged = Zone::new("forged.test.", &caa("@", &["0 issue \"genuine.test\""]));
        forged.signed = Signed::Yes;
        forged.tampered = Some(("genuine.test", "forger.test"));
        let plain = Zone::new(
            "a.test.",
            &[
                caa("@", &["0 issue \"ca.test\"", "0 issuewild \";\""]),
                caa("other", &["0 issue \"else.test\""]),
                caa("method", &["0 issue \"ca.test; validationmethods=dns-01\""]),
                caa(
                    "account",
                    &["0 issue \"ca.test; accounturi=https://ca.test/acct/1\""],
                ),
                caa("never", &["0 issue \";\""]),
                caa("critical", &["128 unheard \"of\"", "0 issue \"ca.test\""]),
                here("deep.below"),
            ]
            .concat(),
        );
        let world = World::new(&[plain, forged]);
        let names = [
            "a.test",
            "other.a.test",
            "method.a.test",
            "account.a.test",
            "never.a.test",
            "critical.a.test",
            "deep.below.a.test",
            "forged.test",
        ];
        let site = "[[site]]\nidentifiers = [\"a.test\", \"*.a.test\"]\n[[site]]\ndefault = true\n";
        let exam = world.examine("issuers = [\"ca.test\"]", site, &names);
        finds(
            &exam,
            "a.test",
            Fine,
            "caa-fine",
            &["allow ca.test", "http-01"],
        );
        finds(
            &exam,
            "a.test",
            Advice,
            "caa-forbids-wildcard",
            &["*.a.test", "issuewild \"ca.test\""],
        );
        finds(
            &exam,
            "deep.below.a.test",
            Fine,
            "caa-fine",
            &["a.test. CAA 0 issue \"ca.test\""],
        );
        finds(
            &exam,
            "other.a.test",
            Fault,
            "caa-forbids",
            &[
                "they allow else.test",
                "`other.a.test. IN CAA 0 issue \"ca.test\"`",
            ],
        );
        finds(
            &exam,
            "method.a.test",
            Fault,
            "caa-forbids-method",
            &["by http-01", "dns-01"],
        );
        finds(
            &exam,
            "account.a.test",
            Doubt,
            "caa-account",
            &["https://ca.test/acct/1", "--account"],
        );
        finds(
            &exam,
            "never.a.test",
            Fault,
            "caa-forbids",
            &["they allow nobody"],
        );
        finds(
            &exam,
            "critical.a.test",
            Fault,
            "caa-forbids",
            &["critical", "unheard"],
        );

        finds(&exam, "forged.test", Fine, "points-here", &[]);
        finds(
            &exam,
            "forged.test",
            Fault,
            "caa-failed",
            &["CAA of forged.test", "not proven"],
        );

        let exam = world.examine("", "", &names);
        finds(
            &exam,
            "never.a.test",
            Fault,
            "caa-forbids",
            &["forbid every CA"],
        );
        finds(
            &exam,
            "other.a.test",
            Fine,
            "caa-fine",
            &["allow else.test", "--ca"],
        );

        let known = "issuers = [\"ca.test\"]\naccounts = [\"https://ca.test/acct/2\"]";
        let exam = world.examine(known, "", &["account.a.test"]);
        finds(
            &exam,
            "account.a.test",
            Fault,
            "caa-forbids-account",
            &["https://ca.test/acct/1"],
        );
        let both = "issuers = [\"ca.test\", \"else.test\"]";
        let exam = world.examine(both, "", &["other.a.test"]);
        finds(
            &exam,
            "other.a.test",
            Doubt,
            "caa-forbids",
            &["forbid ca.test"],
        );
    });
}

#[test]
fn records_that_stand_for_good_are_watched() {
    inside(|| {
        let now = world::now();
        let persist = |name: &str, value: &str| {
            format!("{}_validation-persist.{name} TXT \"{value}\"\n", here(name))
        };
        let account = "accounturi=https://ca.test/acct/1";
        let mut gone = Zone::new("c.test.", "");
        gone.is_served = false;
        let world = World::new(&[
            Zone::new(
                "a.test.",
                &[
                    persist("good", &format!("ca.test; {account}")),
                    persist(
                        "soon",
                        &format!("ca.test; {account}; persistUntil={}", now + 86_400),
                    ),
                    persist(
                        "over",
                        &format!("ca.test; {account}; persistUntil={}", now - 864_000),
                    ),
                    persist("wrong", &format!("else.test; {account}")),
                    persist("unasked", "some nonsense"),
                    here("none"),
                    persist("wild", &format!("ca.test; {account}")),
                    here("led"),
                    "_acme-challenge.led CNAME led.b.test.\n".to_owned(),
                    here("hung"),
                    "_acme-challenge.hung CNAME hung.b.test.\n".to_owned(),
                    here("lost"),
                    "_validation-persist.lost CNAME lost.c.test.\n".to_owned(),
                ]
                .concat(),
            ),
            Zone::new("b.test.", "led TXT x\n"),
            gone,
        ]);
        let dns = "issuers = [\"ca.test\"]\naccounts = [\"https://ca.test/acct/1\"]\n\
                   persist = [\"good.a.test\", \"soon.a.test\", \"over.a.test\", \"wrong.a.test\", \"none.a.test\", \"lost.a.test\", \"*.wild.a.test\"]";
        let names = [
            "good.a.test",
            "soon.a.test",
            "over.a.test",
            "wrong.a.test",
            "unasked.a.test",
            "none.a.test",
            "lost.a.test",
            "wild.a.test",
            "led.a.test",
            "hung.a.test",
        ];
        let exam = world.examine(dns, "", &names);
        finds(&exam, "good.a.test", Fine, "persist-fine", &[]);
        finds(&exam, "soon.a.test", Doubt, "persist-expiring", &["hours"]);
        finds(
            &exam,
            "over.a.test",
            Fault,
            "persist-expired",
            &["10 days ago"],
        );
        finds(
            &exam,
            "wrong.a.test",
            Fault,
            "persist-wrong",
            &["the CA else.test"],
        );
        finds(
            &exam,
            "unasked.a.test",
            Advice,
            "persist-wrong",
            &["not of the form", "nonsense"],
        );
        finds(
            &exam,
            "none.a.test",
            Fault,
            "persist-missing",
            &[
                "`acmegate dns-persist none.a.test --issuer ca.test --account https://ca.test/acct/1`",
            ],
        );
        finds(
            &exam,
            "lost.a.test",
            Fault,
            "persist-missing",
            &["cannot be looked up", "SERVFAIL"],
        );
        finds(
            &exam,
            "wild.a.test",
            Fault,
            "persist-wrong",
            &["policy=wildcard", "--wildcard"],
        );
        finds(
            &exam,
            "led.a.test",
            Fine,
            "challenge-delegated",
            &["led.b.test"],
        );
        finds(
            &exam,
            "hung.a.test",
            Advice,
            "challenge-dangling",
            &["hung.b.test", "no such name"],
        );
    });
}

#[test]
fn what_cannot_be_asked_is_said_and_not_assumed() {
    inside(|| {
        let started = Instant::now();
        let seen = |config: &str| examined(config, &["a.test", "192.0.2.1"]);
        // Nothing leads anywhere: the Internet's resolvers are not reached from a namespace.
        let exam = seen("[dns]\nresolvers = [\"198.51.100.53\"]\n");
        assert_eq!(exam.findings, []);
        assert!(
            exam.not_covered[0].contains("no resolver knows it (198.51.100.53:53: no way there"),
            "{exam:?}"
        );
        assert!(
            exam.looked_at[0].contains("192.0.2.1: an address"),
            "{exam:?}"
        );
        let exam = seen("[dns]\nresolvers = [\"127.0.0.1\"]\n");
        assert!(
            exam.not_covered[0].contains("connection refused"),
            "{exam:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        // One that never answers has a deadline.
        let _open = std::net::UdpSocket::bind((NOBODY, 53)).expect("a free port");
        let exam = seen(&format!("[dns]\nresolvers = [\"{NOBODY}\"]\n"));
        assert!(exam.not_covered[0].contains("no answer"), "{exam:?}");
        assert!(
            started.elapsed() < Duration::from_secs(8),
            "{:?}",
            started.elapsed()
        );
    });
}

#[test]
fn what_is_not_validated_is_said() {
    inside(|| {
        let world = World::new(&[Zone::new("a.test.", &here("@"))]);
        // The root's real keys are built in, and this root has others.
        let exam = examined(
            &format!("[dns]\nresolvers = [\"{RESOLVER}\"]\n"),
            &["a.test"],
        );
        assert!(
            exam.not_covered[0].contains("not signed by the keys of the trust anchor"),
            "{exam:?}"
        );
        finds(&exam, "a.test", Fine, "points-here", &[HOST_4]);
        assert!(
            exam.findings
                .iter()
                .all(|finding| !finding.code.word.starts_with("dnssec"))
        );
        let anchor = |content: &str| {
            let file = world.write("anchor", content);
            let config =
                format!("[dns]\nresolvers = [\"{RESOLVER}\"]\ntrust_anchor = \"{file}\"\n");
            examined(&config, &["a.test"]).not_covered.join("\n")
        };
        assert!(anchor("a.test. IN A 192.0.2.1\n").contains("does not hold DNSKEY records alone"));
        assert!(anchor("").contains("no key of the root"));
        let missing = "[dns]\nresolvers = [\"127.0.0.53\"]\ntrust_anchor = \"/nonexistent\"\n";
        assert!(examined(missing, &["a.test"]).not_covered[0].contains("/nonexistent"));
        // Who serves zones alone knows no root.
        let exam = examined(&format!("[dns]\nresolvers = [\"{ONE}\"]\n"), &["a.test"]);
        assert_eq!(exam.findings, []);
        assert!(
            exam.not_covered[0].contains("of the root it says: Query Refused"),
            "{exam:?}"
        );
    });
}
