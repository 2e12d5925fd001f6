//! `acmegate close`: the post-hook. A lease that already ended is no failure.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, caller, finish};
use crate::control::client;
use crate::control::protocol::{Ask, SaidWord};

/// Which lease is released.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// The lease's name [default: the calling ACME client and its pid]
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    /// Print nothing when all is well
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(runtime_dir: &Path, args: &CloseArgs) -> Result<ExitCode, Failure> {
    let lease = match &args.lease {
        Some(lease) => lease.clone(),
        None => caller::default_lease(caller::client().as_ref())?,
    };
    let said = said();
    let response = client::ask(runtime_dir, Ask::Close { lease, said })?;
    Ok(finish(&response, args.quiet))
}

/// What certbot tells its post-hook (4.2 and later): names in one variable each, by spaces. The hook of
/// another client has no such variables.
fn said() -> Option<SaidWord> {
    let names = |variable| {
        std::env::var(variable).ok().map(|names| {
            let names = names.split_whitespace().map(str::to_owned);
            names.collect::<Vec<_>>()
        })
    };
    let (renewed, failed) = (names("RENEWED_DOMAINS"), names("FAILED_DOMAINS"));
    let is_said = renewed.is_some() || failed.is_some();
    is_said.then(|| SaidWord {
        renewed: renewed.unwrap_or_default(),
        failed: failed.unwrap_or_default(),
    })
}
