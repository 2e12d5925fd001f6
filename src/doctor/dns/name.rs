//! One name: where it points, whether its answers can be believed, and what else the DNS says for validations.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_net::proto::rr::{RData, RecordType};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ask::Silence;
use super::chain::{Found, Lookup, Trouble};
use super::codes::*;
use super::points::{Elsewhere, Here, judge};
use super::subject::Subject;
use super::words::{addresses, name, trouble};
use super::{permission, persist, signatures};
use crate::config::Dns;
use crate::doctor::finding::{Finding, Severity};

/// How long a connection to somebody else's IPv6 address is waited for; a CA waits longer, and the exam has no time.
const CONNECT: Duration = Duration::from_millis(1500);
/// A dns-persist-01 record that ends sooner than this is told: certificates are renewed a month ahead.
const PERSIST_SOON: u64 = 30 * 24 * 3600;

/// What every name is looked at with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) lookup: Lookup,
    pub(super) here: Here,
    pub(super) dns: Dns,
    /// Seconds after 1970.
    pub(super) now: u64,
}

impl Means {
    /// As DNSSEC counts it.
    pub(super) fn now(&self) -> u32 {
        // Serial number arithmetic: the higher bits do not count.
        (self.now & u64::from(u32::MAX)) as u32
    }
}

/// Looks at one name.
pub(super) async fn look(means: Means, subject: Subject) -> Vec<Finding> {
    let lookup = &means.lookup;
    let (four, six, permission, delegated, persisting) = tokio::join!(
        lookup.find(&subject.name, RecordType::A),
        lookup.find(&subject.name, RecordType::AAAA),
        permission::climb(lookup, &subject.name),
        delegated(&means, &subject),
        persisting(&means, &subject),
    );
    let mut findings = Vec::new();
    match (&four, &six) {
        (Ok(four), Ok(six)) => {
            findings.extend(pointing(&means, &subject, four, six).await);
            findings.extend(believed(&means, &subject, four, six).await);
            findings.extend(permission::tell(&subject, permission, &means.dns));
        }
        // What fails here fails for CAA as well, and for the same reason.
        (Err(why), _) => findings.push(failed(&means, &subject, RecordType::A, why).await),
        (_, Err(why)) => findings.push(failed(&means, &subject, RecordType::AAAA, why).await),
    }
    findings.extend(delegated);
    findings.extend(persisting);
    findings
}

async fn pointing(means: &Means, subject: &Subject, four: &Found, six: &Found) -> Vec<Finding> {
    let shown = subject.shown();
    let records = four.records.iter().chain(&six.records);
    let found = addresses(records.map(|record| &record.data));
    if !found.is_empty() {
        let (own, others) = means.here.split(&found);
        let others_6: Vec<IpAddr> = others.into_iter().filter(IpAddr::is_ipv6).collect();
        let tried = match own.iter().any(IpAddr::is_ipv4) && !own.iter().any(IpAddr::is_ipv6) {
            true => elsewhere(&others_6, subject).await,
            false => None,
        };
        return judge(&shown, &found, &means.here, tried.as_ref());
    }
    let through = four.aliases.last().map(name);
    let (code, text) = match (four.exists || six.exists, &through) {
        (false, None) => (NAME_MISSING, format!("there is no name {shown} in the DNS")),
        (false, Some(target)) => (
            NAME_MISSING,
            format!("{shown} is an alias of {target}, and there is no such name"),
        ),
        (true, None) => (NO_ADDRESS, format!("{shown} has no address in the DNS")),
        (true, Some(target)) => (
            NO_ADDRESS,
            format!("{shown} is an alias of {target}, which has no address"),
        ),
    };
    let denied_by = four.denied_by.as_ref().or(six.denied_by.as_ref());
    let mut finding = Finding::new(code, Severity::Fault, text).of(&shown);
    finding = match denied_by {
        Some(zone) => finding.seen(format!(
            "the zone {} has neither A nor AAAA of it",
            name(zone)
        )),
        None => finding.seen("there is neither A nor AAAA of it"),
    };
    vec![finding.remedy(format!(
        "add its address to the zone: {}",
        means.here.record(&through.unwrap_or(shown))
    ))]
}

