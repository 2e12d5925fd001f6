//! The runner as a process: from its first instruction to its loop.
//!
//! What it gives up holds for every program that it starts: no privilege can be gained
//! (`no_new_privs`, so sudo and setuid programs do not work), no capability is kept but, where the
//! configuration says so, CAP_NET_ADMIN, and some system calls are refused. Landlock is not among
//! it: which files a command needs only its author knows.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use super::child::{by_run_alone, front};
use super::enforcer::hear_no_signal;
use super::seal::{Calls, Seal};
use super::{Fatal, parts, privilege};
use crate::config::Config;
use crate::control::protocol::Exit;
use crate::runner::serve::{Orders, Reload, Runner};

/// Open files of the runner, and of each command: the front's own limit is for connections, and
/// makes programs slow that close everything first.
const DESCRIPTORS: u64 = 1024;

/// Runs as the runner: standard input is one end of a socket pair, the other end the front's.
///
/// # Errors
/// [`Fatal`]; a front that went away is none.
pub fn run(config_path: Option<&Path>) -> Result<(), Fatal> {
    let os = |error: io::Error| Fatal::new(Exit::Os, error);
    let front = front()?;
    let config = parts::load(config_path).map_err(|error| Fatal::new(Exit::Config, error))?;
    super::start_log(&config);
    super::name_process(c"acmegate-run");
    let orders = parts::runner_orders(&config);
    limit_resources().map_err(os)?;
    // One thread so far: what it gives up, the runtime and every command have not.
    runner_seal(&config).apply().map_err(|error| {
        Fatal::new(
            Exit::Os,
            format!("cannot give up what commands must not have: {error}"),
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(os)?;
    let path = config.source.clone();
    let reload: Reload = Box::new(move || -> Result<Orders, String> {
        parts::load(path.as_deref()).map(|config| parts::runner_orders(&config))
    });
    runtime.block_on(async {
        front.set_nonblocking(true).map_err(os)?;
        let front = tokio::net::UnixStream::from_std(front).map_err(by_run_alone)?;
        let _deaf = hear_no_signal().map_err(os)?;
        Runner::serve(orders, reload, front).await;
        Ok(())
    })
}

/// What the runner, and every command, may still do.
pub fn runner_seal(config: &Config) -> Seal {
    let commands = config.firewall.commands.as_ref();
    Seal {
        capabilities: match commands.is_some_and(|commands| commands.net_admin) {
            true => CapabilitySet::NET_ADMIN,
            false => CapabilitySet::empty(),
        },
        readable: Vec::new(),
        writable: Vec::new(),
        connect_ports: Vec::new(),
        calls: Calls::Runner,
    }
}

/// Starts the runner, our own program, with one end of a socket pair as its standard input and
/// nothing of our environment. `None` where the configuration names no command.
///
/// # Errors
/// [`Fatal`].
pub fn start(config: &Config) -> Result<Option<(UnixStream, Child)>, Fatal> {
    let commands = config.firewall.commands.as_ref();
    if commands.is_none() && config.notify.notifier.is_none() {
        return Ok(None);
    }
    let net_admin = commands.is_some_and(|commands| commands.net_admin);
    if net_admin && !privilege::has_net_admin() {
        return Err(Fatal::new(
            Exit::NoPerm,
            "[firewall] command_net_admin needs CAP_NET_ADMIN, which this process has not: start it by systemd \
             (acmegate.service) or as root, or leave that key out",
        ));
    }
    super::start_beside("runner", config).map(Some)
}

/// No core dumps of programs that hold credentials, and no more open files than programs expect.
fn limit_resources() -> io::Result<()> {
    let to = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Core, to(0))?;
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(DESCRIPTORS);
    setrlimit(Resource::Nofile, to(most.min(DESCRIPTORS)))?;
    Ok(())
}
