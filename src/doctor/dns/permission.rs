//! Whether CAs may issue: the CAA records that count for a name are found by climbing (RFC 8659 §3), and what they
//! say is told.

use hickory_net::proto::rr::{Name, RData, RecordType};

use super::caa::{Property, Wish, Word, judge, who_may};
use super::chain::{Lookup, Trouble};
use super::codes::*;
use super::subject::Subject;
use super::words::{list, name, octets, trouble};
use crate::config::Dns;
use crate::doctor::finding::{Finding, Severity};

/// The records that count for a name, and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relevant {
    pub(super) at: Name,
    pub(super) properties: Vec<Property>,
}

/// Climbs from the name to the root until there are records. A CA does not issue where one of these lookups
/// fails (BR §3.2.2.8), so a failure is the answer.
pub(super) async fn climb(lookup: &Lookup, of: &Name) -> Result<Option<Relevant>, (Name, Trouble)> {
    let mut at = of.clone();
    while !at.is_root() {
        let found = lookup.find(&at, RecordType::CAA).await;
        let found = found.map_err(|trouble| (at.clone(), trouble))?;
        let properties: Vec<Property> = found
            .records
            .iter()
            .filter_map(|record| match &record.data {
                RData::CAA(caa) => Some(Property {
                    is_critical: caa.issuer_critical,
                    tag: caa.tag.clone(),
                    value: caa.value.clone(),
                }),
                _ => None,
            })
            .collect();
        if !properties.is_empty() {
            return Ok(Some(Relevant { at, properties }));
        }
        at = at.base_name();
    }
    Ok(None)
}

/// What is to be said of the permission for one name.
pub(super) fn tell(
    subject: &Subject,
    climbed: Result<Option<Relevant>, (Name, Trouble)>,
    dns: &Dns,
) -> Vec<Finding> {
    let shown = subject.shown();
    let relevant = match climbed {
        Ok(Some(relevant)) => relevant,
        Ok(None) => {
            let text = format!("{shown} has no CAA records: every CA may issue for it");
            let remedy = format!(
                "to allow yours alone: `{}. IN CAA 0 issue \"{}\"`",
                shown,
                dns.issuers
                    .first()
                    .map_or("letsencrypt.org", String::as_str)
            );
            return vec![
                Finding::new(CAA_ABSENT, Severity::Advice, text)
                    .of(&shown)
                    .remedy(remedy),
            ];
        }
        Err((at, why)) => {
            let text = format!("the CAA records for {shown} cannot be looked up, so no CA issues");
            return vec![
                Finding::new(CAA_FAILED, Severity::Fault, text)
                    .of(&shown)
                    .seen(format!("CAA of {}: {}", name(&at), trouble(&why)))
                    .remedy(format!(
                        "have the servers of {} answer for CAA: without such records, that there are none",
                        name(&at)
                    )),
            ];
        }
    };
    let telling = Telling {
        shown,
        relevant: &relevant,
    };
    let mut findings = telling.plain(subject, dns);
    if subject.is_wildcard {
        findings.extend(telling.wildcard(dns));
    }
    findings
}

struct Telling<'a> {
    shown: String,
    relevant: &'a Relevant,
}

