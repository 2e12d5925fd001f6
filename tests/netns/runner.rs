//! Commands, run by the runner: what they see, when they run, and what becomes of those that fail,
//! hang, flood or stay.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::host::{Host, on_each_host};
use crate::kernel::{SHUT, elements_of, open_ports};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, TempDir, inside, is_alive, send, wait_for};
use crate::process::{NET_ADMIN, powers};

const SOON: Duration = Duration::from_secs(20);

/// A program that writes down how it was called, and then does what it is told.
pub struct Script {
    directory: TempDir,
}

impl Script {
    /// `body` is shell, after the arguments, `$*`, and the input have been written down.
    pub fn new(body: &str) -> Self {
        let directory = TempDir::new();
        let log = directory.at("log");
        let script = format!(
            "#!/bin/sh\nread -r event\nprintf '%s | %s\\n' \"$*\" \"$event\" >>'{log}'\n{body}\n"
        );
        directory.program("command", &script);
        Self { directory }
    }

    /// A configuration that opens and closes by it, and listens on 80.
    pub fn config(&self) -> String {
        let command = self.directory.at("command");
        format!(
            "[firewall]\nopen_command = [\"{command}\", \"open\", \"{{port}}\", \"{{seconds}}\", \"{{lease}}\"]\n\
             close_command = [\"{command}\", \"close\", \"{{port}}\"]\n"
        )
    }

    /// How it was called so far, without its input.
    pub fn calls(&self) -> Vec<String> {
        self.lines(|line| line.split(" | ").next().map(str::to_owned))
    }

    fn inputs(&self) -> Vec<Value> {
        self.lines(|line| serde_json::from_str(line.split(" | ").nth(1)?).ok())
    }

    fn lines<T>(&self, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines()
            .map(|line| read(line).expect("a line"))
            .collect()
    }

    /// A file beside it, by which the body is told what to do.
    pub fn path(&self, name: &str) -> String {
        self.directory.at(name)
    }

    #[track_caller]
    fn wait_for_calls(&self, calls: &[&str]) {
        wait_for(
            SOON,
            &format!("calls {calls:?}, not {:?}", self.calls()),
            || (self.calls() == calls).then_some(()),
        );
    }
}

#[test]
fn each_lease_runs_what_it_needs_and_nothing_twice() {
    inside(|| {
        let host = Host::new();
        let script = Script::new("");
        let daemon = Daemon::start(&format!("{}ports = [80, 8080]\n", script.config()));
        let open = |lease: &str, more: &[&str]| {
            daemon
                .cli(&[&["open", "--lease", lease], more].concat())
                .success();
        };
        open("a", &["--for", "90s", "--port", "80", "--port", "8080"]);
        assert!(host.lets_in(80));
        assert_eq!(script.calls(), ["open 80 90 a", "open 8080 90 a"]);
        let input = &script.inputs()[0];
        for (key, value) in [
            ("event", "\"open\""),
            ("lease", "\"a\""),
            ("ports", "[80,8080]"),
            ("families", "[\"ipv4\",\"ipv6\"]"),
            ("seconds", "90"),
            ("version", "1"),
        ] {
            assert_eq!(input[key].to_string(), value, "{input}");
        }
        // Another one on the same port, and a renewal: opened again, with their own time.
        open("b", &["--for", "1500ms"]);
        open("a", &["--for", "30s"]);
        // What the renewal left out is closed.
        script.wait_for_calls(&[
            "open 80 90 a",
            "open 8080 90 a",
            "open 80 2 b",
            "open 80 30 a",
            "close 8080",
        ]);
        // b expires: a still needs the port.
        wait_for(SOON, "b expires", || {
            let leases = daemon.status()["leases"].as_array().expect("a list").len();
            (leases == 1).then_some(())
        });
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(script.calls()[5..], ["close 80"]);
        // A lease that expires by itself is closed as well.
        open("c", &["--for", "1s"]);
        wait_for(SOON, "c is closed", || {
            (script.calls().len() == 8).then_some(())
        });
        assert_eq!(script.calls()[6..], ["open 80 1 c", "close 80"]);
        // `firewall remove` and a clean stop close what is left.
        open("d", &[]);
        daemon.cli(&["firewall", "remove"]).success();
        daemon.cli(&["firewall", "apply"]).success();
        open("e", &[]);
        let mut daemon = daemon;
        assert_eq!(daemon.terminate(), 0);
        assert_eq!(
            script.calls()[8..],
            ["open 80 600 d", "close 80", "open 80 600 e", "close 80"]
        );
        let log = daemon.log();
        assert_eq!(log.matches("command: done").count(), 12, "{log}");
        assert!(
            log.contains("event=\"open\" lease=e port=80 milliseconds="),
            "{log}"
        );
    });
}

