//! Records of windows, by a real daemon in front of real peers: who came, what they got, what ended it,
//! and who may read it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::protocol::{Ask, CONTROL_SOCKET, ReportWord, Response};
use acmegate::observe::record::Outcome;
use acmegate::observe::record::{EndedBy, Record, Role, Source, Why};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, socket_address};
use crate::kernel::{SHUT, open_ports};
use crate::lab::perspective::{DIAL, Question};
use crate::lab::{Daemon, inside, ip, send, wait_for};
use crate::raw::{self, SYN, Segment};

pub const NAME: &str = "www.example.com";
pub const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
pub const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
pub const SOON: Duration = Duration::from_secs(60);
const FOUR: [&str; 4] = ["198.51.100.7", "203.0.113.7", "100.64.9.7", "3fff:1::7"];

/// A host that is asked from these sources.
pub fn host_asked_from(sources: &'static [&'static str]) -> Host {
    let host = Host::new();
    host.outside(move || {
        for address in sources {
            let length = if address.contains(':') { 128 } else { 32 };
            ip(&format!("addr add {address}/{length} dev lo"));
        }
    });
    ip("route add default via 192.0.2.2");
    ip("-6 route add default via 2001:db8:1::2");
    host
}

/// What a perspective at `from` asks for a token of [`NAME`].
pub fn question(from: &str, token: &str) -> Question {
    Question {
        from: from.to_owned(),
        to: if from.contains(':') { HOST_6 } else { HOST_4 }.to_owned(),
        name: NAME.to_owned(),
        path: format!("/.well-known/acme-challenge/{token}"),
        dial: DIAL,
    }
}

/// The records that a daemon tells.
#[track_caller]
pub fn records(daemon: &Daemon, which: ReportWord) -> Vec<Record> {
    let runtime_dir = daemon.runtime_dir();
    let response = client::ask(Path::new(&runtime_dir), Ask::Report(which)).expect("it answers");
    assert_eq!(response.code, 0, "{response:?}");
    let values = response.report.into_iter();
    values
        .map(|record| record.read().expect("a record"))
        .collect()
}

/// The last window's.
#[track_caller]
pub fn last(daemon: &Daemon) -> Record {
    let last = records(daemon, ReportWord::default());
    last.into_iter().next_back().expect("a window was opened")
}

#[track_caller]
fn source<'a>(record: &'a Record, address: &str) -> &'a Source {
    let mut sources = record.sources.iter();
    let found = sources.find(|source| source.address.to_string() == address);
    found.unwrap_or_else(|| panic!("{address} is not in {record:#?}"))
}

#[test]
fn a_window_is_recorded_from_its_opening_to_its_end() {
    inside(|| {
        let host = host_asked_from(&FOUR);
        let daemon = Daemon::start("[[site]]\ndefault = true\nredirect = \"www.example.com\"\n");
        daemon
            .cli(&["open", "--lease", "a", "--for", "5m"])
            .success();
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        for from in &FOUR[..3] {
            assert_eq!(host.outside(move || question(from, TOKEN).ask()), Some(200));
        }
        // Somebody who wants something else, and the host's own network, which needs no window.
        let visitor = Question {
            path: "/".to_owned(),
            ..question(FOUR[3], TOKEN)
        };
        assert_eq!(host.outside(move || visitor.ask()), Some(301));
        let neighbour = Question {
            to: HOST_PRIVATE.to_owned(),
            ..question("10.0.0.2", TOKEN)
        };
        assert_eq!(host.outside(move || neighbour.ask()), Some(200));
        let open = last(&daemon);
        assert!(open.end.is_none() && open.assessment.outcome == Outcome::Open);
        daemon.cli(&["close", "--lease", "a"]).success();
        let record = last(&daemon);
        assert_eq!((record.lease.as_str(), record.caller), ("a", 0));
        assert_eq!(
            (record.why, record.ports.as_slice()),
            (Why::Asked, &[80][..])
        );
        assert_eq!(record.deadline, 300_000);
        assert_eq!(record.end.expect("it ended").by, EndedBy::Close);
        assert_eq!(record.assessment.outcome, Outcome::Answered);
        assert_eq!(record.assessment.answered, 3);
        assert_eq!(record.sources.len(), 4, "{record:#?}");
        for from in &FOUR[..3] {
            let came = source(&record, from);
            assert_eq!(came.role, Role::Validator);
            let visit = &came.visits[0];
            assert_eq!(
                (visit.reason.as_str(), visit.status),
                ("answered", Some(200))
            );
            assert_eq!(visit.identifier.as_deref(), Some(NAME));
            assert!(visit.octets > 87 && visit.took > 0);
        }
        assert_eq!(source(&record, FOUR[3]).role, Role::Visitor);
        // Neither the token nor the key authorization is in it.
        let text = serde_json::to_string(&record).expect("JSON");
        assert!(
            !text.contains(TOKEN) && !text.contains("9jg46WB3rR"),
            "{text}"
        );
    });
}

