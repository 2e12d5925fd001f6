//! Walks one packet through every base chain on its path.
//!
//! Where a rule may or may not match, both ways are walked to the end. Only if all of them drop
//! is the packet certainly dropped; if they differ, the rule is a doubt. The walk remembers where
//! it has been, so a thousand open rules in a row cost a thousand steps and not two to the
//! thousandth; what that does not bound, [`MAX_RULES`] and [`MAX_FORKS`] do.

use std::collections::HashMap;

use nlink::netlink::nftables::{Family, Verdict};

use super::limit::Limit;
use super::packet::{Packet, Tracking};
use super::report::{Attach, Cause, Culprit, DOCKERS_OWN, Doubt, Manager, Path, Place};
use super::routes::{Onward, Routes};
use super::rule::{Note, Scope};
use super::ruleset::{Chain, Hook, Ruleset, Table};
use super::step::{End, Leaves, To};
use super::stops::{Stop, full_name, stops, tracks};
use super::{NamedSet, Probe, Transport};
use crate::firewall::rules::TAG_PRIORITY;

/// The rules that one judgement runs, each counted as often as it is run. Generated rulesets have
/// some 20,000; this many take a fifth of a second.
const MAX_RULES: u32 = 200_000;
/// How deep one open rule may stand behind another. Each level is one call on the stack.
const MAX_FORKS: u32 = 200;
/// The kernel refuses a deeper nest of jumps (`NFT_JUMP_STACK_SIZE`).
const MAX_JUMPS: usize = 16;
/// As many doubts as anybody reads.
const MAX_DOUBTS: usize = 16;

/// Judges what becomes of the probe in `ruleset`, leaving out the tables named in `ours`.
///
/// Pure; takes as long as the rules on the path are many, some microseconds as a rule.
pub fn judge(ruleset: &Ruleset, probe: &Probe, ours: &[&str]) -> Path {
    judge_in(ruleset, probe, ours, &Circumstances::default()).path
}

/// What a packet is judged by besides the rules. The default is a SYN that comes alone, and that is not
/// followed beyond this host.
#[derive(Debug, Clone, Default)]
pub struct Circumstances<'a> {
    /// What carries the port.
    pub transport: Transport,
    /// Where a packet goes whose destination was changed. Without them it is followed no further, which
    /// is a [`Doubt::Translated`].
    pub routes: Option<&'a Routes>,
    /// Every limit on the way is exceeded already.
    pub over_limits: bool,
    /// Chains, such as `inet filter input`, that accept the packet whatever their rules say, as they
    /// do with a rule of ours at their head.
    pub accepting: &'a [String],
    /// Sets that are judged as if they held nothing, such as those of windows.
    pub empty: &'a [NamedSet],
}

/// What becomes of a packet, and what it met.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// What becomes of it.
    pub path: Path,
    /// The rules that change its destination, and where it goes then.
    pub translated: Vec<(Place, To, Onward)>,
    /// The rules with limits that it meets.
    pub limits: Vec<(Place, Limit)>,
    /// The rules that put its connection into a flowtable, and which.
    pub offloaded: Vec<(Place, String)>,
    /// The rules that ask for the time or the day.
    pub timed: Vec<Place>,
}

/// The same as [`judge`], with more known and more told.
pub fn judge_in(
    ruleset: &Ruleset,
    probe: &Probe,
    ours: &[&str],
    circumstances: &Circumstances<'_>,
) -> Judgement {
    let mut walk = Walk {
        ruleset,
        probe,
        circumstances,
        stops: stops(ruleset, probe, ours, circumstances.accepting),
        tracks: tracks(ruleset, probe.family),
        seen: HashMap::new(),
        rules_left: MAX_RULES,
        met: Judgement {
            path: Path::Passes { doubts: Vec::new() },
            translated: Vec::new(),
            limits: Vec::new(),
            offloaded: Vec::new(),
            timed: Vec::new(),
        },
    };
    let mut spot = Spot {
        stop: 0,
        frames: Vec::new(),
        packet: Packet::of(probe, circumstances.transport),
    };
    walk.arrive(&mut spot, 0);
    let path = match walk.follow(spot, MAX_FORKS) {
        // Parts of two rulesets prove nothing.
        _ if ruleset.generation.is_none() => Path::Passes {
            doubts: vec![Doubt::Changing],
        },
        Outcome::Passes(doubts) => Path::Passes { doubts },
        Outcome::Drops { place, rejects } => {
            let transport = circumstances.transport;
            Path::Drops(culprit(ruleset, probe, transport, place, rejects))
        }
    };
    Judgement { path, ..walk.met }
}

