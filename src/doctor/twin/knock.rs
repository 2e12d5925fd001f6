//! Sends knocks, one after the other, and hears from the kernel's trace what became of each.
//!
//! An answer is heard of in the same way, where packets are answered.
//!
//! Behind every knock goes a marker on the same cable: when the kernel tells of that, it has told of everything
//! before. So nothing is waited for that does not come.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol as Transport, Socket as RawSocket, Type};

use super::netlink::Socket;
use super::network::Network;
use super::network::outside::Outside;
use super::packet;
use super::watch::{DELIVERED, FORWARDED, LEFT, TABLE};
use crate::doctor::namespaces::Netns;
use crate::doctor::path::{End, Fate, Knock, Protocol};
use crate::firewall::evidence::{Traced, Verdict, What, traced};

/// How long a marker may take: some microseconds, unless the machine stands still.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where markers go: a network that is nobody's (RFC 2544).
const MARKED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// `IPPROTO_RAW`.
const RAW: i32 = 255;
/// The ports that knocks come from, each one a while after the last knock from it.
const FIRST_PORT: u32 = 32_768;
const PORTS: u32 = 28_000;

/// Somebody outside, with a cable to every entrance.
pub struct Knocker<'a> {
    network: &'a Network,
    world: &'a Netns,
    outside: Outside,
    trace: Socket,
    cables: BTreeMap<String, Cable>,
    known: Vec<(String, IpAddr)>,
    number: u32,
}

struct Cable {
    v4: RawSocket,
    v6: RawSocket,
}

/// What the kernel told of one packet.
#[derive(Debug, Default)]
pub struct Told {
    /// Everything but what our own table did.
    pub steps: Vec<Traced>,
    /// Where it ended, as far as the trace tells; a drop is told by the last step.
    pub end: Option<End>,
    /// Whose it was by then.
    source: Option<SocketAddr>,
}

/// A packet that is listened for.
struct Listened {
    wanted: Wanted,
    /// The kernel's number of it.
    id: Option<u32>,
    told: Told,
    /// Where routing sent an answer, before anybody's egress chain.
    routed: Option<End>,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// A first packet.
    From(SocketAddr),
    /// What answers one.
    To(SocketAddr),
}

