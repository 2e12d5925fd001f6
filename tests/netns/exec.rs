//! `acmegate exec`: shut while armed, opened by the command's own asking, shut when it ends in
//! whatever way; and a client whose window cannot be opened does not go on.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::protocol::{Ask, Envelope, Open, VERSION};
use rustix::process::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::lab::{self, Daemon, Output, Process, TempDir, inside, is_alive, run, send, wait_for};

/// What anything here may take that must come about.
const SOON: Duration = Duration::from_secs(20);
/// One command from beginning to end.
const COMMAND: Duration = Duration::from_secs(40);
/// A token and a thumbprint that are well-formed.
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
/// A chain that drops what comes to port 80: no window can be opened behind it.
const IN_THE_WAY: &str = "table inet filter {
    chain input { type filter hook input priority filter; policy drop;
        iif lo accept
    }
}
";

/// A daemon with a site that answers what is pushed, and a place for what its clients leave.
struct Stage {
    daemon: Daemon,
    directory: TempDir,
}

impl Stage {
    fn new(config: &str) -> Self {
        Self {
            daemon: Daemon::start(config),
            directory: TempDir::new(),
        }
    }

    /// `acmegate exec … -- sh -c SCRIPT`, where `acmegate` in the script asks this daemon, `$DIR`
    /// is ours, and `await FILE` waits until somebody made it.
    fn exec(&self, options: &[&str], script: &str) -> Command {
        let script =
            format!("await() {{ until [ -e \"$DIR/$1\" ]; do sleep 0.02; done; }}\n{script}");
        self.exec_of(options, &["sh", "-c", &script])
    }

    fn exec_of(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.daemon.command();
        command.arg("exec").args(options).arg("--").args(words);
        command
            .env("PATH", self.daemon.search_path())
            .env("DIR", self.directory.path());
        command
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        run(self.exec(options, script), COMMAND)
    }

    fn spawn(&self, options: &[&str], script: &str) -> Process {
        Process::spawn(self.exec(options, script))
    }

    fn make(&self, file: &str) {
        self.directory.write(file, "");
    }

    fn has(&self, file: &str) -> bool {
        self.directory.path().join(file).exists()
    }

    #[track_caller]
    fn wait(&self, file: &str) {
        wait_for(SOON, file, || self.has(file).then_some(()));
    }

    fn pid_in(&self, file: &str) -> u32 {
        let path = self.directory.path().join(file);
        wait_for(SOON, file, || {
            std::fs::read_to_string(&path).ok()?.trim().parse().ok()
        })
    }

    fn armed(&self) -> Vec<Value> {
        self.daemon.status()["armed"]
            .as_array()
            .cloned()
            .expect("a list")
    }

    #[track_caller]
    fn is_over(&self) {
        assert_eq!(self.armed(), Vec::<Value>::new());
        assert_eq!(self.daemon.status()["leases"], serde_json::json!([]));
    }
}

#[test]
fn the_window_is_the_commands_own_pre_and_post_hook_between() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let mut process = stage.spawn(
            &["--lease", "renewal"],
            "touch $DIR/runs; await open; acmegate open && touch $DIR/opened
             await close; acmegate close && touch $DIR/closed
             await again; acmegate open && touch $DIR/reopened; await end",
        );
        stage.wait("runs");
        assert!(!host.is_open(80), "armed is not open");
        let armed = stage.armed();
        assert_eq!(armed[0]["name"], "renewal");
        assert_eq!(armed[0]["open"], false);
        assert_eq!(stage.daemon.status()["budget"]["used"], 0);
        let text = stage.daemon.cli(&["status"]).success().stdout;
        assert!(
            text.contains("armed     renewal: shut until its command asks, uid 0 for exec:sh (pid"),
            "{text}"
        );
        stage.make("open");
        stage.wait("opened");
        assert!(host.lets_in(80));
        assert_eq!(stage.armed()[0]["open"], true);
        // The lease is the one that was armed, held by exec itself.
        let lease = stage.daemon.status()["leases"][0].clone();
        assert_eq!(lease["name"], "renewal");
        assert_eq!(lease["holder"], format!("exec:sh (pid {})", process.pid()));
        stage.make("close");
        stage.wait("closed");
        assert!(!host.is_open(80));
        assert_eq!(stage.armed()[0]["open"], false);
        stage.make("again");
        stage.wait("reopened");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        // Shut when exec returns, not some time later.
        assert!(!host.is_open(80));
        stage.is_over();
        assert_eq!(process.stderr(), "");
    });
}

