//! The doctor's findings by the twin: the world knocks, with the window shut and open.

use std::path::Path;

use acmegate::config::lists::Lists;
use acmegate::config::{Config, Unchecked};
use acmegate::daemon::parts::AnyAccount;
use acmegate::doctor::case::Case;
use acmegate::doctor::finding::{Exam, Severity};
use acmegate::doctor::twin::{Source, examine_by};

use crate::lab::BINARY;
use crate::world::{World, inside};

impl World {
    fn examined(&self, config: &str) -> Exam {
        let config =
            Config::parse(config, "case", &AnyAccount, &Unchecked).expect("a configuration");
        let allow = Lists::read(&config.allow).expect("its lists").list();
        let case = Case {
            config,
            allow,
            runtime_dir: "/nowhere".into(),
            names: Vec::new(),
            is_root: true,
        };
        self.block_on(examine_by(Path::new(BINARY), &case, Source::Live))
    }
}

fn told(exam: &Exam) -> Vec<(&'static str, Severity)> {
    let findings = exam.findings.iter();
    findings
        .map(|finding| (finding.code.word, finding.severity))
        .collect()
}

const GUARD: &str = "[firewall]\nports = [80]\nmode = \"guard\"\n";
const SET: &str = "[firewall]\nports = [80]\nmode = \"set\"\nset = \"inet filter acmegate\"\n";

#[test]
fn what_shuts_the_world_out_is_found_and_named() {
    let name = "twin::exam::what_shuts_the_world_out_is_found_and_named";
    inside(name, |world| {
        world.nft(include_str!("../../data/rulesets/plain-drop.nft"));
        let exam = world.examined(GUARD);
        let fault = ("proved-dropped", Severity::Fault);
        assert_eq!(told(&exam), [fault, fault], "{exam:?}");
        assert_eq!(exam.not_covered, Vec::<String>::new());
        let finding = &exam.findings[0];
        assert_eq!(
            finding.finding,
            "TCP port 80 is shut to the whole world over IPv4 while a window is open"
        );
        assert_eq!(
            finding.evidence[0],
            "from 23.20.30.40 (North America) to 192.0.2.1 by eth0: dropped by inet filter input: its policy drop"
        );
        // As many as anybody reads, of twenty addresses.
        assert_eq!(finding.evidence.len(), 6, "{finding:?}");
        assert!(finding.remedy[0].contains("mode `attach`"), "{finding:?}");
        assert!(
            finding.remedy[1].contains("`acmegate explain 23.20.30.40 80 "),
            "{finding:?}"
        );

        // IPv6 forgotten.
        world.nft(
            "table inet filter { chain input { type filter hook input priority 0; policy drop;
                meta nfproto ipv4 tcp dport 80 accept
            }\n }",
        );
        let doubt = ("proved-dropped", Severity::Doubt);
        let fine = ("proved-passes", Severity::Fine);
        assert_eq!(told(&world.examined(GUARD)), [fine, doubt]);
    });
}

#[test]
fn what_is_handed_over_is_no_fault_and_not_seen() {
    let name = "twin::exam::what_is_handed_over_is_no_fault_and_not_seen";
    inside(name, |world| {
        // This may be a kernel without `queue`, of which the same is said.
        world.nft(include_str!("../../data/rulesets/gallery/synproxy.nft"));
        let exam = world.examined(GUARD);
        assert_eq!(told(&exam), [], "{exam:?}");
        let lines = exam.not_covered.iter();
        let of_both = lines.filter(|line| line.contains("synproxy"));
        assert_eq!(of_both.count(), 2, "{exam:?}");
    });
}

#[test]
fn a_country_alone_is_not_the_world() {
    inside("twin::exam::a_country_alone_is_not_the_world", |world| {
        world.nft(
            "table inet geo { chain in { type filter hook prerouting priority -10; policy accept;
                ip saddr { 85.0.0.0/8, 193.0.0.0/8 } accept
                ip6 saddr 2a00::/12 accept
                tcp dport 80 drop
            }\n }",
        );
        let exam = world.examined(GUARD);
        let fault = ("proved-dropped-for-some", Severity::Fault);
        assert_eq!(told(&exam), [fault, fault], "{exam:?}");
        assert!(
            exam.findings[0]
                .finding
                .ends_with("North America, Asia and Pacific, Latin America, Africa"),
            "{exam:?}"
        );
    });
}

