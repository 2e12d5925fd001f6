//! Names of nftables: a set or a chain by its family, table and own name, as nft(8) wants them.

use std::fmt;

use super::error::nearest;
use super::{ChainName, SetFamily, SetName};

/// The longest name of nftables (NFT_NAME_MAXLEN without its NUL).
const MAX_NAME_BYTES: usize = 255;

/// What is wrong, and what to write instead.
type Wrong = (String, String);

/// Reads `family table set`.
///
/// # Errors
/// [`Wrong`].
pub(super) fn set(text: &str) -> Result<SetName, Wrong> {
    parse(text, "set", "acmegate").map(|(family, table, set)| SetName { family, table, set })
}

/// Reads `family table chain`.
///
/// # Errors
/// [`Wrong`].
pub(super) fn chain(text: &str) -> Result<ChainName, Wrong> {
    parse(text, "chain", "input").map(|(family, table, chain)| ChainName {
        family,
        table,
        chain,
    })
}

/// Reads a name of three words; `what` it names, and a last word as an example.
fn parse(text: &str, what: &str, example: &str) -> Result<(SetFamily, String, String), Wrong> {
    let like = format!("write family, table and {what}: \"inet filter {example}\"");
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [family, table, name] = parts[..] else {
        let count = parts.len();
        return Err((
            format!("a {what} is named by three words, not {count}"),
            like,
        ));
    };
    let families = [
        ("ip", SetFamily::Ip),
        ("ip6", SetFamily::Ip6),
        ("inet", SetFamily::Inet),
    ];
    let Some((_, family)) = families.iter().find(|(word, _)| *word == family) else {
        let fix = match nearest(family, ["inet", "ip6", "ip"]) {
            Some(meant) => format!("did you mean \"{meant} {table} {name}\"?"),
            None => "the family is inet, ip or ip6".to_owned(),
        };
        return Err((
            format!("`{family}` is no family that sees ports of this host"),
            fix,
        ));
    };
    for word in [table, name] {
        if !is_name(word) {
            return Err((format!("`{word}` is no name of nftables"), like));
        }
    }
    if *family == SetFamily::Inet && table == "acmegate" {
        return Err((
            "table `inet acmegate` is acmegate's own".to_owned(),
            "name the table that your own rules stand in".to_owned(),
        ));
    }
    Ok((*family, table.to_owned(), name.to_owned()))
}

/// What nft(8) reads as an identifier.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_BYTES
        && bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'.'))
        && bytes
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/'))
}

impl SetFamily {
    /// The family's word in nft(8).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family.as_str(), self.table, self.chain)
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family.as_str(), self.table, self.set)
    }
}
