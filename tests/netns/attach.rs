//! One rule of ours at the head of somebody else's chain: it opens what a window opens, comes back
//! when it is taken away, and goes without a trace.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::{HOST_PRIVATE, Host};
use crate::kernel::nft;
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, inside, ruleset, run, wait_for};

const BACK: Duration = Duration::from_secs(5);
const ATTACH: &str = "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n";
const RULE: &str = "meta mark & 0x08000000 == 0x08000000 accept comment \"acmegate\"";

fn gaps(daemon: &Daemon) -> u64 {
    daemon.status()["firewall"]["gaps"]
        .as_u64()
        .expect("a number")
}

#[test]
fn one_rule_opens_a_chain_that_drops_and_goes_without_a_trace() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let before = ruleset();
        let daemon = Daemon::start(ATTACH);
        let attached = nft(&["-s", "list", "chain", "inet", "filter", "input"]);
        assert_eq!(attached.matches(RULE).count(), 1, "{attached}");
        let first = attached.lines().nth(3).expect("a rule");
        assert_eq!(first.trim(), RULE, "at the head: {attached}");
        assert!(!host.is_open(80), "shut while no window is open");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        assert!(host.lets_in(80));
        assert!(!host.is_open(443) && !host.is_open(22), "80 alone");
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        daemon.cli(&["firewall", "remove"]).success();
        assert_eq!(ruleset(), before);
        daemon.cli(&["firewall", "apply"]).success();
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        assert!(host.lets_in(80));
    });
}

#[test]
fn a_stop_and_a_remove_by_hand_leave_no_trace() {
    inside(|| {
        let _host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let before = ruleset();
        let mut daemon = Daemon::start(ATTACH);
        assert_ne!(ruleset(), before);
        assert_eq!(daemon.terminate(), 0);
        assert_eq!(ruleset(), before);
        daemon.start_again();
        daemon.kill();
        daemon.cli(&["firewall", "remove"]).success();
        assert_eq!(ruleset(), before);
        // What a run with another configuration left is swept by the next.
        daemon.start_again();
        daemon.kill();
        daemon.write_config("[firewall]\nmode = \"guard\"\n");
        daemon.start_again();
        assert!(!ruleset().contains(RULE), "{}", ruleset());
    });
}

#[test]
fn a_chain_that_is_no_longer_named_loses_our_rule_at_a_reload() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        lab::nft(
            "table inet other {
            chain input { type filter hook input priority 10; policy accept; }
            }",
        );
        let before = ruleset();
        let both = ATTACH.replace("input\"]", "input\", \"inet other input\"]");
        let daemon = Daemon::start(&both);
        let rules = || ruleset().matches(RULE).count();
        assert_eq!(rules(), 2);
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        daemon.write_config(ATTACH);
        daemon.signal(rustix::process::Signal::HUP);
        wait_for(BACK, "the rule is gone", || (rules() == 1).then_some(()));
        let attached = nft(&["-s", "list", "chain", "inet", "filter", "input"]);
        assert!(attached.contains(RULE), "{attached}");
        assert!(host.lets_in(80), "the window goes on");
        daemon.write_config(&both);
        daemon.signal(rustix::process::Signal::HUP);
        wait_for(BACK, "the rule is back", || (rules() == 2).then_some(()));
        daemon.cli(&["firewall", "remove"]).success();
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn what_somebody_takes_away_comes_back_with_the_time_that_is_left() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let daemon = Daemon::start(&format!("{ATTACH}owner = \"never\"\n"));
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        let whole = ruleset_without_elements();
        let ways: [(&str, &dyn Fn()); 4] = [
            ("a reload of everything", &|| {
                lab::nft(&format!("flush ruleset\n{SET_BY_ADMINISTRATOR}"));
            }),
            ("a reload in two steps", &|| {
                lab::nft("flush ruleset");
                lab::nft(SET_BY_ADMINISTRATOR);
            }),
            ("a flushed chain", &|| {
                lab::nft(
                    "flush chain inet filter input
                    table inet filter { chain input {
                        iif lo accept
                        meta l4proto icmpv6 accept
                        ct state established,related accept
                        ip saddr 10.0.0.0/8 accept
                        tcp dport @acmegate accept
                    }
                    }",
                );
            }),
            ("our table alone", &|| {
                lab::nft("delete table inet acmegate")
            }),
        ];
        for (round, (what, take_away)) in ways.into_iter().enumerate() {
            take_away();
            wait_for(BACK, what, || {
                (ruleset_without_elements() == whole).then_some(())
            });
            wait_for(BACK, "it is counted, once", || {
                (gaps(&daemon) == round as u64 + 1).then_some(())
            });
            assert!(host.lets_in(80), "{what}");
        }
        let told = daemon.log().matches("was taken away and is back").count();
        assert_eq!(told, 4, "{}", daemon.log());
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        daemon.cli(&["firewall", "remove"]).success();
        assert!(!ruleset().contains("acmegate\""), "{}", ruleset());
    });
}

