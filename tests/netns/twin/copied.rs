//! What is copied is what was there: `nft list ruleset` of both says the same.

use std::process::Command;
use std::time::{Duration, Instant};

use acmegate::doctor::namespaces::Netns;
use acmegate::doctor::twin::{Source, copy_ruleset};
use acmegate::firewall::netlink::Kernel;
use acmegate::gate::allow_list::{AllowList, Entries};
use acmegate::gate::window::Windows;

use super::{knock, order};
use crate::enforcing::orders;
use crate::lab;
use crate::world::{PEER_4, World, inside};

/// Sets of every kind, maps, ranges, concatenations, objects; a counter has counted. Flowtables are not in every
/// kernel.
const EVERYTHING: &str = r#"
table ip nat {
    map published {
        type inet_service : ipv4_addr . inet_service
        elements = { 80 : 10.0.0.2 . 8080, 443 : 10.0.0.2 . 8443 }
    }
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        tcp dport 8000 redirect to :80
        dnat to tcp dport map @published
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "eth0" masquerade
    }
}
table netdev edge {
    chain in {
        type filter hook ingress device "eth0" priority -500; policy accept;
        ip saddr 203.0.113.0/24 drop
    }
}
table inet filter {
    comment "by hand"
    counter web { packets 7 bytes 420 }
    quota month { over 25 mbytes used 2 kbytes }
    limit slow { rate 5/second burst 9 packets }
    ct helper files { type "ftp" protocol tcp; }
    ct timeout short {
        protocol tcp
        l3proto ip
        policy = { established : 100 }
    }
    ct expectation later { protocol udp; dport 9876; timeout 2m; size 8; l3proto ip; }
    synproxy front { mss 1460; wscale 7; timestamp sack-perm }
    set ports { type inet_service; flags interval; elements = { 80, 443, 8000-8100, 8101-8200, 65535 } }
    set nets { type ipv4_addr; flags interval; auto-merge; elements = { 0.0.0.0/8, 10.0.0.0/8, 192.0.2.0/25, 192.0.2.128/26, 224.0.0.0-255.255.255.255 } }
    set touching { type ipv4_addr; flags interval; elements = { 10.0.0.0-10.0.0.9, 10.0.0.10-10.0.0.19, 10.0.0.20 } }
    set nets6 { type ipv6_addr; flags interval; elements = { 2001:db8::/32, fe80::/10 } }
    set pairs { type ipv4_addr . inet_service; flags interval; elements = { 198.51.100.0/24 . 80-90, 192.0.2.7 . 443 } }
    set banned { type ipv4_addr; flags timeout; timeout 1d; comment "who was bad"; elements = { 198.51.100.9 timeout 2h expires 1h59m comment "by hand", 198.51.100.10 } }
    set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 1000; elements = { 198.51.100.11 } }
    set metered { type ipv4_addr; size 1000; flags dynamic; limit rate 3/second; }
    map services { type inet_service : verdict; flags interval; elements = { 22 : accept, 80-90 : jump web, * : continue } }
    map marks { type ipv4_addr : mark; elements = { 192.0.2.5 : 0x00000005 } }
    map counted { type inet_service : counter; elements = { 80 : "web" } }
    chain web {
        counter packets 3 bytes 180 accept
    }
    chain input {
        type filter hook input priority filter - 5; policy drop;
        comment "the way in"
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "eth*" ip saddr @banned drop
        ip saddr { 192.0.2.0/25, 198.51.100.1-198.51.100.9 } tcp dport { 80, 443 } accept comment "some"
        ip saddr . tcp dport @pairs counter accept
        ip saddr . tcp dport { 203.0.113.0/24 . 80, 203.0.113.9 . 443 } accept
        tcp dport vmap @services
        tcp dport 21 ct helper set "files"
        update @seen { ip saddr timeout 30s }
        add @metered { ip saddr limit rate 3/second } accept
        meta mark set ip saddr map @marks
        counter name tcp dport map @counted
        limit name "slow" accept
        quota name "month" drop
        tcp dport 81 limit rate over 10/minute burst 3 packets log prefix "slow down " drop
        tcp dport 82 ct count over 20 reject with tcp reset
        tcp flags & (fin | syn | rst | ack) == syn tcp option maxseg size set 1400
        tcp flags syn reset tcp option sack-perm
        fib saddr . iif oif missing drop
        meta nfproto ipv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        numgen inc mod 3 vmap { 0 : accept, 1 : drop, 2 : jump web }
        ip dscp set cs1
        tcp dport 84 reject with icmpx admin-prohibited
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established accept
    }
}
"#;

