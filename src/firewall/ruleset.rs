//! What should stand in the kernel, as data: settings, and the sets of our table.
//!
//! Which rules follow from them is `rules.rs`'s. Nothing here talks to a kernel.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nlink::netlink::nftables::{Family as NftFamily, Set, SetElement, SetKeyType};

use super::allow::Listed;
use super::names::{
    ARRIVED_COUNTER, BUDGET_SET, BUDGET_SET_SIZE, ENTRANCE_SET, EVIDENCE_SET_SIZE,
    GRACE_DOORS_SIZE, KEPT_COUNTER, KEPT_FOR, LEASE_SET, OPEN_DOORS_SIZE, OPENED_SET, TABLE,
    TRACE_SET_SIZE, USAGE_SET, USAGE_SET_SIZE,
};
use crate::gate::lease::{Door, Entrance, Family};
use crate::gate::window::MAX_LEASES;

/// What the firewall is asked for: the kernel's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which way.
    pub mode: Mode,
    /// The guarded ports, ascending.
    pub ports: Vec<u16>,
    /// Whose packets are never judged.
    pub allow: Listed,
    /// Ask the kernel for an owned, persistent table, where it has them (6.9).
    pub owned: bool,
    /// The one bit of the packet's and the connection's mark that is ours.
    pub mark: u32,
    /// What "shut" means.
    pub closed: Closed,
    /// Which of the guarded ports are handed to the gate beside who else listens there; ascending by
    /// port, each of them in `ports`.
    pub divert: Vec<Divert>,
    /// Count who comes while a window is open, and who gets through.
    pub observe: bool,
    /// Where the account of the daemon's processes may connect to; `None` if that is not limited here.
    pub egress: Option<Egress>,
}

/// Where one account may connect to, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The account's uid, never root's.
    pub uid: u32,
    /// By TCP: ascending, none twice, at most [`MAX_DESTINATIONS`]; no IPv6 address that means an IPv4 one.
    pub to: Vec<SocketAddr>,
}

/// The most destinations that rules name, one rule for each: a first packet passes them all, and a
/// batch of rules must fit what a socket of a container may send at once (212,992 octets).
pub const MAX_DESTINATIONS: usize = 256;

/// A guarded port whose peers are handed to the gate inside windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divert {
    /// The port that peers come to.
    pub port: u16,
    /// The loopback port of the gate's transparent listener.
    pub to: u16,
}

/// How the firewall is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Our own table narrows ports that the host's firewall leaves open.
    Guard,
    /// The administrator's chain drops, but for one line that reads a set; its elements are ours.
    Set(ForeignSet),
    /// Somebody else's chains drop; at the head of each one rule of ours accepts our mark.
    Attach(Vec<ForeignChain>),
    /// Nothing in the kernel.
    GateOnly,
}

/// What becomes of packets that may not pass, per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// IPv4.
    pub v4: Shut,
    /// IPv6. A CA tries IPv6 first and turns to IPv4 only after an error: a reset is one at once,
    /// silence one after ten seconds.
    pub v6: Shut,
}

/// What becomes of a packet that may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Silence.
    Drop,
    /// A reset.
    Reject,
    /// It goes on to what stands behind: only for ports that are diverted inside windows. Any other
    /// port is silent then.
    Pass,
}

impl Closed {
    /// What holds for `family`.
    pub fn of(self, family: Family) -> Shut {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// A set that the administrator declared: `type inet_service; flags timeout;`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignSet {
    /// The family of its table.
    pub family: NftFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ForeignSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family.name(), self.table, self.name)
    }
}

/// Somebody else's chain, at whose head one rule of ours stands in mode `attach`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// The family of its table.
    pub family: NftFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ForeignChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family.name(), self.table, self.name)
    }
}

/// The two kinds of doors that rules ask for: those that are open to new connections, and those
/// whose admitted connections may live on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// Open now.
    Window,
    /// Open now, or a grace ago.
    Grace,
}

/// How a set tells doors: by port alone, or with the address or the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `tcp dport`.
    Port,
    /// `ip daddr . tcp dport`.
    Address,
    /// `iif . tcp dport`.
    Interface,
}

