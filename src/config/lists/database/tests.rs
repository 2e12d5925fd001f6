//! Databases of another writer (tests/data/lists/mmdb), and trees that no writer makes.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

/// Marks a record that leads nowhere, and one that leads to the data of a country.
const EMPTY: u32 = u32::MAX;
const LI: u32 = u32::MAX - 1;
const CH: u32 = u32::MAX - 2;

/// A search tree in the making.
pub(in super::super) struct Made {
    nodes: Vec<[u32; 2]>,
    version: u16,
}

impl Made {
    pub(in super::super) fn new(version: u16) -> Self {
        Self {
            nodes: vec![[EMPTY; 2]],
            version,
        }
    }

    /// The node at the end of a path of bits, made where it is not there.
    fn node(&mut self, bits: u128, depth: u32) -> u32 {
        let mut at = 0;
        for level in 0..depth {
            let side = usize::from(bits >> (127 - level) & 1 == 1);
            if self.nodes[at as usize][side] >= CH {
                // What was said of the whole is still true of its halves.
                let said = self.nodes[at as usize][side];
                self.nodes.push([said; 2]);
                self.nodes[at as usize][side] = u32::try_from(self.nodes.len()).unwrap() - 1;
            }
            at = self.nodes[at as usize][side];
        }
        at
    }

    fn path(&self, prefix: IpNet) -> (u128, u32) {
        match prefix {
            IpNet::V4(net) => {
                let bits = u128::from(net.network().to_bits());
                let above = if self.version == 6 { 96 } else { 0 };
                (bits << (96 - above), above + u32::from(net.prefix_len()))
            }
            IpNet::V6(net) => (net.network().to_bits(), net.prefix_len().into()),
        }
    }

    /// Sets the record of a prefix, longer than zero bits.
    fn set(&mut self, prefix: &str, record: u32) -> &mut Self {
        let (bits, depth) = self.path(prefix.parse().unwrap());
        let above = self.node(bits, depth - 1);
        let side = usize::from(bits >> (128 - depth) & 1 == 1);
        self.nodes[above as usize][side] = record;
        self
    }

    pub(in super::super) fn li(&mut self, prefix: &str) -> &mut Self {
        self.set(prefix, LI)
    }

    pub(in super::super) fn ch(&mut self, prefix: &str) -> &mut Self {
        self.set(prefix, CH)
    }

    fn write(&self, record_bits: u16) -> Vec<u8> {
        let count = u32::try_from(self.nodes.len()).unwrap();
        let data = [country("LI"), country("CH")];
        let behind = count + 16;
        let value = |record: u32| match record {
            EMPTY => count,
            LI => behind,
            CH => behind + u32::try_from(data[0].len()).unwrap(),
            node => node,
        };
        let mut bytes = Vec::new();
        for node in &self.nodes {
            let [left, right] = node.map(value);
            match record_bits {
                24 => {
                    bytes.extend_from_slice(&left.to_be_bytes()[1..]);
                    bytes.extend_from_slice(&right.to_be_bytes()[1..]);
                }
                28 => {
                    bytes.extend_from_slice(&left.to_be_bytes()[1..]);
                    bytes.push(((left >> 24) << 4 | right >> 24) as u8);
                    bytes.extend_from_slice(&right.to_be_bytes()[1..]);
                }
                _ => bytes.extend([left, right].iter().flat_map(|it| it.to_be_bytes())),
            }
        }
        bytes.extend([0; 16]);
        bytes.extend(data.concat());
        bytes.extend(MARKER);
        bytes.extend(self.metadata(record_bits));
        bytes
    }

    pub(in super::super) fn bytes(&self) -> Vec<u8> {
        self.write(28)
    }

