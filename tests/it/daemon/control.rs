//! The control socket and its callers: what they say, what they are told, and how long it may take.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::protocol::{Ask, HolderWord, Open, Response};
use rustix::process::Signal;

use super::{SECONDS, THUMBPRINT, TOKEN, config};
use crate::lab::{BINARY, Daemon, Process, TempDir, run, wait_for};

/// Asks for a lease as a client of this holder would.
fn open(daemon: &Daemon, lease: &str, holder: u32, caller_pid: u32) {
    let ask = Ask::Open(Open {
        lease: lease.to_owned(),
        milliseconds: None,
        ports: Vec::new(),
        challenges: Vec::new(),
        validates: None,
        family: None,
        address: None,
        interface: None,
        identifiers: None,
        holder: Some(HolderWord {
            pid: holder,
            start_ticks: 1,
            command: "client".to_owned(),
            caller_pid,
        }),
        dry_run: false,
        force: false,
    });
    let response = client::ask(daemon.runtime_dir().as_ref(), ask).expect("an answer");
    assert_eq!(response.code, 0, "{response:?}");
}

#[test]
fn garbage_on_the_control_socket_gets_a_plain_word() {
    let daemon = Daemon::start(&config(""));
    let ask = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(format!("{}/control.sock", daemon.runtime_dir()))
            .expect("it listens");
        stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
        let _ = stream.write_all(bytes);
        // What it did not read, the kernel tells by a reset behind the answer.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
        (
            answer["code"].as_u64(),
            answer["message"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let (code, words) = ask(b"\x00\xff\n");
    assert!(
        code == Some(65) && words.contains("cannot be read"),
        "{words}"
    );
    let (code, words) = ask(b"{\"version\":9,\"ask\":\"dance\"}\n");
    assert!(code == Some(65) && words.contains("version 9"), "{words}");
    let (code, words) = ask(&vec![b'a'; 80 * 1024]);
    assert!(code == Some(65) && words.contains("longer than"), "{words}");
    let (code, words) = ask(b"{\"version\":1,");
    assert!(code == Some(65) && words.contains("in time"), "{words}");
    daemon.cli(&["open", "--lease", "still-here"]).success();
}

#[test]
fn without_a_daemon_a_hook_says_so_at_once() {
    let mut daemon = Daemon::start(&config(""));
    assert_eq!(daemon.terminate(), 0);
    // As systemd leaves it behind a service that was stopped.
    std::fs::remove_dir_all(daemon.runtime_dir()).expect("it may be removed");
    let begun = Instant::now();
    for words in [
        &["open"][..],
        &["close"],
        &["status"],
        &["answer", "remove", "a.test", TOKEN],
        &["probe", "a.test", "--from", "ssh:nowhere"],
    ] {
        let output = daemon.cli(words);
        assert!(
            output.code == 69 && output.stderr.contains("systemctl start acmegate"),
            "{output}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "one line: {output}");
    }
    assert!(begun.elapsed() < SECONDS / 2, "{:?}", begun.elapsed());
}

#[test]
fn what_else_answers_on_its_socket_is_told_from_a_system_that_refuses() {
    let directory = TempDir::new();
    let listener = UnixListener::bind(directory.at("control.sock")).expect("a socket");
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "{}\n"] {
        let mut command = Command::new(BINARY);
        command.args(["--runtime-dir", &directory.path().display().to_string()]);
        command.args(["open", "--lease", "a"]);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut caller, _) = listener.accept().expect("it calls");
                caller.write_all(answer.as_bytes()).expect("it listens");
                caller
                    .shutdown(std::net::Shutdown::Write)
                    .expect("it listens");
                // It may have heard enough.
                let _ = caller.read_to_end(&mut Vec::new());
            });
            run(command, SECONDS)
        });
        assert_eq!(output.code, 71, "{output}");
        let words = "the answer is of another version, or not acmegate's";
        assert!(output.stderr.contains(words), "{output}");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
    }
}

