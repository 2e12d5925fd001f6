//! The day itself: who opens windows and how they end, who validates, and what goes wrong meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use acmegate::control::client;
use acmegate::control::protocol::{
    Ask, ChallengeName, DigestWord, FamilyName, Open, Response, SaidWord,
};
use acmegate::control::status::Status;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use super::measure;
use crate::host::{HOST_4, HOST_6, Host, socket_address};
use crate::kernel::elements;
use crate::lab::perspective::{DIAL, Question};
use crate::lab::tls::{Client, Version};
use crate::lab::{self, Daemon, Numbers, Process, TempDir, send, wait_for};
use crate::records::host_asked_from;

/// What anything here may take that must come about, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
const SOURCES: [&str; 6] = [
    "198.51.100.7",
    "203.0.113.7",
    "100.64.9.7",
    "45.33.9.7",
    "3fff:1::7",
    "3fff:2::7",
];
const NAMES: [&str; 6] = [
    "a.example.com",
    "b.example.com",
    "c.example.com",
    "www.example.org",
    "mail.example.org",
    "shop.example.net",
];
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// A window that nobody closes: no longer than its validations take.
const SHORT: u64 = 4000;

/// How windows come and go: each as often as it stands here.
const KINDS: [(Kind, u64); 8] = [
    (Kind::Asked, 8),
    (Kind::Command, 3),
    (Kind::Tls, 4),
    (Kind::Expires, 2),
    (Kind::Early, 2),
    (Kind::Exec, 2),
    (Kind::Narrow, 2),
    (Kind::Overlapping, 2),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Asked over the socket, for port 80 and with a pushed token; closed.
    Asked,
    /// The same by the command line.
    Command,
    /// For TLS-ALPN-01.
    Tls,
    /// The kernel's timeout ends it.
    Expires,
    /// A quorum ends it.
    Early,
    /// Armed by `acmegate exec`, opened by a token, ended with the command.
    Exec,
    /// For one family, address or interface alone.
    Narrow,
    /// Two leases at once, renewed and closed in any order.
    Overlapping,
}

/// A host, its daemon, and what has happened so far.
pub struct Day {
    pub host: Host,
    pub daemon: Daemon,
    pub windows: usize,
    numbers: Numbers,
    lists: TempDir,
    prefixes: usize,
    listed: usize,
    /// What the built-in list has.
    built_in: usize,
    counts: BTreeMap<String, usize>,
}

impl Day {
    pub fn new(seed: u64) -> Self {
        let host = host_asked_from(&SOURCES);
        let lists = TempDir::new();
        write_list(&lists, 1);
        let daemon = Daemon::start(&config(&lists, 1));
        let mut day = Self {
            host,
            daemon,
            windows: 0,
            numbers: Numbers(seed),
            lists,
            prefixes: 1,
            listed: 1,
            built_in: 0,
            counts: BTreeMap::new(),
        };
        day.built_in = day.status().allow.ipv4_ranges - 2;
        day
    }

    /// What came about, how often.
    pub fn told(&self) -> String {
        let counts = self.counts.iter();
        let words: Vec<_> = counts
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        format!("{} windows: {}", self.windows, words.join(", "))
    }

    pub fn status(&self) -> Status {
        client::status(self.runtime_dir().as_ref()).expect("it serves")
    }

