//! What all vantage points together come to, by the arithmetic that CAs are held to (`observe::quorum`). Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use super::letsdebug::Problem;
use super::seen::{Caa, Family, Here, Outcome, Path, Service, Vantage, View};
use crate::doctor::finding::{Area, Exam, Finding, Severity};
use crate::doctor::path::End;
use crate::findings;
use crate::observe::quorum::{Rules, tolerated};
use crate::observe::report::words::many;

/// The gate's own table.
const OURS: &str = "inet acmegate";
/// The most strangers that are told of as evidence.
const MAX_STRANGERS: usize = 4;

findings! { Vantage:
    /// The gate itself does not answer as it should, whoever asks.
    NOT_ANSWERED_HERE = "not-answered-here";
    /// More vantage points fail than a CA may tolerate.
    NO_QUORUM = "no-quorum";
    /// Some fail, and no more than a CA may tolerate of its remote perspectives.
    TOLERATED = "tolerated";
    /// Those that succeed are all in one region.
    ONE_REGION = "one-region";
    /// A name has an IPv6 address at which nothing answers.
    SILENT_FAMILY = "silent-family";
    /// A zone's name server does not answer a vantage point.
    NAME_SERVER_SILENT = "name-server-silent";
    /// CAA forbids issuance as seen from somewhere.
    CAA_FORBIDS = "caa-forbids";
    /// No vantage point proves anything.
    PROVES_NOTHING = "proves-nothing";
    /// Fewer vantage points than a CA has perspectives.
    FEWER_THAN_A_CA = "fewer-than-a-ca";
    /// Let's Debug found something.
    LETS_DEBUG = "lets-debug";
    /// As many as needed got the right answer.
    ANSWERED = "answered";
}

/// Everything that was seen, and what a CA would say to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// The names that were probed.
    pub names: Vec<String>,
    /// What the gate answered to this host itself; nothing where it could not be asked.
    pub here: Vec<Here>,
    /// Every vantage point.
    pub vantage_points: Vec<Vantage>,
    /// Services, as far as their perspectives cannot be told apart.
    pub services: Vec<Service>,
    /// Packets that were dropped meanwhile, of sources that nobody here can place: perhaps perspectives.
    pub strangers: Vec<Path>,
    /// What a CA's rule makes of that, for each name.
    pub quorum: Vec<Quorum>,
    /// What Let's Debug said, where it was asked.
    pub lets_debug: Option<Vec<Problem>>,
    /// What could not be covered.
    pub not_covered: Vec<String>,
}

/// A CA's rule, applied to one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quorum {
    /// Which name.
    pub name: String,
    /// How many vantage points count.
    pub counted: u32,
    /// How many of these got the right answer.
    pub answered: u32,
    /// How many may fail.
    pub tolerated: u32,
    /// How many remote perspectives a CA has today at least, besides its primary one.
    pub remote_perspectives: u32,
    /// Whether a CA with these perspectives would issue; `null` where none counts.
    pub holds: Option<bool>,
}

impl Probe {
    /// Judges every name by the rules of the day.
    pub fn judge(&mut self, rules: Rules) {
        self.quorum = self
            .names
            .iter()
            .map(|name| self.quorum_of(name, rules))
            .collect();
    }

