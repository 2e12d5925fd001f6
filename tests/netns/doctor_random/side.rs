//! One live side: what the administrator of a random host has done.

use std::fmt;
use std::net::IpAddr;

use acmegate::doctor::path::{Knock, Protocol};

/// Everything that decides what becomes of a packet.
#[derive(Clone, Debug)]
pub struct LiveSide {
    /// Addresses beside the first one of each interface.
    pub more_addresses: Vec<Address>,
    /// `ip rule add …`
    pub rules: Vec<PolicyRule>,
    pub switches: Switches,
    /// For `nft -f`.
    pub nft: String,
    /// For `iptables-nft-restore` and for `ip6tables-nft-restore`.
    pub iptables: Option<[String; 2]>,
    /// A packet can get three chains deep.
    pub is_three_deep: bool,
}

/// An address and the interface that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub address: &'static str,
    pub prefix: u8,
    pub interface: &'static str,
}

/// What is there in any case, and what can be added.
pub const FIRST: [Address; 4] = [
    address("192.0.2.1", 24, "eth0"),
    address("2001:db8:1::1", 64, "eth0"),
    address("203.0.113.1", 24, "eth1"),
    address("2001:db8:3::1", 64, "eth1"),
];
pub const MORE: [Address; 4] = [
    address("192.0.2.2", 24, "eth0"),
    address("2001:db8:1::2", 64, "eth0"),
    address("198.18.7.7", 32, "lo"),
    address("2001:db8:7::7", 128, "lo"),
];

const fn address(address: &'static str, prefix: u8, interface: &'static str) -> Address {
    Address {
        address,
        prefix,
        interface,
    }
}

/// A rule of policy routing, in the words of `ip rule`, in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    pub v4: &'static str,
    pub v6: &'static str,
}

/// Tables 100 and 101 lead out by eth0 and eth1, 102 nowhere.
pub const POLICY_RULES: [PolicyRule; 7] = [
    both(
        "from 203.0.113.0/24 lookup 101",
        "from 2001:db8:3::/64 lookup 101",
    ),
    both(
        "from 203.0.113.0/24 lookup 101",
        "from 2001:db8:3::/64 lookup 101",
    ),
    both("iif eth1 lookup 101", "iif eth1 lookup 101"),
    both(
        "to 198.51.100.0/24 lookup 101",
        "to 2001:db8:77::/48 lookup 101",
    ),
    both("fwmark 0x1 lookup 102", "fwmark 0x1 lookup 102"),
    both("fwmark 0x2/0x2 lookup 101", "fwmark 0x2/0x2 lookup 101"),
    both("from 192.0.2.2 lookup 100", "from 2001:db8:1::2 lookup 100"),
];

const fn both(v4: &'static str, v6: &'static str) -> PolicyRule {
    PolicyRule { v4, v6 }
}

/// The switches of sysctl(8) that decide about packets.
#[derive(Clone, Copy, Debug)]
pub struct Switches {
    /// `rp_filter` of eth0 and of eth1: off, strict, loose.
    pub rp_filter: [u8; 2],
    /// `src_valid_mark`: whether marks count in it.
    pub src_valid_mark: bool,
    pub forwards: bool,
}

impl Switches {
    /// Path below /proc/sys/net, and value.
    pub fn settings(self) -> [(&'static str, u8); 6] {
        [
            ("ipv4/conf/eth0/rp_filter", self.rp_filter[0]),
            ("ipv4/conf/eth1/rp_filter", self.rp_filter[1]),
            ("ipv4/conf/eth0/src_valid_mark", self.src_valid_mark.into()),
            ("ipv4/conf/eth1/src_valid_mark", self.src_valid_mark.into()),
            ("ipv4/conf/all/forwarding", self.forwards.into()),
            ("ipv6/conf/all/forwarding", self.forwards.into()),
        ]
    }
}

/// The ports that are knocked at.
pub const PORTS: [(Protocol, u16); 4] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 443),
    (Protocol::Tcp, 8080),
    (Protocol::Udp, 53),
];