#[test]
fn the_first_token_opens_and_another_one_opens_again() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let push = format!("acmegate answer add a.example.com {ANSWER}");
        let mut process = stage.spawn(
            &["--for", "5m"],
            &format!(
                "touch $DIR/runs; await push; {push} > $DIR/said && touch $DIR/pushed
                 await close; acmegate answer remove a.example.com {ANSWER}; acmegate close; touch $DIR/closed
                 await again; {push} && touch $DIR/pushed-again; await end"
            ),
        );
        stage.wait("runs");
        assert!(!host.is_open(80));
        // What somebody else pushes is nothing to this command.
        stage
            .daemon
            .cli(&["answer", "add", "b.example.com", ANSWER])
            .success();
        assert!(!host.is_open(80));
        stage.make("push");
        stage.wait("pushed");
        assert!(host.lets_in(80));
        let said = std::fs::read_to_string(stage.directory.path().join("said")).expect("it spoke");
        assert!(
            said.contains("open: tcp 80") && said.contains("answering for a.example.com"),
            "{said}"
        );
        assert_eq!(stage.daemon.status()["pushed"], 2);
        stage.make("close");
        stage.wait("closed");
        assert!(!host.is_open(80));
        stage.make("again");
        stage.wait("pushed-again");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        stage.is_over();
    });
}

#[test]
fn now_opens_before_the_command_starts_or_it_does_not_start() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let mut process = stage.spawn(&["--now"], "touch $DIR/runs; await end; exit 3");
        stage.wait("runs");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 3);
        assert!(!host.is_open(80));
        stage.is_over();

        lab::nft(IN_THE_WAY);
        let refused = stage.run(&["--now"], "touch $DIR/never");
        assert_eq!(refused.code, 78, "{refused}");
        assert!(refused.stderr.contains("inet filter input"), "{refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        assert!(!stage.has("never"));
        stage.is_over();
    });
}

/// As certbot does: whatever its pre-hook says, it goes on.
#[test]
fn a_client_that_ignores_its_hook_is_ended_when_the_window_cannot_be_opened() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        lab::nft(IN_THE_WAY);
        let push = format!("acmegate answer add a.example.com {ANSWER}");
        for (hook, client) in [
            // Behind one shell, behind two, and the client itself.
            (
                "acmegate open",
                "sh -c 'HOOK; echo $? > $DIR/code; touch $DIR/ordered'; true",
            ),
            (
                "acmegate open",
                "(HOOK; touch $DIR/ordered); touch $DIR/ordered",
            ),
            ("acmegate open", "HOOK; touch $DIR/ordered"),
            (push.as_str(), "HOOK; touch $DIR/ordered"),
        ] {
            let script = client.replace("HOOK", hook);
            let begun = Instant::now();
            let ended = stage.run(&[], &script);
            assert_eq!(ended.code, 78, "{script}: {ended}");
            for words in [
                "inet filter input",
                "sh was ended, because its window could not be opened",
            ] {
                assert!(ended.stderr.contains(words), "{words}: {ended}");
            }
            assert!(!stage.has("ordered"), "{script}: {ended}");
            assert!(
                begun.elapsed() < Duration::from_secs(8),
                "{:?}",
                begun.elapsed()
            );
            stage.is_over();
        }
        assert_eq!(stage.daemon.status()["pushed"], 0);
        // One that cannot be asked to end is killed.
        let script =
            "trap '' TERM; acmegate open; touch $DIR/hook-returned; sleep 60; touch $DIR/ordered";
        let begun = Instant::now();
        let ended = stage.run(&[], script);
        assert_eq!(ended.code, 78, "{ended}");
        assert!(
            (10..16).contains(&begun.elapsed().as_secs()),
            "{:?}",
            begun.elapsed()
        );
        assert!(!stage.has("ordered"));
        // A question is no asking: it ends nobody.
        let asked = stage.run(&[], "acmegate open --dry-run; touch $DIR/went-on");
        assert_eq!(asked.code, 0, "{asked}");
        assert!(stage.has("went-on"));
        // Nor does another lease, by its own name.
        let asked = stage.run(&[], "acmegate open --lease other; exit 5");
        assert_eq!(asked.code, 5, "{asked}");
        stage.is_over();
    });
}