impl Key {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Port, Self::Address, Self::Interface];

    fn of(entrance: &Entrance) -> Self {
        match entrance {
            Entrance::Any => Self::Port,
            Entrance::Address(_) => Self::Address,
            Entrance::Interface(_) => Self::Interface,
        }
    }
}

/// A set of ours whose elements end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedSet {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub key: SetKeyType,
    /// How many at most.
    pub size: u32,
    /// How long what rules put there stays; `None` if only we do.
    pub fed_for: Option<Duration>,
}

impl TimedSet {
    fn new(name: &str, key: SetKeyType) -> Self {
        Self {
            name: name.to_owned(),
            key,
            size: MAX_LEASES as u32,
            fed_for: None,
        }
    }

    /// The set as the kernel takes it.
    pub fn to_set(&self) -> Set {
        let set = Set::new(TABLE, &self.name)
            .family(NftFamily::Inet)
            .key_type(self.key.clone())
            .size(self.size);
        match self.fed_for {
            Some(stays) => set.dynamic().timeout(stays),
            None => set.per_element_timeouts(),
        }
    }

    /// What it holds, in nft's words.
    pub fn key_text(&self) -> String {
        key_text(&self.key)
    }
}

fn key_text(key: &SetKeyType) -> String {
    match key {
        SetKeyType::Ipv4Addr => "ipv4_addr".to_owned(),
        SetKeyType::Ipv6Addr => "ipv6_addr".to_owned(),
        SetKeyType::IfIndex => "iface_index".to_owned(),
        SetKeyType::Mark => "mark".to_owned(),
        SetKeyType::Concat(parts) => {
            let words: Vec<String> = parts.iter().map(key_text).collect();
            words.join(" . ")
        }
        _ => "inet_service".to_owned(),
    }
}

/// The set of doors of one kind, family and key: `window4`, `window_to4`, `window_by4`, `grace4` …
pub fn door_set(doors: Doors, family: Family, key: Key) -> TimedSet {
    let (kind, size) = match doors {
        Doors::Window => ("window", OPEN_DOORS_SIZE),
        Doors::Grace => ("grace", GRACE_DOORS_SIZE),
    };
    let (address, digit) = match family {
        Family::V4 => (SetKeyType::Ipv4Addr, 4),
        Family::V6 => (SetKeyType::Ipv6Addr, 6),
    };
    let port = SetKeyType::InetService;
    let (by, first) = match key {
        // No more than there are guarded ports.
        Key::Port => return TimedSet::new(&format!("{kind}{digit}"), port),
        Key::Address => ("to", address),
        Key::Interface => ("by", SetKeyType::IfIndex),
    };
    let key = SetKeyType::Concat(vec![first, port]);
    TimedSet {
        size,
        ..TimedSet::new(&format!("{kind}_{by}{digit}"), key)
    }
}

/// The set that holds a door, and the door as its element.
pub fn door_element(doors: Doors, door: &Door) -> (Set, SetElement) {
    let set = door_set(doors, door.family, Key::of(&door.entrance));
    let port = SetElement::port(door.port);
    let element = match &door.entrance {
        Entrance::Any => port,
        Entrance::Address(IpAddr::V4(address)) => {
            SetElement::concat([SetElement::ipv4(*address), port])
        }
        Entrance::Address(IpAddr::V6(address)) => {
            SetElement::concat([SetElement::ipv6(*address), port])
        }
        Entrance::Interface(interface) => {
            let index = SetElement::new(interface.index().to_ne_bytes().to_vec());
            SetElement::concat([index, port])
        }
    };
    (set.to_set(), element)
}

/// The set of leases.
pub fn lease_set() -> TimedSet {
    TimedSet::new(LEASE_SET, SetKeyType::Mark)
}

/// The set of ways that leases do not open all of.
pub fn entrance_set() -> TimedSet {
    TimedSet::new(ENTRANCE_SET, SetKeyType::Mark)
}

/// The set of openings.
pub fn budget_set() -> TimedSet {
    TimedSet {
        size: BUDGET_SET_SIZE,
        ..TimedSet::new(BUDGET_SET, SetKeyType::Mark)
    }
}

/// The set of time.
pub fn usage_set() -> TimedSet {
    TimedSet {
        size: USAGE_SET_SIZE,
        ..TimedSet::new(USAGE_SET, SetKeyType::Mark)
    }
}

