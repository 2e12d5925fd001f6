//! The report's own promise: six perspectives, each stopped or not by something else, and each named
//! with its true cause.

use std::time::Duration;

use acmegate::control::protocol::ReportWord;
use acmegate::observe::record::Outcome;
use acmegate::observe::record::{Record, Role, Source};

use crate::evidence_flood::{SOURCES, flood};
use crate::host::{HOST_4, Host, try_once_from};
use crate::lab::perspective::Question;
use crate::lab::{Daemon, inside, nft, wait_for};
use crate::raw;
use crate::records::{ANSWER, NAME, SOON, TOKEN, host_asked_from, last, question, records};

/// A geo-blocker in prerouting drops it.
const GEO: &str = "198.51.100.7";
/// The input chain's policy does.
const POLICY: &str = "203.0.113.7";
/// A limit does, which its neighbour has used up.
const LIMIT: &str = "100.64.9.7";
const NEIGHBOUR: &str = "100.64.9.8";
/// It asks before the token is there.
const EARLY: &str = "45.33.9.7";
/// One perspective with two addresses, the first of which is dropped.
const V6: &str = "2001:db8:200::7";
const V4: &str = "198.18.9.7";
/// It comes when the CA has enough.
const LATE: &str = "142.250.5.7";
const ALL: [&str; 8] = [GEO, POLICY, LIMIT, NEIGHBOUR, EARLY, V6, V4, LATE];

/// Says where some of them are: the two addresses of one perspective in the same country.
const COUNTRIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/lists/mmdb/dbip-24.mmdb"
);

const FIREWALL: &str = r#"
table inet geo {
    chain early {
        type filter hook prerouting priority -160; policy accept;
        ip saddr 198.51.100.0/24 counter drop comment "not from there"
    }
}
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ip saddr 100.64.9.0/24 limit rate over 1/day burst 1 packets drop
        ip6 saddr 2001:db8:200::/48 tcp dport 80 drop
        ip saddr 203.0.113.0/24 goto elsewhere
        tcp dport { 80, 81 } accept
    }
    chain elsewhere {
    }
}
"#;

#[track_caller]
fn source<'a>(record: &'a Record, address: &str) -> &'a Source {
    let mut sources = record.sources.iter();
    let found = sources.find(|source| source.address.to_string() == address);
    found.unwrap_or_else(|| panic!("{address} is not in {record:#?}"))
}

/// Asks for the token, and gives up the connection after a retransmission or two.
fn ask(host: &Host, from: &'static str) -> Option<u16> {
    host.outside(move || {
        let question = Question {
            dial: Duration::from_millis(3500),
            ..question(from, TOKEN)
        };
        question.ask()
    })
}

#[test]
fn each_of_six_perspectives_is_told_with_its_true_cause() {
    inside(|| {
        let host = host_asked_from(&ALL);
        nft(FIREWALL);
        let mut daemon = Daemon::start(&format!("[report]\ndatabases = [\"{COUNTRIES}\"]\n"));
        // The limit is used up by somebody of the same network.
        let neighbour = || try_once_from(NEIGHBOUR, HOST_4, 81, Duration::from_secs(5));
        assert!(host.outside(neighbour).passed());
        daemon.cli(&["open", "--lease", "certbot-1"]).success();
        assert_eq!(ask(&host, EARLY), Some(404));
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        // At once, as a CA's remote perspectives come.
        for from in [GEO, POLICY, LIMIT] {
            host.beside(move || {
                let question = Question {
                    dial: Duration::from_millis(3500),
                    ..question(from, TOKEN)
                };
                assert_eq!(question.ask(), None, "{from}");
            });
        }
        assert_eq!(ask(&host, V6), None);
        assert_eq!(ask(&host, V4), Some(200));
        assert_eq!(ask(&host, LATE), Some(200));
        let closed = daemon.cli(&["close", "--lease", "certbot-1"]).success();
        // What is looked up comes with the record's being stored.
        let record = wait_for(SOON, "the places are known", || {
            let record = last(&daemon);
            source(&record, V6).then.is_some().then_some(record)
        });
        let country = |from| {
            source(&record, from)
                .place
                .clone()
                .and_then(|place| place.country)
        };
        assert_eq!(country(GEO).as_deref(), Some("LI"));
        assert_eq!(country(V4), country(V6));

        let dropped = |from: &str| {
            let dropped = source(&record, from).dropped.clone();
            dropped.unwrap_or_else(|| panic!("{from}: no rule in {record:#?}"))
        };
        let geo = dropped(GEO);
        assert_eq!(
            (geo.table.as_str(), geo.chain.as_str()),
            ("inet geo", "early")
        );
        let rule = geo.rule.expect("a rule");
        assert!(
            rule.contains("ip saddr 198.51.100.0/24") && rule.contains("drop"),
            "{rule}"
        );
        let policy = dropped(POLICY);
        assert_eq!(
            (policy.table.as_str(), policy.chain.as_str()),
            ("inet filter", "input")
        );
        assert_eq!(policy.rule, None, "by its policy");
        let limit = dropped(LIMIT).rule.expect("a rule");
        assert!(limit.contains("limit rate over 1/day"), "{limit}");
        let v6 = dropped(V6).rule.expect("a rule");
        assert!(v6.contains("ip6 saddr 2001:db8:200::/48"), "{v6}");

        assert_eq!(
            source(&record, V6)
                .then
                .map(|then| then.to_string())
                .as_deref(),
            Some(V4)
        );
        for (from, reason) in [
            (EARLY, "unknown-token"),
            (V4, "answered"),
            (LATE, "answered"),
        ] {
            let came = source(&record, from);
            assert_eq!((came.role, came.reached), (Role::Validator, true), "{from}");
            assert_eq!(came.visits[0].reason, reason, "{from}");
        }
        for from in [GEO, POLICY, LIMIT, V6] {
            assert!(source(&record, from).packets >= 2, "{from}: {record:#?}");
        }
        assert_eq!(record.assessment.outcome, Outcome::Failed);
        assert_eq!(record.assessment.dropped, 3);
        assert_eq!(record.assessment.answered, 2);
        assert!(closed.stdout.lines().count() == 2, "{closed}");
        assert!(closed.stdout.contains("3 dropped"), "{closed}");
        let report = daemon.cli(&["report", "--last"]).success().stdout;
        for told in [
            GEO, POLICY, LIMIT, EARLY, V6, V4, LATE, "inet geo", "policy",
        ] {
            assert!(report.contains(told), "{told}:\n{report}");
        }
        // The history has the same, judged by the places that it looked up itself.
        assert_eq!(daemon.terminate(), 0);
        daemon.start_again();
        assert_eq!(last(&daemon), record);
    });
}