    fn metadata(&self, record_bits: u16) -> Vec<u8> {
        let number = |value: u16| [vec![5 << 5 | 2], value.to_be_bytes().to_vec()].concat();
        let nodes = u32::try_from(self.nodes.len()).unwrap();
        let pairs = [
            ("binary_format_major_version", number(2)),
            ("binary_format_minor_version", number(0)),
            ("build_epoch", vec![1, 2, 1]),
            ("database_type", text("Made")),
            ("description", vec![7 << 5]),
            ("ip_version", number(self.version)),
            ("languages", vec![0, 4]),
            (
                "node_count",
                [vec![6 << 5 | 4], nodes.to_be_bytes().to_vec()].concat(),
            ),
            ("record_size", number(record_bits)),
        ];
        map(&pairs)
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 29);
    [&[2 << 5 | length], text.as_bytes()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![7 << 5 | u8::try_from(pairs.len()).unwrap()];
    for (key, value) in pairs {
        bytes.extend(text(key));
        bytes.extend(value);
    }
    bytes
}

fn country(code: &str) -> Vec<u8> {
    map(&[("country", map(&[("iso_code", text(code))]))])
}

fn code(text: &str) -> Country {
    Country::parse(text).unwrap()
}

fn of(bytes: &[u8], country: &str) -> Result<Entries, Mistake> {
    assert!(is_one(bytes));
    let found = read(bytes, &BTreeSet::from([code(country)]))?;
    Ok(found.get(&code(country)).cloned().unwrap_or_default())
}

fn prefixes(prefixes: &[&str]) -> Entries {
    let mut entries = Entries::default();
    for prefix in prefixes {
        entries.add(prefix.parse().unwrap());
    }
    entries
}

#[test]
fn every_shape_and_record_size_is_read() {
    let files: [&[u8]; 4] = [
        include_bytes!("../../../../tests/data/lists/mmdb/dbip-24.mmdb"),
        include_bytes!("../../../../tests/data/lists/mmdb/geolite-28.mmdb"),
        include_bytes!("../../../../tests/data/lists/mmdb/ipinfo-lite-32.mmdb"),
        include_bytes!("../../../../tests/data/lists/mmdb/ipinfo-country-24.mmdb"),
    ];
    for file in files {
        for (country, networks) in [
            (
                "LI",
                &["198.51.100.0/24", "203.0.113.128/25", "2001:db8:100::/40"][..],
            ),
            (
                "CH",
                &["192.0.2.0/24", "198.18.0.0/15", "2001:db8:200::/39"],
            ),
            // In GeoLite2's shape this one is only registered there.
            ("DE", &["203.0.113.0/25", "2001:db8:0:8000::/49"]),
            ("AT", &[]),
        ] {
            assert_eq!(of(file, country).unwrap(), prefixes(networks), "{country}");
        }
        let both = read(file, &BTreeSet::from([code("LI"), code("DE")])).unwrap();
        assert_eq!(both.len(), 2);
        // Neighbours are one range: 203.0.113.0/25 is DE's, so there are two of LI.
        assert_eq!(both[&code("LI")].v4.len(), 2);
    }
}

/// 2^`depth` networks, each with a record of its own whose country is one map of 32,000 values.
fn with_heavy_records(depth: u32) -> Vec<u8> {
    let leaves = 1u32 << depth;
    let inner = leaves - 1;
    let value = [text("a"), vec![1, 7]].concat();
    let mut data = vec![7 << 5 | 30];
    data.extend((32_000u16 - 285).to_be_bytes());
    data.extend(value.repeat(32_000));
    // A pointer to the beginning of the data, by four octets.
    let record = [
        vec![7 << 5 | 1],
        text("country"),
        vec![1 << 5 | 3 << 3, 0, 0, 0, 0],
    ]
    .concat();
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let first = inner + 16 + size(&data);
    let child = |number: u32| match number.checked_sub(inner) {
        None => number,
        Some(leaf) => first + leaf * size(&record),
    };
    let mut bytes = Vec::new();
    for node in 0..inner {
        let children = [2 * node + 1, 2 * node + 2].map(child);
        bytes.extend(children.iter().flat_map(|it| it.to_be_bytes()));
    }
    bytes.extend([0; 16]);
    bytes.extend(data);
    bytes.extend(record.repeat(leaves as usize));
    bytes.extend(MARKER);
    let mut shape = Made::new(4);
    shape.nodes.resize(inner as usize, [EMPTY; 2]);
    bytes.extend(shape.metadata(32));
    bytes
}

#[test]
fn records_that_take_for_ever_are_given_up() {
    let wanted = BTreeSet::from([code("LI")]);
    let told = |decoding: u64, depth: u32| {
        let bytes = with_heavy_records(depth);
        let read = read_within(Duration::from_millis(decoding), &bytes, &wanted);
        read.unwrap_err().what
    };
    assert!(told(20_000, 2).starts_with("no network of this database"));
    assert!(told(5, 12).ends_with("its records take too long to read"));
}

#[test]
fn a_database_that_is_cut_off_or_bent_is_refused() {
    let whole: &[u8] = include_bytes!("../../../../tests/data/lists/mmdb/geolite-28.mmdb");
    let wanted = BTreeSet::from([code("LI")]);
    for end in 0..whole.len() {
        let cut = &whole[..end];
        assert!(!is_one(cut) || read(cut, &wanted).is_err(), "{end}");
    }
    for bend in 0..whole.len() {
        let mut bytes = whole.to_vec();
        bytes[bend] ^= 0x55;
        // Whatever comes of it, it comes: no panic, no endless walk.
        let _ = read(&bytes, &wanted);
        let _ = read(&whole[bend..], &wanted);
    }
    let told = of(&whole[300..], "LI").unwrap_err().what;
    assert!(told.contains("a broken database: "), "{told}");
}

#[test]
fn ipv4_in_other_places_of_ipv6_is_no_ipv6() {
    let mut made = Made::new(6);
    made.li("198.51.100.0/24").li("2001:db8::/32");
    let (bits, _) = made.path("0.0.0.0/32".parse().unwrap());
    let root = made.node(bits, 96);
    for alias in ["2002::/16", "::ffff:0:0/96", "2001::/32", "64:ff9b::/96"] {
        made.set(alias, root);
    }
    for record_bits in [24, 28, 32] {
        assert_eq!(
            of(&made.write(record_bits), "LI").unwrap(),
            prefixes(&["198.51.100.0/24", "2001:db8::/32"])
        );
    }
}

#[test]
fn a_record_above_ipv4_holds_all_of_it() {
    let mut made = Made::new(6);
    made.li("::/8").li("2001:db8::/32");
    assert_eq!(
        of(&made.bytes(), "LI").unwrap(),
        prefixes(&["0.0.0.0/0", "::/8", "2001:db8::/32"])
    );
    let mut made = Made::new(6);
    made.li("::/96").li("2001:db8::/32");
    assert_eq!(
        of(&made.bytes(), "LI").unwrap(),
        prefixes(&["0.0.0.0/0", "2001:db8::/32"])
    );
}

#[test]
fn a_database_of_ipv4_alone_has_no_ipv6() {
    let mut made = Made::new(4);
    made.li("198.51.100.0/24")
        .li("0.0.0.0/8")
        .li("255.255.255.255/32");
    assert_eq!(
        of(&made.bytes(), "LI").unwrap(),
        prefixes(&["0.0.0.0/8", "198.51.100.0/24", "255.255.255.255/32"])
    );
}

#[test]
fn neighbours_are_one_range() {
    let mut made = Made::new(4);
    made.li("198.51.100.0/24").li("198.51.101.0/25");
    assert_eq!(
        of(&made.bytes(), "LI").unwrap().v4,
        [(0xc633_6400, 0xc633_657f)]
    );
}

#[test]
fn a_tree_that_never_ends_is_refused() {
    let mut circle = Made::new(6);
    circle.nodes = vec![[EMPTY, 0]];
    // Every branch joins the other again: 2^100 ways.
    let mut joined = Made::new(6);
    joined.nodes = (1..=100).map(|next| [next, next]).collect();
    joined.nodes.push([LI, LI]);
    let mut empty = Made::new(6);
    empty.nodes = (1..=100).map(|next| [next, next]).collect();
    empty.nodes.push([EMPTY, EMPTY]);
    for made in [circle, joined, empty] {
        let told = of(&made.bytes(), "LI").unwrap_err().what;
        assert!(told.contains("goes in circles"), "{told}");
    }
}

#[test]
fn a_database_without_countries_is_none_of_countries() {
    let mut made = Made::new(6);
    made.li("2001:db8::/32");
    let mut bytes = made.bytes();
    let at = bytes
        .windows(8)
        .position(|window| window == b"iso_code")
        .unwrap();
    bytes[at..at + 8].copy_from_slice(b"timezone");
    let told = of(&bytes, "LI").unwrap_err();
    assert_eq!(
        told.what,
        "no network of this database (Made) has a country"
    );
}

#[test]
fn a_record_of_28_bits_has_its_upper_bits_in_the_middle() {
    let tree = Tree {
        bytes: &[0; 7]
            .into_iter()
            .chain([0x12, 0x34, 0x56, 0xab, 0x78, 0x9a, 0xbc])
            .collect::<Vec<u8>>(),
        nodes: 2,
        record_bits: 28,
    };
    assert_eq!(tree.node(1), Some([0x0a12_3456, 0x0b78_9abc]));
    assert_eq!(tree.node(2), None);
    assert_eq!(tree.node(u32::MAX), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_finds_what_a_lookup_finds(
        networks in prop::collection::vec((any::<u32>(), 1u8..=32, any::<bool>(), any::<bool>()), 1..30),
        record_bits in prop::sample::select(vec![24u16, 28, 32]),
    ) {
        let mut made = Made::new(6);
        let networks: Vec<(IpNet, u32)> = networks
            .into_iter()
            .map(|(bits, length, is_v6, is_li)| {
                let address: IpAddr = match is_v6 {
                    // Away from IPv4, which no other network may hold here.
                    true => Ipv6Addr::from_bits(0x2001 << 112 | u128::from(bits) << 80).into(),
                    false => Ipv4Addr::from_bits(bits).into(),
                };
                let length = if is_v6 { length + 16 } else { length };
                (IpNet::new(address, length).unwrap().trunc(), if is_li { LI } else { CH })
            })
            .collect();
        for (prefix, record) in &networks {
            made.set(&prefix.to_string(), *record);
        }
        let bytes = made.write(record_bits);
        let list = |country| {
            let entries = of(&bytes, country).unwrap_or_default();
            crate::gate::allow_list::AllowList::from_entries(entries, Entries::default())
        };
        let (li, ch) = (list("LI"), list("CH"));
        let reader = Reader::from_source(&bytes[..]).unwrap();
        for (prefix, _) in &networks {
            for address in [prefix.network(), prefix.broadcast()] {
                let record: Option<Record> = reader.lookup(address).unwrap().decode().unwrap();
                let country = record.and_then(Record::country).map(|it| it.to_string());
                prop_assert_eq!(li.contains(address), country.as_deref() == Some("LI"));
                prop_assert_eq!(ch.contains(address), country.as_deref() == Some("CH"));
            }
        }
    }
}
