//! The allow-list as the kernel is told of it: its sets are named by their content.
//!
//! A list is recognised by its name and never read back (reading a million ranges takes 43 s), and a
//! changed list is a new set that no rule reads before it is whole. Names are worked out once, when a
//! list is made, and elements only for the portion that is written: a list may hold a million ranges.
//! Nothing here talks to a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nlink::netlink::nftables::{Family as NftFamily, Set, SetElement, SetKeyType};

use super::names::TABLE;
use crate::gate::allow_list::{AllowList, Bits, Entries, Ranges};
use crate::gate::lease::Family;

/// How a set of the allow-list is known among ours, whatever it holds.
const PREFIX: &str = "allow";
/// Ranges that one message holds: an nftables attribute ends at 64 KiB, a batch at the socket's send
/// buffer (212,992 octets by default, about 1,400 ranges).
pub const PORTION: usize = 700;

/// An allow-list and the names of its sets. Cheap to clone; equal to another of the same names.
#[derive(Clone, Debug)]
pub struct Listed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    names: [String; 2],
    /// `None` for sets that stand in the kernel and were filled by another process.
    list: Option<Arc<AllowList>>,
    /// What stands for a longer list until that is filled.
    at_once: Option<Listed>,
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.0.names == other.0.names
    }
}

impl Eq for Listed {}

impl From<Arc<AllowList>> for Listed {
    fn from(list: Arc<AllowList>) -> Self {
        let at_once = (count(&list) > PORTION).then(|| Self::from(local_part(&list)));
        Self(Arc::new(Inner {
            names: [
                format!("{PREFIX}4_{:016x}", digest(list.v4(), u32::to_be_bytes)),
                format!("{PREFIX}6_{:016x}", digest(list.v6(), u128::to_be_bytes)),
            ],
            list: Some(list),
            at_once,
        }))
    }
}

impl From<AllowList> for Listed {
    fn from(list: AllowList) -> Self {
        Self::from(Arc::new(list))
    }
}

impl Listed {
    /// A list of which only the names are known, IPv4's and IPv6's; if its sets are lost, what is at
    /// once there of `successor` takes its place.
    pub fn by_name(names: [String; 2], successor: &Self) -> Self {
        Self(Arc::new(Inner {
            names,
            list: None,
            at_once: Some(successor.at_once()),
        }))
    }

    /// The names of its sets, IPv4's and IPv6's.
    pub fn names(&self) -> &[String; 2] {
        &self.0.names
    }

    /// Whether the set of this name is, or was, an allow-list's.
    pub fn is_one(set: &str) -> bool {
        set.starts_with(PREFIX)
    }

    /// Whether one message holds it.
    pub fn is_short(&self) -> bool {
        self.0.at_once.is_none()
    }

    /// What can stand at once in its place: itself if it is short, else those of its ranges that
    /// lie in local networks, at most [`PORTION`].
    pub fn at_once(&self) -> Self {
        self.0.at_once.as_ref().unwrap_or(self).clone()
    }

    /// The list itself, unless only its names are known.
    pub fn list(&self) -> Option<&AllowList> {
        self.0.list.as_deref()
    }

    /// How many ranges it has; none are known of a list by name.
    pub fn count(&self) -> usize {
        self.0.list.as_ref().map_or(0, |list| count(list))
    }

    /// How many of one family.
    pub fn count_of(&self, family: Family) -> usize {
        match (&self.0.list, family) {
            (None, _) => 0,
            (Some(list), Family::V4) => list.v4().as_slice().len(),
            (Some(list), Family::V6) => list.v6().as_slice().len(),
        }
    }

    /// The set of one family.
    pub fn set(&self, family: Family) -> Set {
        let [v4, v6] = &self.0.names;
        let (name, key) = match family {
            Family::V4 => (v4, SetKeyType::Ipv4Addr),
            Family::V6 => (v6, SetKeyType::Ipv6Addr),
        };
        Set::new(TABLE, name)
            .family(NftFamily::Inet)
            .key_type(key)
            .interval()
    }

    /// Up to `most` ranges of one family from number `from` on, ascending.
    pub fn elements(&self, family: Family, from: usize, most: usize) -> Vec<SetElement> {
        let Some(list) = &self.0.list else {
            return Vec::new();
        };
        match family {
            Family::V4 => {
                let ranges = list.v4().as_slice().iter().skip(from).take(most);
                let ranges = ranges.map(|(first, last)| {
                    let ends = [first, last].map(|bits| Ipv4Addr::from_bits(*bits));
                    SetElement::ipv4_range(ends[0], ends[1])
                });
                ranges.collect()
            }
            Family::V6 => {
                let ranges = list.v6().as_slice().iter().skip(from).take(most);
                let ranges = ranges.map(|(first, last)| {
                    let ends = [first, last].map(|bits| Ipv6Addr::from_bits(*bits));
                    SetElement::ipv6_range(ends[0], ends[1])
                });
                ranges.collect()
            }
        }
    }

