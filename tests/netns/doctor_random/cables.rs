//! A host with two ways to the Internet and a host behind it, and packets of anybody's.
//!
//! The caller's namespace is the host. What arrives is seen where a program would: raw sockets get a
//! copy of what the kernel delivers after the last input hook. Nothing here waits for a clock. A cable
//! of veth puts each packet into the queue of the sender's processor, so while the thread stays on
//! one processor, a packet that it sends to itself afterwards comes out of that queue last.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::Duration;

use acmegate::doctor::path::{Knock, Protocol};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use super::packet;
use crate::lab::Node;
use crate::world::try_feed;

/// The ways in.
pub const UPLINKS: [&str; 2] = ["eth0", "eth1"];

/// Every address that the host can have; the world knows where they are.
pub const ADDRESSES: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.2",
    "203.0.113.1",
    "198.18.7.7",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:3::1",
    "2001:db8:7::7",
];

/// The host behind: where ports are published to.
pub const INNER_4: &str = "10.0.0.2";
pub const INNER_6: &str = "fd00::2";

/// A packet passes three queues at most: the host's, the inner host's, and one to spare.
const QUEUES: usize = 3;
/// Only a kernel that lost our own packet takes so long.
const LIMIT: Duration = Duration::from_secs(10);

/// Where a packet came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At a socket of the host, on this port.
    Host(u16),
    /// At the host behind it.
    Inner(u16),
    /// Sent out again to the Internet, where nobody has that address.
    World(u16),
}

pub struct Cables {
    out: HashMap<(&'static str, bool), Socket>,
    ears: Vec<Ear>,
    marker: UdpSocket,
    // They live as long as this.
    _world: Node,
    _inner: Node,
}

/// A socket that hears what one host gets of one protocol.
struct Ear {
    socket: Socket,
    is_v4: bool,
    protocol: Protocol,
    host: fn(u16) -> Arrival,
}

impl Cables {
    /// Lays the cables of the caller's own network namespace, which must be new.
    pub fn lay() -> Self {
        let (world, inner) = (Node::new(), Node::new());
        // Whatever a firewall does to neighbour discovery is not asked here: all know each other.
        let mut host = String::from("link set lo up\n");
        let mut outside = String::new();
        for (number, name) in UPLINKS.into_iter().enumerate() {
            world.cable(&format!("far{number}"), name);
            let octet = [1, 3][number];
            let (net_4, net_6) = (
                ["192.0.2", "203.0.113"][number],
                format!("2001:db8:{octet}::"),
            );
            host += &format!(
                "link set {name} address 02:00:00:00:0{number}:01\n\
                 addr add {net_4}.1/24 dev {name}\n\
                 addr add {net_6}1/64 dev {name} nodad\n\
                 neigh replace {net_4}.254 lladdr 02:00:00:00:0{number}:02 dev {name} nud permanent\n\
                 neigh replace {net_6}fe lladdr 02:00:00:00:0{number}:02 dev {name} nud permanent\n\
                 route add default via {net_4}.254 dev {name} metric {octet}00\n\
                 route add default via {net_6}fe dev {name} metric {octet}00\n\
                 route add default via {net_4}.254 dev {name} table 10{number}\n\
                 route add default via {net_6}fe dev {name} table 10{number}\n"
            );
            outside += &format!("link set far{number} address 02:00:00:00:0{number}:02\n");
            for family in ["0.0.0.0/0", "::/0"] {
                outside += &format!("route append {family} dev far{number} metric {octet}00\n");
            }
            for address in ADDRESSES {
                outside += &format!(
                    "neigh replace {address} lladdr 02:00:00:00:0{number}:01 dev far{number} nud permanent\n"
                );
            }
        }
        inner.cable("eth0", "lan0");
        for family in ["0.0.0.0/0", "::/0"] {
            host += &format!("route add blackhole {family} table 102\n");
        }
        host += "link set lan0 address 02:00:00:00:09:01\n\
                 addr add 10.0.0.1/24 dev lan0\naddr add fd00::1/64 dev lan0 nodad\n";
        let behind = format!(
            "link set eth0 address 02:00:00:00:09:02\n\
             addr add {INNER_4}/24 dev eth0\naddr add {INNER_6}/64 dev eth0 nodad\n"
        );
        for inner in [INNER_4, INNER_6] {
            host +=
                &format!("neigh replace {inner} lladdr 02:00:00:00:09:02 dev lan0 nud permanent\n");
        }
        // What is sent back to the Internet is heard there.
        outside += &format!("addr add {INNER_4}/32 dev lo\naddr add {INNER_6}/128 dev lo nodad\n");
        ip(&host);
        world.run(|| ip(&outside));
        inner.run(|| ip(&behind));
        let mut ears = ears(Arrival::Host);
        ears.extend(inner.run(|| self::ears(Arrival::Inner)));
        ears.extend(world.run(|| self::ears(Arrival::World)));
        let (out, marker) = world.run(|| {
            let ends = UPLINKS.into_iter().enumerate().flat_map(|(number, name)| {
                let far = format!("far{number}");
                [true, false].map(|is_v4| ((name, is_v4), packet::raw(is_v4, &far)))
            });
            let marker = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            marker.set_read_timeout(Some(LIMIT)).expect("a limit");
            let own = marker.local_addr().expect("bound");
            marker.connect(own).expect("itself");
            (ends.collect(), marker)
        });
        Self {
            out,
            ears,
            marker,
            _world: world,
            _inner: inner,
        }
    }

