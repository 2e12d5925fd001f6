//! The allow-list: whose traffic is nobody's business but the site's.

use std::net::IpAddr;

use ipnet::IpNet;

/// Loopback, link-local and private ranges, there by default (RFC 1122, RFC 1918, RFC 3927,
/// RFC 4193, RFC 4291): a firewall that shuts out its own network is switched off soon.
pub const LOCAL_PREFIXES: [&str; 8] = [
    "127.0.0.0/8",
    "169.254.0.0/16",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
];

/// What [`Ranges`] count in: an address as a number.
pub trait Bits: Copy + Ord {
    /// The address after this one; `None` after the last.
    fn next(self) -> Option<Self>;
    /// The address before this one; `None` before the first.
    fn previous(self) -> Option<Self>;
    /// The number, for sums of both families.
    fn widen(self) -> u128;
}

impl Bits for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn widen(self) -> u128 {
        self.into()
    }
}

impl Bits for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }

    fn widen(self) -> u128 {
        self
    }
}

/// Addresses of one family as inclusive ranges: ascending, disjoint, and no two of them neighbours,
/// as interval sets demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<Number>(Vec<(Number, Number)>);

impl<Number> Default for Ranges<Number> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Number: Bits> Ranges<Number> {
    /// Sorts and joins ranges in any order, of first and last address; one that ends before it begins
    /// holds nothing.
    pub fn new(mut unsorted: Vec<(Number, Number)>) -> Self {
        unsorted.retain(|(first, last)| first <= last);
        unsorted.sort_unstable();
        unsorted.dedup_by(|(first, last), (_, before)| {
            let touches = before.next().is_none_or(|next| *first <= next);
            if touches {
                *before = (*before).max(*last);
            }
            touches
        });
        unsorted.shrink_to_fit();
        Self(unsorted)
    }

    /// Whether one of the ranges holds `address`.
    pub fn contains(&self, address: Number) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= address);
        at > 0 && address <= self.0[at - 1].1
    }

    /// What is left without the addresses of `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        let mut holes = other.0.iter().copied().peekable();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            while let (Some(start), Some(&(hole, end))) = (from, holes.peek()) {
                if end < start {
                    holes.next();
                } else if hole > last {
                    break;
                } else {
                    if let Some(before) = hole.previous().filter(|_| hole > start) {
                        left.push((start, before));
                    }
                    // A hole that goes on beyond this range may reach into the next one.
                    from = end.next().filter(|next| *next <= last);
                }
            }
            left.extend(from.map(|start| (start, last)));
        }
        Self(left)
    }

    /// The ranges, first and last address of each.
    pub fn as_slice(&self) -> &[(Number, Number)] {
        &self.0
    }

    /// How many addresses there are; at most 2^128 - 1 is said.
    pub fn addresses(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, (first, last)| {
            sum.saturating_add((last.widen() - first.widen()).saturating_add(1))
        })
    }
}

/// Ranges of both families as they are found, in any order and overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// IPv4, first and last address of each.
    pub v4: Vec<(u32, u32)>,
    /// IPv6.
    pub v6: Vec<(u128, u128)>,
}

impl Entries {
    /// Adds a prefix; bits behind its length do not count.
    pub fn add(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => self
                .v4
                .push((net.network().to_bits(), net.broadcast().to_bits())),
            IpNet::V6(net) => self
                .v6
                .push((net.network().to_bits(), net.broadcast().to_bits())),
        }
    }

    /// Adds what another has.
    pub fn extend(&mut self, other: &Self) {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
    }
}

impl Extend<IpNet> for Entries {
    fn extend<Prefixes: IntoIterator<Item = IpNet>>(&mut self, prefixes: Prefixes) {
        for prefix in prefixes {
            self.add(prefix);
        }
    }
}

