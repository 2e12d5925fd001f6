//! The daemon as a whole, without privileges: mode `gate-only`, loopback, two real processes.

mod control;
mod lock;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use acmegate::control::protocol::{Ask, Envelope, Open, VERSION};
use rustix::process::Signal;

use crate::lab::{Daemon, Process, TempDir, wait_for};

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
const SECONDS: Duration = Duration::from_secs(10);

fn config(more: &str) -> String {
    format!(
        "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n\
         [[site]]\nidentifiers = [\"www.example.com\", \"203.0.113.7\"]\n{more}"
    )
}

fn port(daemon: &Daemon) -> u16 {
    let status = daemon.status();
    let listener = status["listeners"][0]
        .as_str()
        .expect("a listener")
        .to_owned();
    listener
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("its port")
}

fn get(daemon: &Daemon, host: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port(daemon))).expect("the gate listens");
    stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("it answers and closes");
    answer
}

fn challenge(daemon: &Daemon, host: &str) -> String {
    get(
        daemon,
        host,
        &format!("/.well-known/acme-challenge/{TOKEN}"),
    )
}

#[test]
fn a_pushed_token_is_answered_for_its_identifier_until_it_is_withdrawn() {
    let daemon = Daemon::start(&config(""));
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "));
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    daemon
        .cli(&["answer", "add", "www.example.com", &answer])
        .success();
    let got = challenge(&daemon, "www.example.com");
    assert!(
        got.starts_with("HTTP/1.1 200 ") && got.ends_with(&format!("\r\n\r\n{answer}")),
        "{got}"
    );
    assert!(
        challenge(&daemon, "203.0.113.7").starts_with("HTTP/1.1 404 "),
        "another identifier"
    );
    assert_eq!(daemon.status()["sites"][0]["seen"][0], THUMBPRINT);
    daemon
        .cli(&["answer", "remove", "www.example.com", TOKEN])
        .success();
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "));
    assert!(
        !daemon.log().contains(&answer),
        "no log line holds a key authorization"
    );
}

#[test]
fn certbots_variables_are_read_to_the_letter() {
    let daemon = Daemon::start(&config(""));
    let hook = |word: &str, variables: &[(&str, &str)]| {
        let mut command = daemon.command();
        command
            .args(["hook", "certbot", word])
            .env_clear()
            .envs(variables.iter().copied());
        crate::lab::run(command, SECONDS)
    };
    let answer = format!("{TOKEN}.{THUMBPRINT}");
    let variables = [
        ("CERTBOT_DOMAIN", "www.example.com"),
        ("CERTBOT_VALIDATION", answer.as_str()),
    ];
    hook("auth", &variables).success();
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 200 "));
    hook("cleanup", &variables).success();
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "));
    assert_eq!(hook("auth", &[]).code, 64);
    let dns = hook(
        "auth",
        &[
            ("CERTBOT_DOMAIN", "a.test"),
            ("CERTBOT_VALIDATION", "gfj9Xq"),
        ],
    );
    assert!(dns.code == 64 && dns.stderr.contains("dns"), "{dns}");
}

#[test]
fn what_would_never_be_answered_is_not_taken() {
    let daemon = Daemon::start(&config(&format!("accounts = [\"{}\"]\n", "a".repeat(43))));
    let push = |identifier: &str, answer: &str| daemon.cli(&["answer", "add", identifier, answer]);
    let foreign = push("www.example.com", &format!("{TOKEN}.{THUMBPRINT}"));
    assert!(
        foreign.code == 78 && foreign.stderr.contains(THUMBPRINT),
        "{foreign}"
    );
    let unknown = push("other.test", &format!("{TOKEN}.{}", "a".repeat(43)));
    assert!(
        unknown.code == 78 && unknown.stderr.contains("identifiers"),
        "{unknown}"
    );
    assert_eq!(push("www.example.com", TOKEN).code, 65);
    assert_eq!(
        push("127.1", &format!("{TOKEN}.{}", "a".repeat(43))).code,
        65
    );
    push("www.example.com", &format!("{TOKEN}.{}", "a".repeat(43))).success();
}

