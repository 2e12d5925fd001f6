//! What the command line promises about the kernel, and how it says no.

use crate::host::{HOST_4, HOST_6, Host, Seen};
use crate::kernel::{SHUT, elements, nft, open_ports};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, inside, ruleset};

const POLICY_DROP: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        meta l4proto icmpv6 accept
        tcp dport 22 accept
    }
}
";

#[test]
fn open_never_says_open_behind_a_chain_that_drops() {
    inside(|| {
        let host = Host::new();
        lab::nft(POLICY_DROP);
        let daemon = Daemon::start("");
        for more in [&["--dry-run"][..], &[]] {
            let refused = daemon.cli(&[&["open", "--lease", "a"], more].concat());
            assert_eq!(refused.code, 78, "{refused}");
            for word in ["inet filter input", "mode `set`"] {
                assert!(refused.stderr.contains(word), "{word}: {refused}");
            }
            assert_eq!(open_ports(), SHUT);
            assert_eq!(daemon.status()["leases"], serde_json::json!([]));
            assert_eq!(daemon.status()["budget"]["used"], 0);
        }
        assert!(!host.is_open(80));
        // As soon as that chain lets it pass, so does the answer.
        nft(&[
            "insert", "rule", "inet", "filter", "input", "tcp", "dport", "80", "accept",
        ]);
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
    });
}

#[test]
fn a_dry_run_changes_nothing() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let before = ruleset();
        let said = daemon.cli(&["open", "--dry-run", "--lease", "a"]).success();
        assert!(said.stdout.starts_with("would open: tcp 80"), "{said}");
        assert_eq!(ruleset(), before);
        assert!(!host.is_open(80));
        assert_eq!(daemon.status()["budget"]["used"], 0);
        // The control.
        let said = daemon.cli(&["open", "--lease", "a"]).success();
        assert!(said.stdout.starts_with("open: tcp 80"), "{said}");
        assert_ne!(ruleset(), before);
        // Nor does it change a lease that is there.
        let left = elements("lease").into_values().next();
        daemon
            .cli(&["open", "--dry-run", "--lease", "a", "--for", "1s"])
            .success();
        let now = elements("lease").into_values().next();
        assert_eq!(
            now.map(|lease| lease.comment),
            left.map(|lease| lease.comment)
        );
        assert!(elements("window4")[&80].seconds_left > Some(500));
    });
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_bound() {
    inside(|| {
        let _host = Host::new();
        let mut daemon = Daemon::start("[window]\nmax = \"2m\"\n");
        for (arguments, word) in [
            (&["open", "--for", "121s"][..], "2m"),
            (&["open", "--for", "24h"], "2m"),
            (&["open", "--port", "22"], "[80]"),
            (&["open", "--lease", "a/b"], "lease name"),
            (&["open", "--identifier", "127.1"], "127.1"),
        ] {
            let refused = daemon.cli(arguments);
            assert_eq!(refused.code, 65, "{arguments:?}: {refused}");
            assert!(refused.stderr.contains(word), "{arguments:?}: {refused}");
        }
        assert_eq!(open_ports(), SHUT);
        daemon.cli(&["open", "--for", "2m"]).success();
        daemon.kill();
        for arguments in [
            &["open"][..],
            &["close"],
            &["status"],
            &["status", "--json"],
        ] {
            let refused = daemon.cli(arguments);
            assert_eq!(refused.code, 69, "{arguments:?}: {refused}");
            assert!(refused.stderr.contains("not running"), "{refused}");
        }
    });
}

#[test]
fn a_second_daemon_refuses_and_leaves_the_first_alone() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let rules = nft(&["-s", "-t", "list", "ruleset"]);
        let mut same_place = daemon.command();
        same_place.arg("run");
        let refused = lab::run(same_place, std::time::Duration::from_secs(10));
        assert_eq!(refused.code, 75, "{refused}");
        assert!(
            refused.stderr.contains("another acmegate runs already"),
            "{refused}"
        );
        // In another directory it stands in its way by the ruleset, whoever owns the table, and one
        // that leaves the ruleset alone by its port.
        for owner in ["auto", "never"] {
            let config =
                format!("[http]\nlisten = []\n[firewall]\nports = [80]\nowner = \"{owner}\"\n");
            let refused = Daemon::with(&config).refuse();
            assert_eq!(refused.code, 75, "{refused}");
            let word = "has its part of this host's ruleset; only one can";
            assert!(refused.stderr.contains(word), "{refused}");
            assert_eq!(refused.stderr.lines().count(), 1, "one line: {refused}");
        }
        let alone = format!("[firewall]\n{SETTINGS_OF_NOBODY}");
        let refused = Daemon::with(&alone).refuse();
        assert_eq!(refused.code, 71, "{refused}");
        assert!(refused.stderr.contains("holds port 80"), "{refused}");
        assert_eq!(nft(&["-s", "-t", "list", "ruleset"]), rules);
        assert_eq!(daemon.status()["leases"][0]["name"], "a");
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
    });
}

