//! Whose packets arrived and were dropped on this host: by which table, chain and rule.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::enforcing::{self, Enforcing};
use crate::evidence::{GUARD, PEERS, Report, listen};
use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen, on_each_host, socket_address};
use crate::kernel::nft;
use crate::lab::{self, find, inside, run, wait_for};

/// A firewall of somebody else's that drops the peer.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// nftables, or arguments of iptables if it begins with `-`.
    rules: &'static str,
    /// What the peer tries, and from where.
    to: &'static str,
    from: &'static str,
    /// What drops it.
    by: [&'static str; 3],
}

const CASES: [Case; 8] = [
    Case {
        rules: "table inet geo { chain early { type filter hook prerouting priority raw;
                ip saddr { 192.0.2.2, 203.0.113.0/24 } drop
                }
                }",
        to: HOST_4,
        from: PEERS[0],
        by: ["inet geo", "early", "ip saddr { 192.0.2.2, 203.0.113.0/24 } drop"],
    },
    Case {
        rules: "table inet geo { set shut { type ipv6_addr; flags interval; elements = { 2001:db8:1::2 }; }
                chain early { type filter hook prerouting priority mangle;
                jump lists
                }
                chain lists { ip6 saddr @shut tcp dport { 80, 443 } counter drop comment \"a list\"
                }
                }",
        to: HOST_6,
        from: PEERS[1],
        by: [
            "inet geo",
            "lists",
            "ip6 saddr @shut tcp dport { 80, 443 } counter drop comment \"a list\"",
        ],
    },
    Case {
        rules: "table ip filter { chain input { type filter hook input priority filter; policy drop;
                ip saddr != 192.0.2.2 accept
                }
                }",
        to: HOST_4,
        from: PEERS[0],
        by: ["ip filter", "input", "policy"],
    },
    Case {
        rules: "table inet filter { chain input { type filter hook input priority filter;
                tcp dport 80 ct state new limit rate over 1/hour burst 1 packets drop
                }
                }",
        to: HOST_4,
        from: PEERS[0],
        by: [
            "inet filter",
            "input",
            "tcp dport 80 ct state new limit rate over 1/hour burst 1 packets drop",
        ],
    },
    Case {
        rules: "table ip filter { chain input { type filter hook input priority filter;
                ip saddr 192.0.2.2 tcp dport 80 reject
                }
                }",
        to: HOST_4,
        from: PEERS[0],
        by: ["ip filter", "input", "ip saddr 192.0.2.2 tcp dport 80 reject"],
    },
    Case {
        rules: "table inet filter { chain input { type filter hook input priority security;
                ip6 saddr 2001:db8:1::2 tcp dport 80 reject with tcp reset
                }
                }",
        to: HOST_6,
        from: PEERS[1],
        by: [
            "inet filter",
            "input",
            "ip6 saddr 2001:db8:1::2 tcp dport 80 reject with tcp reset",
        ],
    },
    Case {
        rules: "-A INPUT -s 192.0.2.2/32 -p tcp -m multiport --dports 80,443 -m comment --comment geo -j DROP",
        to: HOST_4,
        from: PEERS[0],
        by: [
            "ip filter",
            "INPUT",
            "meta l4proto tcp ip saddr 192.0.2.2 xt match \"multiport\" xt match \"comment\" counter drop",
        ],
    },
    Case {
        rules: "-A INPUT -s 192.0.2.2/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-admin-prohibited",
        to: HOST_4,
        from: PEERS[0],
        by: ["ip filter", "INPUT", "ip saddr 192.0.2.2 tcp dport 80 counter xt target \"REJECT\""],
    },
];

#[test]
fn who_was_dropped_is_told_with_the_rule() {
    inside(|| {
        on_each_host(&CASES, |host, case| {
            listen(80);
            let enforcing = &Enforcing::start(enforcing::orders(GUARD));
            let report = Report::of(enforcing);
            enforcing.open(&[80]);
            match case.rules.strip_prefix('-') {
                None => lab::nft(case.rules),
                Some(_) => {
                    let mut command = Command::new(find("iptables-nft"));
                    command.args(case.rules.split(' '));
                    run(command, Duration::from_secs(20)).success();
                }
            }
            // Whoever is on the allow-list is not traced, but uses up a limit.
            host.probe(HOST_PRIVATE, 80);
            let to = socket_address(case.to, 80);
            host.beside(move || try_on(to));
            let known = report.wait_for(case.from, 80, |known| known.dropped.is_some());
            let by = known.dropped.clone().expect("dropped");
            assert_eq!(by, case.by, "{case:?}");
            report.wait_for(case.from, 80, |known| known.packets > 1 && !known.reached);
            wait_for(
                Duration::from_secs(2),
                "nothing is traced",
                is_nothing_traced,
            );
            enforcing.close();
            assert!(is_nothing_traced().is_some());
        });
    });
}

fn is_nothing_traced() -> Option<()> {
    let sets = ["trace4", "trace6"].map(|set| nft(&["list", "set", "inet", "acmegate", set]));
    let is_empty = |set: &String| !set.contains("elements");
    sets.iter().all(is_empty).then_some(())
}

/// As a validator does who is told no, or nothing: once more, and again.
fn try_on(to: SocketAddr) {
    for _ in 0..10 {
        let _ = TcpStream::connect_timeout(&to, Duration::from_secs(4));
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a validator that waits before it tries again"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(600));
}

/// A source that nobody drops is not traced, and what is traced ends with the window.
#[test]
fn who_was_not_dropped_is_told_of_nobody() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        let report = Report::of(enforcing);
        enforcing.open(&[80, 443]);
        assert_eq!(host.probe(HOST_4, 80), Seen::Connected);
        // Passed, and refused by the host itself: there is nothing to be found.
        assert_eq!(host.probe(HOST_4, 443), Seen::Refused);
        wait_for(
            Duration::from_secs(5),
            "its next packet is waited for",
            || {
                let set = nft(&["list", "set", "inet", "acmegate", "trace4"]);
                report.sources();
                set.contains("192.0.2.2 . 443").then_some(())
            },
        );
        assert_eq!(host.probe(HOST_4, 443), Seen::Refused);
        enforcing.close();
        assert!(is_nothing_traced().is_some());
        let known = report.of_source(PEERS[0], 443);
        assert_eq!(
            (known.packets, known.reached, known.dropped),
            (2, false, None)
        );
        assert!(report.of_source(PEERS[0], 80).reached);
    });
}