#[test]
fn without_a_window_in_the_kernel_commands_are_all_there_is() {
    inside(|| {
        let script = Script::new("");
        let config = format!("{}mode = \"gate-only\"\n", script.config());
        let daemon = Daemon::start(&config);
        daemon
            .cli(&["open", "--lease", "a", "--for", "60s"])
            .success();
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(script.calls(), ["open 80 60 a", "close 80"]);
        let status = daemon.status();
        let commands = &status["commands"];
        assert!(
            commands["open"]
                .as_str()
                .expect("text")
                .ends_with(" open {port} {seconds} {lease}"),
            "{status}"
        );
        assert_eq!(commands["failure"], Value::Null);
        assert_eq!(status["problems"], serde_json::json!([]));
    });
}

#[test]
fn a_command_that_fails_fails_the_hook_and_nothing_stays_open() {
    inside(|| {
        let host = Host::new();
        let script = Script::new("case $1 in open) echo 'no such zone' >&2; exit 3 ;; esac");
        let daemon = Daemon::start(&script.config());
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 71, "{refused}");
        assert!(
            refused.stderr.contains("not opened: `")
                && refused.stderr.contains("exited 3: no such zone"),
            "{refused}"
        );
        assert_eq!(open_ports(), SHUT);
        assert!(!host.is_open(80));
        // How far it came nobody knows, so it is closed.
        script.wait_for_calls(&["open 80 600 a", "close 80"]);
        let status = daemon.status();
        assert_eq!(status["leases"], serde_json::json!([]));
        let failure = status["commands"]["failure"].as_str().expect("text");
        assert!(failure.contains("no such zone"), "{status}");
        let text = daemon.cli(&["status"]).success().stdout;
        assert!(text.contains("last failure: `"), "{text}");
    });
}

#[test]
fn what_a_command_opened_is_closed_when_the_way_is_not_free_after_all() {
    inside(|| {
        let _host = Host::new();
        lab::nft(DROPS);
        let script = Script::new("");
        let daemon = Daemon::start(&script.config());
        // Bounds first: for what is not given nothing is run.
        let refused = daemon.cli(&["open", "--lease", "a", "--port", "22"]);
        assert_eq!(refused.code, 65, "{refused}");
        assert_eq!(script.calls(), Vec::<String>::new());
        // The survey comes after the command, and its refusal stands.
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 78, "{refused}");
        script.wait_for_calls(&["open 80 600 a", "close 80"]);
        assert_eq!(open_ports(), SHUT);
        // A command that makes the way free is what all of this is for.
        drop(daemon);
        let script = Script::new(
            "case $1 in open) /usr/sbin/nft insert rule inet filter input tcp dport 80 accept ;;
            close) /usr/sbin/nft flush chain inet filter input ;; esac",
        );
        let daemon = Daemon::start(&format!("{}command_net_admin = true\n", script.config()));
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(script.calls(), ["open 80 600 a", "close 80"]);
        // Without the capability the same script gets nowhere.
        drop(daemon);
        let daemon = Daemon::start(&script.config());
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 71, "{refused}");
        assert!(
            refused.stderr.contains("Operation not permitted"),
            "{refused}"
        );
    });
}

const DROPS: &str = "table inet filter {
    chain input { type filter hook input priority filter; policy drop; }
}
";