#[test]
fn what_ended_a_window_is_told() {
    inside(|| {
        let _host = host_asked_from(&[]);
        let mut daemon = Daemon::start("");
        daemon
            .cli(&["open", "--lease", "cut", "--for", "1s"])
            .success();
        let cut = wait_for(SOON, "the window ends", || {
            let record = last(&daemon);
            record.end.map(|end| (end, record.assessment))
        });
        assert_eq!(cut.0.by, EndedBy::Deadline);
        assert!(cut.1.was_cut && cut.0.late < 500, "{cut:?}");

        let before = daemon.config();
        let before = std::fs::read_to_string(before).expect("its configuration");
        let by = |name: &str| {
            let word = ReportWord {
                lease: Some(name.to_owned()),
                ..ReportWord::default()
            };
            records(&daemon, word)[0].end.map(|end| end.by)
        };
        daemon.cli(&["open", "--lease", "removed"]).success();
        daemon.cli(&["firewall", "remove"]).success();
        assert_eq!(by("removed"), Some(EndedBy::Removed));
        daemon.cli(&["firewall", "apply"]).success();

        daemon.cli(&["open", "--lease", "kept"]).success();
        daemon.write_config(&format!("[firewall]\nports = [80, 81]\n{before}"));
        daemon.signal(Signal::HUP);
        wait_for(SOON, "it reloads", || {
            daemon
                .log()
                .contains("configuration reloaded")
                .then_some(())
        });
        assert_eq!(by("kept"), None);
        // The kernel keeps it through a restart, and so does the record.
        assert_eq!(daemon.end_by(Signal::USR1), 0);
        daemon.start_again();
        assert_eq!(last(&daemon).lease, "kept");
        assert!(last(&daemon).end.is_none());
    });
}

#[test]
fn what_came_just_before_the_enforcer_died_is_on_the_record_of_the_next_run() {
    inside(|| {
        let host = host_asked_from(&FOUR);
        let mut daemon = Daemon::start("");
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        let answered = host.outside(|| question(FOUR[0], TOKEN).ask());
        assert_eq!(answered, Some(200));
        send(daemon.enforcer(), Signal::KILL);
        assert_ne!(daemon.gone(), 0);
        daemon.start_again();
        daemon.cli(&["close", "--lease", "a"]).success();
        let record = last(&daemon);
        assert_eq!(record.why, Why::Asked, "{record:#?}");
        assert!(source(&record, FOUR[0]).is_answered(), "{record:#?}");
        assert!(record.evidence.incomplete.is_some(), "{record:#?}");
    });
}

/// Comes from this address to port 80, finishes the handshake, and holds the connection without a word: nobody
/// but the kernel knows of it until the gate loses its patience.
fn hold(host: &Host, from: &'static str) -> TcpStream {
    host.outside(move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let own = socket_address(from, 0);
        socket.bind(&own.into()).expect("its own address");
        let to = socket_address(HOST_4, 80);
        socket.connect(&to.into()).expect("the window is open");
        socket.into()
    })
}

/// Three first packets from this address, of nobody who goes on.
fn knock(host: &Host, from: &'static str) {
    host.outside(move || {
        let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        raw::send((2_000..2_003).map(|port| Segment {
            from: (address(from), port),
            to: (address(HOST_4), 80),
            flags: SYN,
            sequence: 7,
        }));
    });
}

/// Lets pass what may lie between when a packet came and when it is believed to have come.
fn let_pass() {
    let since = Instant::now();
    wait_for(SOON, "a moment passes", || {
        (since.elapsed() > Duration::from_millis(600)).then_some(())
    });
}