#[test]
fn what_is_planned_is_what_is_applied() {
    inside(|| {
        let host = Host::new();
        let settings = [
            "owner = \"never\"\n",
            "owner = \"never\"\nports = [80, 443]\n[allow]\nprefixes = [\"198.51.100.0/24\", \"2001:db8:9::/48\"]\n",
            "owner = \"never\"\n[allow]\nlocal = false\n",
            "owner = \"never\"\nclosed = \"reject\"\n",
            "owner = \"never\"\nclosed = { ipv4 = \"reject\", ipv6 = \"drop\" }\n",
            "owner = \"never\"\n[http]\nlisten = \"divert\"\n",
            "owner = \"never\"\nclosed = { ipv4 = \"reject\", ipv6 = \"pass\" }\n[http]\nlisten = \"divert\"\n",
            "owner = \"never\"\nmode = \"set\"\nset = \"inet filter acmegate\"\n",
            "owner = \"never\"\nmode = \"set\"\nset = \"inet filter acmegate\"\nclosed = \"reject\"\n[http]\nlisten = \"divert\"\n",
        ];
        for settings in settings {
            let mut daemon = Daemon::start(&format!("[firewall]\n{SETTINGS_OF_NOBODY}"));
            daemon.terminate();
            daemon.write_config(&format!("[firewall]\n{settings}"));
            lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
            let before = ruleset();
            let plan = daemon.cli(&["firewall", "plan"]).success().stdout;
            assert_eq!(ruleset(), before, "planning is not doing");
            lab::nft(&plan);
            let planned = ruleset();
            assert_ne!(planned, before);
            lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
            daemon.cli(&["firewall", "apply"]).success();
            assert_eq!(ruleset(), planned);
            let answers = ["reject", "pass"]
                .iter()
                .any(|word| settings.contains(word));
            assert!(answers || !host.is_open(80));
            // Again is the same; a daemon takes it over as it is.
            daemon.cli(&["firewall", "apply"]).success();
            assert_eq!(ruleset(), planned);
            daemon.start_again();
            assert_eq!(ruleset(), planned);
            daemon.kill();
            daemon.cli(&["firewall", "remove"]).success();
            assert_eq!(ruleset(), before);
            daemon.cli(&["firewall", "remove"]).success();
        }
    });
}

/// So that directories are made, and nothing else.
const SETTINGS_OF_NOBODY: &str = "mode = \"gate-only\"\n";

#[test]
fn a_running_daemon_is_asked_to_remove_and_to_apply() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let installed = ruleset();
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["firewall", "remove"]).success();
        assert_eq!(ruleset(), "");
        assert_eq!(daemon.status()["leases"], serde_json::json!([]));
        let problems = daemon.status()["problems"].to_string();
        assert!(problems.contains("firewall remove"), "{problems}");
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 71, "{refused}");
        assert!(refused.stderr.contains("firewall apply"), "{refused}");
        // Shut in the gate itself: somebody is there, and has nothing to say.
        assert_eq!(answer(&host), "");
        daemon.cli(&["firewall", "apply"]).success();
        let text = nft(&["-s", "-t", "list", "ruleset"]);
        assert_eq!(
            text.contains("flags owner"),
            installed.contains("flags owner")
        );
        assert!(!host.is_open(80));
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
        assert!(answer(&host).starts_with("HTTP/1.1 "));
    });
}

/// What the gate answers to a foreign peer that connects.
fn answer(host: &Host) -> String {
    use std::io::{Read, Write};
    let mut peer = host.connect(HOST_4, 80);
    let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n");
    let mut answer = String::new();
    let _ = peer.read_to_string(&mut answer);
    answer
}

/// Modes, and the answer to `open`, where something else than the gate listens on the port.
#[test]
fn open_warns_when_somebody_else_listens_on_the_port() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[http]\nlisten = []\n[firewall]\nports = [80]\n");
        let ours = format!("(pid {})", std::process::id());
        let open = |more: &[&str]| daemon.cli(&[&["open", "--lease", "a"], more].concat());
        // Nobody is there yet.
        assert_eq!(open(&["--dry-run"]).success().stderr, "");
        let site = std::net::TcpListener::bind("0.0.0.0:80").expect("the port is free");
        for more in [&["--dry-run"][..], &[], &["--quiet"]] {
            let said = open(more).success();
            for words in [ours.as_str(), "answers on port 80, not the gate"] {
                assert!(said.stderr.contains(words), "{words}: {said}");
            }
            assert_eq!(said.stderr.lines().count(), 1, "{said}");
        }
        // It does what it warns of.
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        drop(site);
        drop(daemon);
        // And where the gate itself is there, nothing is to be said.
        let daemon = Daemon::start("");
        let said = daemon.cli(&["open", "--lease", "a"]).success();
        assert_eq!(said.stderr, "");
    });
}

#[test]
fn a_lease_may_be_for_one_family_alone() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        for (family, v4, v6) in [("ipv4", true, false), ("ipv6", false, true)] {
            let words = ["open", "--lease", "a", "--family", family];
            daemon.cli(&words).success();
            for (address, passes) in [(HOST_4, v4), (HOST_6, v6)] {
                let seen = host.probe(address, 80);
                assert_eq!(seen.passed(), passes, "{family}, {address}");
            }
        }
        // And for as long as the cap says, if nobody says.
        let left = elements("window6")[&80].seconds_left.expect("a timeout");
        assert!((590..=600).contains(&left), "{left}");
    });
}

#[test]
fn what_may_be_in_the_way_is_said_and_no_failure() {
    inside(|| {
        let host = Host::new();
        lab::nft(
            "table inet filter {
    set banned { type ipv4_addr; elements = { 203.0.113.9 } }
    chain input {
        type filter hook input priority filter; policy accept;
        ip saddr @banned drop
    }
}
",
        );
        let daemon = Daemon::start("");
        for more in [&["--dry-run"][..], &[]] {
            let said = daemon.cli(&[&["open", "--lease", "a"], more].concat());
            let said = said.success();
            for words in ["warning: in the way of some packets", "inet filter input"] {
                assert!(said.stderr.contains(words), "{words}: {said}");
            }
        }
        assert!(host.is_open(80));
    });
}
