//! Text from elsewhere, made harmless for where it is shown. A record holds parsed values only; whoever
//! shows one escapes all the same.

/// Text as a terminal may have it: one line, no control characters, none that is invisible, and none
/// that turns the direction of what stands beside it. What is escaped stays readable as `\u{…}`.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            ' '..='~' => vec![character],
            '–' | '—' | '…' | '→' | '’' => vec![character],
            other if other.is_alphanumeric() && !is_treacherous(other) => vec![other],
            other => other.escape_unicode().collect(),
        })
        .collect()
}

/// Text of several lines as a terminal may have it: their ends and tabs stay, and so do signs that are seen.
pub fn lines(text: &str) -> String {
    let is_hidden = |character: char| {
        matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}'
        )
    };
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            other if other.is_control() || is_hidden(other) || is_treacherous(other) => {
                out.extend(other.escape_unicode());
            }
            other => out.push(other),
        }
    }
    out
}

/// As [`plain`], and no longer than so many characters.
pub fn short(text: &str, characters: usize) -> String {
    // Nothing is shown of what comes later, and texts may be long.
    let begin: String = text.chars().take(characters + 1).collect();
    clip(&plain(&begin), characters)
}

/// Cuts a text that is plain already.
pub fn clip(plain: &str, characters: usize) -> String {
    if plain.chars().count() <= characters {
        return plain.to_owned();
    }
    let kept: String = plain.chars().take(characters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Text as an element or a quoted attribute of a page may have it; [`plain`] besides.
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in plain(text).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A JSON document in ASCII: it means the same, and no terminal is moved by it.
pub fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for character in document.chars() {
        match character {
            '\n' | ' '..='~' => out.push(character),
            // RFC 8259 §7; outside of strings a document has nothing but ASCII.
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// Letters that are not what they seem on a line: of scripts that run from right to left, and so take
/// the numbers beside them along, and those that nobody sees.
fn is_treacherous(character: char) -> bool {
    matches!(
        character,
        '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{feff}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{3164}'
            | '\u{ffa0}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_moves_the_cursor_or_turns_the_text_is_left() {
        assert_eq!(plain("a\u{1b}[2Jb\u{202e}c é"), "a\\u{1b}[2Jb\\u{202e}c é");
        assert_eq!(
            plain("x\u{5d0}1\u{9b}2\u{3164}"),
            "x\\u{5d0}1\\u{9b}2\\u{3164}"
        );
        assert_eq!(plain("Telefónica, 株式会社"), "Telefónica, 株式会社");
    }

    #[test]
    fn of_several_lines_the_ends_and_what_is_seen_stay() {
        let seen = "a “quoted” line\n\t^ here ✓";
        assert_eq!(lines(seen), seen);
        assert_eq!(
            lines("a\r\u{1b}[2J\u{202e}\u{9b}b"),
            "a\\u{d}\\u{1b}[2J\\u{202e}\\u{9b}b"
        );
    }

    #[test]
    fn what_is_long_is_cut_to_the_length() {
        assert_eq!(short("certbot", 7), "certbot");
        assert_eq!(short("certbot-812", 7), "certbo…");
        assert_eq!(short("\u{1b}\u{1b}", 7), "\\u{1b}…");
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(
            html("<script a='b' c=\"d\">&amp;"),
            "&lt;script a=&#39;b&#39; c=&quot;d&quot;&gt;&amp;amp;"
        );
    }

    /// Zero width, and what turns directions.
    fn is_hidden(character: char) -> bool {
        matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}'
        )
    }

    proptest! {
        #[test]
        fn no_character_is_left_that_a_terminal_or_a_browser_obeys(text in "\\PC*|[\\p{C}\\p{Z}\\p{M}a<>&'\"]*|(?s).{0,40}", length in 1usize..50) {
            for shown in [plain(&text), short(&text, length)] {
                let is_sound = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace() || is_hidden(c));
                prop_assert!(shown.chars().all(is_sound), "{:?}", shown);
            }
            prop_assert!(short(&text, length).chars().count() <= length);
            let page = html(&text);
            prop_assert!(!page.contains(['<', '>', '"', '\'']));
            let back = page.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&");
            prop_assert_eq!(back, plain(&text));
        }

        #[test]
        fn json_means_the_same_in_ascii(text in "(?s).*") {
            let document = serde_json::to_string_pretty(&serde_json::json!({ text.clone(): [text] })).unwrap();
            let shown = json(&document);
            prop_assert!(shown.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
            let (before, after): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&document).unwrap(), serde_json::from_str(&shown).unwrap());
            prop_assert_eq!(before, after);
        }
    }
}
