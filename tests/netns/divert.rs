//! The gate beside a web server that keeps its port: visitors reach the server, validators the gate,
//! and with the gate dead nobody from outside reaches anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen, on_each_host};
use crate::lab::{self, Daemon, Node, Process, TempDir, inside, ip, ruleset, send, wait_for};
use crate::scope::Way;

const START: Duration = Duration::from_secs(10);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const DIVERT: &str = "[http]\nlisten = \"divert\"\n";

/// A real nginx, on ports of both families.
pub struct Site {
    _nginx: Process,
    _directory: TempDir,
}

/// What nginx answers, with the source address it sees. One process: nobody's workers outlive it.
const CONFIG: &str = "daemon off;
master_process off;
user root;
error_log stderr;
pid DIRECTORY/pid;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path DIRECTORY/body;
    proxy_temp_path DIRECTORY/proxy;
    fastcgi_temp_path DIRECTORY/fastcgi;
    uwsgi_temp_path DIRECTORY/uwsgi;
    scgi_temp_path DIRECTORY/scgi;
    keepalive_timeout 60s;
    server {
        LISTEN
        location / { return 200 'the site greets $remote_addr'; }
        location /.well-known/acme-challenge/ { root DIRECTORY/www; default_type text/plain; }
    }
}
";

impl Site {
    /// Starts it here, or on another host, on ports 80 and 443.
    pub fn start(on: Option<&Node>) -> Self {
        Self::start_on(&[80, 443], on)
    }

    /// The same on other ports.
    pub fn start_on(ports: &[u16], on: Option<&Node>) -> Self {
        let directory = TempDir::new();
        let path = directory.path().display().to_string();
        let ports = ports.iter();
        let listen: Vec<_> = (ports.clone())
            .map(|port| format!("listen {port}; listen [::]:{port};"))
            .collect();
        let config = CONFIG.replace("DIRECTORY", &path);
        let file = directory.write("nginx.conf", &config.replace("LISTEN", &listen.join(" ")));
        std::fs::create_dir_all(directory.path().join("www/.well-known/acme-challenge"))
            .expect("a directory");
        directory.write(
            &format!("www/.well-known/acme-challenge/{TOKEN}"),
            &format!("{TOKEN}.{THUMBPRINT}"),
        );
        let mut command = match on {
            Some(node) => node.command("nginx"),
            None => Command::new(lab::find("nginx")),
        };
        command.args(["-c", &file, "-e", "stderr"]);
        let mut nginx = Process::spawn(command);
        let answers = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        let ready = || match on {
            Some(node) => node.run(|| ports.clone().all(|port| answers(*port))),
            None => ports.clone().all(|port| answers(*port)),
        };
        wait_for(START, "nginx serves", || {
            assert!(nginx.ended().is_none(), "nginx: {}", nginx.stderr());
            ready().then_some(())
        });
        Self {
            _nginx: nginx,
            _directory: directory,
        }
    }
}

/// What a peer gets: the whole answer, or nothing.
pub fn get(host: &Host, address: &str, path: &str) -> String {
    get_from(host, address, 80, path)
}

/// The same from another port.
pub fn get_from(host: &Host, address: &str, port: u16, path: &str) -> String {
    let mut peer = host.connect(address, port);
    ask(&mut peer, path, "close")
}

fn ask(peer: &mut TcpStream, path: &str, connection: &str) -> String {
    peer.set_read_timeout(Some(Duration::from_secs(8)))
        .expect("a timeout");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: www.example.com\r\nConnection: {connection}\r\n\r\n");
    // Who refuses may close before it has read.
    let _ = peer.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend(&buffer[..count]),
        }
        let text = String::from_utf8_lossy(&answer);
        if connection != "close" && text.contains("greets") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn challenge() -> String {
    format!("/.well-known/acme-challenge/{TOKEN}")
}

const FOREIGN: [&str; 2] = [HOST_4, HOST_6];

