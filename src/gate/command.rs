//! The words of a command that an operator wrote down: what stands in them, and what an opening puts
//! into their blanks. Values only; nothing here runs anything.
//!
//! A command is a list of words, the first of them a program. No shell ever reads it. A blank is
//! `{port}`, `{seconds}`, `{lease}`, `{family}` or `{number}`, or for notifications `{window}` or
//! `{lease}`; a literal brace is written twice.

use std::time::Duration;

use super::lease::{Families, Family, LeaseName};

/// The most words of a command.
pub const MAX_WORDS: usize = 64;
/// The longest word, in octets, as it is written.
pub const MAX_WORD_BYTES: usize = 1024;
/// The highest number of an opening: what firewalld takes as the priority of a rule.
pub const MAX_NUMBER: u16 = 32_767;

/// What an opening puts into a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// A TCP port of the opening; the command runs once for each.
    Port,
    /// How long the opening is, in whole seconds, rounded up.
    Seconds,
    /// The lease's name.
    Lease,
    /// `ipv4` or `ipv6`; the command runs once for each family of the opening.
    Family,
    /// A number that no other living opening has, 1 to [`MAX_NUMBER`].
    Number,
    /// The number of a window's record.
    Window,
}

impl Blank {
    /// Every blank of commands that open and close, by the word between its braces.
    pub const OF_OPENINGS: [(&'static str, Self); 5] = [
        ("port", Self::Port),
        ("seconds", Self::Seconds),
        ("lease", Self::Lease),
        ("family", Self::Family),
        ("number", Self::Number),
    ];
    /// Every blank of the command that notifies.
    pub const OF_NOTICES: [(&'static str, Self); 2] =
        [("window", Self::Window), ("lease", Self::Lease)];

    /// The word between its braces.
    fn word(self) -> &'static str {
        let mut all = Self::OF_OPENINGS.iter().chain(&Self::OF_NOTICES);
        all.find(|(_, known)| *known == self)
            .map_or("", |(name, _)| *name)
    }
}

/// Why a word cannot be part of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WordError {
    /// This stands between braces and is no blank.
    Unknown(String),
    /// A brace without its other half.
    Brace,
    /// A character that no argument can hold.
    Nul,
    /// Longer than [`MAX_WORD_BYTES`].
    Length,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Blank(Blank),
}

/// One word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(Vec<Piece>);

impl Word {
    /// Reads a word in which these blanks may stand.
    ///
    /// # Errors
    /// [`WordError`]; the operator's to mend.
    pub fn parse(text: &str, blanks: &[(&'static str, Blank)]) -> Result<Self, WordError> {
        if text.len() > MAX_WORD_BYTES {
            return Err(WordError::Length);
        }
        if text.contains('\0') {
            return Err(WordError::Nul);
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let (name, after) = rest.split_once('}').ok_or(WordError::Brace)?;
            if brace == "}" || name.contains('{') {
                return Err(WordError::Brace);
            }
            let blank = blanks.iter().find(|(known, _)| *known == name);
            let (_, blank) = blank.ok_or_else(|| WordError::Unknown(name.to_owned()))?;
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
            pieces.push(Piece::Blank(*blank));
            rest = after;
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        Ok(Self(pieces))
    }

    fn has(&self, blank: Blank) -> bool {
        self.0.contains(&Piece::Blank(blank))
    }

    fn fill(&self, value: impl Fn(Blank) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Blank(blank) => value(*blank),
        });
        pieces.collect()
    }
}

impl std::fmt::Display for Word {
    /// As it is written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => {
                    f.write_str(&text.replace('{', "{{").replace('}', "}}"))?;
                }
                Piece::Blank(blank) => write!(f, "{{{}}}", blank.word())?,
            }
        }
        Ok(())
    }
}

/// One command as it is written: a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: String,
    arguments: Vec<Word>,
}

