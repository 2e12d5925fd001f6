//! The ruleset as plain data: what was read, before anything is judged.

use std::collections::HashMap;

use nlink::netlink::nftables::{Family, Verdict};

use super::bits::{Byte, Truth, depends_on_source, within};
use super::limit::Limit;
use super::step::Step;

/// The tables of the kernel that a packet for this host passes, as one reading found them.
///
/// Made by [`super::read()`]; dormant tables and families without such chains are left out.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    /// The generation that was read, or `None` if it moved each time: then the parts may belong
    /// to different rulesets, and nothing is certain.
    pub(super) generation: Option<u32>,
    pub(super) tables: Vec<Table>,
}

impl Ruleset {
    /// The kernel's number of the ruleset that was read; `None` if it was changed all the time.
    pub fn generation(&self) -> Option<u32> {
        self.generation
    }
}

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
    /// `flags owner`: nobody but the process that made it may write into it.
    pub(super) is_owned: bool,
    pub(super) chains: Vec<Chain>,
    pub(super) sets: HashMap<String, Set>,
    by_name: HashMap<String, usize>,
}

impl Table {
    pub(super) fn new(
        family: Family,
        name: String,
        chains: Vec<Chain>,
        sets: HashMap<String, Set>,
    ) -> Self {
        let numbered = chains.iter().enumerate();
        let by_name = numbered
            .map(|(index, chain)| (chain.name.clone(), index))
            .collect();
        Self {
            family,
            name,
            is_owned: false,
            chains,
            sets,
            by_name,
        }
    }

    pub(super) fn chain_index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) name: String,
    /// `None` for a chain that is only jumped to.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i32,
    /// Of type `nat`: such chains run where NAT runs, whatever their priority says.
    pub(super) nat: bool,
    /// The devices of an ingress chain.
    pub(super) devices: Vec<String>,
    pub(super) drops_by_policy: bool,
}

/// The hooks on the way to a local socket or through this host, in the packet's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Hook {
    Ingress,
    Prerouting,
    Input,
    Forward,
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) handle: u64,
    pub(super) steps: Vec<Step>,
}

/// A set, map or verdict map.
#[derive(Debug, Clone)]
pub(super) struct Set {
    /// The bytes of a key in a register: every field of a concatenation padded to whole words.
    pub(super) key_len: usize,
    /// Where each field of a key begins and how long it is; one field unless it is a
    /// concatenation.
    pub(super) fields: Vec<(usize, usize)>,
    /// The limits that the set itself declares for its elements: a rule that updates one goes on
    /// while its source is on the right side of all of them.
    pub(super) limits: Vec<Limit>,
    /// `None` if they were not read, as for every address list.
    pub(super) elements: Option<Vec<Element>>,
}

#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) key: Key,
    pub(super) data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Key {
    /// From the first key to the second, both included, field by field.
    Range(Vec<u8>, Vec<u8>),
    /// Whatever no other element holds.
    CatchAll,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    /// A set's element: there is none.
    Nothing,
    Value(Vec<u8>),
    Verdict(Verdict),
    /// There is some, but it was not understood.
    Unknown,
}

/// What a key finds in a set.
#[derive(Debug)]
pub(super) enum Found<'s> {
    Element(&'s Element),
    Nothing,
    /// Nothing, if the source stands in no list.
    AssumedNothing,
    /// Perhaps one of these, perhaps nothing; not even the candidates if the set was not read.
    Perhaps(Option<Vec<&'s Element>>),
}

impl Set {
    pub(super) fn find(&self, key: &[Byte]) -> Found<'_> {
        let Some(elements) = &self.elements else {
            return if depends_on_source(key) {
                Found::AssumedNothing
            } else {
                Found::Perhaps(None)
            };
        };
        let mut candidates = Vec::new();
        let mut assumed = false;
        for element in elements {
            match self.holds(element, key) {
                Truth::Known(true) => return Found::Element(element),
                Truth::Known(false) => {}
                Truth::Assumed(false) => assumed = true,
                Truth::Assumed(true) | Truth::Unsure => candidates.push(element),
            }
        }
        let rest = elements
            .iter()
            .find(|element| matches!(element.key, Key::CatchAll));
        if !candidates.is_empty() {
            candidates.extend(rest);
            return Found::Perhaps(Some(candidates));
        }
        match rest {
            Some(element) => Found::Element(element),
            None if assumed => Found::AssumedNothing,
            None => Found::Nothing,
        }
    }

    fn holds(&self, element: &Element, key: &[Byte]) -> Truth {
        let Key::Range(low, high) = &element.key else {
            return Truth::Known(false);
        };
        self.fields
            .iter()
            .fold(Truth::Known(true), |so_far, (start, len)| {
                let field = *start..start + len;
                let (Some(key), Some(low), Some(high)) = (
                    key.get(field.clone()),
                    low.get(field.clone()),
                    high.get(field),
                ) else {
                    return so_far.and(Truth::Unsure);
                };
                so_far.and(within(key, low, high))
            })
    }
}