#[test]
fn visitors_reach_the_site_and_validators_the_gate_in_every_mode() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let _site = Site::start(None);
            let before = ruleset();
            let config = format!("{}{DIVERT}", way.prepare());
            let attached_to = ruleset();
            let mut daemon = Daemon::start(&config);
            let visitor = || get(host, HOST_PRIVATE, "/");
            assert!(visitor().ends_with("greets 10.0.0.2"), "{}", visitor());
            assert_eq!(FOREIGN.map(|to| host.probe(to, 80)), [Seen::Silence; 2]);

            let answer = format!("{TOKEN}.{THUMBPRINT}");
            daemon
                .cli(&["answer", "add", "www.example.com", &answer])
                .success();
            daemon.cli(&["open", "--lease", "a"]).success();
            for to in FOREIGN {
                let validated = get(host, to, &challenge());
                assert!(validated.starts_with("HTTP/1.1 200 "), "{validated}");
                assert!(validated.ends_with(&answer), "{validated}");
                let other = get(host, to, "/");
                assert!(other.starts_with("HTTP/1.1 4"), "{other}");
                assert!(!other.contains("nginx"), "{other}");
            }
            assert!(visitor().ends_with("greets 10.0.0.2"), "{}", visitor());
            // The log says which port they came to, not which they were handed to.
            wait_for(START, "it is told", || {
                let log = daemon.log();
                (log.matches("port=80").count() >= 4).then_some(())
            });
            daemon.cli(&["close", "--lease", "a"]).success();
            assert_eq!(FOREIGN.map(|to| host.probe(to, 80)), [Seen::Silence; 2]);
            assert!(visitor().ends_with("greets 10.0.0.2"), "{}", visitor());
            // Nobody from outside reaches the port that peers are handed to.
            daemon.cli(&["open", "--lease", "a"]).success();
            for to in FOREIGN {
                assert_ne!(host.probe(to, 8402), Seen::Connected);
            }
            assert_eq!(daemon.terminate(), 0);
            assert_eq!(ruleset(), attached_to);
            if matches!(way, Way::Guard) {
                assert_eq!(ruleset(), before);
            }
        });
    });
}

#[test]
fn what_a_window_is_not_for_reaches_neither_the_gate_nor_the_site() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let _site = Site::start(None);
            let daemon = Daemon::start(&format!("{}{DIVERT}", way.prepare()));
            for (option, value, open, shut) in [
                ("--family", "ipv4", HOST_4, HOST_6),
                ("--family", "ipv6", HOST_6, HOST_4),
                ("--address", HOST_4, HOST_4, HOST_6),
                ("--address", HOST_6, HOST_6, HOST_4),
            ] {
                let only = ["open", "--lease", "a", option, value];
                daemon.cli(&only).success();
                let answer = get(host, open, "/");
                assert!(
                    answer.starts_with("HTTP/1.1 4"),
                    "{way:?} {value}: {answer}"
                );
                let seen = host.probe(shut, 80);
                assert_eq!(seen, Seen::Silence, "{way:?} {option} {value}: {shut}");
            }
        });
    });
}

#[test]
fn whether_visitors_may_come_is_the_attached_chains_own_to_say() {
    inside(|| {
        let host = Host::new();
        let _site = Site::start(None);
        lab::nft(
            "table inet filter {
            chain input {
                type filter hook input priority filter; policy drop;
                iif lo accept
                meta l4proto icmpv6 accept
                ct state established,related accept
            }
            }",
        );
        let attach = "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n";
        let daemon = Daemon::start(&format!("{attach}{DIVERT}"));
        daemon.cli(&["open", "--lease", "a"]).success();
        for to in FOREIGN {
            let answer = get(&host, to, "/");
            assert!(answer.starts_with("HTTP/1.1 4"), "{to}: {answer}");
        }
        // The allow-list is the gate's; a window is no reason to let it through to the site.
        assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Silence);
    });
}

#[derive(Clone, Copy, Debug)]
enum Closed {
    Drop,
    Reject,
    Pass,
}

#[test]
fn with_the_gate_killed_in_a_window_not_one_byte_of_the_site_reaches_a_foreign_peer() {
    inside(|| {
        let cases = [Closed::Drop, Closed::Reject, Closed::Pass];
        on_each_host(&cases, |host, closed| {
            let _site = Site::start(None);
            let word = format!("{closed:?}").to_lowercase();
            let config = format!("[firewall]\nclosed = \"{word}\"\n{DIVERT}");
            let mut daemon = Daemon::start(&config);
            daemon
                .cli(&["open", "--lease", "a", "--for", "20s"])
                .success();
            let opened = Instant::now();
            for to in FOREIGN {
                assert!(get(host, to, "/").starts_with("HTTP/1.1 4"));
            }
            // One that stands in the middle of its request.
            let mut held = FOREIGN.map(|to| host.connect(to, 80));
            for peer in &mut held {
                peer.write_all(b"GET / HTTP/1.1\r\n").expect("it is open");
            }
            send(daemon.front(), Signal::KILL);
            daemon.gone();
            while opened.elapsed() < Duration::from_secs(15) {
                for to in FOREIGN {
                    let seen = host.probe(to, 80);
                    assert_ne!(seen, Seen::Connected, "{closed:?}: {to}");
                }
                for peer in &mut held {
                    peer.set_read_timeout(Some(Duration::from_millis(50)))
                        .expect("a timeout");
                    let _ = peer.write_all(b"Host: www.example.com\r\n\r\n");
                    let mut bytes = [0; 64];
                    let read = peer.read(&mut bytes).unwrap_or(0);
                    assert_eq!(read, 0, "{closed:?}: {}", String::from_utf8_lossy(&bytes));
                }
                let visitor = get(host, HOST_PRIVATE, "/");
                assert!(visitor.ends_with("greets 10.0.0.2"), "{visitor}");
                if opened.elapsed() > Duration::from_secs(10) {
                    break;
                }
            }
            // It comes back and takes the window over.
            daemon.start_again();
            if opened.elapsed() < Duration::from_secs(17) {
                assert!(get(host, HOST_4, "/").starts_with("HTTP/1.1 4"));
            }
        });
    });
}

