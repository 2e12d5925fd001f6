//! Reads the live ruleset, and says which of it would stop a validation.
//!
//! Every base chain on the packets' path is read by netlink and judged by `firewall::base_chains`, the engine
//! that `open` asks too, so the two never differ: for each way in, both families, the configured ports and, on
//! a name server, port 53. The elements of address lists are never read, so it takes milliseconds beside the
//! longest of them; and since no packet is sent, a rule that is not understood is a doubt and no more. What
//! the kernel itself says of the same is the twin's.
//!
//! | file | |
//! | --- | --- |
//! | `taken.rs` | what is read of the host: rules, routes, switches |
//! | `answer.rs` | what becomes of each packet, in a window and outside; pure |
//! | `shut.rs` `elsewhere.rs` `limits.rs` `doubts.rs` `host.rs` | findings; pure |

mod answer;
mod doubts;
mod elsewhere;
mod host;
mod limits;
mod shut;
mod taken;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::case::Case;
use super::finding::{Area, Exam, Finding, Severity};
use crate::config::Config;
use crate::firewall::base_chains::{Culprit, Doubt, IpFamily, Path, Place, Transport};
use crate::firewall::ruleset::Settings;
use crate::observe::report::words::many;

pub use self::answer::{Answer, Shut};
pub use self::taken::Reading;

crate::findings! { Firewall:
    /// Some chain drops what a window is opened for, in every family that the host has.
    DROPPED = "dropped";
    /// The same in one family, while the other passes.
    ONE_FAMILY = "one-family-dropped";
    /// The same on one of several interfaces that the Internet may come by.
    ONE_INTERFACE = "one-interface-dropped";
    /// DNAT or a published container port takes the port to another host, or another port.
    SENT_ELSEWHERE = "sent-elsewhere";
    /// It is sent to where no packet gets.
    SENT_NOWHERE = "sent-nowhere";
    /// A limit lets too few of several perspectives through at once.
    LIMITED = "limited";
    /// A rule drops the sources of some list.
    DROPS_SOME = "drops-some-sources";
    /// A rule lets packets pass at some times only.
    TIMED = "only-at-times";
    /// A rule decides that is not understood.
    NOT_UNDERSTOOD = "not-understood";
    /// A rule hands packets to a program, a proxy or another device.
    HANDED_OVER = "handed-over";
    /// A flowtable takes connections past the chains that would end them.
    OFFLOADED = "offloaded";
    /// The world gets to the port without a window.
    OPEN_WITHOUT_WINDOW = "open-without-a-window";
    /// A name server's port 53 is dropped.
    NAME_SERVER_DROPPED = "name-server-dropped";
    /// iptables-legacy has rules that nobody here can see.
    LEGACY = "iptables-legacy";
    /// Packets that come by one interface are dropped because the answer would leave by another.
    REVERSE_PATH = "reverse-path-filter";
    /// The kernel gives up new connections early in a flood.
    NO_SYN_COOKIES = "no-syn-cookies";
    /// The packets of a validation pass.
    PASSES = "passes";
}

/// As long as this exam may take; a reading takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Reads the network namespace that the caller is in, and examines it.
pub async fn examine(case: &Case) -> Exam {
    let examined = async {
        let reading = Reading::take().await?;
        Ok::<Exam, crate::firewall::error::KernelError>(reading.examine(case).await)
    };
    match tokio::time::timeout(DEADLINE, examined).await {
        Ok(Ok(exam)) => exam,
        Ok(Err(error)) => not_covered(format!(
            "the ruleset was not read ({error}): run as root, with CAP_NET_ADMIN"
        )),
        Err(_) => not_covered(format!(
            "the ruleset was not read within {} s: try again when nobody is loading rules",
            DEADLINE.as_secs()
        )),
    }
}

fn not_covered(why: String) -> Exam {
    let mut exam = Exam::of(Area::Firewall);
    exam.not_covered.push(why);
    exam
}

impl Reading {
    /// Examines what was read. Asks the kernel for the text of the rules that are named.
    pub async fn examine(&self, case: &Case) -> Exam {
        let settings = case.settings();
        let answers = self.answers(&settings);
        let words = self.words(&places(&answers)).await;
        let view = View {
            reading: self,
            config: &case.config,
            settings: &settings,
            names: case.names.len(),
            answers: &answers,
            words,
        };
        view.exam()
    }
}

/// Every rule that the answers name.
fn places(answers: &[Answer]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for answer in answers {
        let culprits = answer.culprits.iter().chain(&answer.over);
        places.extend(culprits.map(|culprit| culprit.place.clone()));
        let met = &answer.open;
        places.extend(met.translated.iter().map(|(place, ..)| place.clone()));
        places.extend(met.limits.iter().map(|(place, _)| place.clone()));
        places.extend(met.offloaded.iter().map(|(place, _)| place.clone()));
        places.extend(met.timed.iter().cloned());
        places.extend(answer.doubts().iter().filter_map(doubted).cloned());
    }
    places.sort_by_key(ToString::to_string);
    places.dedup();
    places
}

