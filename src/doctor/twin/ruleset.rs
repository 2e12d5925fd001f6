//! A ruleset of nftables as the kernel dumps it, and the same sent to another namespace.
//!
//! Nothing is understood that need not be: tables, chains, objects, flowtables, sets, elements and rules go
//! over octet by octet, without what only the kernel gives out (handles, counts of use). So nothing is lost that
//! no program can print, as the expressions of iptables-nft. Numbers are those of
//! linux/netfilter/nf_tables.h.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;

use super::compat;
use super::netlink::{
    Attribute, BATCH_BYTES, GENERIC, Message, NFTABLES, NLM_F_APPEND, NLM_F_CREATE, NLM_F_ECHO,
    NLM_F_REPLACE, Order, Refused, Socket, attributes, copy_of, find, find_text, find_u32, generic,
    put, put_nested, put_text,
};

/// A ruleset that changes in each of so many readings in a row is being rebuilt in a loop.
const ATTEMPTS: u32 = 5;
/// What one dump may hold: 100,000 prefixes are 6 MB.
const MOST_BYTES: usize = 256 << 20;
/// Sets with more elements than this are not filled anew between knocks.
const MOST_RESTORED: usize = 512;
/// As many refusals of one transaction are taken out of it before everything else is sent alone.
const MOST_ROUNDS: usize = 16;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
const GETGEN: u16 = 16;
const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;
const NEWFLOWTABLE: u16 = 22;
const GETFLOWTABLE: u16 = 23;

const NFTA_GEN_ID: u16 = 1;
/// In every kind of object: its table, and what it is called within.
const TABLE: u16 = 1;
const NAME: u16 = 2;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFT_TABLE_F_OWNER: u32 = 2;
const NFT_TABLE_F_PERSIST: u32 = 4;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_USERDATA: u16 = 12;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_COMPAT: u16 = 5;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_ID: u16 = 10;
const NFT_SET_ANONYMOUS: u32 = 1;
const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_SET_CONCAT: u32 = 0x80;
/// Everything of a set but its handle, its number and how many elements it has.
const OF_SETS: [u16; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18];
/// Everything of an object but its handle and how often it is used.
const OF_OBJECTS: [u16; 5] = [1, 2, 3, 4, 8];
/// Everything of a flowtable but its handle, how often it is used, and offloading to hardware.
const OF_FLOWTABLES: [u16; 3] = [1, 2, 3];
const NFTA_SET_ELEM_FLAGS: u16 = 3;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

/// A ruleset, or what could be read of it.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// `None` if it changed during every attempt to read it.
    pub generation: Option<u32>,
    tables: Vec<Thing>,
    chains: Vec<Thing>,
    objects: Vec<Thing>,
    flowtables: Vec<Thing>,
    sets: Vec<Set>,
    pub rules: Vec<Rule>,
    /// Tables that belong to a process.
    owned: Vec<String>,
}

/// Which elements are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Those of every set.
    All,
    /// Those of sets that rules fill, and of those that stand in rules.
    OfChangingSets,
}

/// A table, chain, object or flowtable.
#[derive(Clone, Debug)]
struct Thing {
    family: u8,
    /// What it is called, with its table.
    called: String,
    attributes: Vec<u8>,
}

/// A set with its elements.
#[derive(Clone, Debug)]
struct Set {
    family: u8,
    table: Vec<u8>,
    name: Vec<u8>,
    flags: u32,
    attributes: Vec<u8>,
    /// Each as it stands, in the order in which they can be added.
    elements: Vec<Vec<u8>>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub place: ChainName,
    /// As the kernel it was read from gave it out.
    pub handle: u64,
    pub expressions: Vec<u8>,
    userdata: Vec<u8>,
}

/// A chain by its full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainName {
    pub family: u8,
    pub table: Vec<u8>,
    pub chain: Vec<u8>,
}

impl Ruleset {
    /// Reads all of the namespace that the socket is of.
    ///
    /// A ruleset that changes meanwhile is read again, at most five times; then the last reading counts.
    ///
    /// # Errors
    /// The kernel's: no CAP_NET_ADMIN, or more than is copied.
    pub fn read(socket: &mut Socket, elements: Elements) -> io::Result<Self> {
        let mut before = generation(socket)?;
        let mut last = Err(io::Error::from(io::ErrorKind::Interrupted));
        for _ in 0..ATTEMPTS {
            let read = Self::read_once(socket, elements);
            let now = generation(socket)?;
            if now == before && !is_race(&read) {
                let mut ruleset = read?;
                ruleset.generation = Some(now);
                return Ok(ruleset);
            }
            before = now;
            last = read;
        }
        last
    }