#[test]
fn what_was_armed_may_be_narrowed_and_not_widened() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("[http]\nlisten = []\n[firewall]\nports = [80, 443]\n");
        let options = [
            "--for",
            "2m",
            "--port",
            "443",
            "--family",
            "ipv4",
            "--identifier",
            "a.example",
        ];
        let mut process = stage.spawn(
            &options,
            "acmegate open --for 60s && touch $DIR/opened; await end",
        );
        stage.wait("opened");
        let lease = stage.daemon.status()["leases"][0].clone();
        assert_eq!(lease["ports"], serde_json::json!([443]));
        assert_eq!(lease["families"], serde_json::json!(["ipv4"]));
        assert_eq!(lease["identifiers"], serde_json::json!(["a.example"]));
        assert!(lease["milliseconds"].as_u64().expect("a number") <= 60_000);
        assert!(!host.is_open(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        for more in [
            "--for 3m",
            "--port 80",
            "--family ipv6",
            "--identifier b.example",
        ] {
            let ended = stage.run(
                &options,
                &format!("acmegate open {more}; touch $DIR/ordered"),
            );
            assert_eq!(ended.code, 65, "{more}: {ended}");
            assert!(
                ended.stderr.contains("asks for more than the lease"),
                "{ended}"
            );
            assert!(!stage.has("ordered"));
        }
        // What could never be opened is refused before anything starts.
        for wrong in [
            &["--port", "22"][..],
            &["--for", "24h"],
            &["--lease", "a/b"],
            &["--identifier", "127.1"],
        ] {
            let refused = stage.run(wrong, "touch $DIR/never");
            assert_eq!(refused.code, 65, "{wrong:?}: {refused}");
            assert!(!stage.has("never"));
        }
        stage.is_over();
    });
}

#[test]
fn streams_status_and_signals_pass_through() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        let output = stage.run(&[], "echo to-stdout; echo to-stderr >&2; cat; exit 42");
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (42, "to-stdout\n", "to-stderr\n")
        );
        assert_eq!(stage.run(&[], "kill -KILL $$").code, 128 + 9);
        let no_such = run(stage.exec_of(&[], &["/no/such/client"]), COMMAND);
        assert_eq!(no_such.code, 127, "{no_such}");
        assert_eq!(no_such.stderr.lines().count(), 1, "{no_such}");
        let no_program = stage.directory.write("data", "no program");
        assert_eq!(run(stage.exec_of(&[], &[&no_program]), COMMAND).code, 126);
        stage.is_over();

        for (signal, word) in [
            (Signal::TERM, "TERM"),
            (Signal::HUP, "HUP"),
            (Signal::USR1, "USR1"),
            (Signal::USR2, "USR2"),
            // There is no terminal here that would have sent them to the command itself.
            (Signal::INT, "INT"),
            (Signal::QUIT, "QUIT"),
        ] {
            let script = format!(
                "trap 'touch $DIR/got-{word}; exit 7' {word}; touch $DIR/traps-{word}; while :; do sleep 0.02; done"
            );
            let process = &mut stage.spawn(&["--now"], &script);
            stage.wait(&format!("traps-{word}"));
            process.signal(signal);
            assert_eq!(process.wait(SOON), 7, "{word}");
            assert!(stage.has(&format!("got-{word}")));
            stage.is_over();
        }
        // One that does not mind ends by it, and says so as a shell would.
        let process = &mut stage.spawn(&[], "touch $DIR/minds-not; exec sleep 60");
        stage.wait("minds-not");
        process.signal(Signal::TERM);
        assert_eq!(process.wait(SOON), 128 + 15);
        stage.is_over();
    });
}

