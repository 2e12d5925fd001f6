//! Rulesets as people really have them: what the doctor says of each, and what packets from outside say.
//!
//! Each case stands on a host of its own. Our own table is really installed by `acmegate firewall apply`, and a
//! window is open when its elements are in the kernel. The doctor answers first, from the rules alone; then
//! peers try, of both families, with the window shut and open. Where it names a culprit, its own remedy is
//! followed to the letter, and the packets must pass: a wrong culprit or a wrong line fails.

mod answers;
mod cases;
mod more;

use std::net::TcpListener;
use std::path::Path as FilePath;
use std::process::Command;
use std::time::Duration;

use acmegate::config::lists::Lists;
use acmegate::config::{Config, Unchecked};
use acmegate::daemon::parts::AnyAccount;
use acmegate::doctor::case::Case as Patient;
use acmegate::doctor::finding::{Exam, Finding, Severity};
use acmegate::doctor::path::{End, Fate as Fated, Knock, Protocol};
use acmegate::doctor::reading::{Answer, Reading, Shut};
use acmegate::doctor::twin::{self, Order, PATIENCE, Source, Window};
use acmegate::firewall::base_chains::{Doubt, IpFamily, Path, Transport};
use acmegate::gate::identifier::Identifier;

use self::cases::{CASES, Case, Fate, Rules, World};
use crate::host::{HOST_4, HOST_6, Host, Seen};
use crate::lab::{self, BINARY, Node, TempDir, inside, ip, run};
use crate::managers::own::tool;

/// How many hosts there are at the same time.
const AT_ONCE: usize = 16;
/// What a command may take on a busy machine.
const COMMAND: Duration = Duration::from_secs(60);
/// The inner host's addresses, behind a bridge.
const INNER: [&str; 2] = ["172.17.0.2", "fd00:17::2"];

/// A host with rules, and acmegate's own table among them.
pub struct Scene<'a> {
    host: &'a Host,
    directory: TempDir,
    config: String,
    names: usize,
    _inner: Option<Node>,
}

impl<'a> Scene<'a> {
    fn new(host: &'a Host, case: &Case) -> Self {
        ip("route add default via 192.0.2.2");
        ip("-6 route add default via 2001:db8:1::2");
        know_each_other(host);
        for port in [80, 8080] {
            answer(TcpListener::bind(("::", port)).expect("a new network"));
        }
        let inner = match case.world {
            World::Alone => None,
            World::Inner => Some(inner_host()),
            World::NotForwarding => {
                let inner = inner_host();
                forward("0");
                Some(inner)
            }
        };
        let scene = Self {
            host,
            directory: TempDir::new(),
            config: case.config.to_owned(),
            names: case.names,
            _inner: inner,
        };
        scene.write_config();
        case.rules.iter().for_each(|rules| scene.load(*rules));
        scene
    }

    fn load(&self, rules: Rules) {
        let restore = |program: &str, text: &str| {
            let file = self.directory.write("rules", text);
            tool(program, &["--noflush", &file]);
        };
        match rules {
            Rules::Nft(text) => lab::nft(text),
            Rules::Iptables(text) => restore("iptables-nft-restore", text),
            Rules::Ip6tables(text) => restore("ip6tables-nft-restore", text),
            Rules::Docker => {
                for (program, text) in docker() {
                    restore(program, &text);
                }
            }
            Rules::Command(words) => {
                let words: Vec<&str> = words.split(' ').collect();
                tool(words[0], &words[1..]);
            }
        }
    }

    fn write_config(&self) -> String {
        self.directory.write("acmegate.toml", &self.config)
    }

    fn acmegate(&self, words: &[&str]) {
        let mut command = Command::new(BINARY);
        command
            .args(["--config", &self.write_config()])
            .args(["--runtime-dir", &self.directory.at("run")])
            .args(words);
        run(command, COMMAND).success();
    }

    /// Puts our table there, shut.
    fn install(&self) {
        self.acmegate(&["firewall", "apply"]);
    }

    /// Opens a window by hand, as the enforcer would: a port in each family's set, and in the
    /// administrator's where that is the mode.
    fn open(&self) {
        let mut elements = vec![
            "inet acmegate window4".to_owned(),
            "inet acmegate window6".to_owned(),
        ];
        if let Some((_, set)) = self.config.split_once("set = \"") {
            let (set, _) = set.split_once('"').expect("it ends");
            elements.push(set.to_owned());
            elements.push("inet acmegate opened".to_owned());
        }
        let elements: Vec<String> = elements
            .iter()
            .map(|set| format!("add element {set} {{ 80 timeout 10m }}\n"))
            .collect();
        lab::nft(&elements.concat());
    }

