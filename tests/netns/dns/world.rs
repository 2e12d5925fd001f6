//! A small Internet of name servers: a root, `test.` below it, zones below that, and one resolver.
//!
//! The servers are knot's, the resolver is unbound, which validates by the root's key made here; zones are signed by
//! kzonesign. Everything is on loopback addresses of the test's own namespace, at port 53, so that no question can
//! leave it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use acmegate::config::{Config, Disk};
use acmegate::daemon::parts::AnyAccount;
use acmegate::doctor::case::Case;
use acmegate::doctor::dns::examine;
use acmegate::doctor::finding::{Exam, Finding, Severity};
use acmegate::gate::allow_list::AllowList;
use acmegate::gate::identifier::Identifier;

use crate::lab::{Node, Process, TempDir, find, ip, run, wait_for};

/// The resolver.
pub const RESOLVER: &str = "127.0.0.53";
/// Who serves the root, and who `test.`.
const ROOT: &str = "127.0.1.1";
const TEST: &str = "127.0.1.2";
/// Servers for the zones of tests.
pub const ONE: &str = "127.0.1.3";
pub const TWO: &str = "127.0.1.4";
/// The second address of the first of them.
pub const ONE_6: &str = "2001:db8:53::3";
/// Nobody answers there.
pub const NOBODY: &str = "127.0.1.9";
/// What the host has.
pub const HOST_4: &str = "192.0.2.1";
pub const HOST_6: &str = "2001:db8:1::1";
/// Somebody else's: nothing listens on port 80.
pub const OTHER_6: &str = "2001:db8:1::2";

const LIMIT: Duration = Duration::from_secs(60);
/// What all keys are older than, so that signatures can be made as of any later day.
const BORN: &str = "20190101000000";

/// How a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    No,
    Yes,
    /// What is not there is denied by hashes, and unsigned zones below are passed over, as large zones do it.
    OptOut,
    /// As of 2020.
    LongAgo,
    /// Such that its signatures end within a day.
    ThirteenDaysAgo,
    /// With a key that the zone above does not know.
    ByAnotherKey,
    /// Not at all, and the zone above says that it is.
    InTheParentAlone,
}

/// One zone below `test.`.
pub struct Zone {
    pub name: &'static str,
    /// Its records besides SOA; `@` is the zone.
    pub records: String,
    /// What the second server has instead, and how that is signed.
    pub second: Option<(String, Signed)>,
    /// Whether the second server has it at all.
    pub is_on_second: bool,
    /// What `test.` has for it, besides DS.
    pub delegation: String,
    pub signed: Signed,
    /// What is changed in the file after it was signed.
    pub tampered: Option<(&'static str, &'static str)>,
    /// Whether the servers have it at all.
    pub is_served: bool,
}

impl Zone {
    /// A zone with one server, which is delegated as it should be.
    pub fn new(name: &'static str, records: &str) -> Self {
        let servers = format!("@ NS ns1\nns1 A {ONE}\n");
        Self {
            name,
            records: format!("{servers}{records}"),
            second: None,
            is_on_second: true,
            delegation: format!("{name} NS ns1.{name}\nns1.{name} A {ONE}\n"),
            signed: Signed::No,
            tampered: None,
            is_served: true,
        }
    }

    /// A zone with these servers and addresses, delegated so.
    pub fn with_servers(name: &'static str, servers: &[(&str, &str)], records: &str) -> Self {
        let mut zone = Self::new(name, "");
        zone.records.clear();
        zone.delegation.clear();
        for (server, address) in servers {
            let kind = if address.contains(':') { "AAAA" } else { "A" };
            let host = format!("{server}.{name}");
            zone.records += &format!("@ NS {host}\n{host} {kind} {address}\n");
            zone.delegation += &format!("{name} NS {host}\n{host} {kind} {address}\n");
        }
        zone.records += records;
        zone
    }

    pub fn signed(mut self, signed: Signed) -> Self {
        self.signed = signed;
        self
    }
}

/// Everything, running.
pub struct World {
    directory: TempDir,
    _servers: Vec<Process>,
    _silent: UdpSocket,
    _neighbour: Node,
}