/// Where the world is: no list of any rule holds these.
const WORLD_4: [u8; 6] = [5, 31, 41, 103, 177, 200];
const WORLD_6: [u16; 5] = [0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00];

impl LiveSide {
    /// Every address of the host, and the interface that has it.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        FIRST.iter().chain(&self.more_addresses).copied()
    }

    /// `ip` lines that put up what this host has more than every other, for each family.
    pub fn put_up(&self) -> [String; 2] {
        self.lines("add")
    }

    /// The same, taken down again.
    pub fn take_down(&self) -> [String; 2] {
        self.lines("del")
    }

    fn lines(&self, verb: &str) -> [String; 2] {
        let mut lines = [String::new(), String::new()];
        for Address {
            address,
            prefix,
            interface,
        } in &self.more_addresses
        {
            let (family, nodad) = match address.contains(':') {
                true => (1, " nodad"),
                false => (0, ""),
            };
            let nodad = if verb == "add" { nodad } else { "" };
            lines[family] += &format!("addr {verb} {address}/{prefix} dev {interface}{nodad}\n");
        }
        for (number, rule) in self.rules.iter().enumerate() {
            let at = 1000 + number;
            lines[0] += &format!("rule {verb} pref {at} {}\n", rule.v4);
            lines[1] += &format!("rule {verb} pref {at} {}\n", rule.v6);
        }
        lines
    }

    /// Every way in, every port, from two strangers and from one who stands in the lists.
    pub fn knocks(&self, case: u32) -> Vec<Knock> {
        let mut knocks = Vec::new();
        let mut add = |interface: &str, destination: &str| {
            let destination: IpAddr = destination.parse().expect("an address");
            for (protocol, port) in PORTS {
                for who in 0..3 {
                    let number = u8::try_from(knocks.len() % 251).expect("an octet");
                    let source = if who == 2 {
                        listed(destination.is_ipv4(), number)
                    } else {
                        stranger(destination.is_ipv4(), case, number)
                    };
                    knocks.push(Knock {
                        interface: interface.to_owned(),
                        source,
                        destination,
                        protocol,
                        port,
                    });
                }
            }
        };
        for Address {
            address, interface, ..
        } in self.addresses()
        {
            // A service's address on the loopback is reached by the first way in.
            add(if interface == "lo" { "eth0" } else { interface }, address);
        }
        // One of the other interface's.
        add("eth1", "192.0.2.1");
        add("eth1", "2001:db8:1::1");
        knocks
    }
}

/// Whether a source is one that the lists of the rules hold.
pub fn is_listed(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => source.octets()[0] == 198,
        IpAddr::V6(source) => source.segments()[0] == 0x2001,
    }
}

fn listed(is_v4: bool, number: u8) -> IpAddr {
    match is_v4 {
        true => [198, 51, 100, number].into(),
        false => [0x2001, 0xdb8, 0x77, 0, 0, 0, 0, u16::from(number)].into(),
    }
}

fn stranger(is_v4: bool, case: u32, number: u8) -> IpAddr {
    let [.., high, low] = case.to_be_bytes();
    let pick = usize::from(number);
    match is_v4 {
        true => [WORLD_4[pick % WORLD_4.len()], high, low, number].into(),
        false => {
            let head = WORLD_6[pick % WORLD_6.len()];
            let case = u16::from_be_bytes([high, low]);
            [head, case, 0, 0, 0, 0, 0, u16::from(number)].into()
        }
    }
}

impl fmt::Display for LiveSide {
    /// As an administrator would type it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [v4, v6] = self.put_up();
        for line in v4.lines() {
            writeln!(f, "ip {line}")?;
        }
        for line in v6.lines() {
            writeln!(f, "ip -6 {line}")?;
        }
        for (name, value) in self.switches.settings() {
            writeln!(f, "sysctl net/{name}={value}")?;
        }
        f.write_str(&self.nft)?;
        match &self.iptables {
            Some([v4, v6]) => write!(f, "{v4}{v6}"),
            None => Ok(()),
        }
    }
}
