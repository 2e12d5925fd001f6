//! Behind real balancers: HAProxy by the PROXY protocol, HAProxy and nginx by X-Forwarded-For. The
//! kernel sees nobody but them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::lab::{Daemon, Node, Process, TempDir, inside, ip, wait_for};

const START: Duration = Duration::from_secs(10);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// Validators, of whom no list knows.
const FOREIGN: [&str; 2] = ["198.51.100.7", "2001:db8:2::7"];
/// A visitor for whom the site is.
const LISTED: &str = "203.0.113.77";
/// The site's public addresses, which are the balancers'.
const PUBLIC: [&str; 2] = ["203.0.113.80", "2001:db8:1::80"];

/// A way through the balancers: its port on [`PUBLIC`].
#[derive(Clone, Copy, Debug)]
enum Way {
    V1 = 81,
    V2 = 82,
    /// HAProxy as a reverse proxy.
    Fields = 83,
    Nginx = 84,
}

const WAYS: [Way; 4] = [Way::V1, Way::V2, Way::Fields, Way::Nginx];

/// Servers are up until one check fails. Those of the PROXY protocol connect and go, that of the
/// reverse proxy asks as well.
const HAPROXY: &str = "
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    default-server check inter 100 rise 1 fall 1
listen v1
    mode tcp
    bind 203.0.113.80:81
    bind [2001:db8:1::80]:81
    server gate 10.0.0.1:80 send-proxy
listen v2
    mode tcp
    bind 203.0.113.80:82
    bind [2001:db8:1::80]:82
    option httpchk
    http-check send meth GET uri / ver HTTP/1.1 hdr Host www.example.com
    server gate 10.0.0.1:80 send-proxy-v2
listen fields
    mode http
    bind 203.0.113.80:83
    bind [2001:db8:1::80]:83
    option forwardfor
    option httpchk
    http-check send meth GET uri / ver HTTP/1.1 hdr Host www.example.com hdr X-Forwarded-For 10.0.0.9
    server gate 10.0.0.1:80 source 10.0.0.3
";

const NGINX: &str = "daemon off;
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
    server {
        listen 203.0.113.80:84;
        listen [2001:db8:1::80]:84;
        location / {
            proxy_pass http://10.0.0.1:80;
            proxy_bind 10.0.0.4;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }
    }
}
";

/// The balancers' host, which is the rest of the world as well.
struct Outside {
    _programs: [Process; 2],
    _directory: TempDir,
    node: Node,
}

impl Outside {
    fn start() -> Self {
        let node = Node::new();
        node.cable("gate0", "eth0");
        ip("addr add 10.0.0.1/24 dev eth0");
        for address in ["10.0.0.2/24", "10.0.0.3/24", "10.0.0.4/24"] {
            node.ip(&format!("addr add {address} dev gate0"));
        }
        for address in [FOREIGN[0], LISTED, PUBLIC[0]] {
            node.ip(&format!("addr add {address}/32 dev lo"));
        }
        for address in [FOREIGN[1], PUBLIC[1]] {
            node.ip(&format!("addr add {address}/128 dev lo nodad"));
        }
        let directory = TempDir::new();
        let path = directory.path().display().to_string();
        let file = directory.write("haproxy.cfg", HAPROXY);
        let mut haproxy = node.command("haproxy");
        haproxy.args(["-db", "-f", &file]);
        let file = directory.write("nginx.conf", &NGINX.replace("DIRECTORY", &path));
        let mut nginx = node.command("nginx");
        nginx.args(["-c", &file, "-e", "stderr"]);
        let mut programs = [Process::spawn(haproxy), Process::spawn(nginx)];
        wait_for(START, "the balancers listen", || {
            for program in &mut programs {
                assert!(program.ended().is_none(), "{}", program.stderr());
            }
            let listens = |way: Way| {
                let address: IpAddr = PUBLIC[0].parse().expect("an address");
                TcpStream::connect((address, way as u16)).is_ok()
            };
            node.run(|| WAYS.into_iter().all(listens)).then_some(())
        });
        Self {
            _programs: programs,
            _directory: directory,
            node,
        }
    }

    /// What a peer gets that comes this way with this request's target and more fields.
    fn get(&self, from: &str, way: Way, target: &str, fields: &str) -> String {
        let from: IpAddr = from.parse().expect("an address");
        let public = PUBLIC[usize::from(from.is_ipv6())];
        let to = SocketAddr::new(public.parse().expect("an address"), way as u16);
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: www.example.com\r\n{fields}Connection: close\r\n\r\n"
        );
        self.node.run(move || {
            let socket =
                Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
            let bound = socket.bind(&SocketAddr::new(from, 0).into());
            bound.expect("the peer's own address");
            socket.connect(&to.into()).expect("a balancer listens");
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(START)).expect("a timeout");
            // Who refuses may close before it has read.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        })
    }
}

fn config(mode: &str) -> String {
    format!(
        "[http]\nredirect_for = \"allow-list\"\n\
         [firewall]\nmode = \"{mode}\"\n\
         [allow]\nprefixes = [\"203.0.113.0/24\"]\n\
         [proxy]\nprotocol_from = [\"10.0.0.2\"]\nheaders_from = [\"10.0.0.3\", \"10.0.0.4\"]\n\
         [[site]]\nidentifiers = [\"www.example.com\"]\n"
    )
}

