//! A ruleset sent to another namespace, in as few transactions as it fits into. What the kernel refuses is left out,
//! something that does nothing stands in for it, and it is told.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use super::expressions::sets_of;
use super::numbers::{
    NAME, NEWCHAIN, NEWFLOWTABLE, NEWOBJ, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, NFT_SET_ANONYMOUS,
    NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_COMPAT,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_FLAGS,
    NFTA_SET_ID, OF_SETS, TABLE,
};
use super::{ChainName, Rule, Ruleset, Set, Thing, compat};
use crate::doctor::twin::netlink::{
    BATCH_BYTES, NFTABLES, NLM_F_APPEND, NLM_F_CREATE, Order, Refused, Socket, copy_of, generic,
    put, put_nested, put_text,
};

/// As many refusals of one transaction are taken out of it before everything else is sent alone.
const MOST_ROUNDS: usize = 16;

/// What the kernel made of a ruleset that was sent to it.
#[derive(Debug, Default)]
pub struct Copy {
    /// What it refused.
    pub missing: Vec<String>,
    /// What stands otherwise and decides nothing.
    pub otherwise: Vec<String>,
    /// Rules that a rule stands in for that does nothing: their chains and handles.
    pub left_out: HashSet<(ChainName, u64)>,
}

impl Ruleset {
    /// Sends all of it to the socket's namespace, which has no rules yet.
    ///
    /// # Errors
    /// The kernel's, if the namespace takes no rules at all. What it refuses of the ruleset is told in the copy.
    pub fn send(&self, socket: &mut Socket) -> io::Result<Copy> {
        let mut copy = Copy::default();
        for table in &self.owned {
            copy.otherwise.push(format!(
                "table {table} belongs to a program, here to nobody"
            ));
        }
        let things = [
            (NEWTABLE, &self.tables, "table"),
            (NEWCHAIN, &self.chains, "chain"),
            (NEWOBJ, &self.objects, "object"),
            (NEWFLOWTABLE, &self.flowtables, "flowtable"),
        ];
        for (kind, things, word) in things {
            let units: Vec<Unit> = things.iter().map(|thing| thing.unit(kind)).collect();
            for (index, error) in send_all(socket, &units)? {
                copy.missing
                    .push(format!("{word} {}: {error}", things[index].called));
            }
        }
        let (anonymous, named): (Vec<&Set>, Vec<&Set>) =
            (self.sets.iter()).partition(|set| set.flags & NFT_SET_ANONYMOUS != 0);
        let units: Vec<Unit> = named.iter().map(|set| vec![set.order()]).collect();
        let refused = send_all(socket, &units)?;
        let refused: HashMap<usize, io::Error> = refused.into_iter().collect();
        for (index, set) in named.iter().enumerate() {
            if let Some(error) = refused.get(&index) {
                copy.missing.push(format!("set {}: {error}", set.called()));
                continue;
            }
            let units: Vec<Unit> = set.fill().into_iter().map(|order| vec![order]).collect();
            let refused = send_all(socket, &units)?;
            if let Some((_, error)) = refused.first() {
                copy.missing
                    .push(format!("elements of set {}: {error}", set.called()));
            }
        }
        self.send_rules(socket, &anonymous, &mut copy)?;
        Ok(copy)
    }

    /// Adds the elements of every named set to the set of the same name there.
    ///
    /// # Errors
    /// The kernel's: one that is refused is an error too.
    pub fn send_elements(&self, socket: &mut Socket) -> io::Result<()> {
        for set in self.sets.iter().filter(|set| !set.elements.is_empty()) {
            let refused = send_all(socket, &[set.fill()])?;
            if !refused.is_empty() {
                return Err(first_refusal(refused));
            }
        }
        Ok(())
    }