#[test]
fn an_unannounced_token_reaches_its_upstream_only_under_a_lease_that_covers_it() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = upstream.local_addr().expect("its address");
    let (asked, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in upstream.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = asked.send(lines.next().unwrap_or_default());
            let body = format!("{TOKEN}.{THUMBPRINT}");
            let _ = write!(
                &stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let daemon = Daemon::start(&config(&format!(
        "answer = {{ upstream = \"http://{address}\" }}\n"
    )));
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "));
    daemon
        .cli(&["open", "--lease", "a", "--identifier", "203.0.113.7"])
        .success();
    assert!(
        challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "),
        "it covers another"
    );
    assert!(heard.try_recv().is_err(), "nothing reached the upstream");
    daemon.cli(&["open", "--lease", "b"]).success();
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 200 "));
    let line = heard.recv_timeout(SECONDS).expect("it was asked");
    assert_eq!(
        line,
        format!("GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1")
    );
    daemon.cli(&["close", "--lease", "b"]).success();
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_port_that_is_taken_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let refused = Daemon::with(&config("").replace("127.0.0.1:0", &address.to_string())).refuse();
    assert_eq!(refused.code, 71, "{refused}");
    for words in [
        format!("(pid {})", std::process::id()),
        "listen = []".to_owned(),
        "upstream".to_owned(),
    ] {
        assert!(refused.stderr.contains(&words), "{words}: {refused}");
    }
}

#[test]
fn it_serves_on_a_socket_that_it_inherits() {
    // What a service manager does (sd_listen_fds(3)): the socket is descriptor 3, the pid is told.
    let hand_over = "import os, socket, sys\n\
         s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n\
         os.dup2(s.fileno(), 3)\n\
         os.set_inheritable(3, True)\n\
         os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
         os.execv(sys.argv[1], sys.argv[1:])";
    let daemon = Daemon::with(&config("").replace("\"127.0.0.1:0\"", ""))
        .under(&["python3", "-c", hand_over])
        .start();
    assert!(get(&daemon, "www.example.com", "/x").starts_with("HTTP/1.1 301 "));
    let sockets = |pid: u32| -> Vec<String> {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
        let targets = descriptors
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let targets = targets.map(|target| target.display().to_string());
        targets
            .filter(|target| target.starts_with("socket:"))
            .collect()
    };
    let fronts = sockets(daemon.front());
    assert!(!fronts.is_empty());
    let enforcers = sockets(daemon.enforcer());
    assert!(
        enforcers.iter().all(|socket| !fronts.contains(socket)),
        "the enforcer inherits no listener"
    );
}

#[test]
fn the_service_manager_is_told() {
    let directory = TempDir::new();
    let path = directory.at("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SECONDS)).expect("a deadline");
    let told = || {
        let mut state = [0; 1024];
        let length = socket.recv(&mut state).expect("it tells");
        String::from_utf8_lossy(&state[..length]).into_owned()
    };
    let mut daemon = Daemon::with(&config(""))
        .env("NOTIFY_SOCKET", &path)
        .start();
    assert!(told().starts_with("READY=1\nSTATUS=listening on 127.0.0.1:"));
    daemon.signal(Signal::HUP);
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().starts_with("READY=1\n"));
    assert_eq!(daemon.terminate(), 0);
    assert!(told().starts_with("STOPPING=1\n"));
}

#[test]
fn the_service_manager_hears_signs_of_life_if_it_waits_for_ours() {
    for (pid, is_ours) in [(None, true), (Some("1"), false)] {
        let directory = TempDir::new();
        let path = directory.at("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(SECONDS)).expect("a deadline");
        let mut daemon = Daemon::with(&config(""))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "300000");
        if let Some(pid) = pid {
            daemon = daemon.env("WATCHDOG_PID", pid);
        }
        let mut daemon = daemon.start();
        let mut told = Vec::new();
        let mut state = [0; 1024];
        let begun = Instant::now();
        while told.len() < 4 && begun.elapsed() < SECONDS {
            // A reload is told in any case: the control that there is something to hear.
            if told.len() == 1 && !is_ours {
                daemon.signal(Signal::HUP);
            }
            let length = socket.recv(&mut state).expect("it tells");
            told.push(String::from_utf8_lossy(&state[..length]).into_owned());
            if !is_ours && told.len() == 3 {
                break;
            }
        }
        let signs = told.iter().filter(|told| *told == "WATCHDOG=1").count();
        assert_eq!(signs, if is_ours { 3 } else { 0 }, "{told:?}");
        assert_eq!(daemon.terminate(), 0);
    }
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_loudly() {
    let daemon = Daemon::start(&config(""));
    daemon.write_config(&config("redirect = 7\n"));
    daemon.signal(Signal::HUP);
    let problem = wait_for(SECONDS, "the status tells", || {
        daemon.status()["problems"][0].as_str().map(str::to_owned)
    });
    assert!(problem.contains("not accepted"), "{problem}");
    assert!(daemon.log().contains("the old one stays"));
    assert!(
        get(&daemon, "www.example.com", "/x").contains("Location: https://www.example.com/x\r\n")
    );
    daemon.write_config(&config("redirect = \"new.example.com\"\n"));
    daemon.signal(Signal::HUP);
    wait_for(SECONDS, "the good file is used", || {
        get(&daemon, "www.example.com", "/x")
            .contains("https://new.example.com/x")
            .then_some(())
    });
    // The front has the new rules a moment before the status knows.
    wait_for(SECONDS, "nothing is wrong any more", || {
        let status = daemon.status();
        status["problems"].as_array()?.is_empty().then_some(())
    });
}

#[test]
fn a_pipe_is_no_configuration_and_holds_nothing_up() {
    let mut daemon = Daemon::start(&config(""));
    let path = daemon.config();
    std::fs::remove_file(&path).expect("its own file");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).expect("a pipe without a writer");
    daemon.signal(Signal::HUP);
    let problem = wait_for(SECONDS, "the status tells", || {
        daemon.status()["problems"][0].as_str().map(str::to_owned)
    });
    assert!(problem.contains("this is no regular file"), "{problem}");
    let check = daemon.cli(&["config", "check"]);
    assert_eq!(check.code, 78, "{check}");
    assert!(check.stderr.contains("this is no regular file"), "{check}");
    daemon.cli(&["open", "--lease", "a"]).success();
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    // What the package's scripts name where the host's own file is bad.
    std::fs::remove_file(&path).expect("its own pipe");
    std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
    daemon.cli(&["config", "check"]).success();
    daemon.cli(&["firewall", "plan"]).success();
}

#[test]
fn every_log_line_is_an_object_if_that_is_wanted() {
    let mut daemon = Daemon::start(&format!("[log]\nformat = \"json\"\n{}", config("")));
    get(&daemon, "www.example.com", "/x");
    assert_eq!(daemon.terminate(), 0);
    let log = daemon.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let connection = lines
        .iter()
        .find(|line| line["message"] == "connection")
        .expect("one event");
    assert_eq!(
        (
            connection["reason"].as_str(),
            connection["verdict"].as_str()
        ),
        (Some("redirected"), Some("accept"))
    );
    assert_eq!(
        (
            connection["identifier"].as_str(),
            connection["peer"].as_str()
        ),
        (Some("www.example.com"), Some("127.0.0.1"))
    );
}

#[test]
fn a_flood_of_connections_is_no_flood_of_lines() {
    let daemon = Daemon::start(&config(""));
    let began = Instant::now();
    for _ in 0..600 {
        get(&daemon, "other.test", "/");
    }
    let seconds = began.elapsed().as_secs() as usize + 1;
    let lines = daemon
        .log()
        .lines()
        .filter(|line| line.contains("unknown-host"))
        .count();
    let counted = daemon.status()["connections"].to_string();
    assert!(counted.contains("600"), "every one is counted: {counted}");
    // The burst, and 20 a second for as long as the loop took, however busy the machine is.
    let most = 200 + 20 * seconds;
    assert!((200..=most).contains(&lines), "{lines} in {seconds} s");
}

#[test]
fn who_does_not_wait_for_the_answer_has_no_lease() {
    let daemon = Daemon::start(&config(""));
    let socket = format!("{}/control.sock", daemon.runtime_dir());
    let ask = |lease: &str| {
        let mut caller = UnixStream::connect(&socket).expect("it listens");
        let open = Open {
            lease: lease.to_owned(),
            ..Open::default()
        };
        let envelope = Envelope {
            version: VERSION,
            ask: Ask::Open(open),
            under: None,
        };
        let line = serde_json::to_string(&envelope).expect("JSON");
        writeln!(caller, "{line}").expect("it hears");
        caller
    };
    // A command that gave up while the daemon hung, and is answered later.
    daemon.signal(Signal::STOP);
    let gone = ask("gone");
    gone.shutdown(std::net::Shutdown::Both).expect("a socket");
    drop(gone);
    daemon.signal(Signal::CONT);
    wait_for(SECONDS, "the lease is withdrawn", || {
        daemon
            .log()
            .contains("did not wait for the answer")
            .then_some(())
    });
    assert_eq!(daemon.status()["leases"], serde_json::json!([]));
    let mut stays = ask("stays");
    let mut answer = String::new();
    stays.read_to_string(&mut answer).expect("an answer");
    drop(stays);
    // It renews a lease and does not hear so: the lease was there before.
    drop(ask("stays"));
    daemon.cli(&["open", "--lease", "another"]).success();
    let leases = daemon.status()["leases"].clone();
    let names: Vec<_> = leases
        .as_array()
        .into_iter()
        .flatten()
        .map(|lease| &lease["name"])
        .collect();
    assert_eq!(names, ["another", "stays"], "{answer}");
}

/// A caller who has asked this, and not heard yet.
fn asked(daemon: &Daemon, ask: Ask) -> UnixStream {
    let socket = format!("{}/control.sock", daemon.runtime_dir());
    let mut caller = UnixStream::connect(socket).expect("it listens");
    let envelope = Envelope {
        version: VERSION,
        ask,
        under: None,
    };
    let line = serde_json::to_string(&envelope).expect("JSON");
    writeln!(caller, "{line}").expect("it hears");
    caller
}

#[test]
fn a_lease_that_is_being_closed_is_no_lease_to_renew() {
    let daemon = Daemon::start(&config(""));
    daemon.cli(&["open", "--lease", "a"]).success();
    let ask = |ask| asked(&daemon, ask);
    let lease = "a".to_owned();
    crate::lab::send(daemon.enforcer(), Signal::STOP);
    let close = ask(Ask::Close {
        lease: lease.clone(),
        said: None,
    });
    wait_for(SECONDS, "the enforcer is asked to shut", || {
        let problems = daemon.status()["problems"].to_string();
        problems.contains("has owed an answer").then_some(())
    });
    let open = ask(Ask::Open(Open {
        lease,
        ..Open::default()
    }));
    // What is asked stands before the status, which is asked later.
    daemon.status();
    for gone in [close, open] {
        gone.shutdown(std::net::Shutdown::Both).expect("a socket");
    }
    crate::lab::send(daemon.enforcer(), Signal::CONT);
    wait_for(SECONDS, "the lease is withdrawn", || {
        daemon
            .log()
            .contains("did not wait for the answer")
            .then_some(())
    });
    wait_for(SECONDS, "no lease is left", || {
        (daemon.status()["leases"] == serde_json::json!([])).then_some(())
    });
}

/// The first of two that open one lease gives up while the enforcer hangs, and then both.
#[test]
fn who_gives_up_takes_no_lease_from_whoever_opened_it_after_him() {
    let daemon = Daemon::start(&config(""));
    let ask = || {
        let open = Open {
            lease: "a".to_owned(),
            ..Open::default()
        };
        let caller = asked(&daemon, Ask::Open(open));
        // What is asked stands before the status, which is asked later.
        daemon.status();
        caller
    };
    let give_up = |caller: UnixStream| {
        caller.shutdown(std::net::Shutdown::Both).expect("a socket");
    };
    let gave_up = |count: usize| {
        wait_for(SECONDS, "who gave up is noticed", || {
            let log = daemon.log();
            (log.matches("did not wait for the answer").count() == count).then_some(())
        });
    };
    crate::lab::send(daemon.enforcer(), Signal::STOP);
    give_up(ask());
    let mut stays = ask();
    crate::lab::send(daemon.enforcer(), Signal::CONT);
    let mut answer = String::new();
    stays.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("open: tcp"), "{answer}");
    gave_up(1);
    assert_eq!(daemon.status()["leases"][0]["name"], "a");
    daemon.cli(&["close", "--lease", "a"]).success();

    crate::lab::send(daemon.enforcer(), Signal::STOP);
    give_up(ask());
    give_up(ask());
    crate::lab::send(daemon.enforcer(), Signal::CONT);
    gave_up(3);
    wait_for(SECONDS, "no lease is left", || {
        (daemon.status()["leases"] == serde_json::json!([])).then_some(())
    });
}

