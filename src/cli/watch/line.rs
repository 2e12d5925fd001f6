//! One row of the screen: pieces of text, each with a look. Pure; what the text holds was escaped before.

/// How a piece looks. Colours say nothing that the words do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    Bold,
    Dim,
    /// Green.
    Good,
    /// Yellow.
    Doubtful,
    /// Red.
    Bad,
}

impl Look {
    /// What a terminal is told before such a piece (ECMA-48, SGR).
    fn begin(self, is_coloured: bool) -> &'static str {
        match self {
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good if is_coloured => "\x1b[32m",
            Self::Doubtful if is_coloured => "\x1b[33m",
            Self::Bad if is_coloured => "\x1b[31m",
            Self::Plain | Self::Good | Self::Doubtful | Self::Bad => "",
        }
    }
}

/// A row.
#[derive(Clone, Debug, Default)]
pub struct Line(Vec<(String, Look)>);

impl Line {
    /// One piece.
    pub fn new(text: impl Into<String>, look: Look) -> Self {
        Self(vec![(text.into(), look)])
    }

    /// One piece that looks like nothing.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Look::Plain)
    }

    /// One piece more.
    pub fn push(&mut self, text: impl Into<String>, look: Look) {
        self.0.push((text.into(), look));
    }

    /// How many columns it takes, if each character takes one.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(text, _)| text.chars().count()).sum()
    }

    /// What a terminal is sent for its first columns.
    pub fn drawn(&self, columns: usize, is_coloured: bool) -> String {
        let mut out = String::new();
        for (text, look) in self.cut(columns) {
            match look.begin(is_coloured) {
                "" => out.push_str(&text),
                begin => out.extend([begin, text.as_str(), "\x1b[m"]),
            }
        }
        out
    }

    /// Its first columns as text.
    #[cfg(test)]
    pub fn text(&self, columns: usize) -> String {
        self.cut(columns).map(|(text, _)| text).collect()
    }

    fn cut(&self, columns: usize) -> impl Iterator<Item = (String, Look)> {
        let mut left = columns;
        self.0.iter().map(move |(text, look)| {
            let text: String = text.chars().take(left).collect();
            left -= text.chars().count();
            (text, *look)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_cut_to_the_width_and_colours_can_be_left_out() {
        let mut line = Line::new("good", Look::Good);
        line.push(" day", Look::Plain);
        assert_eq!(line.width(), 8);
        assert_eq!(line.drawn(80, true), "\x1b[32mgood\x1b[m day");
        assert_eq!(line.drawn(80, false), "good day");
        assert_eq!(line.drawn(6, true), "\x1b[32mgood\x1b[m d");
        assert_eq!(line.drawn(2, false), "go");
        assert_eq!(line.drawn(0, false), "");
        assert_eq!(Line::new("x", Look::Dim).drawn(1, false), "\x1b[2mx\x1b[m");
    }
}
