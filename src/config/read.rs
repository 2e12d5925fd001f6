//! Reads a file so that every mistake in it is found, not only the first.
//!
//! A key that is unknown or of the wrong type is reported and taken out, and the rest of its table
//! is read again. Nothing here knows what a value means.

use std::ops::Range;

use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::error::{Problem, nearest};
use super::file::{
    Allow, AnswerTable, Budget, ClosedTable, Daemon, Dns, File, Firewall, Grant, Group, Http, Log,
    Metrics, NamedGroup, Notify, Proxy, Report, Section, ServerTable, Site, Tls, TlsAnswerTable,
    Window,
};

/// The tables that may stand in a file, and the keys of each.
fn tables() -> [(&'static str, &'static [&'static str]); 16] {
    [
        ("daemon", keys::<Daemon>()),
        ("http", keys::<Http>()),
        ("tls", keys::<Tls>()),
        ("window", keys::<Window>()),
        ("budget", keys::<Budget>()),
        ("firewall", keys::<Firewall>()),
        ("allow", keys::<Allow>()),
        ("group", keys::<Group>()),
        ("proxy", keys::<Proxy>()),
        ("metrics", keys::<Metrics>()),
        ("log", keys::<Log>()),
        ("report", keys::<Report>()),
        ("notify", keys::<Notify>()),
        ("dns", keys::<Dns>()),
        ("grant", keys::<Grant>()),
        ("site", keys::<Site>()),
    ]
}

/// Reads a file. What cannot be read is in `problems` and absent from the answer; after a mistake in
/// the TOML itself there is nothing but `problems`.
pub(super) fn read(text: &str, problems: &mut Vec<Problem>) -> Option<File> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        problems.extend(syntax(text, &errors));
        return None;
    }
    let mut file = File::default();
    for (key, value) in root.into_inner() {
        match key.get_ref().as_ref() {
            "daemon" => file.daemon = table("daemon", value, problems),
            "http" => file.http = table("http", value, problems),
            "tls" => file.tls = table("tls", value, problems),
            "window" => file.window = table("window", value, problems),
            "budget" => file.budget = table("budget", value, problems),
            "firewall" => file.firewall = table("firewall", value, problems),
            "allow" => file.allow = table("allow", value, problems),
            "proxy" => file.proxy = table("proxy", value, problems),
            "group" => file.groups = groups(value, problems),
            "metrics" => file.metrics = table("metrics", value, problems),
            "log" => file.log = table("log", value, problems),
            "report" => file.report = table("report", value, problems),
            "notify" => file.notify = table("notify", value, problems),
            "dns" => file.dns = table("dns", value, problems),
            "grant" => file.grants = tables_of("grant", value, problems),
            "site" => {
                file.has_sites = true;
                file.sites = tables_of("site", value, problems);
            }
            other => problems.push(unknown_table(other, key.span())),
        }
    }
    Some(file)
}

/// Mistakes of TOML, one a line: the parser recovers, but what it says of the same line afterwards,
/// or of the rest of an array that does not end, is about the first mistake.
fn syntax(text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut seen = 0;
    for error in errors {
        let at = error.span().unwrap_or_default();
        if !problems.is_empty() && !text[seen.min(at.start)..at.start].contains('\n') {
            continue;
        }
        seen = at.start;
        let (message, expected) = match error.message().split_once(", expected ") {
            Some((message, expected)) => (message, expected),
            None => (error.message(), ""),
        };
        let fix = match expected {
            "" if message == "duplicate key" => "it is set above already".to_owned(),
            "" => String::new(),
            "literal string" => "write it in quotes".to_owned(),
            expected => format!("expected {expected}"),
        };
        problems.push(Problem::new(at, format!("not TOML: {message}")).fix(fix));
        if message.contains("array") {
            break;
        }
    }
    problems
}

fn unknown_table(name: &str, at: Range<usize>) -> Problem {
    let tables = tables();
    let problem = Problem::new(at, format!("unknown key `{name}`"));
    if let Some((home, _)) = tables.iter().find(|(_, keys)| keys.contains(&name)) {
        return problem.fix(format!("it belongs under {}", header(home)));
    }
    match nearest(name, tables.iter().map(|(table, _)| *table)) {
        Some(meant) => problem.fix(format!("did you mean `{}`?", header(meant))),
        None => {
            let known: Vec<String> = tables.iter().map(|(table, _)| header(table)).collect();
            problem.fix(format!("the tables are {}", known.join(", ")))
        }
    }
}

fn header(table: &str) -> String {
    match table {
        "grant" | "site" => format!("[[{table}]]"),
        "group" => "[group.NAME]".to_owned(),
        _ => format!("[{table}]"),
    }
}

fn table<T: DeserializeOwned + Default>(
    name: &'static str,
    value: Spanned<DeValue<'_>>,
    problems: &mut Vec<Problem>,
) -> Section<T> {
    let at = value.span();
    let (found, fix) = match value.into_inner() {
        DeValue::Table(keys) => return section(name, keys, at, problems),
        DeValue::Array(_) => ("an array", format!("write [{name}] with single brackets")),
        _ => ("a value", format!("write [{name}] and its keys below")),
    };
    let message = format!("`{name}` is a table, not {found}");
    problems.push(Problem::new(at.clone(), message).fix(fix));
    Section::unread(at)
}

