//! `acmegate explain`, as people run it: as root on the live rules, as anybody on saved ones.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::lab::{self, BINARY, Daemon, Output, TempDir};
use crate::world::{PEER_4, World, inside};

const LIMIT: Duration = Duration::from_secs(60);
const PLAIN: &str = include_str!("../data/rulesets/plain-drop.nft");
const UFW: &str = include_str!("../data/rulesets/ufw-0.36-port-80.iptables");

fn explain(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("explain").args(arguments);
    lab::run(command, LIMIT)
}

/// By somebody who has no power over this network, though over namespaces of their own: for those the root of a
/// user namespace needs CAP_SETFCAP.
fn as_anybody(arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-all,+setfcap",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--",
    ]);
    command.args([BINARY, "explain"]).args(arguments);
    lab::run(command, LIMIT)
}

#[test]
fn a_path_is_told_step_by_step() {
    inside("explain::a_path_is_told_step_by_step", |world: World| {
        world.nft(PLAIN);
        let passes = explain(&[PEER_4, "22"]);
        assert_eq!(passes.code, 0, "{passes}");
        let text = "tcp from 198.51.100.7 to 192.0.2.1 port 22, in by eth0\n  inet filter input: tcp dport 22 accept  # handle ";
        assert!(passes.stdout.starts_with(text), "{passes}");
        assert!(
            passes
                .stdout
                .contains(": accept\ndelivered to 192.0.2.1 port 22\nits answer\n"),
            "{passes}"
        );
        // The port that the knock came from is any.
        assert!(
            passes
                .stdout
                .contains("\nsent by eth0 to 198.51.100.7 port "),
            "{passes}"
        );
        let drops = explain(&[PEER_4, "80"]);
        assert_eq!(drops.code, 1, "{drops}");
        let lines: Vec<&str> = drops.stdout.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "tcp from 198.51.100.7 to 192.0.2.1 port 80, in by eth0",
                "  inet filter input: its policy drop",
                "dropped: the sender waits in vain",
            ]
        );
        assert!(
            lines[3].starts_with("to let it pass: use mode `attach`"),
            "{drops}"
        );
        assert_eq!(lines.len(), 4, "{drops}");
        let udp = explain(&["2001:db8:2::7", "53", "--udp", "--json"]);
        let told: Value = serde_json::from_str(&udp.stdout).expect("JSON");
        assert_eq!(told["version"], 1);
        assert_eq!(told["packet"]["protocol"], "udp");
        assert_eq!(told["fate"]["end"]["end"], "dropped");
        assert_eq!(told["fate"]["steps"][0]["chain"], "input");
    });
}

#[test]
fn a_window_is_shut_and_opened_in_the_twin_alone() {
    let name = "explain::a_window_is_shut_and_opened_in_the_twin_alone";
    inside(name, |world: World| {
        world.nft("table inet filter { chain input { type filter hook input priority 0; policy accept; }\n }");
        let before = lab::ruleset();
        let open = explain(&[PEER_4, "80", "--window", "open"]);
        assert_eq!(open.code, 0, "{open}");
        assert!(open.stdout.contains("inet acmegate decide: "), "{open}");
        let shut = explain(&[PEER_4, "80", "--window", "shut"]);
        assert_eq!(shut.code, 1, "{shut}");
        assert!(!shut.stdout.contains("to let it pass"), "{shut}");
        assert_eq!(lab::ruleset(), before);
    });
}

#[test]
fn a_saved_ruleset_needs_no_power() {
    inside("explain::a_saved_ruleset_needs_no_power", |world: World| {
        world.nft("");
        let directory = TempDir::new();
        let [plain, ufw, broken] = [("plain", PLAIN), ("ufw", UFW), ("broken", "table {{{\n")]
            .map(|(name, text)| directory.write(name, text));
        let live = as_anybody(&[PEER_4, "80"]);
        assert_eq!(live.code, 77, "{live}");
        assert!(
            live.stderr.contains("only root may read the live ruleset"),
            "{live}"
        );
        let drops = as_anybody(&[PEER_4, "80", "--ruleset", &plain]);
        assert_eq!(drops.code, 1, "{drops}");
        assert!(
            drops
                .stdout
                .contains("  inet filter input: its policy drop\n"),
            "{drops}"
        );
        let passes = as_anybody(&[PEER_4, "80", "--ruleset", &ufw]);
        assert_eq!(passes.code, 0, "{passes}");
        let elsewhere = ["--in", "wlan0", "--to", "10.0.0.1"];
        let passes = as_anybody(&[&[PEER_4, "80", "--ruleset", &ufw], &elsewhere[..]].concat());
        assert_eq!(passes.code, 0, "{passes}");
        assert!(passes.stdout.contains("no interface wlan0"), "{passes}");
        let refused = as_anybody(&[PEER_4, "80", "--ruleset", &broken]);
        assert_eq!(refused.code, 65, "{refused}");
        assert!(refused.stderr.contains("nft: "), "{refused}");
        let missing = as_anybody(&[PEER_4, "80", "--ruleset", "/nowhere"]);
        assert_eq!(missing.code, 65, "{missing}");
    });
}