    fn views<'probe>(
        &'probe self,
        name: &'probe str,
    ) -> impl Iterator<Item = (&'probe Vantage, &'probe View)> {
        let counting = self
            .vantage_points
            .iter()
            .filter(|vantage| vantage.counts());
        counting.flat_map(move |vantage| {
            let views = vantage.views.iter().filter(move |view| view.name == name);
            views.map(move |view| (vantage, view))
        })
    }

    fn quorum_of(&self, name: &str, rules: Rules) -> Quorum {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let counted = number(self.views(name).count());
        let answered = number(self.views(name).filter(|(_, view)| view.is_good()).count());
        let tolerated = tolerated(counted);
        Quorum {
            name: name.to_owned(),
            counted,
            answered,
            tolerated,
            remote_perspectives: rules.remote,
            holds: (counted > 0).then_some(answered + tolerated >= counted && answered > 0),
        }
    }

    /// What a physician makes of it.
    pub fn examined(&self, rules: Rules) -> Exam {
        let mut exam = Exam::of(Area::Vantage);
        let asked = self
            .vantage_points
            .iter()
            .filter(|vantage| vantage.not_asked.is_none());
        exam.looked_at.push(many(asked.count(), "vantage point"));
        exam.not_covered.clone_from(&self.not_covered);
        for vantage in &self.vantage_points {
            if let Some(why) = &vantage.not_asked {
                exam.not_covered
                    .push(format!("{} could not be asked: {why}", vantage.from));
            }
        }
        for Here { name, outcome } in &self.here {
            if !outcome.is_good() {
                exam.findings.push(
                    Finding::new(
                        NOT_ANSWERED_HERE,
                        Severity::Fault,
                        "the gate does not give the right answer to this host itself, so nobody gets it",
                    )
                    .of(name)
                    .seen(format!("asked from here: {}", words(outcome)))
                    .remedy("`acmegate doctor` examines who listens and which site answers"),
                );
            }
        }
        for quorum in &self.quorum {
            exam.findings.extend(self.of_quorum(quorum, rules));
        }
        if !self.vantage_points.iter().any(Vantage::counts)
            && self.vantage_points.iter().any(|v| v.not_asked.is_none())
        {
            let mut finding = Finding::new(
                PROVES_NOTHING,
                Severity::Doubt,
                "no vantage point is where a CA is, so this proves nothing about the world",
            )
            .remedy("name vantage points that the allow-list does not have, in other networks: `--from ssh:HOST`");
            for vantage in &self.vantage_points {
                if let Some(why) = &vantage.proves_nothing {
                    finding = finding.seen(format!("{}: {why}", vantage.from));
                }
            }
            exam.findings.push(finding);
        }
        exam.findings.extend(self.silent_families());
        exam.findings.extend(self.name_servers());
        exam.findings.extend(self.caa());
        for problem in self.lets_debug.iter().flatten() {
            exam.findings.push(
                Finding::new(
                    LETS_DEBUG,
                    problem.severity,
                    format!("Let's Debug: {}: {}", problem.name, problem.explanation),
                )
                .of(&problem.of)
                .seen(problem.detail.clone()),
            );
        }
        exam
    }

    fn of_quorum(&self, quorum: &Quorum, rules: Rules) -> Vec<Finding> {
        let Quorum {
            name,
            counted,
            answered,
            tolerated,
            ..
        } = quorum;
        let mut findings = Vec::new();
        let Some(holds) = quorum.holds else {
            return findings;
        };
        let failed = counted - answered;
        let mut finding = match (holds, failed) {
            (true, 0) => Finding::new(ANSWERED, Severity::Fine, format!("{} got the right answer", many(*counted, "vantage point"))),
            (true, _) => Finding::new(
                TOLERATED,
                Severity::Doubt,
                format!("{failed} of {counted} vantage points failed: a CA tolerates {tolerated} of its remote perspectives, and none if it is its primary one"),
            ),
            (false, _) => Finding::new(
                NO_QUORUM,
                Severity::Fault,
                format!("{failed} of {counted} vantage points failed, and a CA tolerates {tolerated}"),
            ),
        }
        .of(name);
        for (vantage, view) in self.views(name).filter(|(_, view)| !view.is_good()) {
            finding = finding.seen(format!("{}: {}", vantage.from, of_view(view)));
            let mut culprits = BTreeSet::new();
            for path in &vantage.paths {
                finding = finding.seen(format!("{}: {}", path.source, way(path)));
                culprits.extend(
                    path.fate
                        .culprit()
                        .map(|step| (step.table.clone(), step.chain.clone())),
                );
            }
            if vantage.paths.is_empty() {
                finding = finding.seen("none of its packets was seen in the rules of this host: before this host, or its address is not known here");
            }
            for (table, chain) in culprits {
                finding = finding.remedy(remedy(&table, &chain));
            }
        }
        let is_missing =
            |(vantage, view): (&Vantage, &View)| !view.is_good() && vantage.paths.is_empty();
        if self.views(name).any(is_missing) {
            for path in self.strangers.iter().take(MAX_STRANGERS) {
                finding = finding.seen(format!(
                    "meanwhile, perhaps one of these: {}: {}",
                    path.source,
                    way(path)
                ));
                if let Some(step) = path.fate.culprit() {
                    finding = finding.remedy(remedy(&step.table, &step.chain));
                }
            }
        }
        if failed > 0 && finding.remedy.is_empty() {
            finding = finding.remedy("no rule of this host is known to drop it: look at what stands before it (router, provider, load balancer), and at the DNS");
        }
        let mut told = BTreeSet::new();
        finding.remedy.retain(|line| told.insert(line.clone()));
        findings.push(finding);
        let regions: Option<BTreeSet<_>> = self
            .views(name)
            .filter(|(_, view)| view.is_good())
            .map(|(vantage, _)| vantage.regions.first().copied())
            .collect();
        if let Some(regions) = regions
            && failed > 0
            && *answered > 1
            && u32::try_from(regions.len()).is_ok_and(|count| count < rules.regions)
        {
            findings.push(
                Finding::new(
                    ONE_REGION,
                    Severity::Doubt,
                    format!(
                        "those that got the answer are all in one region, and a CA needs {}",
                        rules.regions
                    ),
                )
                .of(name),
            );
        }
        if *counted < quorum.remote_perspectives + 1 {
            findings.push(
                Finding::new(
                    FEWER_THAN_A_CA,
                    Severity::Advice,
                    format!(
                        "{} asked, and a CA has {} remote perspectives besides its own today",
                        many(*counted, "vantage point"),
                        quorum.remote_perspectives
                    ),
                )
                .of(name)
                .remedy("more vantage points, in other regions: `--from ssh:HOST` again"),
            );
        }
        findings
    }

    fn silent_families(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for name in &self.names {
            let silent = |(vantage, view): (&Vantage, &View)| {
                (view.is_good() && view.silent().contains(&Family::Ipv6))
                    .then(|| vantage.from.clone())
            };
            let silent: Vec<String> = self.views(name).filter_map(silent).collect();
            if !silent.is_empty() {
                let finding = Finding::new(
                    SILENT_FAMILY,
                    Severity::Doubt,
                    "nothing answers at its IPv6 address: Let's Encrypt comes again over IPv4 after 10 s, and other CAs may not",
                )
                .of(name)
                .remedy("open both families together, or take the AAAA record away");
                findings.push(silent.iter().fold(finding, |finding, from| {
                    finding.seen(format!("{from}: no connection over IPv6"))
                }));
            }
        }
        findings
    }

    fn name_servers(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for name in &self.names {
            let mut seen = Vec::new();
            let asked = self
                .vantage_points
                .iter()
                .filter(|vantage| vantage.not_asked.is_none());
            for vantage in asked {
                for view in vantage.views.iter().filter(|view| view.name == *name) {
                    for server in &view.name_servers {
                        let says = match server.answer.as_deref() {
                            None => "does not answer",
                            Some("NOERROR" | "NXDOMAIN" | "connected") => continue,
                            Some(_) => "answers",
                        };
                        let answer = server.answer.as_deref().unwrap_or_default();
                        let line = format!(
                            "{}: {} ({}) {says} {answer} over {}",
                            vantage.from,
                            server.name,
                            server.address,
                            server.transport.to_uppercase()
                        );
                        seen.push(line.replace("  ", " "));
                    }
                }
            }
            if !seen.is_empty() {
                let finding = Finding::new(
                    NAME_SERVER_SILENT,
                    Severity::Doubt,
                    "a name server of its zone does not answer everywhere, and every perspective of a CA asks it, over UDP and TCP",
                )
                .of(name)
                .remedy("let the world ask port 53 over UDP and TCP, or take the server out of the zone");
                findings.push(seen.into_iter().fold(finding, Finding::seen));
            }
        }
        findings
    }

    fn caa(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for name in &self.names {
            let forbids = |(vantage, view): (&Vantage, &View)| match &view.caa {
                Some(Caa::Forbids(why)) => Some(format!("{}: {why}", vantage.from)),
                _ => None,
            };
            let seen: Vec<String> = self.views(name).filter_map(forbids).collect();
            if !seen.is_empty() {
                let finding = Finding::new(CAA_FORBIDS, Severity::Fault, "CAA forbids issuance, or cannot be looked up")
                    .of(name)
                    .remedy("name the CA in a CAA record, and the one that was meant with `--issuer DOMAIN`");
                findings.push(seen.into_iter().fold(finding, Finding::seen));
            }
        }
        findings
    }
}

