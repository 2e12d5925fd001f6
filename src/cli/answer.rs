//! `acmegate answer add|remove`: key authorizations, pushed and withdrawn.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::{Failure, finish, granted, length, milliseconds};
use crate::control::client;
use crate::control::protocol::Ask;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum AnswerCommand {
    /// Answer this identifier's validation with this key authorization
    Add {
        /// A name or an address
        identifier: String,
        /// TOKEN.THUMBPRINT
        // base64url: one in 64 tokens begins with a hyphen and is no option.
        #[arg(allow_hyphen_values = true)]
        key_authorization: String,
        /// For how long at most [default: 1h]
        #[arg(long = "for", value_name = "TIME", value_parser = length)]
        length: Option<Duration>,
    },
    /// Answer it no longer
    Remove {
        /// A name or an address
        identifier: String,
        /// TOKEN, or the whole TOKEN.THUMBPRINT
        #[arg(allow_hyphen_values = true)]
        token: String,
    },
}

pub fn run(runtime_dir: &Path, command: &AnswerCommand) -> Result<ExitCode, Failure> {
    let ask = match command {
        AnswerCommand::Add {
            identifier,
            key_authorization,
            length,
        } => Ask::AnswerAdd {
            identifier: identifier.clone(),
            key_authorization: key_authorization.clone(),
            milliseconds: length.map(milliseconds),
        },
        AnswerCommand::Remove { identifier, token } => Ask::AnswerRemove {
            identifier: identifier.clone(),
            token: token_of(token).to_owned(),
        },
    };
    Ok(finish(&granted(client::ask(runtime_dir, ask)?)?, false))
}

/// The part before the full stop, which no token holds.
pub fn token_of(text: &str) -> &str {
    text.split_once('.').map_or(text, |(token, _)| token)
}
