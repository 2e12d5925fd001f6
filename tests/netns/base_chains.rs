//! The judgement of foreign base chains, and the kernel's own word on the same packet.

use std::time::{Duration, Instant};

use acmegate::firewall::base_chains::{
    Cause, Doubt, IpFamily, Manager, NamedSet, Path, Probe, judge, read,
};
use nlink::netlink::nftables::Family;

use crate::world::{LISTED_4, PEER_4, PEER_6, World, inside};

fn probe(family: IpFamily, port: u16) -> Probe {
    Probe {
        family,
        port,
        interface: "eth0".to_owned(),
        ifindex: None,
        destination: None,
        mark: 0,
        ct_mark: 0,
        is_untracked: false,
        accepted_sets: Vec::new(),
    }
}

impl World {
    fn judge(&self, probe: &Probe) -> Path {
        let ruleset = self.block_on(read(&self.netlink())).expect("the ruleset");
        assert!(ruleset.generation().is_some());
        judge(&ruleset, probe, &["acmegate"])
    }

    /// Judges, has the peer connect, and insists that the judgement was true. A doubt that
    /// decides may turn out either way; everything else may not.
    fn true_path(&self, family: IpFamily, port: u16) -> Path {
        let path = self.judge(&probe(family, port));
        let peer = if family == IpFamily::V4 {
            PEER_4
        } else {
            PEER_6
        };
        let passes = matches!(path, Path::Passes { .. });
        let undecided = match &path {
            Path::Passes { doubts } => doubts.iter().any(|d| !matches!(d, Doubt::DropsListed(_))),
            Path::Drops(_) => false,
        };
        let connected = self.connects(peer, port, passes && !undecided);
        if !undecided {
            assert_eq!(connected, passes, "{family:?} port {port}: {path:?}");
        }
        path
    }

    /// Both families: certain to pass, and in truth passing.
    fn passes(&self, port: u16) {
        for family in [IpFamily::V4, IpFamily::V6] {
            let path = self.true_path(family, port);
            assert_eq!(
                path,
                Path::Passes { doubts: Vec::new() },
                "{family:?} port {port}"
            );
        }
    }

    /// Both families: dropped by `place`, and in truth dropped.
    fn drops(&self, port: u16, place: &str, manager: Manager) {
        for family in [IpFamily::V4, IpFamily::V6] {
            self.drops_in(family, port, place, manager);
        }
    }

    fn drops_in(&self, family: IpFamily, port: u16, place: &str, manager: Manager) {
        let Path::Drops(culprit) = self.true_path(family, port) else {
            panic!("{family:?} port {port} passes, not dropped by {place}");
        };
        let mut found = culprit.place.to_string();
        if let Cause::Rule { handle, .. } = culprit.cause {
            // Handles are the kernel's to give out.
            found = found.replace(&format!(" rule {handle}"), " rule");
        }
        assert_eq!(found, place, "{family:?} port {port}");
        assert_eq!(culprit.manager, manager, "{family:?} port {port}");
    }
}

#[test]
fn an_empty_ruleset_lets_everything_pass() {
    inside(
        "base_chains::an_empty_ruleset_lets_everything_pass",
        |world| world.passes(80),
    );
}

#[test]
fn a_plain_firewall_drops_by_policy() {
    inside("base_chains::a_plain_firewall_drops_by_policy", |world| {
        world.nft(include_str!("../data/rulesets/plain-drop.nft"));
        world.passes(22);
        world.drops(80, "inet filter input policy", Manager::Nftables);
        // An accept of ours changes nothing, at any priority.
        let ours = "table inet acmegate { chain c {
            type filter hook input priority -10; policy accept;
            tcp dport 80 accept
        }\n}\n";
        world.nft(&format!(
            "{}{ours}",
            include_str!("../data/rulesets/plain-drop.nft")
        ));
        world.drops(80, "inet filter input policy", Manager::Nftables);
    });
}

#[test]
fn ports_may_be_opened_by_sets_ranges_and_limits() {
    inside(
        "base_chains::ports_may_be_opened_by_sets_ranges_and_limits",
        |world| {
            world.nft(include_str!("../data/rulesets/plain-ports.nft"));
            for port in [80, 443, 8000, 8080] {
                world.passes(port);
            }
            world.drops(81, "inet filter input rule", Manager::Nftables);
        },
    );
}