    fn send_rules(
        &self,
        socket: &mut Socket,
        anonymous: &[&Set],
        copy: &mut Copy,
    ) -> io::Result<()> {
        let sets: HashMap<(u8, &[u8], &[u8]), &Set> = (anonymous.iter())
            .map(|set| ((set.family, &set.table[..], &set.name[..]), *set))
            .collect();
        let mut sent = HashSet::new();
        let mut units = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let mut unit = Vec::new();
            for name in sets_of(&rule.expressions) {
                let key = (rule.place.family, &rule.place.table[..], name);
                let Some(set) = sets.get(&key) else { continue };
                if !sent.insert(key) {
                    continue;
                }
                let fill = set.fill();
                if fill.len() == 1 || set.elements.is_empty() {
                    unit.push(set.order());
                    unit.extend(fill);
                    continue;
                }
                // It fits into no transaction together with its rule: then it has a name here.
                send_all(socket, &[vec![set.named().order()]])?;
                let parts: Vec<Unit> = fill.into_iter().map(|order| vec![order]).collect();
                if let Some((_, error)) = send_all(socket, &parts)?.first() {
                    copy.missing
                        .push(format!("elements in a rule of {}: {error}", rule.place));
                }
            }
            unit.push(rule.order(NLM_F_CREATE | NLM_F_APPEND));
            units.push(unit);
        }
        let refused = send_all_or(socket, &units, |index| vec![self.rules[index].stand_in()])?;
        for (index, error) in refused {
            let rule = &self.rules[index];
            copy.left_out.insert(rule.key());
            let what = compat::names(&rule.expressions).join(", ");
            let what = if what.is_empty() {
                String::new()
            } else {
                format!(" ({what})")
            };
            copy.missing.push(format!(
                "rule {} of {}{what}: {error}",
                rule.handle, rule.place
            ));
        }
        Ok(())
    }
}

pub(super) fn first_refusal(refused: Refused) -> io::Error {
    let first = refused.into_iter().next();
    first.map_or_else(|| io::Error::other("refused"), |(_, error)| error)
}

/// What is sent together or not at all.
pub(super) type Unit = Vec<Order>;

/// Sends units in as few transactions as they fit into. Which were refused, and why.
fn send_all(socket: &mut Socket, units: &[Unit]) -> io::Result<Refused> {
    send_all_or(socket, units, |_| Vec::new())
}

/// The same, with something else in a refused one's place.
fn send_all_or(
    socket: &mut Socket,
    units: &[Unit],
    instead: impl Fn(usize) -> Unit,
) -> io::Result<Refused> {
    let mut refused = Refused::new();
    for range in batches(units, BATCH_BYTES) {
        let part: Vec<(usize, &Unit)> = range.map(|index| (index, &units[index])).collect();
        send_some(socket, &part, &instead, &mut refused)?;
    }
    refused.sort_by_key(|(index, _)| *index);
    Ok(refused)
}

/// Which units go into one transaction, one after the other: as many as so many octets carry, and one at least.
pub(super) fn batches(units: &[Unit], most_bytes: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    while start < units.len() {
        let mut end = start;
        let mut bytes = 0;
        while end < units.len() {
            let more: usize = units[end].iter().map(|order| order.body.len() + 20).sum();
            if end > start && bytes + more > most_bytes {
                break;
            }
            bytes += more;
            end += 1;
        }
        batches.push(start..end);
        start = end;
    }
    batches
}

fn send_some(
    socket: &mut Socket,
    part: &[(usize, &Unit)],
    instead: &impl Fn(usize) -> Unit,
    refused: &mut Refused,
) -> io::Result<()> {
    let mut substitutes: HashMap<usize, Unit> = HashMap::new();
    for _ in 0..MOST_ROUNDS {
        let mut owners = Vec::new();
        let mut orders = Vec::new();
        for (index, unit) in part {
            let unit = substitutes.get(index).unwrap_or(unit);
            owners.extend(std::iter::repeat_n(*index, unit.len()));
            orders.extend(unit.iter().cloned());
        }
        let Err(errors) = socket.batch(&orders)? else {
            return Ok(());
        };
        let mut is_anybody = false;
        for (at, error) in errors {
            let Some(&owner) = owners.get(at) else {
                continue;
            };
            if let Entry::Vacant(place) = substitutes.entry(owner) {
                place.insert(instead(owner));
                refused.push((owner, error));
                is_anybody = true;
            }
        }
        if !is_anybody {
            break;
        }
    }
    // Nobody was named, or too many were: each by itself.
    for (index, unit) in part {
        let unit = substitutes.get(index).unwrap_or(unit);
        if let Err(errors) = socket.batch(unit)? {
            refused.push((*index, first_refusal(errors)));
            if !substitutes.contains_key(index) {
                let _ = socket.batch(&instead(*index))?;
            }
        }
    }
    Ok(())
}