    /// Sends every packet from outside and says where each came out, in their order.
    pub fn knock(&self, knocks: &[Knock]) -> Vec<Option<Arrival>> {
        let allowed = sched_getaffinity(None).expect("our own processors");
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).expect("the processor that we are on");
        for (number, knock) in (0..).zip(knocks) {
            let way = UPLINKS.into_iter().find(|name| *name == knock.interface);
            let name = way.expect("one of the uplinks");
            let socket = &self.out[&(name, knock.source.is_ipv4())];
            packet::send(socket, knock, number);
        }
        for _ in 0..QUEUES {
            self.marker.send(&[0]).expect("the loopback is up");
            self.marker.recv(&mut [0]).expect("what we sent ourselves");
        }
        sched_setaffinity(None, &allowed).expect("our own processors");
        let mut arrivals = vec![None; knocks.len()];
        for (number, arrival) in self.ears.iter().flat_map(Ear::hear) {
            arrivals[number] = Some(arrival);
        }
        arrivals
    }
}

impl Ear {
    fn new(is_v4: bool, protocol: Protocol, host: fn(u16) -> Arrival) -> Self {
        let domain = if is_v4 { Domain::IPV4 } else { Domain::IPV6 };
        let transport = match protocol {
            Protocol::Tcp => socket2::Protocol::TCP,
            Protocol::Udp => socket2::Protocol::UDP,
        };
        let socket = Socket::new(domain, Type::RAW, Some(transport)).expect("a raw socket");
        socket.set_nonblocking(true).expect("our own socket");
        Self {
            socket,
            is_v4,
            protocol,
            host,
        }
    }

    /// Everything that came since the last time.
    fn hear(&self) -> Vec<(usize, Arrival)> {
        let mut heard = Vec::new();
        let mut bytes = [0; 256];
        while let Ok(len) = std::io::Read::read(&mut &self.socket, &mut bytes) {
            let Some((port, number)) = packet::arrived(self.is_v4, self.protocol, &bytes[..len])
            else {
                continue;
            };
            heard.push((usize::try_from(number).expect("64 bits"), (self.host)(port)));
        }
        heard
    }
}

/// Both families, both protocols, of the namespace that the caller is in.
fn ears(host: fn(u16) -> Arrival) -> Vec<Ear> {
    let mut ears = Vec::new();
    for is_v4 in [true, false] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            ears.push(Ear::new(is_v4, protocol, host));
        }
    }
    ears
}

/// The number of an interface of the caller's own namespace.
pub fn index(interface: &str) -> u32 {
    let any = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    rustix::net::netdevice::name_to_index(any, interface).expect("it is there")
}

/// `ip -batch` in the caller's own namespace.
pub fn ip(lines: &str) {
    ip_of(&[], lines);
}

/// The same for what has no address to tell the family by.
pub fn ip6(lines: &str) {
    ip_of(&["-6"], lines);
}

fn ip_of(family: &[&str], lines: &str) {
    if lines.is_empty() {
        return;
    }
    let arguments = [family, &["-batch", "-"]].concat();
    try_feed("iproute2", "ip", &arguments, lines).unwrap_or_else(|refusal| panic!("{refusal}"));
}
