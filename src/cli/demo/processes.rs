//! The programs of the story: the shipped binary itself, started again and again inside the edge.
//!
//! Whatever was started ends with the demo. The demo adopts orphans (`PR_SET_CHILD_SUBREAPER`,
//! prctl(2)), so that after `kill -9` of a daemon its enforcer can be waited for, and ends only
//! processes that are its own descendants, each by its id.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// How often something that is awaited is looked at.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the gate may take until its control socket answers.
const READY: Duration = Duration::from_secs(10);
/// How long a hook's command may take. It has a deadline of its own, which is shorter.
const HOOK: Duration = Duration::from_secs(10);
/// How long a killed gate's other processes may outlive it.
const ORPHAN: Duration = Duration::from_secs(2);

/// This very binary, whatever it is called and even if the file has been replaced.
const OURSELVES: &str = "/proc/self/exe";

/// The gate, its files, and the hooks that speak to it.
pub struct Processes {
    directory: PathBuf,
    gate_program: PathBuf,
    gate: Option<Child>,
}

/// How a hook's command ended, and what it said on both outputs.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

impl Processes {
    /// Makes a private directory and writes the configuration into it.
    ///
    /// # Errors
    /// The system's: no room for temporary files.
    pub fn prepare(
        gate_program: Option<&Path>,
        configuration: impl FnOnce(&Path) -> String,
    ) -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        let processes = Self {
            directory: private_directory()?,
            gate_program: gate_program.unwrap_or(Path::new(OURSELVES)).to_owned(),
            gate: None,
        };
        fs::write(
            processes.configuration_file(),
            configuration(&processes.directory),
        )?;
        Ok(processes)
    }

    /// Starts `acmegate run` and waits until its control socket answers.
    ///
    /// # Errors
    /// What happened instead, with the last lines of the gate's log.
    pub async fn start_gate(&mut self) -> Result<(), String> {
        let log = self.file("gate.log");
        let child = self
            .command(&self.gate_program, &log)
            .and_then(|mut command| command.arg("run").spawn())
            .map_err(|error| format!("{} run: {error}", self.gate_program.display()))?;
        let gate = self.gate.insert(child);
        let socket = self.directory.join("control.sock");
        let deadline = Instant::now() + READY;
        loop {
            if UnixStream::connect(&socket).await.is_ok() {
                return Ok(());
            }
            let ended = gate.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                return Err(format!("the gate ended: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("no control socket after {READY:?}"));
            }
            sleep(GLANCE).await;
        }
    }

    /// Runs one command of the shipped binary to its end.
    ///
    /// # Errors
    /// It could not be started, or did not end in time.
    pub async fn acmegate(&self, arguments: &[&str]) -> Result<Ended, String> {
        let output = self.file("hook.log");
        let mut child = self
            .command(Path::new(OURSELVES), &output)
            .and_then(|mut command| command.args(arguments).spawn())
            .map_err(|error| format!("acmegate {}: {error}", arguments.join(" ")))?;
        let deadline = Instant::now() + HOOK;
        loop {
            let ended = child.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                let said = fs::read_to_string(&output).unwrap_or_default();
                return Ok(Ended { status, said });
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "acmegate {} did not end within {HOOK:?}",
                    arguments.join(" ")
                ));
            }
            sleep(GLANCE).await;
        }
    }

    /// Kills the gate with SIGKILL and waits until its other processes are gone too. Those are not
    /// killed: they must notice by themselves.
    ///
    /// Returns the ids of the gate and of those others.
    ///
    /// # Errors
    /// There was no gate, or one of its processes outlived it.
    pub async fn kill_gate(&mut self) -> Result<(Pid, Vec<Pid>), String> {
        let mut gate = self.gate.take().ok_or("no gate is running")?;
        let pid = Pid::from_child(&gate);
        let others = children_of(pid);
        gate.kill().map_err(|error| error.to_string())?;
        gate.wait().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ORPHAN;
        for other in &others {
            while !is_gone(*other) {
                if Instant::now() > deadline {
                    return Err(format!(
                        "process {} of the gate outlived it by {ORPHAN:?}",
                        other.as_raw_nonzero()
                    ));
                }
                sleep(GLANCE).await;
            }
        }
        Ok((pid, others))
    }

    /// The last lines that the gate wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.file("gate.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A command in a process group of its own: Ctrl-C in the terminal is for the demo, which then
    /// ends the others in order.
    fn command(&self, program: &Path, output: &Path) -> io::Result<Command> {
        let output = File::create(output)?;
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(self.configuration_file())
            .arg("--runtime-dir")
            .arg(&self.directory)
            // Not /dev/null, which some sandboxes keep for root. Nobody writes into this pipe.
            .stdin(Stdio::from(io::pipe()?.0))
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        Ok(command)
    }

    fn configuration_file(&self) -> PathBuf {
        self.file("acmegate.toml")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Processes {
    /// Ends what is left, then removes the directory. The gate's own children become ours when it
    /// dies, theirs when they die: so look until nobody is left.
    fn drop(&mut self) {
        for _ in 0..MAX_GENERATIONS {
            let left = children_of(getpid());
            if left.is_empty() {
                break;
            }
            for pid in left {
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Nobody here nests deeper; the bound keeps a mistake from becoming a loop.
const MAX_GENERATIONS: usize = 16;

/// A new directory that nobody else can read, under a name that nobody holds.
fn private_directory() -> io::Result<PathBuf> {
    let pid = getpid().as_raw_nonzero();
    let mut number = 0;
    loop {
        let path = std::env::temp_dir().join(format!("acmegate-demo-{pid}-{number}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => {
                number += 1;
            }
            Err(error) => {
                let text = format!("{}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
            Ok(()) => return Ok(path),
        }
    }
}

/// The living and the unreaped children of a process (proc_pid_stat(5)).
fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parent_in_stat(&stat)
}

/// The second field in brackets is the program's name and may hold anything, brackets too.
fn parent_in_stat(stat: &str) -> Option<Pid> {
    let after_name = stat.rsplit_once(')')?.1;
    Pid::from_raw(after_name.split_whitespace().nth(1)?.parse().ok()?)
}

/// Whether an adopted process has ended; if so it is reaped.
fn is_gone(pid: Pid) -> bool {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some(_)) => true,
        Ok(None) => false,
        // Not ours: its parent reaped it, or has not yet died.
        Err(_) => parent_of(pid).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        let parent = |stat| parent_in_stat(stat).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(parent("7 (acmegate) S 42 7 7 0"), Some(42));
        assert_eq!(parent("7 (a) S 1 (b) R 42 7 7 0"), Some(42));
        assert_eq!(parent("1 (init) S 0 1 1 0"), None);
        assert_eq!(parent(""), None);
    }

    #[test]
    fn a_child_is_found_under_its_parent() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let found = children_of(getpid()).contains(&Pid::from_child(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