/// A terminal, a shell in it that does job control, and what it starts: `^Z`, back again, `^C`.
const TERMINAL: &str = r#"
import os, pty, signal, sys, time

def shell():
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        os.execvp(sys.argv[1], sys.argv[1:])
    _, status = os.waitpid(job, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    child = int(open(f"/proc/{job}/task/{job}/children").read())
    for _ in range(500):
        state = open(f"/proc/{child}/stat").read().rsplit(") ", 1)[1][0]
        if state == "T":
            break
        time.sleep(0.01)
    print("the command is", state, flush=True)
    os.killpg(job, signal.SIGCONT)
    print("went on", flush=True)
    # From somebody else than the terminal it does not reach the command.
    os.kill(job, signal.SIGINT)
    time.sleep(0.5)
    print("waited", flush=True)
    _, status = os.waitpid(job, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)

pid, terminal = pty.fork()
if pid == 0:
    shell()
    os._exit(0)
said, asked = "", [("ready", b"\x1a"), ("waited", b"\x03")]
while True:
    try:
        part = os.read(terminal, 1024)
    except OSError:
        break
    if not part:
        break
    said += part.decode()
    if asked and asked[0][0] in said:
        os.write(terminal, asked.pop(0)[1])
os.waitpid(pid, 0)
print(said)
"#;

/// Counts how often it is interrupted, until nothing comes for a while.
const INTERRUPTED: &str = r#"
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
count = 0
while signal.sigtimedwait([signal.SIGINT], 2 if count else 30):
    count += 1
print("interrupted", count, flush=True)
raise SystemExit(9)
"#;

#[test]
fn what_the_terminal_says_is_heard_once_and_job_control_works() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        let command = stage.exec_of(&[], &["python3", "-c", INTERRUPTED]);
        let mut terminal = Command::new("python3");
        terminal.args(["-c", TERMINAL]).arg(command.get_program());
        terminal.args(command.get_args());
        let said = run(terminal, COMMAND).success();
        for words in ["the command is T", "interrupted 1", "ended 9"] {
            assert!(said.stdout.contains(words), "{words}: {said}");
        }
        stage.is_over();
    });
}

#[test]
fn whoever_is_killed_the_window_shuts_at_once() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let script = "echo $$ > $DIR/pid; acmegate open && touch $DIR/opened; exec sleep 100";
        // exec itself: its command ends with it.
        let mut process = stage.spawn(&[], script);
        stage.wait("opened");
        let client = stage.pid_in("pid");
        assert!(host.lets_in(80));
        process.signal(Signal::KILL);
        wait_for(SOON, "the lease is released", || {
            (stage.daemon.status()["leases"] == serde_json::json!([])).then_some(())
        });
        assert!(!host.is_open(80));
        wait_for(SOON, "the client got SIGTERM", || {
            (!is_alive(client)).then_some(())
        });
        process.wait(SOON);
        stage.is_over();
        // The client.
        std::fs::remove_file(stage.directory.path().join("opened")).expect("it was made");
        let mut process = stage.spawn(&[], script);
        stage.wait("opened");
        send(stage.pid_in("pid"), Signal::KILL);
        assert_eq!(process.wait(SOON), 128 + 9);
        assert!(!host.is_open(80));
        stage.is_over();
    });
}

