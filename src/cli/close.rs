//! `acmegate close`: the post-hook. A lease that already ended is no failure.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, caller, finish};
use crate::control::client;
use crate::control::protocol::Ask;

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
    let response = client::ask(runtime_dir, Ask::Close { lease })?;
    Ok(finish(&response, args.quiet))
}
