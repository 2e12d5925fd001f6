//! The allow-list: whose traffic is nobody's business but the site's.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

/// Prefixes whose members are never kept out, aggregated per family and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl AllowList {
    /// Aggregates prefixes: overlaps and neighbours become one, as interval sets demand.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => v4.push(prefix.trunc()),
                IpNet::V6(prefix) => v6.push(prefix.trunc()),
            }
        }
        Self {
            v4: Ipv4Net::aggregate(&v4),
            v6: Ipv6Net::aggregate(&v6),
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
            IpAddr::V4(address) => {
                let at = self
                    .v4
                    .partition_point(|prefix| prefix.network() <= address);
                at > 0 && self.v4[at - 1].contains(&address)
            }
            IpAddr::V6(address) => {
                let at = self
                    .v6
                    .partition_point(|prefix| prefix.network() <= address);
                at > 0 && self.v6[at - 1].contains(&address)
            }
        }
    }

    /// The IPv4 prefixes, disjoint and ascending.
    pub fn v4(&self) -> &[Ipv4Net] {
        &self.v4
    }

    /// The IPv6 prefixes, disjoint and ascending.
    pub fn v6(&self) -> &[Ipv6Net] {
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

    proptest! {
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