    fn patient(&self) -> Patient {
        let path = self.write_config();
        let config = Config::load_with(Some(FilePath::new(&path)), &AnyAccount, &Unchecked)
            .unwrap_or_else(|error| panic!("{}\n{error}", self.config));
        let allow = Lists::read(&config.allow).expect("no files").list();
        let names = (0..self.names)
            .map(|number| Identifier::parse(&format!("www{number}.example.com")).expect("a name"));
        Patient {
            config,
            allow,
            runtime_dir: self.directory.path().join("run"),
            names: names.collect(),
            is_root: true,
        }
    }

    /// What the doctor makes of it, and how long that took.
    fn examine(&self) -> (Vec<Answer>, Exam) {
        let patient = self.patient();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let reading = Reading::take().await.expect("power over this network");
            let settings = patient.settings();
            let exam = reading.examine(&patient).await;
            (reading.answers(&settings), exam)
        })
    }

    /// What the kernel itself says in a copy of this host.
    fn twin_promises(&self) -> Promise {
        let patient = self.patient();
        let settings = patient.settings();
        let pairs = [("192.0.2.2", HOST_4), ("2001:db8:1::2", HOST_6)];
        let knocks = pairs.map(|(source, destination)| Knock {
            interface: "eth0".to_owned(),
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            protocol: Protocol::Tcp,
            port: 80,
        });
        let order = Order {
            source: Source::Live,
            settings: Some(settings),
            windows: vec![Window::Shut, Window::Open],
            knocks: knocks.into(),
            patience: PATIENCE,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let answer = runtime
            .block_on(twin::prove_by(FilePath::new(BINARY), &order))
            .expect("a twin");
        // Where the kernel answers for the socket, the SYN itself ends there whatever becomes of it.
        let is_answered = |fate: &Fated| {
            let said = match &fate.end {
                End::Lost(why) => Some(why.as_str()),
                _ => fate.culprit().and_then(|step| step.rule.as_deref()),
            };
            said.is_some_and(|said| said.contains("synproxy"))
        };
        let of = |run: usize| {
            [0, 1].map(|family: usize| match &answer.fates[run][family] {
                fate if is_answered(fate) => Fate::Open,
                fate if fate.passes() => Fate::Passes,
                _ => Fate::Dropped,
            })
        };
        Promise {
            by: "the twin",
            shut: of(0),
            open: of(1),
            details: format!("{answer:#?}"),
        }
    }

    /// What packets say: of IPv4 and of IPv6.
    fn packets(&self, expected: [Fate; 2]) -> [Seen; 2] {
        let seen = self.host.probe_both(80);
        let is_late = |at: usize| expected[at] == Fate::Passes && seen[at] == Seen::Silence;
        // A busy machine may be slow; a drop stays a drop.
        if is_late(0) || is_late(1) {
            return self.host.probe_both(80);
        }
        seen
    }
}

/// Somebody answers there, and only then has a packet passed.
fn answer(listener: TcpListener) {
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

/// Rules that drop neighbour discovery cut off IPv6 altogether; that is not what is asked here.
fn know_each_other(host: &Host) {
    let hardware = |device: &str| {
        let text = tool("ip", &["-o", "link", "show", "dev", device]);
        let (_, rest) = text.split_once("link/ether ").expect("a cable");
        rest.split(' ').next().expect("an address").to_owned()
    };
    let outside = host.outside(move || hardware("peer0"));
    for address in ["192.0.2.2", "2001:db8:1::2"] {
        ip(&format!(
            "neigh replace {address} lladdr {outside} dev eth0 nud permanent"
        ));
    }
    let own = hardware("eth0");
    host.outside(move || {
        for address in [HOST_4, HOST_6] {
            ip(&format!(
                "neigh replace {address} lladdr {own} dev peer0 nud permanent"
            ));
        }
    });
}

fn forward(switch: &str) {
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{family}"), switch).expect("our own namespace's");
    }
}