/// A set that is not there is listed in another order than one that was made before.
fn ruleset_without_elements() -> String {
    let tables = [["inet", "filter"], ["inet", "acmegate"]];
    tables
        .into_iter()
        .map(|table| {
            let mut command = Command::new("nft");
            command.args(["-s", "-t", "list", "table"]).args(table);
            run(command, BACK).stdout
        })
        .collect()
}

#[test]
fn the_other_chains_are_attached_to_where_one_is_missing() {
    inside(|| {
        let _host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let second = "table inet other { chain input { type filter hook input priority 1; }; }";
        lab::nft(second);
        let daemon = Daemon::start(
            "[firewall]\nmode = \"attach\"\nchains = [\"inet other input\", \"inet filter input\"]\n",
        );
        let rules = || ruleset().matches(RULE).count();
        assert_eq!(rules(), 2);
        lab::nft("delete table inet other");
        lab::nft("flush chain inet filter input");
        wait_for(BACK, "the one that is there has it back", || {
            (rules() == 1).then_some(())
        });
        wait_for(BACK, "and the other is said to be missing", || {
            let problems = daemon.status()["problems"].to_string();
            problems
                .contains("`inet other input` of [firewall] chains does not exist")
                .then_some(())
        });
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 78, "{refused}");
        lab::nft(second);
        wait_for(BACK, "both, and all is well", || {
            let is_well = daemon.status()["problems"] == serde_json::json!([]);
            (rules() == 2 && is_well).then_some(())
        });
        daemon.cli(&["open", "--lease", "a"]).success();
    });
}

#[test]
fn what_cannot_be_attached_to_is_said_with_the_way_out() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        lab::nft(
            "table ip nat { chain pre { type nat hook prerouting priority dstnat; }
            chain out { type filter hook output priority 0; }
            chain early { type filter hook prerouting priority -310; }
            }",
        );
        for (chain, word) in [
            ("inet filter nothere", "does not exist"),
            ("inet nothere input", "does not exist"),
            ("ip nat pre", "would open nothing"),
            ("ip nat out", "would open nothing"),
            ("ip nat early", "before acmegate has marked"),
        ] {
            let config = format!("[firewall]\nmode = \"attach\"\nchains = [\"{chain}\"]\n");
            let mut daemon = Daemon::start(&config);
            let refused = daemon.cli(&["open", "--lease", "a"]);
            assert_eq!(refused.code, 78, "{chain}: {refused}");
            assert!(refused.stderr.contains(word), "{refused}");
            let status = daemon.status();
            assert_eq!(status["firewall"]["installed"], false);
            assert!(
                status["problems"][0]
                    .as_str()
                    .is_some_and(|text| text.contains(word))
            );
            assert!(!host.is_open(80));
            assert_eq!(daemon.terminate(), 0);
            let by_hand = daemon.cli(&["firewall", "apply"]);
            assert_eq!(by_hand.code, 78, "{chain}: {by_hand}");
            assert!(by_hand.stderr.contains(word), "{by_hand}");
            daemon.cli(&["firewall", "remove"]).success();
        }
    });
}

#[test]
fn a_fight_is_told_and_not_fought_for_ever() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let daemon = Daemon::start(ATTACH);
        let rounds = || gaps(&daemon);
        let fighting = || {
            let problems = daemon.status()["problems"].to_string();
            problems
                .contains("as often as it is put back")
                .then_some(())
        };
        let start = Instant::now();
        while fighting().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", rounds());
            lab::nft("flush ruleset");
            lab::nft(SET_BY_ADMINISTRATOR);
            // Its rule is back, or it is not any more: either way the next round comes.
            wait_for(BACK, "an answer to a flush", || {
                (ruleset().contains(RULE) || fighting().is_some()).then_some(())
            });
        }
        // Truce: nothing is put back for a while, nothing opens, and it is said why.
        assert!(!ruleset().contains(RULE));
        assert_eq!(
            daemon.log().matches("as often as it is put back").count(),
            1
        );
        assert!(!host.is_open(80));
        // Once the other side rests it is put back, by itself.
        wait_for(
            Duration::from_secs(30),
            "it is back after the truce",
            || ruleset().contains(RULE).then_some(()),
        );
        wait_for(BACK, "and the status says so", || {
            (daemon.status()["firewall"]["installed"] == true).then_some(())
        });
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
    });
}

