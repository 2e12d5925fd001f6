//! Asks: what is the world told about these names?
//!
//! A perspective sees a host through the DNS alone: the name's addresses, the servers that give them, the signatures
//! that prove them, and the CAA records that say whether a CA may issue. All of it is looked up as a CA's resolver does
//! it: validated here, up to the root. The zones' own servers are asked besides, each by itself. Every
//! question has a deadline and the exam another: without an Internet it says so within seconds.
//!
//! | file | |
//! | --- | --- |
//! | `ask.rs` `reply.rs` | one question to one server, and what comes back |
//! | `chain.rs` | lookups by the host's resolvers, validated (hickory) |
//! | `subject.rs` `name.rs` `points.rs` `permission.rs` | one name: its addresses, its CAA records, and what else there is |
//! | `servers.rs` `delegation.rs` | a zone's servers: asked, judged |
//! | `signatures.rs` | why a signature does not hold |
//! | `caa.rs` `persist.rs` `issue_value.rs` | what records mean |
//! | `args.rs` `resolv_conf.rs` | whom to ask |

mod args;
mod ask;
mod caa;
mod chain;
pub mod codes;
mod delegation;
pub mod issue_value;
mod name;
mod permission;
pub mod persist;
mod points;
pub mod reply;
mod resolv_conf;
mod servers;
mod signatures;
mod subject;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::dnssec::TrustAnchors;
use hickory_net::proto::rr::{Name, RecordType};
use nlink::netlink::{Connection, Route};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

pub use self::args::DnsArgs;
use self::chain::{Chain, Lookup, Resolvers, Trouble};
use self::name::Means;
use self::points::Here;
use self::subject::Subject;
use super::case::Case;
use super::finding::{Area, Exam, Finding};
use crate::config::Dns;
use crate::gate::identifier::{Identifier, Pattern};
use crate::gate::site::site_for;
use crate::observe::report::words::many;

/// How many names are looked up; more of them would tell nothing more of this host.
const MAX_NAMES: usize = 100;
/// What the first question is waited for: whether there is a DNS at all.
const FIRST: Duration = Duration::from_secs(5);
/// What one name may take.
const OF_A_NAME: Duration = Duration::from_secs(6);
/// What all of it may take.
const IN_ALL: Duration = Duration::from_secs(15);
/// Real trust anchors are some hundred octets.
const MAX_ANCHOR_BYTES: u64 = 64 * 1024;

/// Examines the DNS of the case's names. `dns` is the configuration's section with what the command line adds;
/// `now` is the host's clock, in seconds after 1970.
pub async fn examine(case: &Case, dns: &Dns, now: u64) -> Exam {
    let mut exam = Exam::of(Area::Dns);
    let subjects = subjects(case, dns, &mut exam);
    if subjects.is_empty() {
        return exam;
    }
    let end = Instant::now() + IN_ALL;
    let Some(lookup) = resolvers(dns, &mut exam).await else {
        return exam;
    };
    let means = Means {
        lookup,
        here: here(case, dns).await,
        dns: dns.clone(),
        now,
    };
    let names = names(&means, &subjects, end);
    let zones = zones(&means, &subjects, end);
    let (names, zones) = tokio::join!(names, zones);
    // A zone's servers are why its names cannot be looked up, so they come first.
    for found in [zones, names] {
        exam.looked_at.extend(found.looked_at);
        exam.findings.extend(found.findings);
        exam.not_covered.extend(found.not_covered);
    }
    exam
}

/// The names among the identifiers; addresses are looked up nowhere.
fn subjects(case: &Case, dns: &Dns, exam: &mut Exam) -> Vec<Subject> {
    let sites = case.config.gate_sites();
    let mut subjects = Vec::new();
    for identifier in &case.names {
        let Identifier::Dns(dns_name) = identifier else {
            exam.looked_at
                .push(format!("{identifier}: an address, which needs no DNS"));
            continue;
        };
        let Ok(name) = Name::from_ascii(format!("{dns_name}.")) else {
            continue;
        };
        let site = site_for(&sites, identifier).and_then(|(id, _)| case.config.sites.get(id.0));
        let methods = site.map(|site| site.challenges.iter().map(|one| one.as_str()).collect());
        let is_base = |pattern: &Pattern| match pattern {
            Pattern::Wildcard(base) => base == dns_name,
            Pattern::Exact(_) => false,
        };
        let persist = dns.persist.iter().filter_map(|pattern| match pattern {
            Pattern::Exact(own) => (own == identifier).then_some(false),
            Pattern::Wildcard(base) => (base == dns_name).then_some(true),
        });
        subjects.push(Subject {
            name,
            methods: methods.unwrap_or_else(|| vec!["http-01"]),
            is_wildcard: sites
                .iter()
                .any(|site| site.identifiers.iter().any(is_base)),
            persist: persist.max(),
        });
    }
    if subjects.len() > MAX_NAMES {
        exam.not_covered.push(format!(
            "{} of {} names: the first {MAX_NAMES} are looked up; name others on the command line",
            subjects.len() - MAX_NAMES,
            subjects.len()
        ));
        subjects.truncate(MAX_NAMES);
    }
    subjects
}

