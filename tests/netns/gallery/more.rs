//! What one packet to one port does not show: everybody at once, listed sources, other ports and interfaces,
//! and a host without acmegate's table.

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use acmegate::doctor::finding::{Code, Exam, Finding, Severity};
use acmegate::doctor::reading::{
    self, DROPS_SOME, LEGACY, LIMITED, NAME_SERVER_DROPPED, NO_SYN_COOKIES, NOT_UNDERSTOOD,
    ONE_INTERFACE, OPEN_WITHOUT_WINDOW, PASSES, REVERSE_PATH, SENT_ELSEWHERE,
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::cases::{ALONE, CASES, Case, Rules};
use super::{Scene, shown};
use crate::host::{HOST_4, HOST_6, Host, Seen, socket_address};
use crate::lab::{self, Node, inside, ip};
use crate::managers::own::tool;

fn find(exam: &Exam, code: Code) -> Option<&Finding> {
    exam.findings.iter().find(|finding| finding.code == code)
}

#[track_caller]
fn has(exam: &Exam, code: Code, words: &[&str]) {
    let letter: Vec<String> = exam.findings.iter().map(shown).collect();
    let letter = letter.join("\n");
    let finding = find(exam, code).unwrap_or_else(|| panic!("no {}: {letter}", code.word));
    for word in words {
        assert!(shown(finding).contains(word), "`{word}` in: {letter}");
    }
}

#[track_caller]
fn has_not(exam: &Exam, code: Code) {
    assert_eq!(find(exam, code).map(shown), None);
}

/// As the perspectives of one validation come, and more of them.
const AT_ONCE: usize = 12;

#[test]
fn a_limit_that_is_told_stops_some_of_those_who_come_at_once() {
    inside(|| {
        let limited: Vec<&Case> = CASES
            .iter()
            .filter(|case| case.first.0 == LIMITED)
            .collect();
        assert!(limited.len() >= 5);
        std::thread::scope(|scope| {
            for case in limited {
                scope.spawn(|| {
                    let host = Host::new();
                    let scene = Scene::new(&host, case);
                    scene.install();
                    scene.open();
                    let seen = host.probe_at_once(HOST_4, 80, AT_ONCE);
                    let passed = seen.iter().filter(|seen| **seen == Seen::Connected);
                    let passed = passed.count();
                    assert!(
                        (1..AT_ONCE).contains(&passed),
                        "{}: {passed} of {AT_ONCE}",
                        case.name
                    );
                });
            }
        });
    });
}

#[test]
fn a_list_that_is_told_stops_who_stands_in_it_and_nobody_else() {
    inside(|| {
        let lists: Vec<&Case> = CASES
            .iter()
            .filter(|case| case.first.0 == DROPS_SOME)
            .collect();
        assert!(lists.len() >= 3);
        for case in lists {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let host = Host::new();
                    let scene = Scene::new(&host, case);
                    scene.install();
                    scene.open();
                    let listed = host.probe_from_the_other(80);
                    // Some rejects look like a port that nobody listens on.
                    let passed = listed.contains(&Seen::Connected);
                    assert!(!passed, "{}: {listed:?}", case.name);
                    assert_eq!(host.probe_both(80), [Seen::Connected; 2], "{}", case.name);
                });
            });
        }
    });
}

#[test]
fn a_port_that_is_open_without_a_window_is_told() {
    inside(|| {
        let host = Host::new();
        let mut scene = Scene::new(&host, &ALONE);
        let (_, exam) = scene.examine();
        let words = [
            "tcp port 80 without any window",
            "own table is not in the kernel",
            "`acmegate firewall apply`",
        ];
        has(&exam, OPEN_WITHOUT_WINDOW, &words);
        assert_eq!(host.probe_both(80), [Seen::Connected; 2]);
        // As it was advised.
        scene.install();
        let (_, exam) = scene.examine();
        has_not(&exam, OPEN_WITHOUT_WINDOW);
        assert!(!host.probe_both(80).contains(&Seen::Connected));
        scene.acmegate(&["firewall", "remove"]);

        // To be attached to a chain shuts nothing that the chain itself leaves open.
        scene.load(Rules::Nft(include_str!(
            "../../data/rulesets/gallery/open-to-all.nft"
        )));
        scene.config =
            "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n".to_owned();
        scene.install();
        let (_, exam) = scene.examine();
        has(
            &exam,
            OPEN_WITHOUT_WINDOW,
            &["over IPv4 by eth0", "use mode `guard`"],
        );
        assert_eq!(host.probe_both(80), [Seen::Connected; 2]);
    });
}

