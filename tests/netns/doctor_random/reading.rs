//! The static reading of a live side, compared with what the packets did.

use acmegate::doctor::path::{Knock, Protocol};
use acmegate::firewall::base_chains::{
    Circumstances, Culprit, Doubt, IpFamily, Judgement, Onward, Path, Probe, Routes, Ruleset,
    Transport, judge_in,
};

use super::cables::UPLINKS;
use super::live::Seen;
use super::side::LiveSide;
use super::tally::Tally;

pub const ASKED: &str = "* readings";
pub const PASSES: &str = "* … that say it passes";
pub const DROPS: &str = "* … that say it is dropped";
const UNCLEAR: &str = "* … that leave it open";

/// What the reading says of one way in, one address and one port.
#[derive(Debug)]
pub struct Statement {
    knock: Knock,
    judgement: Judgement,
    /// The packets that it is about, by their place.
    about: Vec<usize>,
}

/// Reads for every packet that is such as readings are about.
pub fn read(
    ruleset: &Ruleset,
    routes: &Routes,
    side: &LiveSide,
    packets: &[Seen],
    indexes: [u32; 2],
) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    // Routing that depends on marks which rules set is not read.
    let by_mark =
        side.switches.src_valid_mark && side.rules.iter().any(|rule| rule.v4.contains("fwmark"));
    if by_mark {
        return statements;
    }
    for (number, seen) in packets.iter().enumerate() {
        if !seen.is_readable() {
            continue;
        }
        let same = |statement: &&mut Statement| {
            let Knock {
                interface,
                destination,
                port,
                ..
            } = &statement.knock;
            (interface, destination, port)
                == (
                    &seen.knock.interface,
                    &seen.knock.destination,
                    &seen.knock.port,
                )
        };
        if let Some(statement) = statements.iter_mut().find(same) {
            statement.about.push(number);
            continue;
        }
        // Who asks does not always know the address and the interface's number.
        let knows = statements.len().is_multiple_of(2);
        let way = UPLINKS
            .iter()
            .position(|name| *name == seen.knock.interface);
        let probe = Probe {
            family: if seen.knock.source.is_ipv4() {
                IpFamily::V4
            } else {
                IpFamily::V6
            },
            port: seen.knock.port,
            interface: seen.knock.interface.clone(),
            ifindex: way.filter(|_| knows).map(|way| indexes[way]),
            destination: knows.then_some(seen.knock.destination),
            mark: 0,
            ct_mark: 0,
            is_untracked: false,
            accepted_sets: Vec::new(),
        };
        let circumstances = Circumstances {
            transport: match seen.knock.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
            },
            routes: Some(routes),
            ..Circumstances::default()
        };
        statements.push(Statement {
            knock: seen.knock.clone(),
            judgement: judge_in(ruleset, &probe, &[], &circumstances),
            about: vec![number],
        });
    }
    statements
}

impl Statement {
    /// What is certain, if anything.
    fn passes(&self) -> Option<bool> {
        let is_lost = |(_, _, onward): &(_, _, Onward)| {
            matches!(onward, Onward::NotForwarded | Onward::NoRoute)
        };
        match &self.judgement.path {
            Path::Drops(_) => Some(false),
            Path::Passes { doubts } => {
                let certain = doubts
                    .iter()
                    .all(|doubt| matches!(doubt, Doubt::DropsListed(_)));
                // What is translated may get lost beyond; whether this one is, a doubt decides.
                let lost = self.judgement.translated.iter().any(is_lost);
                (certain && !lost).then_some(true)
            }
        }
    }

    pub fn agrees(&self, packets: &[Seen]) -> Result<(), String> {
        let Some(passes) = self.passes() else {
            return Ok(());
        };
        for seen in self.about.iter().map(|number| &packets[*number]) {
            if seen.arrival.is_some() != passes {
                let Seen { knock, arrival, .. } = seen;
                return Err(format!(
                    "read: {:?}\nin truth: {knock:?} arrived {arrival:?}",
                    self.judgement
                ));
            }
        }
        Ok(())
    }

    /// The rule that drops each of the packets, if one does.
    pub fn culprits(&self) -> impl Iterator<Item = (usize, &Culprit)> {
        let culprit = match &self.judgement.path {
            Path::Drops(culprit) => Some(culprit),
            Path::Passes { .. } => None,
        };
        self.about
            .iter()
            .filter_map(move |number| Some((*number, culprit?)))
    }

    pub fn count(&self, tally: &mut Tally) {
        tally.count(ASKED);
        tally.count(match self.passes() {
            Some(true) => PASSES,
            Some(false) => DROPS,
            None => UNCLEAR,
        });
    }
}