fn start(mode: &str) -> Daemon {
    let daemon = Daemon::start(&config(mode));
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    let push = ["answer", "add", "www.example.com", &answer];
    daemon.cli(&push).success();
    daemon
}

fn challenge() -> String {
    format!("/.well-known/acme-challenge/{TOKEN}")
}

fn status(answer: &str) -> Option<&str> {
    answer.split(' ').nth(1)
}

/// Waits until so many checks of balancers have ended in this way since they were last counted.
fn checked(daemon: &Daemon, peer: &str, reason: &str, before: usize) -> usize {
    wait_for(START, "balancers check", || {
        let log = daemon.log();
        let told = |line: &&str| {
            line.contains(&format!("peer={peer} "))
                && line.contains(&format!("reason=\"{reason}\""))
        };
        let count = log.lines().filter(told).count();
        (count >= before + 3).then_some(count)
    })
}

#[test]
fn in_gate_only_validators_get_their_answer_and_visitors_what_their_own_address_is_for() {
    inside(|| {
        let daemon = start("gate-only");
        let outside = Outside::start();
        for way in WAYS {
            for foreign in FOREIGN {
                let answer = outside.get(foreign, way, &challenge(), "");
                assert_eq!(status(&answer), Some("200"), "{way:?} {foreign}: {answer}");
                assert!(answer.ends_with(&format!("{TOKEN}.{THUMBPRINT}")));
                let answer = outside.get(foreign, way, "/", "");
                assert_eq!(status(&answer), Some("403"), "{way:?} {foreign}: {answer}");
                // What they say of themselves is not what a balancer says of them.
                let lie = "X-Forwarded-For: 203.0.113.77\r\n";
                let answer = outside.get(foreign, way, "/", lie);
                assert_eq!(status(&answer), Some("403"), "{way:?} {foreign}: {answer}");
            }
            let answer = outside.get(LISTED, way, "/a", "");
            assert_eq!(status(&answer), Some("301"), "{way:?}: {answer}");
            assert!(
                answer
                    .to_lowercase()
                    .contains("location: https://www.example.com/a\r\n"),
                "{answer}"
            );
        }
        let log = daemon.log();
        for peer in [FOREIGN[0], FOREIGN[1], LISTED] {
            assert!(log.contains(&format!("peer={peer} ")), "{log}");
        }
        // nginx passes on the other kind of field as it came, so whose word it is nobody knows.
        let lie = "Forwarded: for=10.0.0.1\r\n";
        let answer = outside.get(FOREIGN[0], Way::Nginx, &challenge(), lie);
        assert_eq!(status(&answer), Some("400"), "{answer}");
    });
}

#[test]
fn in_guard_a_foreign_peer_needs_a_window_though_its_balancer_does_not() {
    inside(|| {
        let daemon = start("guard");
        let outside = Outside::start();
        let refused = |way, foreign| {
            let answer = outside.get(foreign, way, &challenge(), "");
            match way {
                Way::V1 | Way::V2 => assert_eq!(answer, "", "{way:?} {foreign}"),
                // The gate closes without a word; a reverse proxy finds one for that.
                Way::Fields | Way::Nginx => assert_eq!(status(&answer), Some("502"), "{answer}"),
            }
        };
        for way in WAYS {
            for foreign in FOREIGN {
                refused(way, foreign);
            }
            let answer = outside.get(LISTED, way, "/", "");
            assert_eq!(status(&answer), Some("301"), "{way:?}: {answer}");
        }
        let only_v4 = ["open", "--lease", "a", "--family", "ipv4"];
        daemon.cli(&only_v4).success();
        for way in WAYS {
            let answer = outside.get(FOREIGN[0], way, &challenge(), "");
            assert_eq!(status(&answer), Some("200"), "{way:?}: {answer}");
            let answer = outside.get(FOREIGN[0], way, "/", "");
            assert_eq!(status(&answer), Some("403"), "{way:?}: {answer}");
            refused(way, FOREIGN[1]);
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        for way in WAYS {
            refused(way, FOREIGN[0]);
        }
    });
}

#[test]
fn what_balancers_send_to_check_keeps_them_content() {
    inside(|| {
        let daemon = start("guard");
        let outside = Outside::start();
        // A check that only connects says its own ends (v1); one that asks speaks for itself (LOCAL),
        // and is on the allow-list; a reverse proxy's has to say for whom it asks.
        let mut seen = [0; 3];
        for _ in 0..2 {
            seen[0] = checked(&daemon, "10.0.0.2", "peer-gone", seen[0]);
            seen[1] = checked(&daemon, "10.0.0.2", "redirected", seen[1]);
            seen[2] = checked(&daemon, "10.0.0.9", "redirected", seen[2]);
            for way in [Way::V1, Way::V2, Way::Fields] {
                let answer = outside.get(LISTED, way, "/", "");
                assert_eq!(status(&answer), Some("301"), "{way:?}: {answer}");
            }
        }
    });
}
