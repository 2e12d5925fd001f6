//! `acmegate firewall plan|apply|remove`: our part of the ruleset, shown and changed by hand.
//!
//! With a daemon running, the daemon is asked: our table may belong to its socket. Without one,
//! the command does it itself, needs CAP_NET_ADMIN, and a later daemon adopts what it finds.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Subcommand;

use super::terminal::{print, say};
use super::{Failure, finish};
use crate::config::lists::Lists;
use crate::config::{Config, Unchecked};
use crate::control::client;
use crate::control::protocol::{Ask, Exit};
use crate::daemon::confine::Account;
use crate::daemon::enforcer::exit_for;
use crate::daemon::parts::{self, AnyAccount};
use crate::firewall::error::KernelError;
use crate::firewall::netlink::{Ensured, Kernel};
use crate::firewall::ruleset::Settings;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum FirewallCommand {
    /// Print what would be installed, as nft reads it
    Plan,
    /// Put it into the kernel
    Apply,
    /// Take it out of the kernel; every open window closes
    Remove,
}

pub fn run(
    config: Option<&Path>,
    runtime_dir: &Path,
    command: &FirewallCommand,
) -> Result<ExitCode, Failure> {
    let settings = || -> Result<Settings, Failure> {
        let config = Config::load_with(config, &AnyAccount, &Unchecked)
            .map_err(|error| Failure::new(Exit::Config, error))?;
        let lists =
            Lists::read(&config.allow).map_err(|error| Failure::new(Exit::Config, error))?;
        let account = Account::to_be(&config);
        Ok(parts::orders(&config, lists.list(), account).settings)
    };
    let ask = match command {
        FirewallCommand::Plan => {
            return print(&settings()?.to_nft());
        }
        FirewallCommand::Apply => Ask::FirewallApply,
        FirewallCommand::Remove => Ask::FirewallRemove,
    };
    if client::is_running(runtime_dir) {
        return Ok(finish(&client::ask(runtime_dir, ask)?, false));
    }
    let settings = settings()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Os, error))?;
    let message = runtime
        .block_on(by_ourselves(&settings, command))
        .map_err(|error| Failure::new(exit_for(&error), error))?;
    say(message);
    Ok(ExitCode::SUCCESS)
}

async fn by_ourselves(
    settings: &Settings,
    command: &FirewallCommand,
) -> Result<&'static str, KernelError> {
    let mut kernel = Kernel::connect()?;
    let now: Instant = tokio::time::Instant::now().into_std();
    if matches!(command, FirewallCommand::Remove) {
        kernel.remove(settings).await?;
        return Ok("our part of the ruleset is gone");
    }
    let windows = kernel.adopt(now).await?;
    Ok(match kernel.ensure_whole(settings, &windows, now).await? {
        Ensured::Untouched => "our part of the ruleset is in the kernel already",
        Ensured::Updated | Ensured::Installed | Ensured::Shortened => {
            "our part of the ruleset is in the kernel"
        }
    })
}