fn tables_of<T: DeserializeOwned + Default>(
    name: &'static str,
    value: Spanned<DeValue<'_>>,
    problems: &mut Vec<Problem>,
) -> Vec<Section<T>> {
    let at = value.span();
    let DeValue::Array(items) = value.into_inner() else {
        let message = format!("there may be several `{name}`, so each is a table of an array");
        problems.push(Problem::new(at, message).fix(format!("write [[{name}]]")));
        return Vec::new();
    };
    items
        .into_iter()
        .map(|item| table(name, item, problems))
        .collect()
}

/// Every `[group.NAME]`: a table of tables, whose keys are the operator's.
fn groups(value: Spanned<DeValue<'_>>, problems: &mut Vec<Problem>) -> Vec<NamedGroup> {
    let at = value.span();
    let DeValue::Table(groups) = value.into_inner() else {
        let problem = Problem::new(at, "every group has a name");
        problems.push(problem.fix("write [group.NAME] and its keys below"));
        return Vec::new();
    };
    let groups = groups.into_iter().filter_map(|(name, value)| {
        let name = Spanned::new(name.span(), name.get_ref().to_string());
        if !matches!(value.get_ref(), DeValue::Table(_)) {
            let message = format!("`{}` stands in no group", name.get_ref());
            let fix = "write [group.NAME] and the keys below";
            problems.push(Problem::new(name.span(), message).fix(fix));
            return None;
        }
        let section = table("group", value, problems);
        Some(NamedGroup { name, section })
    });
    groups.collect()
}

/// Reads one table as often as it takes, each time without the key that was wrong.
fn section<T: DeserializeOwned + Default>(
    name: &'static str,
    mut table: DeTable<'_>,
    at: Range<usize>,
    problems: &mut Vec<Problem>,
) -> Section<T> {
    let before = problems.len();
    take_unknown(keys::<T>(), &mut table, problems);
    for (key, known) in [
        ("answer", keys::<AnswerTable>()),
        ("tls_answer", keys::<TlsAnswerTable>()),
        ("server", keys::<ServerTable>()),
        ("closed", keys::<ClosedTable>()),
    ] {
        if let Some(DeValue::Table(inner)) = table.get_mut(key).map(Spanned::get_mut) {
            take_unknown(known, inner, problems);
        }
    }
    loop {
        let value = Spanned::new(at.clone(), DeValue::Table(table.clone()));
        let error = match T::deserialize(ValueDeserializer::from(value)) {
            Ok(keys) => {
                return Section {
                    keys,
                    at,
                    is_whole: problems.len() == before,
                };
            }
            Err(error) => error,
        };
        let wrong = error.span().unwrap_or_else(|| at.clone());
        let key = table
            .iter()
            .find(|(_, value)| value.span().start <= wrong.start && wrong.end <= value.span().end)
            .map(|(key, _)| key.get_ref().to_string());
        problems.push(mistyped(
            key.as_deref().unwrap_or(name),
            wrong,
            error.message(),
        ));
        // Without a key to take out the next round would be the same as this one.
        if key.is_none_or(|key| table.remove(key.as_str()).is_none()) {
            return Section::unread(at);
        }
    }
}

fn take_unknown(known: &[&'static str], table: &mut DeTable<'_>, problems: &mut Vec<Problem>) {
    let entries = std::mem::take(table).into_iter();
    *table = entries
        .filter(|(key, _)| {
            let word = key.get_ref().as_ref();
            let is_known = known.contains(&word);
            if !is_known {
                problems.push(unknown_key(word, known, key.span()));
            }
            is_known
        })
        .collect();
}

fn unknown_key(word: &str, known: &[&'static str], at: Range<usize>) -> Problem {
    let problem = Problem::new(at, format!("unknown key `{word}`"));
    if let Some(meant) = nearest(word, known.iter().copied()) {
        return problem.fix(format!("did you mean `{meant}`?"));
    }
    let tables = tables();
    if let Some((home, _)) = tables.iter().find(|(_, keys)| keys.contains(&word)) {
        return problem.fix(format!("it belongs under {}", header(home)));
    }
    let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    problem.fix(format!("the keys here are {}", known.join(", ")))
}

/// Says in plain words what serde says of a value of the wrong type. Values are left out: they
/// stand in the source line.
fn mistyped(key: &str, at: Range<usize>, message: &str) -> Problem {
    let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return Problem::new(at, format!("`{key}`: {message}"));
    };
    let found = match found.split([' ', '`']).next().unwrap_or("") {
        "integer" => "a whole number",
        "floating" => "a fraction",
        "string" => "text",
        "boolean" => "true or false",
        "sequence" => "an array",
        "map" => "a table",
        _ => "something else",
    };
    let (expected, fix) = match expected {
        "a string" => ("text", "write it in quotes"),
        "a sequence" => ("an array", "write it in brackets: [ … ]"),
        "a boolean" => ("true or false", "write true or false, without quotes"),
        "a path or an array of paths" => (expected, "write it in quotes: \"/…\""),
        "i64" => ("a whole number", "write a whole number, without quotes"),
        "an answer" => (
            "an answer",
            "write \"pushed\" or { webroot = \"/…\" } or the like",
        ),
        other => (other, ""),
    };
    let message = if found == expected {
        format!("`{key}` is out of bounds")
    } else {
        format!("`{key}`: expected {expected}, found {found}")
    };
    Problem::new(at, message).fix(fix)
}

/// The keys of a table, as its type has them: serde hands them to the deserializer.
fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'keys>(&'keys mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("only asked for its keys"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut keys: &'static [&'static str] = &[];
    let _ = T::deserialize(Probe(&mut keys));
    keys
}
