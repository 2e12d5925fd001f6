//! `acmegate answer add|remove`: answers, pushed and withdrawn.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::hook::answer::token_of;
use super::{Failure, finish, granted, length, milliseconds};
use crate::control::client;
use crate::control::protocol::{Ask, ChallengeName, DigestWord};

/// What is done.
#[derive(Debug, Subcommand)]
pub enum AnswerCommand {
    /// Answer this identifier's validation with this key authorization
    Add {
        /// Answer tls-alpn-01, by a certificate [default: http-01]
        #[arg(long = "tls-alpn-01")]
        by_tls: bool,
        /// A name or an address
        identifier: String,
        /// TOKEN.THUMBPRINT
        // base64url: one in 64 tokens begins with a hyphen and is no option.
        #[arg(allow_hyphen_values = true, required_unless_present = "digest")]
        key_authorization: Option<String>,
        /// Instead of it, its SHA-256 digest in base64url; for tls-alpn-01
        #[arg(long, value_name = "DIGEST", allow_hyphen_values = true)]
        #[arg(requires = "by_tls", requires = "token")]
        #[arg(conflicts_with = "key_authorization")]
        digest: Option<String>,
        /// The token of that digest
        #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
        #[arg(requires = "digest", conflicts_with = "key_authorization")]
        token: Option<String>,
        /// For how long at most [default: 1h]
        #[arg(long = "for", value_name = "TIME", value_parser = length)]
        length: Option<Duration>,
    },
    /// Answer it no longer
    Remove {
        /// By tls-alpn-01 [default: http-01]
        #[arg(long = "tls-alpn-01")]
        by_tls: bool,
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
            by_tls,
            identifier,
            key_authorization,
            digest,
            token,
            length,
        } => Ask::AnswerAdd {
            challenge: challenge(*by_tls),
            identifier: identifier.clone(),
            key_authorization: key_authorization.clone(),
            digest: digest.as_ref().zip(token.as_ref()).map(|(digest, token)| {
                let (sha256, token) = (digest.clone(), token.clone());
                DigestWord { token, sha256 }
            }),
            milliseconds: length.map(milliseconds),
        },
        AnswerCommand::Remove {
            by_tls,
            identifier,
            token,
        } => Ask::AnswerRemove {
            challenge: challenge(*by_tls),
            identifier: identifier.clone(),
            token: token_of(token).to_owned(),
        },
    };
    Ok(finish(&granted(client::ask(runtime_dir, ask)?)?, false))
}

fn challenge(by_tls: bool) -> ChallengeName {
    match by_tls {
        true => ChallengeName::TlsAlpn01,
        false => ChallengeName::Http01,
    }
}