#[test]
fn an_open_port_behind_a_window_is_a_doubt() {
    inside(
        "twin::exam::an_open_port_behind_a_window_is_a_doubt",
        |world| {
            let set = "table inet filter {
            set acmegate { type inet_service; flags timeout; }
            chain input { type filter hook input priority 0; policy POLICY;
                tcp dport @acmegate accept
            }\n }";
            world.nft(&set.replace("POLICY", "drop"));
            let fine = ("proved-passes", Severity::Fine);
            assert_eq!(told(&world.examined(SET)), [fine, fine]);
            world.nft(&set.replace("POLICY", "accept"));
            let open = ("proved-open-without-a-window", Severity::Doubt);
            assert_eq!(told(&world.examined(SET)), [fine, fine, open, open]);
        },
    );
}

#[test]
fn who_is_listed_and_shut_out_is_told() {
    inside("twin::exam::who_is_listed_and_shut_out_is_told", |world| {
        world.nft(
            "table inet filter { chain input { type filter hook input priority 0; policy accept;
                ip saddr 85.0.0.0/8 tcp dport 80 drop
            }\n }",
        );
        let exam = world.examined(&format!("{GUARD}[allow]\nprefixes = [\"85.30.0.0/16\"]\n"));
        let codes = told(&exam);
        assert!(
            codes.contains(&("proved-listed-dropped", Severity::Doubt)),
            "{exam:?}"
        );
    });
}

/// Of ten networks a quorum forgives two, and no third one: on the way in, and on the answers' way out.
#[test]
fn what_a_quorum_forgives_is_a_doubt() {
    inside("twin::exam::what_a_quorum_forgives_is_a_doubt", |world| {
        let some = |severity, v4: &str, v6: &str| {
            for (hook, whose, port, code) in [
                ("prerouting", "saddr", "dport", "proved-dropped-for-some"),
                ("output", "daddr", "sport", "proved-answers-dropped"),
            ] {
                world.nft(&format!(
                    "table inet geo {{ chain some {{ type filter hook {hook} priority -10; policy accept;
                        ip {whose} {{ {v4} }} tcp {port} 80 drop
                        ip6 {whose} {{ {v6} }} tcp {port} 80 drop
                    }}\n }}"
                ));
                let found = (code, severity);
                assert_eq!(told(&world.examined(GUARD)), [found, found], "{hook} {v4}");
            }
        };
        some(
            Severity::Doubt,
            "85.0.0.0/8, 110.0.0.0/8",
            "2a00::/12, 2400::/12",
        );
        some(
            Severity::Fault,
            "85.0.0.0/8, 110.0.0.0/8, 41.0.0.0/8",
            "2a00::/12, 2400::/12, 2c00::/12",
        );
    });
}

#[test]
fn what_passes_to_another_port_is_told() {
    inside("twin::exam::what_passes_to_another_port_is_told", |world| {
        world.nft(
            "table ip nat { chain in { type nat hook prerouting priority dstnat; policy accept;
                tcp dport 80 redirect to :8080
            }\n }",
        );
        let exam = world.examined(GUARD);
        let fine = ("proved-passes", Severity::Fine);
        let elsewhere = ("proved-elsewhere", Severity::Doubt);
        assert_eq!(told(&exam), [elsewhere, fine, fine], "{exam:?}");
        let seen = &exam.findings[0].evidence[0];
        assert!(seen.ends_with("delivered to 192.0.2.1 port 8080"), "{seen}");
    });
}

/// Nobody's rule: strict reverse paths, and no way back to the world.
#[test]
fn what_routing_loses_is_no_rules_fault() {
    inside(
        "twin::exam::what_routing_loses_is_no_rules_fault",
        |world| {
            world.nft("");
            for half in ["0.0.0.0/1", "128.0.0.0/1"] {
                crate::lab::ip(&format!("route add blackhole {half}"));
            }
            std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("a switch");
            let exam = world.examined(GUARD);
            // By IPv6 a CA gets through.
            let lost = ("proved-lost", Severity::Doubt);
            let fine = ("proved-passes", Severity::Fine);
            assert_eq!(told(&exam), [lost, fine], "{exam:?}");
            let seen = &exam.findings[0].evidence[0];
            assert!(seen.contains("rp_filter"), "{seen}");
        },
    );
}

/// Whoever knocks from the list is no stranger, and what is open on purpose is no doubt.
#[test]
fn what_is_meant_to_be_open_is_no_finding() {
    inside(
        "twin::exam::what_is_meant_to_be_open_is_no_finding",
        |world| {
            world.nft("");
            let fine = ("proved-passes", Severity::Fine);
            let listed = format!("{GUARD}[allow]\nprefixes = [\"23.0.0.0/8\", \"2600::/12\"]\n");
            let exam = world.examined(&listed);
            assert_eq!(told(&exam), [fine, fine], "{exam:?}");
            assert!(
                exam.looked_at[0].ends_with("with the window shut and open"),
                "{exam:?}"
            );
            let gate_only = world.examined("[firewall]\nmode = \"gate-only\"\n");
            assert_eq!(told(&gate_only), [fine, fine], "{gate_only:?}");
            assert!(
                gate_only.looked_at[0].ends_with("with the window open"),
                "{gate_only:?}"
            );
        },
    );
}