impl Thing {
    fn unit(&self, kind: u16) -> Unit {
        let mut body = generic(self.family);
        body.extend(&self.attributes);
        vec![Order {
            kind: NFTABLES | kind,
            flags: NLM_F_CREATE,
            body,
        }]
    }
}

impl Set {
    pub(super) fn order(&self) -> Order {
        let mut body = generic(self.family);
        body.extend(&self.attributes);
        // Required, and read only within its transaction, where names are enough.
        put(&mut body, NFTA_SET_ID, &1_u32.to_be_bytes());
        Order {
            kind: NFTABLES | NEWSET,
            flags: NLM_F_CREATE,
            body,
        }
    }

    /// The same as a set that stays without a rule.
    fn named(&self) -> Self {
        const NFT_SET_CONSTANT: u32 = 2;
        let flags = self.flags & !(NFT_SET_ANONYMOUS | NFT_SET_CONSTANT);
        let kinds = OF_SETS.into_iter().filter(|kind| *kind != NFTA_SET_FLAGS);
        let mut attributes = copy_of(&self.attributes, &kinds.collect::<Vec<_>>());
        put(&mut attributes, NFTA_SET_FLAGS, &flags.to_be_bytes());
        Self {
            flags,
            attributes,
            elements: Vec::new(),
            ..self.clone()
        }
    }

    /// Its elements, in messages of at most `PORTION` octets.
    pub(super) fn fill(&self) -> Vec<Order> {
        /// An attribute ends at 64 KiB.
        const PORTION: usize = 60_000;
        let mut orders = Vec::new();
        let mut elements = self.elements.iter().peekable();
        while elements.peek().is_some() {
            let mut list = Vec::new();
            while let Some(element) = elements.next_if(|next| list.len() + next.len() + 8 < PORTION)
            {
                put_nested(&mut list, NFTA_LIST_ELEM, element);
            }
            if list.is_empty() {
                // None is that long.
                elements.next();
                continue;
            }
            let mut body = generic(self.family);
            put_text(&mut body, TABLE, &self.table);
            put_text(&mut body, NAME, &self.name);
            put_nested(&mut body, NFTA_SET_ELEM_LIST_ELEMENTS, &list);
            orders.push(Order {
                kind: NFTABLES | NEWSETELEM,
                flags: NLM_F_CREATE,
                body,
            });
        }
        orders
    }
}

impl Rule {
    pub(super) fn order(&self, flags: u16) -> Order {
        let mut body = self.head();
        put_nested(&mut body, NFTA_RULE_EXPRESSIONS, &self.expressions);
        if let Some(compat) = compat::of(&self.expressions, self.place.family) {
            put_nested(&mut body, NFTA_RULE_COMPAT, &compat);
        }
        if !self.userdata.is_empty() {
            put(&mut body, NFTA_RULE_USERDATA, &self.userdata);
        }
        Order {
            kind: NFTABLES | NEWRULE,
            flags,
            body,
        }
    }

    /// A rule that matches everything and does nothing: it keeps the place, and the trace shows that a packet came by.
    fn stand_in(&self) -> Order {
        let mut expression = Vec::new();
        put_text(&mut expression, NFTA_EXPR_NAME, b"counter");
        put_nested(&mut expression, NFTA_EXPR_DATA, &[]);
        let mut expressions = Vec::new();
        put_nested(&mut expressions, NFTA_LIST_ELEM, &expression);
        let mut body = self.head();
        put_nested(&mut body, NFTA_RULE_EXPRESSIONS, &expressions);
        Order {
            kind: NFTABLES | NEWRULE,
            flags: NLM_F_CREATE | NLM_F_APPEND,
            body,
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut body = generic(self.place.family);
        put_text(&mut body, TABLE, &self.place.table);
        put_text(&mut body, NFTA_RULE_CHAIN, &self.place.chain);
        body
    }
}
