//! `acmegate hook CLIENT …`: an ACME client's own hook contract, spoken to the letter.
//!
//! One file per contract. A client that tells its hooks nothing needs none of them: its hooks are
//! `acmegate open` and `acmegate close`. What a contract does not promise is never read, not even
//! when it is there: clients leave old values behind. Every hook says one line, ends with
//! sysexits(3) except where its client's contract wants something else, and never hangs.

pub mod answer;
mod caddy;
mod certbot;
mod dehydrated;
mod lego;
mod mod_md;
mod uacme;

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use self::answer::{Answer, Unfit};
use super::terminal::complain;
use super::{Failure, caller, finish, granted, open};
use crate::control::client;
use crate::control::protocol::{Ask, DigestWord, Exit, Open, Response, SaidWord};

/// Whose contract.
#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// certbot's --manual-auth-hook and --manual-cleanup-hook: push a token, withdraw it
    Certbot {
        /// Which of the two
        #[arg(value_enum)]
        when: certbot::When,
    },
    /// dehydrated's HOOK: open, push, withdraw, close; every other handler is none of ours
    Dehydrated {
        /// HANDLER and its ARGUMENTS
        #[arg(value_name = "HANDLER", required = true, trailing_var_arg = true)]
        #[arg(allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// uacme's --hook: push and open, close and withdraw; dns-01 is declined
    Uacme {
        /// What uacme gives to its hook
        #[arg(value_names = ["METHOD", "TYPE", "IDENT", "TOKEN", "AUTH"], num_args = 5)]
        #[arg(required = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// lego 5's --pre-hook and --post-hook: open for the names of its certificate, close
    Lego {
        /// Which of the two
        #[arg(value_enum)]
        when: lego::When,
    },
    /// Apache's MDMessageCmd: open before the CA is asked, close when mod_md is done
    ModMd {
        /// EVENT and DOMAIN
        #[arg(value_name = "EVENT", required = true, trailing_var_arg = true)]
        #[arg(allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Caddy's events: open for the name of its certificate, close
    Caddy {
        /// EVENT and IDENTIFIER
        #[arg(value_name = "EVENT", required = true, trailing_var_arg = true)]
        #[arg(allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

/// Does what the client wants of its hook.
pub fn run(runtime_dir: &Path, command: &HookCommand) -> Result<ExitCode, Failure> {
    let daemon = Daemon { runtime_dir };
    match command {
        HookCommand::Certbot { when } => certbot::run(daemon, *when),
        HookCommand::Dehydrated { words } => dehydrated::run(daemon, words),
        HookCommand::Uacme { words } => uacme::run(daemon, words),
        HookCommand::Lego { when } => lego::run(daemon, *when),
        HookCommand::ModMd { words } => mod_md::run(daemon, words),
        HookCommand::Caddy { words } => caddy::run(daemon, words),
    }
}

/// What a hook asks of the daemon. A refusal is a failure here: no contract goes on after one.
#[derive(Clone, Copy)]
struct Daemon<'a> {
    runtime_dir: &'a Path,
}

impl Daemon<'_> {
    /// Acquires or renews a lease for `[window] max`, held by the calling client.
    fn open(self, lease: String, identifiers: Option<Vec<String>>) -> Result<Response, Failure> {
        self.open_as(Open {
            lease,
            identifiers,
            ..Open::default()
        })
    }

    /// The same for a validation by this answer.
    fn open_for(self, lease: String, answer: &Answer<'_>) -> Result<Response, Failure> {
        let challenge = answer.challenge();
        self.open_as(match answer {
            // Port 80, or what stands for it where something in front forwards.
            Answer::Http01(_) => Open {
                lease,
                validates: Some(challenge),
                ..Open::default()
            },
            Answer::TlsAlpn01 { .. } => Open {
                lease,
                challenges: vec![challenge],
                ..Open::default()
            },
        })
    }

    fn open_as(self, open: Open) -> Result<Response, Failure> {
        let client = caller::client();
        let holder = client.as_ref().map(caller::Client::to_holder);
        open::acquire(self.runtime_dir, Open { holder, ..open }, client)
    }

    fn close(self, lease: String) -> Result<Response, Failure> {
        self.ask(Ask::Close { lease, said: None })
    }

    /// The same where the client says that it got no certificate for this identifier.
    fn close_failed(self, lease: String, identifier: &str) -> Result<Response, Failure> {
        let said = SaidWord {
            renewed: Vec::new(),
            failed: vec![identifier.to_owned()],
        };
        self.ask(Ask::Close {
            lease,
            said: Some(said),
        })
    }

    fn push(self, identifier: &str, answer: &Answer<'_>) -> Result<Response, Failure> {
        let (key_authorization, digest) = match answer {
            Answer::Http01(key_authorization) => (Some((*key_authorization).to_owned()), None),
            Answer::TlsAlpn01 { token, sha256 } => {
                let (token, sha256) = ((*token).to_owned(), sha256.clone());
                (None, Some(DigestWord { token, sha256 }))
            }
        };
        self.ask(Ask::AnswerAdd {
            challenge: answer.challenge(),
            identifier: identifier.to_owned(),
            key_authorization,
            digest,
            milliseconds: None,
        })
    }

    fn withdraw(self, identifier: &str, answer: &Answer<'_>) -> Result<Response, Failure> {
        self.ask(Ask::AnswerRemove {
            challenge: answer.challenge(),
            identifier: identifier.to_owned(),
            token: answer.token().to_owned(),
        })
    }

    fn ask(self, ask: Ask) -> Result<Response, Failure> {
        granted(client::ask(self.runtime_dir, ask)?)
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        Self::new(unfit.exit, unfit.message)
    }
}

/// The lease of the client that calls this hook.
fn lease() -> Result<String, Failure> {
    caller::default_lease(caller::client().as_ref())
}

/// The one line of a hook that asked for several things.
fn say(mut responses: Vec<Response>) -> ExitCode {
    let Some(mut last) = responses.pop() else {
        return ExitCode::SUCCESS;
    };
    for response in responses.into_iter().rev() {
        last.message = format!("{}; {}", response.message, last.message);
        last.warnings.extend(response.warnings);
    }
    finish(&last, false)
}

/// Tells of a failure that must not fail the hook, because its client would then throw away what
/// it already has; the kernel closes by itself, and a token ends by itself.
fn told(failure: &Failure, and_so: &str) -> ExitCode {
    complain(format_args!("acmegate: {}; {and_so}", failure.message));
    ExitCode::SUCCESS
}

/// A variable of the contract; `who` sets it.
fn variable(name: &str, who: &str) -> Result<String, Failure> {
    env::var(name).map_err(|error| match error {
        VarError::NotPresent => Failure::new(Exit::Usage, format!("{name} is not set: {who}")),
        VarError::NotUnicode(_) => Failure::new(Exit::Data, format!("{name} is not UTF-8")),
    })
}
