//! certbot --manual: everything comes in CERTBOT_* variables.
//!
//! They leak forward inside one certbot process, so only those of the very challenge are read.
//! certbot's pre-hook and post-hook are told nothing: they are `acmegate open` and `close`.

use std::process::ExitCode;

use clap::ValueEnum;

use super::answer::key_authorization;
use super::{Daemon, say, variable};
use crate::cli::Failure;

/// Which hook calls.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum When {
    /// --manual-auth-hook: push the token of this challenge
    Auth,
    /// --manual-cleanup-hook: withdraw it
    Cleanup,
}

const WHO: &str = "certbot sets it for --manual-auth-hook and --manual-cleanup-hook";

pub fn run(daemon: Daemon<'_>, when: When) -> Result<ExitCode, Failure> {
    // CERTBOT_IDENTIFIER (5.3 and newer) holds addresses too; CERTBOT_DOMAIN is what older ones have.
    let identifier =
        variable("CERTBOT_IDENTIFIER", WHO).or_else(|_| variable("CERTBOT_DOMAIN", WHO))?;
    let value = variable("CERTBOT_VALIDATION", WHO)?;
    let answer = key_authorization("CERTBOT_VALIDATION", &value)?;
    let response = match when {
        When::Auth => daemon.push(&identifier, &answer),
        When::Cleanup => daemon.withdraw(&identifier, &answer),
    };
    Ok(say(vec![response?]))
}
