//! The world of a test: a CA far away, the edge with acmegate, an inner host behind it.
//!
//! ```text
//! outside: CA 203.0.113.10, strangers ── eth0 edge: firewall, acmegate ── inner0 inner host 10.0.0.5
//! ```
//!
//! The test's own process is the edge. The CA is Debian's pebble with its own name server; it
//! answers every name with the edge's address, of one family or of both.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Daemon, Node, Output, Process, TempDir, ip, nft, ruleset, run, wait_for};

pub const EDGE_4: &str = "192.0.2.1";
pub const EDGE_6: &str = "2001:db8:1::1";
pub const INNER: &str = "10.0.0.5";
const CA_4: &str = "203.0.113.10";
const CA_6: &str = "2001:db8:ca::10";
const STRANGER_4: &str = "198.51.100.7";
const STRANGER_6: &str = "2001:db8:bad::7";

/// The name that certificates are ordered for.
pub const NAME: &str = "www.example.com";

/// How many times pebble 2.4 asks for each challenge: three, at once, and all must pass.
const VALIDATIONS: usize = 3;
/// How often a client orders until the CA asks for all challenges: see [`World::issues_for`].
const ORDERS: usize = 4;
/// How long a connection may take that must come about.
const LONG: Duration = Duration::from_secs(5);
/// How long one is waited for that must not; a passed one takes a tenth of a millisecond.
const SHORT: Duration = Duration::from_millis(300);
/// What an ACME client may take. The longest is pebble's own wait for a connection, 15 s.
pub const CLIENT: Duration = Duration::from_secs(90);
/// What starts, or is to be seen in a log, within this.
pub const SOON: Duration = Duration::from_secs(20);

/// Where names lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// To IPv4 alone.
    V4,
    /// To IPv6 alone; the CA's own API is asked over IPv6 then as well.
    V6,
}

impl Names {
    fn ca(self) -> &'static str {
        match self {
            Self::V4 => CA_4,
            Self::V6 => CA_6,
        }
    }
}

pub struct World {
    names: Names,
    /// Where validations come.
    port: u16,
    /// What the gate calls one that went well.
    reason: &'static str,
    pub inner: Node,
    pub directory: TempDir,
    ca: Process,
    _name_server: Process,
    // Last: processes go before the namespace that they are in.
    outside: Node,
}

impl World {
    pub fn new(names: Names) -> Self {
        let directory = TempDir::new();
        let outside = Node::new();
        cable_outside(&outside);
        let inner = Node::new();
        cable_inner(&inner);
        let name_server = start_name_server(&outside, names);
        let ca = start_ca(&outside, names, &directory);
        let world = Self {
            names,
            port: 80,
            reason: "answered",
            inner,
            directory,
            ca,
            _name_server: name_server,
            outside,
        };
        world.fetch_root();
        world
    }

    /// Validations are by TLS-ALPN-01, and this is what the gate calls one that went well.
    pub fn by_tls(self, reason: &'static str) -> Self {
        Self {
            port: 443,
            reason,
            ..self
        }
    }

    /// Starts acmegate behind a firewall, has `life` happen, and ends it. Whatever happens in
    /// between, the ruleset is afterwards what it was before, to the byte.
    pub fn with_gate(&self, gate: &Gate, life: impl FnOnce(&mut Daemon)) {
        nft(gate.firewall);
        let before = ruleset();
        let mut daemon = Daemon::start(&gate.config);
        life(&mut daemon);
        self.shut();
        assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
        assert_eq!(ruleset(), before);
    }

    /// Has a client fetch a certificate, and insists on what the world sees of it: shut before,
    /// the CA's validations and nothing else answered, shut afterwards, the ruleset as before.
    pub fn issues(&self, daemon: &Daemon, client: impl FnMut()) {
        self.issues_for(1, daemon, client);
    }

    /// The same for an order of so many names.
    ///
    /// One time in a hundred pebble takes an old validation of the account for good and asks for
    /// none, also at PEBBLE_AUTHZREUSE=0 (its wfe.go: `rand.Intn(100) > authzReusePercent`). Such an
    /// order shows nothing, so the client runs again.
    pub fn issues_for(&self, names: usize, daemon: &Daemon, mut client: impl FnMut()) {
        self.shut();
        let rules = without_elements(&ruleset());
        let past = self.validations(daemon).len();
        let begun = self.challenges();
        let mut orders = 0;
        let challenges = loop {
            let before = self.challenges();
            client();
            self.shut();
            assert_eq!(without_elements(&ruleset()), rules);
            assert_eq!(daemon.status()["leases"], Value::Array(Vec::new()));
            let now = self.challenges();
            orders += 1;
            if now - before == names {
                break now - begun;
            }
            assert!(now - before < names && orders < ORDERS, "{}", self.ca_log());
        };
        let validations = challenges * VALIDATIONS;
        let seen = wait_for(SOON, "the log shows every validation", || {
            let seen = self.validations(daemon).split_off(past);
            (seen.len() >= validations).then_some(seen)
        });
        assert_eq!(seen.len(), validations, "{seen:#?}");
        for event in &seen {
            assert_eq!(event["reason"], self.reason, "{event:#}");
            assert_eq!(event["verdict"], "accept", "{event:#}");
        }
    }

