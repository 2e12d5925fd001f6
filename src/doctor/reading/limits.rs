//! Findings of limits: a validation comes from several perspectives at the same moment, for every name.

use std::time::Duration;

use super::elsewhere::merge;
use super::{LIMITED, View};
use crate::doctor::finding::{Finding, Severity};
use crate::firewall::base_chains::{Limit, Manager, Measure, Per, Place};

/// As many perspectives as the largest CAs ask from (CA/Browser Forum BR §3.2.2.9 wants five by the end of
/// 2026, and there is the CA's own).
const PERSPECTIVES: u64 = 6;
/// For how long a perspective waits for a connection, as the large CAs do: its first packet is sent again
/// after 1, 3 and 7 seconds.
const PATIENCE: Duration = Duration::from_secs(10);

impl View<'_> {
    pub(super) fn limited(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for answer in self.answers.iter().filter(|answer| answer.over.is_some()) {
            for (place, limit) in &answer.open.limits {
                let port = format!("{} port {}", answer.transport.as_str(), answer.port);
                if let Some(finding) = self.of_limit(&port, place, limit) {
                    merge(&mut found, finding);
                }
            }
        }
        found
    }

    fn of_limit(&self, port: &str, place: &Place, limit: &Limit) -> Option<Finding> {
        let names = self.names.max(1) as u64;
        let wanted = match limit.per {
            Per::Everybody => PERSPECTIVES.saturating_mul(names),
            Per::Source => names,
        };
        let (at_once, in_time) = (
            limit.lets_through(Duration::ZERO),
            limit.lets_through(PATIENCE),
        );
        let severity = match (at_once, in_time) {
            (Some(at_once), _) if at_once >= wanted => return None,
            (_, Some(in_time)) if in_time >= wanted => Severity::Advice,
            _ => Severity::Doubt,
        };
        let consequence = match severity {
            Severity::Advice => "some wait a second or more".to_owned(),
            _ => match in_time {
                Some(in_time) => format!("{in_time} get through in {} s", PATIENCE.as_secs()),
                None => "it is not known how many get through".to_owned(),
            },
        };
        let who = match limit.per {
            Per::Everybody => format!(
                "{wanted} first packets of a validation come at once ({PERSPECTIVES} perspectives)"
            ),
            Per::Source => format!("{wanted} first packets of a validation come from one source"),
        };
        let finding = Finding::new(
            LIMITED,
            severity,
            format!("{place} limits {port} to {limit}"),
        )
        .seen(self.at(place))
        .seen(format!("{who}: {consequence}"));
        let how = match limit.measure {
            Measure::Rate { .. } => format!(" (`burst {wanted} packets`)"),
            _ => String::new(),
        };
        Some(match self.reading.rules.manager(place) {
            Manager::Ufw => finding.remedy(
                "`ufw allow` the port rather than `ufw limit` it: outside of windows acmegate shuts it anyway",
            ),
            _ => finding.remedy(format!(
                "raise it to {wanted} at once or more{how}, or keep the port out of it: outside \
                 of windows acmegate shuts the port anyway"
            )),
        })
    }
}
