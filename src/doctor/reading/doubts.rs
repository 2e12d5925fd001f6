//! Findings of rules that decide over some packets only, or that cannot be judged.

use super::elsewhere::merge;
use super::{DROPS_SOME, HANDED_OVER, NOT_UNDERSTOOD, TIMED, View};
use crate::doctor::finding::{Finding, Severity};
use crate::firewall::base_chains::{Doubt, Manager, Place};

impl View<'_> {
    pub(super) fn doubted(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for answer in self.answers {
            let port = format!("{} port {}", answer.transport.as_str(), answer.port);
            for doubt in answer.doubts() {
                let is_timed =
                    matches!(doubt, Doubt::Unclear(at) if answer.open.timed.contains(at));
                let finding = match is_timed {
                    true => self.timed(doubt, &port),
                    false => self.of_doubt(doubt, &port),
                };
                merge(&mut found, finding.at(answer.port));
            }
        }
        found
    }

    fn timed(&self, doubt: &Doubt, port: &str) -> Finding {
        let finding = match doubt {
            Doubt::Unclear(place) => Finding::new(
                TIMED,
                Severity::Doubt,
                format!("{place} lets {port} pass at some times and not at others"),
            )
            .seen(self.at(place)),
            other => Finding::new(TIMED, Severity::Doubt, other.to_string()),
        };
        finding.remedy(
            "have the ACME client's timer run within those times, or keep the port out of the rule",
        )
    }

    fn of_doubt(&self, doubt: &Doubt, port: &str) -> Finding {
        match doubt {
            Doubt::DropsListed(place) => self.drops_some(place, port),
            Doubt::Unclear(place) => Finding::new(
                NOT_UNDERSTOOD,
                Severity::Doubt,
                format!("{place} decides over {port}, and cannot be judged without a packet"),
            )
            .seen(self.at(place))
            .remedy("see what the twin says of it: `acmegate explain SOURCE PORT`"),
            Doubt::Translated(place) => Finding::new(
                NOT_UNDERSTOOD,
                Severity::Doubt,
                format!(
                    "{place} sends {port} elsewhere, and where depends on what is not known here"
                ),
            )
            .seen(self.at(place))
            .remedy("see what the twin says of it: `acmegate explain SOURCE PORT`"),
            Doubt::Queued(place) => self.handed_over(place, port, "asks a program about"),
            Doubt::Proxied(place) => {
                self.handed_over(place, port, "hands to a proxy what comes for")
            }
            Doubt::Forwarded(place) => {
                self.handed_over(place, port, "sends out by another device what comes for")
            }
            Doubt::TooLong => Finding::new(
                NOT_UNDERSTOOD,
                Severity::Doubt,
                format!("the ruleset is too long to be followed to its end for {port}"),
            )
            .remedy("put long lists of rules into sets: one rule then asks for all of them"),
            Doubt::Changing => Finding::new(
                NOT_UNDERSTOOD,
                Severity::Doubt,
                "the ruleset changes faster than it can be read",
            )
            .remedy("find the program that rebuilds it without end: `nft monitor`"),
        }
    }

    fn drops_some(&self, place: &Place, port: &str) -> Finding {
        let manager = self.reading.rules.manager(place);
        let asks_a_list = self.reading.rules.asks_a_list(place);
        // Who is banned did something; whole countries did not.
        let severity = match manager {
            Manager::Blocklist => Severity::Advice,
            _ if asks_a_list => Severity::Doubt,
            _ => Severity::Advice,
        };
        let finding = Finding::new(
            DROPS_SOME,
            severity,
            format!("{place} drops {port} from some sources, and a perspective may be one of them"),
        )
        .seen(format!("{} ({})", self.at(place), manager.as_str()));
        match manager {
            Manager::GeoipShell => finding.remedy(
                "take the port out of it (`geoip-shell configure -p tcp:allow:PORT`) and use mode `guard` with the \
                 same countries in its allow-list: CAs validate from countries that you do not know",
            ),
            Manager::Blocklist => finding.remedy(
                "none needed, unless a report of a window names this rule: then take the banned source out",
            ),
            _ if asks_a_list => finding.remedy(
                "keep the port out of the list's rule and have acmegate guard it, with the same list under `[allow]`: \
                 CAs validate from networks that you do not know",
            ),
            _ => finding,
        }
    }

    fn handed_over(&self, place: &Place, port: &str, what: &str) -> Finding {
        Finding::new(
            HANDED_OVER,
            Severity::Doubt,
            format!("{place} {what} {port}"),
        )
        .seen(self.at(place))
        .remedy(
            "see to it that whoever gets these packets lets unknown sources through in a window",
        )
    }
}
