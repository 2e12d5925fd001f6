//! `acmegate watch` as it is shipped: on a real terminal, into a pipe, and beside a daemon that goes
//! away. A small server speaks the daemon's side, so that every window is known to the letter.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acmegate::control::protocol::{Ask, Envelope, Exit, Opaque, Response};
use acmegate::observe::record::{End, EndedBy, Record, Role, Source, Visit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::lab::{BINARY, Daemon, TempDir, run, send, wait_for};

const SECONDS: Duration = Duration::from_secs(20);

fn window(lease: &str, opened_at: u64) -> Record {
    Record {
        lease: lease.to_owned(),
        ports: vec![80],
        families: vec!["ipv4".to_owned()],
        opened_at,
        deadline: 600_000,
        ..Record::default()
    }
}

fn answered(mut record: Record, address: [u8; 4]) -> Record {
    record.sources.push(Source {
        address: address.into(),
        network: "203.0.0.0/16".to_owned(),
        place: None,
        role: Role::Validator,
        first: 1_204,
        packets: 1,
        reached: true,
        dropped: None,
        visits: vec![Visit {
            at: 1_204,
            port: 80,
            verdict: "accept".to_owned(),
            reason: "answered".to_owned(),
            identifier: Some("www.example.com".to_owned()),
            challenge: Some("http-01".to_owned()),
            token: Some("0badcafe".to_owned()),
            status: Some(200),
            octets: 87,
            took: 12_345,
            detail: None,
        }],
        more_visits: 0,
        then: None,
    });
    record
}

fn response(records: &[Record]) -> Response {
    let mut response = Response::done("watching");
    let values = records.iter().map(Opaque::of);
    response.report = values.collect::<Result<_, _>>().expect("JSON");
    response
}

/// The daemon's side, in a directory of its own.
struct Server {
    directory: TempDir,
    listener: UnixListener,
}

impl Server {
    fn start() -> Self {
        let directory = TempDir::new();
        let listener = UnixListener::bind(directory.at("control.sock")).expect("a socket");
        Self {
            directory,
            listener,
        }
    }

    /// Waits for whoever watches and tells it this at once.
    fn accept(&self, first: &Response) -> UnixStream {
        self.listener.set_nonblocking(true).expect("a socket");
        let (stream, _) = wait_for(SECONDS, "it calls", || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("a socket");
        stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("a request");
        let envelope: Envelope = serde_json::from_str(&line).expect("JSON");
        assert_eq!(envelope.ask, Ask::Watch);
        tell(&stream, first);
        stream
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args([
                "--runtime-dir",
                self.directory.path().to_str().expect("UTF-8"),
            ])
            .arg("watch");
        command
    }
}

fn tell(mut stream: &UnixStream, response: &Response) {
    let line = serde_json::to_string(response).expect("JSON");
    writeln!(stream, "{line}").expect("it reads");
}

/// A terminal and the program on it; killed when this is dropped.
struct OnTerminal {
    child: Child,
    master: OwnedFd,
    slave: File,
    before: Termios,
    shown: Vec<u8>,
}

impl OnTerminal {
    fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("UTF-8"))
            .expect("its other end");
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a size");
        let before = tcgetattr(&slave).expect("settings");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("it starts");
        Self {
            child,
            master,
            slave,
            before,
            shown: Vec::new(),
        }
    }

    /// Reads until everything that was written so far, escapes left out, has these words. Blanks do
    /// not count: where a cell was blank before, nothing is written.
    #[track_caller]
    fn shows(&mut self, words: &str) {
        let blanks_gone = words.replace(' ', "");
        wait_for(SECONDS, words, || {
            self.read();
            let shown = plain(&self.shown).replace(' ', "");
            shown.contains(&blanks_gone).then_some(())
        });
    }

    fn read(&mut self) {
        loop {
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            let timeout = rustix::time::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let count = poll(&mut ready, Some(&timeout)).expect("poll");
            if count == 0 || !ready[0].revents().contains(PollFlags::IN) {
                return;
            }
            let mut part = [0; 4096];
            let length = rustix::io::read(&self.master, &mut part).expect("a terminal");
            self.shown.extend_from_slice(&part[..length]);
        }
    }

    fn press(&self, keys: &[u8]) {
        rustix::io::write(&self.master, keys).expect("a terminal");
    }

    fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("settings");
        !now.local_modes.contains(LocalModes::ICANON)
    }

    /// Whether it is stopped, by the kernel's word.
    fn is_stopped(&self) -> bool {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("it lives");
        let (_, state) = stat.rsplit_once(") ").expect("a state");
        state.starts_with('T')
    }

    /// Waits for its end; the terminal is as it was before.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let status = wait_for(SECONDS, "it ends", || {
            self.read();
            self.child.try_wait().expect("our own child")
        });
        self.is_given_back();
        status.code()
    }

    /// The terminal is as it was before.
    #[track_caller]
    fn is_given_back(&mut self) {
        self.read();
        let now = tcgetattr(&self.slave).expect("settings");
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
        let shown = String::from_utf8_lossy(&self.shown).into_owned();
        let last = |escape: &str| shown.rfind(escape);
        assert!(
            last("\u{1b}[?1049l") > last("\u{1b}[?1049h"),
            "the screen is back"
        );
        assert!(
            last("\u{1b}[?25h") > last("\u{1b}[?25l"),
            "the cursor is back"
        );
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left without escape sequences.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
            continue;
        }
        if characters.next() == Some('[') {
            characters.find(|end| ('@'..='~').contains(end));
        }
    }
    plain
}