    fn runtime_dir(&self) -> String {
        self.daemon.runtime_dir()
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// One more window of some kind, and what happens beside it.
    pub fn window(&mut self) {
        let all = KINDS.iter().map(|(_, share)| share).sum();
        let mut drawn = self.numbers.below(all);
        let found = KINDS.iter().find(|(_, share)| {
            let is_it = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            is_it
        });
        let (kind, _) = found.expect("the shares are all");
        self.windows += 1;
        self.count(format!("{kind:?}").to_lowercase());
        match kind {
            Kind::Asked => self.asked(),
            Kind::Command => self.by_command(),
            Kind::Tls => self.tls(),
            Kind::Expires => self.left_open(1000, 1),
            Kind::Early => self.left_open(SHORT, 4),
            Kind::Exec => self.exec(),
            Kind::Narrow => self.narrow(),
            Kind::Overlapping => self.overlapping(),
        }
        match self.numbers.below(30) {
            0 => self.reload_allow_list(),
            1 => self.reload_badly(),
            2 | 3 => self.strangers(),
            _ => {}
        }
    }

    /// What the name of a client with this window's number is.
    fn lease(&self) -> String {
        format!("client{}-{}", self.windows % 5, self.windows)
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.numbers.below(NAMES.len() as u64) as usize]
    }

