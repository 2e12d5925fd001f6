//! Which ACME client is calling: the nearest ancestor that is no shell, no wrapper, and no session.
//!
//! Its pid and start name a lease, so that a pre-hook and a post-hook of one run mean the same one,
//! and the daemon can tell when the client died without a post-hook.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Failure, fingerprint};
use crate::control::protocol::{Exit, HolderWord};
use crate::control::under;
use crate::daemon::process::{Process, is_there, read};
use crate::firewall::record::command_name;

/// How far up is looked; deeper trees of wrappers than this do not happen.
const MAX_DEPTH: usize = 16;

/// How long a failed hook waits for the end of its client: longer than `exec` waits before it
/// kills.
const OUTLAST: Duration = Duration::from_secs(12);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What stands between a hook and its client and is neither.
const SHELLS_AND_WRAPPERS: [&str; 21] = [
    "sh",
    "bash",
    "dash",
    "ash",
    "busybox",
    "zsh",
    "ksh",
    "mksh",
    "fish",
    "sudo",
    "doas",
    "su",
    "env",
    "timeout",
    "nice",
    "ionice",
    "flock",
    "setsid",
    "nohup",
    "run-parts",
    "runuser",
];

/// Where a session or a service begins: whoever typed the command stands here, and no client.
const SESSIONS: [&str; 16] = [
    "systemd",
    "init",
    "cron",
    "crond",
    "atd",
    "anacron",
    "sshd",
    "sshd-session",
    "login",
    "tmux: server",
    "screen",
    "containerd-shim",
    "dockerd",
    "conmon",
    "agetty",
    "script",
];

/// Clients that are shell scripts: their process is a shell with the script as its argument.
const SCRIPTS: [&str; 5] = [
    "dehydrated",
    "acme.sh",
    "getssl",
    "letsencrypt.sh",
    "certbot",
];

/// The calling client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its process id.
    pub pid: u32,
    /// Its start in clock ticks after boot.
    pub start_ticks: u64,
    /// What it is called.
    pub name: String,
}

/// The client that called this process, if one can be told.
pub fn client() -> Option<Client> {
    find(std::os::unix::process::parent_id(), read)
}

/// The lease that is meant when no name is given: the one that `exec` armed, or the client's, or
/// this user's own by hand.
///
/// # Errors
/// The environment names a lease that is none.
pub fn default_lease(client: Option<&Client>) -> Result<String, Failure> {
    let armed = under::lease().map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(armed.map_or_else(|| name_for(client), |lease| lease.to_string()))
}

fn name_for(client: Option<&Client>) -> String {
    match client {
        Some(client) => {
            let name: String = client
                .name
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .take(20)
                .collect();
            format!(
                "{}-{}",
                if name.is_empty() { "client" } else { &name },
                client.pid
            )
        }
        None => format!("manual-{}", rustix::process::getuid().as_raw()),
    }
}

/// This very process as a holder, with what it is told as.
pub fn this(label: &str) -> Option<HolderWord> {
    let own = read(std::process::id())?;
    Some(HolderWord {
        pid: own.pid,
        start_ticks: own.start_ticks,
        command: command_name(label),
        caller_pid: own.pid,
    })
}

/// The lease of one identifier, for a client that works on several at once: [`default_lease`] and
/// a mark of the name, within the 40 characters that a lease's name may have. Under `exec` it is the
/// armed one: that is one lease, whatever it is for.
///
/// # Errors
/// As [`default_lease`].
pub fn lease_for(client: Option<&Client>, identifier: &str) -> Result<String, Failure> {
    let lease = default_lease(client)?;
    if lease != name_for(client) {
        return Ok(lease);
    }
    let base: String = lease.chars().take(31).collect();
    // Caddy and its CA agree that case means nothing.
    let mark = fingerprint(identifier.to_ascii_lowercase().as_bytes());
    Ok(format!("{base}:{:08x}", mark & 0xffff_ffff))
}

impl Client {
    /// The client in the words of the control protocol.
    pub fn to_holder(&self) -> HolderWord {
        HolderWord {
            pid: self.pid,
            start_ticks: self.start_ticks,
            command: command_name(&self.name),
            caller_pid: std::process::id(),
        }
    }

