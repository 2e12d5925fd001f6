//! One rule, run as the kernel's register machine runs it.

use std::net::IpAddr;

use nlink::netlink::nftables::{MetaKey, Verdict};

use super::bits::{Byte, Registers, Truth, compare, known, within};
use super::limit::Limit;
use super::packet::{Loaded, Packet, Tracking};
use super::routes::Routes;
use super::ruleset::{Data, Found, Rule, Set, Table};
use super::step::{End, Field, Into, Leaves, Step, To};
use super::{NamedSet, Probe};

/// One way a rule can end; `end` is `None` if the packet goes on to the next rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub(super) end: Option<End>,
    pub(super) packet: Packet,
}

/// Every way a rule can end.
#[derive(Debug, Default)]
pub(super) struct Branches {
    /// At least one. Where the rule may match or not, not matching comes first.
    pub(super) ways: Vec<Branch>,
    /// The rule drops, or may drop, a source that stands in some list.
    pub(super) drops_listed: bool,
    /// What the rule did or asked on the way, up to where it stopped.
    pub(super) notes: Vec<Note>,
}

/// Something about a rule that its verdict does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    Limit(Limit),
    Offload(String),
    /// It asks for the time or the day.
    Clock,
}

/// The rule's surroundings.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) probe: &'a Probe,
    pub(super) routes: Option<&'a Routes>,
    /// Every limit is exceeded.
    pub(super) over_limits: bool,
    /// Sets that hold nothing.
    pub(super) empty: &'a [NamedSet],
    pub(super) table: &'a Table,
}

/// How to go on after a step.
enum Next {
    Step,
    /// The rule does not match.
    Stop,
    /// The rule does not match an unlisted source.
    StopUnlisted,
    /// Both: it may match.
    Fork,
    End(End),
}

