//! `acmegate config check`: everything that is wrong with the file, and what to write instead. And the way to
//! `config explain`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use super::explain_config::{self, ExplainConfigArgs};
use super::terminal::{complain, plain, print};
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
                        complain(format_args!("acmegate: error: {}", plain(line)));
                    }
                    return Ok(ExitCode::from(Exit::Config as u8));
                }
            };
            let missing = missing_programs(&config);
            for warning in config.warnings(&lists.list()).into_iter().chain(missing) {
                complain(format_args!("acmegate: warning: {}", plain(&warning)));
            }
            let good = match &config.source {
                Some(path) => format!("{}: good\n", plain(&path.display().to_string())),
                None => "no configuration file: the built-in defaults are good\n".to_owned(),
            };
            print(&(good + &told(&lists)))
        }
        // Its text shows the file, line and caret, and is made fit for terminals where it is made.
        Err(error) => {
            complain(error.to_string().trim_end_matches('\n'));
            Ok(ExitCode::from(Exit::Config as u8))
        }
    }
}

/// What the allow-list holds and from where, if any of it is read from files.
fn told(lists: &Lists) -> String {
    let mut sources = lists.sources().peekable();
    if sources.peek().is_none() {
        return String::new();
    }
    let list = lists.list();
    let [v4, v6] = [list.v4().as_slice().len(), list.v6().as_slice().len()];
    let mut text = format!("the allow-list: {}\n", ranges(v4, v6));
    for (name, v4, v6) in sources {
        let _ = writeln!(text, "  {}: {}", plain(&name), ranges(v4, v6));
    }
    text
}

fn ranges(v4: usize, v6: usize) -> String {
    format!("{v4} IPv4 and {v6} IPv6 ranges")
}