impl World {
    /// Starts it. The caller stands in a network namespace of its own.
    pub fn new(zones: &[Zone]) -> Self {
        let neighbour = Node::new();
        neighbour.cable("peer0", "eth0");
        ip(&format!("addr add {HOST_4}/24 dev eth0"));
        ip(&format!("addr add {HOST_6}/64 dev eth0 nodad"));
        neighbour.ip("addr add 192.0.2.2/24 dev peer0");
        neighbour.ip(&format!("addr add {OTHER_6}/64 dev peer0 nodad"));
        ip(&format!("addr add {ONE_6}/128 dev lo nodad"));
        let directory = TempDir::new();
        let world = Signer {
            directory: &directory,
        };
        let mut test = format!("@ NS ns.test.\nns A {TEST}\n");
        let mut served: BTreeMap<&str, Vec<(&str, String)>> = BTreeMap::new();
        for zone in zones {
            test += &zone.delegation;
            let (file, ds) = world.zone(zone.name, &zone.records, zone.signed, 1);
            test += &ds;
            if let Some((from, to)) = zone.tampered {
                let text = std::fs::read_to_string(&file).expect("a signed zone");
                assert!(text.contains(from), "{text}");
                std::fs::write(&file, text.replace(from, to)).expect("our own file");
            }
            if !zone.is_served {
                continue;
            }
            let second = zone.second.as_ref().map(|(records, signed)| {
                let (file, _) = world.zone(zone.name, records, *signed, 2);
                file
            });
            served
                .entry(ONE)
                .or_default()
                .push((zone.name, file.clone()));
            if zone.is_on_second {
                let file = second.unwrap_or(file);
                served.entry(TWO).or_default().push((zone.name, file));
            }
        }
        let (file, ds) = world.zone("test.", &test, Signed::Yes, 1);
        served.insert(TEST, vec![("test.", file)]);
        let root = format!(
            "@ NS a.root.test.\na.root.test. A {ROOT}\ntest. NS ns.test.\nns.test. A {TEST}\n{ds}"
        );
        let (file, _) = world.zone(".", &root, Signed::Yes, 1);
        served.insert(ROOT, vec![(".", file)]);
        let anchor = world
            .keymgr(".", &["dnskey"])
            .replace(". DNSKEY", ". IN DNSKEY");
        directory.write("root.key", &anchor);
        let mut servers: Vec<Process> = [ROOT, TEST, ONE, TWO]
            .into_iter()
            .map(|address| {
                let zones = served.remove(address).unwrap_or_default();
                knot(&directory, address, &zones)
            })
            .collect();
        servers.push(unbound(&directory));
        let silent = UdpSocket::bind((NOBODY, 53)).expect("a free port in a new namespace");
        for (address, server) in [ROOT, TEST, ONE, TWO, RESOLVER].iter().zip(&mut servers) {
            await_answer(address, server);
        }
        Self {
            directory,
            _servers: servers,
            _silent: silent,
            _neighbour: neighbour,
        }
    }

    /// Writes a file; gives its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        self.directory.write(name, content)
    }

    /// Lets the neighbour answer on port 80.
    pub fn neighbour_serves(&self) -> std::net::TcpListener {
        self._neighbour
            .run(|| std::net::TcpListener::bind((OTHER_6, 80)).expect("a free port"))
    }

    /// The exam of these names, by a configuration's `[dns]` and sites.
    pub fn examine(&self, dns: &str, sites: &str, names: &[&str]) -> Exam {
        let anchor = self.directory.at("root.key");
        examined(
            &format!(
                "{sites}\n[dns]\nresolvers = [\"{RESOLVER}\"]\ntrust_anchor = \"{anchor}\"\n{dns}\n"
            ),
            names,
        )
    }
}