    /// Asks it to end: its hook has failed, and nobody else can tell `exec`.
    pub fn end(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it is gone, but not for ever: a client that ignores how its hook ended must not
    /// go on meanwhile.
    #[expect(
        clippy::disallowed_methods,
        reason = "a command of one thread, with a deadline; somebody else's end cannot wake it"
    )]
    pub fn outlast(&self) {
        let deadline = Instant::now() + OUTLAST;
        while is_there(self.pid, self.start_ticks) && Instant::now() < deadline {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn find(first: u32, read: impl Fn(u32) -> Option<Process>) -> Option<Client> {
    let mut pid = first;
    for _ in 0..MAX_DEPTH {
        if pid <= 1 {
            return None;
        }
        let process = read(pid)?;
        let is_shell = is_shell(&process);
        let script = process
            .arguments
            .iter()
            .skip(1)
            .find(|argument| !argument.starts_with('-'));
        let script = script
            .and_then(|path| path.rsplit('/').next())
            .filter(|name| SCRIPTS.contains(name));
        if SESSIONS.contains(&process.command.as_str()) {
            return None;
        }
        if !is_shell || script.is_some() {
            // An interpreter's name says nothing; its script's does.
            let name = script.map_or(process.command.clone(), str::to_owned);
            let process = before_its_forks(process, &read);
            return Some(Client {
                pid: process.pid,
                start_ticks: process.start_ticks,
                name,
            });
        }
        pid = process.parent;
    }
    None
}

/// A client that is a shell script calls its hooks from subshells, which are forks of it with
/// other pids. What was executed once stands there once.
fn before_its_forks(process: Process, read: &impl Fn(u32) -> Option<Process>) -> Process {
    let mut first = process;
    for _ in 0..MAX_DEPTH {
        match read(first.parent) {
            Some(parent)
                if parent.command == first.command && parent.arguments == first.arguments =>
            {
                first = parent;
            }
            _ => break,
        }
    }
    first
}

/// A script that is started by its first line has its own name as its command, and the shell as
/// its first argument. A client's every call of its hook script is a new process, so taking one
/// for the client would have `close` mean another lease than `open`.
fn is_shell(process: &Process) -> bool {
    let interpreter = process.arguments.first().map_or("", String::as_str);
    let interpreter = interpreter.rsplit('/').next().unwrap_or_default();
    [process.command.as_str(), interpreter]
        .into_iter()
        .any(|name| SHELLS_AND_WRAPPERS.contains(&name.trim_start_matches('-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(processes: &[(u32, u32, &str, &[&str])]) -> impl Fn(u32) -> Option<Process> + use<> {
        let processes: Vec<Process> = processes
            .iter()
            .map(|(pid, parent, command, arguments)| Process {
                pid: *pid,
                parent: *parent,
                start_ticks: 7,
                command: (*command).to_owned(),
                arguments: arguments
                    .iter()
                    .map(|argument| (*argument).to_owned())
                    .collect(),
            })
            .collect();
        move |pid| processes.iter().find(|process| process.pid == pid).cloned()
    }

    #[test]
    fn certbot_is_found_behind_the_shell_of_its_hook() {
        let read = tree(&[
            (30, 20, "sh", &["sh", "-c", "acmegate open"]),
            (
                20,
                1,
                "certbot",
                &["/usr/bin/python3", "/usr/bin/certbot", "renew"],
            ),
        ]);
        let client = find(30, read).unwrap();
        assert_eq!((client.pid, client.name.as_str()), (20, "certbot"));
        assert_eq!(name_for(Some(&client)), "certbot-20");
    }

    #[test]
    fn a_lease_of_one_identifier_is_a_name_and_another_ones_is_another() {
        let client = Client {
            pid: 4_194_304,
            start_ticks: 1,
            name: "a-client-with-a-very-long-name".to_owned(),
        };
        let lease = |name: &str| lease_for(Some(&client), name).unwrap();
        assert!(crate::gate::lease::LeaseName::parse(&lease("a.test")).is_some());
        assert_eq!(lease("a.test"), lease("A.test"));
        assert_ne!(lease("a.test"), lease("b.test"));
        assert!(lease("a.test").starts_with(&name_for(Some(&client))));
    }

    #[test]
    fn a_client_that_is_a_script_is_no_mere_shell() {
        let read = tree(&[
            (
                40,
                30,
                "bash",
                &["bash", "/etc/dehydrated/hook.sh", "startup_hook"],
            ),
            (30, 20, "bash", &["bash", "/usr/bin/dehydrated", "-c"]),
            (20, 1, "cron", &["cron"]),
        ]);
        let client = find(40, read).unwrap();
        assert_eq!((client.pid, client.name.as_str()), (30, "dehydrated"));
    }

    #[test]
    fn a_hook_script_with_a_name_of_its_own_is_no_client() {
        let hook = ["/bin/sh", "/etc/uacme/acmegate-hook", "begin", "http-01"];
        let read = tree(&[
            (40, 20, "acmegate-hook", &hook),
            (20, 1, "uacme", &["uacme", "issue", "192.0.2.1"]),
        ]);
        assert_eq!(find(40, read).map(|client| client.pid), Some(20));
    }

    #[test]
    fn every_subshell_of_a_client_is_that_client() {
        let dehydrated = ["/bin/bash", "/usr/bin/dehydrated", "--cron"];
        let read = tree(&[
            (50, 42, "hook", &["/bin/sh", "/etc/hook", "exit_hook"]),
            (42, 40, "dehydrated", &dehydrated),
            (41, 40, "dehydrated", &dehydrated),
            (40, 30, "dehydrated", &dehydrated),
            (30, 1, "sh", &["sh", "-c", "dehydrated --cron"]),
        ]);
        for first in [50, 42, 41, 40] {
            assert_eq!(find(first, &read).map(|client| client.pid), Some(40));
        }
    }

    /// acme.sh evaluates its hooks in subshells, and each certificate of `--cron` in another one.
    #[test]
    fn the_hooks_of_acme_sh_mean_one_lease() {
        let acme_sh = ["sh", "/root/.acme.sh/acme.sh", "--cron"];
        let read = tree(&[
            (53, 52, "acme.sh", &acme_sh),
            (52, 50, "acme.sh", &acme_sh),
            (51, 50, "acme.sh", &acme_sh),
            (50, 40, "acme.sh", &acme_sh),
            (
                40,
                30,
                "sh",
                &["/bin/sh", "-c", "\"/root/.acme.sh\"/acme.sh --cron"],
            ),
            (30, 1, "cron", &["cron"]),
        ]);
        for hook in [53, 51] {
            let client = find(hook, &read).unwrap();
            assert_eq!(name_for(Some(&client)), "acmesh-50");
        }
    }

    #[test]
    fn by_hand_there_is_no_client() {
        let read = tree(&[
            (40, 30, "bash", &["-bash"]),
            (30, 1, "sshd", &["sshd: root@pts/0"]),
        ]);
        assert_eq!(find(40, read), None);
        assert!(name_for(None).starts_with("manual-"));
    }
}
