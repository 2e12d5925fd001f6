//! The host around the rules: routes, published ports, owned tables; and that it is left alone.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use acmegate::doctor::path::{End, Knock, Protocol};
use acmegate::doctor::twin::Source;

use super::{ask, fates, knock, one, order};
use crate::lab::{Node, inside, ip, nft};
use crate::world;

fn from_the_world(port: u16) -> Knock {
    Knock {
        interface: "eth0".to_owned(),
        source: "198.51.100.7".parse().expect("an address"),
        destination: "192.0.2.1".parse().expect("an address"),
        protocol: Protocol::Tcp,
        port,
    }
}

/// A host between the world and a container whose port 8080 it publishes as its own port 80.
fn published(rules: &str) -> (Node, Node) {
    let (outside, container) = (Node::new(), Node::new());
    outside.cable("wan0", "eth0");
    container.cable("uplink", "docker0");
    ip("addr add 192.0.2.1/24 dev eth0");
    ip("route add default via 192.0.2.254");
    ip("addr add 172.17.0.1/16 dev docker0");
    outside.ip("addr add 192.0.2.254/24 dev wan0");
    outside.ip("addr add 198.51.100.7/32 dev wan0");
    container.ip("addr add 172.17.0.2/16 dev uplink");
    container.ip("route add default via 172.17.0.1");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a switch");
    nft(rules);
    (outside, container)
}

const DNAT: &str =
    "table ip nat { chain prerouting { type nat hook prerouting priority dstnat; policy accept;
    iif eth0 tcp dport 80 dnat to 172.17.0.2:8080
}\n }\n";

/// Whether the container is reached from the world.
fn is_reached(outside: &Node, container: &Node, expected: bool) -> bool {
    let listener = container
        .run(|| TcpListener::bind(("172.17.0.2", 8080)))
        .expect("a free port");
    let thread = std::thread::spawn(move || listener.incoming().take(1).for_each(drop));
    let to: SocketAddr = "192.0.2.1:80".parse().expect("an address");
    let limit = if expected { 5000 } else { 300 };
    let reached = outside.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(limit)));
    let reached = reached.map(|mut stream| stream.read(&mut [0]));
    drop(thread);
    reached.is_ok()
}

#[test]
fn a_published_port_is_sent_on() {
    inside(|| {
        let (outside, container) = published(DNAT);
        let fate = fates(vec![from_the_world(80)]).remove(0);
        let there = End::Forwarded {
            interface: "docker0".to_owned(),
            address: "172.17.0.2".parse().expect("an address"),
            port: 8080,
        };
        assert_eq!(fate.end, there);
        assert!(is_reached(&outside, &container, true));
        nft("table inet filter { chain forward { type filter hook forward priority filter; policy drop;
            tcp dport 80 accept
        }\n }");
        let fate = fates(vec![from_the_world(80)]).remove(0);
        assert_eq!(fate.end, End::Dropped { rejects: false });
        let culprit = fate.culprit().expect("the policy").to_string();
        assert_eq!(culprit, "inet filter forward: its policy drop");
        assert!(!is_reached(&outside, &container, false));
    });
}

/// Only a rule of `ip rule` and a table beside the main one lead to the container.
#[test]
fn marks_lead_through_other_tables() {
    inside(|| {
        let rules = format!(
            "{DNAT}table ip mangle {{ chain prerouting {{ type filter hook prerouting priority mangle; policy accept;
                tcp dport 80 meta mark set 0x5
            }}\n }}\n"
        );
        let (outside, container) = published(&rules);
        ip("route del 172.17.0.0/16 dev docker0");
        ip("route add 172.17.0.0/16 dev docker0 table 100");
        let lost = fates(vec![from_the_world(80)]).remove(0);
        assert!(matches!(lost.end, End::Forwarded { ref interface, .. } if interface == "eth0"));
        ip("rule add fwmark 0x5 lookup 100");
        let sent = fates(vec![from_the_world(80)]).remove(0);
        assert!(matches!(sent.end, End::Forwarded { ref interface, .. } if interface == "docker0"));
        assert!(is_reached(&outside, &container, true) || !sent.passes());
    });
}

/// Nothing is sent, nothing is changed: neither the host's interfaces nor its rules notice.
#[test]
fn the_host_is_left_alone() {
    let name = "twin::host::the_host_is_left_alone";
    world::inside(name, |world| {
        world.nft(
            "table inet filter {
                counter every { }
                chain input { type filter hook input priority filter; policy drop;
                    meta l4proto tcp counter name every
                    tcp dport 80 reject with tcp reset
                }
                chain output { type filter hook output priority filter; policy accept;
                    meta l4proto tcp counter name every
                }
            }",
        );
        let links = || {
            let mut command = std::process::Command::new("ip");
            command.args(["-o", "link"]);
            crate::lab::run(command, Duration::from_secs(20))
                .success()
                .stdout
        };
        let rules = || crate::lab::run_nft(&["-a", "list", "ruleset"]);
        let (before, listed) = (links(), rules());
        let asked = order(
            Source::Live,
            vec![knock(world::PEER_4, 80), knock(world::PEER_6, 81)],
        );
        let first = ask(&asked).expect("a twin");
        let second = ask(&asked).expect("a twin");
        assert_eq!(first.fates, second.fates);
        assert_eq!(first.generation, second.generation);
        assert_eq!(links(), before);
        assert_eq!(rules(), listed);
    });
}

#[test]
fn an_owned_table_is_copied_and_belongs_to_nobody_there() {
    let name = "twin::host::an_owned_table_is_copied_and_belongs_to_nobody_there";
    world::inside(name, |world| {
        world.nft("");
        // It lives as long as the program.
        let mut command = std::process::Command::new("nft");
        command.arg("-i").stdin(std::process::Stdio::piped());
        let mut owner = command
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("nft");
        let rules = "add table inet mine { flags owner; }; add chain inet mine input { type filter hook input priority 0; policy drop; }\n";
        let mut input = owner.stdin.take().expect("piped");
        std::io::Write::write_all(&mut input, rules.as_bytes()).expect("it reads");
        crate::lab::wait_for(Duration::from_secs(10), "the table", || {
            crate::lab::run_nft(&["list", "ruleset"])
                .contains("policy drop")
                .then_some(())
        });
        let answer = ask(&order(Source::Live, vec![knock(world::PEER_4, 80)])).expect("a twin");
        assert_eq!(answer.fates[0][0].end, End::Dropped { rejects: false });
        assert_eq!(answer.not_carried, Vec::<String>::new());
        assert_eq!(
            answer.otherwise,
            ["table inet mine belongs to a program, here to nobody"]
        );
        drop(input);
        let _ = owner.wait();
        assert!(one(world::PEER_4, 80).passes());
    });
}
