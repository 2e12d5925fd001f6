//! What the twin says of a packet is what becomes of it: connections from outside are the proof.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use acmegate::doctor::path::End;
use acmegate::doctor::twin::{Source, TwinError};

use super::{ask, delivered, fates, knock, one, order};
use crate::lab::{self, BINARY, wait_for};
use crate::world::{HOST_4, LISTED_4, PEER_4, PEER_6, World, inside};

/// What nobody waits for long.
const SOON: Duration = Duration::from_secs(60);

impl World {
    /// Every knock's fate is what becomes of a connection.
    fn agrees(&self, what: &str, source: Source, ports: &[u16]) {
        let mut knocks = Vec::new();
        for peer in [PEER_4, LISTED_4, PEER_6] {
            knocks.extend(ports.iter().map(|port| (peer, *port)));
        }
        let asked = knocks.iter().map(|(peer, port)| knock(peer, *port));
        let answer =
            ask(&order(source, asked.collect())).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.fates[0].len(), knocks.len());
        for ((peer, port), fate) in knocks.into_iter().zip(&answer.fates[0]) {
            let connected = self.connects(peer, port, fate.passes());
            assert_eq!(
                connected,
                fate.passes(),
                "{what}, {peer} to {port}: {fate:?}"
            );
        }
    }
}

const NFT: [(&str, &str); 8] = [
    (
        "plain-drop",
        include_str!("../../data/rulesets/plain-drop.nft"),
    ),
    (
        "plain-ports",
        include_str!("../../data/rulesets/plain-ports.nft"),
    ),
    (
        "services-by-map",
        include_str!("../../data/rulesets/services-by-map.nft"),
    ),
    (
        "firewalld",
        include_str!("../../data/rulesets/firewalld-1.3.nft"),
    ),
    (
        "firewalld-80",
        include_str!("../../data/rulesets/firewalld-1.3-port-80.nft"),
    ),
    (
        "geo-allow",
        include_str!("../../data/rulesets/geo-allow.nft"),
    ),
    (
        "geo-block",
        include_str!("../../data/rulesets/geo-block.nft"),
    ),
    ("fail2ban", include_str!("../../data/rulesets/fail2ban.nft")),
];

#[test]
fn rulesets_of_nft_do_to_packets_what_the_twin_says() {
    let name = "twin::ends::rulesets_of_nft_do_to_packets_what_the_twin_says";
    inside(name, |world| {
        for (what, rules) in NFT {
            world.nft(rules);
            // No more than the smallest limit among them lets through.
            world.agrees(what, Source::Live, &[22, 80, 8080]);
        }
    });
}

#[test]
fn rulesets_of_iptables_do_to_packets_what_the_twin_says() {
    let name = "twin::ends::rulesets_of_iptables_do_to_packets_what_the_twin_says";
    inside(name, |world| {
        let ufw = include_str!("../../data/rulesets/ufw-0.36-port-80.iptables");
        world.iptables(ufw);
        world.agrees("ufw", Source::Live, &[22, 80, 443]);
        world.ip6tables(include_str!("../../data/rulesets/ufw-0.36.ip6tables"));
        world.agrees("ufw for IPv6", Source::Live, &[22, 80]);
        world.iptables(include_str!("../../data/rulesets/script.iptables"));
        world.agrees(
            "a script's",
            Source::Live,
            &[22, 80, 81, 82, 83, 84, 85, 443, 8000],
        );
    });
}

