//! What all subcommands print alike.

use std::time::Duration;

use crate::config::format_duration;

/// A length for people: whole seconds, for nobody waits for the rest.
pub fn seconds(milliseconds: u64) -> String {
    format_duration(Duration::from_secs(milliseconds.div_ceil(1000))).to_string()
}

/// Text from elsewhere as a terminal may have it: no control and no direction characters.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            ' '..='~' => vec![character],
            other if other.is_alphanumeric() || matches!(other, '–' | '—' | '…' | '→' | '’') =>
            {
                vec![other]
            }
            other => other.escape_unicode().collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_or_turns_the_text_is_left() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c é"), "a\\u{1b}[2Jb\\u{202e}c é");
    }
}
