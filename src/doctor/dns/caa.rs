//! Which CA may issue, by which method, for which account (RFC 8659, RFC 8657): decided from the records alone.

use super::issue_value::IssueValue;

/// Tags that a CA understands; one that is unknown and critical forbids everything (RFC 8659 §4.1).
const KNOWN: [&str; 7] = [
    "issue",
    "issuewild",
    "iodef",
    "issuemail",
    "issuevmc",
    "contactemail",
    "contactphone",
];

/// One CAA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) is_critical: bool,
    pub(super) tag: String,
    pub(super) value: Vec<u8>,
}

/// What is to be issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// The CA's name in CAA records; lower case.
    pub(super) issuer: &'a str,
    /// How it will validate: `http-01` and the like.
    pub(super) method: &'a str,
    /// The accounts that may ask; empty where it is not known.
    pub(super) accounts: &'a [String],
    pub(super) is_wildcard: bool,
}

/// What the records say to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    /// Yes.
    Allowed,
    /// Yes to one of these accounts; whose they are is not known here.
    AllowedTo(Vec<String>),
    /// Not for the accounts that are known, but for these.
    NotTheAccount(Vec<String>),
    /// Not by this method, but by these.
    NotTheMethod(Vec<String>),
    /// Not by this CA, but by these; by nobody where there is none.
    NotTheIssuer(Vec<String>),
    /// There is something critical that no CA knows.
    Critical(String),
}

/// Reads the relevant records.
pub(super) fn judge(properties: &[Property], wish: Wish<'_>) -> Word {
    if let Some(word) = critical(properties) {
        return word;
    }
    let Some(values) = relevant(properties, wish.is_wildcard) else {
        return Word::Allowed;
    };
    let own: Vec<&IssueValue> = values
        .iter()
        .flatten()
        .filter(|value| value.issuer == wish.issuer)
        .collect();
    if own.is_empty() {
        return Word::NotTheIssuer(issuers(&values));
    }
    // Any one permission is enough, so the best of them counts.
    let words = own.into_iter().map(|value| permission(value, wish));
    let best = words.reduce(|best, word| match (best, word) {
        (Word::AllowedTo(one), Word::AllowedTo(other)) => Word::AllowedTo([one, other].concat()),
        (Word::NotTheAccount(one), Word::NotTheAccount(other)) => {
            Word::NotTheAccount([one, other].concat())
        }
        (Word::NotTheMethod(one), Word::NotTheMethod(other)) => {
            Word::NotTheMethod([one, other].concat())
        }
        (best, word) => best.min(word),
    });
    best.unwrap_or(Word::Allowed)
}

/// Who may issue at all: `None` is everybody.
pub(super) fn who_may(properties: &[Property], is_wildcard: bool) -> Option<Vec<String>> {
    if critical(properties).is_some() {
        return Some(Vec::new());
    }
    relevant(properties, is_wildcard).map(|values| issuers(&values))
}

/// A critical property that is unknown.
pub(super) fn critical(properties: &[Property]) -> Option<Word> {
    let unknown = |property: &&Property| {
        property.is_critical && !KNOWN.contains(&property.tag.to_ascii_lowercase().as_str())
    };
    let property = properties.iter().find(unknown)?;
    Some(Word::Critical(property.tag.clone()))
}

/// The values that count: of a wildcard those of `issuewild`, if there is one (RFC 8659 §4.3). What is malformed
/// is `None` among them. None at all restricts nobody.
fn relevant(properties: &[Property], is_wildcard: bool) -> Option<Vec<Option<IssueValue>>> {
    let of = |tag: &str| {
        let own = |property: &&Property| property.tag.eq_ignore_ascii_case(tag);
        let values = properties.iter().filter(own);
        let values: Vec<_> = values.map(|one| IssueValue::parse(&one.value)).collect();
        (!values.is_empty()).then_some(values)
    };
    match is_wildcard {
        true => of("issuewild").or_else(|| of("issue")),
        false => of("issue"),
    }
}

fn issuers(values: &[Option<IssueValue>]) -> Vec<String> {
    let named = values.iter().flatten().map(|value| value.issuer.clone());
    let mut issuers: Vec<String> = named.filter(|issuer| !issuer.is_empty()).collect();
    issuers.sort_unstable();
    issuers.dedup();
    issuers
}

