//! What a killed gate leaves in the kernel, a closing connection or an answered handshake, leads
//! nobody to the server that stands behind it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::divert::{Site, get};
use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, on_each_host, socket_address};
use crate::lab::{self, Daemon, inside, send};
use crate::scope::Way;

const FOREIGN: [&str; 2] = [HOST_4, HOST_6];

/// Beside whom the gate stands, and what it does outside of windows.
#[derive(Clone, Copy, Debug)]
enum Place {
    Guard(&'static str),
    Set,
    Attach,
}

impl Place {
    const ALL: [Self; 5] = [
        Self::Guard("drop"),
        Self::Guard("reject"),
        Self::Guard("pass"),
        Self::Set,
        Self::Attach,
    ];

    fn start(self) -> Daemon {
        let firewall = match self {
            Self::Guard(closed) => format!("[firewall]\nclosed = \"{closed}\"\n"),
            Self::Set => Way::Set.prepare().to_owned(),
            Self::Attach => Way::Attach.prepare().to_owned(),
        };
        Daemon::start(&format!("{firewall}[http]\nlisten = \"divert\"\n"))
    }
}

/// A connection from a port of one's own choice, again if need be.
fn connect_from(host: &Host, port: u16, to: &str) -> std::io::Result<TcpStream> {
    let to = socket_address(to, 80);
    host.outside(move || {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect_timeout(&to.into(), Duration::from_secs(4))?;
        Ok(socket.into())
    })
}

fn ask(peer: &mut TcpStream) -> String {
    peer.set_read_timeout(Some(Duration::from_secs(3)))
        .expect("a timeout");
    let _ = peer.write_all(b"GET / HTTP/1.0\r\nHost: www.example.com\r\n\r\n");
    let mut answer = Vec::new();
    let _ = peer.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The gate closes its connections itself, so the kernel waits at this end for what may still be
/// on its way; a first packet from the same port ends that wait.
#[test]
fn a_connection_that_the_gate_closed_leads_nobody_to_the_site() {
    inside(|| {
        on_each_host(&Place::ALL, |host, place| {
            let _site = Site::start(None);
            let mut daemon = place.start();
            daemon
                .cli(&["open", "--lease", "a", "--for", "5m"])
                .success();
            for round in 0..3 {
                for to in FOREIGN {
                    // Until its last octet is acknowledged, the connection before has the port.
                    let again = || match connect_from(host, 40_000, to) {
                        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => None,
                        connected => Some(connected),
                    };
                    let limit = Duration::from_secs(5);
                    let connected = lab::wait_for(limit, "the port is free again", again);
                    let mut peer = connected.expect("the gate listens");
                    let answer = ask(&mut peer);
                    assert!(
                        answer.starts_with("HTTP/1.1 4"),
                        "{place:?} {round} {to}: {answer}"
                    );
                }
            }
            send(daemon.front(), Signal::KILL);
            daemon.gone();
            for to in FOREIGN {
                let again = connect_from(host, 40_000, to);
                let answer = again.map(|mut peer| ask(&mut peer));
                assert!(answer.is_err(), "{place:?} {to}: {answer:?}");
            }
        });
    });
}

/// What comes between the two halves of a handshake.
#[derive(Clone, Copy, Debug)]
enum Then {
    Kill,
    Close,
}

/// A handshake that is kept in a cookie belongs to whichever listener its last packet comes to.
#[test]
fn a_handshake_that_the_gate_answered_leads_nobody_to_the_site() {
    inside(|| {
        let cases = Place::ALL.map(|place| [Then::Kill, Then::Close].map(|then| (place, then)));
        on_each_host(cases.as_flattened(), |host, (place, then)| {
            std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("a sysctl of our own");
            let _site = Site::start(None);
            let mut daemon = place.start();
            daemon
                .cli(&["open", "--lease", "a", "--for", "5m"])
                .success();
            // The site hands out cookies of its own, and so it takes them.
            let visitor = get(host, HOST_PRIVATE, "/");
            assert!(visitor.contains("the site greets"), "{visitor}");
            // The peers keep the last packet of the handshake back.
            let keep = "table inet keep { chain out { type filter hook output priority 0;
                tcp flags & (syn | ack) == ack drop; }; }";
            host.outside(move || lab::nft(keep));
            let peers = FOREIGN.map(|to| host.connect(to, 80));
            match then {
                Then::Kill => {
                    send(daemon.front(), Signal::KILL);
                    daemon.gone();
                }
                Then::Close => drop(daemon.cli(&["close", "--lease", "a"]).success()),
            }
            host.outside(|| lab::nft("delete table inet keep"));
            let answers = peers.map(|mut peer| std::thread::spawn(move || ask(&mut peer)));
            for answer in answers {
                let answer = answer.join().expect("it does not panic");
                assert_eq!(answer, "", "{place:?}, {then:?}");
            }
            let visitor = get(host, HOST_PRIVATE, "/");
            assert!(visitor.contains("the site greets"), "{visitor}");
        });
    });
}
