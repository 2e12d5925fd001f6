//! The twin's answer about a live side, compared with what the packets did.

use std::path::Path as FilePath;

use acmegate::doctor::path::{End, Fate, Knock};
use acmegate::doctor::twin::{Answer, Order, PATIENCE, Source, Window, prove_by};
use acmegate::firewall::base_chains::{Cause, Culprit};

use super::cables::Arrival;
use super::live::Seen;
use super::tally::Tally;
use crate::lab::BINARY;

pub const ASKED: &str = "# packets sent to a twin";
pub const RIGHT: &str = "# … and what became of them is what did in truth";
pub const EXCUSED: &str = "# … and of which it says that it may be wrong";
pub const NAMED: &str = "# drops that the reading names a culprit of";
pub const SAME: &str = "# … and the kernel's trace names the same";

/// What the twin says of every packet, in their order.
#[derive(Debug)]
pub struct Twin {
    answer: Answer,
}

/// Asks for the packets' fate. The caller stands in the live side's namespace.
pub async fn ask(knocks: &[Knock]) -> Twin {
    let order = Order {
        source: Source::Live,
        settings: None,
        windows: vec![Window::AsItStands],
        knocks: knocks.to_vec(),
        patience: PATIENCE,
    };
    let answer = prove_by(FilePath::new(BINARY), &order).await;
    Twin {
        answer: answer.unwrap_or_else(|error| panic!("{error:?}")),
    }
}

impl Twin {
    fn fates(&self) -> &[Fate] {
        &self.answer.fates[0]
    }

    /// Where it is wrong, if it does not say that it may be.
    pub fn agrees(&self, packets: &[Seen]) -> Result<(), String> {
        assert_eq!(self.fates().len(), packets.len());
        if !self.answer.not_carried.is_empty() {
            return Ok(());
        }
        let wrong = self
            .fates()
            .iter()
            .zip(packets)
            .find(|(fate, seen)| arrival(fate) != seen.arrival);
        match wrong {
            None => Ok(()),
            Some((fate, Seen { knock, arrival, .. })) => Err(format!(
                "the twin: {fate:#?}\nin truth: {knock:?} arrived {arrival:?}"
            )),
        }
    }

    pub fn count(&self, packets: &[Seen], tally: &mut Tally) {
        for (fate, seen) in self.fates().iter().zip(packets) {
            tally.count(ASKED);
            if arrival(fate) == seen.arrival {
                tally.count(RIGHT);
            } else {
                tally.count(EXCUSED);
            }
        }
        for line in &self.answer.not_carried {
            let what = line.rsplit(": ").next().unwrap_or(line);
            tally.count(&format!("# not carried by a twin: {what}"));
        }
    }

    /// Counts whether the trace names the rule that the reading does.
    pub fn count_culprit(&self, number: usize, culprit: &Culprit, tally: &mut Tally) {
        let Some(step) = self.fates()[number].culprit() else {
            return;
        };
        tally.count(NAMED);
        let handle = match culprit.cause {
            Cause::Rule { handle, .. } => Some(handle),
            Cause::Policy => None,
        };
        let table = format!("{} {}", culprit.place.family.name(), culprit.place.table);
        if (&step.table, &step.chain, step.handle) == (&table, &culprit.place.chain, handle) {
            tally.count(SAME);
        }
    }
}

/// Where it came out, as the live side's own sockets would tell.
fn arrival(fate: &Fate) -> Option<Arrival> {
    match &fate.end {
        End::Delivered { port, .. } => Some(Arrival::Host(*port)),
        End::Forwarded {
            port, interface, ..
        } if interface == "lan0" => Some(Arrival::Inner(*port)),
        End::Forwarded { port, .. } => Some(Arrival::World(*port)),
        End::Dropped { .. } | End::Lost(_) => None,
    }
}
