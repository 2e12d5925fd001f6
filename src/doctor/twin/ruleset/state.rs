//! What a packet that comes by changes in a ruleset, and putting it back.

use std::collections::HashMap;
use std::io;

use super::expressions::{expressions, sets_of, with_set};
use super::numbers::{
    DELSETELEM, NAME, NEWRULE, NFT_SET_ANONYMOUS, NFT_SET_EVAL, NFTA_RULE_HANDLE, OF_SETS, TABLE,
};
use super::send::{Unit, batches, first_refusal};
use super::{ChainName, Rule, Ruleset, Set, compat, handle};
use crate::doctor::twin::netlink::{
    BATCH_BYTES, GENERIC, NFTABLES, NLM_F_ECHO, NLM_F_REPLACE, Order, Socket, copy_of, generic,
    put, put_text,
};

/// Sets with more elements than this are not filled anew between knocks.
const MOST_RESTORED: usize = 512;
/// What one batch changes that is echoed: of each rule the old and the new one come back, and must find room in the
/// socket's receive buffer (212,992 octets by default, in which messages weigh more than their octets).
const ECHOED_BYTES: usize = 32 << 10;

impl Ruleset {
    /// What changes when a packet comes by: the rules whose state is their own, and the sets that rules fill, but
    /// for those of the table of this name.
    pub fn state(&self, but_for: &str) -> State {
        let rules = self.rules.iter().filter(|rule| {
            rule.place.table != but_for.as_bytes() && keeps_state(&rule.expressions)
        });
        let is_filled =
            |set: &&Set| set.flags & NFT_SET_EVAL != 0 && set.table != but_for.as_bytes();
        let sets = self.sets.iter().filter(is_filled);
        let (short, long): (Vec<&Set>, Vec<&Set>) =
            sets.partition(|set| set.elements.len() <= MOST_RESTORED);
        let anonymous = self
            .sets
            .iter()
            .filter(|set| set.flags & NFT_SET_ANONYMOUS != 0);
        let anonymous: HashMap<(u8, &[u8], &[u8]), &Set> = (anonymous)
            .map(|set| ((set.family, &set.table[..], &set.name[..]), set))
            .collect();
        let rules = rules.map(|rule| {
            let names = sets_of(&rule.expressions);
            let key = |name| (rule.place.family, &rule.place.table[..], name);
            let sets = names.filter_map(|name| anonymous.get(&key(name)));
            (rule.clone(), sets.map(|set| (*set).clone()).collect())
        });
        State {
            rules: rules.collect(),
            turn: 0,
            sets: short.into_iter().cloned().collect(),
            not_restored: long.iter().map(|set| set.called()).collect(),
        }
    }
}

/// What a knock leaves behind, and how it is put back.
#[derive(Debug, Default)]
pub struct State {
    /// With the sets that stand in each.
    rules: Vec<(Rule, Vec<Set>)>,
    /// How often it was put back.
    turn: u32,
    sets: Vec<Set>,
    /// Sets that are too long for it.
    pub not_restored: Vec<String>,
}

impl State {
    /// The rules that are made anew: their chains and handles.
    pub fn rules(&self) -> impl Iterator<Item = (&ChainName, u64)> {
        self.rules
            .iter()
            .map(|(rule, _)| (&rule.place, rule.handle))
    }

    /// Puts everything back as it was copied. Which rules have a new handle: their chain, the old, the new one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn restore(&mut self, socket: &mut Socket) -> io::Result<Vec<(ChainName, u64, u64)>> {
        let mut changed = Vec::new();
        let mut units: Vec<Unit> = Vec::new();
        self.turn = self.turn.wrapping_add(1);
        for (rule, sets) in &self.rules {
            // A set that stands in a rule belongs to that rule: its successor needs another.
            let mut rule = rule.clone();
            let mut orders = Unit::new();
            for set in sets {
                let fresh = set.renamed(self.turn);
                rule.expressions = with_set(&rule.expressions, &set.name, &fresh.name);
                orders.push(fresh.order());
                orders.extend(fresh.fill());
            }
            let mut order = rule.order(NLM_F_REPLACE | NLM_F_ECHO);
            put(
                &mut order.body,
                NFTA_RULE_HANDLE,
                &rule.handle.to_be_bytes(),
            );
            orders.push(order);
            units.push(orders);
        }
        let mut echoed = Vec::new();
        for batch in batches(&units, ECHOED_BYTES) {
            let orders = units[batch].concat();
            echoed.extend(socket.batch(&orders)?.map_err(first_refusal)?);
        }
        let handles = echoed
            .iter()
            .filter(|message| message.kind == NFTABLES | NEWRULE);
        let handles: Vec<u64> = handles
            .filter_map(|message| handle(message.body.get(GENERIC..)?))
            .collect();
        for ((rule, _), handle) in self.rules.iter_mut().zip(handles) {
            changed.push((rule.place.clone(), rule.handle, handle));
            rule.handle = handle;
        }
        let sets = self.sets.iter().map(|set| {
            let mut body = generic(set.family);
            put_text(&mut body, TABLE, &set.table);
            put_text(&mut body, NAME, &set.name);
            let emptied = Order {
                kind: NFTABLES | DELSETELEM,
                flags: 0,
                body,
            };
            [vec![emptied], set.fill()].concat()
        });
        let units: Vec<Unit> = sets.collect();
        for batch in batches(&units, BATCH_BYTES) {
            let orders = units[batch].concat();
            socket.batch(&orders)?.map_err(first_refusal)?;
        }
        Ok(changed)
    }
}

impl Set {
    /// The same under another name.
    fn renamed(&self, turn: u32) -> Self {
        let mut name = self.name.clone();
        name.extend(format!(".{turn}").bytes());
        let kinds = OF_SETS.into_iter().filter(|kind| *kind != NAME);
        let mut attributes = copy_of(&self.attributes, &kinds.collect::<Vec<_>>());
        put_text(&mut attributes, NAME, &name);
        Self {
            name,
            attributes,
            ..self.clone()
        }
    }
}

/// Whether a packet that comes by changes what becomes of the next one, and a rule that is made anew forgets it.
fn keeps_state(list: &[u8]) -> bool {
    expressions(list).any(|(name, data)| match name {
        b"limit" | b"quota" | b"connlimit" | b"numgen" | b"last" => true,
        b"match" => compat::name_in(data)
            .is_some_and(|name| matches!(name, b"limit" | b"hashlimit" | b"statistic" | b"quota")),
        _ => false,
    })
}
