//! The command: how it starts, which processes are its, and what its end means.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::Args;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};

use crate::cli::Failure;
use crate::cli::terminal::complain;
use crate::control::protocol::{Exit, LEASE_VARIABLE};
use crate::daemon::process::{Process, is_there, tree};

/// As env(1) has it: the command cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// As env(1) has it: there is no such command.
const NOT_FOUND: u8 = 127;

/// What the process between `exec` and its command is told.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The pid of `exec`
    parent: u32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What the command is called: the last part of its path.
pub fn name(command: &[OsString]) -> String {
    let program = command.first().map_or(OsStr::new(""), OsString::as_os_str);
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// Starts the command, by way of [`start`], in our own process group and with our own streams.
///
/// # Errors
/// The system's. That there is no such command is the status of what was started.
pub fn spawn(command: &[OsString], lease: &str) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg("exec-command")
        .arg(std::process::id().to_string())
        .arg("--")
        .args(command)
        .env(LEASE_VARIABLE, lease)
        .spawn()
}

/// Becomes the command: a process that gets SIGTERM when `exec` dies, in whatever way.
pub fn start(args: &StartArgs) -> Result<ExitCode, Failure> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Failure::new(Exit::Os, error))?;
    // It may have died before that.
    let parent = getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    if parent != Some(args.parent) {
        return Err(Failure::new(Exit::TempFail, "acmegate exec is gone"));
    }
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(Failure::new(Exit::Usage, "no command"));
    };
    let error = Command::new(program).args(arguments).exec();
    complain(format_args!(
        "acmegate: cannot run {}: {error}",
        program.display()
    ));
    Ok(ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_EXECUTE,
    }))
}

/// A command's own code, or 128 and the number of the signal that ended it, as shells have it.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

/// Sends a signal; a process that is gone gets none.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A command and everything that it started: a client behind a shell ends with the shell.
#[derive(Debug)]
pub struct Tree(Vec<Process>);

impl Tree {
    /// Asks all of it to end, whoever started first: a client must hear of it before it sees that
    /// its hook has ended.
    pub fn terminate(root: u32) -> Self {
        let tree = Self(tree(root));
        tree.send(Signal::TERM);
        tree
    }

    /// Kills what is left of it, and what that has started since.
    pub fn kill(&mut self) {
        let left: Vec<Process> =
            self.living()
                .map(|process| process.pid)
                .fold(Vec::new(), |mut found, pid| {
                    found.extend(tree(pid));
                    found
                });
        self.0 = left;
        self.send(Signal::KILL);
    }

    fn send(&self, signal: Signal) {
        for process in self.living() {
            send(process.pid, signal);
        }
    }

    /// Those that are still themselves: a pid alone is used again.
    fn living(&self) -> impl Iterator<Item = &Process> {
        self.0
            .iter()
            .filter(|process| is_there(process.pid, process.start_ticks))
    }
}
