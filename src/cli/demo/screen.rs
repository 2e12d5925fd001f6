//! What the demo prints: a picture of its world, then one line for each step.
//!
//! Colour only on a terminal and only without `NO_COLOR` (no-color.org); plain ASCII where the
//! locale says so. A reader who went away (`| head`) never ends the demo half-way.

use std::env;
use std::io::{self, IsTerminal, Write};

use super::step::{Mismatch, Step};
use super::world::{INNER, REGIONS, SERVICE_V4, SERVICE_V6};

/// Where the story is told.
pub struct Screen<W> {
    out: W,
    colour: bool,
    unicode: bool,
}

impl Screen<io::Stdout> {
    /// Standard output, as the environment wants it.
    pub fn stdout() -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        Self {
            colour: io::stdout().is_terminal() && !no_color,
            unicode: locale.as_deref().is_none_or(speaks_unicode),
            out: io::stdout(),
        }
    }
}

fn speaks_unicode(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

impl<W: Write> Screen<W> {
    /// The picture: who stands where.
    pub fn world(&mut self) {
        let edge = [
            "",
            "",
            "www.example.com, policy drop",
            &format!("{SERVICE_V4} {SERVICE_V6}"),
            &format!("behind it, inner {INNER}"),
            "",
        ];
        self.line(&self.paint(
            BOLD,
            "Real packets in a small world of throw-away namespaces; the host is left alone",
        ));
        self.line("");
        for (row, region) in REGIONS.iter().enumerate() {
            let joint = match (row, self.unicode) {
                (0, true) => "─┐  ",
                (3, true) => "─┼─▶",
                (5, true) => "─┘  ",
                (_, true) => "─┤  ",
                (3, false) => "-+->",
                (_, false) => "-+  ",
            };
            let text = format!(
                "  {:<10}  {:<16} {:<15} {joint} {}",
                region.name(),
                region.v4_prefix(),
                region.v6_prefix(),
                edge[row],
            );
            self.line(text.trim_end());
        }
        self.line("");
    }

    /// A command of the story, as one would type it.
    pub fn command(&mut self, command: &str) {
        self.line(&self.paint(DIM, &format!("  $ {command}")));
    }

    /// Something seen on the way.
    pub fn aside(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&self.paint(DIM, &format!("    {line}")));
        }
    }

    /// A step that went as promised.
    pub fn kept(&mut self, step: Step, what: &str) {
        let mark = self.paint(GREEN, if self.unicode { "✓" } else { "ok" });
        let text = format!("{} {}: {what}", step.number(), step.title());
        self.line(&format!("{mark} {text}"));
    }

    /// A step that did not, and the last lines of the gate's log.
    pub fn broken(&mut self, step: Step, mismatch: &Mismatch, log: &str) {
        let mark = self.paint(RED, if self.unicode { "✗" } else { "FAILED" });
        self.line(&format!("{mark} {} {}", step.number(), step.title()));
        self.line(&format!("    expected: {}", mismatch.expected));
        for (row, line) in mismatch.seen.lines().enumerate() {
            let label = if row == 0 { "seen:    " } else { "         " };
            self.line(&format!("    {label} {line}"));
        }
        if !log.is_empty() {
            self.line("    the gate's last words:");
            self.aside(log);
        }
    }

    /// The last line.
    pub fn end(&mut self, text: &str) {
        self.line("");
        self.line(&self.paint(BOLD, text));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Nobody may be reading; the exit code still tells.
    fn line(&mut self, text: &str) {
        let _ = match self.unicode {
            true => writeln!(self.out, "{text}"),
            false => writeln!(self.out, "{}", text.replace('…', "...")),
        };
        let _ = self.out.flush();
    }
}

/// SGR parameters (ECMA-48 §8.3.117).
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;31";
const GREEN: &str = "1;32";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(colour: bool, unicode: bool) -> String {
        let mut screen = Screen {
            out: Vec::new(),
            colour,
            unicode,
        };
        screen.world();
        screen.command("acmegate open …");
        screen.kept(Step::Shut, "silence");
        screen.broken(
            Step::Visit,
            &Mismatch::new("a redirect", "200\nand more"),
            "bye",
        );
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn without_colour_no_escape_is_printed() {
        assert!(!shown(false, true).contains('\u{1b}'));
        assert!(shown(true, true).contains('\u{1b}'));
    }

    #[test]
    fn an_ascii_terminal_gets_ascii() {
        assert!(shown(true, false).is_ascii());
        assert!(speaks_unicode("C.UTF-8"));
        assert!(speaks_unicode("de_CH.utf8"));
        assert!(!speaks_unicode("POSIX"));
    }

    #[test]
    fn the_picture_fits_eighty_columns() {
        for line in shown(false, true).lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_broken_step_says_what_was_expected_and_seen() {
        let text = shown(false, true);
        assert!(text.contains("✗ 5 visitors get no further"), "{text}");
        assert!(
            text.contains("    expected: a redirect\n    seen:     200\n              and more\n")
        );
    }
}