    /// So many of the sources, beginning anywhere: each of another network.
    fn sources(&mut self, count: usize) -> Vec<&'static str> {
        let first = self.numbers.below(SOURCES.len() as u64) as usize;
        let row = SOURCES.iter().cycle().skip(first);
        row.take(count).copied().collect()
    }

    #[track_caller]
    fn ask(&self, ask: Ask) -> Response {
        let response = client::ask(self.runtime_dir().as_ref(), ask).expect("an answer");
        assert_eq!(response.code, 0, "{response:?}\n{}", self.daemon.log());
        response
    }

    #[track_caller]
    fn open(&self, open: Open) {
        self.ask(Ask::Open(open));
    }

    #[track_caller]
    fn close(&self, lease: &str, said: Option<SaidWord>) {
        let lease = lease.to_owned();
        self.ask(Ask::Close { lease, said });
    }

    #[track_caller]
    fn push(&self, name: &str, token: &str, challenge: ChallengeName, digest: Option<DigestWord>) {
        let whole = digest.is_none().then(|| format!("{token}.{THUMBPRINT}"));
        self.ask(Ask::AnswerAdd {
            challenge,
            identifier: name.to_owned(),
            key_authorization: whole,
            digest,
            milliseconds: Some(60_000),
        });
    }

    #[track_caller]
    fn withdraw(&self, name: &str, token: &str, challenge: ChallengeName) {
        self.ask(Ask::AnswerRemove {
            challenge,
            identifier: name.to_owned(),
            token: token.to_owned(),
        });
    }

    /// Each source asks at the same time, and each gets this.
    #[track_caller]
    fn validate(&mut self, sources: Vec<&'static str>, name: &str, token: &str, expected: u16) {
        let questions: Vec<_> = sources
            .into_iter()
            .map(|from| Question {
                from: from.to_owned(),
                to: towards(from).to_owned(),
                name: name.to_owned(),
                path: format!("/.well-known/acme-challenge/{token}"),
                dial: DIAL,
            })
            .collect();
        let count = questions.len();
        let got = self.host.outside(|| {
            let asked = questions
                .into_iter()
                .map(|question| std::thread::spawn(move || (question.ask(), question)));
            let asked: Vec<_> = asked.collect();
            let ended = asked.into_iter().map(|asked| asked.join());
            ended.collect::<Result<Vec<_>, _>>().expect("no panic")
        });
        for (got, question) in got {
            let log = self.daemon.log();
            assert_eq!(got, Some(expected), "{question:?}\n{log}");
        }
        *self.counts.entry("validations".to_owned()).or_default() += count;
    }

    fn asked(&mut self) {
        let (name, lease, token) = (self.name(), self.lease(), token(self.windows));
        let count = 1 + self.numbers.below(4) as usize;
        let sources = self.sources(count);
        let identifiers = (self.numbers.below(2) == 0).then(|| vec![name.to_owned()]);
        self.open(Open {
            lease: lease.clone(),
            identifiers,
            ..Open::default()
        });
        self.push(name, &token, ChallengeName::Http01, None);
        if self.numbers.below(8) == 0 {
            self.flush();
        }
        if self.numbers.below(4) == 0 {
            self.validate(sources.clone(), name, "a-token-that-nobody-pushed", 404);
        }
        self.validate(sources, name, &token, 200);
        self.withdraw(name, &token, ChallengeName::Http01);
        let said = (self.numbers.below(3) == 0).then(|| SaidWord {
            renewed: vec![name.to_owned()],
            failed: Vec::new(),
        });
        self.close(&lease, said);
    }

    fn by_command(&mut self) {
        let (name, lease, token) = (self.name(), self.lease(), token(self.windows));
        let sources = self.sources(2);
        let answer = format!("{token}.{THUMBPRINT}");
        self.daemon
            .cli(&["open", "--lease", &lease, "--for", "1m"])
            .success();
        self.daemon.cli(&["answer", "add", name, &answer]).success();
        self.validate(sources, name, &token, 200);
        self.daemon
            .cli(&["answer", "remove", name, &answer])
            .success();
        self.daemon.cli(&["close", "--lease", &lease]).success();
        if self.numbers.below(4) == 0 {
            // On a busy machine the historian may be late, which is told as such.
            wait_for(SOON, "the windows of a minute", || {
                let told = self.daemon.cli(&["report", "--since", "1m", "--json"]);
                assert!([0, 75].contains(&told.code), "{told}");
                (told.code == 0).then_some(())
            });
        }
    }

    fn tls(&mut self) {
        let (name, lease, token) = (self.name(), self.lease(), token(self.windows));
        let sources = self.sources(2);
        self.open(Open {
            lease: lease.clone(),
            challenges: vec![ChallengeName::TlsAlpn01],
            ..Open::default()
        });
        let digest = (self.numbers.below(2) == 0).then(|| DigestWord {
            token: token.clone(),
            sha256: THUMBPRINT.to_owned(),
        });
        self.push(name, &token, ChallengeName::TlsAlpn01, digest);
        for from in sources {
            let got = self.host.outside(move || {
                Client::new(Version::Tls13, Some(name), &["acme-tls/1"])
                    .silent()
                    .run(connect(from, 443))
            });
            assert_eq!(
                got.alpn.as_deref(),
                Some(&b"acme-tls/1"[..]),
                "{from}: {got:?}"
            );
            self.count("handshakes");
        }
        self.withdraw(name, &token, ChallengeName::TlsAlpn01);
        self.close(&lease, None);
    }

    /// One that nobody closes: a timeout ends it, or a quorum of so many sources.
    fn left_open(&mut self, milliseconds: u64, sources: usize) {
        let (name, lease, token) = (self.name(), self.lease(), token(self.windows));
        let sources = self.sources(sources);
        self.open(Open {
            lease,
            milliseconds: Some(milliseconds),
            identifiers: Some(vec![name.to_owned()]),
            ..Open::default()
        });
        self.push(name, &token, ChallengeName::Http01, None);
        self.validate(sources, name, &token, 200);
        self.withdraw(name, &token, ChallengeName::Http01);
    }

    fn exec(&mut self) {
        let (name, token) = (self.name(), token(self.windows));
        let (lease, sources) = (self.lease(), self.sources(1));
        let (pushed, go_on) = (self.lists.at("pushed"), self.lists.at("go-on"));
        let script = format!(
            "acmegate answer add {name} {token}.{THUMBPRINT} && : >{pushed}
             until [ -e {go_on} ]; do sleep 0.02; done
             acmegate answer remove {name} {token}.{THUMBPRINT}"
        );
        let mut command = self.daemon.command();
        command.args(["exec", "--lease", &lease, "--", "sh", "-c", &script]);
        command.env("PATH", self.daemon.search_path());
        let mut process = Process::spawn(command);
        wait_for(SOON, "the token is pushed", || {
            Path::new(&pushed).exists().then_some(())
        });
        self.validate(sources, name, &token, 200);
        self.lists.write("go-on", "");
        let code = process.wait(SOON);
        assert_eq!(code, 0, "{}", process.stderr());
        for file in [pushed, go_on] {
            std::fs::remove_file(file).expect("our own file");
        }
    }

    fn narrow(&mut self) {
        let (lease, which) = (self.lease(), self.numbers.below(4));
        let mut open = Open {
            lease: lease.clone(),
            ports: vec![80],
            ..Open::default()
        };
        let source = match which {
            0 => {
                open.family = Some(FamilyName::Ipv6);
                "3fff:1::7"
            }
            1 => {
                open.family = Some(FamilyName::Ipv4);
                SOURCES[0]
            }
            2 => {
                open.address = HOST_4.parse().ok();
                SOURCES[1]
            }
            _ => {
                open.interface = Some("eth0".to_owned());
                "3fff:2::7"
            }
        };
        self.open(open);
        self.validate(vec![source], NAMES[0], "a-token-that-nobody-pushed", 404);
        self.close(&lease, None);
    }

    fn overlapping(&mut self) {
        let leases = ["one", "other"].map(|word| format!("{}-{word}", self.lease()));
        let open = |lease: &String, milliseconds| Open {
            lease: lease.clone(),
            milliseconds: Some(milliseconds),
            ..Open::default()
        };
        self.open(open(&leases[0], 60_000));
        self.open(open(&leases[1], 30_000));
        self.open(open(&leases[0], 90_000));
        let first = self.numbers.below(2) as usize;
        self.close(&leases[first], None);
        let sources = self.sources(1);
        self.validate(sources, NAMES[1], "a-token-that-nobody-pushed", 404);
        self.close(&leases[1 - first], None);
    }

    /// Somebody else takes away what is ours, in an open window.
    fn flush(&mut self) {
        let words = match self.numbers.below(3) {
            0 => "delete table inet acmegate",
            1 => "flush ruleset",
            _ => "flush set inet acmegate window4",
        };
        lab::nft(words);
        self.count("flushes");
        wait_for(SOON, "the window is back", || {
            let is_there = |set| elements(set).contains_key(&80);
            (is_there("window4") && is_there("window6")).then_some(())
        });
    }

    /// Peers that say nothing, and visitors: from outside in an open window, or from the allow-list.
    fn strangers(&mut self) {
        let lease = self.lease();
        self.open(Open {
            lease: lease.clone(),
            ..Open::default()
        });
        self.host.outside(|| {
            for from in [SOURCES[0], SOURCES[4]] {
                drop(connect(from, 80));
                let mut silent = connect(from, 80);
                let _ = std::io::Write::write_all(&mut silent, b"GET / HTTP/1.1\r\nHo");
            }
        });
        self.close(&lease, None);
        self.count("strangers");
    }

    fn reload_allow_list(&mut self) {
        self.prefixes = 1 + self.numbers.below(50) as usize;
        self.listed = 1 + self.numbers.below(500) as usize;
        self.reload();
    }

    fn reload(&mut self) {
        write_list(&self.lists, self.listed);
        self.daemon
            .write_config(&config(&self.lists, self.prefixes));
        self.daemon.signal(Signal::HUP);
        let expected = self.built_in + self.prefixes + self.listed;
        wait_for(SOON, "the new list is in force", || {
            let status = self.status();
            (status.allow.ipv4_ranges == expected && !is_refused(&status)).then_some(())
        });
        self.count("reloads");
    }

    /// A configuration that is none, and windows go on by the one before.
    fn reload_badly(&mut self) {
        self.daemon.write_config("[window]\nmax = 7\n");
        self.daemon.signal(Signal::HUP);
        wait_for(SOON, "it is refused", || {
            is_refused(&self.status()).then_some(())
        });
        self.count("refused reloads");
        self.asked();
        self.reload();
    }

    /// Kills one of the processes with SIGKILL in an open window, and starts it all again.
    pub fn kill(&mut self) {
        let lease = format!("{}-survives", self.lease());
        self.open(Open {
            lease: lease.clone(),
            ..Open::default()
        });
        let (victim, pid) = match self.numbers.below(4) {
            0 => ("fronts", self.daemon.front()),
            1 => ("enforcers", self.daemon.enforcer()),
            2 => ("runners", self.daemon.runner()),
            _ => ("historians", self.daemon.historian()),
        };
        send(pid, Signal::KILL);
        if victim == "historians" {
            // Windows go on without it.
            self.asked();
            self.daemon.kill();
        }
        self.daemon.gone();
        self.count(format!("killed {victim}"));
        self.daemon.start_again();
        let sources = self.sources(1);
        self.validate(sources, NAMES[2], "a-token-that-nobody-pushed", 404);
        self.close(&lease, None);
    }

    /// Stops it for good: nothing of it is left.
    pub fn end(mut self) {
        wait_for(2 * SOON, "nobody who came is remembered", || {
            (measure::elements(measure::SOURCES) == 0).then_some(())
        });
        assert_eq!(self.daemon.terminate(), 0);
        assert_eq!(lab::ruleset(), "");
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
        let left = std::fs::read_dir(self.daemon.runtime_dir()).expect("it is there");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert!(
            left.iter()
                .all(|name| name == "lock" || name.to_string_lossy().ends_with(".sock")),
            "{left:?}"
        );
    }
}

