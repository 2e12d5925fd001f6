//! The enforcer as a process: from its first instruction to its sealed loop.

use std::io;
use std::path::Path;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::CapabilitySet;
use tokio::signal::unix::{SignalKind, signal};

use super::child::{by_run_alone, front};
use super::confine::Account;
use super::reader::ReaderThread;
use super::seal::{Calls, Seal};
use super::{Fatal, parts};
use crate::config::lists::Lists;
use crate::config::{Config, Mode};
use crate::control::protocol::Exit;
use crate::firewall::enforcer::Enforcer;
use crate::firewall::error::KernelError;

/// Runs as the enforcer: standard input is one end of a socket pair, the other end the front's.
///
/// # Errors
/// [`Fatal`]; a front that went away is none.
pub fn run(config_path: Option<&Path>) -> Result<(), Fatal> {
    let front = front()?;
    // Killing the front at any moment ends this process too, even between two frames.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Fatal::new(Exit::Os, error))?;
    let config = parts::load(config_path).map_err(|error| Fatal::new(Exit::Config, error))?;
    super::start_log(&config);
    super::name_process(c"acmegate-enf");
    let lists = Lists::read(&config.allow).map_err(|error| Fatal::new(Exit::Config, error))?;
    let account = Account::own();
    let orders = parts::orders(&config, lists.list(), Some(account));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fatal::new(Exit::Os, error))?;
    runtime.block_on(async {
        front
            .set_nonblocking(true)
            .map_err(|error| Fatal::new(Exit::Os, error))?;
        let front = tokio::net::UnixStream::from_std(front).map_err(by_run_alone)?;
        let _deaf = hear_no_signal().map_err(|error| Fatal::new(Exit::Os, error))?;
        let unsealed = |error| {
            Fatal::new(
                Exit::Os,
                format!("cannot give up what the enforcer must not have: {error}"),
            )
        };
        let seal = enforcer_seal(&config);
        let require_seals = config.daemon.require_seals;
        let reader = ReaderThread::start(config, lists, account).map_err(unsealed)?;
        let (enforcer, events) = Enforcer::prepare(orders, Box::new(reader)).map_err(fatal)?;
        // A current-thread runtime has this one thread, and the reader has sealed itself.
        let sealed = seal.apply().and_then(|done| done.demand(require_seals));
        sealed.map_err(unsealed)?;
        enforcer.serve(front, events).await.map_err(fatal)
    })
}

/// Signals are the front's business. A terminal, and a service manager that asks a whole group,
/// send them to every process; whoever ends first must be the front, or a clean stop would look
/// like a lost enforcer and leave our table behind.
pub(super) fn hear_no_signal() -> io::Result<[tokio::signal::unix::Signal; 4]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
        signal(SignalKind::user_defined1())?,
    ])
}

/// What the enforcer may still do once it is sealed.
pub fn enforcer_seal(config: &Config) -> Seal {
    Seal {
        capabilities: match config.firewall.mode {
            Mode::GateOnly => CapabilitySet::empty(),
            Mode::Guard | Mode::Set(_) | Mode::Attach(_) => CapabilitySet::NET_ADMIN,
        },
        // What is to be read the reader reads.
        readable: Vec::new(),
        writable: Vec::new(),
        connect_ports: Vec::new(),
        calls: Calls::Enforcer,
    }
}

fn fatal(error: KernelError) -> Fatal {
    Fatal::new(exit_for(&error), error)
}

/// What a program ends with whose part of the ruleset is not in the kernel.
pub fn exit_for(error: &KernelError) -> Exit {
    match error {
        KernelError::Owned => Exit::TempFail,
        KernelError::Refused(_, refused) if refused.is_permission_denied() => Exit::NoPerm,
        error if error.is_operators() => Exit::Config,
        _ => Exit::Os,
    }
}
