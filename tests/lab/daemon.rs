//! The daemon as it is shipped, in directories of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use acmegate::control::client;
use rustix::process::Signal;

use super::process::{Output, Process, run, send};
use super::{TempDir, pause, wait_for};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_acmegate");
/// How long it may take until it answers, on a machine that does other things as well.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to: its own drain has a deadline well below.
const STOP: Duration = Duration::from_secs(30);
/// A command has a deadline of 10 s itself; the machine may be busy.
const COMMAND: Duration = Duration::from_secs(60);

/// What a daemon is started with.
#[derive(Debug)]
pub struct Builder {
    config: String,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Builder {
    /// Starts it by way of another program (strace, faketime), which must pass on its arguments.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start_again();
        daemon
    }

    /// Starts it and waits until it ended, which it must by itself: exit code and words.
    #[track_caller]
    pub fn refuse(self) -> Output {
        let daemon = self.prepare();
        run(daemon.run_command(), START)
    }

    fn prepare(self) -> Daemon {
        let directory = TempDir::new();
        let state = directory.at("state");
        for name in ["state", "run"] {
            fs::create_dir(directory.path().join(name)).expect("a new directory");
        }
        let daemon = Daemon {
            wrapper: self.wrapper,
            environment: self.environment,
            state,
            process: None,
            past_logs: String::new(),
            directory,
        };
        daemon.write_config(&self.config);
        daemon
    }
}

/// A daemon. Dropping it kills every one of its processes, by pid, and removes its directories.
#[derive(Debug)]
pub struct Daemon {
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    state: String,
    process: Option<Running>,
    past_logs: String,
    // Last: the processes go before their directories.
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    started: Process,
    front: u32,
    enforcer: u32,
    runner: Option<u32>,
    historian: Option<u32>,
}

impl Running {
    fn kill(&self) {
        for pid in std::iter::once(self.front).chain(self.beside()) {
            send(pid, Signal::KILL);
        }
    }

    fn beside(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.enforcer)
            .chain(self.runner)
            .chain(self.historian)
    }
}