impl<'a> Knocker<'a> {
    /// Opens what is needed; the trace belongs to the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn prepare(network: &'a Network, world: &'a Netns, outside: Outside) -> io::Result<Self> {
        Ok(Self {
            network,
            world,
            outside,
            trace: Socket::trace()?,
            cables: BTreeMap::new(),
            known: Vec::new(),
            number: 0,
        })
    }

    /// Knocks once.
    ///
    /// # Errors
    /// The system's: the packet cannot be sent, or the trace is silent.
    pub fn knock(&mut self, knock: &Knock) -> io::Result<Told> {
        let from = self.next_source(knock);
        let packet = packet::first(knock, from.port(), self.sequence());
        let [told] = self.send(knock, &packet, [Wanted::From(from)])?;
        Ok(told)
    }

    /// Knocks once by TCP where packets are answered, and hears of the answer: that of a listener here, or the one
    /// that another host would send to whom the knock was sent on. `None` if there was none.
    ///
    /// # Errors
    /// The system's: the packet cannot be sent, or the trace is silent.
    pub fn answer(&mut self, knock: &Knock) -> io::Result<Option<Told>> {
        let from = self.next_source(knock);
        let sequence = self.sequence();
        let packet = packet::first(knock, from.port(), sequence);
        let wanted = [Wanted::From(from), Wanted::To(from)];
        let [first, answer] = self.send(knock, &packet, wanted)?;
        let answer = match (first.end, first.source) {
            (Some(End::Delivered { .. }), _) => answer,
            (
                Some(End::Forwarded {
                    interface,
                    address,
                    port,
                }),
                Some(asked_by),
            ) => {
                let there = SocketAddr::new(address, port);
                self.number = self.number.wrapping_add(1);
                let packet = packet::answer(there, asked_by, sequence);
                let back = Knock {
                    interface,
                    source: address,
                    destination: asked_by.ip(),
                    protocol: Protocol::Tcp,
                    port: asked_by.port(),
                };
                let [mut answer] = self.send(&back, &packet, [Wanted::From(there)])?;
                // One that this host takes for its own gets to nobody.
                if matches!(answer.end, Some(End::Delivered { .. })) {
                    answer.end = None;
                }
                answer
            }
            _ => return Ok(None),
        };
        Ok((answer.end.is_some() || !answer.steps.is_empty()).then_some(answer))
    }

    /// Whom the next knock is from.
    fn next_source(&mut self, knock: &Knock) -> SocketAddr {
        self.number = self.number.wrapping_add(1);
        let port = (FIRST_PORT + self.number % PORTS) as u16;
        SocketAddr::new(knock.source, port)
    }

    fn sequence(&self) -> u32 {
        self.number.wrapping_mul(0x9e37_79b9)
    }

    /// Sends a packet by the knock's interface to the knock's destination, then the marker.
    fn send<const PACKETS: usize>(
        &mut self,
        knock: &Knock,
        packet: &[u8],
        wanted: [Wanted; PACKETS],
    ) -> io::Result<[Told; PACKETS]> {
        self.prepare_for(&knock.interface, knock.destination)?;
        let cable = self.cable(&knock.interface)?;
        let marker = packet::marker(self.number, MARKED);
        let to = SocketAddr::new(knock.destination, 0);
        match knock.destination {
            IpAddr::V4(_) => cable.v4.send_to(packet, &to.into()),
            IpAddr::V6(_) => cable.v6.send_to(packet, &to.into()),
        }?;
        let to = SocketAddr::new(MARKED.into(), 0);
        cable.v4.send_to(&marker, &to.into())?;
        self.listen(knock, wanted)
    }

    fn prepare_for(&mut self, interface: &str, destination: IpAddr) -> io::Result<()> {
        let mut links = self.network.links.iter();
        let Some(link) = links.find(|link| link.name == interface) else {
            return Err(io::Error::other(format!(
                "this host has no interface {interface}"
            )));
        };
        for address in [destination, MARKED.into()] {
            let key = (interface.to_owned(), address);
            if !self.known.contains(&key) {
                self.outside.know(link, address)?;
                self.known.push(key);
            }
        }
        if !self.cables.contains_key(interface) {
            let peer = link.peer();
            let cable = self.world.within(|| -> io::Result<Cable> {
                let transport = Some(Transport::from(RAW));
                let v4 = RawSocket::new(Domain::IPV4, Type::RAW, transport)?;
                v4.set_header_included_v4(true)?;
                v4.bind_device(Some(peer.as_bytes()))?;
                let v6 = RawSocket::new(Domain::IPV6, Type::RAW, transport)?;
                v6.set_header_included_v6(true)?;
                v6.bind_device(Some(peer.as_bytes()))?;
                Ok(Cable { v4, v6 })
            })??;
            self.cables.insert(interface.to_owned(), cable);
        }
        Ok(())
    }

    fn cable(&self, interface: &str) -> io::Result<&Cable> {
        let cable = self.cables.get(interface);
        cable.ok_or_else(|| io::Error::other("no cable"))
    }

    /// Everything that is told until the marker is through.
    fn listen<const PACKETS: usize>(
        &mut self,
        knock: &Knock,
        wanted: [Wanted; PACKETS],
    ) -> io::Result<[Told; PACKETS]> {
        let marker = packet::marker_source(self.number).octets();
        let mut listened = wanted.map(|wanted| Listened {
            wanted,
            id: None,
            told: Told::default(),
            routed: None,
        });
        loop {
            let Some(datagram) = self.trace.hear(PATIENCE)? else {
                return Err(io::Error::other("the kernel's trace is silent"));
            };
            let messages: Vec<Traced> = traced(datagram).collect();
            for message in messages {
                let is_ours = message.table == TABLE;
                let network = message.network.as_deref().unwrap_or_default();
                if is_ours && network.first() == Some(&0x45) && network.get(12..16) == Some(&marker)
                {
                    return Ok(listened.map(Listened::done));
                }
                for one in &mut listened {
                    if one.id.is_none() && one.wanted.is(&message) {
                        one.id = Some(message.id);
                    }
                    if one.id != Some(message.id) || one.told.end.is_some() {
                        continue;
                    }
                    if !is_ours {
                        if message.what != What::Return {
                            one.told.steps.push(message.clone());
                        }
                        continue;
                    }
                    let end = self.end(&message, knock);
                    match (one.wanted, message.chain.as_str()) {
                        (Wanted::To(_), FORWARDED) => one.routed = end,
                        _ => one.told.end = end,
                    }
                    one.told.source = address(&message, 12, 8)
                        .zip(port(&message, 0))
                        .map(SocketAddr::from);
                }
            }
        }
    }

    /// Where it arrived, if our table says that it did.
    fn end(&self, message: &Traced, knock: &Knock) -> Option<End> {
        let address = address(message, 16, 24)?;
        let port = port(message, 2).unwrap_or(knock.port);
        match message.chain.as_str() {
            DELIVERED => Some(End::Delivered { address, port }),
            FORWARDED | LEFT => {
                let index = message
                    .leaves_by
                    .and_then(|index| i32::try_from(index).ok());
                let name = self
                    .network
                    .links
                    .iter()
                    .find(|link| Some(link.index()) == index);
                Some(End::Forwarded {
                    interface: name.map_or_else(|| "?".to_owned(), |link| link.name.clone()),
                    address,
                    port,
                })
            }
            _ => None,
        }
    }
}

