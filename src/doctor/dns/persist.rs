//! dns-persist-01 (draft-ietf-acme-dns-persist): the one TXT record that stands for good, made and read.
//!
//! With it no validation comes to this host at all. What a record says is read as a CA reads it; nothing here
//! asks a server.

use std::fmt::Write;

use super::issue_value::IssueValue;

/// The label in front of the name.
pub const LABEL: &str = "_validation-persist";
/// The longest character string of a TXT record (RFC 1035 §3.3.14).
const MAX_STRING: usize = 255;

/// What a record is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The CA's domain name, as in CAA records.
    pub issuer: String,
    /// The URI of the account that may have certificates issued.
    pub account: String,
    /// Whether it is for `*.name` and everything below the name too.
    pub is_wildcard: bool,
    /// The last second in which it counts, after 1970; `None` for good.
    pub until: Option<u64>,
}

/// Why a record cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The issuer is no domain name.
    Issuer,
    /// The account is no URI as a record can hold it.
    Account,
}

/// What a record is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It counts, for so many seconds or for good.
    Counts(Option<u64>),
    /// It counted until that second.
    Expired(u64),
    /// It is for something else; why.
    Wrong(String),
}

impl Record {
    /// The record's value.
    ///
    /// # Errors
    /// [`Mistake`]: what the caller gave.
    pub fn value(&self) -> Result<String, Mistake> {
        let mut value = format!("{}; accounturi={}", self.issuer, self.account);
        if self.is_wildcard {
            value.push_str("; policy=wildcard");
        }
        if let Some(until) = self.until {
            // Writing to a String cannot fail.
            let _ = write!(value, "; persistUntil={until}");
        }
        if !self.account.contains(':') || self.account.contains('"') {
            return Err(Mistake::Account);
        }
        match IssueValue::parse(value.as_bytes()) {
            Some(read) if read.issuer.is_empty() => Err(Mistake::Issuer),
            Some(read) if read.all("accounturi").eq([self.account.as_str()]) => Ok(value),
            _ if IssueValue::parse(self.issuer.as_bytes()).is_none() => Err(Mistake::Issuer),
            _ => Err(Mistake::Account),
        }
    }

    /// The line of a zone file, for a name without its last dot.
    ///
    /// # Errors
    /// As [`Record::value`].
    pub fn line(&self, name: &str) -> Result<String, Mistake> {
        let value = self.value()?;
        // A backslash begins an escape (RFC 1035 §5.1); the value is ASCII, so every octet is a place to cut.
        let strings: Vec<String> = value
            .as_bytes()
            .chunks(MAX_STRING)
            .map(|part| {
                format!(
                    "\"{}\"",
                    String::from_utf8_lossy(part).replace('\\', "\\\\")
                )
            })
            .collect();
        Ok(format!("{LABEL}.{name}. IN TXT {}", strings.join(" ")))
    }
}

/// The last second of a day in UTC, `2027-01-31`, in seconds after 1970; `None` if there is no such day after 1970.
pub fn seconds_of(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let mut part = |digits: usize| {
        let text = parts.next()?;
        let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| is_number)
    };
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |month: u64| match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let is_day = year >= 1970 && (1..=12).contains(&month) && (1..=length(month)).contains(&day);
    if !is_day || parts.next().is_some() {
        return None;
    }
    let years: u64 = (1970..year)
        .map(|year| 365 + u64::from(is_leap(year)))
        .sum();
    let months: u64 = (1..month).map(length).sum();
    Some((years + months + day) * 86_400 - 1)
}

/// What is expected of the records of a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// The CAs; empty where any may be meant.
    pub(super) issuers: &'a [String],
    /// The accounts; empty where any may be meant.
    pub(super) accounts: &'a [String],
    pub(super) is_wildcard: bool,
    /// Seconds after 1970.
    pub(super) now: u64,
}