/// The exam by any configuration.
pub fn examined(text: &str, names: &[&str]) -> Exam {
    let config = Config::parse(text, "test.toml", &AnyAccount, &Disk)
        .unwrap_or_else(|error| panic!("{error}"));
    let names = names
        .iter()
        .map(|name| Identifier::parse(name).expect("an identifier"));
    let case = Case {
        allow: AllowList::default().into(),
        runtime_dir: "/nonexistent".into(),
        names: names.collect(),
        is_root: true,
        config,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(examine(&case, &case.config.dns, now()))
}

/// The host's clock, by which the zones were signed.
pub fn now() -> u64 {
    let mut command = Command::new("date");
    command.arg("+%s");
    let output = run(command, LIMIT).success();
    output.stdout.trim().parse().expect("a number")
}

/// The finding of this word, of this name if any is named.
#[track_caller]
pub fn finding<'a>(exam: &'a Exam, word: &str, name: &str) -> &'a Finding {
    let mut findings = exam.findings.iter();
    let is_meant = |finding: &&Finding| {
        finding.code.word == word
            && (name.is_empty() || finding.names.iter().any(|own| own == name))
    };
    findings
        .find(is_meant)
        .unwrap_or_else(|| panic!("no {word} of {name}: {exam:#?}"))
}

/// That there is this finding, as bad as this, with all of these words in it or its evidence or remedy.
#[track_caller]
pub fn finds(exam: &Exam, name: &str, severity: Severity, word: &str, said: &[&str]) {
    let finding = finding(exam, word, name);
    assert_eq!(finding.severity, severity, "{finding:#?}");
    let text = format!(
        "{}\n{}\n{}",
        finding.finding,
        finding.evidence.join("\n"),
        finding.remedy.join("\n")
    );
    for part in said {
        assert!(text.contains(part), "{part}: {finding:#?}");
    }
}

/// That nothing bad is said of a name.
#[track_caller]
pub fn is_well(exam: &Exam, name: &str) {
    let bad: Vec<&Finding> = exam
        .findings
        .iter()
        .filter(|finding| finding.names.iter().any(|own| own == name))
        .filter(|finding| finding.severity > Severity::Advice)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

struct Signer<'a> {
    directory: &'a TempDir,
}

impl Signer<'_> {
    /// Writes a zone, signed or not; gives the file that a server loads and what the zone above has to say.
    fn zone(&self, name: &str, records: &str, signed: Signed, serial: u32) -> (String, String) {
        let stem = format!("{}{serial}", name.replace('.', "-"));
        let text = format!(
            "$ORIGIN {name}\n$TTL 60\n@ SOA ns1.test. admin.test. {serial} 3600 600 86400 60\n{records}\n"
        );
        let plain = self.directory.write(&format!("{stem}.zone"), &text);
        if signed == Signed::No {
            return (plain, String::new());
        }
        let knot = format!(
            "database:\n    storage: {directory}/keys{keys}\n\
             policy:\n  - id: p\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    manual: on\n\
             \x20   rrsig-lifetime: 14d\n    rrsig-refresh: 7d\n\
             {nsec3}zone:\n  - domain: {name}\n    storage: {directory}\n    file: {stem}.zone\n\
             \x20   dnssec-signing: on\n    dnssec-policy: p\n",
            directory = self.directory.path().display(),
            keys = name.replace('.', "-"),
            nsec3 = match signed {
                Signed::OptOut => "    nsec3: on\n    nsec3-opt-out: on\n    nsec3-iterations: 0\n",
                _ => "",
            }
        );
        let config = self
            .directory
            .write(&format!("{}.conf", name.replace('.', "-")), &knot);
        for made in [
            format!("keys{}", name.replace('.', "-")),
            "signed".to_owned(),
        ] {
            std::fs::create_dir_all(self.directory.path().join(made)).expect("a directory");
        }
        let generate = |zone: &str| {
            let born =
                ["created", "publish", "ready", "active"].map(|moment| format!("{moment}={BORN}"));
            let mut arguments = vec!["generate", "algorithm=13", "ksk=yes", "zsk=yes"];
            arguments.extend(born.iter().map(String::as_str));
            self.keymgr(zone, &arguments);
        };
        // Every version of a zone has the same key.
        if serial == 1 {
            generate(name);
        }
        let mut ds = self.keymgr(name, &["ds"]);
        if signed == Signed::InTheParentAlone {
            return (plain, ds);
        }
        if signed == Signed::ByAnotherKey {
            let key = self.keymgr(name, &["list"]);
            let id = key.split_whitespace().next().expect("a key").to_owned();
            self.keymgr(name, &["delete", &id]);
            generate(name);
        }
        let at = match signed {
            Signed::LongAgo => Some("1577836800"),
            Signed::ThirteenDaysAgo => Some("-1166400"),
            _ => None,
        };
        let mut command = Command::new("kzonesign");
        command.args(["-c", &config, "-o", &self.directory.at("signed")]);
        let when = at.map(|at| match at.strip_prefix('-') {
            Some(seconds) => (now() - seconds.parse::<u64>().expect("a number")).to_string(),
            None => at.to_owned(),
        });
        if let Some(when) = &when {
            command.args(["-t", when]);
        }
        command.arg(name);
        run(command, LIMIT).success();
        ds = ds
            .lines()
            .filter(|line| line.contains(" 13 2 "))
            .fold(String::new(), |all, line| format!("{all}{line}\n"));
        (self.directory.at(&format!("signed/{stem}.zone")), ds)
    }

    fn keymgr(&self, zone: &str, arguments: &[&str]) -> String {
        let config = self
            .directory
            .at(&format!("{}.conf", zone.replace('.', "-")));
        let mut command = Command::new("keymgr");
        command.args(["-c", &config, zone]).args(arguments);
        run(command, LIMIT).success().stdout
    }
}