    /// The ranges of one family as nft lists them, ascending.
    pub(super) fn text(&self, family: Family) -> Vec<String> {
        let Some(list) = &self.0.list else {
            return Vec::new();
        };
        match family {
            Family::V4 => {
                let ranges = list.v4().as_slice().iter();
                let ranges = ranges.map(|(first, last)| {
                    let ends = [*first, *last].map(|bits| Ipv4Addr::from_bits(bits).into());
                    range_text(ends, first.widen(), last.widen(), 32)
                });
                ranges.collect()
            }
            Family::V6 => {
                let ranges = list.v6().as_slice().iter();
                let ranges = ranges.map(|(first, last)| {
                    let ends = [*first, *last].map(|bits| Ipv6Addr::from_bits(bits).into());
                    range_text(ends, *first, *last, 128)
                });
                ranges.collect()
            }
        }
    }
}

fn count(list: &AllowList) -> usize {
    list.v4().as_slice().len() + list.v6().as_slice().len()
}

/// What a host that has just lost its list must not do without: its own networks.
fn local_part(list: &AllowList) -> AllowList {
    let local = AllowList::new(AllowList::local());
    let mut v4 = within(list.v4(), local.v4());
    let mut v6 = within(list.v6(), local.v6());
    v4.truncate(PORTION / 2);
    v6.truncate(PORTION / 2);
    AllowList::from_entries(Entries { v4, v6 }, Entries::default())
}

fn within<Number: Bits>(all: &Ranges<Number>, places: &Ranges<Number>) -> Vec<(Number, Number)> {
    let mut found = Vec::new();
    for &(first, last) in places.as_slice() {
        let begin = all.as_slice().partition_point(|(_, end)| *end < first);
        let inside = all.as_slice()[begin..].iter();
        let inside = inside.take_while(|(start, _)| *start <= last).take(PORTION);
        found.extend(inside.map(|(start, end)| ((*start).max(first), (*end).min(last))));
    }
    found
}

/// A range as nft lists it: one address, a prefix where it is one, or from first to last.
fn range_text([from, to]: [IpAddr; 2], first: u128, last: u128, bits: u32) -> String {
    let differing = first ^ last;
    let free = u128::BITS - differing.leading_zeros();
    let is_prefix = differing.count_ones() == free && first & differing == 0;
    match (free, is_prefix) {
        (0, _) => from.to_string(),
        (_, true) => format!("{from}/{}", bits - free),
        (_, false) => format!("{from}-{to}"),
    }
}

/// FNV-1a, 64 bits: names a list, protects nothing.
fn digest<Number: Bits, const N: usize>(
    ranges: &Ranges<Number>,
    bytes: impl Fn(Number) -> [u8; N],
) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for (first, last) in ranges.as_slice() {
        for byte in bytes(*first).into_iter().chain(bytes(*last)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(prefixes: &[&str]) -> Listed {
        let prefixes = prefixes.iter().map(|text| text.parse().unwrap());
        Listed::from(AllowList::new(prefixes))
    }

    #[test]
    fn a_list_is_known_by_its_content_family_by_family() {
        let one = listed(&["192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(
            one,
            listed(&["2001:db8::/32", "192.0.2.0/25", "192.0.2.128/25"])
        );
        let other = listed(&["192.0.2.0/24", "2001:db9::/32"]);
        assert_ne!(one, other);
        assert_eq!(one.names()[0], other.names()[0]);
        assert!(one.names().iter().all(|name| Listed::is_one(name)));
        assert!(!Listed::is_one("window4"));
        // Where one range ends and the next begins is part of it.
        assert_ne!(
            listed(&["0.0.0.1/32", "0.0.0.3/32"]).names()[0],
            Listed::from(AllowList::from_entries(
                Entries {
                    v4: vec![(1, 3)],
                    ..Entries::default()
                },
                Entries::default()
            ))
            .names()[0]
        );
    }

    #[test]
    fn of_a_long_list_the_local_networks_stand_at_once() {
        let many = (0..2000u32).map(|number| (number << 12, (number << 12) + 7));
        let home = (0x0a00_0000, 0x0a00_00ff);
        // Begins before the private range and ends in it.
        let across = (0xac0f_0000, 0xac10_00ff);
        let list = AllowList::from_entries(
            Entries {
                v4: many.chain([home, across]).collect(),
                v6: vec![(0, u128::MAX)],
            },
            Entries::default(),
        );
        let long = Listed::from(list);
        assert!(!long.is_short());
        let at_once = long.at_once();
        assert!(at_once.is_short() && at_once != long);
        assert_eq!(at_once.text(Family::V4), ["10.0.0.0/24", "172.16.0.0/24"]);
        assert_eq!(at_once.text(Family::V6), ["::1", "fc00::/7", "fe80::/10"]);
        assert_eq!(at_once.at_once(), at_once);
        let by_name = Listed::by_name(["allow4_1", "allow6_1"].map(str::to_owned), &long);
        assert!(!by_name.is_short() && by_name.count() == 0);
        assert_eq!(by_name.at_once(), at_once);
    }

    #[test]
    fn portions_are_the_whole() {
        let every_other = (0..1000u32).map(|number| (number * 2, number * 2));
        let entries = Entries {
            v4: every_other.collect(),
            ..Entries::default()
        };
        let list = Listed::from(AllowList::from_entries(entries, Entries::default()));
        let mut keys = Vec::new();
        for from in (0..1000).step_by(300) {
            keys.extend(list.elements(Family::V4, from, 300));
        }
        assert_eq!(keys.len(), list.count_of(Family::V4));
        assert_eq!(keys[999].key(), 1998u32.to_be_bytes());
        assert_eq!(list.elements(Family::V4, 1000, 300), []);
        assert_eq!(list.elements(Family::V6, 0, 300), []);
    }
}
