//! A host with a firewall, and peers in another network namespace at the end of a cable, who try
//! again and again to come in.
//!
//! The calling thread becomes the host: whatever it starts lives there. One peer is foreign, one
//! stands on the built-in allow-list. What a try shows is the kernel's decision: silence is a
//! dropped packet, a reset a passed one that found no listener.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{Node, ip};

pub const HOST_4: &str = "192.0.2.1";
pub const HOST_6: &str = "2001:db8:1::1";
/// A second foreign peer, for firewalls that know one network and not the other.
pub const OTHER_PEER_4: &str = "192.0.2.3";
pub const OTHER_PEER_6: &str = "2001:db8:1::3";
/// The host's address towards the allow-listed peer.
pub const HOST_PRIVATE: &str = "10.0.0.1";
/// How often the outside tries.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer is waited for where none is expected; it takes a tenth of a millisecond.
const SHORT: Duration = Duration::from_millis(150);
/// How long one is waited for before silence is believed where it matters: less than the second
/// after which a SYN is sent again.
const PATIENT: Duration = Duration::from_millis(900);
/// How long one is waited for where one is expected, on a busy machine.
const LONG: Duration = Duration::from_secs(8);
const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

/// What a try to connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Somebody accepted.
    Connected,
    /// The packet passed the firewall, and nobody listens.
    Refused,
    /// A firewall answered in its own name, as firewalld's `reject` does.
    Rejected,
    /// The packet was dropped.
    Silence,
}

impl Seen {
    /// Whether the firewall let the packet pass.
    pub fn passed(self) -> bool {
        matches!(self, Self::Connected | Self::Refused)
    }
}

/// One try.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub at: Instant,
    pub to: SocketAddr,
    pub seen: Seen,
}

type Job = Box<dyn FnOnce() + Send>;

/// The host, and the thread that is the peers.
pub struct Host {
    jobs: Sender<Job>,
}

