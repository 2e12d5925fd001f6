//! What becomes of each packet: in a window, and outside of windows. Pure.

use super::Reading;
use super::taken;
use crate::firewall::base_chains::{
    Circumstances, Culprit, Doubt, IpFamily, Judgement, NamedSet, Onward, Path, Probe, Transport,
    judge_in,
};
use crate::firewall::names::TABLE;
use crate::firewall::ruleset::{Doors, Key, Mode, Settings, door_set};
use crate::firewall::survey::Way;
use crate::gate::lease::Family;

/// The most chains that are looked for which drop the same packet.
const MAX_CULPRITS: usize = 8;
/// Where name servers are asked.
const DNS: u16 = 53;

/// What becomes of the packets of one family for one port that come in by one interface.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which packets.
    pub family: IpFamily,
    /// The interface that they come in by.
    pub interface: String,
    /// What carries the port.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// What becomes of the first packet while a window is open, and what it meets.
    pub open: Judgement,
    /// What drops it then: the first one that the packet meets, then those that would if the ones before did
    /// not. Empty if it passes.
    pub culprits: Vec<Culprit>,
    /// What drops it if it comes after so many others that every limit is exceeded, though it passes alone.
    pub over: Option<Culprit>,
    /// What becomes of it outside of windows.
    pub shut: Shut,
}

/// What becomes of a stranger's packets outside of windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shut {
    /// They are dropped, by us or by somebody else.
    Dropped(Culprit),
    /// They pass.
    Passes,
    /// It is not for us to shut, or it depends on what is not understood.
    Unknown,
}

impl Answer {
    /// What may still go wrong in a window, as far as the rules tell.
    pub fn doubts(&self) -> &[Doubt] {
        match &self.open.path {
            Path::Passes { doubts } => doubts,
            Path::Drops(_) => &[],
        }
    }

    /// Whether a rule sends the packet where none gets.
    pub fn is_lost(&self) -> bool {
        let mut translated = self.open.translated.iter();
        translated.any(|(_, _, to)| matches!(to, Onward::NotForwarded | Onward::NoRoute))
    }
}

impl Reading {
    /// Judges the packets of validations: those of every port that windows open, by every way in; and those
    /// of port 53 where somebody answers there.
    pub fn answers(&self, settings: &Settings) -> Vec<Answer> {
        let mut ports: Vec<(Transport, u16)> = settings
            .ports
            .iter()
            .map(|port| (Transport::Tcp, *port))
            .collect();
        if self.name_server.tcp && !settings.ports.contains(&DNS) {
            ports.push((Transport::Tcp, DNS));
        }
        if self.name_server.udp {
            ports.push((Transport::Udp, DNS));
        }
        let mut answers = Vec::new();
        for (transport, port) in ports {
            for way in &self.ways {
                answers.push(self.answer(settings, way, transport, port));
            }
        }
        answers
    }

    /// Whether our own table stands in the kernel.
    pub(super) fn has_our_table(&self) -> bool {
        let chains = self.rules.base_chains();
        chains.iter().any(|chain| chain.table == TABLE)
    }

    fn answer(&self, settings: &Settings, way: &Way, transport: Transport, port: u16) -> Answer {
        let in_window = transport == Transport::Tcp && settings.ports.contains(&port);
        let mut probe = probe(way, port);
        let mut accepting = Vec::new();
        if in_window {
            as_admitted(&mut probe, settings);
            // Where our rule is not in their chains yet, it is judged as if it were.
            if let Mode::Attach(chains) = &settings.mode
                && !self.has_our_table()
            {
                accepting = chains.iter().map(ToString::to_string).collect();
            }
        }
        let judged = |probe: &Probe, accepting: &[String], over_limits| {
            let circumstances = Circumstances {
                transport,
                routes: Some(&self.routes),
                over_limits,
                accepting,
                empty: &[],
            };
            judge_in(&self.rules, probe, &[TABLE], &circumstances)
        };
        let open = judged(&probe, &accepting, false);
        let mut culprits: Vec<Culprit> = Vec::new();
        let mut path = open.path.clone();
        while let Path::Drops(culprit) = path
            && culprits.len() < MAX_CULPRITS
        {
            accepting.push(culprit.place.base_name());
            culprits.push(culprit);
            path = judged(&probe, &accepting, false).path;
        }
        let over = match (&open.path, judged(&probe, &accepting, true).path) {
            (Path::Passes { .. }, Path::Drops(culprit)) => Some(culprit),
            _ => None,
        };
        Answer {
            family: probe.family,
            interface: way.interface.clone(),
            transport,
            port,
            open,
            culprits,
            over,
            shut: match in_window {
                true => self.outside_windows(settings, way, port),
                false => Shut::Unknown,
            },
        }
    }

    /// What all the rules together, ours among them, do to a stranger as long as no window is open.
    fn outside_windows(&self, settings: &Settings, way: &Way, port: u16) -> Shut {
        // What is diverted goes to a proxy, or on to the site.
        if settings.mode == Mode::GateOnly || settings.diverted(port).is_some() {
            return Shut::Unknown;
        }
        let mut empty = our_windows();
        if let Mode::Set(set) = &settings.mode {
            empty.push(NamedSet {
                family: set.family,
                table: set.table.clone(),
                name: set.name.clone(),
            });
        }
        let circumstances = Circumstances {
            routes: Some(&self.routes),
            empty: &empty,
            ..Circumstances::default()
        };
        let shut = judge_in(&self.rules, &probe(way, port), &[], &circumstances);
        match shut.path {
            Path::Drops(culprit) => Shut::Dropped(culprit),
            Path::Passes { doubts }
                if doubts.iter().all(|d| matches!(d, Doubt::DropsListed(_))) =>
            {
                Shut::Passes
            }
            Path::Passes { .. } => Shut::Unknown,
        }
    }
}

fn probe(way: &Way, port: u16) -> Probe {
    Probe {
        family: taken::family(way.family),
        port,
        interface: way.interface.clone(),
        ifindex: Some(way.ifindex),
        destination: None,
        mark: 0,
        ct_mark: 0,
        is_untracked: false,
        accepted_sets: Vec::new(),
    }
}

/// The packet as our own table leaves it in a window: as `open` judges it.
fn as_admitted(probe: &mut Probe, settings: &Settings) {
    let is_diverted = settings.diverted(probe.port).is_some();
    probe.is_untracked = is_diverted;
    match &settings.mode {
        Mode::Attach(_) => probe.mark = settings.mark,
        Mode::Set(set) => probe.accepted_sets.push(NamedSet {
            family: set.family,
            table: set.table.clone(),
            name: set.name.clone(),
        }),
        Mode::Guard | Mode::GateOnly => {}
    }
    if matches!(settings.mode, Mode::Set(_) | Mode::Attach(_)) && !is_diverted {
        probe.ct_mark = settings.mark;
    }
}

/// The sets of our table that windows fill.
fn our_windows() -> Vec<NamedSet> {
    let mut sets = Vec::new();
    for doors in [Doors::Window, Doors::Grace] {
        for key in Key::ALL {
            for family in Family::ALL {
                sets.push(NamedSet {
                    family: nlink::netlink::nftables::Family::Inet,
                    table: TABLE.to_owned(),
                    name: door_set(doors, family, key).name,
                });
            }
        }
    }
    sets.push(NamedSet {
        family: nlink::netlink::nftables::Family::Inet,
        table: TABLE.to_owned(),
        name: crate::firewall::names::OPENED_SET.to_owned(),
    });
    sets
}
