//! A place in a file as people see it: line, column, the source line, a caret.
//!
//! The file may come from anybody who could make an administrator run `config check` on it, so no
//! control or bidi character of it reaches the terminal raw. Columns count characters.

use std::fmt::{self, Write as _};
use std::ops::Range;

/// The most columns of a source line that are shown; the rest is cut around the caret.
const MAX_COLUMNS: usize = 100;
/// So many characters are more than have room.
const ENOUGH: usize = MAX_COLUMNS + 1;
/// What is kept in front of the caret when a line is cut.
const COLUMNS_BEFORE: usize = 40;

/// One line of a text and the part of it that is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snippet {
    /// The line, from 1.
    pub(super) line: usize,
    /// The character in the line, from 1.
    pub(super) column: usize,
    shown: String,
    indent: usize,
    carets: usize,
}

impl Snippet {
    /// Cuts the line of `at`'s start out of `text`. A range over several lines ends with the first;
    /// a range that is not in the text points at its end.
    pub(super) fn new(text: &str, at: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(at.start.min(text.len()));
        let end = text.ceil_char_boundary(at.end.clamp(start, text.len()));
        let mut line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        if text[line_start..].starts_with('\u{feff}') && line_start < start {
            line_start += '\u{feff}'.len_utf8();
        }
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let line_end = line_start + line.len();
        let (start, end) = (start.min(line_end), end.min(line_end));

        // A line can be as long as the file: no more of it is looked at than can be shown.
        let in_front = || text[line_start..start].chars();
        let column = in_front().count() + 1;
        let mut before: Vec<String> = in_front().rev().take(ENOUGH).map(cell).collect();
        before.reverse();
        let meant: Vec<String> = text[start..end].chars().take(ENOUGH).map(cell).collect();
        let after: Vec<String> = text[end..line_end].chars().take(ENOUGH).map(cell).collect();

        let cut_before = width(&before) + width(&meant) + width(&after) > MAX_COLUMNS;
        let mut shown = String::new();
        let mut indent = 0;
        let kept = if cut_before { fitting_tail(&before) } else { 0 };
        if kept > 0 {
            shown.push('…');
            indent += 1;
        }
        for cell in &before[kept..] {
            shown.push_str(cell);
            indent += cell.chars().count();
        }
        let mut carets = 0;
        let mut left = MAX_COLUMNS.saturating_sub(indent);
        for (cell, is_meant) in meant
            .iter()
            .map(|cell| (cell, true))
            .chain(after.iter().map(|cell| (cell, false)))
        {
            let columns = cell.chars().count();
            if columns > left {
                shown.push('…');
                break;
            }
            left -= columns;
            shown.push_str(cell);
            carets += if is_meant { columns } else { 0 };
        }
        Self {
            line: 1 + text[..line_start].matches('\n').count(),
            column,
            shown: shown.trim_end().to_owned(),
            indent,
            carets: carets.max(1),
        }
    }

    /// How many digits the line number has.
    pub(super) fn digits(&self) -> usize {
        self.line.to_string().len()
    }

    /// Writes the line and, below it, `mark`s and `label`. `digits` is the gutter's width.
    pub(super) fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        digits: usize,
        mark: char,
        label: &str,
    ) -> fmt::Result {
        let Self {
            line,
            shown,
            indent,
            ..
        } = self;
        let marks = mark.to_string().repeat(self.carets);
        writeln!(f, " {:digits$} |", "")?;
        writeln!(f, " {line:digits$} | {shown}")?;
        let below = format!(" {:digits$} | {:indent$}{marks} {}", "", "", visible(label));
        writeln!(f, "{}", below.trim_end())
    }
}

/// The first of `cells` from where the rest fits in front of the caret.
fn fitting_tail(cells: &[String]) -> usize {
    let mut columns = 0;
    let fitting = cells.iter().rev().take_while(|cell| {
        columns += cell.chars().count();
        columns <= COLUMNS_BEFORE
    });
    cells.len() - fitting.count()
}

fn width(cells: &[String]) -> usize {
    cells.iter().map(|cell| cell.chars().count()).sum()
}

/// Text from a file with everything that could act on a terminal or reorder a line made visible.
pub(super) fn visible(text: &str) -> String {
    text.chars().map(cell).collect()
}

fn cell(character: char) -> String {
    if character == '\t' {
        return " ".repeat(4);
    }
    let mut cell = String::new();
    // Writing to a String cannot fail.
    let _ = if acts(character) {
        write!(cell, "{}", character.escape_unicode())
    } else {
        write!(cell, "{character}")
    };
    cell
}

/// Control characters, and those of Unicode that are invisible or change the direction of text
/// (UAX #9 §2, and what CVE-2021-42574 was made of).
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, meant: &str) -> (usize, usize, String) {
        let start = text.find(meant).unwrap();
        let snippet = Snippet::new(text, &(start..start + meant.len()));
        let marks = " ".repeat(snippet.indent) + &"^".repeat(snippet.carets);
        (
            snippet.line,
            snippet.column,
            format!("{}\n{marks}", snippet.shown),
        )
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(
            of("a = 1\nä = 'ü' # x", "# x"),
            (2, 9, "ä = 'ü' # x\n        ^^^".to_owned())
        );
    }

    #[test]
    fn a_tab_is_one_column_and_four_wide() {
        assert_eq!(
            of("\tkey = 1", "key"),
            (1, 2, "    key = 1\n    ^^^".to_owned())
        );
    }

    #[test]
    fn carriage_returns_and_a_byte_order_mark_are_not_shown() {
        assert_eq!(
            of("\u{feff}a = 1\r\nb = 2\r\n", "a = 1"),
            (1, 1, "a = 1\n^^^^^".to_owned())
        );
        assert_eq!(
            of("\u{feff}a = 1\r\nb = 2\r\n", "2\r\n"),
            (2, 5, "b = 2\n    ^".to_owned())
        );
    }

    #[test]
    fn what_would_act_on_the_terminal_is_spelled_out() {
        assert_eq!(
            of("x = '\u{1b}[2J\u{202e}y' z", "z"),
            (
                1,
                14,
                "x = '\\u{1b}[2J\\u{202e}y' z\n                         ^".to_owned()
            )
        );
        assert_eq!(visible("a\r\nb\u{9b}"), "a\\u{d}\\u{a}b\\u{9b}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let (line, column, shown) = of(&text, "HERE");
        assert_eq!((line, column), (1, 501));
        let (shown, marks) = shown.split_once('\n').unwrap();
        assert_eq!(
            shown.find("HERE").map(|at| at - '…'.len_utf8() + 1),
            marks.find('^')
        );
        assert!(shown.chars().count() <= MAX_COLUMNS + 2, "{shown}");
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
    }

    proptest! {
        #[test]
        fn any_range_of_any_text_has_a_snippet(text in "(\\PC|[\\x00-\\x1f\u{feff}])*", at in any::<(u8, u8)>()) {
            let snippet = Snippet::new(&text, &(at.0.into()..at.1.into()));
            prop_assert!(snippet.line >= 1 && snippet.column >= 1 && snippet.carets >= 1);
            prop_assert!(!snippet.shown.chars().any(acts));
            prop_assert!(snippet.shown.chars().count() <= MAX_COLUMNS + 2);
        }
    }
}