#[test]
fn verdict_maps_and_chains_are_followed() {
    inside(
        "base_chains::verdict_maps_and_chains_are_followed",
        |world| {
            world.nft(include_str!("../data/rulesets/services-by-map.nft"));
            for port in [22, 80, 8000, 9000] {
                world.passes(port);
            }
            // `goto web` comes back to `input`, not to `public`.
            world.drops(443, "inet filter input policy", Manager::Nftables);
            world.drops(81, "inet filter input policy", Manager::Nftables);
        },
    );
}

#[test]
fn ufw_is_understood_and_named() {
    inside("base_chains::ufw_is_understood_and_named", |world| {
        world.iptables(include_str!("../data/rulesets/ufw-0.36.iptables"));
        let (v4, none) = (IpFamily::V4, Path::Passes { doubts: Vec::new() });
        assert_eq!(world.true_path(v4, 22), none);
        world.drops_in(v4, 80, "ip filter INPUT policy", Manager::Ufw);
        world.iptables(include_str!("../data/rulesets/ufw-0.36-port-80.iptables"));
        assert_eq!(world.true_path(v4, 80), none);
        world.drops_in(v4, 81, "ip filter INPUT policy", Manager::Ufw);

        world.ip6tables(include_str!("../data/rulesets/ufw-0.36.ip6tables"));
        assert_eq!(world.true_path(IpFamily::V6, 22), none);
        world.drops_in(IpFamily::V6, 80, "ip6 filter INPUT policy", Manager::Ufw);
    });
}

#[test]
fn firewalld_is_understood_and_named() {
    inside("base_chains::firewalld_is_understood_and_named", |world| {
        world.nft(include_str!("../data/rulesets/firewalld-1.3.nft"));
        world.passes(22);
        let place = "inet firewalld filter_INPUT → filter_IN_public rule";
        world.drops(80, place, Manager::Firewalld);
        world.nft(include_str!("../data/rulesets/firewalld-1.3-port-80.nft"));
        world.passes(80);
    });
}

#[test]
fn a_geo_blocker_in_prerouting_is_found() {
    inside(
        "base_chains::a_geo_blocker_in_prerouting_is_found",
        |world| {
            world.nft(include_str!("../data/rulesets/geo-allow.nft"));
            world.passes(22);
            let place = "inet geoip-shell GEOIP-BASE_IN → GEOIP-SHELL_IN rule";
            world.drops(80, place, Manager::GeoipShell);
            assert!(
                world.connects(LISTED_4, 80, true),
                "a listed country passes"
            );
        },
    );
}

#[test]
fn a_block_list_is_a_doubt_and_no_more() {
    inside(
        "base_chains::a_block_list_is_a_doubt_and_no_more",
        |world| {
            let lists = [
                include_str!("../data/rulesets/geo-block.nft"),
                include_str!("../data/rulesets/fail2ban.nft"),
            ];
            for list in lists {
                world.nft(list);
                let path = world.true_path(IpFamily::V4, 80);
                let Path::Passes { doubts } = path else {
                    panic!("{path:?}")
                };
                assert!(matches!(doubts[..], [Doubt::DropsListed(_)]), "{doubts:?}");
                assert!(!world.connects(LISTED_4, 80, false), "{list}");
            }
        },
    );
}

#[test]
fn docker_sends_the_port_elsewhere() {
    inside("base_chains::docker_sends_the_port_elsewhere", |world| {
        world.iptables(include_str!("../data/rulesets/docker.iptables"));
        let path = world.true_path(IpFamily::V4, 80);
        let Path::Passes { doubts } = path else {
            panic!("{path:?}")
        };
        assert!(matches!(doubts[..], [Doubt::Translated(_)]), "{doubts:?}");
        world.drops_in(
            IpFamily::V4,
            81,
            "ip filter INPUT policy",
            Manager::IptablesNft,
        );
    });
}