/// A list of so many prefixes, and another table whose rules fill a set.
fn with_prefixes(prefixes: &[(String, u8)]) -> String {
    let listed: Vec<String> = prefixes
        .iter()
        .map(|(address, length)| format!("{address}/{length}"))
        .collect();
    format!(
        "table inet seen {{\nset s {{\ntype ipv4_addr\nflags dynamic,timeout\ntimeout 1m\n}}\n\
         chain c {{\ntype filter hook input priority 5\nupdate @s {{ ip saddr counter }}\n}}\n}}\n\
         table inet geo {{\nset v4 {{\ntype ipv4_addr\nflags interval\nelements = {{ {} }}\n}}\n\
         chain in {{\ntype filter hook input priority 0\nip saddr @v4 drop\n}}\n}}\n",
        listed.join(",\n")
    )
}

#[test]
fn a_long_list_is_loaded_by_anybody() {
    inside(
        "explain::a_long_list_is_loaded_by_anybody",
        |world: World| {
            // More than a message carries, for whoever is not the host's own root: nor can a test load it at once.
            let prefixes: Vec<(String, u8)> = (0..30_000)
                .map(|at| (60 + at / 12_800, at / 50 % 256, at % 50 * 2))
                .map(|(a, b, c)| (format!("{a}.{b}.{c}.0"), 24))
                .collect();
            let listed = prefixes[29_999].0.replace(".0", ".9");
            world.nft(&with_prefixes(&prefixes[..2]));
            let json = lab::run_nft(&["-j", "list", "ruleset"]);
            world.nft("");
            let mut json: Value = serde_json::from_str(&json).expect("JSON");
            let objects = json["nftables"].as_array_mut().expect("objects");
            let set = objects
                .iter_mut()
                .find_map(|object| object.get_mut("set").filter(|set| set["name"] == "v4"));
            let elements = prefixes
                .iter()
                .map(|(addr, len)| serde_json::json!({"prefix": {"addr": addr, "len": len}}));
            set.expect("the list")["elem"] = elements.collect();
            let directory = TempDir::new();
            for (name, listing) in [
                ("text", with_prefixes(&prefixes)),
                ("json", json.to_string()),
            ] {
                let file = directory.write(name, &listing);
                let drops = as_anybody(&[&listed, "80", "--ruleset", &file]);
                assert_eq!(drops.code, 1, "{name}: {drops}");
                assert!(drops.stdout.contains("ip saddr @v4 drop"), "{drops}");
                let passes = as_anybody(&[PEER_4, "80", "--ruleset", &file]);
                assert_eq!(passes.code, 0, "{name}: {passes}");
            }
        },
    );
}

#[test]
fn many_rules_are_loaded_by_anybody() {
    inside(
        "explain::many_rules_are_loaded_by_anybody",
        |world: World| {
            world.nft("");
            let directory = TempDir::new();
            let sources = || (0..3000).map(|at| format!("10.{}.{}.0/24", at / 250, at % 250));
            let saved: String = sources()
                .map(|source| format!("-A INPUT -s {source} -p tcp -m tcp --dport 80 -j DROP\n"))
                .collect();
            let listed: String = sources()
                .map(|source| {
                    format!("ip saddr {source} tcp dport 80 counter packets 0 bytes 0 drop\n")
                })
                .collect();
            for (name, listing) in [
                (
                    "iptables",
                    format!("*filter\n:INPUT ACCEPT [0:0]\n{saved}COMMIT\n"),
                ),
                (
                    "nft",
                    format!(
                        "table ip filter {{\nchain INPUT {{\ntype filter hook input priority 0; policy accept;\n{listed}}}\n}}\n"
                    ),
                ),
            ] {
                let file = directory.write(name, &listing);
                let drops = as_anybody(&["10.11.249.1", "80", "--ruleset", &file]);
                assert_eq!(drops.code, 1, "{name}: {drops}");
                let passes = as_anybody(&["10.12.0.1", "80", "--ruleset", &file]);
                assert_eq!(passes.code, 0, "{name}: {passes}");
            }
        },
    );
}

#[test]
fn a_saved_table_of_a_programs_is_there() {
    inside(
        "explain::a_saved_table_of_a_programs_is_there",
        |world: World| {
            world.nft("");
            let directory = TempDir::new();
            let owned = PLAIN.replacen('{', "{ # progname firewalld\n\tflags owner\n", 1);
            let file = directory.write("owned", &owned);
            let drops = as_anybody(&[PEER_4, "80", "--ruleset", &file]);
            assert_eq!(drops.code, 1, "{drops}");
        },
    );
}

