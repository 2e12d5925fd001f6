//! `acmegate hook …`: an ACME client's own hook contract, spoken to the letter.
//!
//! certbot (`--manual-auth-hook`, `--manual-cleanup-hook`): everything comes in CERTBOT_* variables.
//! They leak forward inside one certbot process, so only those of the very challenge are read.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::answer::token_of;
use super::{Failure, finish};
use crate::control::client;
use crate::control::protocol::{Ask, Exit};

/// Whose contract.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// certbot's --manual-auth-hook: push the token of this challenge
    CertbotAuth,
    /// certbot's --manual-cleanup-hook: withdraw it
    CertbotCleanup,
}

pub fn run(runtime_dir: &Path, command: &HookCommand) -> Result<ExitCode, Failure> {
    // CERTBOT_IDENTIFIER (5.3 and newer) holds addresses too; CERTBOT_DOMAIN is what older ones have.
    let identifier = variable("CERTBOT_IDENTIFIER").or_else(|_| variable("CERTBOT_DOMAIN"))?;
    let validation = variable("CERTBOT_VALIDATION")?;
    if !validation.contains('.') {
        return Err(Failure::new(
            Exit::Usage,
            "CERTBOT_VALIDATION is not a key authorization: this is the hook for `--preferred-challenges http`, not for dns",
        ));
    }
    let ask = match command {
        HookCommand::CertbotAuth => Ask::AnswerAdd {
            identifier,
            key_authorization: validation,
            milliseconds: None,
        },
        HookCommand::CertbotCleanup => Ask::AnswerRemove {
            identifier,
            token: token_of(&validation).to_owned(),
        },
    };
    Ok(finish(&client::ask(runtime_dir, ask)?, false))
}

fn variable(name: &str) -> Result<String, Failure> {
    env::var(name).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("{name} is not set: certbot sets it for --manual-auth-hook and --manual-cleanup-hook"),
        )
    })
}