#[test]
fn a_name_server_that_is_shut_is_told() {
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        scene.load(Rules::Nft(include_str!(
            "../../data/rulesets/gallery/name-server.nft"
        )));
        scene.install();
        // A resolver of the host's own is no name server.
        let own = UdpSocket::bind("127.0.0.1:53").expect("a new network");
        let (_, exam) = scene.examine();
        has_not(&exam, NAME_SERVER_DROPPED);
        drop(own);

        let _tcp = TcpListener::bind("[::]:53").expect("a new network");
        let server = UdpSocket::bind("[::]:53").expect("a new network");
        let wait = Some(Duration::from_millis(700));
        server.set_read_timeout(wait).expect("a moment");
        let asked = |address: &'static str| {
            host.outside(move || {
                let any = if address == HOST_4 {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any).expect("an address");
                let to = socket_address(address, 53);
                socket.send_to(b"?", to).expect("a route");
            });
            server.recv_from(&mut [0; 8]).is_ok()
        };
        let (_, exam) = scene.examine();
        let words = [
            "inet filter input policy drops udp port 53, and a name server answers there",
            "let udp port 53 pass in chain inet filter input",
        ];
        has(&exam, NAME_SERVER_DROPPED, &words);
        has(&exam, PASSES, &["tcp port 53 passes"]);
        assert!(!asked(HOST_4) && !asked(HOST_6));
        // As it was advised.
        lab::nft("add rule inet filter input udp dport 53 accept\n");
        let (_, exam) = scene.examine();
        has_not(&exam, NAME_SERVER_DROPPED);
        assert!(asked(HOST_4) && asked(HOST_6));
    });
}

/// Another cable with a default route of its own, in the shade of the first one's.
fn second_uplink() -> Node {
    let other = Node::new();
    other.cable("peer1", "eth1");
    ip("link set eth1 address 02:00:00:00:51:01");
    ip("addr add 198.51.100.1/24 dev eth1");
    ip("route add default via 198.51.100.2 dev eth1 metric 500");
    other.ip("addr add 198.51.100.2/24 dev peer1");
    other.ip("addr add 203.0.113.9/32 dev peer1");
    other.ip("neigh replace 198.51.100.1 lladdr 02:00:00:00:51:01 dev peer1 nud permanent");
    other
}

#[test]
fn what_differs_from_interface_to_interface_is_told() {
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        let other = second_uplink();
        scene.install();
        scene.open();
        lab::nft(
            "table ip count { chain input {
                type filter hook input priority -200
                iifname \"eth1\" tcp dport 80 counter
            }\n}\n",
        );
        // The way of the answer is another; what counts is whether the packet is let in.
        let arrives = || {
            lab::nft(
                "flush chain ip count input\nadd rule ip count input iifname \"eth1\" tcp dport 80 counter\n",
            );
            other.run(|| {
                crate::host::try_once_from(
                    "203.0.113.9",
                    "198.51.100.1",
                    80,
                    Duration::from_millis(300),
                )
            });
            !tool("nft", &["list", "chain", "ip", "count", "input"]).contains("packets 0 ")
        };
        for (filter, is_told) in [("1", true), ("2", false)] {
            for name in ["all", "eth0", "eth1"] {
                let switch = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
                std::fs::write(switch, filter).expect("our own namespace's");
            }
            let (_, exam) = scene.examine();
            match is_told {
                true => has(
                    &exam,
                    REVERSE_PATH,
                    &["eth0 and eth1", "net.ipv4.conf.eth1.rp_filter=2"],
                ),
                false => has_not(&exam, REVERSE_PATH),
            }
            assert_eq!(arrives(), !is_told, "rp_filter {filter}");
        }
        // Dropped on one of them.
        lab::nft(
            "table inet inner { chain input {
                type filter hook input priority 0
                iifname \"eth1\" tcp dport 80 drop
            }\n}\n",
        );
        let (_, exam) = scene.examine();
        let words = [
            "port 80 is dropped on eth1 over IPv4",
            "inet inner input rule",
            "an address of eth1",
        ];
        has(&exam, ONE_INTERFACE, &words);
        assert!(host.probe_both(80).contains(&Seen::Connected));
    });
}

#[test]
fn what_cannot_be_judged_is_not_guessed_at() {
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        scene.install();
        lab::nft(
            "table inet odd { chain input {
                type filter hook input priority 0
                tcp dport 80 numgen random mod 2 0 drop
            }\n}\n",
        );
        let (_, exam) = scene.examine();
        let words = [
            "inet odd input rule decides over tcp port 80",
            "numgen random mod 2 0 drop",
            "acmegate explain",
        ];
        has(&exam, NOT_UNDERSTOOD, &words);
        has_not(&exam, PASSES);
    });
}