#[test]
fn on_a_terminal_windows_are_shown_as_they_change_and_q_gives_it_back() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    let open = window("certbot-812", 1);
    let stream = server.accept(&response(std::slice::from_ref(&open)));
    terminal.shows("1 window is open");
    terminal.shows("certbot-812");
    assert!(terminal.is_raw());
    tell(&stream, &response(&[answered(open, [203, 0, 113, 77])]));
    terminal.shows("203.0.113.77");
    terminal.shows("www.example.com");
    terminal.press(b"q");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn control_c_escape_and_signals_give_the_terminal_back_too() {
    let server = Server::start();
    for (key, signal, code) in [
        (&b"\x03"[..], None, 0),
        (b"\x1b", None, 0),
        (b"", Some(Signal::TERM), 143),
        (b"", Some(Signal::HUP), 129),
        (b"", Some(Signal::INT), 130),
    ] {
        let mut terminal = OnTerminal::start(server.command());
        let _stream = server.accept(&response(&[]));
        terminal.shows("no window is open");
        match signal {
            Some(signal) => send(terminal.child.id(), signal),
            None => terminal.press(key),
        }
        assert_eq!(terminal.ends(), Some(code), "{key:?} {signal:?}");
    }
}

#[test]
fn while_it_is_stopped_the_terminal_is_given_back_and_taken_again_afterwards() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    let stream = server.accept(&response(&[window("before", 1)]));
    terminal.shows("before");
    // Twice: it is asked to take the terminal again by its own stop, and by the signal that ends it.
    for lease in ["first", "second"] {
        send(terminal.child.id(), Signal::TSTP);
        wait_for(SECONDS, "it stops", || terminal.is_stopped().then_some(()));
        terminal.is_given_back();
        terminal.shown.clear();
        tell(&stream, &response(&[window(lease, 2)]));
        send(terminal.child.id(), Signal::CONT);
        // Everything is drawn again, and what was told meanwhile.
        terminal.shows("1 window is open");
        terminal.shows(lease);
        assert!(terminal.is_raw());
        let shown = String::from_utf8_lossy(&terminal.shown).into_owned();
        assert_eq!(shown.matches("\u{1b}[?1049h").count(), 1, "{shown:?}");
    }
    // What it is asked while it is stopped it does once it goes on.
    send(terminal.child.id(), Signal::TSTP);
    wait_for(SECONDS, "it stops", || terminal.is_stopped().then_some(()));
    send(terminal.child.id(), Signal::TERM);
    send(terminal.child.id(), Signal::CONT);
    assert_eq!(terminal.ends(), Some(143));
}

