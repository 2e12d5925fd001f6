//! A ruleset of nftables: what it is, and reading it as the kernel dumps it. The rest is in the folder.
//!
//! Nothing is understood that need not be: tables, chains, objects, flowtables, sets, elements and rules go
//! over octet by octet, without what only the kernel gives out (handles, counts of use). So nothing is lost that
//! no program can print, as the expressions of iptables-nft.
//!
//! | file | |
//! | --- | --- |
//! | `send.rs` | sending it to a namespace that has no rules yet |
//! | `state.rs` | what packets change in it, and putting that back |
//! | `expressions.rs` | what rules consist of, walked and rewritten |
//! | `compat.rs` | what must be said beside the expressions of iptables-nft |
//! | `tracking.rs` | chains of which nobody can tell whether they come before connection tracking |
//! | `numbers.rs` | linux/netfilter/nf_tables.h |

pub mod compat;
pub mod expressions;
mod numbers;
pub mod send;
pub mod state;
mod tracking;

use std::collections::HashMap;
use std::io;

use nlink::netlink::nftables::Family as NftFamily;

use self::expressions::as_taken;
use self::numbers::{
    GETCHAIN, GETFLOWTABLE, GETGEN, GETOBJ, GETRULE, GETSET, GETSETELEM, GETTABLE, NAME,
    NFT_SET_ANONYMOUS, NFT_SET_CONCAT, NFT_SET_EVAL, NFT_SET_INTERVAL, NFT_TABLE_F_OWNER,
    NFT_TABLE_F_PERSIST, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE,
    NFTA_CHAIN_USERDATA, NFTA_GEN_ID, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE,
    NFTA_RULE_USERDATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_FLAGS,
    NFTA_TABLE_FLAGS, NFTA_TABLE_NAME, NFTA_TABLE_USERDATA, OF_FLOWTABLES, OF_OBJECTS, OF_SETS,
    TABLE,
};
use super::netlink::{
    GENERIC, Message, NFTABLES, Socket, attributes, copy_of, find, find_text, find_u32, generic,
    put, put_text,
};

/// A ruleset that changes in each of so many readings in a row is being rebuilt in a loop.
const ATTEMPTS: u32 = 5;
/// What one dump may hold: 100,000 prefixes are 6 MB.
const MOST_BYTES: usize = 256 << 20;

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
}

impl std::fmt::Display for ChainName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [table, chain] = [&self.table, &self.chain].map(|name| String::from_utf8_lossy(name));
        write!(f, "{} {table} {chain}", family_word(self.family))
    }
}

/// nft's word for the kernel's number of a family.
pub fn family_word(family: u8) -> &'static str {
    NftFamily::from_u8(family).map_or("?", NftFamily::name)
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