fn knot(directory: &TempDir, address: &str, zones: &[(&str, String)]) -> Process {
    let own = format!("{}/knot-{address}", directory.path().display());
    std::fs::create_dir_all(&own).expect("a directory");
    let six = if address == ONE {
        format!(", \"{ONE_6}@53\"")
    } else {
        String::new()
    };
    let mut text = format!(
        "server:\n    rundir: {own}\n    listen: [ \"{address}@53\"{six} ]\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n    automatic-acl: off\n\
         log:\n  - target: stderr\n    any: warning\n\
         database:\n    storage: {own}\n    journal-db-max-size: 8M\n    kasp-db-max-size: 8M\n    timer-db-max-size: 1M\n    catalog-db-max-size: 5M\n\
         template:\n  - id: default\n    semantic-checks: off\n    zonefile-sync: -1\n    journal-content: none\n\
         zone:\n"
    );
    for (name, file) in zones {
        text += &format!("  - domain: {name}\n    file: {file}\n");
    }
    let config = directory.write(&format!("knot-{address}.conf"), &text);
    let mut command = Command::new("knotd");
    command.args(["-c", &config, "-m", "50"]);
    Process::spawn(command)
}

fn unbound(directory: &TempDir) -> Process {
    directory.write(
        "hints",
        &format!(". 60 NS a.root.test.\na.root.test. 60 A {ROOT}\n"),
    );
    let path = directory.path().display();
    let text = format!(
        "server:\n  interface: {RESOLVER}\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n\
         \x20 directory: \"{path}\"\n  pidfile: \"\"\n  use-syslog: no\n  root-hints: \"{path}/hints\"\n  trust-anchor-file: \"{path}/root.key\"\n\
         \x20 do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n  num-threads: 1\n  so-reuseport: no\n  do-ip6: yes\n\
         remote-control:\n  control-enable: no\n"
    );
    let config = directory.write("unbound.conf", &text);
    let mut command = Command::new(find("unbound"));
    command.args(["-c", &config]);
    Process::spawn(command)
}

/// Waits until a server answers anything at all to a datagram.
#[track_caller]
fn await_answer(address: &str, server: &mut Process) {
    // A question for the root's SOA, number 1.
    let question = b"\0\x01\0\0\0\x01\0\0\0\0\0\0\0\0\x06\0\x01";
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let pause = Some(Duration::from_millis(50));
    socket.set_read_timeout(pause).expect("a socket of ours");
    let to: SocketAddr = (format!("{address}:53")).parse().expect("an address");
    wait_for(LIMIT, &format!("a name server at {address}"), || {
        if server.ended().is_some() {
            panic!("it ended: {}\n{}", server.stdout(), server.stderr());
        }
        socket.send_to(question, to).ok()?;
        socket.recv(&mut [0; 512]).ok()
    });
}