/// Where the packet is: at which stop, and in which rule of which chains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spot {
    stop: usize,
    /// Chain and next rule, the innermost last; empty when the base chain's policy decides.
    frames: Vec<(usize, usize)>,
    packet: Packet,
}

#[derive(Debug, Clone)]
enum Outcome {
    Passes(Vec<Doubt>),
    Drops { place: Place, rejects: bool },
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    probe: &'a Probe,
    circumstances: &'a Circumstances<'a>,
    stops: Vec<Stop<'a>>,
    /// Connections are tracked at all: the kernel begins with the first rule that asks for it.
    tracks: bool,
    seen: HashMap<Spot, Outcome>,
    rules_left: u32,
    met: Judgement,
}

impl<'a> Walk<'a> {
    fn table(&self, stop: usize) -> Option<(&'a Table, Stop<'a>)> {
        let stop = *self.stops.get(stop)?;
        Some((self.ruleset.tables.get(stop.table)?, stop))
    }

    /// Enters the base chain number `stop`, or the first one after it that sees the packet: a
    /// chain of type nat sees only what has a connection, and no destination is changed twice.
    fn arrive(&self, spot: &mut Spot, stop: usize) {
        spot.stop = stop;
        spot.frames.clear();
        while let Some((_, stop)) = self.table(spot.stop) {
            let packet = spot.packet.arriving_at(stop.base.hook, stop.priority);
            let tracked = self.tracks && packet.tracking != Tracking::Untracked;
            let is_translated = spot.packet.is_translated != Some(false);
            let on_path = match stop.base.hook {
                Hook::Prerouting if stop.base.nat => !is_translated,
                Hook::Ingress | Hook::Prerouting => true,
                Hook::Input => packet.onward == Onward::Here,
                Hook::Forward => matches!(packet.onward, Onward::Out(_)),
            };
            if on_path && (tracked || !stop.base.nat) {
                spot.packet = packet;
                spot.frames.push((stop.chain, 0));
                return;
            }
            spot.stop += 1;
        }
    }

    fn follow(&mut self, mut spot: Spot, forks_left: u32) -> Outcome {
        let mut doubts = Vec::new();
        // What became of the other ways at each open rule, and which rule that was.
        let mut others: Vec<(Place, Outcome)> = Vec::new();
        let mut outcome = loop {
            let Some((table, stop)) = self.table(spot.stop) else {
                break Outcome::Passes(Vec::new());
            };
            let Some((chain_index, next)) = spot.frames.last_mut() else {
                if stop.base.drops_by_policy {
                    let base = &table.chains[stop.chain];
                    break Outcome::Drops {
                        place: place(table, base, base, None),
                        rejects: false,
                    };
                }
                let next_stop = spot.stop + 1;
                self.arrive(&mut spot, next_stop);
                continue;
            };
            let chain = &table.chains[*chain_index];
            let Some(rule) = chain.rules.get(*next) else {
                spot.frames.pop();
                continue;
            };
            *next += 1;
            if self.rules_left == 0 {
                break Outcome::Passes(vec![Doubt::TooLong]);
            }
            self.rules_left -= 1;

            let here = || place(table, &table.chains[stop.chain], chain, Some(rule.handle));
            let scope = Scope {
                probe: self.probe,
                routes: self.circumstances.routes,
                over_limits: self.circumstances.over_limits,
                empty: self.circumstances.empty,
                table,
            };
            let branches = scope.run(rule, spot.packet);
            for note in branches.notes {
                self.met.note(here(), note);
            }
            if branches.drops_listed && !has_doubt_in(&doubts, chain, table) {
                doubts.push(Doubt::DropsListed(here()));
            }
            let mut ways = branches.ways.into_iter();
            let Some(first) = ways.next() else {
                break Outcome::Passes(vec![Doubt::Unclear(here())]);
            };
            for way in ways {
                let mut other = Spot {
                    packet: way.packet,
                    ..spot.clone()
                };
                let outcome = match self.turn(&mut other, table, way.end, &here) {
                    Some(outcome) => outcome,
                    None => self.remembered(other, forks_left),
                };
                others.push((here(), outcome));
            }
            spot.packet = first.packet;
            if let Some(outcome) = self.turn(&mut spot, table, first.end, &here) {
                break outcome;
            }
        };
        for (rule, other) in others.into_iter().rev() {
            outcome = either(outcome, other, rule);
        }
        if let Outcome::Passes(found) = &mut outcome {
            doubts.append(found);
            doubts.dedup();
            doubts.truncate(MAX_DOUBTS);
            *found = doubts;
        }
        outcome
    }