impl Daemon {
    /// Starts one in the caller's own namespaces and waits until it serves.
    ///
    /// The text is a configuration file; unless it has a `[daemon]` table of its own it gets one:
    /// no other user, and a state directory that goes with the test.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::with(config).start()
    }

    /// The same, with more to say before it starts.
    pub fn with(config: &str) -> Builder {
        Builder {
            config: config.to_owned(),
            wrapper: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Starts it once more in the same directories, after it ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.forget();
        let mut started = Process::spawn(self.run_command());
        let runtime_dir = self.directory.path().join("run");
        wait_for(START, "the daemon serves", || {
            assert!(
                started.ended().is_none(),
                "the daemon ended:\n{}",
                started.stderr()
            );
            client::status(&runtime_dir).ok()
        });
        let family = family_of(started.pid());
        let find_any = |word: &str| {
            let found = family.iter().find(|(_, arguments)| {
                arguments.iter().any(|argument| argument == word)
                    && arguments.first().is_some_and(|program| is_ours(program))
            });
            found.map(|(pid, _)| *pid)
        };
        let find = |word: &str| {
            find_any(word).unwrap_or_else(|| panic!("no process for {word}: {family:?}"))
        };
        self.process = Some(Running {
            front: find("run"),
            enforcer: find("enforcer"),
            runner: find_any("runner"),
            historian: find_any("historian"),
            started,
        });
    }

    /// Runs one of its subcommands against it.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments);
        run(command, COMMAND)
    }

    /// A search path where `acmegate` is this program and asks this daemon, as an ACME client's
    /// hooks are written.
    pub fn search_path(&self) -> String {
        let (config, run) = (self.config(), self.runtime_dir());
        let script = format!(
            "#!/bin/sh\nexec '{BINARY}' --config '{config}' --runtime-dir '{run}' \"$@\"\n"
        );
        self.directory.program("bin/acmegate", &script);
        let others = std::env::var("PATH").unwrap_or_default();
        format!("{}:{others}:/usr/sbin:/sbin", self.directory.at("bin"))
    }

    /// `acmegate status --json`.
    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        let output = self.cli(&["status", "--json"]).success();
        serde_json::from_str(&output.stdout).expect("JSON")
    }

    /// Everything it wrote to standard error, this time and before.
    pub fn log(&self) -> String {
        let now = self.process.as_ref();
        let now = now.map_or(String::new(), |running| running.started.stderr());
        format!("{}{now}", self.past_logs)
    }

    /// The process that listens.
    #[track_caller]
    pub fn front(&self) -> u32 {
        self.running().front
    }

    /// The process that may change the firewall.
    #[track_caller]
    pub fn enforcer(&self) -> u32 {
        self.running().enforcer
    }

    /// The process that runs configured commands.
    #[track_caller]
    pub fn runner(&self) -> u32 {
        self.running().runner.expect("commands are configured")
    }

    /// The process that keeps the history.
    #[track_caller]
    pub fn historian(&self) -> u32 {
        self.running().historian.expect("a history is kept")
    }

    /// Kills every process with SIGKILL and waits until they are gone.
    pub fn kill(&mut self) {
        if let Some(running) = &self.process {
            running.kill();
        }
        self.gone();
    }

    /// Asks it to end for good by SIGTERM; gives its exit code.
    #[track_caller]
    pub fn terminate(&mut self) -> i32 {
        self.end_by(Signal::TERM)
    }

    /// Asks it to end by a signal; gives its exit code once every process is gone.
    #[track_caller]
    pub fn end_by(&mut self, signal: Signal) -> i32 {
        send(self.front(), signal);
        self.gone()
    }

    /// Sends the front a signal that does not end it.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        send(self.front(), signal);
        if signal == Signal::STOP {
            // Its threads stop one after another, and what the last one does meanwhile is done.
            wait_for(START, "every thread stands still", || {
                is_stopped(self.front()).then_some(())
            });
        }
    }

    /// Waits until every process is gone, whatever ended them; gives the exit code.
    #[track_caller]
    pub fn gone(&mut self) -> i32 {
        let Some(mut running) = self.process.take() else {
            return 0;
        };
        let code = running.started.wait(STOP);
        for pid in running.beside() {
            wait_for(STOP, "the processes beside it are gone", || {
                (!is_alive(pid)).then_some(())
            });
        }
        self.past_logs += &running.started.stderr();
        code
    }

    /// Replaces its configuration file; it reads it at its next start or SIGHUP.
    pub fn write_config(&self, config: &str) {
        let mut text = config.to_owned();
        if !config.lines().any(|line| line.trim() == "[daemon]") {
            let state = &self.state;
            text += &format!("\n[daemon]\nuser = \"0\"\nstate_dir = \"{state}\"\n");
        }
        self.directory.write("acmegate.toml", &text);
    }

    /// Its configuration file.
    pub fn config(&self) -> String {
        self.directory.at("acmegate.toml")
    }

    /// Where its sockets are.
    pub fn runtime_dir(&self) -> String {
        self.directory.at("run")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> &str {
        &self.state
    }

    /// `acmegate --config … --runtime-dir …`, for a test that starts a subcommand in its own way.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        self.give_globals(&mut command);
        command
    }

    fn run_command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(BINARY);
                command
            }
            None => Command::new(BINARY),
        };
        self.give_globals(&mut command);
        command.arg("run");
        // Whoever runs the tests may be a service that is told things itself.
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "JOURNAL_STREAM",
        ] {
            command.env_remove(name);
        }
        command.envs(self.environment.clone());
        command
    }

    fn give_globals(&self, command: &mut Command) {
        command
            .args(["--config", &self.config()])
            .args(["--runtime-dir", &self.runtime_dir()]);
    }

    #[track_caller]
    fn running(&self) -> &Running {
        self.process.as_ref().expect("it was started")
    }

    fn forget(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut running) = self.process.take() else {
            return;
        };
        // A failing test shows what the daemon had to say.
        if std::thread::panicking() {
            eprintln!(
                "the daemon's log:\n{}{}",
                self.past_logs,
                running.started.stderr()
            );
        }
        running.kill();
        // What is beside the front is its child: init reaps it. The wrapper or front is ours.
        running.started.signal(Signal::KILL);
        for _ in 0..500 {
            if running.started.ended().is_some() && !running.beside().any(is_alive) {
                break;
            }
            pause();
        }
    }
}

fn is_ours(program: &str) -> bool {
    program == BINARY || program == "/proc/self/exe"
}

/// Whether a process runs: a zombie that nobody reaps does not. Its first thread may be one while
/// another still holds what both had, such as the socket that owns our table.
pub fn is_alive(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    threads
        .filter_map(|entry| state_and_parent_in(&entry.ok()?.path().join("stat")))
        .any(|(state, _)| state != "Z" && state != "X")
}

/// A process and everything below it, with their arguments.
fn family_of(pid: u32) -> Vec<(u32, Vec<String>)> {
    let mut family = vec![pid];
    let all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, state_and_parent(pid)?.1)))
        .collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(
            all.iter()
                .filter(|(_, up)| *up == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    let arguments = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    };
    family
        .into_iter()
        .map(|pid| (pid, arguments(pid)))
        .collect()
}

/// Whether every thread of a process was stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let mut stats = threads.flatten().map(|thread| thread.path().join("stat"));
    let stands = |state: String| state.eq_ignore_ascii_case("T");
    // Of one that is traced, the letter is small.
    stats.all(|stat| state_and_parent_in(&stat).is_none_or(|(state, _)| stands(state)))
}

fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    state_and_parent_in(Path::new(&format!("/proc/{pid}/stat")))
}

/// proc_pid_stat(5): `pid (comm) state ppid …`.
fn state_and_parent_in(stat: &Path) -> Option<(String, u32)> {
    let stat = fs::read_to_string(stat).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, fields.next()?.parse().ok()?))
}
