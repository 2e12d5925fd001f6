//! What a zone's servers are worth: decided from what they said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_net::proto::rr::Name;

use super::ask::{Over, Silence};
use super::codes::*;
use super::servers::{Asked, Reply, Seen};
use super::signatures::{ago, is_before};
use super::words::{list, name, said};
use crate::doctor::finding::{Code, Finding, Severity};
use crate::observe::report::words::many;

/// What was found, and what could not be examined.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) findings: Vec<Finding>,
    pub(super) not_covered: Vec<String>,
}

/// Judges one zone. `reaches_servers` says whether any name server at all answered this host; `now` is in seconds
/// after 1970.
pub(super) fn judge(seen: &Seen, reaches_servers: bool, now: u32) -> Judged {
    let zone = Zone {
        seen,
        name: name(&seen.zone),
    };
    let mut judged = Judged::default();
    let (near, far): (Vec<&Asked>, Vec<&Asked>) = seen
        .asked
        .iter()
        .partition(|one| one.udp != Err(Silence::NoRoute) || one.tcp != Err(Silence::NoRoute));
    if !far.is_empty() {
        let addresses: Vec<IpAddr> = far.iter().map(|one| one.address).collect();
        judged.not_covered.push(format!(
            "{} of the servers of {}: this host has no way there ({}); vantage points have: `acmegate probe`",
            far.len(),
            zone.name,
            list(&addresses)
        ));
    }
    judged.findings.extend(zone.glue());
    judged.findings.extend(zone.without_address());
    if !near.is_empty() && !near.iter().any(|one| one.spoke()) && !reaches_servers {
        judged.not_covered.push(format!(
            "the servers of {}: none answers this host, nor does any other name server but its resolver; let it out to port 53, UDP and TCP, or use `acmegate probe`",
            zone.name
        ));
        return judged;
    }
    judged.findings.extend(zone.silent(&near));
    judged.findings.extend(zone.lame(&near));
    judged.findings.extend(zone.stale(&near, now));
    judged.findings.extend(zone.without_tcp(&near));
    judged.findings.extend(zone.disagreements(&near));
    judged.findings.extend(zone.serials(&near));
    judged.findings.extend(zone.other_delegation());
    if judged.findings.is_empty() && !near.is_empty() {
        let told = format!(
            "all servers of {} have it and answer by UDP and TCP, {} in all",
            zone.name,
            many(near.len(), "address")
        );
        judged
            .findings
            .push(zone.finding(SERVERS_FINE, Severity::Fine, told));
    }
    judged
}

struct Zone<'a> {
    seen: &'a Seen,
    name: String,
}