    fn remembered(&mut self, spot: Spot, forks_left: u32) -> Outcome {
        let Some(forks_left) = forks_left.checked_sub(1) else {
            return Outcome::Passes(vec![Doubt::TooLong]);
        };
        if let Some(outcome) = self.seen.get(&spot) {
            return outcome.clone();
        }
        let outcome = self.follow(spot.clone(), forks_left);
        self.seen.insert(spot, outcome.clone());
        outcome
    }

    /// Goes on with another destination, if it is known where that is.
    fn translate(&mut self, spot: &mut Spot, to: To, rule: Place) -> Option<Outcome> {
        let Some(routes) = self.circumstances.routes else {
            return Some(Outcome::Passes(vec![Doubt::Translated(rule)]));
        };
        let onward = match to.address {
            Some(address) => routes.onward(address, self.probe.ifindex),
            None => Onward::Here,
        };
        add(&mut self.met.translated, (rule.clone(), to, onward));
        match onward {
            Onward::Here | Onward::Out(_) => {}
            // Who reads `translated` sees where it ends.
            Onward::NotForwarded | Onward::NoRoute => return Some(Outcome::Passes(Vec::new())),
            Onward::Unknown => return Some(Outcome::Passes(vec![Doubt::Translated(rule)])),
        }
        spot.packet = spot.packet.translated(to, onward);
        self.arrive(spot, spot.stop + 1);
        None
    }

    /// Moves on by a rule's end, or says what became of the packet.
    fn turn(
        &mut self,
        spot: &mut Spot,
        table: &Table,
        end: Option<End>,
        rule: &impl Fn() -> Place,
    ) -> Option<Outcome> {
        let unclear = || Some(Outcome::Passes(vec![Doubt::Unclear(rule())]));
        let verdict = match end? {
            End::Verdict(verdict) => verdict,
            End::Reject => {
                return Some(Outcome::Drops {
                    place: rule(),
                    rejects: true,
                });
            }
            End::Leaves(leaves) => return Some(Outcome::Passes(vec![left(leaves, rule())])),
            End::Translated(to) => return self.translate(spot, to, rule()),
            End::Unknown => return unclear(),
        };
        let (target, comes_back) = match &verdict {
            Verdict::Drop => {
                return Some(Outcome::Drops {
                    place: rule(),
                    rejects: false,
                });
            }
            Verdict::Accept => {
                self.arrive(spot, spot.stop + 1);
                return None;
            }
            Verdict::Return => {
                spot.frames.pop();
                return None;
            }
            Verdict::Continue => return None,
            Verdict::JumpTo(target) => (target, true),
            Verdict::GotoTo(target) => (target, false),
            // The enum is open; a verdict of a later kernel is not guessed at.
            _ => return unclear(),
        };
        let Some(chain) = table.chain_index(target.as_str()) else {
            return unclear();
        };
        let accepting = self.circumstances.accepting;
        if !accepting.is_empty() && accepting.contains(&full_name(table, &table.chains[chain])) {
            self.arrive(spot, spot.stop + 1);
            return None;
        }
        if !comes_back {
            spot.frames.pop();
        }
        if spot.frames.len() > MAX_JUMPS {
            return Some(Outcome::Passes(vec![Doubt::TooLong]));
        }
        spot.frames.push((chain, 0));
        None
    }
}

impl Judgement {
    fn note(&mut self, place: Place, note: Note) {
        match note {
            Note::Limit(limit) => add(&mut self.limits, (place, limit)),
            Note::Offload(flowtable) => add(&mut self.offloaded, (place, flowtable)),
            Note::Clock => add(&mut self.timed, place),
        }
    }
}

/// As many of a kind as anybody reads, each of them once.
fn add<Met: PartialEq>(all: &mut Vec<Met>, one: Met) {
    if all.len() < MAX_DOUBTS && !all.contains(&one) {
        all.push(one);
    }
}