#[test]
fn where_nothing_is_wrong_one_line_says_so() {
    inside(|| {
        let host = host_asked_from(&ALL);
        let daemon = Daemon::start("");
        daemon.cli(&["open", "--lease", "certbot-1"]).success();
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        for from in [GEO, POLICY, LIMIT, EARLY, LATE, V6] {
            assert_eq!(ask(&host, from), Some(200), "{from}");
        }
        let closed = daemon.cli(&["close", "--lease", "certbot-1"]).success();
        assert!(closed.stdout.contains("6 networks"), "{closed}");
        // The kernel agrees with the gate.
        let record = wait_for(SOON, "the record is complete", || {
            let word = ReportWord::default();
            records(&daemon, word)
                .pop()
                .filter(|record| record.evidence.is_kept)
        });
        assert_eq!(record.assessment.outcome, Outcome::Answered);
        assert_eq!((record.evidence.seen, record.evidence.reached), (6, 6));
        assert!(record.evidence.packets >= 6 && record.evidence.incomplete.is_none());
    });
}

#[test]
fn a_flood_and_a_scan_hide_no_perspective_and_stop_none() {
    inside(|| {
        let host = host_asked_from(&ALL);
        let daemon = Daemon::start("");
        daemon.cli(&["open", "--lease", "certbot-1"]).success();
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        host.beside(|| raw::send(flood(0)));
        // A scan: connections that say nothing, and some that ask for what is there.
        host.beside(|| {
            let to = crate::host::socket_address(HOST_4, 80);
            let held: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(to)).collect();
            drop(held);
        });
        let visitor = Question {
            path: "/wp-login.php".to_owned(),
            ..question(NEIGHBOUR, TOKEN)
        };
        host.outside(move || visitor.ask());
        let asked = [GEO, POLICY, LIMIT, EARLY, LATE, V6];
        for from in asked {
            assert_eq!(ask(&host, from), Some(200), "{from}");
        }
        wait_for(SOON * 5, "all of the flood", || {
            let seen = last(&daemon).evidence.packets;
            (seen >= u64::from(SOURCES)).then_some(())
        });
        let closed = daemon.cli(&["close", "--lease", "certbot-1"]).success();
        assert!(closed.stdout.contains("6 networks came"), "{closed}");
        assert!(closed.stdout.contains("evidence is incomplete"), "{closed}");
        let record = last(&daemon);
        assert_eq!(record.assessment.outcome, Outcome::Answered, "{closed}");
        assert_eq!(record.assessment.answered, 6);
        assert!(record.sources.len() <= acmegate::observe::record::MAX_SOURCES);
        for from in asked {
            assert_eq!(source(&record, from).role, Role::Validator, "{from}");
        }
        let visitor = source(&record, NEIGHBOUR);
        assert_eq!((visitor.role, visitor.visits.len()), (Role::Visitor, 1));
    });
}