#[test]
fn a_runtime_directory_too_long_for_sockets_is_refused_at_once() {
    let run_in = |directory: &str| {
        let mut command = Command::new(BINARY);
        command.args(["--runtime-dir", directory, "status"]);
        run(command, SECONDS)
    };
    let longest = format!("/{}", "x".repeat(107 - "//control.sock".len()));
    let output = run_in(&longest);
    assert_eq!(output.code, 69, "nobody is there: {output}");
    let output = run_in(&format!("{longest}x"));
    assert_eq!(output.code, 64, "{output}");
    assert!(output.stderr.contains("108 octets"), "{output}");
}

#[test]
fn the_command_line_has_sysexits() {
    let daemon = Daemon::start(&config(""));
    assert_eq!(
        daemon.cli(&["open", "--for", "10"]).code,
        64,
        "a bare number has no unit"
    );
    assert_eq!(daemon.cli(&["dance"]).code, 64);
    assert_eq!(daemon.cli(&["--help"]).code, 0);
    assert_eq!(
        daemon.cli(&["open", "--for", "11m"]).code,
        65,
        "[window] max is 10m"
    );
    assert_eq!(daemon.cli(&["open", "--port", "22"]).code, 65);
    assert_eq!(daemon.cli(&["open", "--lease", "a b"]).code, 65);
    let closed = daemon.cli(&["close", "--lease", "never-opened"]).success();
    assert!(closed.stdout.contains("nothing to close"), "{closed}");
}

#[test]
fn a_client_that_opens_without_end_takes_nobody_elses_place() {
    let daemon = Daemon::start(&format!(
        "[budget]\nper_hour = 1000\nper_caller = 500\n{}",
        config("")
    ));
    let mut dies = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .expect("a process");
    let open = |lease: &str, pid: u32| open(&daemon, lease, pid, std::process::id());
    for _ in 0..300 {
        open("lives", std::process::id());
    }
    open("dies", dies.id());
    dies.kill().expect("our own child");
    dies.wait().expect("our own child");
    let names = || daemon.status()["leases"].to_string();
    assert!(names().contains("dies"), "it has a grace");
    wait_for(2 * SECONDS, "the lease of the dead one ends", || {
        (!names().contains("dies")).then_some(())
    });
    assert!(names().contains("lives"));
}

#[test]
fn a_daemon_that_hangs_hangs_no_hook() {
    let daemon = Daemon::start(&config(""));
    daemon.signal(Signal::STOP);
    let start = Instant::now();
    let output = daemon.cli(&["open", "--lease", "a"]);
    assert_eq!(output.code, 75, "{output}");
    assert!(output.stderr.contains("did not answer within"), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "one line: {output}");
    assert!(start.elapsed() < Duration::from_secs(15));
    daemon.signal(Signal::CONT);
}

#[test]
fn a_hook_that_asks_for_several_things_hangs_no_longer_than_one() {
    let daemon = Daemon::start(&config(""));
    daemon.signal(Signal::STOP);
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    let name = "www.example.com";
    let uacme = |method| vec!["uacme", method, "http-01", name, TOKEN, &answer];
    let hooks = [
        uacme("begin"),
        uacme("done"),
        uacme("failed"),
        vec![
            "dehydrated",
            "deploy_challenge",
            name,
            TOKEN,
            &answer,
            name,
            TOKEN,
            &answer,
        ],
        vec!["dehydrated", "exit_hook"],
        vec!["lego", "post"],
    ];
    let start = Instant::now();
    let running: Vec<_> = hooks
        .iter()
        .map(|words| {
            let mut hook = daemon.command();
            hook.arg("hook").args(words);
            Process::spawn(hook)
        })
        .collect();
    for (mut hook, words) in running.into_iter().zip(&hooks) {
        let code = hook.wait(Duration::from_secs(40));
        assert_eq!(code, 75, "{words:?}: {}", hook.stderr());
        assert!(
            start.elapsed() < Duration::from_secs(17),
            "{words:?}: {:?}",
            start.elapsed()
        );
    }
    daemon.signal(Signal::CONT);
}