#[test]
fn a_hook_waits_for_a_daemon_that_restarts_but_not_for_ever() {
    let mut daemon = Daemon::start(&config(""));
    daemon.kill();
    let begun = Instant::now();
    let mut open = daemon.command();
    open.args(["open", "--lease", "early"]);
    let mut hook = Process::spawn(open);
    daemon.start_again();
    assert_eq!(hook.wait(SECONDS), 0, "{}", hook.stderr());
    assert_eq!(daemon.status()["leases"][0]["name"], "early");
    daemon.kill();
    assert_eq!(daemon.cli(&["close"]).code, 69);
    assert!(begun.elapsed() < SECONDS * 3, "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(daemon.cli(&["status"]).code, 69);
    assert!(begun.elapsed() < SECONDS / 2, "only hooks wait");
}

#[test]
fn a_lost_enforcer_ends_the_daemon() {
    let mut daemon = Daemon::start(&config(""));
    crate::lab::send(daemon.enforcer(), Signal::KILL);
    assert_eq!(daemon.gone(), 70);
    assert!(
        daemon.log().contains("closes in the kernel by itself")
            || daemon.log().contains("enforcer is gone")
    );
}

#[test]
fn a_reload_keeps_what_a_lease_is_for() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = upstream.local_addr().expect("its address");
    let daemon = Daemon::start(&config(&format!(
        "answer = {{ upstream = \"http://{address}\" }}\n"
    )));
    daemon
        .cli(&["open", "--lease", "a", "--identifier", "www.example.com"])
        .success();
    daemon.signal(Signal::HUP);
    wait_for(SECONDS, "the reload", || {
        daemon
            .log()
            .contains("configuration reloaded")
            .then_some(())
    });
    let lease = daemon.status()["leases"][0].clone();
    assert_eq!(
        lease["identifiers"],
        serde_json::json!(["www.example.com"]),
        "{lease}"
    );
    drop(upstream);
    // Nobody is there any more: that it was asked is what the answer tells.
    assert!(challenge(&daemon, "www.example.com").starts_with("HTTP/1.1 502 "));
    assert!(challenge(&daemon, "203.0.113.7").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_stop_lets_a_held_connection_finish_and_waits_for_none_for_ever() {
    let mut daemon = Daemon::start(&config(""));
    let port = port(&daemon);
    let hold = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the gate listens");
        stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
        stream.write_all(b"GET /x HTTP/1.1\r\n").expect("it reads");
        stream
    };
    let (mut finishes, _never) = (hold(), hold());
    wait_for(SECONDS, "both are accepted", || {
        // Whoever comes later was accepted later.
        get(&daemon, "www.example.com", "/x")
            .starts_with("HTTP/1.1 301 ")
            .then_some(())
    });
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    wait_for(SECONDS, "it listens no more", || {
        TcpStream::connect(("127.0.0.1", port))
            .is_err()
            .then_some(())
    });
    finishes
        .write_all(b"Host: www.example.com\r\n\r\n")
        .expect("it still reads");
    let mut answer = String::new();
    finishes.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert_eq!(daemon.gone(), 0, "{}", daemon.log());
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(15)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn nothing_that_a_peer_wrote_is_in_the_log() {
    for format in ["text", "json"] {
        let daemon = Daemon::start(&format!(
            "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n{}",
            config("")
        ));
        let ugly = "\u{1b}]0;marked\u{7}\u{202e}\u{85}marked";
        let heads = [
            format!("GET /{ugly} HTTP/1.1\r\nHost: www.example.com\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {ugly}\r\n\r\n"),
            "GET / HTTP/1.1\r\nHost: marked.test\u{202e}\r\n\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: {ugly}\r\n\r\n"),
            format!("{ugly} / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"),
            "GET /.well-known/acme-challenge/marked HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
                .to_owned(),
            "GET /marked HTTP/1.1\r\nHost: www.example.com\r\nReferer: marked\r\n\r\n".to_owned(),
        ];
        for head in &heads {
            let mut stream =
                TcpStream::connect(("127.0.0.1", port(&daemon))).expect("the gate listens");
            stream.set_read_timeout(Some(SECONDS)).expect("a deadline");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        }
        let log = wait_for(SECONDS, "each is told", || {
            let log = daemon.log();
            let told = log.matches("reason=").count() + log.matches("\"reason\"").count();
            (told >= heads.len()).then_some(log)
        });
        let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        assert!(!log.contains("marked"), "{log}");
        assert!(
            !log.chars()
                .any(|c| c != '\n' && (c.is_control() || bidi(c))),
            "{log}"
        );
    }
}

#[test]
fn with_too_few_descriptors_it_does_not_start_and_says_so() {
    for limit in ["63", "20", "16"] {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let refused = Daemon::with(&config(""))
            .under(&["sh", "-c", &script, "sh"])
            .refuse();
        assert_eq!(refused.code, 71, "{refused}");
        let told = format!("acmegate: the limit of open files is {limit}: 64 is the least");
        assert!(refused.stderr.contains(&told), "{refused}");
    }
    Daemon::with(&config(""))
        .under(&["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .start()
        .cli(&["open", "--lease", "a"])
        .success();
}

#[test]
fn with_few_descriptors_some_are_kept_for_operators() {
    let few = ["sh", "-c", "ulimit -n 300; exec \"$@\"", "sh"];
    let daemon = Daemon::with(&config("")).under(&few).start();
    let port = port(&daemon);
    let held: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).expect("the kernel takes it"))
        .collect();
    wait_for(SECONDS, "what there is no room for is refused", || {
        let counted = daemon.status()["connections"].to_string();
        counted.contains("total-limit").then_some(())
    });
    daemon.cli(&["open", "--lease", "a"]).success();
    drop(held);
}