/// Whether somebody answers at the addresses that CAs would try first.
async fn elsewhere(addresses: &[IpAddr], subject: &Subject) -> Option<Elsewhere> {
    let address = *addresses.first()?;
    let port = if subject.methods.contains(&"http-01") {
        80
    } else {
        443
    };
    let connected = timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, port))).await;
    match connected {
        Ok(Ok(_)) => Some(Elsewhere::Answers),
        Ok(Err(error)) => match Silence::from(error) {
            // That this host has no way there says nothing of the world's.
            Silence::NoRoute => None,
            silence => Some(Elsewhere::Dead(silence.to_string())),
        },
        Err(_) => Some(Elsewhere::Dead(Silence::Timeout.to_string())),
    }
}

/// What validation came to, for a name that could be looked up.
async fn believed(means: &Means, subject: &Subject, four: &Found, six: &Found) -> Option<Finding> {
    if !means.lookup.is_validating() {
        return None;
    }
    let shown = subject.shown();
    if !four.is_secure || !six.is_secure {
        let text = format!("{shown} is not signed by DNSSEC, and does not have to be");
        return Some(Finding::new(DNSSEC_FINE, Severity::Fine, text).of(shown));
    }
    let kind = match four.records.is_empty() {
        true => RecordType::AAAA,
        false => RecordType::A,
    };
    match signatures::ends_soon(&means.lookup, &subject.name, kind, means.now()).await {
        Some(left) => {
            let text = format!("signatures of {shown} end in {}", signatures::ago(left));
            Some(
                Finding::new(DNSSEC_EXPIRING, Severity::Doubt, text)
                    .of(&shown)
                    .seen("signers make signatures anew days before they end")
                    .remedy("see whether the zone's signer still runs: once they have ended, no CA issues"),
            )
        }
        None => {
            let text = format!("{shown} is signed, and proven from the root on");
            Some(Finding::new(DNSSEC_FINE, Severity::Fine, text).of(shown))
        }
    }
}

async fn failed(means: &Means, subject: &Subject, kind: RecordType, why: &Trouble) -> Finding {
    let shown = subject.shown();
    match why {
        Trouble::Bogus => {
            let reason = signatures::reason(&means.lookup, &subject.name, kind, means.now()).await;
            let text =
                format!("the signatures of {shown} do not hold, so no CA believes the answer");
            Finding::new(DNSSEC_BOGUS, Severity::Fault, text)
                .of(shown)
                .seen(reason.evidence)
                .remedy(reason.remedy)
        }
        Trouble::Said(_) => {
            let text = format!("the addresses of {shown} cannot be looked up");
            Finding::new(LOOKUP_FAILED, Severity::Fault, text)
                .of(shown)
                .seen(format!("{kind}: {}", trouble(why)))
                .remedy(
                    "see what is said of the zone's servers; CAs' resolvers fail at them as well",
                )
        }
        Trouble::Silent(_) => {
            let text = format!("the addresses of {shown} could not be looked up in time");
            Finding::new(LOOKUP_FAILED, Severity::Doubt, text)
                .of(shown)
                .seen(format!("{kind}: {}", trouble(why)))
                .remedy("try again; if it stays so, the zone's servers are slow or do not answer everybody")
        }
    }
}

/// `_acme-challenge`, where it leads elsewhere.
async fn delegated(means: &Means, subject: &Subject) -> Option<Finding> {
    let shown = subject.shown();
    let label = subject.name.prepend_label("_acme-challenge").ok()?;
    let found = means.lookup.find(&label, RecordType::TXT).await;
    let target = match &found {
        Ok(found) => found.aliases.first().cloned(),
        // What cannot be followed is there all the same.
        Err(_) => means
            .lookup
            .raw(&label, RecordType::CNAME)
            .await
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == label => Some(target.0.clone()),
                _ => None,
            }),
    }?;
    let why = match &found {
        Ok(found) if found.exists => {
            let text = format!("dns-01 for {shown} is answered at {}", name(&target));
            return Some(Finding::new(CHALLENGE_DELEGATED, Severity::Fine, text).of(shown));
        }
        Ok(_) => "there is no such name".to_owned(),
        Err(why) => trouble(why),
    };
    let text = format!(
        "_acme-challenge.{shown} is an alias of {}, which does not answer: dns-01 would fail",
        name(&target)
    );
    Some(
        Finding::new(CHALLENGE_DANGLING, Severity::Advice, text)
            .of(&shown)
            .seen(format!("TXT of {}: {why}", name(&target)))
            .remedy(format!(
                "take the CNAME record of _acme-challenge.{shown} out, or mend where it leads: whoever gets that name can have certificates for {shown}"
            )),
    )
}