fn remedy(table: &str, chain: &str) -> String {
    if table == OURS {
        return "the window is shut: without `--no-window` it is opened for the probe, as a client's hook opens it".to_owned();
    }
    format!(
        "let port 80 in where it is dropped: `nft -a list chain {table} {chain}` shows the rule; docs/firewalls.md has the mode that fits"
    )
}

/// What came of it, in words.
pub fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered {
            status: 200,
            matches: true,
        } => "200, the right octets".to_owned(),
        Outcome::Answered { status: 200, .. } => "200, and other octets than it should".to_owned(),
        Outcome::Answered { status, .. } => format!("status {status}"),
        Outcome::Broken(why) => format!("a connection, and no answer ({why})"),
        Outcome::Silent(why) => format!("no connection ({why})"),
    }
}

/// What a vantage point saw of a name, in words.
pub fn of_view(view: &View) -> String {
    let fetches: Vec<String> = view
        .fetches
        .iter()
        .map(|fetch| {
            let words = words(&fetch.outcome);
            let took = fetch
                .took
                .map_or_else(String::new, |took| format!(" in {took} ms"));
            match fetch.family {
                Family::Any => format!("{words}{took}"),
                family => format!("{}: {words}{took}", family.as_str()),
            }
        })
        .collect();
    match fetches.is_empty() {
        true => "it was not fetched".to_owned(),
        false => fetches.join("; "),
    }
}

/// Where a packet ended, in words.
pub fn way(path: &Path) -> String {
    let asked: Vec<String> = path
        .fate
        .steps
        .iter()
        .map(|step| format!("{} {}", step.table, step.chain))
        .collect();
    let mut chains: Vec<&String> = asked.iter().collect();
    chains.dedup();
    let through = match chains.len() {
        0 => "no chain".to_owned(),
        _ => chains.into_iter().cloned().collect::<Vec<_>>().join(", "),
    };
    match (&path.fate.end, path.fate.culprit()) {
        (End::Dropped { rejects }, Some(step)) => {
            let verb = if *rejects { "rejected" } else { "dropped" };
            format!("{verb} by {step}")
        }
        (End::Dropped { .. }, None) => "dropped".to_owned(),
        (End::Delivered { address, port }, _) => {
            format!("through {through}: arrived at {}", place(*address, *port))
        }
        (
            End::Forwarded {
                interface,
                address,
                port,
            },
            _,
        ) => {
            format!(
                "through {through}: sent on to {} by {interface}",
                place(*address, *port)
            )
        }
        (End::Lost(why), _) => format!("through {through}: {why}"),
    }
}

fn place(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests;