/// What one TXT record is worth.
pub(super) fn weigh(text: &[u8], wish: Wish<'_>) -> Worth {
    let wrong = |why: &str| Worth::Wrong(why.to_owned());
    let Some(value) = IssueValue::parse(text) else {
        return wrong("it is not of the form `issuer; accounturi=…`");
    };
    if value.issuer.is_empty() {
        return wrong("it names no CA");
    }
    if !wish.issuers.is_empty() && !wish.issuers.contains(&value.issuer) {
        return Worth::Wrong(format!("it is for the CA {}", value.issuer));
    }
    let accounts: Vec<&str> = value.all("accounturi").collect();
    let [account] = accounts.as_slice() else {
        return wrong("it has to name one account: `accounturi=…`");
    };
    if !wish.accounts.is_empty() && !wish.accounts.iter().any(|own| own == account) {
        return Worth::Wrong(format!("it is for the account {account}"));
    }
    let is_wildcard = value
        .all("policy")
        .any(|policy| policy.eq_ignore_ascii_case("wildcard"));
    if wish.is_wildcard && !is_wildcard {
        return wrong("it is not for the wildcard: `policy=wildcard` is missing");
    }
    let untils: Vec<&str> = value.all("persistuntil").collect();
    match untils.as_slice() {
        [] => Worth::Counts(None),
        [until] => match until.parse::<u64>() {
            Ok(until) if until < wish.now => Worth::Expired(until),
            Ok(until) => Worth::Counts(Some(until - wish.now)),
            Err(_) => wrong("its persistUntil is no number of seconds after 1970"),
        },
        _ => wrong("it has more than one persistUntil"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn record() -> Record {
        Record {
            issuer: "ca.test".to_owned(),
            account: "https://ca.test/acct/1".to_owned(),
            is_wildcard: true,
            until: Some(NOW + 60),
        }
    }

    fn wish<'a>(issuers: &'a [String], accounts: &'a [String]) -> Wish<'a> {
        Wish {
            issuers,
            accounts,
            is_wildcard: false,
            now: NOW,
        }
    }

    #[test]
    fn what_is_made_is_read_again() {
        let line = record().line("example.org").unwrap();
        assert_eq!(
            line,
            "_validation-persist.example.org. IN TXT \"ca.test; accounturi=https://ca.test/acct/1; \
             policy=wildcard; persistUntil=1800000060\""
        );
        let value = record().value().unwrap();
        let (issuers, accounts) = ([record().issuer], [record().account]);
        let wish = Wish {
            is_wildcard: true,
            ..wish(&issuers, &accounts)
        };
        assert_eq!(weigh(value.as_bytes(), wish), Worth::Counts(Some(60)));
        let later = Wish {
            now: NOW + 61,
            ..wish
        };
        assert_eq!(weigh(value.as_bytes(), later), Worth::Expired(NOW + 60));
        let long = Record {
            account: format!("https://ca.test/{}", "a".repeat(300)),
            ..record()
        };
        assert_eq!(long.line("a.test").unwrap().matches("\" \"").count(), 1);
    }

    #[test]
    fn a_day_is_counted_to_its_end() {
        for (date, seconds) in [
            ("1970-01-01", Some(86_399)),
            ("2024-02-29", Some(1_709_251_199)),
            ("2027-01-31", Some(1_801_439_999)),
            ("2100-02-29", None),
            ("2027-13-01", None),
            ("2027-01-00", None),
            ("27-01-01", None),
            ("2027-1-1", None),
            ("2027-01-01-01", None),
            ("2027-01-+1", None),
            ("1969-12-31", None),
        ] {
            assert_eq!(seconds_of(date), seconds, "{date}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_record_is_refused() {
        for (issuer, account, mistake) in [
            ("", "https://ca.test/1", Mistake::Issuer),
            ("ca test", "https://ca.test/1", Mistake::Issuer),
            ("ca.test", "", Mistake::Account),
            (
                "ca.test",
                "https://ca.test/1; policy=wildcard",
                Mistake::Account,
            ),
            ("ca.test", "https://ca.test/\" \"", Mistake::Account),
            ("ca.test", "https://ca.test/\u{e9}", Mistake::Account),
        ] {
            let record = Record {
                issuer: issuer.to_owned(),
                account: account.to_owned(),
                is_wildcard: false,
                until: None,
            };
            assert_eq!(record.value(), Err(mistake), "{issuer} {account}");
        }
    }

    #[test]
    fn every_way_to_be_wrong_is_told() {
        let (issuers, accounts) = (["ca.test".to_owned()], ["https://ca.test/1".to_owned()]);
        for (text, why) in [
            ("hello world", "not of the form"),
            ("; accounturi=https://ca.test/1", "no CA"),
            (
                "other.test; accounturi=https://ca.test/1",
                "the CA other.test",
            ),
            ("ca.test", "one account"),
            ("ca.test; accounturi=https://ca.test/2", "https://ca.test/2"),
            (
                "ca.test; accounturi=https://ca.test/1; persistUntil=soon",
                "no number",
            ),
            (
                "ca.test; accounturi=https://ca.test/1; persistUntil=1; persistUntil=2",
                "more than one",
            ),
        ] {
            match weigh(text.as_bytes(), wish(&issuers, &accounts)) {
                Worth::Wrong(said) => assert!(said.contains(why), "{text}: {said}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let plain = "ca.test; accounturi=https://ca.test/1";
        let wildcard = Wish {
            is_wildcard: true,
            ..wish(&issuers, &accounts)
        };
        assert!(matches!(weigh(plain.as_bytes(), wildcard), Worth::Wrong(_)));
        assert_eq!(
            weigh(plain.as_bytes(), wish(&issuers, &accounts)),
            Worth::Counts(None)
        );
    }
}