/// The set of ports that the administrator's set holds because of us.
pub fn opened_set() -> TimedSet {
    TimedSet::new(OPENED_SET, SetKeyType::InetService)
}

/// What counts first packets.
pub const COUNTERS: [&str; 2] = [ARRIVED_COUNTER, KEPT_COUNTER];

/// What is kept of sources, by family and the port that they came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Whose first packets came.
    Seen,
    /// Who finished a handshake.
    Reached,
    /// Whose next first packet is traced.
    Traced,
}

impl Kept {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Seen, Self::Reached, Self::Traced];
}

/// The set of sources of one kind and family: `seen4`, `seen6`, `reached4` …
pub fn evidence_set(kept: Kept, family: Family) -> TimedSet {
    let (address, digit) = match family {
        Family::V4 => (SetKeyType::Ipv4Addr, 4),
        Family::V6 => (SetKeyType::Ipv6Addr, 6),
    };
    let (kind, size, fed_for) = match kept {
        Kept::Seen => ("seen", EVIDENCE_SET_SIZE, Some(KEPT_FOR)),
        Kept::Reached => ("reached", EVIDENCE_SET_SIZE, Some(KEPT_FOR)),
        Kept::Traced => ("trace", TRACE_SET_SIZE, None),
    };
    TimedSet {
        name: format!("{kind}{digit}"),
        key: SetKeyType::Concat(vec![address, SetKeyType::InetService]),
        size,
        fed_for,
    }
}

/// Every set of sources.
pub fn evidence_sets() -> impl Iterator<Item = TimedSet> {
    let kinds = Kept::ALL.into_iter();
    kinds.flat_map(|kept| Family::ALL.map(|family| evidence_set(kept, family)))
}

impl Settings {
    /// Whether a live table can be brought here from what `before` made of it, without a restart.
    pub fn can_follow(&self, before: &Self) -> bool {
        let is_same_way = match (&self.mode, &before.mode) {
            (Mode::Attach(_), Mode::Attach(_)) => true,
            (mode, earlier) => mode == earlier,
        };
        // A port more is diverted where others are; whoever listens there was bound at the start.
        let is_same_port = |port: &u16| {
            !before.ports.contains(port) || self.diverted(*port) == before.diverted(*port)
        };
        let has_listener = |divert: &Divert| before.divert.iter().any(|had| had.to == divert.to);
        is_same_way
            && self.owned == before.owned
            && self.mark == before.mark
            && self.ports.iter().all(is_same_port)
            && self.divert.iter().all(has_listener)
            && self.divert.is_empty() == before.divert.is_empty()
            && self.plain_ports().next().is_none() == before.plain_ports().next().is_none()
    }

    /// The same with another allow-list.
    #[must_use]
    pub fn with_allow(&self, allow: Listed) -> Self {
        Self {
            allow,
            ..self.clone()
        }
    }

    /// Where a guarded port is diverted to, if it is.
    pub fn diverted(&self, port: u16) -> Option<u16> {
        let mut diverts = self.divert.iter();
        diverts
            .find(|divert| divert.port == port)
            .map(|divert| divert.to)
    }

    /// The guarded ports that are not diverted, ascending.
    pub fn plain_ports(&self) -> impl Iterator<Item = u16> {
        let ports = self.ports.iter().copied();
        ports.filter(|port| self.diverted(*port).is_none())
    }

    /// The names of what counts first packets, as far as they are counted.
    pub fn counters(&self) -> &'static [&'static str] {
        match self.observe {
            true => &COUNTERS,
            false => &[],
        }
    }

    /// The sets of doors, which rules read.
    pub fn door_sets(&self) -> Vec<TimedSet> {
        let mut sets = Vec::new();
        for doors in [Doors::Window, Doors::Grace] {
            for key in Key::ALL {
                sets.extend(Family::ALL.map(|family| door_set(doors, family, key)));
            }
        }
        if matches!(self.mode, Mode::Set(_)) {
            sets.push(opened_set());
        }
        sets
    }

    /// Every timed set of ours, in the order they are made and listed.
    pub fn timed_sets(&self) -> Vec<TimedSet> {
        let mut sets = self.door_sets();
        sets.extend([lease_set(), entrance_set(), budget_set(), usage_set()]);
        if self.observe {
            sets.extend(evidence_sets());
        }
        sets
    }
}