    fn read_once(socket: &mut Socket, elements: Elements) -> io::Result<Self> {
        let all = generic(0);
        let mut dump = |kind: u16, body: &[u8]| socket.dump(NFTABLES | kind, body, MOST_BYTES);
        let mut ruleset = Self::default();
        for message in dump(GETTABLE, &all)? {
            ruleset.take_table(&message);
        }
        for message in dump(GETCHAIN, &all)? {
            let kinds = [
                TABLE,
                NFTA_CHAIN_NAME,
                NFTA_CHAIN_HOOK,
                NFTA_CHAIN_POLICY,
                NFTA_CHAIN_TYPE,
                NFTA_CHAIN_USERDATA,
            ];
            ruleset
                .chains
                .extend(thing(&message, &kinds, NFTA_CHAIN_NAME));
        }
        for message in dump(GETOBJ, &all)? {
            ruleset.objects.extend(thing(&message, &OF_OBJECTS, NAME));
        }
        for message in dump(GETFLOWTABLE, &all)? {
            ruleset
                .flowtables
                .extend(thing(&message, &OF_FLOWTABLES, NAME));
        }
        for message in dump(GETRULE, &all)? {
            ruleset.rules.extend(rule(&message));
        }
        for message in dump(GETSET, &all)? {
            let Some(mut set) = set(&message) else {
                continue;
            };
            let changes = set.flags & (NFT_SET_EVAL | NFT_SET_ANONYMOUS) != 0;
            if elements == Elements::OfChangingSets && !changes {
                ruleset.sets.push(set);
                continue;
            }
            let mut body = generic(set.family);
            put_text(&mut body, TABLE, &set.table);
            put_text(&mut body, NAME, &set.name);
            for part in dump(GETSETELEM, &body)? {
                let attributes_of = part.body.get(GENERIC..).unwrap_or_default();
                let list = find(attributes_of, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
                set.elements
                    .extend(attributes(list).map(|element| element.payload.to_vec()));
            }
            // The kernel gives out ranges from the last to the first, and takes them from the first on; those of
            // concatenations it keeps in the order in which they came.
            if set.flags & (NFT_SET_INTERVAL | NFT_SET_CONCAT) == NFT_SET_INTERVAL {
                set.elements.reverse();
                drop_lone_ends(&mut set.elements);
            }
            ruleset.sets.push(set);
        }
        Ok(ruleset)
    }

    fn take_table(&mut self, message: &Message) {
        let Some(mut table) = thing(
            message,
            &[NFTA_TABLE_NAME, NFTA_TABLE_USERDATA],
            NFTA_TABLE_NAME,
        ) else {
            return;
        };
        let flags = find_u32(&message.body[GENERIC..], NFTA_TABLE_FLAGS).unwrap_or(0);
        let kept = flags & !(NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST);
        if flags & NFT_TABLE_F_OWNER != 0 {
            self.owned.push(table.called.clone());
        }
        if kept != 0 {
            put(&mut table.attributes, NFTA_TABLE_FLAGS, &kept.to_be_bytes());
        }
        self.tables.push(table);
    }

    /// How much it is, in a line.
    pub fn size(&self) -> String {
        let elements: usize = self.sets.iter().map(|set| set.elements.len()).sum();
        format!(
            "{} tables, {} chains, {} rules, {} sets with {elements} elements",
            self.tables.len(),
            self.chains.len(),
            self.rules.len(),
            self.sets.len()
        )
    }

    /// Whether there is no table at all.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The handles of each chain's rules, in their order.
    pub fn handles(&self) -> HashMap<&ChainName, Vec<u64>> {
        let mut handles: HashMap<_, Vec<u64>> = HashMap::new();
        for rule in &self.rules {
            handles.entry(&rule.place).or_default().push(rule.handle);
        }
        handles
    }

    /// The base chains: family, table, name.
    pub fn base_chains(&self) -> Vec<(u8, String, String)> {
        let bases = self.chains.iter();
        let bases = bases.filter(|chain| find(&chain.attributes, NFTA_CHAIN_HOOK).is_some());
        let text = |chain: &Thing, kind| {
            let name = find_text(&chain.attributes, kind).unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        bases
            .map(|chain| {
                (
                    chain.family,
                    text(chain, TABLE),
                    text(chain, NFTA_CHAIN_NAME),
                )
            })
            .collect()
    }

    /// Whether it has a table of this name and family.
    pub fn has_table(&self, family: u8, name: &str) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|table| {
            table.family == family
                && find_text(&table.attributes, NFTA_TABLE_NAME) == Some(name.as_bytes())
        })
    }

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
        let mut orders = Vec::new();
        self.turn = self.turn.wrapping_add(1);
        for (rule, sets) in &self.rules {
            // A set that stands in a rule belongs to that rule: its successor needs another.
            let mut rule = rule.clone();
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
        }
        let echoed = socket.batch(&orders)?.map_err(first_refusal)?;
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
        let mut orders = Vec::new();
        for set in &self.sets {
            let mut body = generic(set.family);
            put_text(&mut body, TABLE, &set.table);
            put_text(&mut body, NAME, &set.name);
            orders.push(Order {
                kind: NFTABLES | DELSETELEM,
                flags: 0,
                body,
            });
            orders.extend(set.fill());
        }
        socket.batch(&orders)?.map_err(first_refusal)?;
        Ok(changed)
    }
}

