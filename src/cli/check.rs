//! `acmegate config check`: everything that is wrong with the file, and what to write instead.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use super::terminal::plain;
use crate::config::{Config, Disk};
use crate::control::protocol::Exit;
use crate::daemon::parts::missing_programs;
use crate::daemon::privilege::HostAccounts;

/// What is done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read it and say everything that is wrong; exit 78 if anything is
    Check,
}

pub fn run(config: Option<&Path>, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    let ConfigCommand::Check = command;
    match Config::load_with(config, &HostAccounts, &Disk) {
        Ok(config) => {
            let missing = missing_programs(&config);
            for warning in config.warnings().into_iter().chain(missing) {
                eprintln!("acmegate: warning: {}", plain(&warning));
            }
            match &config.source {
                Some(path) => println!("{}: good", plain(&path.display().to_string())),
                None => println!("no configuration file: the built-in defaults are good"),
            }
            Ok(ExitCode::SUCCESS)
        }
        // Its text shows the file, line and caret, and is made fit for terminals where it is made.
        Err(error) => {
            eprint!("{error}");
            Ok(ExitCode::from(Exit::Config as u8))
        }
    }
}