#[test]
fn what_iptables_saves_and_restores_in_a_window_opens_nothing_else() {
    inside(|| {
        let host = Host::new();
        let sh = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-ec", script]);
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            run(command, Duration::from_secs(20)).success().stdout
        };
        for program in ["iptables-nft", "ip6tables-nft"] {
            sh(&format!(
                "{program} -P INPUT DROP
                {program} -A INPUT -i lo -j ACCEPT
                {program} -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
                {program} -A INPUT -p icmpv6 -j ACCEPT 2>/dev/null || :"
            ));
        }
        sh("iptables-nft -A INPUT -s 10.0.0.0/8 -j ACCEPT");
        let before = ruleset();
        let daemon = Daemon::start(
            "[firewall]\nmode = \"attach\"\nchains = [\"ip filter INPUT\", \"ip6 filter INPUT\"]\n",
        );
        assert!(!host.is_open(80));
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        assert!(host.lets_in(80));
        let saved = sh("iptables-nft-save -t filter");
        let rule =
            "-A INPUT -m mark --mark 0x8000000/0x8000000 -m comment --comment acmegate -j ACCEPT";
        assert!(saved.contains(rule), "{saved}");
        for _ in 0..3 {
            for program in ["iptables-nft", "ip6tables-nft"] {
                sh(&format!(
                    "{program}-save > saved.$$ && {program}-restore < saved.$$ && rm saved.$$"
                ));
            }
            assert!(host.lets_in(80));
            for port in [22, 81, 443, 8080] {
                assert!(!host.is_open(port), "{port}");
            }
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        // What is restored when nothing is open opens nothing.
        sh("iptables-nft-save > saved.$$ && iptables-nft-restore < saved.$$ && rm saved.$$");
        assert!(!host.is_open(80));
        daemon.cli(&["firewall", "remove"]).success();
        assert!(!ruleset().contains("0x08000000"), "{}", ruleset());
        let own = |text: &str| text.matches("acmegate").count();
        assert_eq!(own(&ruleset()), own(&before));
    });
}

/// A ban, a script, a container's rules: whoever comes later stands before everybody else.
#[test]
fn what_somebody_puts_before_our_rule_is_behind_it_soon() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let daemon = Daemon::start(ATTACH);
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        for round in 1..=3 {
            lab::nft("insert rule inet filter input tcp dport 80 drop");
            wait_for(BACK, "at the head again", || {
                let chain = nft(&["-s", "list", "chain", "inet", "filter", "input"]);
                let first = chain.lines().nth(3)?.trim() == RULE;
                (first && chain.matches(RULE).count() == 1).then_some(())
            });
            assert!(host.lets_in(80));
            wait_for(BACK, "it is counted", || {
                (gaps(&daemon) == round).then_some(())
            });
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
    });
}

/// Our rule is known by what it says as well as by its comment.
#[test]
fn what_an_administrator_calls_by_our_name_stays_theirs() {
    inside(|| {
        let _host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        lab::nft(
            "add rule inet filter input tcp dport 22 accept comment \"acmegate\"
            add rule inet filter input meta mark & 0x4 == 0x4 tcp dport 22 accept comment \"acmegate\"
            table inet other { chain c { meta mark 0x1 drop comment \"acmegate\"; }
            }",
        );
        let sh = |words: &str| {
            let mut command = Command::new("iptables-nft");
            command.args(words.split(' '));
            run(command, Duration::from_secs(20)).success();
        };
        sh("-A INPUT -p tcp --dport 80 -m comment --comment acmegate -j ACCEPT");
        sh("-A INPUT -m mark --mark 0x1/0x1 -m comment --comment before-acmegate -j ACCEPT");
        sh("-A INPUT -m mark --mark 0x2/0x2 -m comment --comment acmegate-2 -j ACCEPT");
        let before = ruleset();
        let config = "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\", \"ip filter INPUT\"]\n";
        let mut daemon = Daemon::start(config);
        for line in before.lines().filter(|line| line.contains("acmegate")) {
            assert!(ruleset().contains(line), "{line}: {}", ruleset());
        }
        assert_eq!(daemon.terminate(), 0);
        assert_eq!(ruleset(), before);
    });
}

/// A CA of one's own stands on the allow-list, and the chain that drops knows nothing of that.
#[test]
fn a_window_is_open_to_private_networks_too() {
    inside(|| {
        let host = Host::new();
        lab::nft(&SET_BY_ADMINISTRATOR.replace("ip saddr 10.0.0.0/8 accept", ""));
        let daemon = Daemon::start(ATTACH);
        let private = || host.probe(HOST_PRIVATE, 80).passed();
        assert!(!private(), "the chain drops them");
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
        assert!(private());
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!private());
    });
}

/// Who sets the whole mark takes ours away: then nothing is promised. Who brings a connection's own
/// mark back does not, for that bears our bit as well.
#[test]
fn a_mark_that_somebody_erases_is_no_open_window() {
    inside(|| {
        let host = Host::new();
        lab::nft(SET_BY_ADMINISTRATOR);
        let policy_routing = |rule: &str| {
            lab::nft(&format!(
                "table inet routing
                delete table inet routing
                table inet routing {{ chain pre {{
                    type filter hook prerouting priority mangle; policy accept;
                    {rule}
                }}
                }}"
            ));
        };
        let daemon = Daemon::start(ATTACH);
        for (rule, passes) in [
            ("meta mark set 0x1", false),
            ("meta mark set meta mark | 0x1", true),
            ("meta mark set ct mark", true),
        ] {
            policy_routing(rule);
            let opened = daemon.cli(&["open", "--lease", "a"]);
            assert_eq!(opened.code == 0, passes, "{rule}: {opened}");
            if passes {
                assert!(host.lets_in(80), "{rule}");
            } else {
                let word = "its mark does not arrive";
                assert!(opened.stderr.contains(word), "{opened}");
            }
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(!host.is_open(80), "{rule}");
        }
    });
}
