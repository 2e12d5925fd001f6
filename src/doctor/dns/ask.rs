//! One question to one server, by UDP or by TCP, and what came back within its deadline.
//!
//! It follows RFC 1035 §4.2 and RFC 7766. It never follows an answer anywhere; what is none, `reply.rs` says.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_net::proto::op::{Edns, Message, Query};
use hickory_net::proto::rr::{Name, RecordType};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::reply::{self, Datagram};

/// What one datagram is waited for; a resolver on the other side of the world needs a third of it.
const UDP_PATIENCE: Duration = Duration::from_millis(1200);
/// A lost datagram is sent once more.
const UDP_TRIES: u32 = 2;
/// What a connection, question and answer may take together.
const TCP_PATIENCE: Duration = Duration::from_millis(2400);
/// What is asked for in one datagram (RFC 9715 §3.1).
const EDNS_PAYLOAD: u16 = 1232;
/// What is read of one, whatever was asked for.
const MAX_DATAGRAM: usize = 4096;

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing came in time.
    Timeout,
    /// The port is closed, or a firewall said so.
    Refused,
    /// There is no way to that address from here.
    NoRoute,
    /// Something came that is no answer.
    Garbage,
    /// The system's error.
    System(io::ErrorKind),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer"),
            Self::Refused => f.write_str("connection refused"),
            Self::NoRoute => f.write_str("no way there from here"),
            Self::Garbage => f.write_str("an answer that cannot be read"),
            Self::System(kind) => kind.fmt(f),
        }
    }
}

impl From<io::Error> for Silence {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::AddrNotAvailable => Self::NoRoute,
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Self::Garbage,
            other => Self::System(other),
        }
    }
}

/// A question with a random number, DNSSEC's records wanted. `recursive` asks a resolver, and forbids it to
/// keep back what it finds bogus (RFC 4035 §3.2.2): here that is judged.
pub(super) fn question(name: &Name, kind: RecordType, recursive: bool) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.clone(), kind));
    message.metadata.recursion_desired = recursive;
    message.metadata.checking_disabled = recursive;
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_PAYLOAD).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

/// Asks by UDP, and by TCP where the answer does not fit.
pub(super) async fn ask(server: SocketAddr, message: &Message) -> Result<Message, Silence> {
    let answer = ask_over(Over::Udp, server, message).await?;
    if answer.metadata.truncation {
        return ask_over(Over::Tcp, server, message).await;
    }
    Ok(answer)
}

/// Asks by this transport and no other; an answer by UDP may be cut short.
pub(super) async fn ask_over(
    over: Over,
    server: SocketAddr,
    message: &Message,
) -> Result<Message, Silence> {
    let octets = message.to_vec().map_err(|_| Silence::Garbage)?;
    match over {
        Over::Udp => by_udp(server, message, &octets).await,
        Over::Tcp => {
            let until = Instant::now() + TCP_PATIENCE;
            let asked = timeout_at(until, by_tcp(server, message, &octets)).await;
            asked.unwrap_or(Err(Silence::Timeout))
        }
    }
}

async fn by_udp(server: SocketAddr, message: &Message, octets: &[u8]) -> Result<Message, Silence> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A socket of its own has a port of its own, and connected it hears of nobody else.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    for _ in 0..UDP_TRIES {
        socket.send(octets).await?;
        let until = Instant::now() + UDP_PATIENCE;
        while let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await {
            let received = buffer.get(..received?).unwrap_or_default();
            match reply::of_datagram(received, message) {
                Datagram::Answer(answer) => return Ok(*answer),
                Datagram::Garbage => return Err(Silence::Garbage),
                Datagram::Stray => {}
            }
        }
    }
    Err(Silence::Timeout)
}

async fn by_tcp(server: SocketAddr, message: &Message, octets: &[u8]) -> Result<Message, Silence> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(octets.len()).map_err(|_| Silence::Garbage)?;
    let framed = [&length.to_be_bytes(), octets].concat();
    stream.write_all(&framed).await?;
    reply::from_stream(stream, message)
        .await?
        .ok_or(Silence::Garbage)
}
