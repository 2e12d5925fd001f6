//! Findings of chains that drop what a window is opened for, and of ports that are open without one.

use super::answer::{Answer, Shut};
use super::{
    DROPPED, NAME_SERVER_DROPPED, ONE_FAMILY, ONE_INTERFACE, OPEN_WITHOUT_WINDOW, View, culprits,
};
use crate::doctor::finding::{Finding, Severity};
use crate::firewall::base_chains::{Culprit, IpFamily, Transport};
use crate::firewall::ruleset::Mode;

impl View<'_> {
    pub(super) fn dropped(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for ((port, _), answers) in self.by_port() {
            let family = |wanted| -> Vec<&Answer> {
                let all = answers.iter().copied();
                all.filter(|answer| answer.family == wanted).collect()
            };
            let (v4, v6) = (family(IpFamily::V4), family(IpFamily::V6));
            // One way in is enough: a host may well be shut on its inner interfaces.
            let is_shut = |answers: &[&Answer]| {
                !answers.is_empty() && answers.iter().all(|answer| !answer.culprits.is_empty())
            };
            let dropped: Vec<&Answer> = [&v4, &v6]
                .into_iter()
                .filter(|answers| is_shut(answers))
                .flatten()
                .copied()
                .collect();
            let passing: Vec<&Answer> = [&v4, &v6]
                .into_iter()
                .filter(|answers| !is_shut(answers))
                .flatten()
                .copied()
                .collect();
            if let Some(first) = dropped.first() {
                found.push(self.shut(first, &dropped, !passing.is_empty()));
            }
            let partly = passing.iter().filter(|answer| !answer.culprits.is_empty());
            found.extend(partly.map(|answer| self.shut_by_one_way(answer, port)));
        }
        found
    }

    fn shut(&self, first: &Answer, dropped: &[&Answer], other_passes: bool) -> Finding {
        let Answer {
            family,
            port,
            transport,
            ..
        } = first;
        let culprits = culprits(dropped);
        let Some(culprit) = culprits.first() else {
            // There are only such answers here.
            return Finding::new(DROPPED, Severity::Fault, "dropped");
        };
        let is_name_server = self.is_name_server(first);
        let (code, severity) = match (is_name_server, other_passes) {
            // Which of its zones' servers a CA's resolver asks is not known here.
            (true, _) => (NAME_SERVER_DROPPED, Severity::Doubt),
            (false, true) => (ONE_FAMILY, Severity::Fault),
            (false, false) => (DROPPED, Severity::Fault),
        };
        let sentence = match (is_name_server, other_passes) {
            (true, false) => format!("{culprit}, and a name server answers there"),
            (true, true) => format!("{culprit} over {family}, and a name server answers there"),
            (false, true) => format!("{culprit} over {family} alone, window or not"),
            (false, false) => format!("{culprit}, window or not"),
        };
        let mut finding = Finding::new(code, severity, sentence).at(*port);
        for culprit in &culprits {
            finding = finding.seen(format!(
                "{} ({}) drops {} {port} over {}",
                self.at(&culprit.place),
                culprit.manager.as_str(),
                transport.as_str(),
                culprit.packet(),
            ));
        }
        let remedies = match code {
            // What is open for good in the other family only guard shuts outside of windows.
            ONE_FAMILY if !matches!(self.settings.mode, Mode::Attach(_)) => culprits
                .iter()
                .map(|culprit| format!("{}, and use mode `guard`", culprit.opening()))
                .collect(),
            _ => self.remedies(&culprits, *transport, is_name_server),
        };
        for line in remedies {
            finding = finding.remedy(line);
        }
        if code == ONE_FAMILY {
            finding = finding.remedy(match family {
                IpFamily::V6 => {
                    "or have no AAAA record for the names, and open windows with `--family ipv4`: a CA tries IPv6 first"
                }
                IpFamily::V4 => "or have no A record for the names, and open windows with `--family ipv6`",
            });
        }
        finding
    }

    fn shut_by_one_way(&self, answer: &Answer, port: u16) -> Finding {
        let Answer {
            interface, family, ..
        } = answer;
        let all = culprits(&[answer]);
        let culprit = all.first().map(|culprit| self.at(&culprit.place));
        let sentence = format!(
            "port {port} is dropped on {interface} over {family}, and passes by another interface"
        );
        let mut finding = Finding::new(ONE_INTERFACE, Severity::Doubt, sentence).at(port);
        finding.evidence.extend(culprit);
        let is_name_server = self.is_name_server(answer);
        for line in self.remedies(&all, answer.transport, is_name_server) {
            finding = finding.remedy(line);
        }
        finding.remedy(format!(
            "or see to it that no address record leads to an address of {interface}"
        ))
    }

    /// Whether it is about names, not about a window.
    fn is_name_server(&self, answer: &Answer) -> bool {
        answer.transport == Transport::Udp || !self.settings.ports.contains(&answer.port)
    }

    /// The mode and the line of configuration that fit, then what each manager can be told itself.
    fn remedies(
        &self,
        culprits: &[&Culprit],
        transport: Transport,
        is_name_server: bool,
    ) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut add = |line: String| {
            if !lines.contains(&line) {
                lines.push(line);
            }
        };
        if is_name_server || transport == Transport::Udp {
            culprits.iter().for_each(|culprit| add(culprit.opening()));
            return lines;
        }
        let attached: Vec<String> = match &self.settings.mode {
            Mode::Attach(chains) => chains.iter().map(ToString::to_string).collect(),
            Mode::Guard | Mode::Set(_) | Mode::GateOnly => Vec::new(),
        };
        let is_attached = |culprit: &Culprit| attached.contains(&culprit.place.base_name());
        let others: Option<Vec<&[String]>> = culprits.iter().map(|c| c.chains()).collect();
        if let Some(others) = others
            && !culprits.iter().any(|culprit| is_attached(culprit))
        {
            let mut chains = attached.clone();
            for chain in others.into_iter().flatten() {
                if !chains.contains(chain) {
                    chains.push(chain.clone());
                }
            }
            let quoted: Vec<String> = chains.iter().map(|chain| format!("\"{chain}\"")).collect();
            let file = self.config.source.as_deref();
            let file = file.unwrap_or(std::path::Path::new(crate::config::DEFAULT_PATH));
            add(format!(
                "under `[firewall]` of {} write `mode = \"attach\"` and `chains = [{}]`",
                file.display(),
                quoted.join(", ")
            ));
            for culprit in culprits {
                add(format!("or {}", culprit.own_words()));
            }
            return lines;
        }
        for culprit in culprits {
            match is_attached(culprit) {
                true => add(culprit.advice(&attached)),
                false => add(culprit.own_words()),
            }
        }
        lines
    }

    pub(super) fn without_window(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for ((port, _), answers) in self.by_port() {
            let open: Vec<&&Answer> = answers
                .iter()
                .filter(|answer| answer.shut == Shut::Passes && !answer.is_lost())
                .collect();
            if open.is_empty() {
                continue;
            }
            let sentence = format!("the world gets to tcp port {port} without any window");
            let mut finding = Finding::new(OPEN_WITHOUT_WINDOW, Severity::Doubt, sentence).at(port);
            for answer in open {
                finding = finding.seen(format!(
                    "over {} by {} no chain drops it",
                    answer.family, answer.interface
                ));
            }
            let has_table = self.reading.has_our_table();
            found.push(match &self.settings.mode {
                _ if !has_table => finding
                    .seen("acmegate's own table is not in the kernel")
                    .remedy("start the daemon: `systemctl enable --now acmegate`")
                    .remedy("or `acmegate firewall apply`"),
                Mode::Attach(_) | Mode::Set(_) => finding.remedy(
                    "use mode `guard`, which shuts what the host's firewall leaves open, or take the rule away \
                     that opens the port for good",
                ),
                Mode::Guard | Mode::GateOnly => finding.remedy(
                    "`acmegate firewall apply` puts acmegate's rules back; `acmegate status` says who took them away",
                ),
            });
        }
        found
    }
}
