//! The shape of the file: which keys there are, and of what type.
//!
//! Follows TOML 1.0 and `config/acmegate.toml`. What values mean is `check`'s matter; keys are all
//! optional, and those whose value may be wrong in more than its type carry their place.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) daemon: Section<Daemon>,
    pub(super) http: Section<Http>,
    pub(super) tls: Section<Tls>,
    pub(super) window: Section<Window>,
    pub(super) budget: Section<Budget>,
    pub(super) firewall: Section<Firewall>,
    pub(super) allow: Section<Allow>,
    pub(super) proxy: Section<Proxy>,
    pub(super) metrics: Section<Metrics>,
    pub(super) groups: Vec<NamedGroup>,
    pub(super) log: Section<Log>,
    pub(super) report: Section<Report>,
    pub(super) notify: Section<Notify>,
    pub(super) dns: Section<Dns>,
    pub(super) grants: Vec<Section<Grant>>,
    pub(super) sites: Vec<Section<Site>>,
    /// Whether a `site` is there at all, readable or not.
    pub(super) has_sites: bool,
}

/// One table of the file. The default is one that is not there.
#[derive(Debug)]
pub(super) struct Section<T> {
    /// What stands in it.
    pub(super) keys: T,
    /// Its header.
    pub(super) at: Range<usize>,
    /// Nothing had to be taken out, so that what is absent was really not written.
    pub(super) is_whole: bool,
}

impl<T: Default> Default for Section<T> {
    fn default() -> Self {
        Self {
            keys: T::default(),
            at: 0..0,
            is_whole: true,
        }
    }
}

impl<T: Default> Section<T> {
    /// A table of which nothing is known because nothing of it could be read.
    pub(super) fn unread(at: Range<usize>) -> Self {
        Self {
            keys: T::default(),
            at,
            is_whole: false,
        }
    }
}

/// A key's value and its place, if it is there.
pub(super) type Key<T> = Option<Spanned<T>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    pub(super) user: Key<Word>,
    pub(super) state_dir: Key<String>,
    pub(super) require_seals: Key<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    pub(super) listen: Key<Listen>,
    pub(super) divert_port: Key<i64>,
    pub(super) redirect_status: Key<i64>,
    pub(super) redirect_for: Key<String>,
    pub(super) head_timeout: Key<Word>,
    pub(super) max_connections: Key<i64>,
    pub(super) max_connections_per_source: Key<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) listen: Key<Listen>,
    pub(super) divert_port: Key<i64>,
    pub(super) server: Key<Server>,
    pub(super) refuse: Key<String>,
    pub(super) hello_timeout: Key<Word>,
    pub(super) idle_timeout: Key<Word>,
    pub(super) max_connections: Key<i64>,
    pub(super) max_connections_per_source: Key<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) max: Key<Word>,
    pub(super) close_early: Key<String>,
    pub(super) settle: Key<Word>,
    pub(super) quorum: Key<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    pub(super) per_hour: Key<i64>,
    pub(super) per_caller: Key<i64>,
    pub(super) reserve: Key<i64>,
    pub(super) day: Key<Word>,
    pub(super) month: Key<Word>,
    pub(super) lease_day: Key<Word>,
    pub(super) lease_month: Key<Word>,
    pub(super) identifier_day: Key<Word>,
    pub(super) identifier_month: Key<Word>,
    pub(super) failures_per_hour: Key<Word>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Firewall {
    pub(super) mode: Key<String>,
    pub(super) ports: Key<Vec<Spanned<i64>>>,
    pub(super) set: Key<String>,
    pub(super) chains: Key<Vec<Spanned<String>>>,
    pub(super) closed: Key<Closed>,
    pub(super) mark: Key<Word>,
    pub(super) owner: Key<String>,
    pub(super) egress: Key<String>,
    pub(super) open_command: Key<Vec<Spanned<String>>>,
    pub(super) close_command: Key<Vec<Spanned<String>>>,
    pub(super) command_timeout: Key<Word>,
    pub(super) command_net_admin: Key<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub(super) local: Key<bool>,
    pub(super) prefixes: Key<Vec<Spanned<String>>>,
    pub(super) files: Key<Vec<Spanned<String>>>,
    pub(super) countries: Key<Vec<Spanned<String>>>,
    pub(super) country_source: Key<Paths>,
    pub(super) groups: Key<Vec<Spanned<String>>>,
}