fn is_refused(status: &Status) -> bool {
    let mut problems = status.problems.iter();
    problems.any(|problem| problem.contains("not accepted"))
}

/// A configuration of everything that has a state of its own.
fn config(lists: &TempDir, prefixes: usize) -> String {
    let prefixes: Vec<_> = (0..prefixes)
        .map(|at| format!("\"198.18.{}.0/24\"", at * 2))
        .collect();
    format!(
        "[http]\nhead_timeout = \"2s\"\n\
         [tls]\nlisten = [\"[::]:443\"]\nhello_timeout = \"2s\"\n\
         [window]\nclose_early = \"quorum\"\nsettle = \"1s\"\nquorum = 3\n\
         [budget]\nper_hour = 3600\nreserve = 1\nday = \"unlimited\"\nmonth = \"unlimited\"\n\
         failures_per_hour = \"unlimited\"\n\
         [firewall]\nports = [80, 443]\nowner = \"never\"\n\
         open_command = [\"true\", \"{{port}}\"]\nclose_command = [\"true\", \"{{port}}\"]\n\
         [allow]\nprefixes = [{}]\nfiles = [\"{}\"]\n\
         [notify]\ncommand = [\"true\", \"{{window}}\"]\n\
         [report]\nmax_bytes = \"8MiB\"\n",
        prefixes.join(", "),
        lists.at("office.list"),
    )
}

/// Replaces the list by one of so many addresses, no two of which are neighbours.
fn write_list(lists: &TempDir, count: usize) {
    let lines: Vec<_> = (0..count)
        .map(|at| format!("198.19.{}.{}", at / 100, (at % 100) * 2))
        .collect();
    let new = lists.write("office.new", &(lines.join("\n") + "\n"));
    std::fs::rename(new, lists.at("office.list")).expect("our own files");
}

/// No two windows have the same one.
fn token(number: usize) -> String {
    format!("token-{number:037}")
}

fn towards(from: &str) -> &'static str {
    if from.contains(':') { HOST_6 } else { HOST_4 }
}

/// A connection from this source, made in the caller's namespace.
fn connect(from: &str, port: u16) -> TcpStream {
    let source: IpAddr = from.parse().expect("an address");
    let to = socket_address(towards(from), port);
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket
        .bind(&SocketAddr::new(source, 0).into())
        .expect("the source's address");
    socket
        .connect_timeout(&to.into(), DIAL)
        .unwrap_or_else(|error| panic!("{from} port {port}: {error}"));
    socket.into()
}