/// One command as it is run: the program, and every argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// A name that is looked for, or an absolute path.
    pub program: String,
    /// Its arguments, which nobody interprets but itself.
    pub arguments: Vec<String>,
    /// The port that it is about, if it is about one; for the log.
    pub port: Option<u16>,
}

/// A program and its arguments in one line, quotes where there is more than a plain word.
fn write_line(
    f: &mut std::fmt::Formatter<'_>,
    program: &str,
    arguments: impl Iterator<Item = String>,
) -> std::fmt::Result {
    write!(f, "{}", program.escape_debug())?;
    for argument in arguments {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/.:,@+%{}".contains(&byte);
        match !argument.is_empty() && argument.bytes().all(is_plain) {
            true => write!(f, " {argument}")?,
            false => write!(f, " {argument:?}")?,
        }
    }
    Ok(())
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_line(f, &self.program, self.arguments.iter().map(Word::to_string))
    }
}

impl Run {
    /// Whether both are the same command line.
    pub fn is_same(&self, other: &Self) -> bool {
        self.program == other.program && self.arguments == other.arguments
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_line(f, &self.program, self.arguments.iter().cloned())
    }
}

impl Command {
    /// A program, which has no blanks, and its arguments.
    pub fn new(program: String, arguments: Vec<Word>) -> Self {
        Self { program, arguments }
    }

    /// The program: a name that is looked for, or an absolute path.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Whether any word has this blank.
    pub fn has(&self, blank: Blank) -> bool {
        self.arguments.iter().any(|word| word.has(blank))
    }

    /// Every command line that an opening needs: one for each port and family that makes a
    /// difference, none twice.
    pub fn runs(&self, opening: &Opening) -> Vec<Run> {
        let families = Family::ALL.into_iter();
        let families: Vec<Family> = families
            .filter(|family| opening.families.has(*family))
            .collect();
        let mut runs: Vec<Run> = Vec::new();
        for &port in &opening.ports {
            for &family in &families {
                let value = |blank| match blank {
                    Blank::Port => port.to_string(),
                    Blank::Seconds => opening.seconds.to_string(),
                    Blank::Lease => opening.lease.to_string(),
                    Blank::Family => family.word().to_owned(),
                    Blank::Number => opening.number.to_string(),
                    Blank::Window => NOTHING.to_owned(),
                };
                let port = self.has(Blank::Port).then_some(port);
                let run = self.filled(port, value);
                if !runs.contains(&run) {
                    runs.push(run);
                }
            }
        }
        runs
    }

    /// The command line that tells of a window.
    pub fn notifies(&self, notice: &Notice) -> Run {
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        self.filled(None, |blank| match blank {
            Blank::Window => or_nothing(notice.window.map(|number| number.to_string())),
            Blank::Lease => or_nothing(notice.lease.as_ref().map(LeaseName::to_string)),
            _ => NOTHING.to_owned(),
        })
    }

    fn filled(&self, port: Option<u16>, value: impl Fn(Blank) -> String) -> Run {
        let words = self.arguments.iter();
        Run {
            program: self.program.clone(),
            arguments: words.map(|word| word.fill(&value)).collect(),
            port,
        }
    }
}

/// What stands in a blank for which there is nothing.
const NOTHING: &str = "-";

/// Which window a notification is about, if it is about one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The number of its record, where one is kept.
    pub window: Option<u64>,
    /// Its lease.
    pub lease: Option<LeaseName>,
}

/// The command that notifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifier {
    /// Program and arguments.
    pub command: Command,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a command is told of: one lease, as it was acquired or renewed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which one; a renewal is another.
    pub number: u16,
    /// Whose.
    pub lease: LeaseName,
    /// TCP ports.
    pub ports: Vec<u16>,
    /// Families.
    pub families: Families,
    /// How long it was to be, in whole seconds.
    pub seconds: u64,
}

/// The commands of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// What opens.
    pub open: Option<Command>,
    /// What closes again.
    pub close: Option<Command>,
    /// How long all commands of one opening, or of one closing, may take together.
    pub timeout: Duration,
    /// Whether they keep CAP_NET_ADMIN.
    pub net_admin: bool,
}

