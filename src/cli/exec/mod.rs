//! `acmegate exec`: arms a lease for a command. Nothing opens before the command's own pre-hook
//! asks, or its first token is pushed; and if that fails, the command is ended.
//!
//! It is the answer to clients that ignore a failing pre-hook and order all the same, and to those
//! that are killed before their post-hook: the lease ends with this process, however that ends.
//! Standard streams, signals and the exit status pass through.

mod arming;
mod command;
mod signals;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::arming::{Arming, News};
use self::signals::{Heard, Signals};
use super::open::Wanted;
use super::terminal::complain;
use super::{Failure, caller, finish};
use crate::control::client;
use crate::control::protocol::{Ask, Exit, Response};

pub use self::command::{StartArgs, Tree, code_of, start};

/// How long a client may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is armed, and for which command.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Open at once, and start the command only if that worked
    #[arg(long)]
    now: bool,
    /// The lease's name, which the command's hooks mean without naming it [default: exec- and this pid]
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub fn run(runtime_dir: &Path, args: &ExecArgs) -> Result<ExitCode, Failure> {
    let name = args
        .lease
        .clone()
        .unwrap_or_else(|| format!("exec-{}", std::process::id()));
    let label = format!("exec:{}", command::name(&args.command));
    let open = args.wanted.open(name.clone(), caller::this(&label));
    let armed = client::arm(runtime_dir, open.clone(), true)?;
    if armed.answer.code != 0 {
        return Ok(finish(&armed.answer, true));
    }
    if args.now {
        let opened = client::ask(runtime_dir, Ask::Open(open.clone()))?;
        let code = finish(&opened, true);
        if opened.code != 0 {
            return Ok(code);
        }
    }
    let system = |error: std::io::Error| Failure::new(Exit::Os, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system)?;
    let code = runtime.block_on(async {
        // Before the command starts, so that neither its end nor a signal for it is missed.
        let signals = Signals::listen().map_err(system)?;
        let arming = Arming::new(runtime_dir, open, args.now, armed).map_err(system)?;
        let child = command::spawn(&args.command, &name).map_err(system)?;
        hold(child, arming, signals, &command::name(&args.command)).await
    });
    // A daemon that hangs while it is asked again is nothing to wait for.
    runtime.shutdown_background();
    code
}

/// Stays with the command until it ends, and ends its lease.
async fn hold(
    mut child: Child,
    mut arming: Arming,
    mut signals: Signals,
    name: &str,
) -> Result<ExitCode, Failure> {
    let mut refused = None;
    let mut ending: Option<(Tree, Instant)> = None;
    let status = loop {
        let kill_at = ending.as_ref().map(|(_, at)| *at);
        tokio::select! {
            heard = signals.next() => match heard {
                Heard::Forward(signal) => command::send(child.id(), signal),
                Heard::ChildChanged => {
                    let ended = child.try_wait().map_err(|error| Failure::new(Exit::Os, error))?;
                    if let Some(status) = ended {
                        break status;
                    }
                }
            },
            news = arming.next() => match news {
                News::Refused(response) => {
                    refused.get_or_insert(response);
                    ending.get_or_insert_with(|| {
                        (Tree::terminate(child.id()), Instant::now() + PATIENCE)
                    });
                }
                News::Note(message) => complain(format_args!("acmegate: {message}")),
                News::Lost(why) => complain(format_args!(
                    "acmegate: {why}; {name} goes on, and what is open closes in the kernel by itself"
                )),
            },
            () = until(kill_at) => {
                if let Some((tree, at)) = &mut ending {
                    tree.kill();
                    *at += PATIENCE;
                }
            }
        }
    };
    // The window is shut before this returns; and a refusal may have come with the command's end.
    let last_word = arming.disarm().await;
    Ok(match refused.or(last_word) {
        Some(refused) => {
            explain(name, &refused);
            ExitCode::from(refused.code)
        }
        None => ExitCode::from(command::code_of(status)),
    })
}

fn explain(name: &str, refused: &Response) {
    complain(format_args!(
        "acmegate: {name} was ended, because its window could not be opened: {}",
        refused.message
    ));
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