impl Zone<'_> {
    fn finding(&self, code: Code, severity: Severity, text: String) -> Finding {
        let finding = Finding::new(code, severity, text);
        let names = self.seen.names.iter().map(name);
        names.fold(finding, Finding::of)
    }

    /// All of the servers is certain; some of them, luck.
    fn severity(bad: usize, all: usize) -> Severity {
        match bad == all {
            true => Severity::Fault,
            false => Severity::Doubt,
        }
    }

    /// What a server that is silent or lame means: nobody has the zone where each is one or the other.
    fn unserved(near: &[&Asked]) -> Severity {
        let is_bad = |one: &&&Asked| one.udp.is_err() || why_lame(one).is_some();
        Self::severity(near.iter().filter(is_bad).count(), near.len())
    }

    /// Servers below the zone can be found by the parent's word alone (RFC 1034 §4.2.1).
    fn glue(&self) -> Option<Finding> {
        let delegation = self
            .seen
            .delegation
            .as_ref()
            .filter(|one| one.is_referral)?;
        let is_missing = |server: &&Name| {
            self.seen.zone.zone_of(server) && !delegation.glue.contains_key(*server)
        };
        let missing: Vec<String> = delegation
            .servers
            .iter()
            .filter(is_missing)
            .map(name)
            .collect();
        if missing.is_empty() {
            return None;
        }
        let severity = Self::severity(missing.len(), delegation.servers.len());
        let text = format!(
            "the zone above {} does not say where its servers are: {}",
            self.name,
            list(&missing)
        );
        let finding = self.finding(MISSING_GLUE, severity, text);
        let finding = finding.seen(format!(
            "the referral to {} names {}, and no address of {}",
            self.name,
            many(delegation.servers.len(), "server"),
            list(&missing)
        ));
        Some(finding.remedy(format!(
            "have the registrar, or whoever keeps the zone above, add glue records: A and AAAA of {}",
            list(&missing)
        )))
    }

    fn without_address(&self) -> Option<Finding> {
        // Those without glue have been told.
        let told = |server: &&Name| {
            let glue = self.seen.delegation.as_ref().filter(|one| one.is_referral);
            glue.is_some() && self.seen.zone.zone_of(server)
        };
        let without = self.seen.without_address.iter().filter(|one| !told(one));
        let without: Vec<String> = without.map(name).collect();
        if without.is_empty() {
            return None;
        }
        let severity = match self.seen.asked.is_empty() {
            true => Severity::Fault,
            false => Severity::Doubt,
        };
        let text = format!(
            "{} has servers without an address: {}",
            self.name,
            list(&without)
        );
        let finding = self.finding(SERVER_WITHOUT_ADDRESS, severity, text);
        Some(
            finding
                .seen("neither A nor AAAA of them could be looked up")
                .remedy(
                    "mend these names, or take their NS records out, here and in the zone above",
                ),
        )
    }

    fn silent(&self, near: &[&Asked]) -> Option<Finding> {
        let silent: Vec<&&Asked> = near.iter().filter(|one| one.udp.is_err()).collect();
        if silent.is_empty() {
            return None;
        }
        let servers: Vec<String> = silent.iter().map(|one| one.shown()).collect();
        let severity = Self::unserved(near);
        let text = match (silent.len() == near.len(), severity) {
            (true, _) => format!("no server of {} answers", self.name),
            (false, Severity::Fault) => format!(
                "no server of {} has the zone, and some do not answer: {}",
                self.name,
                list(&servers)
            ),
            (false, _) => format!(
                "a server of {} does not answer: {}",
                self.name,
                list(&servers)
            ),
        };
        let finding = self.finding(SERVER_SILENT, severity, text);
        let finding = silent.iter().take(6).fold(finding, |finding, one| {
            let outcome = |result: &Result<Reply, Silence>| match result {
                Ok(_) => "answers".to_owned(),
                Err(silence) => silence.to_string(),
            };
            let (udp, tcp) = (outcome(&one.udp), outcome(&one.tcp));
            finding.seen(format!("{}: UDP: {udp}; TCP: {tcp}", one.shown()))
        });
        Some(finding.remedy(
            "open port 53, UDP and TCP, for the world on that server: CAs ask it from everywhere, and a geographical filter on it fails validations as one on port 80 does",
        ))
    }

    fn lame(&self, near: &[&Asked]) -> Option<Finding> {
        let lame: Vec<(&&Asked, &str)> = near
            .iter()
            .filter_map(|one| Some((one, why_lame(one)?)))
            .collect();
        if lame.is_empty() {
            return None;
        }
        let servers: Vec<String> = lame.iter().map(|(one, _)| one.shown()).collect();
        let severity = Self::unserved(near);
        let text = match severity {
            Severity::Fault => format!("no server of {} has the zone", self.name),
            _ => format!(
                "a server of {} does not have the zone: {}",
                self.name,
                list(&servers)
            ),
        };
        let finding = self.finding(SERVER_LAME, severity, text);
        let finding = lame.iter().take(6).fold(finding, |finding, (one, why)| {
            finding.seen(format!(
                "{}, asked for the zone: {}",
                one.shown(),
                said(why)
            ))
        });
        Some(finding.remedy(format!(
            "have that server serve {}, or take its NS record out, here and in the zone above",
            self.name
        )))
    }

    fn stale(&self, near: &[&Asked], now: u32) -> Option<Finding> {
        let stale: Vec<(&&Asked, u32)> = near
            .iter()
            .filter_map(|one| Some((one, one.signed_until?)))
            .filter(|(_, until)| is_before(*until, now))
            .collect();
        if stale.is_empty() {
            return None;
        }
        let servers: Vec<String> = stale.iter().map(|(one, _)| one.shown()).collect();
        let text = format!(
            "a server of {} gives signatures that have ended: {}",
            self.name,
            list(&servers)
        );
        let severity = Self::severity(stale.len(), near.len());
        let finding = self.finding(SERVER_STALE, severity, text);
        let finding = stale.iter().take(6).fold(finding, |finding, (one, until)| {
            let ended = ago(now.wrapping_sub(*until));
            finding.seen(format!(
                "{}: its signature over SOA ended {ended} ago",
                one.shown()
            ))
        });
        Some(finding.remedy(format!(
            "see why {} is not transferred to that server, or why it is not signed anew: perspectives may ask it as well as any other",
            self.name
        )))
    }

    fn without_tcp(&self, near: &[&Asked]) -> Option<Finding> {
        let shut: Vec<(&&Asked, &Silence)> = near
            .iter()
            .filter(|one| one.udp.is_ok())
            .filter_map(|one| Some((one, one.tcp.as_ref().err()?)))
            .collect();
        if shut.is_empty() {
            return None;
        }
        let servers: Vec<String> = shut.iter().map(|(one, _)| one.shown()).collect();
        let text = format!(
            "a server of {} answers by {} and not by {}: {}",
            self.name,
            Over::Udp,
            Over::Tcp,
            list(&servers)
        );
        let finding = self.finding(TCP_SHUT, Severity::Doubt, text);
        let finding = shut
            .iter()
            .take(6)
            .fold(finding, |finding, (one, silence)| {
                finding.seen(format!("{}, TCP port 53: {silence}", one.shown()))
            });
        let finding = match near.iter().any(|one| one.tcp.is_ok()) {
            true => finding,
            false => finding.seen(
                "no server answers by TCP: it may be this host that is not let out to port 53",
            ),
        };
        Some(finding.remedy(
            "open TCP port 53 on that server: what does not fit into a datagram, such as signed answers, is asked by TCP",
        ))
    }

    fn disagreements(&self, near: &[&Asked]) -> Vec<Finding> {
        let differs = |own: &&Name| {
            let mut answers = near.iter().filter_map(|one| one.answers.get(*own));
            let first = answers.next();
            answers.any(|other| Some(other) != first)
        };
        let names = self.seen.names.iter().filter(differs);
        let finding = |own: &Name| {
            let own_name = name(own);
            let text = format!(
                "the servers of {} give different addresses of {own_name}",
                self.name
            );
            let mut finding = Finding::new(SERVERS_DISAGREE, Severity::Doubt, text).of(own_name);
            let mut by_answer: BTreeMap<&[IpAddr], Vec<String>> = BTreeMap::new();
            for one in near {
                if let Some(answer) = one.answers.get(own) {
                    by_answer.entry(answer).or_default().push(one.shown());
                }
            }
            for (answer, servers) in by_answer.into_iter().take(6) {
                let answer = match answer {
                    [] => "none".to_owned(),
                    answer => list(answer),
                };
                finding = finding.seen(format!("{answer}: {}", list(&servers)));
            }
            finding.remedy(format!(
                "have every server of {} load the same zone; where answers differ on purpose, each address has to lead to the same answer",
                self.name
            ))
        };
        names.map(finding).collect()
    }

    fn serials(&self, near: &[&Asked]) -> Option<Finding> {
        let mut serials: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for one in near {
            if let Ok(Reply::Has(Some(serial))) = one.tcp.as_ref().or(one.udp.as_ref()) {
                serials.entry(*serial).or_default().push(one.shown());
            }
        }
        if serials.len() < 2 {
            return None;
        }
        let text = format!("the servers of {} have different versions of it", self.name);
        let finding = self.finding(SERIALS_DIFFER, Severity::Advice, text);
        let finding = serials
            .into_iter()
            .take(6)
            .fold(finding, |finding, (serial, servers)| {
                finding.seen(format!("serial {serial}: {}", list(&servers)))
            });
        Some(finding.remedy(
            "if it is not a change that is on its way, see why the zone is not transferred to those with the lower serial",
        ))
    }

    fn other_delegation(&self) -> Option<Finding> {
        let delegation = self
            .seen
            .delegation
            .as_ref()
            .filter(|one| one.is_referral)?;
        let own = &self.seen.own;
        let is_same = own.iter().all(|one| delegation.servers.contains(one))
            && delegation.servers.iter().all(|one| own.contains(one));
        if own.is_empty() || is_same {
            return None;
        }
        let text = format!("{} and the zone above it name different servers", self.name);
        let names = |servers: &[Name]| list(&servers.iter().map(name).collect::<Vec<_>>());
        Some(
            self.finding(DELEGATION_DIFFERS, Severity::Advice, text)
                .seen(format!("the zone above names {}", names(&delegation.servers)))
                .seen(format!("{} names {}", self.name, names(own)))
                .remedy("have the registrar, or whoever keeps the zone above, name the servers that the zone names"),
        )
    }
}