    /// How many challenges the CA has gone to see, by its own account.
    fn challenges(&self) -> usize {
        let words = format!("Starting {VALIDATIONS} validations");
        self.ca_log().matches(&words).count()
    }

    /// Nobody far away gets a connection to the port, whatever the family.
    #[track_caller]
    pub fn shut(&self) {
        assert!(!self.connects(STRANGER_4, EDGE_4, SHORT), "open to IPv4");
        assert!(!self.connects(STRANGER_6, EDGE_6, SHORT), "open to IPv6");
    }

    /// Everybody does.
    #[track_caller]
    pub fn open(&self) {
        assert!(self.connects(STRANGER_4, EDGE_4, LONG), "shut to IPv4");
        assert!(self.connects(STRANGER_6, EDGE_6, LONG), "shut to IPv6");
    }

    fn connects(&self, from: &str, to: &str, limit: Duration) -> bool {
        let address = |text: &str, port| SocketAddr::new(text.parse::<IpAddr>().unwrap(), port);
        let (from, to) = (address(from, 0), address(to, self.port));
        self.outside.run(|| {
            let domain = Domain::for_address(to);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
            socket.bind(&from.into()).expect("the stranger's address");
            socket.connect_timeout(&to.into(), limit).is_ok()
        })
    }

    /// Does something far away: a socket that is made there is a stranger's.
    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.outside.run(work)
    }

    /// The events of connections from the CA.
    pub fn validations(&self, daemon: &Daemon) -> Vec<Value> {
        let mut events = connections(daemon);
        let from_ca = |event: &Value| {
            let peer = event["peer"].as_str().unwrap_or_default();
            peer.trim_start_matches('[').starts_with(self.names.ca())
        };
        events.retain(from_ca);
        events
    }

    /// The address of the CA's directory.
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.ca_at(14000))
    }

    fn ca_at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.names.ca().parse().expect("an address"), port)
    }

    /// What the CA trusts its own API to: the file to give to clients.
    pub fn bundle(&self) -> String {
        self.directory.at("api.pem")
    }

    /// Pebble's own words.
    pub fn ca_log(&self) -> String {
        self.ca.stdout() + &self.ca.stderr()
    }

    /// Runs an ACME client, or a script that does, with this CA's API trusted and `acmegate` on its
    /// path.
    pub fn client(&self, command: Command, daemon: &Daemon) -> Output {
        run(self.prepare(command, daemon), CLIENT)
    }

    /// The same command, ready to be run or started.
    pub fn prepare(&self, mut command: Command, daemon: &Daemon) -> Command {
        // The machine's own ways to the Internet are not this world's.
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        for name in ["SSL_CERT_DIR", "CERTBOT_DOMAIN", "CERTBOT_IDENTIFIER"] {
            command.env_remove(name);
        }
        for name in [
            "REQUESTS_CA_BUNDLE",
            "LEGO_CA_CERTIFICATES",
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
        ] {
            command.env(name, self.bundle());
        }
        command
            .env("PATH", daemon.search_path())
            .env("HOME", self.directory.path())
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// uacme trusts the system's certificates and no others, so these are the CA's in our own mount
    /// namespace.
    pub fn trust_by_mounting(&self) {
        let mut mount = Command::new("mount");
        mount.args(["--bind", &self.bundle()]);
        mount.arg("/etc/ssl/certs/ca-certificates.crt");
        run(mount, SOON).success();
    }

    /// Puts a client's hook files below this world's directory, as they come below `/`.
    pub fn install_hooks(&self, daemon: &Daemon, client: &[&str]) {
        let root = self.directory.at("");
        let words = [&["install-hooks", "--root", &root], client].concat();
        daemon.cli(&words).success();
    }

    /// Insists that a certificate is the CA's and is for this identifier; gives its serial number.
    #[track_caller]
    pub fn verify(&self, certificate: &str, identifier: &str) -> String {
        let root = self.directory.at("root.pem");
        openssl(&[
            "verify",
            "-CAfile",
            &root,
            "-untrusted",
            certificate,
            certificate,
        ]);
        let check = if identifier.parse::<IpAddr>().is_ok() {
            "-checkip"
        } else {
            "-checkhost"
        };
        let shown = openssl(&[
            "x509",
            "-in",
            certificate,
            "-noout",
            "-serial",
            check,
            identifier,
        ]);
        assert!(shown.contains("does match certificate"), "{shown}");
        let serial = shown.lines().find(|line| line.starts_with("serial="));
        serial.expect("a serial number").to_owned()
    }

    /// The root is new at every start of pebble.
    fn fetch_root(&self) {
        let url = format!("https://{}/roots/0", self.ca_at(15000));
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*"])
            .args(["--cacert", &self.bundle()])
            .args(["--output", &self.directory.at("root.pem"), &url]);
        run(command, SOON).success();
    }
}