#[test]
fn what_somebody_keeps_shutting_is_not_opened_for_ever() {
    inside(|| {
        let _host = Host::new();
        lab::nft(DROPS);
        let script = Script::new(
            "case $1 in open) /usr/sbin/nft insert rule inet filter input tcp dport 80 accept ;;
            close) /usr/sbin/nft flush chain inet filter input ;; esac",
        );
        let daemon = Daemon::start(&format!("{}command_net_admin = true\n", script.config()));
        daemon.cli(&["open", "--lease", "a"]).success();
        wait_for(SOON * 6, "it gives up, and says so", || {
            lab::nft("flush chain inet filter input\n");
            let problems = daemon.status()["problems"].to_string();
            problems
                .contains("somebody keeps shutting what a command opens for lease a")
                .then_some(())
        });
        assert_eq!(script.calls().len(), 6, "once asked, five times again");
        // Asked for anew it begins anew.
        daemon.cli(&["open", "--lease", "a"]).success();
        assert_eq!(daemon.status()["problems"], serde_json::json!([]));
    });
}

#[test]
fn a_failed_renewal_leaves_the_lease_as_it_was() {
    inside(|| {
        let _host = Host::new();
        let script = Script::new("test ! -e \"$0.fail\" || exit 1");
        let daemon = Daemon::start(&script.config());
        daemon
            .cli(&["open", "--lease", "a", "--for", "60s"])
            .success();
        fs::write(script.path("command.fail"), "").expect("our own file");
        assert_eq!(daemon.cli(&["open", "--lease", "a"]).code, 71);
        let left = daemon.status()["leases"][0]["milliseconds"].as_u64();
        assert!(left.is_some_and(|left| left <= 60_000), "{left:?}");
        assert_eq!(open_ports(), [vec![80], vec![80]]);
        // The port is still the old lease's: it is not closed.
        assert_eq!(script.calls(), ["open 80 60 a", "open 80 600 a"]);
    });
}

#[test]
fn a_closing_that_fails_is_told_and_tried_again() {
    inside(|| {
        let host = Host::new();
        let script = Script::new(
            "case $1 in close) test -e \"$0.good\" || { echo busy >&2; exit 4; } ;; esac",
        );
        let daemon = Daemon::start(&script.config());
        daemon.cli(&["open", "--lease", "a"]).success();
        let failed = daemon.cli(&["close", "--lease", "a"]);
        assert_eq!(failed.code, 71, "{failed}");
        assert!(failed.stderr.contains("exited 4: busy"), "{failed}");
        // In the kernel it is shut whatever the command did.
        assert_eq!(open_ports(), SHUT);
        assert!(!host.is_open(80));
        let problems = daemon.status()["problems"].to_string();
        assert!(
            problems.contains("a closing command failed, it is tried again: "),
            "{problems}"
        );
        wait_for(SOON, "it is tried again", || {
            (script.calls().len() > 2).then_some(())
        });
        fs::write(script.path("command.good"), "").expect("our own file");
        wait_for(SOON * 3, "it is closed, and the problem is gone", || {
            (daemon.status()["problems"] == serde_json::json!([])).then_some(())
        });
    });
}

#[test]
fn no_program_hangs_a_hook() {
    inside(|| {
        let cases = [
            // Deaf to SIGTERM, with a child that is deaf as well.
            (
                "trap '' TERM; sleep 300 & wait; sleep 300",
                75,
                "was ended after",
            ),
            ("yes >&2", 75, "was ended after"),
            ("exec >&- 2>&-; sleep 300", 75, "was ended after"),
            ("kill -SEGV $$", 71, "was ended by signal 11"),
        ];
        on_each_host(&cases, |_host, (body, code, words)| {
            let script = Script::new(&format!("test $1 = close || {{ {body}; }}"));
            let mut config = script.config();
            config += "command_timeout = \"2s\"\n";
            let daemon = Daemon::start(&config);
            let begun = Instant::now();
            let refused = daemon.cli(&["open", "--lease", "a"]);
            assert!(begun.elapsed() < Duration::from_secs(9), "{refused}");
            assert_eq!(refused.code, code, "{refused}");
            assert!(refused.stderr.contains(words), "{refused}");
            assert_eq!(open_ports(), SHUT);
            // It goes on working.
            daemon.cli(&["close", "--lease", "a"]).success();
            assert!(is_alive(daemon.runner()));
        });
    });
}

