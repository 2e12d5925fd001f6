//! What is wrong with a configuration, where, and what to write instead.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::snippet::{Snippet, visible};

/// The exit code for a wrong configuration: EX_CONFIG of sysexits(3).
pub const EXIT_CODE: u8 = 78;
/// The most problems that are shown; after that many something else is wrong than a slip.
const MAX_SHOWN: usize = 50;
/// The most characters of a message or a fix that are shown.
const MAX_MESSAGE_CHARS: usize = 240;

/// A configuration that cannot be used: every problem of the file, in its order.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    file: String,
    text: String,
    problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// The bytes of the text that are wrong; `None` where the whole file is.
    pub at: Option<Range<usize>>,
    /// What to write or do instead.
    pub fix: String,
    /// A second place that belongs to the matter, and what it is.
    pub also: Option<(Range<usize>, String)>,
    /// Why this is so, where that is not plain.
    pub note: Option<String>,
}

impl Problem {
    /// Something wrong at a place.
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            at: Some(at),
            ..Self::of_file(message)
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn of_file(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: None,
            fix: String::new(),
            also: None,
            note: None,
        }
    }

    /// What to write instead.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// A second place.
    pub(super) fn also(mut self, at: Range<usize>, what: impl Into<String>) -> Self {
        self.also = Some((at, what.into()));
        self
    }

    /// The reason.
    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str, text: &str) -> fmt::Result {
        writeln!(f, "error: {}", visible(&cut(&self.message)))?;
        let file = visible(file);
        let main = self.at.as_ref().map(|at| Snippet::new(text, at));
        let also = self
            .also
            .as_ref()
            .map(|(at, what)| (Snippet::new(text, at), what));
        let also_digits = also.as_ref().map_or(1, |(snippet, _)| snippet.digits());
        let digits = main.as_ref().map_or(1, Snippet::digits).max(also_digits);
        let gutter = " ".repeat(digits + 1);
        match &main {
            Some(main) => {
                writeln!(f, "{gutter}--> {file}:{}:{}", main.line, main.column)?;
                main.write(f, digits, '^', &cut(&self.fix))?;
            }
            None => {
                writeln!(f, "{gutter}--> {file}")?;
                if !self.fix.is_empty() {
                    writeln!(f, "{gutter} = {}", visible(&cut(&self.fix)))?;
                }
            }
        }
        if let Some((also, what)) = also {
            writeln!(f, "{gutter}::: {file}:{}:{}", also.line, also.column)?;
            also.write(f, digits, '-', what)?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "{gutter} = {}", visible(note))?;
        }
        Ok(())
    }
}

impl ConfigError {
    /// Sorts `problems` by their place.
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| at.start));
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
        }
    }

    /// A file that could not even be read.
    pub(super) fn unreadable(path: &Path, problem: Problem) -> Self {
        Self::new(&path.display().to_string(), "", vec![problem])
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        EXIT_CODE
    }

    /// The file, as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Every problem, in the order of the file. Their text is the file's and not fit for a
    /// terminal; `Display` is.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of a problem, both from 1; columns count characters.
    pub fn place(&self, problem: &Problem) -> Option<(usize, usize)> {
        let snippet = Snippet::new(&self.text, problem.at.as_ref()?);
        Some((snippet.line, snippet.column))
    }
}

impl fmt::Display for ConfigError {
    /// Every problem with its source line, a blank line between them; the first fifty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().take(MAX_SHOWN).enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            problem.write(f, &self.file, &self.text)?;
        }
        let more = self.problems.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            writeln!(f, "\n… and {more} more")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConfigError {
    /// As `Display`, so that an `unwrap` in a test shows the matter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

/// A message may quote a value, and a value may be as long as the file.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// The one of `known` that `word` was probably meant to be: at most a third of it differs, or
/// something was hung on.
pub(super) fn nearest<'known>(
    word: &str,
    known: impl IntoIterator<Item = &'known str>,
) -> Option<&'known str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    known
        .into_iter()
        .map(|known| (distance(&word, known), known))
        .filter(|(distance, known)| {
            *distance <= (known.len() / 3).max(1) || known.len() > 3 && word.starts_with(known)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many characters to insert, delete, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let keys = [
            "listen",
            "redirect_status",
            "head_timeout",
            "max_connections",
        ];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("Listen", Some("listen")),
            ("redirect-status", Some("redirect_status")),
            ("max_conections", Some("max_connections")),
            ("listening", Some("listen")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_problem_of_the_whole_file_has_no_line() {
        let problem = Problem::of_file("cannot read it").fix("try again");
        let error = ConfigError::unreadable(Path::new("/x\u{1b}.toml"), problem);
        assert_eq!(
            error.to_string(),
            "error: cannot read it\n  --> /x\\u{1b}.toml\n   = try again\n"
        );
        assert_eq!(error.exit_code(), 78);
    }

    #[test]
    fn what_is_shown_has_an_end() {
        let many = vec![Problem::of_file("x".repeat(1000)).fix("y".repeat(1000)); 60];
        let told = ConfigError::new("f.toml", "", many).to_string();
        assert!(told.ends_with("\n\n… and 10 more\n"), "{told}");
        assert!(
            told.lines().all(|line| line.chars().count() < 300),
            "{told}"
        );
    }

    #[test]
    fn a_second_place_shares_the_gutter() {
        let text = format!("first\n{}second\n", "\n".repeat(9));
        let at = text.find("second").unwrap();
        let problem = Problem::new(at..at + 6, "twice")
            .fix("drop one")
            .also(0..5, "first here")
            .note("because");
        let error = ConfigError::new("f.toml", &text, vec![problem]);
        assert_eq!(
            error.to_string(),
            "error: twice
   --> f.toml:11:1
    |
 11 | second
    | ^^^^^^ drop one
   ::: f.toml:1:1
    |
  1 | first
    | ----- first here
    = because
"
        );
    }
}