impl World {
    /// Copies the whole ruleset, and insists that nft sees no difference.
    fn copies(&self, what: &str) {
        let list = || {
            let mut command = Command::new("nft");
            command.args(["list", "ruleset"]);
            let listing = lab::run(command, Duration::from_secs(20)).success().stdout;
            without_remaining_times(&listing)
        };
        // A packet of the host's own, such as a neighbour's solicitation, is counted here and not there.
        lab::wait_for(
            Duration::from_secs(20),
            "no packet while it is copied",
            || {
                let before = list();
                assert!(!before.is_empty());
                let copy = Netns::here()
                    .and_then(|here| here.beside())
                    .expect("a namespace");
                // The devices that chains hang on.
                copy.within(|| lab::ip("link add eth0 type veth peer name eth9"))
                    .expect("the copy's namespace");
                let missing = copy_ruleset(&copy).expect("a copy");
                assert_eq!(missing, Vec::<String>::new(), "{what}");
                let there = copy.within(list).expect("its namespace");
                let was_still = list() == before;
                was_still.then(|| assert_eq!(before, there, "{what}"))
            },
        );
    }
}

/// How long an element stays grows shorter while it is copied.
fn without_remaining_times(listing: &str) -> String {
    let words = listing.split(' ').collect::<Vec<_>>();
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word != "expires" {
            kept.push(word);
            continue;
        }
        // Its comma or brace stays.
        let time = words.next().unwrap_or_default();
        if let Some((_, rest)) = time.split_once(',') {
            kept.push(",");
            kept.push(rest);
        }
    }
    kept.join(" ")
}

#[test]
fn nft_sees_no_difference() {
    inside("twin::copied::nft_sees_no_difference", |world| {
        let rulesets = [
            EVERYTHING,
            include_str!("../../data/rulesets/plain-drop.nft"),
            include_str!("../../data/rulesets/firewalld-1.3.nft"),
            include_str!("../../data/rulesets/geo-allow.nft"),
            include_str!("../../data/rulesets/fail2ban.nft"),
            include_str!("../../data/rulesets/services-by-map.nft"),
        ];
        for rules in rulesets {
            world.nft(rules);
            world.copies(
                rules
                    .lines()
                    .find(|line| !line.is_empty())
                    .unwrap_or_default(),
            );
        }
    });
}

#[test]
fn iptables_sees_no_difference() {
    inside("twin::copied::iptables_sees_no_difference", |world| {
        for rules in [
            include_str!("../../data/rulesets/ufw-0.36.iptables"),
            include_str!("../../data/rulesets/docker.iptables"),
            include_str!("../../data/rulesets/script.iptables"),
        ] {
            world.iptables(rules);
            world.copies("iptables");
        }
        world.ip6tables(include_str!("../../data/rulesets/ufw-0.36.ip6tables"));
        world.copies("ip6tables");
    });
}

/// Some 6 MB of elements, as a geo-blocker has them: here it is our own allow-list.
#[test]
fn a_hundred_thousand_prefixes_are_copied_in_seconds() {
    const LIMIT: Duration = Duration::from_secs(20);
    let name = "twin::copied::a_hundred_thousand_prefixes_are_copied_in_seconds";
    inside(name, |world| {
        // Every other /24 of 1.0.0.0 and after: none of them touch.
        let v4 = (0..100_000_u32).map(|number| 0x0100_0000 + (number << 9));
        let listed = Entries {
            v4: v4.map(|first| (first, first + 255)).collect(),
            v6: Vec::new(),
        };
        let list = AllowList::from_entries(listed, Entries::default());
        let settings = orders("[firewall]\nports = [80]\n").settings;
        let settings = settings.with_allow(list.into());
        world.block_on(async {
            let mut kernel = Kernel::connect().expect("netlink");
            let none = Windows::default();
            let ensured = kernel.ensure_whole(&settings, &none, Instant::now());
            ensured.await.expect("our table");
        });
        let start = Instant::now();
        let mut asked = order(
            Source::Live,
            vec![
                knock("1.0.0.7", 80),
                knock("1.0.1.7", 80),
                knock(PEER_4, 80),
            ],
        );
        asked.patience = LIMIT;
        let answer = super::ask(&asked).expect("a twin");
        let took = start.elapsed();
        println!("100,000 prefixes: {took:?}, {}", answer.copied);
        let passes: Vec<bool> = answer.fates[0].iter().map(|fate| fate.passes()).collect();
        assert_eq!(passes, [true, false, false]);
        // The first and the last address of each, and perhaps one before all of them.
        assert!(answer.copied.contains(" with 20000"), "{}", answer.copied);
    });
}