/// In a namespace of another user there is no power over this one: only the listing is read.
#[test]
fn saved_rulesets_do_to_packets_what_the_twin_says() {
    let name = "twin::ends::saved_rulesets_do_to_packets_what_the_twin_says";
    inside(name, |world| {
        for (what, rules) in &NFT[..3] {
            world.nft(rules);
            let listed = crate::lab::ruleset();
            world.agrees(what, Source::Listing(vec![listed]), &[22, 80]);
            world.nft(rules);
            let json = crate::lab::run_nft(&["-j", "list", "ruleset"]);
            world.agrees(what, Source::Listing(vec![json]), &[22, 80]);
        }
        let both = [
            include_str!("../../data/rulesets/ufw-0.36-port-80.iptables"),
            include_str!("../../data/rulesets/ufw-0.36.ip6tables"),
        ];
        world.iptables(both[0]);
        world.agrees("ufw", Source::Listing(vec![both[0].to_owned()]), &[22, 80]);
        world.ip6tables(both[1]);
        world.agrees(
            "ufw for IPv6",
            Source::Listing(vec![both[1].to_owned()]),
            &[22, 80],
        );
        let broken = Source::Listing(vec!["table inet filter {\n nonsense\n}\n".to_owned()]);
        let refused = ask(&order(broken, vec![knock(PEER_4, 80)]));
        let Err(TwinError::Listing(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.starts_with("nft: "), "{why}");
    });
}

/// A limit lets so many pass: what one knock used up, the next one finds again.
#[test]
fn one_knock_leaves_nothing_to_the_next() {
    inside(
        "twin::ends::one_knock_leaves_nothing_to_the_next",
        |world| {
            world.nft(
                "table inet filter {
                set seen { type ipv4_addr; flags dynamic; size 100; }
                set metered { type ipv4_addr; flags dynamic; size 100; }
                chain input {
                    type filter hook input priority filter; policy drop;
                    tcp dport { 80, 443 } limit rate 1/hour burst 1 packets accept
                    tcp dport 81 ip saddr @seen drop
                    tcp dport 81 add @seen { ip saddr } accept
                    tcp dport 82 add @metered { ip saddr limit rate 1/hour burst 1 packets } accept
                    tcp dport 83 numgen inc mod 2 0 accept
                    tcp dport 84 ct count over 1 drop
                    tcp dport 84 accept
                }
            }",
            );
            for port in [80, 81, 82, 83, 84] {
                let told = fates(vec![knock(PEER_4, port); 5]);
                let ends: Vec<_> = told.into_iter().map(|fate| fate.end).collect();
                assert_eq!(ends, vec![delivered(HOST_4, port); 5], "port {port}");
            }
        },
    );
}

/// More than one message of netlink carries is put back between knocks: rules, and sets that rules fill.
#[test]
fn one_knock_leaves_nothing_to_the_next_however_much_there_is_to_put_back() {
    inside(
        "twin::ends::one_knock_leaves_nothing_to_the_next_however_much_there_is_to_put_back",
        |world| {
            let of_sets = |line: fn(u32) -> String| (0..16).map(line).collect::<String>();
            let sets = of_sets(|set| {
                format!("set seen{set} {{ type ipv4_addr; flags dynamic; size 1000; }}\n")
            });
            let fill = of_sets(|set| format!("tcp dport 81 add @seen{set} {{ ip saddr }}\n"));
            world.nft(&format!(
                "table inet filter {{
                {sets}
                chain input {{
                    type filter hook input priority filter; policy drop;
                    tcp dport 80 limit rate 1/hour burst 1 packets accept
                    tcp dport 81 ip saddr @seen15 drop
                    {fill}
                    tcp dport 81 accept
                }}
                }}"
            ));
            for set in 0..16 {
                let sources = (1..=500).map(|at| format!("10.{set}.{}.{}", at / 250, at % 250));
                let sources: Vec<String> = sources.collect();
                lab::nft(&format!(
                    "add element inet filter seen{set} {{ {} }}",
                    sources.join(", ")
                ));
            }
            let limits = (10_001..=11_200).map(|port| {
                format!("add rule inet filter input tcp dport {port} limit rate 1/hour burst 1 packets accept\n")
            });
            let limits: Vec<String> = limits.collect();
            for some in limits.chunks(200) {
                lab::nft(&some.concat());
            }
            for port in [80, 81, 11_200] {
                let told = fates(vec![knock(PEER_4, port); 3]);
                let ends: Vec<_> = told.into_iter().map(|fate| fate.end).collect();
                assert_eq!(ends, vec![delivered(HOST_4, port); 3], "port {port}");
            }
        },
    );
}

#[test]
fn what_routing_throws_away_is_lost_and_said_why() {
    let name = "twin::ends::what_routing_throws_away_is_lost_and_said_why";
    inside(name, |world| {
        world.nft("table inet filter { chain input { type filter hook input priority 0; policy accept; }\n }\n");
        crate::lab::ip("route add blackhole 203.0.113.0/24");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("a switch");
        let lost = |source| match one(source, 80).end {
            End::Lost(why) => why,
            end => panic!("{source}: {end:?}"),
        };
        assert!(lost("203.0.113.7").contains("rp_filter"));
        assert_eq!(one(PEER_4, 80).end, delivered(HOST_4, 80));
        let mut elsewhere = knock(PEER_4, 80);
        elsewhere.destination = "192.0.2.77".parse().expect("an address");
        let fate = fates(vec![elsewhere]).remove(0);
        assert_eq!(
            fate.end,
            End::Lost("it is for another host, and this one forwards nothing".to_owned())
        );
    });
}