#[test]
fn the_matches_of_iptables_are_understood() {
    inside(
        "base_chains::the_matches_of_iptables_are_understood",
        |world| {
            world.iptables(include_str!("../data/rulesets/script.iptables"));
            for port in [443, 8000, 8080, 81, 82, 83, 84, 86, 87] {
                let path = world.true_path(IpFamily::V4, port);
                let Path::Passes { doubts } = path else {
                    panic!("{port}: {path:?}")
                };
                let unclear = doubts.iter().any(|d| !matches!(d, Doubt::DropsListed(_)));
                assert!(!unclear, "{port}: {doubts:?}");
            }
            for port in [22, 80, 85] {
                world.drops_in(
                    IpFamily::V4,
                    port,
                    "ip filter INPUT rule",
                    Manager::IptablesNft,
                );
            }
            // A string and a time to live: whatever they say, it is not certain.
            for port in [88, 89] {
                let path = world.true_path(IpFamily::V4, port);
                let Path::Passes { doubts } = path else {
                    panic!("{port}: {path:?}")
                };
                assert!(
                    doubts.iter().any(|d| matches!(d, Doubt::Unclear(_))),
                    "{port}: {doubts:?}"
                );
            }
        },
    );
}

#[test]
fn our_element_is_taken_for_granted_in_the_administrators_set() {
    let name = "base_chains::our_element_is_taken_for_granted_in_the_administrators_set";
    inside(name, |world| {
        world.nft(include_str!("../data/rulesets/administrators-set.nft"));
        world.drops(80, "inet filter input policy", Manager::Nftables);
        let mut probe = probe(IpFamily::V4, 80);
        probe.accepted_sets.push(NamedSet {
            family: Family::Inet,
            table: "filter".to_owned(),
            name: "acmegate".to_owned(),
        });
        assert_eq!(world.judge(&probe), Path::Passes { doubts: Vec::new() });
        // And so it is, once it is there; and read as it is without being taken for granted.
        let rules = include_str!("../data/rulesets/administrators-set.nft");
        world.nft(&format!(
            "{rules}\nadd element inet filter acmegate {{ 80 timeout 1m }}\n"
        ));
        world.passes(80);
        world.drops(81, "inet filter input policy", Manager::Nftables);
    });
}

#[test]
fn a_large_address_list_is_never_read() {
    inside("base_chains::a_large_address_list_is_never_read", |world| {
        use nlink::netlink::nftables::{Set, SetElement, SetKeyType};
        world.nft(
            "table inet filter {
                set big { type ipv4_addr; flags interval; }
                chain input {
                    type filter hook input priority filter; policy drop;
                    ip saddr @big drop
                    tcp dport { 80, 443 } accept
                }
            }",
        );
        let nft = world.netlink();
        let set = Set::new("filter", "big")
            .family(Family::Inet)
            .key_type(SetKeyType::Ipv4Addr)
            .interval();
        let prefixes: Vec<SetElement> = (0..100_000u32)
            .map(|n| {
                let start = 0x0100_0000 + n * 0x200;
                SetElement::ipv4_range(start.into(), (start + 0xff).into())
            })
            .collect();
        world.block_on(async {
            for some in prefixes.chunks(700) {
                nft.add_set_elements(&set, some).await.expect("prefixes");
            }
        });
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let start = Instant::now();
                let _ = world.judge(&probe(IpFamily::V4, 80));
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("read and judged beside 100,000 prefixes: {times:?}");
        // Reading them takes more than a second, also on an idle machine.
        assert!(times[4] < Duration::from_millis(200), "{times:?}");
        let path = world.true_path(IpFamily::V4, 80);
        let Path::Passes { doubts } = path else {
            panic!("{path:?}")
        };
        assert!(matches!(doubts[..], [Doubt::DropsListed(_)]), "{doubts:?}");
    });
}

/// What is expected of port 80, from a source in no list.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Passes,
    /// And drops listed sources.
    PassesUnlisted,
    Drops,
    /// It depends on a rule that cannot be judged.
    Unclear,
}
use Expected::{Drops, Passes, PassesUnlisted, Unclear};

fn expected_of(path: &Path) -> Expected {
    match path {
        Path::Drops(_) => Drops,
        Path::Passes { doubts } if doubts.is_empty() => Passes,
        Path::Passes { doubts } => {
            let listed = doubts
                .iter()
                .all(|doubt| matches!(doubt, Doubt::DropsListed(_)));
            if listed { PassesUnlisted } else { Unclear }
        }
    }
}