/// One `[group.NAME]`.
#[derive(Debug)]
pub(super) struct NamedGroup {
    pub(super) name: Spanned<String>,
    pub(super) section: Section<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) prefixes: Key<Vec<Spanned<String>>>,
    pub(super) files: Key<Vec<Spanned<String>>>,
    pub(super) countries: Key<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proxy {
    pub(super) protocol_from: Key<Vec<Spanned<String>>>,
    pub(super) headers_from: Key<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Key<Listen>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notify {
    pub(super) command: Key<Vec<Spanned<String>>>,
    pub(super) timeout: Key<Word>,
    pub(super) webhook: Key<String>,
    pub(super) when: Key<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Key<String>,
    pub(super) level: Key<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    pub(super) history: Key<bool>,
    pub(super) keep: Key<Word>,
    pub(super) max_bytes: Key<Word>,
    pub(super) databases: Key<Vec<Spanned<String>>>,
    pub(super) evidence: Key<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) resolvers: Key<Vec<Spanned<String>>>,
    pub(super) trust_anchor: Key<String>,
    pub(super) public: Key<Vec<Spanned<String>>>,
    pub(super) issuers: Key<Vec<Spanned<String>>>,
    pub(super) accounts: Key<Vec<Spanned<String>>>,
    pub(super) persist: Key<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) user: Key<Word>,
    pub(super) group: Key<Word>,
    pub(super) may: Key<Vec<Spanned<String>>>,
    pub(super) identifiers: Key<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) identifiers: Key<Vec<Spanned<String>>>,
    pub(super) default: Key<bool>,
    pub(super) answer: Key<Answer>,
    pub(super) tls_answer: Key<TlsAnswer>,
    pub(super) server: Key<Server>,
    pub(super) redirect: Key<String>,
    pub(super) accounts: Key<Vec<Spanned<String>>>,
    pub(super) challenges: Key<Vec<Spanned<String>>>,
}

/// Text, or a number that people forget to quote.
#[derive(Debug)]
pub(super) enum Word {
    Text(String),
    Number(i64),
}

/// `listen`: addresses, or a word.
#[derive(Debug)]
pub(super) enum Listen {
    Word(String),
    Addresses(Vec<Spanned<String>>),
}

/// `country_source`: one path, or several.
#[derive(Debug)]
pub(super) enum Paths {
    One(String),
    Several(Vec<Spanned<String>>),
}

/// A word, or a table of keys in its place.
#[derive(Debug)]
pub(super) enum WordOr<Table> {
    Word(String),
    Table(Table),
}

/// A table that a word may stand for.
pub(super) trait Abbreviated {
    /// What is expected, for whoever wrote something else.
    const EXPECTED: &'static str;
}

/// `closed`: one word for both families, or one for each.
pub(super) type Closed = WordOr<ClosedTable>;
/// `answer`.
pub(super) type Answer = WordOr<AnswerTable>;
/// `tls_answer`.
pub(super) type TlsAnswer = WordOr<TlsAnswerTable>;
/// `server`: an address with its port, or more than that.
pub(super) type Server = WordOr<ServerTable>;

/// `closed = { … }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClosedTable {
    pub(super) ipv4: Key<String>,
    pub(super) ipv6: Key<String>,
}

/// `answer = { … }`: exactly one of the first three, which is for `site` to check.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerTable {
    pub(super) webroot: Key<String>,
    pub(super) upstream: Key<String>,
    pub(super) thumbprint: Key<String>,
    pub(super) proxy_protocol: Key<String>,
}

/// `tls_answer = { … }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsAnswerTable {
    pub(super) upstream: Key<String>,
    pub(super) proxy_protocol: Key<String>,
}

/// `server = { … }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerTable {
    pub(super) address: Key<String>,
    pub(super) proxy_protocol: Key<String>,
}

impl Abbreviated for ClosedTable {
    const EXPECTED: &'static str = "\"drop\", \"reject\", or { ipv4 = …, ipv6 = … }";
}

impl Abbreviated for AnswerTable {
    const EXPECTED: &'static str = "an answer";
}

impl Abbreviated for TlsAnswerTable {
    const EXPECTED: &'static str = "\"pushed\" or { upstream = \"…\" }";
}

impl Abbreviated for ServerTable {
    const EXPECTED: &'static str = "an address with a port, or { address = \"…\", … }";
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;

        impl Visitor<'_> for WordVisitor {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word::Text(text.to_owned()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
                Ok(Word::Number(number))
            }
        }

        deserializer.deserialize_any(WordVisitor)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListenVisitor;

        impl<'de> Visitor<'de> for ListenVisitor {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_str<E>(self, text: &str) -> Result<Listen, E> {
                Ok(Listen::Word(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Listen, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(entries)).map(Listen::Addresses)
            }
        }

        deserializer.deserialize_any(ListenVisitor)
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathsVisitor;

        impl<'de> Visitor<'de> for PathsVisitor {
            type Value = Paths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or an array of paths")
            }

            fn visit_str<E>(self, text: &str) -> Result<Paths, E> {
                Ok(Paths::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, entries: A) -> Result<Paths, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(entries)).map(Paths::Several)
            }
        }

        deserializer.deserialize_any(PathsVisitor)
    }
}

impl<'de, Table: Deserialize<'de> + Abbreviated> Deserialize<'de> for WordOr<Table> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrVisitor<Table>(PhantomData<Table>);

        impl<'de, Table: Deserialize<'de> + Abbreviated> Visitor<'de> for WordOrVisitor<Table> {
            type Value = WordOr<Table>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Table::EXPECTED)
            }

            fn visit_str<E>(self, text: &str) -> Result<WordOr<Table>, E> {
                Ok(WordOr::Word(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WordOr<Table>, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Table)
            }
        }

        deserializer.deserialize_any(WordOrVisitor(PhantomData))
    }
}