impl Commands {
    /// Both, as far as they are there, by the key they stand under.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Command)> {
        let both = [("open_command", &self.open), ("close_command", &self.close)];
        both.into_iter()
            .filter_map(|(key, command)| Some((key, command.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Command {
        let arguments = words[1..]
            .iter()
            .map(|word| Word::parse(word, &Blank::OF_OPENINGS).unwrap());
        Command::new(words[0].to_owned(), arguments.collect())
    }

    fn opening() -> Opening {
        Opening {
            number: 7,
            lease: LeaseName::parse("certbot-812").unwrap(),
            ports: vec![80, 443],
            families: Families::BOTH,
            seconds: 90,
        }
    }

    fn lines(words: &[&str], opening: &Opening) -> Vec<String> {
        let runs = command(words).runs(opening);
        runs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_command_runs_once_for_each_port_and_family_that_it_names() {
        let opening = opening();
        assert_eq!(lines(&["x", "{lease}"], &opening), ["x certbot-812"]);
        assert_eq!(
            lines(&["x", "--p={port}/tcp", "{seconds}"], &opening),
            ["x --p=80/tcp 90", "x --p=443/tcp 90"]
        );
        assert_eq!(
            lines(&["x", "{family}-{number}"], &opening),
            ["x ipv4-7", "x ipv6-7"]
        );
        assert_eq!(lines(&["x", "{family}{port}"], &opening).len(), 4);
        let only_v6 = Opening {
            families: Families {
                v4: false,
                v6: true,
            },
            ..opening
        };
        assert_eq!(lines(&["x", "{family}"], &only_v6), ["x ipv6"]);
    }

    #[test]
    fn braces_and_quotes_are_what_they_are() {
        let opening = opening();
        assert_eq!(
            lines(
                &["x", "{{port}}", "a b", "it's \"", "", "{{{port}}}"],
                &opening
            ),
            [80, 443].map(|port| format!("x {{port}} \"a b\" \"it's \\\"\" \"\" {{{port}}}"))
        );
        for (text, error) in [
            ("{", WordError::Brace),
            ("}", WordError::Brace),
            ("{port", WordError::Brace),
            ("port}", WordError::Brace),
            ("{{port}", WordError::Brace),
            ("{a{port}}", WordError::Brace),
            ("{}", WordError::Unknown(String::new())),
            ("{Port}", WordError::Unknown("Port".to_owned())),
            ("\0", WordError::Nul),
        ] {
            assert_eq!(Word::parse(text, &Blank::OF_OPENINGS), Err(error), "{text}");
        }
        let long = "x".repeat(MAX_WORD_BYTES + 1);
        assert_eq!(
            Word::parse(&long, &Blank::OF_NOTICES),
            Err(WordError::Length)
        );
    }

    #[test]
    fn a_notification_names_its_window_and_has_no_blank_of_an_opening() {
        let words = ["{window}", "--of={lease}", "{{window}}"];
        let words = words.map(|word| Word::parse(word, &Blank::OF_NOTICES).unwrap());
        let command = Command::new("tell".to_owned(), words.to_vec());
        assert_eq!(command.to_string(), "tell {window} --of={lease} {{window}}");
        let notice = Notice {
            window: Some(12),
            lease: LeaseName::parse("certbot-812"),
        };
        let run = command.notifies(&notice);
        assert_eq!(run.to_string(), "tell 12 --of=certbot-812 {window}");
        let run = command.notifies(&Notice::default());
        assert_eq!(run.to_string(), "tell - --of=- {window}");
        let unknown = Err(WordError::Unknown("port".to_owned()));
        assert_eq!(Word::parse("{port}", &Blank::OF_NOTICES), unknown);
        assert!(Word::parse("{window}", &Blank::OF_OPENINGS).is_err());
    }
}