impl Scope<'_> {
    pub(super) fn run(self, rule: &Rule, packet: Packet) -> Branches {
        let mut branches = Branches::default();
        self.run_steps(&rule.steps, Registers::new(), packet, &mut branches, true);
        branches
    }

    fn run_steps(
        self,
        steps: &[Step],
        mut registers: Registers,
        mut packet: Packet,
        branches: &mut Branches,
        follow_listed: bool,
    ) {
        for (number, step) in steps.iter().enumerate() {
            match self.step(step, &mut registers, &mut packet, branches) {
                Next::Step => {}
                Next::Stop => return branches.add(None, packet),
                Next::Fork => branches.add(None, packet),
                Next::End(End::Unknown) => {
                    branches.add(None, packet);
                    branches.add(Some(End::Verdict(Verdict::Accept)), packet);
                    return branches.add(Some(End::Verdict(Verdict::Drop)), packet);
                }
                Next::End(end) => return branches.add(Some(end), packet),
                Next::StopUnlisted => {
                    branches.add(None, packet);
                    if follow_listed {
                        let mut listed = Branches::default();
                        let rest = &steps[number + 1..];
                        self.run_steps(rest, registers, packet, &mut listed, false);
                        branches.drops_listed |= listed.ways.iter().any(|way| way.may_drop(self));
                        // What a map keyed by sources answers was not read.
                        let into_verdict = matches!(
                            step,
                            Step::Lookup {
                                into: Into::Verdict,
                                ..
                            }
                        );
                        branches.drops_listed |= into_verdict;
                    }
                    return;
                }
            }
        }
        branches.add(None, packet);
    }

    fn step(
        self,
        step: &Step,
        registers: &mut Registers,
        packet: &mut Packet,
        branches: &mut Branches,
    ) -> Next {
        match step {
            Step::Load { to, len, field } => match self.load(*packet, field, *len, branches) {
                Loaded::Bytes(bytes) => registers.store(*to, &bytes),
                Loaded::Absent => return Next::Stop,
                Loaded::Perhaps(bytes) => {
                    registers.store(*to, &bytes);
                    return Next::Fork;
                }
            },
            Step::Value { to, bytes } => registers.store(*to, &super::bits::exactly(bytes)),
            Step::Compare { from, op, bytes } => {
                return decide(compare(registers.load(*from, bytes.len()), *op, bytes));
            }
            Step::Range {
                from,
                outside,
                low,
                high,
            } => {
                let truth = within(registers.load(*from, low.len()), low, high);
                return decide(truth.negated_if(*outside));
            }
            Step::Ports {
                from,
                outside,
                ranges,
            } => {
                let port = registers.load(*from, 2);
                return decide(in_ports(port, ranges).negated_if(*outside));
            }
            Step::Mask {
                from,
                to,
                mask,
                xor,
            } => {
                let masked: Vec<Byte> = registers
                    .load(*from, mask.len())
                    .iter()
                    .zip(mask.iter().zip(xor))
                    .map(|(byte, (mask, xor))| byte.masked(*mask, *xor))
                    .collect();
                registers.store(*to, &masked);
            }
            Step::Swap {
                from,
                to,
                len,
                unit,
            } => {
                let mut bytes = registers.load(*from, *len).to_vec();
                for unit in bytes.chunks_mut((*unit).max(1)) {
                    unit.reverse();
                }
                registers.store(*to, &bytes);
            }
            Step::Lookup {
                set,
                from,
                into,
                invert,
            } => {
                return self.lookup(set, *from, *into, *invert, registers, *packet, branches);
            }
            Step::UpdateSet { set, invert } => {
                let set = self.table.sets.get(set);
                let limits = set.map_or(&[][..], |set| &set.limits);
                let notes = limits.iter().cloned().map(Note::Limit);
                branches.notes.extend(notes);
                let goes_on = limits.iter().all(|limit| self.is_beyond(limit));
                return decide(Truth::Known(goes_on != *invert));
            }
            Step::SetMark { from } => packet.mark = word(registers, *from),
            Step::SetCtMark { from } => match packet.tracking {
                Tracking::New => packet.ct_mark = word(registers, *from),
                Tracking::Unsure => packet.ct_mark = [Byte::UNKNOWN; 4],
                // Without a connection there is nothing to mark.
                Tracking::Before | Tracking::Untracked => {}
            },
            Step::SetCt => packet.ct_changed = true,
            Step::Notrack => match packet.tracking {
                Tracking::Before => packet.tracking = Tracking::Untracked,
                Tracking::Unsure | Tracking::New | Tracking::Untracked => {}
            },
            Step::Limited(limit) => {
                branches.notes.push(Note::Limit(limit.clone()));
                return match self.is_beyond(limit) {
                    true => Next::Step,
                    false if limit.is_list && !self.over_limits => Next::StopUnlisted,
                    false => Next::Stop,
                };
            }
            Step::Offload(flowtable) => branches.notes.push(Note::Offload(flowtable.clone())),
            Step::Translate { address, port } => {
                let to = translation(registers, *address, *port);
                return Next::End(match to {
                    Some(to) => End::Translated(to),
                    None => End::Leaves(Leaves::Translated),
                });
            }
            Step::OnlyOf(family) => return decide(Truth::Known(self.probe.family == *family)),
            Step::Tracked => {}
            Step::Matches(matches) => return decide(Truth::Known(*matches)),
            Step::MatchesUnlisted(matches) => return decide(Truth::Assumed(*matches)),
            Step::Unsure => {
                *registers = Registers::new();
                return Next::Fork;
            }
            Step::End(end) => return Next::End(end.clone()),
        }
        Next::Step
    }

    /// Whether a rule goes on after asking for `limit`.
    fn is_beyond(self, limit: &Limit) -> bool {
        limit.over == self.over_limits
    }

    fn load(self, packet: Packet, field: &Field, len: usize, branches: &mut Branches) -> Loaded {
        if let Field::Meta(MetaKey::TimeNs | MetaKey::TimeDay | MetaKey::TimeHour) = field {
            branches.notes.push(Note::Clock);
        }
        packet.load(self.probe, self.routes, field, len)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a lookup touches everything a rule has"
    )]
    fn lookup(
        self,
        name: &str,
        from: usize,
        into: Into,
        invert: bool,
        registers: &mut Registers,
        packet: Packet,
        branches: &mut Branches,
    ) -> Next {
        let Some(set) = self.table.sets.get(name) else {
            // The set came after the dump of the sets; nothing is known of it.
            *registers = Registers::new();
            return match into {
                Into::Verdict => Next::End(End::Unknown),
                Into::Nothing | Into::Register(_) => Next::Fork,
            };
        };
        let key = registers.load(from, set.key_len);
        let found = self.find(name, set, key);
        let into = match into {
            Into::Nothing => {
                let truth = match found {
                    Found::Element(_) => Truth::Known(true),
                    Found::Nothing => Truth::Known(false),
                    Found::AssumedNothing => Truth::Assumed(false),
                    Found::Perhaps(_) => Truth::Unsure,
                };
                return decide(truth.negated_if(invert));
            }
            Into::Verdict => None,
            Into::Register(register) => Some(register),
        };
        match (found, into) {
            (Found::Nothing, _) => Next::Stop,
            (Found::AssumedNothing, _) => Next::StopUnlisted,
            (Found::Element(element), None) => Next::End(verdict_of(&element.data)),
            (Found::Element(element), Some(register)) => {
                match &element.data {
                    Data::Value(bytes) => registers.store(register, &super::bits::exactly(bytes)),
                    _ => *registers = Registers::new(),
                }
                Next::Step
            }
            (Found::Perhaps(candidates), None) => {
                branches.add(None, packet);
                let Some(candidates) = candidates else {
                    return Next::End(End::Unknown);
                };
                let mut ends = candidates.iter().map(|element| verdict_of(&element.data));
                let last = ends.next_back().unwrap_or(End::Unknown);
                ends.for_each(|end| branches.add_expanded(end, packet));
                Next::End(last)
            }
            (Found::Perhaps(_), Some(_)) => {
                *registers = Registers::new();
                Next::Fork
            }
        }
    }

    /// A set that the probe names holds its port, whatever it holds now; one that is said to be empty
    /// holds nothing.
    fn find<'s>(self, name: &str, set: &'s Set, key: &[Byte]) -> Found<'s> {
        let accepted = |accepted: &NamedSet| {
            accepted.family == self.table.family
                && accepted.table == self.table.name
                && accepted.name == name
        };
        if self.empty.iter().any(accepted) {
            return Found::Nothing;
        }
        let port = self.probe.port.to_be_bytes();
        if self.probe.accepted_sets.iter().any(accepted) && known(key) == Some(port.to_vec()) {
            return Found::Element(&ACCEPTED);
        }
        set.find(key)
    }
}