fn first_refusal(refused: Refused) -> io::Error {
    let first = refused.into_iter().next();
    first.map_or_else(|| io::Error::other("refused"), |(_, error)| error)
}

/// What is sent together or not at all.
type Unit = Vec<Order>;

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
    let mut start = 0;
    while start < units.len() {
        let mut end = start;
        let mut bytes = 0;
        while end < units.len() {
            let more: usize = units[end].iter().map(|order| order.body.len() + 20).sum();
            if end > start && bytes + more > BATCH_BYTES {
                break;
            }
            bytes += more;
            end += 1;
        }
        let part: Vec<(usize, &Unit)> = (start..end).map(|index| (index, &units[index])).collect();
        send_some(socket, &part, &instead, &mut refused)?;
        start = end;
    }
    refused.sort_by_key(|(index, _)| *index);
    Ok(refused)
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
    fn called(&self) -> String {
        format!(
            "{} {} {}",
            family_word(self.family),
            String::from_utf8_lossy(&self.table),
            String::from_utf8_lossy(&self.name)
        )
    }

    fn order(&self) -> Order {
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

    /// Its elements, in messages of at most [`PORTION`] octets.
    fn fill(&self) -> Vec<Order> {
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

/// Of a range that ran out the kernel still gives out the end, and does not take that back alone.
fn drop_lone_ends(elements: &mut Vec<Vec<u8>>) {
    let mut after_end = false;
    elements.retain(|element| {
        let is_end = is_interval_end(element);
        let is_lone = is_end && after_end;
        after_end = is_end;
        !is_lone
    });
}

fn is_interval_end(element: &[u8]) -> bool {
    const NFT_SET_ELEM_INTERVAL_END: u8 = 1;
    let flags = find(element, NFTA_SET_ELEM_FLAGS).unwrap_or_default();
    flags
        .last()
        .is_some_and(|low| low & NFT_SET_ELEM_INTERVAL_END != 0)
}

impl Rule {
    /// Its chain and handle.
    pub fn key(&self) -> (ChainName, u64) {
        (self.place.clone(), self.handle)
    }

    fn order(&self, flags: u16) -> Order {
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

impl std::fmt::Display for ChainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [table, chain] = [&self.table, &self.chain].map(|name| String::from_utf8_lossy(name));
        write!(f, "{} {table} {chain}", family_word(self.family))
    }
}

/// nft's word for the kernel's number of a family.
pub fn family_word(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}

fn generation(socket: &mut Socket) -> io::Result<u32> {
    let answer = socket.ask(NFTABLES | GETGEN, &generic(0))?;
    let attributes = answer.body.get(GENERIC..).unwrap_or_default();
    find_u32(attributes, NFTA_GEN_ID).ok_or_else(|| io::Error::other("no generation"))
}

/// Whether something vanished, or changed, while it was read.
fn is_race<T>(read: &io::Result<T>) -> bool {
    matches!(read, Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::NotFound))
}

fn thing(message: &Message, kinds: &[u16], name: u16) -> Option<Thing> {
    let (head, body) = message.body.split_at_checked(GENERIC)?;
    let family = *head.first()?;
    let table = String::from_utf8_lossy(find_text(body, TABLE)?).into_owned();
    let called = match name == NFTA_TABLE_NAME {
        true => format!("{} {table}", family_word(family)),
        false => {
            let name = String::from_utf8_lossy(find_text(body, name)?);
            format!("{} {table} {name}", family_word(family))
        }
    };
    Some(Thing {
        family,
        called,
        attributes: copy_of(body, kinds),
    })
}

fn set(message: &Message) -> Option<Set> {
    let (head, body) = message.body.split_at_checked(GENERIC)?;
    Some(Set {
        family: *head.first()?,
        table: find_text(body, TABLE)?.to_vec(),
        name: find_text(body, NAME)?.to_vec(),
        flags: find_u32(body, NFTA_SET_FLAGS).unwrap_or(0),
        attributes: copy_of(body, &OF_SETS),
        elements: Vec::new(),
    })
}

fn rule(message: &Message) -> Option<Rule> {
    let (head, body) = message.body.split_at_checked(GENERIC)?;
    Some(Rule {
        place: ChainName {
            family: *head.first()?,
            table: find_text(body, TABLE)?.to_vec(),
            chain: find_text(body, NFTA_RULE_CHAIN)?.to_vec(),
        },
        handle: handle(body)?,
        expressions: as_taken(find(body, NFTA_RULE_EXPRESSIONS).unwrap_or_default()),
        userdata: find(body, NFTA_RULE_USERDATA).unwrap_or_default().to_vec(),
    })
}

fn handle(attributes: &[u8]) -> Option<u64> {
    let handle = find(attributes, NFTA_RULE_HANDLE)?.try_into().ok()?;
    Some(u64::from_be_bytes(handle))
}

/// The expressions of a rule, each with its name and its own attributes.
pub fn expressions(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    attributes(list).filter_map(|expression| {
        let name = find_text(expression.payload, NFTA_EXPR_NAME)?;
        let data = find(expression.payload, NFTA_EXPR_DATA).unwrap_or_default();
        Some((name, data))
    })
}

/// The sets that a rule names.
fn sets_of(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NFTA_LOOKUP_SET: u16 = 1;
    const NFTA_DYNSET_SET_NAME: u16 = 1;
    const NFTA_OBJREF_SET_NAME: u16 = 4;
    expressions(list).filter_map(|(name, data)| match name {
        b"lookup" => find_text(data, NFTA_LOOKUP_SET),
        b"dynset" => find_text(data, NFTA_DYNSET_SET_NAME),
        b"objref" => find_text(data, NFTA_OBJREF_SET_NAME),
        _ => None,
    })
}

/// The expressions of a rule, each of its attributes as `change` has it; `None` takes one away.
fn rewritten(list: &[u8], change: impl Fn(&[u8], &[u8], &Attribute) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut changed = Vec::with_capacity(list.len());
    for (name, data) in expressions(list) {
        let mut kept = Vec::with_capacity(data.len());
        for attribute in attributes(data) {
            kept.extend(change(name, data, &attribute).unwrap_or_default());
            kept.resize(kept.len().next_multiple_of(4), 0);
        }
        let mut expression = Vec::new();
        put_text(&mut expression, NFTA_EXPR_NAME, name);
        put_nested(&mut expression, NFTA_EXPR_DATA, &kept);
        put_nested(&mut changed, NFTA_LIST_ELEM, &expression);
    }
    changed
}

/// The expressions of a rule as the kernel takes them: some it gives out with attributes that it refuses. Of a rule
/// that fills a set, a timeout of nothing where the set has none; of one that writes a TCP option, flags that are
/// for reading; of one that takes an option away, where in it.
fn as_taken(list: &[u8]) -> Vec<u8> {
    const NFTA_DYNSET_TIMEOUT: u16 = 6;
    const NFTA_EXTHDR_DREG: u16 = 1;
    const NFTA_EXTHDR_OFFSET: u16 = 3;
    const NFTA_EXTHDR_LEN: u16 = 4;
    const NFTA_EXTHDR_FLAGS: u16 = 5;
    const NFTA_EXTHDR_SREG: u16 = 7;
    rewritten(list, |name, data, attribute| {
        let is_nothing = attribute.payload.iter().all(|octet| *octet == 0);
        let is_refused = match (name, attribute.kind) {
            (b"dynset", NFTA_DYNSET_TIMEOUT) | (b"exthdr", NFTA_EXTHDR_FLAGS) => is_nothing,
            (b"exthdr", NFTA_EXTHDR_OFFSET | NFTA_EXTHDR_LEN) => {
                find(data, NFTA_EXTHDR_DREG).is_none() && find(data, NFTA_EXTHDR_SREG).is_none()
            }
            _ => false,
        };
        (!is_refused).then(|| attribute.whole.to_vec())
    })
}

/// The expressions of a rule, with another set in one set's place.
fn with_set(list: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    /// `NFTA_LOOKUP_SET` and `NFTA_DYNSET_SET_NAME`.
    const SET_NAME: u16 = 1;
    const NFTA_OBJREF_SET_NAME: u16 = 4;
    rewritten(list, |name, _, attribute| {
        let at = match name {
            b"lookup" | b"dynset" => SET_NAME,
            b"objref" => NFTA_OBJREF_SET_NAME,
            _ => 0,
        };
        let is_it = attribute.kind == at && attribute.payload.strip_suffix(&[0]) == Some(old);
        if !is_it {
            return Some(attribute.whole.to_vec());
        }
        let mut renamed = Vec::new();
        put_text(&mut renamed, at, new);
        Some(renamed)
    })
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