#[test]
fn outside_of_windows_everybody_reaches_the_site_where_shut_means_pass() {
    inside(|| {
        let host = Host::new();
        let _site = Site::start(None);
        let config = format!("[firewall]\nclosed = \"pass\"\n{DIVERT}");
        let daemon = Daemon::start(&config);
        let mut early = host.connect(HOST_4, 80);
        let greeted = |answer: String| answer.contains("the site greets");
        assert!(greeted(ask(&mut early, "/", "keep-alive")));
        for to in FOREIGN {
            assert!(greeted(get(&host, to, "/")), "{to}");
        }
        daemon.cli(&["open", "--lease", "a"]).success();
        for to in FOREIGN {
            assert!(!greeted(get(&host, to, "/")), "{to}");
        }
        // Who was there before the window stays where they are.
        assert!(greeted(ask(&mut early, "/", "keep-alive")));
        let mut held = host.connect(HOST_4, 80);
        held.write_all(b"GET / HTTP/1.1\r\n").expect("it is open");
        daemon.cli(&["close", "--lease", "a"]).success();
        for to in FOREIGN {
            assert!(greeted(get(&host, to, "/")), "{to}");
        }
        assert!(greeted(ask(&mut early, "/", "keep-alive")));
        // And what the window let in ends with it, at the gate.
        held.set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a timeout");
        let read = held.read(&mut [0; 64]).unwrap_or(0);
        assert_eq!(read, 0, "nothing comes for half a request");
    });
}

#[test]
fn the_site_itself_may_be_the_upstream() {
    inside(|| {
        let host = Host::new();
        let _site = Site::start(None);
        let config = format!(
            "{DIVERT}\n[[site]]\nidentifiers = [\"www.example.com\"]\n\
             answer = {{ upstream = \"http://127.0.0.1:80\" }}\n"
        );
        let daemon = Daemon::start(&config);
        daemon
            .cli(&["open", "--lease", "a", "--identifier", "www.example.com"])
            .success();
        for to in FOREIGN {
            let validated = get(&host, to, &challenge());
            assert!(
                validated.ends_with(&format!("{TOKEN}.{THUMBPRINT}")),
                "{validated}"
            );
            let other = get(&host, to, "/");
            assert!(other.starts_with("HTTP/1.1 301 "), "{other}");
        }
    });
}

#[test]
fn port_443_is_shut_by_the_same_rules() {
    inside(|| {
        let host = Host::new();
        let _site = Site::start(None);
        let config = format!("[firewall]\nports = [80, 443]\n{DIVERT}");
        let daemon = Daemon::start(&config);
        for to in FOREIGN {
            assert_eq!(host.probe(to, 443), Seen::Silence);
        }
        assert_eq!(host.probe(HOST_PRIVATE, 443), Seen::Connected);
        let open = ["open", "--lease", "a", "--port", "443"];
        daemon.cli(&open).success();
        for to in FOREIGN {
            assert_eq!(host.probe(to, 443), Seen::Connected);
            assert_eq!(host.probe(to, 80), Seen::Silence);
            let mut peer = host.connect(to, 443);
            let answer = ask(&mut peer, "/", "close");
            assert!(
                !answer.contains("the site"),
                "the gate, not nginx: {answer}"
            );
        }
    });
}

/// A host whose port 80 is that of a container behind it, with a site.
pub struct Published {
    pub host: Host,
    _site: Site,
    _container: Node,
}