#[test]
fn a_reject_and_an_ingress_hook_are_told_apart() {
    let name = "twin::ends::a_reject_and_an_ingress_hook_are_told_apart";
    inside(name, |world| {
        world.nft(
            "table netdev edge { chain in { type filter hook ingress device eth0 priority -500; policy accept;
                ip saddr 198.51.100.200 drop
            }\n }
            table inet filter { chain input { type filter hook input priority 0; policy accept;
                tcp dport 81 reject with tcp reset
            }\n }",
        );
        assert_eq!(one(PEER_4, 81).end, End::Dropped { rejects: true });
        let edge = one(LISTED_4, 80);
        assert_eq!(edge.end, End::Dropped { rejects: false });
        let culprit = edge.culprit().expect("a rule").to_string();
        assert_eq!(culprit, "netdev edge in: ip saddr 198.51.100.200 drop");
    });
}

#[test]
fn a_twin_that_takes_too_long_is_ended() {
    inside(
        "twin::ends::a_twin_that_takes_too_long_is_ended",
        |_world| {
            let mut asked = order(Source::Live, vec![knock(PEER_4, 80); 5000]);
            asked.patience = Duration::from_millis(1);
            assert_eq!(ask(&asked), Err(TwinError::Late(asked.patience)));
        },
    );
}

/// A limit makes its rule anew after each knock, and live rules that were taken away left their numbers.
#[test]
fn a_rules_number_is_the_live_ones_however_often_it_is_met() {
    let name = "twin::ends::a_rules_number_is_the_live_ones_however_often_it_is_met";
    inside(name, |world| {
        world.nft(
            "table inet filter { chain input { type filter hook input priority 0; policy accept;
                counter comment \"first\"
                counter comment \"second\"
            }\n }",
        );
        let run = |words: &str| {
            crate::lab::run_nft(&words.split(' ').collect::<Vec<_>>());
        };
        run("flush chain inet filter input");
        run("add rule inet filter input tcp dport 9 drop");
        run("add rule inet filter input tcp dport 80 limit rate 5/hour burst 1 packets accept");
        run("add rule inet filter input tcp dport 80 reject");
        let listed = crate::lab::run_nft(&["-a", "list", "chain", "inet", "filter", "input"]);
        let fates = fates(vec![knock(PEER_4, 80); 4]);
        for fate in &fates {
            assert_eq!(fate, &fates[0]);
            let step = fate.steps.last().expect("a rule");
            let handle = step.handle.expect("a rule");
            let rule = "tcp dport 80 limit rate 5/hour burst 1 packets accept";
            assert_eq!(step.rule.as_deref(), Some(rule));
            let line = format!("{rule} # handle {handle}\n");
            assert!(listed.contains(&line), "{handle}: {listed}");
        }
    });
}

#[test]
fn a_reject_of_iptables_is_one() {
    inside("twin::ends::a_reject_of_iptables_is_one", |world| {
        world.iptables(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             -A INPUT -p tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n\
             -A INPUT -p tcp --dport 81 -j DROP\nCOMMIT\n",
        );
        assert_eq!(one(PEER_4, 80).end, End::Dropped { rejects: true });
        assert_eq!(one(PEER_4, 81).end, End::Dropped { rejects: false });
    });
}

/// What waits for its order, or works on it, has nobody to tell once its parent is gone.
#[test]
fn a_twin_ends_with_whoever_started_it() {
    inside(
        "twin::ends::a_twin_ends_with_whoever_started_it",
        |_world| {
            let mut parent = Command::new("sh")
                .args(["-c", "exec 3<&0; \"$0\" twin <&3 & echo $!; wait"])
                .arg(BINARY)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell");
            let order = parent.stdin.take().expect("piped");
            let mut told = BufReader::new(parent.stdout.take().expect("piped"));
            let mut twin = String::new();
            told.read_line(&mut twin).expect("the twin's number");
            let twin = format!("/proc/{}", twin.trim_end());
            // By then it has asked the kernel for its end.
            wait_for(SOON, "it waits for its order", || {
                let waits = fs::read_to_string(format!("{twin}/syscall")).unwrap_or_default();
                waits.starts_with("0 0x0 ").then_some(())
            });
            parent.kill().expect("our own");
            parent.wait().expect("our own");
            wait_for(SOON, "it ends too", || {
                let state = fs::read_to_string(format!("{twin}/stat")).unwrap_or_default();
                (state.is_empty() || state.contains(") Z ")).then_some(())
            });
            drop(order);
        },
    );
}