#[test]
fn what_stays_behind_hangs_nobody() {
    inside(|| {
        let _host = Host::new();
        let script = Script::new("sleep 6 & exit 0");
        let daemon = Daemon::start(&script.config());
        let begun = Instant::now();
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn a_program_that_is_not_there_is_said_before_and_when_it_is_needed() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start(
            "[firewall]\nopen_command = [\"no-such-program\", \"{port}\", \"{seconds}\"]\n",
        );
        let words = "no-such-program";
        assert!(daemon.status()["problems"].to_string().contains(words));
        let checked = daemon.cli(&["config", "check"]).success();
        assert!(checked.stderr.contains(words), "{checked}");
        let refused = daemon.cli(&["open", "--lease", "a"]);
        assert_eq!(refused.code, 69, "{refused}");
        assert!(
            refused
                .stderr
                .contains("`no-such-program` is in none of /usr/local/sbin:"),
            "{refused}"
        );
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn after_any_death_the_next_start_closes_what_no_lease_needs() {
    inside(|| {
        let cases = ["front", "runner", "everything", "nothing, a restart"];
        on_each_host(&cases, |_host, victim| {
            let script = Script::new("");
            let mut daemon = Daemon::start(&format!("{}ports = [80, 8080]\n", script.config()));
            let open = |daemon: &Daemon, lease: &str, port: &str, time: &str| {
                daemon
                    .cli(&["open", "--lease", lease, "--port", port, "--for", time])
                    .success();
            };
            open(&daemon, "short", "8080", "4s");
            open(&daemon, "long", "80", "10m");
            match victim {
                "front" => send(daemon.front(), Signal::KILL),
                "runner" => send(daemon.runner(), Signal::KILL),
                "everything" => daemon.kill(),
                // What the unit's restart sends: what is open stays.
                _ => assert_eq!(daemon.end_by(Signal::USR1), 0),
            }
            daemon.gone();
            wait_for(SOON, "the short lease is over", || {
                (open_ports() == [vec![80], vec![80]]).then_some(())
            });
            assert_eq!(script.calls().len(), 2, "nobody is left to close");
            daemon.start_again();
            script.wait_for_calls(&["open 8080 4 short", "open 80 600 long", "close 8080"]);
            assert!(
                daemon.log().contains("no living lease needs openings=1"),
                "{}",
                daemon.log()
            );
            // The other one lives on, and is closed as ever.
            daemon.cli(&["close", "--lease", "long"]).success();
            assert_eq!(script.calls()[3..], ["close 80"]);
            assert!(
                !fs::exists(state_file(&daemon)).expect("our own"),
                "nothing is left to know"
            );
        });
    });
}

fn state_file(daemon: &Daemon) -> String {
    format!("{}/commands.json", daemon.state_dir())
}

#[test]
fn a_stop_that_reaches_every_process_is_a_clean_one() {
    inside(|| {
        let _host = Host::new();
        let script = Script::new("");
        let mut daemon = Daemon::start(&script.config());
        daemon.cli(&["open", "--lease", "a"]).success();
        // The worse order: a runner that obeyed would be gone before the front knows.
        for pid in [daemon.runner(), daemon.enforcer(), daemon.front()] {
            send(pid, Signal::TERM);
        }
        assert_eq!(daemon.gone(), 0, "{}", daemon.log());
        assert_eq!(script.calls(), ["open 80 600 a", "close 80"]);
    });
}

/// The last list of docs/commands.md: braces that are nft's own, and the one capability.
#[test]
fn the_documents_list_for_nft_opens_and_closes() {
    inside(|| {
        let host = Host::new();
        lab::nft(&SET_BY_ADMINISTRATOR.replace("acmegate", "acme"));
        let page = include_str!("../../docs/commands.md");
        let (_, last) = page.rsplit_once("```toml\n").expect("lists");
        let list = last.trim_end().trim_end_matches('`');
        assert!(list.contains("\"nft\""), "{list}");
        let daemon = Daemon::start(list);
        assert!(!host.is_open(80));
        daemon
            .cli(&["open", "--lease", "a", "--for", "60s"])
            .success();
        assert!(host.lets_in(80));
        let left = elements_of("inet filter", "acme")[&80].seconds_left;
        assert!(left.is_some_and(|left| left <= 60), "{left:?}");
        daemon.cli(&["close", "--lease", "a"]).success();
        assert!(!host.is_open(80));
        assert!(elements_of("inet filter", "acme").is_empty());
    });
}

#[test]
fn a_state_file_that_nobody_can_use_is_told_and_stops_nothing() {
    inside(|| {
        let _host = Host::new();
        let script = Script::new("");
        let mut daemon = Daemon::start(&script.config());
        assert_eq!(daemon.terminate(), 0);
        let forged = r#"{"version":1,"openings":[{"number":1,"lease":"x","ports":[80],"families":["ipv4"],"seconds":9,"argv":["/bin/true"]}]}"#;
        for text in ["\0garbage", forged, ""] {
            fs::write(state_file(&daemon), text).expect("our own");
            daemon.start_again();
            let problems = daemon.status()["problems"].to_string();
            assert!(
                problems.contains("what commands opened before is not known"),
                "{problems}"
            );
            daemon.cli(&["open", "--lease", "a"]).success();
            daemon.cli(&["close", "--lease", "a"]).success();
            assert_eq!(daemon.status()["problems"], serde_json::json!([]));
            assert_eq!(daemon.terminate(), 0);
        }
        // Not writable: something else is there.
        fs::create_dir_all(format!("{}/x", state_file(&daemon))).expect("our own");
        daemon.start_again();
        daemon.cli(&["open", "--lease", "a"]).success();
        let problems = daemon.status()["problems"].to_string();
        assert!(problems.contains("cannot be written"), "{problems}");
        assert_eq!(
            script.calls().last().map(String::as_str),
            Some("open 80 600 a")
        );
    });
}

/// A cloud's group outlives a power cut of this host, and must be known of afterwards.
#[test]
fn what_a_command_opens_is_on_the_disk_by_its_name_before() {
    inside(|| {
        let _host = Host::new();
        let (script, ground) = (Script::new(""), TempDir::new());
        let trace = ground.at("trace");
        let calls = "trace=fsync,/^rename,execve";
        let daemon = Daemon::with(&script.config())
            .under(&["strace", "-f", "-y", "-qq", "-e", calls, "-o", &trace])
            .start();
        daemon.cli(&["open", "--lease", "a"]).success();
        let trace = fs::read_to_string(&trace).expect("a trace");
        let mut lines = trace.lines();
        for (call, about) in [
            ("fsync(", "/commands.new>".to_owned()),
            ("rename", "/commands.json\"".to_owned()),
            ("fsync(", format!("<{}>", daemon.state_dir())),
            ("execve(", "\"open\", \"80\"".to_owned()),
        ] {
            let is_next = |line: &str| line.contains(call) && line.contains(&about);
            assert!(lines.any(is_next), "{call} {about} in its order:\n{trace}");
        }
    });
}

#[test]
fn a_reload_changes_the_commands_for_what_is_opened_from_then_on() {
    inside(|| {
        let _host = Host::new();
        let (before, after) = (Script::new(""), Script::new(""));
        let daemon = Daemon::start(&before.config());
        daemon.cli(&["open", "--lease", "a"]).success();
        daemon.write_config(&after.config());
        daemon.signal(Signal::HUP);
        wait_for(SOON, "reloaded", || {
            daemon
                .log()
                .contains("configuration reloaded")
                .then_some(())
        });
        daemon.cli(&["open", "--lease", "b"]).success();
        assert_eq!(after.calls(), ["open 80 600 b"]);
        // What was opened by the old program is closed by it.
        daemon.cli(&["close", "--lease", "a"]).success();
        daemon.cli(&["close", "--lease", "b"]).success();
        assert_eq!(before.calls(), ["open 80 600 a", "close 80"]);
        assert_eq!(after.calls(), ["open 80 600 b", "close 80"]);
        // Without commands none is run; a daemon that started without any must be told.
        drop(daemon);
        let daemon = Daemon::start("");
        daemon.write_config(&after.config());
        daemon.signal(Signal::HUP);
        wait_for(SOON, "told", || {
            let problems = daemon.status()["problems"].to_string();
            problems.contains("the first command of [firewall], or command_net_admin, was changed: that needs a restart").then_some(())
        });
        daemon.cli(&["open", "--lease", "c"]).success();
        assert_eq!(after.calls().len(), 2);
        assert_eq!(daemon.status()["commands"], Value::Null);
    });
}

#[test]
fn hooks_at_the_same_time_are_all_answered_in_time() {
    inside(|| {
        let _host = Host::new();
        let script = Script::new("test $1 = close || sleep 2");
        let daemon = Daemon::start(&script.config());
        let begun = Instant::now();
        let codes: Vec<i32> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..6)
                .map(|number| {
                    let daemon = &daemon;
                    scope.spawn(move || {
                        let lease = format!("lease-{number}");
                        daemon.cli(&["open", "--lease", &lease]).code
                    })
                })
                .collect();
            asking
                .into_iter()
                .map(|asking| asking.join().expect("asked"))
                .collect()
        });
        assert!(
            begun.elapsed() < Duration::from_secs(14),
            "{:?}",
            begun.elapsed()
        );
        // Two seconds each: three fit into the time of one hook, and none hears a wrong word.
        assert!(codes.iter().all(|code| [0, 75].contains(code)), "{codes:?}");
        let opened = codes.iter().filter(|code| **code == 0).count();
        assert!((2..6).contains(&opened), "{codes:?}");
        let leases = daemon.status()["leases"].as_array().expect("a list").len();
        assert_eq!(leases, opened);
    });
}