#[test]
fn what_stands_beside_the_rules_is_told() {
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        scene.install();
        let (_, exam) = scene.examine();
        has_not(&exam, LEGACY);
        has_not(&exam, NO_SYN_COOKIES);
        let set = |switch: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/{switch}"), value).expect("our own");
        };
        set("tcp_syncookies", "0");
        set("tcp_max_syn_backlog", "64");
        let rule = "-A INPUT -p tcp --dport 80 -j DROP";
        tool("iptables-legacy", &rule.split(' ').collect::<Vec<_>>());
        let (_, exam) = scene.examine();
        has(
            &exam,
            LEGACY,
            &["its tables: filter", "`iptables-legacy-save`"],
        );
        has(
            &exam,
            NO_SYN_COOKIES,
            &["after 64 half-open connections", "tcp_syncookies=1"],
        );
        // Nobody could see what they do, and they do it.
        scene.open();
        assert_ne!(host.probe(HOST_4, 80), Seen::Connected);
    });
}

#[test]
fn a_redirection_to_the_gate_is_as_it_should_be() {
    inside(|| {
        let host = Host::new();
        let mut scene = Scene::new(&host, &ALONE);
        scene.config = "[http]\nlisten = [\"[::]:8080\"]\n[firewall]\nports = [80]\n".to_owned();
        lab::nft(include_str!("../../data/rulesets/gallery/redirected.nft"));
        lab::nft("add rule inet filter input tcp dport 8080 accept\n");
        scene.install();
        let (_, exam) = scene.examine();
        has(
            &exam,
            SENT_ELSEWHERE,
            &["fine", "this host's port 8080, where acmegate listens"],
        );
        scene.open();
        assert_eq!(host.probe_both(80), [Seen::Connected; 2]);
    });
}

/// As `acmegate` asks, and beside the longest lists that people have.
#[test]
fn a_hundred_thousand_prefixes_are_no_burden() {
    use nlink::netlink::nftables::{Family, Set, SetElement, SetKeyType};
    use nlink::netlink::{Connection, Nftables};
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        scene.load(Rules::Nft(include_str!(
            "../../data/rulesets/gallery/geo-block.nft"
        )));
        scene.install();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let nft = Connection::<Nftables>::new().expect("netlink");
            let set = Set::new("geoip-shell", "block_4")
                .family(Family::Inet)
                .key_type(SetKeyType::Ipv4Addr)
                .interval();
            let prefixes: Vec<SetElement> = (0..100_000u32)
                .map(|n| {
                    let start = 0x0100_0000 + n * 0x200;
                    SetElement::ipv4_range(start.into(), (start + 0xff).into())
                })
                .collect();
            for some in prefixes.chunks(700) {
                nft.add_set_elements(&set, some).await.expect("prefixes");
            }
        });
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let start = Instant::now();
                let (_, exam) = scene.examine();
                has(&exam, DROPS_SOME, &["block_4"]);
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("examined beside 100,000 prefixes: {times:?}");
        assert!(times[4] < Duration::from_millis(500), "{times:?}");
    });
}

#[test]
fn without_the_power_to_read_nothing_is_said_to_be_well() {
    inside(|| {
        let host = Host::new();
        let scene = Scene::new(&host, &ALONE);
        let patient = scene.patient();
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).expect("one may always have less");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let exam = runtime.block_on(reading::examine(&patient));
        assert_eq!(exam.findings, []);
        let [why] = exam.not_covered.as_slice() else {
            panic!("{exam:?}")
        };
        assert!(why.contains("run as root"), "{why}");
    });
}

#[test]
fn the_whole_letter_of_one_host_can_be_read() {
    inside(|| {
        let host = Host::new();
        let case = CASES
            .iter()
            .find(|case| case.name == "three chains that drop")
            .expect("it is there");
        let scene = Scene::new(&host, case);
        scene.install();
        let (_, exam) = scene.examine();
        let lines = [
            "inet early pre (nftables): prerouting, priority -150, policy accept, 1 rule; drops 80/tcp",
            "inet filter input (nftables): input, priority 0, policy drop, 4 rules; drops 80/tcp",
            "inet acmegate guard (acmegate): prerouting, priority -110, policy accept, 1 rule",
            "ways in: IPv4 by eth0, IPv6 by eth0",
        ];
        for line in lines {
            assert!(
                exam.looked_at.iter().any(|at| at == line),
                "{:#?}",
                exam.looked_at
            );
        }
        assert_eq!(exam.findings[0].severity, Severity::Fault);
        assert!(exam.findings[0].evidence.len() >= 3);
    });
}