#[test]
fn windows_that_follow_and_overlap_each_other_tell_each_its_own_sources() {
    const SOURCES: [&str; 4] = ["198.51.100.7", "203.0.113.7", "100.64.9.7", "198.18.0.7"];
    let [always, first, second, third] = SOURCES;
    inside(|| {
        let host = host_asked_from(&SOURCES);
        let daemon = Daemon::start("");
        let record = |lease: &str| {
            let word = ReportWord {
                lease: Some(lease.to_owned()),
                ..ReportWord::default()
            };
            records(&daemon, word).remove(0)
        };
        let has = |lease: &str, address: &str, is_so: fn(&Source) -> bool| {
            wait_for(SOON, &format!("{address} in {lease}"), || {
                let record = record(lease);
                let source =
                    (record.sources.iter()).find(|source| source.address.to_string() == address);
                source.is_some_and(is_so).then_some(())
            });
        };
        // By the kernel's word alone: what a connection came to would say so too, later.
        let got_through: fn(&Source) -> bool = |source| source.reached && source.visits.is_empty();
        let only_came: fn(&Source) -> bool = |source| source.packets == 3 && !source.reached;
        let mut held = Vec::new();

        daemon.cli(&["open", "--lease", "a"]).success();
        held.push(hold(&host, always));
        knock(&host, first);
        has("a", always, got_through);
        has("a", first, only_came);
        daemon.cli(&["close", "--lease", "a"]).success();

        let_pass();
        daemon.cli(&["open", "--lease", "b"]).success();
        held.push(hold(&host, always));
        knock(&host, second);
        has("b", always, got_through);
        has("b", second, only_came);

        let_pass();
        daemon.cli(&["open", "--lease", "c"]).success();
        held.push(hold(&host, always));
        has("c", always, got_through);
        daemon.cli(&["close", "--lease", "b"]).success();

        let_pass();
        knock(&host, third);
        has("c", third, only_came);
        daemon.cli(&["close", "--lease", "c"]).success();

        for (lease, own) in [("a", first), ("b", second), ("c", third)] {
            let record = record(lease);
            // Two that came in the same moment may stand in either order.
            let addresses: BTreeSet<_> = (record.sources.iter())
                .map(|source| source.address.to_string())
                .collect();
            let own = BTreeSet::from([always, own].map(str::to_owned));
            assert_eq!(addresses, own, "{record:#?}");
        }
    });
}

#[test]
fn what_ended_while_nobody_watched_or_by_a_stop_is_told_afterwards() {
    inside(|| {
        let _host = host_asked_from(&[]);
        let mut daemon = Daemon::start("");
        let by = |daemon: &Daemon, name: &str| {
            let word = ReportWord {
                lease: Some(name.to_owned()),
                ..ReportWord::default()
            };
            records(daemon, word)[0].end.map(|end| end.by)
        };
        daemon
            .cli(&["open", "--lease", "alone", "--for", "3s"])
            .success();
        wait_for(SOON, "it is on disk", || {
            (daemon.status()["history"]["records"] == 1).then_some(())
        });
        daemon.kill();
        wait_for(SOON, "the kernel shuts", || {
            (open_ports() == SHUT).then_some(())
        });
        daemon.start_again();
        assert_eq!(by(&daemon, "alone"), Some(EndedBy::Unwatched));
        daemon.cli(&["open", "--lease", "stopped"]).success();
        assert_eq!(daemon.terminate(), 0);
        daemon.start_again();
        assert_eq!(by(&daemon, "stopped"), Some(EndedBy::Stop));
    });
}

#[test]
fn whoever_may_watch_sees_windows_come_and_go() {
    inside(|| {
        let _host = host_asked_from(&[]);
        let daemon = Daemon::start("");
        let socket = Path::new(&daemon.runtime_dir()).join(CONTROL_SOCKET);
        let mut stream = UnixStream::connect(socket).expect("the socket");
        stream
            .write_all(b"{\"version\":1,\"ask\":\"watch\"}\n")
            .expect("it listens");
        let mut lines = BufReader::new(stream).lines();
        let mut next = || -> Vec<Record> {
            let line = lines.next().expect("it goes on").expect("a line");
            let response: Response = serde_json::from_str(&line).expect("a response");
            let told = response.report.iter();
            told.map(|record| record.read().expect("a record"))
                .collect()
        };
        assert_eq!(next(), []);
        daemon.cli(&["open", "--lease", "a"]).success();
        assert_eq!(next()[0].lease, "a");
        daemon.cli(&["close", "--lease", "a"]).success();
        while next()[0].end.is_none() {}
    });
}
