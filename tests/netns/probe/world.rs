//! A host with a name, and vantage points in networks of their own: each a real sshd, at the end of a cable of its
//! own, with a public address. What programs look up in /etc is this test's own, mounted over it in its own mounts.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use crate::lab::{Daemon, Node, Output, Process, TempDir, find, ip, run, wait_for};

/// The host's addresses, and its name.
pub const HOST_4: &str = "192.0.2.1";
pub const HOST_6: &str = "2001:db8:1::1";
pub const NAME: &str = "www.example.com";
/// Allows 203.0.113.0/24, and keeps windows shut for everybody else.
pub const CONFIG: &str = "[allow]\nprefixes = [\"203.0.113.0/24\"]\n";
/// Drops whoever comes from 198.51.100.128/25 before anybody else sees it.
pub const GEO_BLOCK: &str = "table inet geo { chain early {
    type filter hook prerouting priority -160; policy accept;
    ip saddr 198.51.100.128/25 tcp dport 80 counter drop comment \"not from there\"
}
}";

/// A probe may wait 10 s for a connection that never comes.
const PROBE: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(60);

pub struct World {
    directory: TempDir,
    points: Vec<Point>,
    /// Whoever serves.
    servers: Vec<Process>,
}

struct Point {
    node: Node,
    sshd: Process,
}

impl World {
    /// The host has both families if `six`.
    pub fn new(six: bool) -> Self {
        let world = Self {
            directory: TempDir::new(),
            points: Vec::new(),
            servers: Vec::new(),
        };
        ip(&format!("addr add {HOST_4}/32 dev lo"));
        let directory = &world.directory;
        let root = directory.at("root");
        fs::create_dir_all(format!("{root}/.ssh")).expect("a new directory");
        let passwd = format!(
            "root:x:0:0::{root}:/bin/sh\nvantage:x:1000:1000::{}:/bin/sh\n",
            directory.at("")
        );
        let mut hosts = format!("127.0.0.1 localhost\n{HOST_4} {NAME} ns.example.com\n");
        if six {
            hosts += &format!("{HOST_6} {NAME}\n");
        }
        for (name, text) in [
            ("passwd", passwd.as_str()),
            ("hosts", &hosts),
            (
                "resolv.conf",
                "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n",
            ),
            (
                "nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files\n",
            ),
        ] {
            let file = directory.write(name, text);
            let mut command = Command::new("mount");
            command.args(["--bind", &file, &format!("/etc/{name}")]);
            run(command, START).success();
        }
        for (key, place) in [
            ("host", directory.at("host")),
            ("id", format!("{root}/.ssh/id")),
        ] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f", &place]);
            run(command, START).success();
        }
        fs::copy(format!("{root}/.ssh/id.pub"), directory.at("authorized")).expect("the key");
        world
    }

    /// Puts a vantage point at these addresses, known to ssh by `name`. With `tools` it has these programs alone.
    pub fn point(&mut self, name: &str, four: &str, six: Option<&str>, tools: &[&str]) {
        let (ours, theirs) = ("eth0", format!("v{}", self.points.len()));
        let node = Node::new();
        node.cable(ours, &theirs);
        node.ip(&format!("addr add {four}/32 dev {ours}"));
        node.ip(&format!("route add {HOST_4}/32 dev {ours} src {four}"));
        ip(&format!("route add {four}/32 dev {theirs} src {HOST_4}"));
        if let Some(six) = six {
            ip(&format!("addr add {HOST_6}/128 dev {theirs} nodad"));
            node.ip(&format!("addr add {six}/128 dev {ours} nodad"));
            node.ip(&format!("-6 route add {HOST_6}/128 dev {ours} src {six}"));
            ip(&format!("-6 route add {six}/128 dev {theirs}"));
        }
        let directory = &self.directory;
        let mut config = format!(
            "ListenAddress {four}:2222\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n",
            directory.at("host"),
            directory.at("authorized")
        );
        if !tools.is_empty() {
            let bin = directory.at(&format!("bin-{name}"));
            fs::create_dir(&bin).expect("a new directory");
            for tool in tools {
                let (tool, own) = tool.split_once('=').unwrap_or((tool, tool));
                symlink(find(own), format!("{bin}/{tool}")).expect("a new link");
            }
            config += &format!("SetEnv PATH={bin}\n");
        }
        let config = directory.write(&format!("sshd-{name}"), &config);
        // Not root where it runs: it can be nobody else there, and needs no power.
        let mut command = node.command("unshare");
        command
            .args(["--user", "--map-user=1000", "--map-group=1000", "--"])
            .arg(find("sshd"))
            .args(["-D", "-e", "-f", &config]);
        let mut sshd = Process::spawn(command);
        wait_for(START, "sshd listens", || {
            assert!(sshd.ended().is_none(), "{}", sshd.stderr());
            let to = format!("{four}:2222").parse().expect("an address");
            TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()
        });
        self.points.push(Point { node, sshd });
        self.knows(name, four);
    }

    /// Tells ssh of a host.
    pub fn knows(&self, name: &str, address: &str) {
        use std::io::Write as _;
        let ssh = format!("{}/.ssh", self.directory.at("root"));
        let key = fs::read_to_string(self.directory.at("host.pub")).expect("the key");
        let append = |file: &str, text: String| {
            let mut options = fs::OpenOptions::new();
            let opened = options
                .create(true)
                .append(true)
                .open(format!("{ssh}/{file}"));
            opened
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("our own file");
        };
        append(
            "config",
            format!(
                "Host {name}\n  HostName {address}\n  Port 2222\n  User vantage\n  IdentityFile {ssh}/id\n  UserKnownHostsFile {ssh}/known\n"
            ),
        );
        append("known", format!("[{address}]:2222 {key}"));
    }

    /// A name server for `example.com`, on the host.
    pub fn name_server(&mut self) {
        let zone = "$ORIGIN example.com.\n$TTL 60\n@ SOA ns root 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.1\n\
                    @ CAA 0 issue \"letsencrypt.org\"\n";
        let file = self.directory.write("example.com.zone", zone);
        let storage = self.directory.at("knot");
        fs::create_dir_all(&storage).expect("a new directory");
        let config = format!(
            "server:\n    rundir: \"{storage}\"\n    listen: {HOST_4}@53\n    background-workers: 1\n    tcp-workers: 1\n    udp-workers: 1\n\
             database:\n    storage: \"{storage}\"\n\
             zone:\n  - domain: example.com\n    file: \"{file}\"\n    zonefile-sync: -1\n    journal-content: none\n"
        );
        let config = self.directory.write("knot.conf", &config);
        let mut command = Command::new(find("knotd"));
        command.args(["-c", &config]);
        let mut knot = Process::spawn(command);
        wait_for(START, "knot serves", || {
            assert!(knot.ended().is_none(), "{}", knot.stderr());
            TcpStream::connect((HOST_4, 53)).ok()
        });
        self.servers.push(knot);
    }

    /// Starts a server on the host, or at a vantage point.
    pub fn serve(&mut self, mut command: Command, at: Option<usize>) {
        if let Some(at) = at {
            let mut there = self.points[at]
                .node
                .command(&command.get_program().to_string_lossy());
            there.args(command.get_args());
            there.envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            command = there;
        }
        self.servers.push(Process::spawn(command));
    }

    pub fn directory(&self) -> &TempDir {
        &self.directory
    }

    /// What the last server that was started said, if it ended.
    pub fn last_words(&mut self) -> Option<String> {
        let server = self.servers.last_mut()?;
        server.ended()?;
        Some(format!("{}{}", server.stdout(), server.stderr()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for point in &self.points {
                eprintln!("sshd: {}", point.sshd.stderr());
            }
            for server in &self.servers {
                eprintln!("server: {}{}", server.stdout(), server.stderr());
            }
        }
    }
}

