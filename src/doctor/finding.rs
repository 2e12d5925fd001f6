//! What an exam found: in one sentence, with the evidence for it and the remedy.

use serde::Serialize;

/// How bad something is; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// It works, and could be better.
    Advice,
    /// It may fail, or could not be told.
    Doubt,
    /// A validation fails.
    Fault,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Advice => "advice",
            Self::Doubt => "doubt",
            Self::Fault => "fault",
        }
    }
}

/// A part of the way from a perspective to the answer. Of two equally bad findings the one in the earlier
/// area comes first: it is the likelier cause of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The configuration file and the lists it names.
    Configuration,
    /// Who has the ports.
    Listener,
    /// Whether the gate runs, and what it says of itself.
    Daemon,
    /// What the world is told about the names.
    Dns,
    /// Everybody's rules on the packets' path.
    Firewall,
    /// Who answers for a name.
    Site,
    /// The ACME client.
    Client,
    /// Vantage points out in the world.
    Vantage,
    /// What would be a better way for this host.
    Outlook,
    /// What holds the daemon's processes; no part of a validation's way.
    Sandbox,
}

impl Area {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Listener => "listener",
            Self::Daemon => "daemon",
            Self::Dns => "dns",
            Self::Firewall => "firewall",
            Self::Site => "site",
            Self::Client => "client",
            Self::Vantage => "vantage",
            Self::Outlook => "outlook",
            Self::Sandbox => "sandbox",
        }
    }
}

/// Which finding it is: one word, the same in the letter, in JSON and in docs/doctor.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// Where it belongs.
    pub area: Area,
    /// The word, in kebab case.
    pub word: &'static str,
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word)
    }
}

/// Every code of one exam, for the page that documents them.
#[macro_export]
#[doc(hidden)]
macro_rules! findings {
    ($area:ident: $($(#[$doc:meta])* $name:ident = $word:literal;)+) => {
        $($(#[$doc])* pub const $name: $crate::doctor::finding::Code = $crate::doctor::finding::Code {
            area: $crate::doctor::finding::Area::$area,
            word: $word,
        };)+
        /// Every finding of this exam.
        pub const ALL: &[$crate::doctor::finding::Code] = &[$($name),+];
    };
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// Of which names it is true; empty for the host as a whole.
    pub names: Vec<String>,
    /// Which port of this host it is about, if one.
    pub port: Option<u16>,
    /// What was found, in one sentence without a full stop.
    pub finding: String,
    /// What was seen that shows it, a line each.
    pub evidence: Vec<String>,
    /// What to do, a line each; what is to be typed stands between grave accents.
    pub remedy: Vec<String>,
}

impl Finding {
    /// A finding of the host as a whole, without evidence yet.
    pub fn new(code: Code, severity: Severity, finding: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            names: Vec::new(),
            port: None,
            finding: finding.into(),
            evidence: Vec::new(),
            remedy: Vec::new(),
        }
    }

    /// The same, of a name.
    #[must_use]
    pub fn of(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// The same, about a port.
    #[must_use]
    pub fn at(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The same, with something that was seen.
    #[must_use]
    pub fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    /// The same, with something to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.push(remedy.into());
        self
    }
}

/// What one exam looked at and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exam {
    /// Which part of the way.
    pub area: Area,
    /// What was looked at, a line each, such as `4 base chains of 2 tables`.
    pub looked_at: Vec<String>,
    /// What was found; what is fine may be told as well.
    pub findings: Vec<Finding>,
    /// What could not be examined, why, and what would allow it, a line each.
    pub not_covered: Vec<String>,
}

impl Exam {
    /// Nothing yet.
    pub fn of(area: Area) -> Self {
        Self {
            area,
            looked_at: Vec::new(),
            findings: Vec::new(),
            not_covered: Vec::new(),
        }
    }
}