/// Without our own part no window opens, and that is told as what was not examined.
#[test]
fn without_our_part_nothing_is_proved() {
    inside("twin::exam::without_our_part_nothing_is_proved", |world| {
        world.nft("table inet filter { chain input { type filter hook input priority 0; policy drop; }\n }");
        let exam = world.examined(SET);
        assert_eq!(exam.findings, [], "{exam:?}");
        let told = exam.not_covered.join("\n");
        assert!(told.contains("acmegate's own part: "), "{told}");
    });
}

/// A host may well be shut at one of its addresses.
#[test]
fn one_open_door_is_enough() {
    inside("twin::exam::one_open_door_is_enough", |world| {
        crate::lab::ip("addr add 192.0.2.77/24 dev eth0");
        let fine = ("proved-passes", Severity::Fine);
        for shut in ["192.0.2.1", "192.0.2.77"] {
            world.nft(&format!(
                "table ip filter {{ chain input {{ type filter hook input priority 0; policy accept;
                    ip daddr {shut} tcp dport 80 drop
                }}\n }}"
            ));
            let exam = world.examined(GUARD);
            assert_eq!(told(&exam), [fine, fine], "{shut}: {exam:?}");
        }
    });
}

/// Whose the socket is that answers cannot be copied: where a rule asks for it before all is decided, that is said.
#[test]
fn what_asks_whose_the_socket_is_cannot_be_told() {
    let name = "twin::exam::what_asks_whose_the_socket_is_cannot_be_told";
    inside(name, |world| {
        let out = |rules: &str| {
            format!(
                "table inet outward {{
                    chain own {{ meta skuid 12345 accept
                    }}
                    chain out {{
                        type filter hook output priority 0; policy drop;
                        {rules}
                    }}
                }}\n"
            )
        };
        let answers = "ct state established,related accept";
        for (rules, is_told) in [
            ("meta skuid 12345 accept", false),
            ("meta skgid 12345 accept", false),
            ("meta cgroup 7 accept", false),
            ("socket wildcard 1 accept", false),
            ("meta mark 7 accept", true),
            ("jump own", false),
            ("tcp sport 81 jump own", true),
            (&format!("meta skuid 12345 drop\n{answers}"), false),
            (&format!("{answers}\nmeta skuid 12345 accept"), true),
            (&format!("tcp sport 80 goto own\n{answers}"), false),
            ("tcp sport 80 drop\njump own", true),
        ] {
            world.nft(&out(rules));
            let exam = world.examined(GUARD);
            let said = exam.not_covered.iter();
            let said = said.filter(|line| {
                line.starts_with("what becomes of the answers from TCP port 80 over IPv")
                    && line.contains("a rule asks whose the socket is")
            });
            assert_eq!(
                said.count(),
                if is_told { 0 } else { 2 },
                "{rules}: {exam:?}"
            );
            let is_dropped = told(&exam).contains(&("proved-answers-dropped", Severity::Fault));
            let drops = is_told && !rules.contains(answers);
            assert_eq!(is_dropped, drops, "{rules}: {exam:?}");
        }
        // As iptables has them, which is of one family.
        for (by, is_told) in [("owner --uid-owner 0", false), ("mark --mark 7", true)] {
            world.iptables(&format!(
                "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n\
                 -A OUTPUT -m {by} -j ACCEPT\nCOMMIT\n"
            ));
            let exam = world.examined(GUARD);
            let said = exam.not_covered.iter();
            let is_said = |line: &&String| line.contains("a rule asks whose the socket is");
            let count = said.filter(is_said).count();
            assert_eq!(count, usize::from(!is_told), "{by}: {exam:?}");
        }
    });
}

/// A host that lets everybody in, and has no way back to them.
#[test]
fn where_no_answer_leaves_that_is_said() {
    inside("twin::exam::where_no_answer_leaves_that_is_said", |world| {
        world.nft("");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").expect("a switch");
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "0").expect("a switch");
        crate::lab::ip("rule add from 192.0.2.1 unreachable");
        let exam = world.examined(GUARD);
        let said = "what becomes of the answers from TCP port 80 over IPv4: that to 23.20.30.40: no answer left";
        assert!(
            exam.not_covered.iter().any(|line| line.starts_with(said)),
            "{exam:?}"
        );
        assert_eq!(exam.not_covered.len(), 1, "{exam:?}");
    });
}