#[test]
fn a_restart_of_the_daemon_disarms_nothing() {
    inside(|| {
        let host = Host::new();
        let mut stage = Stage::new("");
        let mut process = stage.spawn(
            &["--lease", "renewal"],
            "acmegate open && touch $DIR/opened; await close; acmegate close; touch $DIR/closed
             await again; acmegate open && touch $DIR/reopened; await end",
        );
        stage.wait("opened");
        stage.daemon.kill();
        assert!(host.lets_in(80), "the kernel keeps it");
        stage.daemon.start_again();
        wait_for(SOON, "armed again", || {
            (stage.armed().len() == 1).then_some(())
        });
        assert!(host.lets_in(80));
        assert_eq!(stage.armed()[0]["open"], true);
        // A hand-over, as at an upgrade.
        assert_eq!(stage.daemon.end_by(Signal::USR1), 0);
        assert!(
            host.lets_in(80),
            "what is armed keeps no restart waiting, and loses nothing by it"
        );
        stage.daemon.start_again();
        wait_for(SOON, "armed again", || {
            (stage.armed().len() == 1).then_some(())
        });
        stage.make("close");
        stage.wait("closed");
        assert!(!host.is_open(80));
        stage.make("again");
        stage.wait("reopened");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        stage.is_over();
        assert_eq!(process.stderr(), "", "nothing was lost");
    });
}

#[test]
fn without_a_daemon_nothing_starts_and_what_runs_is_told_once() {
    inside(|| {
        let host = Host::new();
        let mut stage = Stage::new("");
        // It is gone before the client asks: nobody can say so to exec but the hook itself.
        let mut late = stage.spawn(
            &[],
            "touch $DIR/late; await go; acmegate open; touch $DIR/ordered",
        );
        // It is gone while the window is open: the client goes on, and the kernel closes.
        let mut early = stage.spawn(
            &[],
            "acmegate open --for 12s && touch $DIR/opened; await end; exit 6",
        );
        stage.wait("late");
        stage.wait("opened");
        let opened = Instant::now();
        assert_eq!(stage.daemon.end_by(Signal::USR1), 0);
        let refused = stage.run(&[], "touch $DIR/never");
        assert_eq!(refused.code, 69, "{refused}");
        assert!(!stage.has("never"));
        stage.make("go");
        assert_ne!(late.wait(SOON), 0);
        assert!(!stage.has("ordered"), "{}", late.stderr());
        wait_for(SOON, "it is told", || {
            early.stderr().contains("goes on").then_some(())
        });
        assert!(host.lets_in(80) || opened.elapsed() > Duration::from_secs(12));
        wait_for(SOON, "the kernel closes", || {
            (!host.is_open(80)).then_some(())
        });
        stage.make("end");
        assert_eq!(early.wait(SOON), 6);
        assert_eq!(early.stderr().lines().count(), 1, "{}", early.stderr());
    });
}

