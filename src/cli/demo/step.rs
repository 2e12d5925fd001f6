//! The steps of the story, and what one of them may find instead of what was promised.

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    Shut,
    Open,
    Validate,
    Visit,
    Close,
    Kill,
}

impl Step {
    /// The whole story.
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Shut,
        Self::Open,
        Self::Validate,
        Self::Visit,
        Self::Close,
        Self::Kill,
    ];

    /// Counted from one, as people do.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// What it is about.
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "the gate starts",
            Self::Shut => "shut",
            Self::Open => "a hook opens",
            Self::Validate => "six perspectives validate",
            Self::Visit => "visitors get no further",
            Self::Close => "a hook closes",
            Self::Kill => "killed, and still it closes",
        }
    }
}

/// What was promised and what came instead.
#[derive(Debug)]
pub struct Mismatch {
    pub expected: String,
    pub seen: String,
}

impl Mismatch {
    /// Both in words.
    pub fn new(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            seen: seen.into(),
        }
    }
}