/// Stands for our own element in an administrator's set.
static ACCEPTED: super::ruleset::Element = super::ruleset::Element {
    key: super::ruleset::Key::CatchAll,
    data: Data::Nothing,
};

impl Branch {
    /// Whether this way drops, looking into a chain that it jumps to for a drop of everything.
    fn may_drop(&self, scope: Scope<'_>) -> bool {
        match &self.end {
            Some(End::Reject | End::Verdict(Verdict::Drop) | End::Unknown) => true,
            Some(End::Verdict(Verdict::JumpTo(name) | Verdict::GotoTo(name))) => {
                let chain = scope.table.chain_index(name.as_str());
                let rules = chain.map_or(&[][..], |index| &scope.table.chains[index].rules);
                rules.iter().any(|rule| {
                    let mut ways = Branches::default();
                    scope.run_steps(&rule.steps, Registers::new(), self.packet, &mut ways, false);
                    ways.ways.iter().any(|way| {
                        matches!(way.end, Some(End::Reject | End::Verdict(Verdict::Drop)))
                    })
                })
            }
            _ => false,
        }
    }
}

impl Branches {
    fn add(&mut self, end: Option<End>, packet: Packet) {
        // `continue` is no end: the packet goes on to the next rule.
        let end = end.filter(|end| *end != End::Verdict(Verdict::Continue));
        let branch = Branch { end, packet };
        if !self.ways.contains(&branch) {
            self.ways.push(branch);
        }
    }

    fn add_expanded(&mut self, end: End, packet: Packet) {
        if end == End::Unknown {
            self.add(Some(End::Verdict(Verdict::Accept)), packet);
            self.add(Some(End::Verdict(Verdict::Drop)), packet);
            return self.add(None, packet);
        }
        self.add(Some(end), packet);
    }
}

fn decide(truth: Truth) -> Next {
    match truth {
        Truth::Known(true) | Truth::Assumed(true) => Next::Step,
        Truth::Known(false) => Next::Stop,
        Truth::Assumed(false) => Next::StopUnlisted,
        Truth::Unsure => Next::Fork,
    }
}

fn verdict_of(data: &Data) -> End {
    match data {
        Data::Verdict(verdict) => End::Verdict(verdict.clone()),
        _ => End::Unknown,
    }
}

/// Where `dnat` and `redirect` send the packet, if that is one address and one port.
fn translation(
    registers: &Registers,
    address: Option<(usize, usize, usize)>,
    port: Option<(usize, usize)>,
) -> Option<To> {
    let one = |first: usize, last: usize, len: usize| {
        let bytes = known(registers.load(first, len))?;
        (known(registers.load(last, len))? == bytes).then_some(bytes)
    };
    let address = match address {
        None => None,
        Some((first, last, 4)) => {
            let octets: [u8; 4] = one(first, last, 4)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        }
        Some((first, last, _)) => {
            let octets: [u8; 16] = one(first, last, 16)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        }
    };
    let port = match port {
        None => None,
        Some((first, last)) => {
            let octets: [u8; 2] = one(first, last, 2)?.try_into().ok()?;
            Some(u16::from_be_bytes(octets))
        }
    };
    Some(To { address, port })
}

fn in_ports(port: &[Byte], ranges: &[(u16, u16)]) -> Truth {
    // In none of them = outside the first and outside the second and …
    let in_none = ranges
        .iter()
        .fold(Truth::Known(true), |so_far, (low, high)| {
            so_far.and(within(port, &low.to_be_bytes(), &high.to_be_bytes()).negated_if(true))
        });
    in_none.negated_if(true)
}

fn word(registers: &Registers, from: usize) -> [Byte; 4] {
    let mut word = [Byte::UNKNOWN; 4];
    for (byte, loaded) in word.iter_mut().zip(registers.load(from, 4)) {
        *byte = *loaded;
    }
    word
}
