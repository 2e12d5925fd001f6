//! What is printed where nobody takes it: a hook's output goes to a full disk, or its reader is gone.

use std::fs::File;
use std::io::pipe;
use std::process::{Command, Stdio};

use crate::lab::Daemon;

const CONFIG: &str = "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nmode = \"gate-only\"\nports = [80]\n\
     [[site]]\nidentifiers = [\"www.example.com\"]\n";
const KEY_AUTHORIZATION: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// A disk without room (full(4)).
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .expect("full(4)")
        .into()
}

/// A pipe whose reader is gone.
fn unread() -> Stdio {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn code(mut command: Command) -> Option<i32> {
    command.status().expect("a program").code()
}

#[test]
fn what_is_done_is_done_though_nobody_can_read_so() {
    let daemon = Daemon::start(CONFIG);
    for to in [full, unread] {
        let run = |arguments: &[&str]| {
            let mut command = daemon.command();
            command.args(arguments).stdout(to()).stderr(to());
            code(command)
        };
        assert_eq!(run(&["open", "--lease", "a"]), Some(0));
        assert_eq!(daemon.status()["leases"][0]["name"], "a");
        let push = ["answer", "add", "www.example.com", KEY_AUTHORIZATION];
        assert_eq!(run(&push), Some(0));
        assert_eq!(run(&["close", "--lease", "a"]), Some(0));
        assert_eq!(daemon.status()["leases"], serde_json::json!([]));
        // A refusal has its status all the same.
        assert_eq!(run(&["open", "--lease", "a", "--for", "90d"]), Some(65));
        assert_eq!(run(&["close", "--nonsense"]), Some(64));
    }
}

#[test]
fn a_client_under_exec_goes_on_where_nothing_can_be_said() {
    let daemon = Daemon::start(CONFIG);
    let mut exec = daemon.command();
    // Longer than its window, which exec says once.
    let client = ["sh", "-c", "sleep 2; exit 5"];
    exec.args(["exec", "--now", "--for", "1s", "--"])
        .args(client);
    exec.stdout(full()).stderr(full());
    assert_eq!(code(exec), Some(5));
}

#[test]
fn what_was_asked_for_and_cannot_be_written_is_a_failure_with_a_reason() {
    let daemon = Daemon::start(CONFIG);
    // Something to tell of.
    let mut open = daemon.command();
    open.args(["open", "--lease", "a"]).stdout(Stdio::null());
    assert_eq!(code(open), Some(0));
    for asked in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--security"],
        &["metrics"],
        &["report", "--since", "1d"],
        &["watch"],
        &["--version"],
        &["open", "--help"],
        &["config", "check"],
        &["firewall", "plan"],
        &["completions", "bash"],
        &["install-hooks", "certbot", "--print"],
    ] {
        let run = |to: Stdio| {
            let mut command = daemon.command();
            let output = command.args(asked).stdout(to).output().expect("a program");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), said)
        };
        let (code, said) = run(full());
        assert_eq!(code, Some(71), "{asked:?}: {said}");
        assert!(
            said.contains("cannot write: No space left"),
            "{asked:?}: {said}"
        );
        // Such as head(1), which has what it wanted.
        let (code, said) = run(unread());
        assert_eq!(
            (code, said.contains("acmegate: cannot")),
            (Some(0), false),
            "{asked:?}: {said}"
        );
    }
}