/// Those who are never kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl AllowList {
    /// A list of prefixes.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut listed = Entries::default();
        Extend::extend(&mut listed, prefixes);
        Self::from_entries(listed, Entries::default())
    }

    /// What is `listed`, without what is `taken_off`, whoever listed it.
    pub fn from_entries(listed: Entries, taken_off: Entries) -> Self {
        Self {
            v4: Ranges::new(listed.v4).without(&Ranges::new(taken_off.v4)),
            v6: Ranges::new(listed.v6).without(&Ranges::new(taken_off.v6)),
        }
    }

    /// The prefixes of [`LOCAL_PREFIXES`].
    pub fn local() -> impl Iterator<Item = IpNet> {
        LOCAL_PREFIXES
            .iter()
            .filter_map(|prefix| prefix.parse().ok())
    }

    /// Whether `address` is a member. An IPv4-mapped address is judged as the IPv4 that it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// Whether nobody is a member.
    pub fn is_empty(&self) -> bool {
        self.v4.as_slice().is_empty() && self.v6.as_slice().is_empty()
    }

    /// The IPv4 ranges.
    pub fn v4(&self) -> &Ranges<u32> {
        &self.v4
    }

    /// The IPv6 ranges.
    pub fn v6(&self) -> &Ranges<u128> {
        &self.v6
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_local_prefix_parses_and_is_a_member() {
        let list = AllowList::new(AllowList::local());
        assert_eq!(AllowList::local().count(), LOCAL_PREFIXES.len());
        for inside in [
            "127.0.0.1",
            "10.255.255.255",
            "172.31.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(list.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "192.0.2.1",
            "172.32.0.1",
            "11.0.0.0",
            "2001:db8::1",
            "::2",
            "::ffff:192.0.2.1",
        ] {
            assert!(!list.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn neighbours_become_one_up_to_the_last_address() {
        let list = AllowList::new(
            [
                "10.0.0.0/25",
                "10.0.0.128/25",
                "255.255.255.255/32",
                "255.255.255.254/32",
                "::/1",
                "8000::/1",
            ]
            .map(|text| text.parse().unwrap()),
        );
        assert_eq!(
            list.v4().as_slice(),
            [(0x0a00_0000, 0x0a00_00ff), (0xffff_fffe, 0xffff_ffff)]
        );
        assert_eq!(list.v6().as_slice(), [(0, u128::MAX)]);
        assert_eq!(list.v4().addresses(), 258);
        assert_eq!(list.v6().addresses(), u128::MAX);
    }

    proptest! {
        #[test]
        fn what_is_taken_off_agrees_with_a_naive_loop(
            listed in prop::collection::vec((any::<u8>(), any::<u8>()), 0..12),
            taken_off in prop::collection::vec((any::<u8>(), any::<u8>()), 0..12),
        ) {
            // At the upper end, where an addition could run over.
            let at = |offset: u8| u32::MAX - 255 + u32::from(offset);
            let ranges = |pairs: &[(u8, u8)]| {
                Ranges::new(pairs.iter().map(|(first, last)| (at(*first), at(*last))).collect())
            };
            let left = ranges(&listed).without(&ranges(&taken_off));
            let holds = |pairs: &[(u8, u8)], offset| pairs.iter().any(|(first, last)| (*first..=*last).contains(&offset));
            for offset in 0..=255 {
                let naive = holds(&listed, offset) && !holds(&taken_off, offset);
                prop_assert_eq!(left.contains(at(offset)), naive, "{}", offset);
            }
            for pair in left.as_slice().windows(2) {
                prop_assert!(pair[0].1 < pair[1].0 - 1);
            }
        }

        #[test]
        fn membership_agrees_with_a_naive_loop(
            prefixes in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            addresses in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let prefixes: Vec<IpNet> = prefixes
                .into_iter()
                .map(|(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length).unwrap())
                .collect();
            let list = AllowList::new(prefixes.clone());
            let edges = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
            for address in addresses.into_iter().map(|bits| IpAddr::V4(bits.into())).chain(edges) {
                let naive = prefixes.iter().any(|prefix| prefix.contains(&address));
                prop_assert_eq!(list.contains(address), naive);
            }
        }
    }
}
