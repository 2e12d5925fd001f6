//! A container behind rules of iptables-nft, written as Docker writes them, for both families.

use std::net::TcpListener;

use crate::host::Host;
use crate::lab::{Daemon, Node, TempDir, inside, ip, ruleset};
use crate::managers::life::{Outside, attach, leaves_nothing, window_and_reloads};
use crate::managers::own::tool;
use crate::managers::validations::{key_authorization, serve};

const CONTAINER_4: &str = "172.17.0.2";
const CONTAINER_6: &str = "fd00:17::2";
/// What may be asked of the host; some of it is open, and nothing else becomes so.
const PORTS: [u16; 6] = [22, 53, 80, 443, 3306, 8080];

/// The container answers; the gate only opens.
const WINDOWS_ONLY: &str = "[http]\nlisten = []\n";

/// As `iptables-save` shows a host that drops by default and publishes port 80 of one container.
fn rules(container: &str, network: &str, loopback: &str, to: &str) -> String {
    format!(
        "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d {container} ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s {network} ! -o docker0 -j MASQUERADE
-A POSTROUTING -s {container} -d {container} -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination {to}
COMMIT
"
    )
}

/// The bridge, the container that answers every request alike, the rules.
pub struct Docker {
    saved: [(&'static str, String); 2],
    _directory: TempDir,
    _container: Node,
}

impl Docker {
    pub fn new(body: String) -> Self {
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{family}"), "1").expect("our own namespace's");
        }
        ip("link add docker0 type bridge");
        ip("link set docker0 up");
        ip("addr add 172.17.0.1/16 dev docker0");
        ip("addr add fd00:17::1/64 dev docker0 nodad");
        let container = Node::new();
        container.cable("eth0", "veth0");
        ip("link set veth0 master docker0");
        container.ip(&format!("addr add {CONTAINER_4}/16 dev eth0"));
        container.ip(&format!("addr add {CONTAINER_6}/64 dev eth0 nodad"));
        container.ip("route add default via 172.17.0.1");
        container.ip("-6 route add default via fd00:17::1");
        let listener = container.run(|| TcpListener::bind("[::]:80").expect("its own port"));
        serve(listener, body);

        let directory = TempDir::new();
        let rules_4 = rules(
            "172.17.0.2/32",
            "172.17.0.0/16",
            "127.0.0.0/8",
            "172.17.0.2:80",
        );
        let rules_6 = rules(
            "fd00:17::2/128",
            "fd00:17::/64",
            "::1/128",
            "[fd00:17::2]:80",
        );
        let docker = Self {
            saved: [
                ("iptables-nft", directory.write("4", &rules_4)),
                ("ip6tables-nft", directory.write("6", &rules_6)),
            ],
            _directory: directory,
            _container: container,
        };
        docker.restore();
        docker
    }

    /// Loads all of it, as a boot does.
    pub fn restore(&self) {
        for (program, file) in &self.saved {
            tool(&format!("{program}-restore"), &[file]);
        }
    }

    /// `systemctl restart docker`: its chains are taken apart and made again, command by command.
    pub fn restart(&self) {
        for (program, file) in &self.saved {
            let own = std::fs::read_to_string(file).expect("written above");
            let jumps = [
                "-A FORWARD -j DOCKER-USER",
                "-A FORWARD -o docker0 -j DOCKER",
            ];
            let of_table = |name: &str| {
                let (_, rest) = own.split_once(&format!("*{name}\n")).expect("its table");
                let (rules, _) = rest.split_once("COMMIT").expect("its end");
                rules.lines().map(str::to_owned).collect::<Vec<_>>()
            };
            let do_it = |table: &str, words: &str| {
                let words: Vec<_> = ["-t", table].into_iter().chain(words.split(' ')).collect();
                tool(program, &words);
            };
            for jump in jumps {
                do_it("filter", &jump.replacen("-A", "-D", 1));
            }
            for table in ["nat", "filter"] {
                do_it(table, "-F DOCKER");
            }
            for table in ["nat", "filter"] {
                let rules = of_table(table);
                for rule in rules.iter().filter(|rule| rule.starts_with("-A DOCKER ")) {
                    do_it(table, rule);
                }
            }
            for jump in jumps.into_iter().rev() {
                do_it("filter", &jump.replacen("-A", "-I", 1));
            }
        }
    }
}

#[test]
fn a_guarded_container_outlives_restarts_and_restores() {
    inside(|| {
        let host = Host::new();
        let docker = Docker::new(key_authorization());
        assert!(host.lets_in(80), "the control: published to the world");
        assert_eq!(host.open_ports(&PORTS), [22, 80]);
        let before = ruleset();
        let daemon = Daemon::start(&format!("{WINDOWS_ONLY}[firewall]\nports = [80]\n"));
        let mut round = 0;
        window_and_reloads(&host, &daemon, Outside::Ours, 4, || {
            round += 1;
            match round % 3 {
                0 => docker.restore(),
                1 => docker.restart(),
                _ => save_and_restore(),
            }
        });
        docker.restore();
        leaves_nothing(daemon, &before);
        assert_eq!(host.open_ports(&PORTS), [22, 80]);
    });
}

/// Docker's own place for an administrator's rules: what is published is shut to the world there.
#[test]
fn a_window_in_dockers_own_chain_outlives_restarts_and_restores() {
    inside(|| {
        let host = Host::new();
        let docker = Docker::new(key_authorization());
        let shut = |how: &str| {
            for (program, home) in [
                ("iptables-nft", "10.0.0.0/8"),
                ("ip6tables-nft", "fc00::/7"),
            ] {
                let rule = format!("{how} DOCKER-USER -i eth0 -p tcp ! -s {home} -j DROP");
                tool(program, &rule.split(' ').collect::<Vec<_>>());
            }
        };
        shut("-I");
        let chains = ["ip filter DOCKER-USER", "ip6 filter DOCKER-USER"];
        let daemon = Daemon::start(&format!(
            "{WINDOWS_ONLY}{}",
            attach(&chains) + "ports = [80]\n"
        ));
        let mut round = 0;
        window_and_reloads(&host, &daemon, Outside::Theirs, 5, || {
            round += 1;
            match round % 3 {
                0 => {
                    docker.restore();
                    shut("-I");
                }
                1 => save_and_restore(),
                _ => docker.restart(),
            }
        });
        assert_eq!(host.open_ports(&PORTS), [22]);
        docker.restore();
        shut("-I");
        daemon.cli(&["open", "--lease", "renewal"]).success();
        save_and_restore();
        assert_eq!(host.open_ports(&PORTS), [22, 80], "in a window");
        daemon.cli(&["firewall", "remove"]).success();
        assert!(!ruleset().contains("0x08000000"), "{}", ruleset());
    });
}

/// `iptables-save | iptables-restore`, as netfilter-persistent and many scripts do.
pub fn save_and_restore() {
    let directory = TempDir::new();
    for program in ["iptables-nft", "ip6tables-nft"] {
        let saved = directory.write(program, &tool(&format!("{program}-save"), &[]));
        tool(&format!("{program}-restore"), &[&saved]);
    }
}