/// A container, or a virtual machine, that answers on ports 80 and 8080 behind a bridge.
fn inner_host() -> Node {
    forward("1");
    // A router learns no routes.
    ip("-6 route replace default via 2001:db8:1::2");
    ip("link add docker0 address 02:00:00:00:17:01 type bridge");
    ip("link set docker0 up");
    ip("addr add 172.17.0.1/16 dev docker0");
    ip("addr add fd00:17::1/64 dev docker0 nodad");
    let inner = Node::new();
    inner.cable("eth0", "veth0");
    ip("link set veth0 master docker0");
    inner.ip("link set eth0 address 02:00:00:00:17:02");
    inner.ip("addr add 172.17.0.2/16 dev eth0");
    inner.ip("addr add fd00:17::2/64 dev eth0 nodad");
    inner.ip("route add default via 172.17.0.1");
    inner.ip("-6 route add default via fd00:17::1");
    for (there, here) in [("172.17.0.1", INNER[0]), ("fd00:17::1", INNER[1])] {
        inner.ip(&format!(
            "neigh replace {there} lladdr 02:00:00:00:17:01 dev eth0 nud permanent"
        ));
        ip(&format!(
            "neigh replace {here} lladdr 02:00:00:00:17:02 dev docker0 nud permanent"
        ));
    }
    for port in [80, 8080] {
        answer(inner.run(|| TcpListener::bind(("::", port)).expect("its own port")));
    }
    inner
}

/// What Docker writes for a container that publishes its port 80, for both families.
fn docker() -> [(&'static str, String); 2] {
    let rules = |container: &str, network: &str, loopback: &str, to: &str| {
        include_str!("../data/rulesets/gallery/docker-published.iptables")
            .replace("CONTAINER", container)
            .replace("NETWORK", network)
            .replace("LOOPBACK", loopback)
            .replace("TARGET", to)
    };
    [
        (
            "iptables-nft-restore",
            rules(
                "172.17.0.2/32",
                "172.17.0.0/16",
                "127.0.0.0/8",
                "172.17.0.2:80",
            ),
        ),
        (
            "ip6tables-nft-restore",
            rules(
                "fd00:17::2/128",
                "fd00:17::/64",
                "::1/128",
                "[fd00:17::2]:80",
            )
            .replace("-p icmp", "-p ipv6-icmp"),
        ),
    ]
}

/// What somebody says beforehand of both families.
struct Promise {
    by: &'static str,
    shut: [Fate; 2],
    open: [Fate; 2],
    /// For whoever has to find out why it was not kept.
    details: String,
}

fn reading_promises(answers: &[Answer]) -> Promise {
    Promise {
        by: "the reading",
        shut: promised(answers, promised_shut),
        open: promised(answers, promised_open),
        details: String::new(),
    }
}

/// What the reading promises of a packet in a window.
fn promised_open(answer: &Answer) -> Fate {
    if answer.is_lost() {
        return Fate::Dropped;
    }
    match &answer.open.path {
        Path::Drops(_) => Fate::Dropped,
        Path::Passes { doubts } => {
            let is_sure = doubts
                .iter()
                .all(|doubt| matches!(doubt, Doubt::DropsListed(_)));
            if is_sure { Fate::Passes } else { Fate::Open }
        }
    }
}

/// The same outside of windows.
fn promised_shut(answer: &Answer) -> Fate {
    match answer.shut {
        _ if answer.is_lost() => Fate::Dropped,
        Shut::Dropped(_) => Fate::Dropped,
        Shut::Passes => Fate::Passes,
        Shut::Unknown => Fate::Open,
    }
}

/// What is promised of both families; what the host's other interfaces have is not asked.
fn promised(answers: &[Answer], of: impl Fn(&Answer) -> Fate) -> [Fate; 2] {
    [IpFamily::V4, IpFamily::V6].map(|family| {
        let mut answers = answers.iter();
        let mine = answers.find(|answer| {
            let is_port = answer.port == 80 && answer.transport == Transport::Tcp;
            is_port && answer.family == family && answer.interface == "eth0"
        });
        of(mine.unwrap_or_else(|| panic!("no answer for {family}")))
    })
}

/// Handles are the kernel's to give out.
fn without_handles(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split(' ') {
        let is_handle = words.last() == Some(&"rule");
        let digits = word.trim_end_matches([':', ',', ')']);
        if is_handle && !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit()) {
            let rest = &word[digits.len()..];
            let word = match rest {
                ":" => "rule:",
                "," => "rule,",
                ")" => "rule)",
                _ => "rule",
            };
            words.pop();
            words.push(word);
            continue;
        }
        words.push(word);
    }
    words.join(" ")
}