/// Who takes every place that it can still leaves those of others, and who talks on an armed
/// connection loses it.
#[test]
fn a_flood_of_armings_leaves_room_and_garbage_ends_one() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        let arm = |lease: &str| {
            let open = Open {
                lease: lease.to_owned(),
                ..Open::default()
            };
            let runtime_dir = stage.daemon.runtime_dir();
            client::arm(runtime_dir.as_ref(), open, false).expect("it answers")
        };
        let mut held = Vec::new();
        let refusal = loop {
            let (answer, stream) = arm(&format!("flood-{}", held.len()));
            if answer.code != 0 {
                break answer;
            }
            held.push(stream);
            assert!(
                held.len() < 64,
                "there is a bound below an account's places"
            );
        };
        assert_eq!(refusal.code, 75, "{}", refusal.message);
        assert!(
            refusal.message.contains("too many leases are armed"),
            "{}",
            refusal.message
        );
        assert_eq!(stage.armed().len(), held.len());
        assert!(!host.is_open(80));
        // Everything else is still heard, and nothing opens but what is asked.
        stage.daemon.cli(&["open", "--lease", "other"]).success();
        stage.daemon.cli(&["close", "--lease", "other"]).success();
        let refused = stage.run(&[], "touch $DIR/never");
        assert_eq!(refused.code, 75, "{refused}");
        assert!(!stage.has("never"));
        // Longer than any request may take.
        let quiet = Instant::now();
        wait_for(SOON, "the deadline of a request is past", || {
            (quiet.elapsed() > Duration::from_secs(3)).then_some(())
        });
        assert_eq!(stage.armed().len(), held.len());

        // One place is given back by saying something, the others by going.
        let mut talker = held.pop().expect("one of them");
        let name = format!("flood-{}", held.len());
        stage.daemon.cli(&["open", "--lease", &name]).success();
        assert!(host.lets_in(80));
        let _ = talker.write_all(b"\0\xff}{\n");
        wait_for(SOON, "the talker is disarmed", || {
            (stage.armed().len() == held.len()).then_some(())
        });
        assert!(!host.is_open(80));
        let (answer, again) = arm("again");
        assert_eq!(answer.code, 0);
        drop((again, held));
        wait_for(SOON, "all are gone", || {
            stage.armed().is_empty().then_some(())
        });
        stage.is_over();
    });
}

/// What is refused before it is armed takes no place, and a name is armed once.
#[test]
fn a_name_is_armed_once_and_bad_requests_arm_nothing() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        let mut first = stage.spawn(&["--lease", "one"], "touch $DIR/runs; await end");
        stage.wait("runs");
        let second = stage.run(&["--lease", "one"], "touch $DIR/never");
        assert_eq!(second.code, 75, "{second}");
        assert!(second.stderr.contains("armed already"), "{second}");
        let open = Ask::Arm(Open {
            lease: "half".to_owned(),
            ..Open::default()
        });
        let envelope = Envelope {
            version: VERSION,
            ask: open,
            under: None,
        };
        let line = serde_json::to_vec(&envelope).expect("JSON");
        let socket = format!("{}/control.sock", stage.daemon.runtime_dir());
        for part in [
            &line[..line.len() / 2],
            &line[..],
            b"{\"version\":1,\"ask\":{\"arm\":{}}}\n",
        ] {
            let mut caller = UnixStream::connect(&socket).expect("it listens");
            caller.write_all(part).expect("it hears");
            drop(caller);
        }
        assert_eq!(stage.armed().len(), 1);
        assert!(!stage.has("never"));
        stage.make("end");
        assert_eq!(first.wait(SOON), 0);
        stage.is_over();
    });
}

/// What names the lease may be lost on the way, or wrong.
#[test]
fn the_lease_is_found_below_a_cleared_environment_and_a_wrong_one_is_an_error() {
    inside(|| {
        let host = Host::new();
        let stage = Stage::new("");
        // As sudo does it: the environment is cleared for what it starts, not for itself.
        let script =
            "env -u ACMEGATE_LEASE sh -c 'acmegate open && touch $DIR/opened; true'; await end";
        let mut process = stage.spawn(&["--lease", "found"], script);
        stage.wait("opened");
        assert_eq!(stage.daemon.status()["leases"][0]["name"], "found");
        assert!(host.lets_in(80));
        stage.make("end");
        assert_eq!(process.wait(SOON), 0);
        assert!(!host.is_open(80));
        for (name, value) in [("empty", ""), ("bad", "a/b"), ("long", &"n".repeat(41))] {
            for arguments in [
                &["open"][..],
                &["close"],
                &["answer", "add", "a.example.com", ANSWER],
            ] {
                let mut command = stage.daemon.command();
                command.args(arguments).env("ACMEGATE_LEASE", value);
                let refused = run(command, COMMAND);
                assert_eq!(refused.code, 64, "{name} {arguments:?}: {refused}");
                assert!(refused.stderr.contains("ACMEGATE_LEASE is `"), "{refused}");
            }
        }
        stage.is_over();
        assert_eq!(stage.daemon.status()["pushed"], 0);
    });
}