/// `acmegate probe`, to be started in a test's own way.
pub fn command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = daemon.command();
    command.arg("probe").args(arguments);
    // Whoever runs the tests may have these.
    for name in [
        "http_proxy",
        "https_proxy",
        "SSL_CERT_FILE",
        "ACMEGATE_MPIC_KEY",
    ] {
        command.env_remove(name);
    }
    command
}

/// What every document of a probe must be.
const SCHEMA: &str = include_str!("../../../docs/probe.schema.json");

/// `acmegate probe … --json`, read.
#[track_caller]
pub fn probe(daemon: &Daemon, arguments: &[&str]) -> (Output, serde_json::Value) {
    let mut command = command(daemon, arguments);
    command.arg("--json");
    let output = run(command, PROBE);
    if !output.stdout.is_empty() {
        let faults = crate::schema::check(SCHEMA, &output.stdout);
        assert_eq!(faults, [""; 0], "{output}");
    }
    let value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    (output, value)
}

/// Nothing of a probe is left: no lease, no token, no table.
#[track_caller]
pub fn nothing_is_left(daemon: &Daemon) {
    let status = daemon.status();
    assert_eq!(status["leases"], serde_json::json!([]), "{status}");
    assert_eq!(status["pushed"], 0, "{status}");
    let ruleset = crate::lab::ruleset();
    assert!(!ruleset.contains("acmegate_probe"), "{ruleset}");
}

/// The codes of the letter's findings.
pub fn codes(document: &serde_json::Value) -> Vec<&str> {
    let findings = document["letter"]["findings"].as_array();
    let codes = findings.into_iter().flatten();
    codes
        .filter_map(|finding| finding["code"].as_str())
        .collect()
}
