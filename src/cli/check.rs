//! `acmegate config check`: everything that is wrong with the file, and what to write instead. And the way to
//! `config explain`.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use super::explain_config::{self, ExplainConfigArgs};
use super::terminal::plain;
use crate::config::lists::Lists;
use crate::config::{Config, Disk};
use crate::control::protocol::Exit;
use crate::daemon::parts::missing_programs;
use crate::daemon::privilege::HostAccounts;

/// What is done with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read it and say everything that is wrong; exit 78 if anything is
    Check,
    /// Say what the gate makes of a request, by which site and for what reason
    Explain(ExplainConfigArgs),
}

pub fn run(config: Option<&Path>, command: &ConfigCommand) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Check => check(config),
        ConfigCommand::Explain(args) => explain_config::run(config, args),
    }
}

fn check(config: Option<&Path>) -> Result<ExitCode, Failure> {
    match Config::load_with(config, &HostAccounts, &Disk) {
        Ok(config) => {
            let lists = match Lists::read(&config.allow) {
                Ok(lists) => lists,
                Err(error) => {
                    for line in error.lines() {
                        eprintln!("acmegate: error: {}", plain(line));
                    }
                    return Ok(ExitCode::from(Exit::Config as u8));
                }
            };
            let missing = missing_programs(&config);
            for warning in config.warnings(&lists.list()).into_iter().chain(missing) {
                eprintln!("acmegate: warning: {}", plain(&warning));
            }
            match &config.source {
                Some(path) => println!("{}: good", plain(&path.display().to_string())),
                None => println!("no configuration file: the built-in defaults are good"),
            }
            tell(&lists);
            Ok(ExitCode::SUCCESS)
        }
        // Its text shows the file, line and caret, and is made fit for terminals where it is made.
        Err(error) => {
            eprint!("{error}");
            Ok(ExitCode::from(Exit::Config as u8))
        }
    }
}

/// What the allow-list holds and from where, if any of it is read from files.
fn tell(lists: &Lists) {
    let mut sources = lists.sources().peekable();
    if sources.peek().is_none() {
        return;
    }
    let list = lists.list();
    let [v4, v6] = [list.v4().as_slice().len(), list.v6().as_slice().len()];
    println!("the allow-list: {}", ranges(v4, v6));
    for (name, v4, v6) in sources {
        println!("  {}: {}", plain(&name), ranges(v4, v6));
    }
}

fn ranges(v4: usize, v6: usize) -> String {
    format!("{v4} IPv4 and {v6} IPv6 ranges")
}