#[test]
fn whoever_had_the_terminal_while_it_was_stopped_by_force_leaves_no_trace() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    let _stream = server.accept(&response(&[window("certbot-812", 1)]));
    terminal.shows("certbot-812");
    // Nobody can give anything back at SIGSTOP; a shell sets the terminal as it wants it, and writes.
    send(terminal.child.id(), Signal::STOP);
    wait_for(SECONDS, "it stops", || terminal.is_stopped().then_some(()));
    tcsetattr(&terminal.slave, OptionalActions::Now, &terminal.before).expect("settings");
    terminal.read();
    terminal.shown.clear();
    send(terminal.child.id(), Signal::CONT);
    terminal.shows("certbot-812");
    assert!(terminal.is_raw());
    terminal.press(b"q");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn another_size_is_followed() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    let _stream = server.accept(&response(&[answered(window("a", 1), [203, 0, 113, 77])]));
    terminal.shows("12 ms");
    terminal.shown.clear();
    let size = Winsize {
        ws_row: 8,
        ws_col: 40,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal.master, size).expect("a size");
    // The terminal is nobody's controlling one, so the kernel tells nobody.
    send(terminal.child.id(), Signal::WINCH);
    terminal.shows("1 of 1 answered, 0 dropped");
    terminal.press(b"q");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_daemon_that_goes_away_is_waited_for() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    // No letter of one name stands where the other has the same: only what changes is written.
    let stream = server.accept(&response(&[window("aaaa", 1)]));
    terminal.shows("aaaa");
    drop(stream);
    terminal.shows("acmegate is gone");
    let _stream = server.accept(&response(&[window("bbbbbbbb", 1)]));
    terminal.shows("bbbbbbbb");
    terminal.press(b"q");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn a_refusal_while_it_watches_ends_it_with_the_daemons_code() {
    let server = Server::start();
    let mut terminal = OnTerminal::start(server.command());
    let stream = server.accept(&response(&[]));
    terminal.shows("no window is open");
    tell(
        &stream,
        &Response::refused(Exit::NoPerm, "the grant is gone"),
    );
    assert_eq!(terminal.ends(), Some(77));
    assert!(plain(&terminal.shown).contains("acmegate: the grant is gone"));
}

#[test]
fn into_a_pipe_it_writes_a_line_for_each_event() {
    let server = Server::start();
    let mut child = server
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("UTF-8");
    let mut record = window("certbot-812", 5);
    let stream = server.accept(&response(std::slice::from_ref(&record)));
    assert_eq!(next(), "certbot-812 open: tcp 80 for ipv4, 10m at most");
    record = answered(record, [203, 0, 113, 77]);
    tell(&stream, &response(std::slice::from_ref(&record)));
    assert_eq!(
        next(),
        "certbot-812 + 1.204 s 203.0.113.77: answered  200  12 ms  www.example.com"
    );
    drop(stream);
    assert!(next().starts_with("acmegate is gone"));
    record.end = Some(End {
        by: EndedBy::Deadline,
        at: 600_000,
        late: 0,
    });
    let stream = server.accept(&response(&[record]));
    assert_eq!(next(), "acmegate is there again");
    assert!(next().starts_with("certbot-812 shut after 10m, cut by its deadline; "));
    // Nobody reads any more: the next event ends it. Or the one after it: a program that another test starts in
    // this moment has a copy of the pipe's end until it runs.
    drop(lines);
    let mut number = 7;
    let status = wait_for(SECONDS, "it ends", || {
        let line = serde_json::to_string(&response(&[window("another", number)]));
        let _ = writeln!(&stream, "{}", line.expect("JSON"));
        number += 1;
        child.try_wait().expect("our child")
    });
    assert_eq!(status.code(), Some(0));
}

#[test]
fn who_may_not_is_told_in_one_line_and_without_a_daemon_too() {
    let server = Server::start();
    let refusing = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(server.command(), SECONDS));
        drop(server.accept(&Response::refused(
            Exit::NoPerm,
            "uid 7 may not read reports",
        )));
        running.join().expect("it ends")
    });
    assert_eq!(
        (refusing.code, refusing.stderr.as_str()),
        (77, "acmegate: uid 7 may not read reports\n")
    );
    let Server {
        directory,
        listener,
    } = server;
    drop(listener);
    let mut command = Command::new(BINARY);
    command
        .args(["--runtime-dir", directory.path().to_str().expect("UTF-8")])
        .arg("watch");
    let output = run(command, SECONDS);
    assert!(
        output.code == 69 && output.stderr.lines().count() == 1,
        "{output}"
    );
}

#[test]
fn a_real_daemon_is_watched_while_a_window_opens_and_closes() {
    let daemon = Daemon::start(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n",
    );
    let mut command = daemon.command();
    command.arg("watch");
    let mut terminal = OnTerminal::start(command);
    terminal.shows("no window is open");
    daemon.cli(&["open", "--lease", "by-hand"]).success();
    terminal.shows("by-hand");
    daemon.cli(&["close", "--lease", "by-hand"]).success();
    terminal.shows("was open");
    terminal.press(b"q");
    assert_eq!(terminal.ends(), Some(0));
}