/// The resolvers, if one of them answers, and whether what they say can be validated.
async fn resolvers(dns: &Dns, exam: &mut Exam) -> Option<Lookup> {
    let servers: Vec<SocketAddr> = match dns.resolvers.is_empty() {
        true => resolv_conf::read(),
        false => dns.resolvers.clone(),
    };
    if servers.is_empty() {
        exam.not_covered.push(
            "the DNS: /etc/resolv.conf names no resolver; name one: `[dns] resolvers` or `--resolver`"
                .to_owned(),
        );
        return None;
    }
    let anchors = match anchors(dns) {
        Ok(anchors) => Some(Arc::new(anchors)),
        Err(why) => {
            exam.not_covered.push(format!("DNSSEC: {why}"));
            None
        }
    };
    let shown = words::list(&servers);
    let resolvers = Resolvers::new(servers);
    let asked = anchors.clone().unwrap_or_default();
    let chain = timeout(FIRST, resolvers.chain(&asked)).await;
    let anchors = match chain {
        Ok(Ok(Chain::Whole)) => anchors,
        Ok(Ok(Chain::Stripped)) => {
            exam.not_covered.push(format!(
                "DNSSEC: the resolver {shown} leaves signatures out; name one that does not: `[dns] resolvers` or `--resolver`"
            ));
            None
        }
        Ok(Ok(Chain::OtherRoot)) => {
            exam.not_covered.push(format!(
                "DNSSEC: what the resolver {shown} says of the root is not signed by the keys of the trust anchor; name the right one: `[dns] trust_anchor` or `--trust-anchor`"
            ));
            None
        }
        // What such a resolver does not find may well be there.
        Ok(Ok(Chain::NoRoot)) => {
            exam.not_covered.push(no_dns(&shown, "it knows no root"));
            return None;
        }
        Ok(Err(Trouble::Said(code))) => {
            exam.not_covered
                .push(no_dns(&shown, &format!("of the root it says: {code}")));
            return None;
        }
        Ok(Err(Trouble::Bogus)) => {
            exam.not_covered
                .push(no_dns(&shown, "what it says of the root is not believed"));
            return None;
        }
        Ok(Err(Trouble::Silent(silence))) => {
            exam.not_covered.push(no_dns(&shown, &silence.to_string()));
            return None;
        }
        Err(_) => {
            exam.not_covered.push(no_dns(&shown, "no answer"));
            return None;
        }
    };
    exam.looked_at.push(match &anchors {
        Some(_) => format!("answers of the resolver {shown}, each validated from the root on"),
        None => format!("answers of the resolver {shown}, not validated"),
    });
    Some(Lookup::new(resolvers, anchors))
}

fn no_dns(servers: &str, why: &str) -> String {
    format!(
        "the DNS: no resolver knows it ({servers}: {why}); mend the host's resolver, or name another: `[dns] resolvers` or `--resolver`"
    )
}

/// The configured trust anchor, or the root's own keys.
fn anchors(dns: &Dns) -> Result<TrustAnchors, String> {
    let Some(path) = &dns.trust_anchor else {
        return Ok(TrustAnchors::default());
    };
    let shown = words::said(path.display());
    let wrong = |why: String| format!("the trust anchor {shown}: {why}");
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_ANCHOR_BYTES {
        return Err(wrong("it is no small file".to_owned()));
    }
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let anchors = TrustAnchors::from_str(&text)
        .map_err(|_| wrong("it does not hold DNSKEY records alone".to_owned()))?;
    match anchors.is_empty() {
        true => Err(wrong("it holds no key of the root".to_owned())),
        false => Ok(anchors),
    }
}

/// What leads to this host.
async fn here(case: &Case, dns: &Dns) -> Here {
    let proxy = &case.config.proxy;
    let mut local = Vec::new();
    if let Ok(route) = Connection::<Route>::new()
        && let Ok(addresses) = route.get_addresses().await
    {
        let own = addresses.iter().filter_map(|one| one.primary_address());
        local.extend(own.copied().filter(|address| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
        }));
    }
    local.sort_unstable();
    local.dedup();
    Here {
        local,
        public: dns.public.clone(),
        is_behind_others: !proxy.protocol_from.is_empty() || !proxy.headers_from.is_empty(),
    }
}

