//! A host with a firewall and a peer somewhere on the Internet, joined by one cable.
//!
//! A test starts itself again inside `unshare -Urn`: there it is root over fresh namespaces, and
//! everything in them ends with it. The process is the host (`eth0`); one thread moves into a
//! second network namespace and is the peer, whose addresses are not on the host's link.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nlink::netlink::{Connection, Nftables};
use socket2::{Domain, Protocol, Socket, Type};

pub const HOST_4: &str = "192.0.2.1";
pub const HOST_6: &str = "2001:db8:1::1";
/// A source that stands in no list.
pub const PEER_4: &str = "198.51.100.7";
pub const PEER_6: &str = "2001:db8:2::7";
/// A source that the lists of the tests hold.
pub const LISTED_4: &str = "198.51.100.200";

const HOST_MAC: &str = "02:00:00:00:00:01";
const PEER_MAC: &str = "02:00:00:00:00:02";

/// The ports that somebody listens on.
pub const PORTS: [u16; 16] = [
    22, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 443, 444, 8000, 8080, 9000,
];

/// Set in the process that is inside.
const INSIDE: &str = "ACMEGATE_NETNS_TEST";
/// How long a dropped connection is waited for; a passed one takes a tenth of a millisecond.
const SHORT: Duration = Duration::from_millis(150);
/// How long one is waited for before it is called dropped against the verdict.
const LONG: Duration = Duration::from_secs(5);

/// Runs `inner` in fresh namespaces. `name` is the test's own path, by which it is started again.
pub fn inside(name: &str, inner: impl FnOnce(World)) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        return inner(World::new());
    }
    let test = std::env::current_exe().expect("the path of this test");
    let output = Command::new("unshare")
        .args(["-Urn", "--kill-child", "--"])
        .arg(test)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output()
        .unwrap_or_else(|error| panic!("unshare (package util-linux): {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "inside the namespaces:\n{text}\n{errors}"
    );
    assert!(
        text.contains("1 passed"),
        "no test is called {name}:\n{text}"
    );
}

struct Attempt {
    from: IpAddr,
    to: SocketAddr,
    limit: Duration,
}

pub struct World {
    runtime: tokio::runtime::Runtime,
    attempts: Sender<Attempt>,
    answers: Receiver<bool>,
}

impl World {
    fn new() -> Self {
        let (attempts, orders) = channel();
        let (results, answers) = channel();
        std::thread::spawn(move || peer(&orders, &results));
        assert!(answers.recv().expect("the peer is up"));
        ip("link set lo up");
        ip("link set eth0 up");
        ip(&format!("addr add {HOST_4}/24 dev eth0"));
        ip(&format!("addr add {HOST_6}/64 dev eth0 nodad"));
        ip("route add default via 192.0.2.254");
        ip("-6 route add default via 2001:db8:1::fe");
        // A firewall that drops neighbour discovery cuts off IPv6 altogether. That is not what is
        // asked here: both ends know each other.
        ip(&format!(
            "neigh replace 2001:db8:1::fe lladdr {PEER_MAC} dev eth0 nud permanent"
        ));
        for port in PORTS {
            let listener = TcpListener::bind(("::", port)).expect("a free port in a new namespace");
            std::thread::spawn(move || listener.incoming().for_each(drop));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        Self {
            runtime,
            attempts,
            answers,
        }
    }

    /// Replaces the whole ruleset by an nftables file.
    pub fn nft(&self, rules: &str) {
        self.try_nft(rules)
            .unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    /// The same, where nft may refuse it.
    pub fn try_nft(&self, rules: &str) -> Result<(), String> {
        let rules = format!("flush ruleset\n{rules}");
        try_feed("nftables", "nft", &["-f", "-"], &rules)
    }

    /// Replaces the whole ruleset by what `iptables-save` prints.
    pub fn iptables(&self, rules: &str) {
        self.nft("");
        feed("iptables", "iptables-nft-restore", &[], rules);
    }

    /// The same for IPv6.
    pub fn ip6tables(&self, rules: &str) {
        self.nft("");
        feed("iptables", "ip6tables-nft-restore", &[], rules);
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A new netlink connection of the host.
    pub fn netlink(&self) -> Connection<Nftables> {
        self.block_on(async { Connection::<Nftables>::new() })
            .expect("netlink")
    }

    /// Whether a connection from `from` to the host's `port` comes about. `expected` only says
    /// how long to wait for the opposite.
    pub fn connects(&self, from: &str, port: u16, expected: bool) -> bool {
        let from: IpAddr = from.parse().expect("an address");
        let host = if from.is_ipv4() { HOST_4 } else { HOST_6 };
        let to = SocketAddr::new(host.parse().expect("an address"), port);
        let attempt = |limit| {
            self.attempts
                .send(Attempt { from, to, limit })
                .expect("the peer is there");
            self.answers.recv().expect("the peer answers")
        };
        attempt(SHORT) || (expected && attempt(LONG))
    }
}

/// The peer's thread: its own network namespace, the other end of the cable, and connections on
/// request. Nothing of the rest of the process moves.
fn peer(orders: &Receiver<Attempt>, results: &Sender<bool>) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace for the peer");
    let host = std::process::id();
    ip(&format!(
        "link add peer0 address {PEER_MAC} type veth peer name eth0 address {HOST_MAC} netns {host}"
    ));
    ip("link set lo up");
    ip("link set peer0 up");
    ip("addr add 192.0.2.254/24 dev peer0");
    ip("addr add 2001:db8:1::fe/64 dev peer0 nodad");
    for address in [PEER_4, LISTED_4] {
        ip(&format!("addr add {address}/32 dev peer0"));
    }
    ip(&format!("addr add {PEER_6}/128 dev peer0 nodad"));
    ip(&format!(
        "neigh replace {HOST_6} lladdr {HOST_MAC} dev peer0 nud permanent"
    ));
    let _ = results.send(true);
    for Attempt { from, to, limit } in orders {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
            .expect("a socket");
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .expect("the peer's own address");
        let connected = socket.connect_timeout(&to.into(), limit).is_ok();
        let _ = results.send(connected);
    }
}

fn ip(arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    feed("iproute2", "ip", &arguments, "");
}

/// Runs a program on `input`, and says which package it is from if it is not there.
fn feed(package: &str, program: &str, arguments: &[&str], input: &str) {
    try_feed(package, program, arguments, input).unwrap_or_else(|refusal| panic!("{refusal}"));
}

/// The same, where the program may refuse it.
pub fn try_feed(
    package: &str,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} (Debian package {package}): {error}"));
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {errors}\n{input}"))
}