/// A firewall and the configuration of acmegate that goes with it.
pub struct Gate {
    firewall: &'static str,
    pub config: String,
}

impl Gate {
    /// Port 80 is open in the host's firewall, and acmegate guards it.
    pub fn guard(sites: &str) -> Self {
        Self {
            firewall: include_str!("firewalls/port-80-open.nft"),
            config: format!("{sites}\n[log]\nformat = \"json\"\n"),
        }
    }

    /// The host drops by default and asks the administrator's set.
    pub fn set(sites: &str) -> Self {
        let mode = "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"";
        Self {
            firewall: include_str!("firewalls/drop-but-set.nft"),
            config: format!("{sites}\n{mode}\n[log]\nformat = \"json\"\n"),
        }
    }
}

/// A site for [`NAME`] with this answer.
pub fn site(answer: &str) -> String {
    format!("[[site]]\nidentifiers = [\"{NAME}\"]\nanswer = {answer}\n")
}

/// Every connection that the gate's log shows.
pub fn connections(daemon: &Daemon) -> Vec<Value> {
    let log = daemon.log();
    let events = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &Value| event["message"] == "connection")
        .collect()
}

#[track_caller]
pub fn openssl(arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments);
    run(command, SOON).success().stdout
}

/// A ruleset without the elements of its sets: those of an ended window live on for its grace.
fn without_elements(rules: &str) -> String {
    let mut parts = rules.split("elements = {");
    let mut text = parts.next().unwrap_or_default().trim_end().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('}').expect("nft closes its braces");
        text += rest.trim_end();
    }
    text
}

fn cable_outside(outside: &Node) {
    outside.cable("edge0", "eth0");
    ip(&format!("addr add {EDGE_4}/24 dev eth0"));
    ip(&format!("addr add {EDGE_6}/64 dev eth0 nodad"));
    outside.ip("addr add 192.0.2.254/24 dev edge0");
    outside.ip("addr add 2001:db8:1::fe/64 dev edge0 nodad");
    for address in [CA_4, STRANGER_4] {
        outside.ip(&format!("addr add {address}/32 dev lo"));
    }
    for address in [CA_6, STRANGER_6] {
        outside.ip(&format!("addr add {address}/128 dev lo nodad"));
    }
    // The CA asks from its own address, which is not on the edge's link.
    outside.ip(&format!("route replace 192.0.2.0/24 dev edge0 src {CA_4}"));
    outside.ip(&format!(
        "-6 route replace 2001:db8:1::/64 dev edge0 src {CA_6} metric 1"
    ));
    ip("route add default via 192.0.2.254");
    ip("-6 route add default via 2001:db8:1::fe");
}

fn cable_inner(inner: &Node) {
    inner.cable("eth0", "inner0");
    ip("addr add 10.0.0.1/24 dev inner0");
    inner.ip(&format!("addr add {INNER}/24 dev eth0"));
    inner.ip("route add default via 10.0.0.1");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("our own namespace's setting");
}

fn start_name_server(outside: &Node, names: Names) -> Process {
    let (v4, v6) = match names {
        Names::V4 => (EDGE_4, ""),
        Names::V6 => ("", EDGE_6),
    };
    let mut command = outside.command("pebble-challtestsrv");
    command
        .args(["-defaultIPv4", v4, "-defaultIPv6", v6, "-dns01", ":53"])
        .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
    let process = Process::spawn(command);
    let resolver = SocketAddr::new(names.ca().parse().expect("an address"), 53);
    wait_for(SOON, "the name server listens", || {
        listens(outside, resolver)
    });
    process
}

fn start_ca(outside: &Node, names: Names, directory: &TempDir) -> Process {
    // Debian's package has no certificate for the CA's own API.
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=the CA's API",
        "-addext",
        &format!("subjectAltName=IP:{CA_4},IP:{CA_6}"),
        "-keyout",
        &directory.at("api.key"),
        "-out",
        &directory.at("api.pem"),
    ]);
    let config = serde_json::json!({ "pebble": {
        "listenAddress": "[::]:14000",
        "managementListenAddress": "[::]:15000",
        "certificate": directory.at("api.pem"),
        "privateKey": directory.at("api.key"),
        "httpPort": 80,
        "tlsPort": 443,
    }});
    let config = directory.write("pebble.json", &config.to_string());
    let resolver = SocketAddr::new(names.ca().parse().expect("an address"), 53);
    let mut command = outside.command("pebble");
    command
        .args(["-config", &config, "-dnsserver", &resolver.to_string()])
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_WFE_NONCEREJECT", "0")
        .env("PEBBLE_AUTHZREUSE", "0");
    let process = Process::spawn(command);
    for port in [14000, 15000] {
        let api = SocketAddr::new(names.ca().parse().expect("an address"), port);
        wait_for(SOON, "the CA listens", || listens(outside, api));
    }
    process
}

fn listens(node: &Node, address: SocketAddr) -> Option<()> {
    node.run(|| TcpStream::connect_timeout(&address, LONG).is_ok())
        .then_some(())
}