impl Host {
    /// Makes the calling thread, with all that it starts from now on, a host of its own.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        let outside = Node::new();
        outside.cable("peer0", "eth0");
        for address in ["192.0.2.1/24", "10.0.0.1/24", "2001:db8:1::1/64 nodad"] {
            ip(&format!("addr add {address} dev eth0"));
        }
        for address in ["192.0.2.2/24", "10.0.0.2/24", "2001:db8:1::2/64 nodad"] {
            outside.ip(&format!("addr add {address} dev peer0"));
        }
        // Never a source by itself: the first address of a network is, and a deprecated one is not.
        outside.ip(&format!("addr add {OTHER_PEER_4}/24 dev peer0"));
        outside.ip(&format!(
            "addr add {OTHER_PEER_6}/64 dev peer0 nodad preferred_lft 0"
        ));
        let (jobs, to_do): (Sender<Job>, Receiver<Job>) = channel();
        std::thread::spawn(move || outside.run(|| to_do.into_iter().for_each(|job| job())));
        let host = Self { jobs };
        host.meet();
        host
    }

    /// Does something outside.
    pub fn outside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, done) = channel();
        let job = Box::new(move || drop(send.send(work())));
        self.jobs.send(job).expect("the peers are there");
        done.recv().expect("the peers answer")
    }

    /// Tries once, from outside.
    pub fn probe(&self, address: &str, port: u16) -> Seen {
        let to = socket_address(address, port);
        self.outside(move || attempt(&[to], PATIENT)[0])
    }

    /// Tries once from outside, both families at the same time: IPv4, then IPv6.
    pub fn probe_both(&self, port: u16) -> [Seen; 2] {
        let to = [HOST_4, HOST_6].map(|address| socket_address(address, port));
        let seen = self.outside(move || attempt(&to, PATIENT));
        [seen[0], seen[1]]
    }

    /// Tries so many times at the same moment, each as a connection of its own.
    pub fn probe_at_once(&self, address: &str, port: u16, times: usize) -> Vec<Seen> {
        let to = vec![socket_address(address, port); times];
        self.outside(move || attempt(&to, PATIENT))
    }

    /// Tries once from the second foreign peer, both families: IPv4, then IPv6.
    pub fn probe_from_the_other(&self, port: u16) -> [Seen; 2] {
        let pairs = [(OTHER_PEER_4, HOST_4), (OTHER_PEER_6, HOST_6)];
        pairs.map(|(from, to)| {
            let (from, to) = (socket_address(from, 0), socket_address(to, port));
            self.outside(move || attempt_from(Some(from), &[to], PATIENT)[0])
        })
    }

    /// Which of these ports anything passes to from a foreign network now, of either family.
    pub fn open_ports(&self, ports: &[u16]) -> Vec<u16> {
        let ports = ports.iter().copied();
        let to: Vec<_> = ports
            .flat_map(|port| [HOST_4, HOST_6].map(|address| socket_address(address, port)))
            .collect();
        let seen = self.outside({
            let to = to.clone();
            move || attempt(&to, PATIENT)
        });
        let passed = to.iter().zip(seen).filter(|(_, seen)| seen.passed());
        let mut open: Vec<_> = passed.map(|(to, _)| to.port()).collect();
        open.dedup();
        open
    }

    /// Whether anything passes from a foreign network now, of either family.
    pub fn is_open(&self, port: u16) -> bool {
        self.tries(port, SHORT).iter().any(|seen| seen.passed())
    }

    /// Whether both families pass: asked where they should, so that slowness is forgiven.
    pub fn lets_in(&self, port: u16) -> bool {
        [SHORT, LONG]
            .into_iter()
            .any(|patience| self.tries(port, patience).iter().all(|seen| seen.passed()))
    }

    fn tries(&self, port: u16, patience: Duration) -> Vec<Seen> {
        let to = [HOST_4, HOST_6].map(|address| socket_address(address, port));
        self.outside(move || attempt(&to, patience))
    }

    /// Goes on with something outside, in a thread of its own.
    pub fn beside(&self, work: impl FnOnce() + Send + 'static) {
        let job = Box::new(|| drop(std::thread::spawn(work)));
        self.jobs.send(job).expect("the peers are there");
    }

    /// A connection from outside.
    pub fn connect(&self, address: &str, port: u16) -> TcpStream {
        let to = socket_address(address, port);
        self.outside(move || TcpStream::connect_timeout(&to, Duration::from_secs(5)))
            .unwrap_or_else(|error| panic!("{address} port {port}: {error}"))
    }

    /// Tries both families every [`PROBE_INTERVAL`] until it is dropped.
    pub fn watch(&self, port: u16) -> Watch {
        let probes = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = channel();
        let to = [HOST_4, HOST_6].map(|address| socket_address(address, port));
        let log = Arc::clone(&probes);
        let tries = move || {
            let mut next = Instant::now();
            loop {
                let (at, log) = (Instant::now(), Arc::clone(&log));
                // Each on its own, so that one that waits for an answer delays no other.
                std::thread::spawn(move || {
                    let seen = attempt(&to, PATIENT);
                    let tried = to.into_iter().zip(seen);
                    log.lock()
                        .expect("nobody panics")
                        .extend(tried.map(|(to, seen)| Probe { at, to, seen }));
                });
                next += PROBE_INTERVAL;
                let pause = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        // A thread of the peers' own: it lives where they live.
        let job = Box::new(|| drop(std::thread::spawn(tries)));
        self.jobs.send(job).expect("the peers are there");
        Watch {
            probes,
            _stop: stop,
        }
    }

    /// Both ends learn each other's hardware addresses, so that no probe waits for that.
    fn meet(&self) {
        for address in [HOST_4, HOST_6, HOST_PRIVATE] {
            crate::lab::wait_for(Duration::from_secs(5), "the cable is laid", || {
                self.probe(address, 9).passed().then_some(())
            });
        }
    }
}

/// A row of tries that goes on.
pub struct Watch {
    probes: Arc<Mutex<Vec<Probe>>>,
    _stop: Sender<()>,
}

impl Watch {
    /// What was seen so far.
    pub fn probes(&self) -> Vec<Probe> {
        self.probes.lock().expect("nobody panics").clone()
    }

    /// Waits until `count` tries were begun after `moment`.
    pub fn wait_until(&self, moment: Instant, count: usize) -> Vec<Probe> {
        let limit = moment.saturating_duration_since(Instant::now()) + Duration::from_secs(30);
        crate::lab::wait_for(limit, "tries from outside", || {
            let probes = self.probes();
            let later = probes.iter().filter(|probe| probe.at >= moment).count();
            (later >= count).then_some(probes)
        })
    }
}

pub fn socket_address(address: &str, port: u16) -> SocketAddr {
    let address: IpAddr = address.parse().expect("an address");
    SocketAddr::new(address, port)
}

/// Tries once from where the caller is, and waits so long for an answer.
pub fn try_once(address: &str, port: u16, patience: Duration) -> Seen {
    attempt(&[socket_address(address, port)], patience)[0]
}

/// The same from an address of one's own choice.
pub fn try_once_from(from: &str, address: &str, port: u16, patience: Duration) -> Seen {
    let from = Some(socket_address(from, 0));
    attempt_from(from, &[socket_address(address, port)], patience)[0]
}

/// Connects to all at once and says what came of each.
fn attempt(to: &[SocketAddr], patience: Duration) -> Vec<Seen> {
    attempt_from(None, to, patience)
}

/// The same from an address of one's own choice.
fn attempt_from(from: Option<SocketAddr>, to: &[SocketAddr], patience: Duration) -> Vec<Seen> {
    let start = Instant::now();
    let sockets: Vec<Socket> = to.iter().map(|to| begin(from, *to)).collect();
    let mut seen = vec![None; to.len()];
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let waiting: Vec<usize> = (0..to.len()).filter(|at| seen[*at].is_none()).collect();
        let mut polled: Vec<PollFd<'_>> = waiting
            .iter()
            .map(|at| PollFd::new(&sockets[*at], PollFlags::OUT))
            .collect();
        // Asked at least once, however long this thread had to wait for its turn.
        let limit = left.try_into().expect("seconds");
        poll(&mut polled, Some(&limit)).expect("poll");
        let ready: Vec<bool> = polled
            .iter()
            .map(|polled| !polled.revents().is_empty())
            .collect();
        for (at, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            seen[at] = Some(match sockets[at].take_error().expect("SO_ERROR") {
                None => Seen::Connected,
                // Reset by whoever was to accept it: it passed as well, and nobody is there.
                Some(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    Seen::Refused
                }
                Some(error) if is_rejection(&error) => Seen::Rejected,
                Some(error) => panic!("{}: {error}", to[at]),
            });
        }
        if left.is_zero() || !seen.contains(&None) {
            break;
        }
    }
    seen.into_iter()
        .map(|seen| seen.unwrap_or(Seen::Silence))
        .collect()
}

/// What the kernel makes of ICMP's and ICMPv6's words for "prohibited" and "port unreachable".
fn is_rejection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied
    )
}

fn begin(from: Option<SocketAddr>, to: SocketAddr) -> Socket {
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_nonblocking(true).expect("fcntl");
    // Nothing lingers after a try: the host's own descriptors are counted.
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    if let Some(from) = from {
        socket.bind(&from.into()).expect("the peer's own address");
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => {
            panic!("{to}: {error}")
        }
        _ => OwnedFd::from(socket).into(),
    }
}

/// Runs every case on a host of its own, all at the same time: most of what they do is wait for
/// timeouts of the kernel.
pub fn on_each_host<Case: Copy + Send + Sync + std::fmt::Debug>(
    cases: &[Case],
    body: impl Fn(&Host, Case) + Sync,
) {
    std::thread::scope(|scope| {
        let body = &body;
        let running: Vec<_> = cases
            .iter()
            .map(|case| (case, scope.spawn(move || body(&Host::new(), *case))))
            .collect();
        for (case, running) in running {
            assert!(running.join().is_ok(), "the case {case:?}, see above");
        }
    });
}