#[test]
fn the_runner_and_its_commands_have_no_more_power_than_was_given() {
    inside(|| {
        let cases = [("", 0), ("command_net_admin = true\n", NET_ADMIN)];
        on_each_host(&cases, |_host, (key, power)| {
            let script = Script::new(
                "cat /proc/self/status >\"$0.status\"; (unshare -n true; cat /proc/1/mem) 2>\"$0.tried\"; ulimit -n >\"$0.files\"",
            );
            let daemon = Daemon::start(&format!("{}{key}", script.config()));
            daemon.cli(&["open", "--lease", "a"]).success();
            let own = format!("/proc/{}/status", daemon.runner());
            assert_eq!(powers(&own), (power, true, true));
            let of_command = script.path("command.status");
            assert_eq!(powers(&of_command), (power, true, true));
            let tried = fs::read_to_string(script.path("command.tried")).expect("tried");
            assert!(tried.contains("Operation not permitted"), "{tried}");
            assert_eq!(
                fs::read_to_string(script.path("command.files")).expect("said"),
                "1024\n"
            );
            // It listens nowhere and speaks no netlink; the front, which does the first, is the control.
            assert_eq!(network_sockets(daemon.runner()), 0);
            assert!(network_sockets(daemon.front()) > 0);
        });
    });
}

fn descriptors(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("our own");
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

/// How many of its sockets are of the Internet families or netlink.
fn network_sockets(pid: u32) -> usize {
    let tables = ["tcp", "tcp6", "udp", "udp6", "netlink"]
        .map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default())
        .concat();
    let inodes: Vec<String> = descriptors(pid)
        .iter()
        .filter_map(|target| {
            target
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let is_there = |inode: &String| tables.split_whitespace().any(|word| word == inode);
    inodes.iter().filter(|inode| is_there(inode)).count()
}
