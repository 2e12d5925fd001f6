//! What passes through `exec`: streams, the exit status, signals, a terminal's job control.

use std::process::Command;

use rustix::process::Signal;

use super::{COMMAND, SOON, Stage};
use crate::host::Host;
use crate::lab::{inside, run};

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

/// What the command ignores is what `exec` was started to ignore, and nothing of `exec`'s own.
#[test]
fn what_was_ignored_stays_so_and_nothing_else_is() {
    inside(|| {
        let _host = Host::new();
        let stage = Stage::new("");
        let command = stage.exec_of(&[], &["grep", "SigIgn", "/proc/self/status"]);
        let (hang_up, pipe) = (
            1 << (number_of(Signal::HUP) - 1),
            1 << (number_of(Signal::PIPE) - 1),
        );
        for (before, expected) in [("trap '' HUP", hang_up), ("trap - HUP", 0)] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{before}; exec \"$@\"; "), "sh"]);
            shell.arg(command.get_program()).args(command.get_args());
            let said = run(shell, COMMAND).success().stdout;
            let mask = said.trim().rsplit('\t').next().unwrap_or_default();
            let mask = u64::from_str_radix(mask, 16).expect("a mask");
            assert_eq!(mask & (hang_up | pipe), expected, "{before}: {said}");
        }
        stage.is_over();
    });
}

fn number_of(signal: Signal) -> u32 {
    u32::try_from(signal.as_raw()).expect("a number")
}