/// What one property of the CA's own permits.
fn permission(value: &IssueValue, wish: Wish<'_>) -> Word {
    let lists: Vec<&str> = value.all("validationmethods").collect();
    let methods: Vec<String> = lists
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::to_owned)
        .collect();
    // Twice the same parameter is a mistake that CAs do not resolve in anybody's favour.
    if lists.len() > 1 || (!lists.is_empty() && !methods.iter().any(|one| one == wish.method)) {
        return Word::NotTheMethod(methods);
    }
    let accounts: Vec<String> = value.all("accounturi").map(str::to_owned).collect();
    match accounts.as_slice() {
        [] => Word::Allowed,
        [account] if wish.accounts.contains(account) => Word::Allowed,
        [_] if wish.accounts.is_empty() => Word::AllowedTo(accounts),
        _ => Word::NotTheAccount(accounts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.test/acct/1";

    fn properties(lines: &[&str]) -> Vec<Property> {
        let property = |line: &&str| {
            let (flags, rest) = line.split_once(' ').unwrap();
            let (tag, value) = rest.split_once(' ').unwrap();
            Property {
                is_critical: flags == "128",
                tag: tag.to_owned(),
                value: value.as_bytes().to_vec(),
            }
        };
        lines.iter().map(property).collect()
    }

    fn word(lines: &[&str], method: &str, accounts: &[&str], is_wildcard: bool) -> Word {
        let accounts: Vec<String> = accounts.iter().map(|one| (*one).to_owned()).collect();
        let wish = Wish {
            issuer: "ca.test",
            method,
            accounts: &accounts,
            is_wildcard,
        };
        judge(&properties(lines), wish)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_ca_may_issue_where_nobody_or_it_is_named() {
        for lines in [
            vec!["0 iodef mailto:a@b.test"],
            vec!["0 issue ca.test"],
            vec!["0 issue other.test", "0 issue CA.TEST"],
            vec!["0 issue ;", "0 issue ca.test"],
            vec!["128 issue ca.test"],
            vec!["0 issue ca.test; validationmethods=dns-01,http-01"],
            vec![
                "0 issue ca.test; validationmethods=dns-01",
                "0 issue ca.test",
            ],
            vec!["0 unheard of"],
        ] {
            assert_eq!(
                word(&lines, "http-01", &[], false),
                Word::Allowed,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn what_forbids_is_named() {
        for (lines, expected) in [
            (vec!["0 issue ;"], Word::NotTheIssuer(vec![])),
            (vec!["0 issue %%%"], Word::NotTheIssuer(vec![])),
            (
                vec!["0 issue other.test", "0 issue a.test"],
                Word::NotTheIssuer(texts(&["a.test", "other.test"])),
            ),
            (
                vec!["128 unheard of", "0 issue ca.test"],
                Word::Critical("unheard".to_owned()),
            ),
            (
                vec!["0 issue ca.test; validationmethods=dns-01"],
                Word::NotTheMethod(texts(&["dns-01"])),
            ),
            (
                vec!["0 issue ca.test; accounturi=https://ca.test/acct/2"],
                Word::NotTheAccount(texts(&["https://ca.test/acct/2"])),
            ),
        ] {
            assert_eq!(
                word(&lines, "http-01", &[ACCOUNT], false),
                expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn an_account_is_compared_where_it_is_known() {
        let lines = ["0 issue ca.test; accounturi=https://ca.test/acct/1"];
        assert_eq!(word(&lines, "http-01", &[ACCOUNT], false), Word::Allowed);
        assert_eq!(
            word(&lines, "http-01", &[], false),
            Word::AllowedTo(texts(&[ACCOUNT]))
        );
        let twice = [&format!("{}; accounturi={ACCOUNT}", lines[0]) as &str];
        let word = word(&twice, "http-01", &[ACCOUNT], false);
        assert!(matches!(word, Word::NotTheAccount(_)), "{word:?}");
    }

    #[test]
    fn of_a_wildcard_issuewild_counts() {
        let lines = ["0 issue ca.test", "0 issuewild ;"];
        assert_eq!(word(&lines, "dns-01", &[], false), Word::Allowed);
        assert_eq!(
            word(&lines, "dns-01", &[], true),
            Word::NotTheIssuer(vec![])
        );
        assert_eq!(word(&lines[..1], "dns-01", &[], true), Word::Allowed);
        let only_wild = ["0 issuewild other.test"];
        assert_eq!(word(&only_wild, "http-01", &[], false), Word::Allowed);
        assert_eq!(who_may(&properties(&only_wild), false), None);
        assert_eq!(
            who_may(&properties(&only_wild), true),
            Some(texts(&["other.test"]))
        );
    }
}