/// What becomes of a packet that goes one of two ways, by an open rule.
fn either(main: Outcome, other: Outcome, rule: Place) -> Outcome {
    let differ = |mut doubts: Vec<Doubt>| {
        doubts.insert(0, Doubt::Unclear(rule));
        Outcome::Passes(doubts)
    };
    match (main, other) {
        (main @ Outcome::Drops { .. }, Outcome::Drops { .. }) => main,
        (Outcome::Passes(doubts), Outcome::Drops { .. })
        | (Outcome::Drops { .. }, Outcome::Passes(doubts)) => differ(doubts),
        (Outcome::Passes(mut doubts), Outcome::Passes(more)) => {
            for doubt in more {
                if !doubts.contains(&doubt) {
                    doubts.push(doubt);
                }
            }
            Outcome::Passes(doubts)
        }
    }
}

/// What is known of a rule or policy at `place` that drops the probe.
pub fn culprit(
    ruleset: &Ruleset,
    probe: &Probe,
    transport: Transport,
    place: Place,
    rejects: bool,
) -> Culprit {
    let its = |table: &&Table| table.family == place.family && table.name == place.table;
    let table = ruleset.tables.iter().find(its);
    let chains = table.into_iter().flat_map(|table| &table.chains);
    let manager = Manager::guess(&place, chains.map(|chain| chain.name.as_str()));
    let base = table.and_then(|table| Some(&table.chains[table.chain_index(&place.base_chain)?]));
    let hook = base
        .and_then(|chain| chain.base.as_ref())
        .map(|base| base.hook);
    let cause = match place.rule {
        Some(handle) => Cause::Rule { handle, rejects },
        None => Cause::Policy,
    };
    Culprit {
        attach: attach(ruleset, table, &place, manager),
        place,
        cause,
        manager,
        port: probe.port,
        packet: probe.family,
        transport,
        is_beyond: hook == Some(Hook::Forward),
    }
}

/// Whether we could stand at the head of the base chain by which the packet came; with it goes the
/// chain of the same name of the other family, for managers write both alike.
fn attach(ruleset: &Ruleset, table: Option<&Table>, place: &Place, manager: Manager) -> Attach {
    if table.is_some_and(|table| table.is_owned) {
        return Attach::Owned;
    }
    let has_it = |table: &Table| {
        let mut chains = table.chains.iter();
        let base = chains.find(|chain| chain.name == place.base_chain);
        base.and_then(|chain| chain.base.as_ref())
            .is_some_and(|base| match base.hook {
                Hook::Ingress => false,
                Hook::Prerouting => base.priority > TAG_PRIORITY,
                _ => true,
            })
    };
    if !table.is_some_and(has_it) {
        return Attach::TooEarly;
    }
    let families = match place.family {
        Family::Ip | Family::Ip6 => [Family::Ip, Family::Ip6].as_slice(),
        _ => std::slice::from_ref(&place.family),
    };
    let is_there = |family: &&Family| {
        let mut tables = ruleset.tables.iter();
        tables.any(|table| {
            table.family == **family
                && table.name == place.table
                && !table.is_owned
                && has_it(table)
        })
    };
    // Docker keeps its administrator's rules in a chain of their own, and itself away from it.
    let standing = match manager {
        Manager::Docker => DOCKERS_OWN,
        _ => &place.base_chain,
    };
    let chain = |family: &Family| format!("{} {} {standing}", family.name(), place.table);
    Attach::To(families.iter().filter(is_there).map(chain).collect())
}

fn left(leaves: Leaves, rule: Place) -> Doubt {
    match leaves {
        Leaves::Translated => Doubt::Translated(rule),
        Leaves::Queued => Doubt::Queued(rule),
        Leaves::Proxied => Doubt::Proxied(rule),
        Leaves::Forwarded => Doubt::Forwarded(rule),
    }
}

/// One such doubt a chain is enough: a blocklist of iptables is a thousand rules.
fn has_doubt_in(doubts: &[Doubt], chain: &Chain, table: &Table) -> bool {
    doubts.iter().any(|doubt| match doubt {
        Doubt::DropsListed(place) => place.chain == chain.name && place.table == table.name,
        _ => false,
    })
}

fn place(table: &Table, base: &Chain, chain: &Chain, rule: Option<u64>) -> Place {
    Place {
        family: table.family,
        table: table.name.clone(),
        base_chain: base.name.clone(),
        chain: chain.name.clone(),
        rule,
    }
}