pub fn published() -> Published {
    let host = Host::new();
    let container = Node::new();
    container.cable("eth0", "docker0");
    ip("addr add 172.17.0.1/16 dev docker0");
    ip("addr add fd00:17::1/64 dev docker0 nodad");
    container.ip("addr add 172.17.0.2/16 dev eth0");
    container.ip("addr add fd00:17::2/64 dev eth0 nodad");
    container.ip("route add default via 172.17.0.1");
    container.ip("-6 route add default via fd00:17::1");
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("a sysctl of our own");
    }
    lab::nft(
        "table inet nat {
        chain pre { type nat hook prerouting priority dstnat;
            fib daddr type local tcp dport 80 meta nfproto ipv4 dnat ip to 172.17.0.2:80
            fib daddr type local tcp dport 80 meta nfproto ipv6 dnat ip6 to [fd00:17::2]:80
        }
        }",
    );
    let site = Site::start(Some(&container));
    Published {
        host,
        _site: site,
        _container: container,
    }
}

#[test]
fn a_port_that_is_published_from_a_container_is_diverted_too() {
    inside(|| {
        let Published { host, .. } = &published();
        let published = get(host, HOST_4, "/");
        assert!(published.contains("the site greets"), "{published}");
        let daemon = Daemon::start(DIVERT);
        assert_eq!(FOREIGN.map(|to| host.probe(to, 80)), [Seen::Silence; 2]);
        daemon.cli(&["open", "--lease", "a"]).success();
        for to in FOREIGN {
            let answer = get(host, to, "/");
            assert!(answer.starts_with("HTTP/1.1 4"), "{to}: {answer}");
        }
        let visitor = get(host, HOST_PRIVATE, "/");
        assert!(visitor.ends_with("greets 10.0.0.2"), "{visitor}");
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(FOREIGN.map(|to| host.probe(to, 80)), [Seen::Silence; 2]);
    });
}

/// The gate's answers are no connection that NAT may take for a new one: a router that masquerades
/// would give them another address in the middle, a strict host would call them invalid.
#[test]
fn the_gates_answers_are_not_tracked_either() {
    const OTHER: [&str; 2] = ["192.0.2.7", "2001:db8:1::7"];
    inside(|| {
        let cases = [
            "type nat hook postrouting priority srcnat; oifname eth0 masquerade",
            "type filter hook output priority 0; ct state invalid drop",
        ];
        on_each_host(&cases, |host, chain| {
            ip(&format!("addr add {}/24 dev eth0", OTHER[0]));
            ip(&format!("addr add {}/64 dev eth0 nodad", OTHER[1]));
            let _site = Site::start(None);
            let daemon = Daemon::start(DIVERT);
            lab::nft(&format!("table inet theirs {{ chain c {{ {chain}; }}; }}"));
            daemon.cli(&["open", "--lease", "a"]).success();
            for to in FOREIGN.into_iter().chain(OTHER) {
                let validated = get(host, to, "/");
                assert!(
                    validated.starts_with("HTTP/1.1 4"),
                    "{chain}, {to}: {validated}"
                );
            }
            let visitor = get(host, HOST_PRIVATE, "/");
            assert!(visitor.ends_with("greets 10.0.0.2"), "{visitor}");
        });
    });
}

#[test]
fn a_taken_port_names_its_holder_and_the_key_for_another() {
    inside(|| {
        let _taken = std::net::TcpListener::bind("127.0.0.1:8402").expect("a free port");
        let refused = Daemon::with(DIVERT).refuse();
        assert!(refused.stderr.contains("holds port 8402"), "{refused}");
        assert!(refused.stderr.contains("`divert_port`"), "{refused}");
        let daemon = Daemon::start(&format!("{DIVERT}divert_port = 8403\n"));
        daemon.cli(&["open", "--lease", "a"]).success();
    });
}

#[test]
fn before_a_container_each_connection_stays_where_it_began() {
    inside(|| {
        let Published { host, .. } = &published();
        let daemon = Daemon::start(&format!("[firewall]\nclosed = \"pass\"\n{DIVERT}"));
        let mut early = FOREIGN.map(|to| host.connect(to, 80));
        let mut greets_all = || {
            for peer in &mut early {
                let answer = ask(peer, "/", "keep-alive");
                assert!(answer.contains("the site greets"), "{answer}");
            }
        };
        greets_all();
        daemon.cli(&["open", "--lease", "a"]).success();
        greets_all();
        let mut held = FOREIGN.map(|to| host.connect(to, 80));
        for peer in &mut held {
            peer.write_all(b"GET / HTTP/1.1\r\n").expect("it is open");
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        // What the window let in is the gate's for its grace, and no new connection of the container.
        for peer in &mut held {
            peer.set_read_timeout(Some(Duration::from_secs(4)))
                .expect("a timeout");
            peer.write_all(b"Host: www.example.com\r\n\r\n")
                .expect("within the grace");
            let mut answer = [0; 11];
            peer.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer[..10], b"HTTP/1.1 4");
        }
        greets_all();
    });
}