/// One rule or a few at the head of an input chain with `policy drop`, and what it does.
const INPUT_RULES: &[(&str, Expected)] = &[
    ("accept", Passes),
    ("counter log continue", Drops),
    ("tcp dport != 80 accept", Drops),
    ("tcp dport != { 22, 443 } accept", Passes),
    ("tcp dport 79-81 accept", Passes),
    ("tcp dport > 80 accept", Drops),
    ("tcp dport >= 80 tcp dport < 81 accept", Passes),
    ("tcp sport 22 accept", Drops),
    ("tcp sport >= 1024 accept", Passes),
    ("tcp sport 1024-65535 tcp dport 80 accept", Passes),
    ("th dport 80 accept", Passes),
    ("udp dport 80 accept", Drops),
    ("meta l4proto { udp, icmp } accept", Drops),
    ("meta l4proto { tcp, udp } th dport 80 accept", Passes),
    ("ip protocol tcp accept", Passes),
    ("meta nfproto ipv6 accept", Drops),
    ("meta protocol ip accept", Passes),
    ("ip version 4 accept", Passes),
    ("ip frag-off & 0x1fff != 0 drop\naccept", Passes),
    ("ip ttl > 1 accept", Unclear),
    ("ip saddr 198.51.100.200 accept", Drops),
    ("ip saddr 198.51.100.200 drop\naccept", PassesUnlisted),
    (
        "ip saddr 198.51.100.128/25 jump dropping\naccept",
        PassesUnlisted,
    ),
    ("ip saddr != 10.0.0.0/8 accept", Passes),
    (
        "ip saddr != { 10.0.0.0/8, 172.16.0.0/12 } drop\naccept",
        Drops,
    ),
    ("ip saddr . tcp dport { 10.0.0.1 . 80 } accept", Drops),
    ("ip saddr 10.0.0.1-10.0.0.9 accept", Drops),
    (
        "ip saddr vmap { 198.51.100.200 : drop }\naccept",
        PassesUnlisted,
    ),
    ("ip6 saddr ::/0 accept", Drops),
    ("ip daddr 224.0.0.0/4 accept", Drops),
    ("ip daddr 255.255.255.255 accept", Drops),
    ("ip daddr 192.0.2.1 accept", Unclear),
    ("ip daddr 192.0.2.1 drop\ndrop", Drops),
    ("fib daddr type local accept", Passes),
    ("fib daddr type { broadcast, multicast } accept", Drops),
    ("fib saddr type unicast accept", Passes),
    ("fib saddr . iif oif missing drop\naccept", Passes),
    ("fib saddr . iif oif exists accept", Passes),
    ("iif lo accept", Drops),
    ("iifname != \"lo\" accept", Passes),
    ("iifname \"eth*\" accept", Passes),
    ("iifname \"wlan*\" accept", Drops),
    ("iifname { \"lo\", \"eth0\" } tcp dport 80 accept", Passes),
    (
        "iifname . tcp dport { \"eth0\" . 80, \"eth1\" . 443 } accept",
        Passes,
    ),
    ("iifname . tcp dport { \"eth1\" . 80 } accept", Drops),
    ("iifname . tcp dport { \"eth0\" . 1-1024 } accept", Passes),
    (
        "iifname . tcp dport vmap { \"eth0\" . 1-1024 : accept }",
        Passes,
    ),
    ("oifname \"eth0\" accept", Drops),
    ("meta iifgroup 7 accept", Unclear),
    ("meta pkttype host accept", Passes),
    ("meta pkttype { broadcast, multicast } accept", Drops),
    ("meta length < 20 accept", Unclear),
    ("meta skuid 0 accept", Drops),
    ("ct state new accept", Passes),
    ("ct state established,related accept", Drops),
    ("ct state != new accept", Drops),
    ("ct state { new, untracked } accept", Passes),
    ("ct state vmap { new : accept, invalid : drop }", Passes),
    ("ct state . tcp dport { new . 80 } accept", Passes),
    ("ct status dnat accept", Drops),
    ("ct direction original accept", Passes),
    ("ct mark 0 accept", Passes),
    ("ct original ip saddr 10.0.0.0/8 accept", Drops),
    ("ct count over 20 drop\naccept", Passes),
    ("ct zone 0 accept", Passes),
    ("ct helper \"ftp\" accept", Drops),
    ("tcp flags syn accept", Passes),
    ("tcp flags & (fin|syn|rst|ack) == syn accept", Passes),
    ("tcp flags & (fin|syn) == (fin|syn) drop\naccept", Passes),
    ("tcp flags != syn accept", Drops),
    ("tcp option maxseg size > 100 accept", Unclear),
    ("limit rate 10/second accept", Passes),
    ("limit rate over 10/second drop\naccept", Passes),
    ("quota over 10 mbytes drop\naccept", Passes),
    ("quota until 10 mbytes accept", Passes),
    (
        "add @seen { ip saddr limit rate over 10/second } drop\naccept",
        Passes,
    ),
    ("add @seen { ip saddr limit rate 10/second } accept", Passes),
    ("update @seen { ip saddr counter } accept", Passes),
    // The first one makes the element, and then its limit counts, or that it has none.
    (
        "update @seen { ip saddr counter }\nadd @seen { ip saddr limit rate over 10/second } drop\naccept",
        Unclear,
    ),
    (
        "add @seen { ip saddr limit rate over 10/second }\nupdate @seen { ip saddr } drop\naccept",
        Unclear,
    ),
    (
        "add @seen { ip saddr limit rate 10/second }\nadd @seen { ip saddr limit rate 10/second } accept",
        Passes,
    ),
    ("update @flood { ip saddr } drop\naccept", Passes),
    ("numgen random mod 2 0 accept", Unclear),
    ("numgen random mod 2 0 drop\ndrop", Drops),
    (
        "numgen random mod 2 vmap { 0 : drop, 1 : drop }\naccept",
        Unclear,
    ),
    ("socket transparent 1 accept", Unclear),
    ("meta mark 0x10 accept", Drops),
    ("meta mark set 0x10\nmeta mark 0x10 accept", Passes),
    (
        "meta mark set meta mark or 0x110\nmeta mark and 0x100 == 0x100 accept",
        Passes,
    ),
    ("meta mark set 0x10\nmeta mark 0x8-0x20 accept", Passes),
    ("meta mark set 0x10\nmeta mark 0x11-0x20 accept", Drops),
    ("meta mark set 0x10\nmeta mark { 0x8-0x20 } accept", Passes),
    (
        "meta mark set 0x10\nmeta mark { 0x11-0x20, 0x1000 } accept",
        Drops,
    ),
    (
        "meta mark set 0x10\nmeta mark . tcp dport { 0x10 . 80 } accept",
        Passes,
    ),
    ("ct mark set 0x7\nct mark 0x7 accept", Passes),
    (
        "meta mark set 0x9\nct mark set meta mark\nct mark and 0x8 == 0x8 accept",
        Passes,
    ),
    (
        "meta mark set tcp dport map { 80 : 0x5, 443 : 0x6 }\nmeta mark 0x5 accept",
        Passes,
    ),
    ("meta mark set tcp dport map { 443 : 0x6 } accept", Drops),
    ("tcp dport vmap { 80 : accept }", Passes),
    ("tcp dport vmap { 80 : continue }", Drops),
    ("tcp dport vmap { 1-1024 : accept, 8080 : drop }", Passes),
    ("tcp dport vmap { 80 : jump dropping }\naccept", Drops),
    ("tcp dport vmap { 443 : accept, * : drop }\naccept", Unclear),
    ("tcp dport @empty accept", Drops),
    ("tcp dport != @empty accept", Passes),
    ("jump returning\naccept", Passes),
    ("goto returning\naccept", Drops),
    ("jump nested\naccept", Drops),
    ("return\naccept", Drops),
    ("reject", Drops),
    ("reject with tcp reset", Drops),
    ("ip dscp set cs1 ip ttl set 60 accept", Passes),
    ("counter name web accept", Passes),
    ("limit name slow drop\naccept", Unclear),
    ("iifname { \"eth*\", \"wlan0\" } accept", Passes),
    ("iifname { \"wlan*\", \"lo\" } accept", Drops),
    ("ether saddr 02:00:00:00:00:99 accept", Unclear),
    ("tcp dport . meta mark { 1-1024 . 0 } accept", Passes),
    ("tcp dport . ip saddr { 80 . 10.0.0.1 } accept", Drops),
];