/// Looks at every name, all at once.
async fn names(means: &Means, subjects: &[Subject], end: Instant) -> Exam {
    let mut exam = Exam::of(Area::Dns);
    let mut looking = JoinSet::new();
    for (at, subject) in subjects.iter().cloned().enumerate() {
        let means = means.clone();
        let shown = subject.shown();
        let until = end.min(Instant::now() + OF_A_NAME);
        looking.spawn(async move {
            let found = timeout_at(until, name::look(means, subject)).await;
            (at, shown, found.ok())
        });
    }
    let mut looked: Vec<(usize, String, Option<Vec<Finding>>)> = looking.join_all().await;
    looked.sort_unstable_by_key(|(at, ..)| *at);
    let mut count = 0;
    for (_, shown, findings) in looked {
        match findings {
            Some(findings) => {
                count += 1;
                exam.findings.extend(findings);
            }
            None => exam.not_covered.push(format!(
                "{shown}: its lookups take longer than {} s; try again, or name a nearer resolver: `--resolver`",
                OF_A_NAME.as_secs()
            )),
        }
    }
    exam.looked_at.push(format!(
        "A, AAAA, CAA, _acme-challenge and {} of {}",
        persist::LABEL,
        many(count, "name")
    ));
    exam
}

/// Looks at the servers of every zone that a name, or what it is an alias of, stands in.
async fn zones(means: &Means, subjects: &[Subject], end: Instant) -> Exam {
    let lookup = &means.lookup;
    let mut exam = Exam::of(Area::Dns);
    let mut finding = JoinSet::new();
    for subject in subjects.iter().cloned() {
        let lookup = lookup.clone();
        finding.spawn(async move {
            let (zone, aliases) = tokio::join!(
                servers::zone_of(&lookup, &subject.name),
                aliases(&lookup, &subject.name)
            );
            let mut zones: Vec<(Name, Name)> = Vec::new();
            zones.extend(zone.map(|zone| (zone, subject.name.clone())));
            if let Some(alias) = aliases.last() {
                let zone = servers::zone_of(&lookup, alias).await;
                zones.extend(zone.map(|zone| (zone, alias.clone())));
            }
            (subject.name, zones)
        });
    }
    let mut by_zone: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
    let mut without: BTreeSet<&Name> = subjects.iter().map(|subject| &subject.name).collect();
    while let Ok(Some(found)) = timeout_at(end, finding.join_next()).await {
        let Ok((of, zones)) = found else {
            continue;
        };
        if !zones.is_empty() {
            without.remove(&of);
        }
        for (zone, name) in zones {
            by_zone.entry(zone).or_default().push(name);
        }
    }
    if !without.is_empty() {
        let without: Vec<String> = without.into_iter().map(words::name).collect();
        exam.not_covered.push(format!(
            "the servers of what {} stands in: no resolver told in time which zone that is; try again",
            words::list(&without)
        ));
    }
    let mut looking = JoinSet::new();
    let wanted = by_zone.len();
    for (zone, mut names) in by_zone {
        names.sort_unstable();
        names.dedup();
        looking.spawn(servers::look(lookup.clone(), zone, names));
    }
    let mut seen = Vec::new();
    while let Ok(Some(zone)) = timeout_at(end, looking.join_next()).await {
        seen.extend(zone.ok());
    }
    if seen.len() < wanted {
        exam.not_covered.push(format!(
            "the servers of {} of {wanted} zones: they take too long; try again",
            wanted - seen.len()
        ));
    }
    seen.sort_unstable_by(|one, other| one.zone.cmp(&other.zone));
    let reaches = seen
        .iter()
        .any(|zone| zone.delegation.is_some() || zone.asked.iter().any(|one| one.spoke()));
    for zone in &seen {
        let judged = delegation::judge(zone, reaches, means.now());
        exam.findings.extend(judged.findings);
        exam.not_covered.extend(judged.not_covered);
        exam.looked_at.push(format!(
            "{} of the servers of {}, by UDP and TCP",
            many(zone.asked.len(), "address"),
            words::name(&zone.zone)
        ));
    }
    exam
}

async fn aliases(lookup: &Lookup, name: &Name) -> Vec<Name> {
    let found = lookup.find(name, RecordType::A).await;
    found.map_or_else(|_| Vec::new(), |found| found.aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_whose_zone_is_not_found_is_told() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = closed.local_addr().unwrap();
        drop(closed);
        let means = Means {
            lookup: Lookup::new(Resolvers::new(vec![server]), None),
            here: Here {
                local: Vec::new(),
                public: Vec::new(),
                is_behind_others: false,
            },
            dns: Dns::default(),
            now: 0,
        };
        let subject = Subject {
            name: Name::from_ascii("www.a.test.").unwrap(),
            methods: vec!["http-01"],
            is_wildcard: false,
            persist: None,
        };
        let exam = zones(&means, &[subject], Instant::now() + IN_ALL).await;
        assert!(exam.not_covered[0].contains("www.a.test"), "{exam:?}");
    }
}