/// The rule that a doubt is about.
fn doubted(doubt: &Doubt) -> Option<&Place> {
    match doubt {
        Doubt::DropsListed(place)
        | Doubt::Unclear(place)
        | Doubt::Translated(place)
        | Doubt::Queued(place)
        | Doubt::Proxied(place)
        | Doubt::Forwarded(place) => Some(place),
        Doubt::TooLong | Doubt::Changing => None,
    }
}

/// What the findings are made of.
struct View<'a> {
    reading: &'a Reading,
    config: &'a Config,
    settings: &'a Settings,
    /// How many names are to be validated.
    names: usize,
    answers: &'a [Answer],
    /// The rules that are named, as people know them.
    words: HashMap<Place, String>,
}

impl<'a> View<'a> {
    fn exam(&self) -> Exam {
        let mut exam = Exam::of(Area::Firewall);
        exam.looked_at = self.looked_at();
        exam.findings = [
            self.dropped(),
            self.elsewhere(),
            self.limited(),
            self.doubted(),
            self.without_window(),
            self.of_the_host(),
            self.passing(),
        ]
        .concat();
        let severity = |finding: &Finding| std::cmp::Reverse(finding.severity);
        exam.findings.sort_by_key(severity);
        exam.not_covered = self.not_covered();
        exam
    }

    /// The answers of one port, in the order of the ways.
    fn by_port(&self) -> BTreeMap<(u16, &'static str), Vec<&'a Answer>> {
        let mut ports: BTreeMap<_, Vec<&Answer>> = BTreeMap::new();
        for answer in self.answers {
            let port = (answer.port, answer.transport.as_str());
            ports.entry(port).or_default().push(answer);
        }
        ports
    }

    /// A place and the rule that stands there: "inet filter input rule 7: `tcp dport 80 drop`".
    fn at(&self, place: &Place) -> String {
        match self.words.get(place) {
            Some(rule) => format!("{place}: `{rule}`"),
            None => place.to_string(),
        }
    }

    fn looked_at(&self) -> Vec<String> {
        let chains = self.reading.rules.base_chains();
        let mut tables: Vec<String> = chains
            .iter()
            .map(|chain| [chain.family.name(), &chain.table].join(" "))
            .collect();
        tables.sort();
        tables.dedup();
        let mut lines = vec![format!(
            "{} on the way in, of {}",
            many(chains.len(), "base chain"),
            many(tables.len(), "table")
        )];
        lines.extend(chains.iter().map(|chain| {
            let drops = self.drops_alone(&chain.full_name());
            match drops.is_empty() {
                true => chain.to_string(),
                false => format!("{chain}; drops {}", drops.join(", ")),
            }
        }));
        let ways = &self.reading.ways;
        let ways = ways
            .iter()
            .map(|way| format!("{} by {}", taken::family(way.family), way.interface));
        lines.push(format!(
            "ways in: {}",
            match ways.collect::<Vec<_>>() {
                ways if ways.is_empty() => "none".to_owned(),
                ways => ways.join(", "),
            }
        ));
        lines
    }

    /// What a base chain would drop if all others accepted it: `80/tcp`, or with a family `80/tcp (IPv6)`.
    fn drops_alone(&self, chain: &str) -> Vec<String> {
        let mut found = Vec::new();
        for ((port, transport), answers) in self.by_port() {
            let alone = |answer: &&&Answer| {
                let mut all = answer.culprits.iter();
                all.any(|culprit| culprit.place.base_name() == chain)
            };
            let mut families: Vec<IpFamily> = Vec::new();
            let mut dropping = 0;
            for answer in answers.iter().filter(alone) {
                dropping += 1;
                if !families.contains(&answer.family) {
                    families.push(answer.family);
                }
            }
            if dropping == 0 {
                continue;
            }
            let has_other = answers.iter().any(|a| !families.contains(&a.family));
            found.push(match families.as_slice() {
                [one] if has_other => format!("{port}/{transport} ({one})"),
                _ => format!("{port}/{transport}"),
            });
        }
        found
    }

    fn not_covered(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.answers.is_empty() {
            lines.push(
                "no interface has an address that the Internet could know: nothing was judged; examine the host \
                 that the Internet comes to"
                    .to_owned(),
            );
        }
        lines
    }

    /// What is as it should be.
    fn passing(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for ((port, transport), answers) in self.by_port() {
            let is_clear = |answer: &&Answer| match &answer.open.path {
                Path::Passes { doubts } => doubts.is_empty() && answer.over.is_none(),
                Path::Drops(_) => false,
            };
            if !answers.iter().all(is_clear) || answers.iter().any(|answer| answer.is_lost()) {
                continue;
            }
            let when = match answers[0].transport {
                Transport::Tcp => " in a window",
                Transport::Udp => "",
            };
            let finding = format!("{transport} port {port} passes every chain{when}");
            let mut finding = Finding::new(PASSES, Severity::Fine, finding).at(port);
            for answer in answers {
                finding = finding.seen(format!("{} by {}", answer.family, answer.interface));
            }
            found.push(finding);
        }
        found
    }
}

/// What stops the same port in several families and by several ways, once each.
fn culprits<'a>(answers: &[&'a Answer]) -> Vec<&'a Culprit> {
    let mut found: Vec<&Culprit> = Vec::new();
    for culprit in answers.iter().flat_map(|answer| &answer.culprits) {
        if !found.contains(&culprit) {
            found.push(culprit);
        }
    }
    found
}