/// Why a server has not the zone, where it says so by either transport.
fn why_lame(one: &Asked) -> Option<&str> {
    match (&one.udp, &one.tcp) {
        (Ok(Reply::Lame(why)), _) | (_, Ok(Reply::Lame(why))) => Some(why),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(udp: Result<Reply, Silence>, tcp: Result<Reply, Silence>) -> Asked {
        Asked {
            server: Name::from_ascii("ns.a.test.").unwrap(),
            address: "192.0.2.53".parse().unwrap(),
            udp,
            tcp,
            signed_until: None,
            answers: BTreeMap::new(),
        }
    }

    /// What is found of a zone of which this alone was seen.
    fn found(asked: Vec<Asked>) -> Vec<(Code, Severity)> {
        let seen = Seen {
            zone: Name::from_ascii("a.test.").unwrap(),
            names: Vec::new(),
            delegation: None,
            own: Vec::new(),
            without_address: Vec::new(),
            asked,
        };
        let judged = judge(&seen, true, 0);
        let found = judged.findings.iter().map(|one| (one.code, one.severity));
        found.collect()
    }

    #[test]
    fn a_silent_server_beside_a_lame_one_is_a_zone_that_nobody_serves() {
        let by_both = |reply: Result<Reply, Silence>| asked(reply.clone(), reply);
        let severities = |third: Option<Asked>| {
            let two = [
                by_both(Ok(Reply::Lame("REFUSED".to_owned()))),
                by_both(Err(Silence::Refused)),
            ];
            found(two.into_iter().chain(third).collect())
        };
        let of_both = |severity| vec![(SERVER_SILENT, severity), (SERVER_LAME, severity)];
        assert_eq!(severities(None), of_both(Severity::Fault));
        let serves = by_both(Ok(Reply::Has(Some(7))));
        assert_eq!(severities(Some(serves)), of_both(Severity::Doubt));
    }

    #[test]
    fn versions_that_are_not_known_do_not_differ() {
        let has = |serial| Ok(Reply::Has(serial));
        let differ = |other: Asked| {
            let found = found(vec![asked(has(Some(7)), has(Some(7))), other]);
            found.iter().any(|(code, _)| *code == SERIALS_DIFFER)
        };
        assert!(differ(asked(has(Some(8)), Err(Silence::Refused))));
        assert!(!differ(asked(has(None), Err(Silence::Refused))));
    }
}
