//! `[firewall] open_command` and `close_command`: programs and their arguments, never a shell's line.

use std::time::Duration;

use toml::Spanned;

use super::error::{Problem, nearest};
use super::file::{self, Key};
use super::value::duration;
use crate::gate::command::{Blank, Command, Commands, MAX_WORD_BYTES, MAX_WORDS, Word, WordError};

/// How long the commands of one opening may take together unless it is set. firewall-cmd takes a
/// fifth of a second, a cloud's program one to three.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// A hook waits 10 s for its answer (`control::client::DEADLINE`); with the second that a program
/// has to end itself this stays below.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(7);
/// What a fix shows.
const LIKE: &str = "write program and arguments: [\"firewall-cmd\", \"--add-port={port}/tcp\", \"--timeout={seconds}\"]";

/// Checks the commands; `None` where there are none. An empty list is none.
pub(super) fn commands(keys: &file::Firewall, problems: &mut Vec<Problem>) -> Option<Commands> {
    let blanks = &Blank::OF_OPENINGS;
    let open = command(&keys.open_command, "open_command", blanks, problems);
    let close = command(&keys.close_command, "close_command", blanks, problems);
    let commands = Commands {
        open,
        close,
        timeout: duration(
            &keys.command_timeout,
            "command_timeout",
            Duration::from_secs(1)..=LONGEST_TIMEOUT,
            DEFAULT_TIMEOUT,
            problems,
        ),
        net_admin: keys
            .command_net_admin
            .as_ref()
            .is_some_and(|key| *key.get_ref()),
    };
    (commands.open.is_some() || commands.close.is_some()).then_some(commands)
}

/// Reads one command, in whose words these blanks may stand; `None` where there is none.
pub(super) fn command(
    key: &Key<Vec<Spanned<String>>>,
    name: &str,
    blanks: &[(&'static str, Blank)],
    problems: &mut Vec<Problem>,
) -> Option<Command> {
    let key = key.as_ref()?;
    let before = problems.len();
    let words = key.get_ref();
    let (program, arguments) = words.split_first()?;
    if words.len() > MAX_WORDS {
        let message = format!("`{name}` has {} words", words.len());
        let fix = format!("write {MAX_WORDS} at most, or put them into a script");
        problems.push(Problem::new(key.span(), message).fix(fix));
    }
    if let Err((message, fix)) = is_program(program.get_ref(), arguments.is_empty()) {
        problems.push(Problem::new(program.span(), message).fix(fix));
    }
    let arguments: Vec<Word> = arguments
        .iter()
        .filter_map(|argument| match Word::parse(argument.get_ref(), blanks) {
            Ok(word) => Some(word),
            Err(error) => {
                let (message, fix) = explain(&error, blanks);
                problems.push(Problem::new(argument.span(), message).fix(fix));
                None
            }
        })
        .collect();
    (problems.len() == before).then(|| Command::new(program.get_ref().clone(), arguments))
}

/// A program is named as it is: what it is must not depend on who asks.
fn is_program(program: &str, is_alone: bool) -> Result<(), (String, String)> {
    let plain = "write its name, or its absolute path".to_owned();
    if program.is_empty() {
        return Err(("a program without a name".to_owned(), plain));
    }
    if program.contains(char::is_control) || program.len() > MAX_WORD_BYTES {
        return Err(("this is no name of a program".to_owned(), plain));
    }
    if program.contains(['{', '}']) {
        return Err(("the program's own name has no blanks".to_owned(), plain));
    }
    if is_alone && program.contains(' ') {
        let message = "no shell reads this, so the whole text would be the program's name";
        return Err((message.to_owned(), LIKE.to_owned()));
    }
    if program.contains('/') && !program.starts_with('/') {
        let message = format!("`{program}` is a path that depends on where one stands");
        return Err((message, plain));
    }
    if program.split('/').any(|part| part == "..") {
        let message = "the program's path holds `..`".to_owned();
        return Err((message, "write where it leads".to_owned()));
    }
    Ok(())
}

fn explain(error: &WordError, blanks: &[(&'static str, Blank)]) -> (String, String) {
    let known: Vec<&str> = blanks.iter().map(|(name, _)| *name).collect();
    let all: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
    let all = all.join(", ");
    match error {
        WordError::Unknown(name) => {
            let fix = match nearest(name, known) {
                Some(meant) => {
                    format!("did you mean {{{meant}}}? A literal brace is written twice")
                }
                None => format!("there are {all}; a literal brace is written twice"),
            };
            (format!("`{{{name}}}` is no blank"), fix)
        }
        WordError::Brace => (
            "a brace without its other half".to_owned(),
            format!("a literal brace is written twice; blanks are {all}"),
        ),
        WordError::Nul => (
            "an argument cannot hold a NUL".to_owned(),
            "leave it out".to_owned(),
        ),
        WordError::Length => (
            format!("an argument of more than {MAX_WORD_BYTES} octets"),
            "put it into a script".to_owned(),
        ),
    }
}