#[test]
fn a_file_without_a_ruleset_proves_nothing() {
    inside(
        "explain::a_file_without_a_ruleset_proves_nothing",
        |world: World| {
            world.nft("");
            let directory = TempDir::new();
            let file = directory.write("empty", "");
            let told = as_anybody(&[PEER_4, "80", "--ruleset", &file]);
            assert!(
                told.stdout.contains("what was saved has no table"),
                "{told}"
            );
            let refused = as_anybody(&[PEER_4, "80", "--ruleset", "/dev/zero"]);
            assert_eq!(refused.code, 65, "{refused}");
            assert!(refused.stderr.contains("longer than"), "{refused}");
        },
    );
}

#[test]
fn where_namespaces_are_refused_it_says_how_to_allow_them() {
    let name = "explain::where_namespaces_are_refused_it_says_how_to_allow_them";
    inside(name, |world: World| {
        world.nft("");
        let directory = TempDir::new();
        let plain = directory.write("plain", PLAIN);
        std::fs::write("/proc/sys/user/max_user_namespaces", "0").expect("a switch");
        let refused = as_anybody(&[PEER_4, "80", "--ruleset", &plain]);
        assert_eq!(refused.code, 69, "{refused}");
        assert!(refused.stderr.contains("refuses namespaces"), "{refused}");
        assert!(
            refused.stderr.contains("user.max_user_namespaces"),
            "{refused}"
        );
    });
}

#[test]
fn what_is_no_packet_is_refused() {
    inside("explain::what_is_no_packet_is_refused", |world: World| {
        world.nft("");
        for arguments in [
            &[PEER_4, "0"][..],
            &["nobody", "80"],
            &[PEER_4, "80", "--to", "2001:db8::1"],
            &[PEER_4, "80", "--in", "lo"],
            &[PEER_4, "80", "--in", "lo", "--to", "192.0.2.1"],
            &[
                PEER_4,
                "80",
                "--in",
                "an-interface-that-is-long",
                "--to",
                "192.0.2.1",
            ],
        ] {
            let refused = explain(arguments);
            assert_eq!(refused.code, 64, "{arguments:?}: {refused}");
        }
    });
}

/// Of what is shut on purpose nobody is told how to open it.
#[test]
fn of_our_own_table_there_is_no_advice() {
    lab::inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        let shut = explain(&["198.51.100.7", "80"]);
        assert_eq!(shut.code, 1, "{shut}");
        assert!(shut.stdout.contains("inet acmegate "), "{shut}");
        assert!(!shut.stdout.contains("to let it pass"), "{shut}");
        lab::nft(
            "table inet other { chain early { type filter hook prerouting priority -400; tcp dport 80 drop; }\n }\n",
        );
        let early = explain(&["198.51.100.7", "80"]);
        assert!(early.stdout.contains("inet other early"), "{early}");
        assert!(early.stdout.contains("to let it pass"), "{early}");
        let early = explain(&["198.51.100.7", "80", "--window", "shut"]);
        assert!(early.stdout.contains("inet other early"), "{early}");
        assert!(!early.stdout.contains("to let it pass"), "{early}");
        drop(daemon);
    });
}

/// Every way in which a packet, and its answer, can end.
#[test]
fn what_is_printed_as_json_is_what_the_schema_says() {
    let name = "explain::what_is_printed_as_json_is_what_the_schema_says";
    let schema = include_str!("../../docs/explain.schema.json");
    inside(name, |world: World| {
        world.nft(
            "table inet filter {
                chain input { type filter hook input priority 0; policy accept;
                    tcp dport 81 drop
                    tcp dport 82 reject
                }
                chain output { type filter hook output priority 0; policy accept;
                    tcp sport 83 drop
                }
                chain to { type nat hook prerouting priority dstnat; policy accept;
                    tcp dport 84 dnat ip to 192.0.2.254
                    tcp dport 85 dnat ip to 10.9.9.9
                }
            }",
        );
        lab::ip("route add unreachable 10.9.9.0/24");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a switch");
        for (port, end, answer) in [
            ("80", "delivered", Some("forwarded")),
            ("81", "dropped", None),
            ("82", "dropped", None),
            ("83", "delivered", Some("dropped")),
            ("84", "forwarded", Some("forwarded")),
            ("85", "lost", None),
        ] {
            let output = explain(&[PEER_4, port, "--json"]);
            let faults = crate::schema::check(schema, &output.stdout);
            assert_eq!(faults, [""; 0], "{output}");
            let told: Value = serde_json::from_str(&output.stdout).expect("JSON");
            assert_eq!(told["fate"]["end"]["end"], end, "{output}");
            assert_eq!(told["answer"]["end"]["end"].as_str(), answer, "{output}");
        }
        // And one that says nothing of the answer is no such document.
        let output = explain(&[PEER_4, "80", "--json"]);
        let less = output.stdout.replace("\"answer\"", "\"answered\"");
        assert_ne!(crate::schema::check(schema, &less), [""; 0], "{less}");
    });
}