#[test]
fn an_answer_that_drips_hangs_no_hook() {
    let directory = TempDir::new();
    let socket = UnixListener::bind(directory.at("control.sock"));
    let socket = socket.expect("a socket");
    let dripping = std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().expect("a caller");
        let never = std::sync::mpsc::channel::<()>();
        // Twice the deadline, so that a caller without one fails here and hangs nobody.
        let until = Instant::now() + 2 * client::DEADLINE;
        while Instant::now() < until && stream.write_all(b" ").is_ok() {
            let _ = never.1.recv_timeout(Duration::from_millis(100));
        }
    });
    let start = Instant::now();
    let close = Ask::Close {
        lease: "a".to_owned(),
        said: None,
    };
    let answer = client::ask(directory.path(), close);
    assert!(
        matches!(answer, Err(client::ClientError::TooSlow)),
        "{answer:?}"
    );
    assert!(start.elapsed() < client::DEADLINE + Duration::from_secs(5));
    dripping.join().expect("it ends with its caller");
}

#[test]
fn whatever_a_front_answers_that_was_taken_over_moves_no_cursor() {
    let nasty = "a\u{1b}[2J\u{9b}31m\r\u{202e}b";
    for code in [0, 75] {
        let directory = TempDir::new();
        let socket = std::os::unix::net::UnixListener::bind(directory.at("control.sock"));
        let socket = socket.expect("a socket");
        let answer = Response {
            code,
            warnings: vec![nasty.to_owned()],
            more: vec![nasty.to_owned()],
            ..Response::done(nasty)
        };
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = socket.accept().expect("a caller");
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).expect("a question");
            assert!(length > 0);
            let answer = serde_json::to_vec(&answer).expect("JSON");
            stream.write_all(&answer).expect("it reads");
        });
        let mut command = Command::new(BINARY);
        command.arg("--runtime-dir").arg(directory.path());
        command.args(["close", "--lease", "a"]);
        let output = run(command, SECONDS);
        answering.join().expect("it was asked");
        assert_eq!(output.code, i32::from(code));
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("a\\u{1b}[2J"), "{said:?}");
        let moves = |character: char| character.is_control() && character != '\n';
        assert!(
            !said.contains(moves) && !said.contains('\u{202e}'),
            "{said:?}"
        );
    }
}

#[test]
fn a_socket_is_made_with_its_final_mode() {
    let directory = TempDir::new();
    let trace = directory.at("trace");
    let calls = "trace=umask,bind,/chmod";
    let _daemon = Daemon::with(&config(""))
        .under(&["strace", "-f", "-qq", "-e", calls, "-o", &trace])
        .start();
    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let lines: Vec<&str> = trace.lines().collect();
    for (socket, umask) in [
        ("/control.sock\"", "umask(0177)"),
        ("/observe.sock\"", "umask(0111)"),
    ] {
        let at = lines
            .iter()
            .position(|line| line.contains("bind(") && line.contains(socket))
            .unwrap_or_else(|| panic!("{socket} is bound:\n{trace}"));
        let own = |line: &&&str| line.split(' ').next() == lines[at].split(' ').next();
        let before = lines[..at].iter().rev().find(own);
        assert!(before.is_some_and(|line| line.contains(umask)), "{trace}");
        // The historian makes its own directory its own; who binds the sockets changes no mode.
        let mut by_whom_it_is_bound = lines.iter().filter(own);
        assert!(
            !by_whom_it_is_bound.any(|line| line.contains("chmod")),
            "{trace}"
        );
    }
}

#[test]
fn a_holder_of_another_pid_namespace_is_nobody_here() {
    let daemon = Daemon::start(&config(""));
    for (lease, caller_pid, is_known) in [
        ("ours", std::process::id(), true),
        // A container's hook believes to be somebody else than the kernel says here.
        ("theirs", std::process::id() + 1, false),
    ] {
        open(&daemon, lease, std::process::id(), caller_pid);
        let status = daemon.status();
        let leases = status["leases"].as_array().expect("a list");
        let lease = leases.iter().find(|other| other["name"] == lease);
        let holder = &lease.expect("it is there")["holder"];
        assert_eq!(!holder.is_null(), is_known, "{status}");
    }
}