impl Wanted {
    fn is(self, message: &Traced) -> bool {
        let (end, found) = match self {
            Self::From(end) => (end, (address(message, 12, 8), port(message, 0))),
            Self::To(end) => (end, (address(message, 16, 24), port(message, 2))),
        };
        found == (Some(end.ip()), Some(end.port()))
    }
}

impl Listened {
    /// What is routed, and dropped by nobody after that, leaves: the kernel may have no egress hook to tell.
    fn done(self) -> Told {
        let mut told = self.told;
        if told.end.is_none() && ended_by(&told.steps).is_none() {
            told.end = self.routed;
        }
        told
    }
}

/// A port of the packet, by where it stands in the header of TCP or UDP.
fn port(message: &Traced, at: usize) -> Option<u16> {
    let port = message.transport.as_deref()?.get(at..at + 2)?;
    Some(u16::from_be_bytes([port[0], port[1]]))
}

/// An address of the packet, by where it stands in each family's header.
fn address(message: &Traced, at_4: usize, at_6: usize) -> Option<IpAddr> {
    let network = message.network.as_deref()?;
    match network.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = network.get(at_4..at_4 + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        6 => {
            let octets: [u8; 16] = network.get(at_6..at_6 + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Where a knock ended that reached nobody; `None` if nothing that is traced ended it.
pub fn ended_by(steps: &[Traced]) -> Option<&'static str> {
    match &steps.last()?.what {
        What::Rule(_, Verdict::Drop) | What::Policy { drops: true } => Some(DROPPED),
        What::Rule(_, Verdict::Queue) => Some(QUEUED),
        What::Rule(_, Verdict::Stolen) => Some(STOLEN),
        _ => None,
    }
}

const QUEUED: &str = "a program decides: the rule hands it over by `queue`";
const STOLEN: &str = "the kernel took it: `synproxy` answers by itself, and what comes after the handshake was not tried";

/// What is said of an answer whose way out depends on whose the socket is.
pub const OWNED: &str =
    "a rule asks whose the socket is that answers, and in the twin that is nobody's";
/// What is said where no answer was heard of, or it ended nowhere.
pub const UNANSWERED: &str =
    "no answer left, and no rule did it: perhaps no route leads back to the sender";

/// Why nobody here can tell what becomes of a packet that ended so, if nobody can.
pub fn undecided(fate: &Fate) -> Option<&str> {
    const WHY: [&str; 4] = [QUEUED, STOLEN, OWNED, UNANSWERED];
    match &fate.end {
        End::Lost(why) if WHY.contains(&why.as_str()) => Some(why),
        // Over IPv6 the same is traced as a drop.
        End::Dropped { .. } => {
            let rule = fate.culprit()?.rule.as_deref()?;
            rule.split('"')
                .next()?
                .contains("synproxy")
                .then_some(STOLEN)
        }
        _ => None,
    }
}

/// What [`ended_by`] says of a rule or policy that drops.
pub const DROPPED: &str = "dropped";

/// The kernel's counters of packets that routing threw away, in the calling thread's namespace.
pub fn losses() -> HashMap<String, u64> {
    let mut counted = HashMap::new();
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
    };
    for file in ["netstat", "snmp"].map(read) {
        // A line of words, then one of numbers.
        let lines: Vec<&str> = file.lines().collect();
        for pair in lines.chunks(2) {
            let [words, numbers] = pair else { continue };
            for (word, number) in words.split(' ').zip(numbers.split(' ')).skip(1) {
                counted.insert(word.to_owned(), number.parse().unwrap_or(0));
            }
        }
    }
    for line in read("snmp6").lines() {
        let mut words = line.split_whitespace();
        if let (Some(word), Some(number)) = (words.next(), words.next()) {
            counted.insert(word.to_owned(), number.parse().unwrap_or(0));
        }
    }
    counted
}

/// Why routing threw a packet away, by what was counted before and after it.
pub fn reason(before: &HashMap<String, u64>, after: &HashMap<String, u64>) -> String {
    let reasons = [
        (
            "IPReversePathFilter",
            "the reverse path filter (`rp_filter`): answers would leave by another interface",
        ),
        ("InNoRoutes", "no route leads to where it is for"),
        ("Ip6InNoRoutes", "no route leads to where it is for"),
        (
            "InAddrErrors",
            "it is for another host, and this one forwards nothing",
        ),
        (
            "Ip6InAddrErrors",
            "it is for another host, and this one forwards nothing",
        ),
        ("InHdrErrors", "its hop limit ended on the way"),
        ("Ip6InHdrErrors", "its hop limit ended on the way"),
    ];
    let count = |counted: &HashMap<String, u64>, word: &str| counted.get(word).copied();
    let found = reasons
        .iter()
        .find(|(word, _)| count(after, word) > count(before, word));
    found
        .map_or(
            "no rule did it: routing, or a filter that is not traced",
            |(_, why)| why,
        )
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_meanwhile_is_the_reason() {
        let counted = |word: &str, times: u64| HashMap::from([(word.to_owned(), times)]);
        for (word, expected) in [
            ("IPReversePathFilter", "rp_filter"),
            ("InNoRoutes", "no route"),
            ("Ip6InNoRoutes", "no route"),
            ("InAddrErrors", "forwards nothing"),
            ("Ip6InAddrErrors", "forwards nothing"),
            ("InHdrErrors", "hop limit"),
            ("Ip6InHdrErrors", "hop limit"),
            ("InOctets", "not traced"),
        ] {
            let why = reason(&counted(word, 4), &counted(word, 5));
            assert!(why.contains(expected), "{word}: {why}");
            // A counter that stands still is no reason.
            let why = reason(&counted(word, 5), &counted(word, 5));
            assert!(why.contains("not traced"), "{word}: {why}");
        }
    }
}
