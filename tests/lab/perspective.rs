//! Perspectives of a CA: sources in networks of their own that ask as Boulder's validators do.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How long a perspective waits for a connection (Boulder's `singleDialTimeout`).
pub const DIAL: Duration = Duration::from_secs(10);
/// How long it waits for the answer.
const ANSWER: Duration = Duration::from_secs(8);

/// One question of a perspective.
#[derive(Clone, Debug)]
pub struct Question {
    /// The perspective's own address, which must be there.
    pub from: String,
    /// Whom it asks.
    pub to: String,
    /// The identifier, which is the Host field too.
    pub name: String,
    /// What it asks for: `/.well-known/acme-challenge/…`.
    pub path: String,
    /// How long it waits for the connection.
    pub dial: Duration,
}

impl Question {
    /// Asks, from the caller's namespace; the status of the answer, or nothing where no connection, or
    /// no answer, came about.
    pub fn ask(&self) -> Option<u16> {
        let address = |text: &str, port| {
            let address: IpAddr = text.parse().expect("an address");
            SocketAddr::new(address, port)
        };
        let to = address(&self.to, 80);
        let kind = (Domain::for_address(to), Type::STREAM, Some(Protocol::TCP));
        let socket = Socket::new(kind.0, kind.1, kind.2).expect("a socket");
        socket
            .bind(&address(&self.from, 0).into())
            .expect("the perspective's own address");
        socket.connect_timeout(&to.into(), self.dial).ok()?;
        socket.set_read_timeout(Some(ANSWER)).expect("SO_RCVTIMEO");
        let mut stream = std::net::TcpStream::from(socket);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: validator\r\nAccept: */*\r\n\
             Accept-Encoding: gzip\r\nConnection: close\r\n\r\n",
            self.path, self.name
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }
}