#[test]
fn every_kind_of_rule_is_judged_as_the_kernel_does() {
    let name = "base_chains::every_kind_of_rule_is_judged_as_the_kernel_does";
    inside(name, |world| {
        let mut wrong = Vec::new();
        for (rules, expected) in INPUT_RULES {
            world.nft(&format!(
                "table inet filter {{
                    set empty {{ type inet_service; }}
                    set seen {{ type ipv4_addr; flags dynamic; size 100; }}
                    set flood {{
                        type ipv4_addr
                        flags dynamic
                        size 100
                        limit rate over 10/second
                    }}
                    counter web {{ }}
                    limit slow {{ rate over 1000/second; }}
                    chain dropping {{ tcp dport 80 drop
                    }}
                    chain returning {{ return
                    }}
                    chain nested {{ jump returning
                        jump dropping
                    }}
                    chain input {{
                        type filter hook input priority filter; policy drop;
                        {rules}
                    }}
                }}"
            ));
            let path = world.judge(&probe(IpFamily::V4, 80));
            let found = expected_of(&path);
            let connected = world.connects(PEER_4, 80, matches!(found, Passes | PassesUnlisted));
            let contradicted = match found {
                Passes | PassesUnlisted => !connected,
                Drops => connected,
                Unclear => false,
            };
            let listed = found == PassesUnlisted && world.connects(LISTED_4, 80, false);
            if found != *expected || contradicted || listed {
                wrong.push(format!("{rules:?}: {path:?}, connected {connected}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// In a table of both families `dnat ip` is for one of them: the other one's packets go on to the next
/// rule, and the kernel does not even track them.
#[test]
fn a_translation_of_one_family_leaves_the_other_alone() {
    let name = "base_chains::a_translation_of_one_family_leaves_the_other_alone";
    inside(name, |world| {
        let nat = |more: &str| {
            world.nft(&format!(
                "table inet some {{
                    chain a {{
                        type nat hook prerouting priority dstnat; policy drop;
                        tcp dport 80 dnat ip to 192.0.2.1:8080
                    }}
                    {more}
                }}"
            ));
        };
        nat("");
        let place = "inet some a policy";
        world.drops_in(IpFamily::V4, 443, place, Manager::Nftables);
        for port in [80, 443] {
            let path = world.true_path(IpFamily::V6, port);
            assert_eq!(path, Path::Passes { doubts: Vec::new() }, "port {port}");
        }
        assert_eq!(expected_of(&world.judge(&probe(IpFamily::V4, 80))), Unclear);
        nat(
            "chain b { type filter hook input priority 0; ct state new accept
            }",
        );
        for port in [80, 443] {
            world.drops_in(IpFamily::V6, port, place, Manager::Nftables);
        }
    });
}

/// Whole rulesets about port 80: every hook, every order, marks from one chain to the next.
const RULESETS: &[(&str, Expected)] = &[
    (
        "chain a { type filter hook prerouting priority raw; tcp dport 80 drop; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority raw; policy accept; accept; }
         chain b { type filter hook prerouting priority mangle; policy drop; }",
        Drops,
    ),
    // Connection tracking begins at -200: before it, every packet is invalid.
    (
        "chain a { type filter hook prerouting priority -300; ct state invalid drop; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority -300; ct state new drop; }",
        Passes,
    ),
    (
        "chain a { type filter hook prerouting priority -300; ct mark 0 drop; }",
        Passes,
    ),
    (
        "chain a { type filter hook prerouting priority -199; ct state new drop; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority -300; ct mark set 5; }
         chain b { type filter hook input priority 0; policy drop; ct mark 5 accept; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority -150; ct mark set 5; }
         chain b { type filter hook input priority 0; policy drop; ct mark 5 accept; }",
        Passes,
    ),
    (
        "chain a { type filter hook prerouting priority raw; tcp dport 80 notrack; }
         chain b { type filter hook input priority 0; policy drop; ct state new accept; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority raw; tcp dport 80 notrack; }
         chain b { type filter hook input priority 0; policy drop; ct state untracked accept; }",
        Passes,
    ),
    // Marks go from chain to chain, in the order of priority and not of the file.
    (
        "chain b { type filter hook input priority 0; policy drop; meta mark & 0xf0 == 0x10 accept; }
         chain a { type filter hook prerouting priority mangle; meta mark set 0x12; }",
        Passes,
    ),
    (
        "chain a { type filter hook input priority 10; meta mark set 0x12; }
         chain b { type filter hook input priority 0; policy drop; meta mark 0x12 accept; }",
        Drops,
    ),
    // Ingress sees it first, if it is bound to the interface.
    (
        "chain a { type filter hook ingress device eth0 priority 0; tcp dport 80 drop; }",
        Drops,
    ),
    (
        "chain a { type filter hook ingress device lo priority 0; tcp dport 80 drop; }",
        Passes,
    ),
    // A chain of type nat runs where NAT runs, at -100, whatever its priority says.
    (
        "chain a { type nat hook prerouting priority -190; meta mark 0x5 drop; }
         chain b { type filter hook prerouting priority -150; ct state new meta mark set 0x5; }",
        Drops,
    ),
    // And only for a packet that has a connection.
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 drop; }",
        Passes,
    ),
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 drop; }
         chain b { type filter hook prerouting priority raw; tcp dport 80 notrack; }
         chain c { type filter hook input priority 0; ct state new drop; }",
        Passes,
    ),
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8080; }
         chain b { type filter hook input priority 0; policy drop; tcp dport 8080 accept; }",
        Unclear,
    ),
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 81 redirect to :80; }",
        Passes,
    ),
    (
        "chain a { type nat hook input priority 100; tcp dport 443 drop; }",
        Passes,
    ),
    // Whoever counts connections has them tracked, wherever that rule stands.
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 drop; }
         chain b { ct count over 10000 accept; }",
        Drops,
    ),
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 drop; }
         chain b { type nat hook postrouting priority srcnat; masquerade; }",
        Drops,
    ),
    // Of two chains with the same priority the later one comes first.
    (
        "chain a { type filter hook prerouting priority 0; meta mark set 5; }
         chain b { type filter hook prerouting priority 0; meta mark 5 drop; }",
        Passes,
    ),
    (
        "chain a { type filter hook prerouting priority 0; meta mark 5 drop; }
         chain b { type filter hook prerouting priority 0; meta mark set 5; }",
        Drops,
    ),
    // And so with NAT, where the first one that translates is the last.
    (
        "chain a { type nat hook prerouting priority dstnat; tcp dport 80 drop; }
         chain b { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8080; }",
        Unclear,
    ),
    // Nothing of the host's own way out is on the path, nor is forwarding.
    (
        "chain a { type filter hook forward priority 0; policy drop; }
         chain b { type filter hook output priority 0; policy accept; tcp dport 80 drop; }",
        Passes,
    ),
    (
        "flags dormant; chain a { type filter hook input priority 0; policy drop; }",
        Passes,
    ),
    // What is not understood in one chain does not hide the certain drop of a later one.
    (
        "chain a { type filter hook prerouting priority 0; numgen random mod 2 0 accept; }
         chain b { type filter hook input priority 0; policy drop; }",
        Drops,
    ),
    (
        "chain a { type filter hook prerouting priority 0; numgen random mod 2 0 meta mark set 5; }
         chain b { type filter hook input priority 0; policy drop; meta mark 5 accept; }",
        Unclear,
    ),
    (
        "chain a { type filter hook prerouting priority 0; numgen random mod 2 0 meta mark set 5; }
         chain b { type filter hook input priority 0; policy drop; meta mark { 0, 5 } accept; }",
        Passes,
    ),
];

#[test]
fn every_hook_is_judged_in_the_kernels_order() {
    let name = "base_chains::every_hook_is_judged_in_the_kernels_order";
    inside(name, |world| {
        let mut wrong = Vec::new();
        for (rules, expected) in RULESETS {
            // nft 1.0.6 wants the closing brace on a line of its own.
            let rules = rules.replace("; }", "\n}\n").replace("{ type", "{\ntype");
            world.nft(&format!("table inet some {{\n{rules}\n}}\n"));
            for (family, peer) in [(IpFamily::V4, PEER_4), (IpFamily::V6, PEER_6)] {
                let path = world.judge(&probe(family, 80));
                let found = expected_of(&path);
                let connected = world.connects(peer, 80, found == Passes);
                let contradicted = found != Unclear && connected != (found == Passes);
                if found != *expected || contradicted {
                    wrong.push(format!("{rules}: {path:?}, connected {connected}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