/// dns-persist-01, where a record is expected or there.
async fn persisting(means: &Means, subject: &Subject) -> Option<Finding> {
    let shown = subject.shown();
    let label = subject.name.prepend_label(persist::LABEL).ok()?;
    let found = means.lookup.find(&label, RecordType::TXT).await;
    let texts: Vec<Vec<u8>> = match &found {
        Ok(found) => found.records.iter().filter_map(text_of).collect(),
        Err(_) => Vec::new(),
    };
    // Who does not expect a record loses nothing by a wrong one.
    let severity = match subject.persist {
        Some(_) => Severity::Fault,
        None if texts.is_empty() => return None,
        None => Severity::Advice,
    };
    let make = format!(
        "make the record: `acmegate dns-persist {shown}{} --issuer {} --account {}`",
        if subject.persist == Some(true) {
            " --wildcard"
        } else {
            ""
        },
        means.dns.issuers.first().map_or("CA", String::as_str),
        means.dns.accounts.first().map_or("URI", String::as_str),
    );
    let finding = |code, severity, text: String| {
        let finding = Finding::new(code, severity, text).of(&shown);
        let texts = texts.iter().take(4);
        texts.fold(finding, |finding, text| {
            finding.seen(format!(
                "{}. TXT \"{}\"",
                name(&label),
                super::words::octets(text)
            ))
        })
    };
    if texts.is_empty() {
        let (severity, text, seen) = match &found {
            Ok(_) => (
                severity,
                format!("{shown} has no dns-persist-01 record, and one is expected"),
                format!("there is no TXT record at {}", name(&label)),
            ),
            Err(why) => (
                // As of addresses: whoever did not answer in time may do so the next time.
                match why {
                    Trouble::Silent(_) => Severity::Doubt,
                    Trouble::Said(_) | Trouble::Bogus => severity,
                },
                format!("the dns-persist-01 record of {shown} cannot be looked up"),
                format!("TXT of {}: {}", name(&label), trouble(why)),
            ),
        };
        return Some(
            finding(PERSIST_MISSING, severity, text)
                .seen(seen)
                .remedy(make),
        );
    }
    let wish = persist::Wish {
        issuers: &means.dns.issuers,
        accounts: &means.dns.accounts,
        is_wildcard: subject.persist == Some(true),
        now: means.now,
    };
    let worths = texts.iter().map(|text| persist::weigh(text, wish));
    // Any one record that counts is enough; of several, the one that counts longest.
    let best = worths.max_by_key(|worth| match worth {
        persist::Worth::Counts(None) => (2, u64::MAX),
        persist::Worth::Counts(Some(left)) => (2, *left),
        persist::Worth::Expired(at) => (1, *at),
        persist::Worth::Wrong(_) => (0, 0),
    })?;
    Some(match best {
        persist::Worth::Counts(Some(left)) if left < PERSIST_SOON => {
            let text = format!(
                "the dns-persist-01 record of {shown} ends in {}",
                signatures::ago(u32::try_from(left).unwrap_or(u32::MAX))
            );
            finding(PERSIST_EXPIRING, severity.min(Severity::Doubt), text).remedy(make)
        }
        persist::Worth::Counts(_) => {
            let text = format!("{shown} has a dns-persist-01 record that counts");
            finding(PERSIST_FINE, Severity::Fine, text)
        }
        persist::Worth::Expired(at) => {
            let passed = means.now.saturating_sub(at);
            let text = format!(
                "the dns-persist-01 record of {shown} ended {} ago",
                signatures::ago(u32::try_from(passed).unwrap_or(u32::MAX))
            );
            finding(PERSIST_EXPIRED, severity, text).remedy(make)
        }
        persist::Worth::Wrong(why) => {
            let text = format!(
                "the dns-persist-01 record of {shown} does not count: {}",
                super::words::said(why)
            );
            finding(PERSIST_WRONG, severity, text).remedy(make)
        }
    })
}

/// The strings of a TXT record are one text (RFC 8555 §8.4).
fn text_of(record: &hickory_net::proto::rr::Record) -> Option<Vec<u8>> {
    match &record.data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    }
}