fn shown(finding: &Finding) -> String {
    let mut text = format!(
        "{} {}: {}",
        finding.severity.as_str(),
        finding.code.word,
        finding.finding
    );
    for line in &finding.evidence {
        text.push_str(&format!("\n  seen: {line}"));
    }
    for line in &finding.remedy {
        text.push_str(&format!("\n  do: {line}"));
    }
    without_handles(&text)
}

fn examine_case(host: &Host, case: &Case) {
    let scene = Scene::new(host, case);
    scene.install();
    let (answers, exam) = scene.examine();
    let letter: Vec<String> = exam.findings.iter().map(shown).collect();
    let letter = format!(
        "{}\n{}\n{}",
        case.name,
        exam.looked_at.join("\n"),
        letter.join("\n")
    );
    // What it says first.
    let first = exam.findings.first().unwrap_or_else(|| panic!("{letter}"));
    let (code, severity, words) = case.first;
    assert_eq!(first.code.word, code.word, "{}\n{letter}", case.because);
    assert_eq!(first.severity, severity, "{letter}");
    for word in words {
        assert!(shown(first).contains(word), "`{word}` in:\n{letter}");
    }
    // What is promised, and what is so.
    let promises = [reading_promises(&answers), scene.twin_promises()];
    let compare = |when: &str, expected: [Fate; 2], of: fn(&Promise) -> [Fate; 2]| {
        let packets = scene.packets(expected);
        for (at, seen) in packets.into_iter().enumerate() {
            let family = ["IPv4", "IPv6"][at];
            let passed = seen == Seen::Connected;
            let truth = if passed { Fate::Passes } else { Fate::Dropped };
            assert_eq!(
                truth, expected[at],
                "the case itself: {family} {when}, {seen:?}\n{letter}"
            );
            for promise in &promises {
                let promised = of(promise)[at];
                assert!(
                    promised == truth || case.may_be_open && promised == Fate::Open,
                    "{family} {when}: {} promised {promised:?}, but {seen:?}: {}\n{letter}",
                    promise.by,
                    promise.details
                );
            }
        }
    };
    compare("outside of windows", case.shut, |promise| promise.shut);
    scene.open();
    compare("in a window", case.open, |promise| promise.open);
    follow_the_remedy(scene, first, case, &letter);
}

/// Where the doctor says which chains to attach to, that is done to the letter.
fn follow_the_remedy(mut scene: Scene<'_>, first: &Finding, case: &Case, letter: &str) {
    let line = first
        .remedy
        .iter()
        .find_map(|line| line.split_once("`chains = "));
    let Some((_, chains)) = line else {
        assert!(!case.attachable, "no chains to attach to:\n{letter}");
        return;
    };
    assert!(case.attachable, "attach is no way here:\n{letter}");
    let (chains, _) = chains.split_once('`').expect("it ends");
    scene.acmegate(&["firewall", "remove"]);
    let head: String = scene
        .config
        .split_inclusive('\n')
        .take_while(|line| !line.starts_with("[firewall]"))
        .collect();
    let ports = if scene.config.contains("ports = [80]") {
        "ports = [80]\n"
    } else {
        ""
    };
    scene.config = format!("{head}[firewall]\nmode = \"attach\"\nchains = {chains}\n{ports}");
    scene.install();
    let seen = scene.packets([Fate::Dropped; 2]);
    let passed = |seen: &Seen| *seen == Seen::Connected;
    assert!(
        !seen.iter().any(passed),
        "shut, as advised: {seen:?}\n{letter}"
    );
    scene.open();
    let seen = scene.packets([Fate::Passes; 2]);
    assert!(
        seen.iter().all(passed),
        "open, as advised: {seen:?}\n{letter}"
    );
    let (_, exam) = scene.examine();
    let faults: Vec<_> = exam
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Fault)
        .map(shown)
        .collect();
    assert!(faults.is_empty(), "as advised: {faults:#?}");
}

/// The gallery: every ruleset, both families, window shut and open.
#[test]
fn what_the_doctor_says_is_what_packets_find() {
    inside(|| {
        assert!(CASES.len() >= 25, "{}", CASES.len());
        let mut wrong = Vec::new();
        for some in CASES.chunks(AT_ONCE) {
            std::thread::scope(|scope| {
                let running: Vec<_> = some
                    .iter()
                    .map(|case| (case, scope.spawn(|| examine_case(&Host::new(), case))))
                    .collect();
                for (case, running) in running {
                    if running.join().is_err() {
                        wrong.push(case.name);
                    }
                }
            });
        }
        assert!(wrong.is_empty(), "see above: {wrong:#?}");
    });
}
