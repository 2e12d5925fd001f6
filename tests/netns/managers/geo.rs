//! Blockers by country that drop in prerouting, before any other chain of the host.

use crate::host::{Host, OTHER_PEER_4, OTHER_PEER_6, Seen};
use crate::lab::{self, Daemon, inside, ruleset};
use crate::managers::life::{Outside, attach, leaves_nothing, open_is_refused, window_and_reloads};
use crate::managers::own::tool;
use crate::managers::validations::site;

/// The shape of geoip-shell in allow-list mode. `port_80` is what it writes for ports that are
/// left out of it.
fn geoip_shell(port_80: &str) -> String {
    format!(
        "table inet geoip-shell
        delete table inet geoip-shell
        table inet geoip-shell {{
            set allow_4 {{
                type ipv4_addr; flags interval; auto-merge
                elements = {{ 10.0.0.0/8, {OTHER_PEER_4} }}
            }}
            set allow_6 {{
                type ipv6_addr; flags interval; auto-merge
                elements = {{ {OTHER_PEER_6} }}
            }}
            chain GEOIP-BASE_IN {{
                type filter hook prerouting priority -141; policy accept;
                jump GEOIP-SHELL_IN
            }}
            chain GEOIP-SHELL_IN {{
                ct state established,related accept
                iifname \"lo\" accept
                {port_80}
                ip saddr @allow_4 accept
                ip6 saddr @allow_6 accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
                counter drop
            }}
        }}\n"
    )
}

/// The blocker's countries, as the gate's allow-list has them once a port is the gate's to guard.
fn home_country() -> String {
    format!("[allow]\nprefixes = [\"{OTHER_PEER_4}\", \"{OTHER_PEER_6}\"]\n")
}

#[test]
fn a_guarded_port_is_the_countrys_own_but_for_windows() {
    inside(|| {
        let host = Host::new();
        lab::nft(&geoip_shell(""));
        let daemon = Daemon::start(&format!("{}{}", site(), home_country()));
        let from_home = || host.probe_from_the_other(80);
        assert!(from_home().iter().all(|seen| seen.passed()), "the control");
        let words = [
            "inet geoip-shell GEOIP-BASE_IN → GEOIP-SHELL_IN",
            "drops tcp port 80",
            "geoip-shell configure -p tcp:allow:80",
        ];
        open_is_refused(&host, &daemon, &words);

        // As it was advised: its port 80 is the gate's now, with the same countries.
        let advised = geoip_shell("tcp dport 80 accept");
        lab::nft(&advised);
        window_and_reloads(&host, &daemon, Outside::Ours, 3, || {
            lab::nft(&advised);
            assert!(from_home().iter().all(|seen| seen.passed()), "as before");
        });
    });
}

#[test]
fn a_window_in_the_blockers_own_chain_outlives_new_lists() {
    inside(|| {
        let host = Host::new();
        // Behind it stands a firewall that lets its own country in, and nobody else.
        let lists = geoip_shell("");
        lab::nft(&format!(
            "table inet filter {{ chain input {{
                type filter hook input priority filter; policy drop;
                iif lo accept
                meta l4proto ipv6-icmp accept
                ip saddr {{ 10.0.0.0/8, {OTHER_PEER_4} }} accept
                ip6 saddr {OTHER_PEER_6} accept
            }}\n}}\n{lists}"
        ));
        let before = ruleset();
        let chains = ["inet geoip-shell GEOIP-BASE_IN", "inet filter input"];
        let daemon = Daemon::start(&format!("{}{}", site(), attach(&chains)));
        let from_home = || host.probe_from_the_other(80);
        window_and_reloads(&host, &daemon, Outside::Ours, 3, || {
            lab::nft(&lists);
            assert!(from_home().iter().all(|seen| seen.passed()), "as before");
        });
        leaves_nothing(daemon, &before);
    });
}

/// What an iptables script writes for two families: program, ipset's family, a set, the home network.
const SCRIPTS: [(&str, &str, &str, &str); 2] = [
    ("iptables-nft", "inet", "home4", OTHER_PEER_4),
    ("ip6tables-nft", "inet6", "home6", OTHER_PEER_6),
];

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

/// Everybody who is in no list is dropped in mangle PREROUTING; then bans come and go at the head
/// of INPUT, as fail2ban writes them.
#[test]
fn a_geo_blocker_of_iptables_is_found_and_bans_beside_a_window_hold() {
    inside(|| {
        let host = Host::new();
        let mut daemon = Daemon::start(&format!("{}{}", site(), home_country()));
        let both = |rule: &str| {
            for (program, ..) in SCRIPTS {
                tool(program, &words(rule));
            }
        };
        // Connected: iptables' own REJECT looks like a port that nobody listens on.
        let from_home = || {
            let seen = host.probe_from_the_other(80);
            seen.map(|seen| seen == Seen::Connected)
        };
        let culprit = ["ip mangle PREROUTING rule", "drops tcp port 80"];
        // By addresses.
        for (program, _, _, home) in SCRIPTS {
            let rule = format!("-t mangle -A PREROUTING -s {home} -j RETURN");
            tool(program, &words(&rule));
        }
        both("-t mangle -A PREROUTING -p tcp -m multiport --dports 80,443 -j DROP");
        assert_eq!(from_home(), [true; 2], "the control");
        open_is_refused(&host, &daemon, &culprit);
        both("-t mangle -F PREROUTING");
        // By a set of ipset, which nftables cannot print.
        for (program, family, set, home) in SCRIPTS {
            tool("ipset", &["create", set, "hash:net", "family", family]);
            tool("ipset", &["add", set, home]);
            let list = format!("-p tcp --dport 80 -m set ! --match-set {set} src -j DROP");
            tool(program, &words(&format!("-t mangle -A PREROUTING {list}")));
        }
        assert_eq!(from_home(), [true; 2], "the control");
        open_is_refused(&host, &daemon, &culprit);

        // As it was advised: the port is the gate's, with the same countries.
        both("-t mangle -I PREROUTING -p tcp --dport 80 -j ACCEPT");
        both("-I INPUT -i lo -j ACCEPT");
        window_and_reloads(&host, &daemon, Outside::Ours, 3, || {
            for (program, _, _, banned) in SCRIPTS {
                let rule = format!("-I INPUT -p tcp --dport 80 -s {banned} -j REJECT");
                tool(program, &words(&rule));
            }
            assert_eq!(from_home(), [false; 2], "a ban holds");
            both("-D INPUT 1");
            assert_eq!(from_home(), [true; 2], "no longer");
        });
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert!(!ruleset().contains("acmegate"));
    });
}
