//! `acmegate completions SHELL`: what a shell needs to complete the command line. A package is built
//! with it.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::{Shell, generate};

use super::terminal::print;
use super::{Arguments, Failure};

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the shell's script.
///
/// # Errors
/// Standard output does not take it.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    let mut shown = shown(&Arguments::command());
    generate(args.shell, &mut shown, "acmegate", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// The same command line without what is hidden: the generators do not ask.
fn shown(command: &Command) -> Command {
    let is_shown = |command: &&Command| !command.is_hide_set();
    let mut twin = Command::new(command.get_name().to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .args(
            command
                .get_arguments()
                .filter(|own| !own.is_hide_set())
                .cloned(),
        )
        .subcommands(command.get_subcommands().filter(is_shown).map(shown));
    if let Some(about) = command.get_about() {
        twin = twin.about(about.clone());
    }
    twin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_what_is_shown_and_nothing_else() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(
                shell,
                &mut shown(&Arguments::command()),
                "acmegate",
                &mut script,
            );
            let script = String::from_utf8(script).unwrap();
            for word in ["install-hooks", "tls-alpn-01", "runtime-dir", "dehydrated"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for word in ["exec-command", "historian", "completions"] {
                assert!(!script.contains(word), "{shell}: {word}");
            }
        }
    }
}
