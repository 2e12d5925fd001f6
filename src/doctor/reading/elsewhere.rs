//! Findings of ports that a rule sends to another host or another port, and of flowtables.

use std::net::SocketAddr;

use super::answer::Answer;
use super::{OFFLOADED, SENT_ELSEWHERE, SENT_NOWHERE, View};
use crate::doctor::finding::{Finding, Severity};
use crate::firewall::base_chains::{Manager, Onward, Place, To};

impl View<'_> {
    pub(super) fn elsewhere(&self) -> Vec<Finding> {
        let mut found: Vec<Finding> = Vec::new();
        for answer in self.answers {
            for (place, to, onward) in &answer.open.translated {
                let finding = match onward {
                    Onward::NotForwarded | Onward::NoRoute => {
                        self.sent_nowhere(answer, place, *to, *onward)
                    }
                    Onward::Here | Onward::Out(_) | Onward::Unknown => {
                        self.sent_elsewhere(answer, place, *to, *onward)
                    }
                };
                merge(&mut found, finding);
            }
            for (place, flowtable) in &answer.open.offloaded {
                merge(&mut found, self.offloaded(answer, place, flowtable));
            }
        }
        found
    }

    fn sent_elsewhere(&self, answer: &Answer, place: &Place, to: To, onward: Onward) -> Finding {
        let (port, transport) = (answer.port, answer.transport.as_str());
        let (whom, target) = (self.whose(place), self.target(answer, to, onward));
        // The gate hears what comes for a port of its own on this host.
        let inner = to.port.unwrap_or(port);
        let stays = onward == Onward::Here;
        let listens = self
            .config
            .http
            .listen
            .iter()
            .chain(&self.config.tls.listen);
        let ports: Vec<u16> = listens.map(SocketAddr::port).collect();
        let sentence = format!("{whom} sends {transport} port {port} to {target}");
        if stays && ports.contains(&inner) {
            return Finding::new(
                SENT_ELSEWHERE,
                Severity::Fine,
                format!("{sentence}, where acmegate listens"),
            )
            .at(port)
            .seen(self.at(place));
        }
        if !ports.contains(&port) {
            return Finding::new(
                SENT_ELSEWHERE,
                Severity::Advice,
                format!("{sentence}, who must answer the challenge there"),
            )
            .at(port)
            .seen(self.at(place))
            .remedy(
                "have a site with `upstream` answer for it, if the ACME client runs on this host: then \
                 acmegate listens on the port, and nobody sends it on",
            );
        }
        let finding = Finding::new(
            SENT_ELSEWHERE,
            Severity::Fault,
            format!("{sentence}, and never to acmegate, which listens on {port}"),
        )
        .at(port)
        .seen(self.at(place));
        let finding = match self.reading.rules.manager(place) {
            Manager::Docker => finding.remedy(format!(
                "publish the container on another port (`-p 127.0.0.1:8080:80` rather than `-p {port}:80`) and name \
                 that address as the site's `server` or `upstream`"
            )),
            _ => finding.remedy(format!(
                "take the rule away, or keep {transport} port {port} of this host out of it"
            )),
        };
        finding
            .remedy(
                "or divert what comes in a window past it: `listen = \"divert\"` under `[http]`",
            )
            .remedy("or let the inner host answer by itself: `listen = []` under `[http]`")
    }

    fn sent_nowhere(&self, answer: &Answer, place: &Place, to: To, onward: Onward) -> Finding {
        let (port, transport) = (answer.port, answer.transport.as_str());
        let (whom, target) = (self.whose(place), self.target(answer, to, onward));
        let why = match onward {
            Onward::NoRoute => "there is no route to it",
            _ => "this host sends nothing on",
        };
        let finding = Finding::new(
            SENT_NOWHERE,
            Severity::Fault,
            format!("{whom} sends {transport} port {port} to {target}, and {why}"),
        )
        .at(port)
        .seen(self.at(place));
        match onward {
            Onward::NoRoute => {
                finding.remedy("bring the interface up that leads there: `ip route`")
            }
            _ => finding.remedy(format!(
                "`sysctl -w {}`, and the same in a file of /etc/sysctl.d",
                match answer.family {
                    crate::firewall::base_chains::IpFamily::V4 => "net.ipv4.ip_forward=1",
                    crate::firewall::base_chains::IpFamily::V6 => "net.ipv6.conf.all.forwarding=1",
                }
            )),
        }
    }

    fn offloaded(&self, answer: &Answer, place: &Place, flowtable: &str) -> Finding {
        Finding::new(
            OFFLOADED,
            Severity::Advice,
            format!(
                "flowtable {flowtable} takes connections to {} port {} past every later chain",
                answer.transport.as_str(),
                answer.port
            ),
        )
        .seen(self.at(place))
        .remedy(format!(
            "keep the port out of it, or a connection that a window admitted goes on when it has closed: begin the \
             rule with `meta l4proto tcp ct original proto-dst != {}`",
            answer.port
        ))
    }

    /// To `172.17.0.2 port 8080`.
    fn target(&self, answer: &Answer, to: To, onward: Onward) -> String {
        let port = to.port.unwrap_or(answer.port);
        let address = match to.address {
            Some(address) => address.to_string(),
            None => "this host's".to_owned(),
        };
        let by = match onward {
            Onward::Out(index) => self.reading.routes.name(index),
            _ => None,
        };
        match by {
            Some(interface) => format!("{address} port {port} beyond {interface}"),
            None => format!("{address} port {port}"),
        }
    }

    fn whose(&self, place: &Place) -> String {
        match self.reading.rules.manager(place) {
            Manager::Nftables => place.to_string(),
            manager => format!("{} ({place})", manager.as_str()),
        }
    }
}

/// The same of several ways and families is told once, with the evidence of each.
pub(super) fn merge(found: &mut Vec<Finding>, finding: Finding) {
    let same = found
        .iter_mut()
        .find(|known| known.code == finding.code && known.finding == finding.finding);
    match same {
        Some(known) => {
            for line in finding.evidence {
                if !known.evidence.contains(&line) {
                    known.evidence.push(line);
                }
            }
        }
        None => found.push(finding),
    }
}