impl Telling<'_> {
    fn finding(
        &self,
        code: crate::doctor::finding::Code,
        severity: Severity,
        text: String,
    ) -> Finding {
        let finding = Finding::new(code, severity, text).of(&self.shown);
        let records = self.relevant.properties.iter().take(6);
        records.fold(finding, |finding, property| {
            finding.seen(format!(
                "{}. CAA {} {} \"{}\"",
                name(&self.relevant.at),
                if property.is_critical { 128 } else { 0 },
                octets(property.tag.as_bytes()),
                octets(&property.value)
            ))
        })
    }

    fn plain(&self, subject: &Subject, dns: &Dns) -> Vec<Finding> {
        if dns.issuers.is_empty() {
            return vec![self.for_nobody_named()];
        }
        let mut words = Vec::new();
        for issuer in &dns.issuers {
            // One method that is allowed is enough for a client that has it.
            let wish = |method| Wish {
                issuer,
                method,
                accounts: &dns.accounts,
                is_wildcard: false,
            };
            let judged = subject
                .methods
                .iter()
                .map(|method| judge(&self.relevant.properties, wish(*method)));
            let best = judged.min();
            words.push((issuer, best.unwrap_or(Word::Allowed)));
        }
        let is_free = |word: &Word| matches!(word, Word::Allowed | Word::AllowedTo(_));
        // Where another CA may, a client that knows both still gets there.
        let severity = match words.iter().any(|(_, word)| is_free(word)) {
            true => Severity::Doubt,
            false => Severity::Fault,
        };
        words
            .into_iter()
            .map(|(issuer, word)| self.one(issuer, &word, severity, subject))
            .collect()
    }

    fn for_nobody_named(&self) -> Finding {
        let shown = &self.shown;
        match who_may(&self.relevant.properties, false).as_deref() {
            None => self.finding(
                CAA_FINE,
                Severity::Fine,
                format!("CAA records of {shown} allow every CA"),
            ),
            Some([]) => self
                .finding(
                    CAA_FORBIDS,
                    Severity::Fault,
                    format!("CAA records of {shown} forbid every CA to issue"),
                )
                .remedy(format!(
                    "name your CA there: `{}. IN CAA 0 issue \"letsencrypt.org\"`",
                    name(&self.relevant.at)
                )),
            Some(issuers) => self
                .finding(
                    CAA_FINE,
                    Severity::Fine,
                    format!("CAA records of {shown} allow {}", list(issuers)),
                )
                .remedy("name the CA that you use, and it is compared: `[dns] issuers` or `--ca`"),
        }
    }

    fn one(&self, issuer: &str, word: &Word, bad: Severity, subject: &Subject) -> Finding {
        let (shown, at) = (&self.shown, name(&self.relevant.at));
        let methods = subject.methods.join(" or ");
        match word {
            Word::Allowed => self.finding(
                CAA_FINE,
                Severity::Fine,
                format!("CAA records allow {issuer} to issue for {shown} by {methods}"),
            ),
            Word::AllowedTo(accounts) => self
                .finding(
                    CAA_ACCOUNT,
                    Severity::Doubt,
                    format!("CAA records allow {issuer} to issue for {shown} to one account, and whether it is yours is not known"),
                )
                .seen(format!("the account is {}", list(accounts)))
                .remedy("say which account your client uses: `[dns] accounts` or `--account`"),
            Word::NotTheAccount(accounts) => self
                .finding(
                    CAA_FORBIDS_ACCOUNT,
                    bad,
                    format!("CAA records forbid {issuer} to issue for {shown} to your account"),
                )
                .remedy(format!(
                    "write your account's URI in the CAA record of {at}, in place of {}",
                    list(accounts)
                )),
            Word::NotTheMethod(allowed) => self
                .finding(
                    CAA_FORBIDS_METHOD,
                    bad,
                    format!("CAA records forbid {issuer} to validate {shown} by {methods}"),
                )
                .remedy(format!(
                    "add {methods} to validationmethods in the CAA record of {at}, or use {}",
                    list(allowed)
                )),
            Word::NotTheIssuer(issuers) => {
                let allowed = match issuers.as_slice() {
                    [] => "nobody".to_owned(),
                    issuers => list(issuers),
                };
                self.finding(
                    CAA_FORBIDS,
                    bad,
                    format!("CAA records forbid {issuer} to issue for {shown}: they allow {allowed}"),
                )
                .remedy(format!("add it: `{at}. IN CAA 0 issue \"{issuer}\"`"))
            }
            Word::Critical(tag) => self
                .finding(
                    CAA_FORBIDS,
                    Severity::Fault,
                    format!("a CAA record of {shown} is critical and no CA knows it, so none issues"),
                )
                .remedy(format!(
                    "take the record \"{}\" out at {at}, or its flag 128",
                    octets(tag.as_bytes())
                )),
        }
    }

    /// The configured site stands for one label in front of the name; that a wildcard certificate is wanted is
    /// likely and not known, so it is an advice.
    fn wildcard(&self, dns: &Dns) -> Option<Finding> {
        let is_allowed = |may: &Option<Vec<String>>| match may {
            None => true,
            Some(may) if dns.issuers.is_empty() => !may.is_empty(),
            Some(may) => dns.issuers.iter().any(|issuer| may.contains(issuer)),
        };
        let properties = &self.relevant.properties;
        let may = who_may(properties, true);
        if is_allowed(&may) || !is_allowed(&who_may(properties, false)) {
            return None;
        }
        let allowed = match may.as_deref() {
            None | Some([]) => "nobody".to_owned(),
            Some(issuers) => list(issuers),
        };
        let shown = &self.shown;
        let text = format!(
            "CAA records forbid a wildcard certificate for *.{shown}: they allow {allowed}"
        );
        Some(
            self.finding(CAA_FORBIDS_WILDCARD, Severity::Advice, text)
                .remedy(format!(
                    "if you want one, name your CA: `{}. IN CAA 0 issuewild \"{}\"`",
                    name(&self.relevant.at),
                    dns.issuers
                        .first()
                        .map_or("letsencrypt.org", String::as_str)
                )),
        )
    }
}
