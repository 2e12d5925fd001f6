//! Listening sockets: inherited from the service manager, or bound here, before anything is sealed.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::socket_acceptconn;
use socket2::{Domain, Protocol, Socket, Type};

use super::port::who_listens;

/// How many connections may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// What is said of an inherited socket that takes no connections.
const NOT_LISTENING: &str = "an inherited socket does not listen: the socket unit must say \
     `ListenStream=` and `Accept=no`";

/// Why there is no listener.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    error: io::Error,
    purpose: Purpose,
}

/// What is listened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Peers that come by themselves.
    Peers,
    /// Peers that the kernel diverts.
    Diverted,
    /// Who asks for metrics.
    Metrics,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.address.port();
        write!(f, "cannot listen on {}: ", self.address)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                let holders = who_listens(port);
                let words: Vec<String> = holders.iter().map(ToString::to_string).collect();
                match words.as_slice() {
                    [] => f.write_str("the port is in use")?,
                    words => write!(f, "{} holds port {port}", words.join(", "))?,
                }
                if holders.iter().all(|listening| listening.holders.is_empty()) {
                    write!(f, " (`ss -Hltnp sport = {port}` as root names it)")?;
                }
                f.write_str(match self.purpose {
                    Purpose::Peers => {
                        ". Ways out: move it behind the gate (another port, and `answer = { upstream = … }`); \
                         or set `[http] listen = []` and use acmegate for windows only"
                    }
                    Purpose::Diverted => {
                        ". Way out: give connections another port to be handed to, `divert_port` in [http]"
                    }
                    Purpose::Metrics => ". Way out: another port in [metrics] listen",
                })
            }
            // Which needs another capability than a low port does.
            io::ErrorKind::PermissionDenied if self.error.raw_os_error() == Some(libc::EPERM) => {
                f.write_str(
                    "taking diverted connections needs CAP_NET_ADMIN. Ways out: start it by systemd \
                     (acmegate.service), or as root",
                )
            }
            io::ErrorKind::PermissionDenied if port < 1024 => write!(
                f,
                "ports below 1024 need CAP_NET_BIND_SERVICE. Ways out: start it by systemd (acmegate.service, \
                 or acmegate.socket for an inherited socket); or as root; or lower net.ipv4.ip_unprivileged_port_start"
            ),
            _ => write!(f, "{}", self.error),
        }
    }
}

impl std::error::Error for ListenError {}

/// The sockets that the service manager handed over (sd_listen_fds(3)), if any.
///
/// # Errors
/// One of them is not a TCP listener, or takes no connections: the unit's fault.
pub fn inherited() -> io::Result<Vec<TcpListener>> {
    let mut sockets = ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..sockets.len() {
        let listener = sockets.take_tcp_listener(at).map_err(|error| {
            io::Error::other(format!(
                "inherited socket {at} is not a TCP listener: {error}"
            ))
        })?;
        if let Some(listener) = listener {
            must_listen(&listener)?;
            // Handed over without it (sd_listen_fds(3)); the enforcer must not inherit a listener.
            fcntl_setfd(&listener, FdFlags::CLOEXEC)?;
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn must_listen(inherited: &TcpListener) -> io::Result<()> {
    match socket_acceptconn(inherited)? {
        true => Ok(()),
        false => Err(io::Error::other(NOT_LISTENING)),
    }
}

/// Binds every address. `[::]` serves both families; where the kernel has no IPv6 it becomes
/// `0.0.0.0`.
///
/// # Errors
/// [`ListenError`], which names who is in the way and the ways out.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    bind_by(addresses, |address| bind_one(address, false))
}

/// Binds every address for peers that the kernel diverts to it from others (ip(7), IP_TRANSPARENT);
/// needs CAP_NET_ADMIN. A family that this host has not is left out.
///
/// # Errors
/// [`ListenError`].
pub fn bind_transparent(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        match bind_one(address, true) {
            Ok(listener) => listeners.push(listener),
            Err(error) if address.is_ipv6() && is_no_ipv6(&error) => {}
            Err(error) => {
                return Err(ListenError {
                    address,
                    error,
                    purpose: Purpose::Diverted,
                });
            }
        }
    }
    Ok(listeners)
}

/// Binds every address that metrics are shown at: loopback addresses, each for itself.
///
/// # Errors
/// [`ListenError`].
pub fn bind_for_metrics(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let bound = addresses.iter().map(|&address| {
        bind_one(address, false).map_err(|error| ListenError {
            address,
            error,
            purpose: Purpose::Metrics,
        })
    });
    bound.collect()
}

/// Whether this kernel has no IPv6.
fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

fn bind_by<Listener>(
    addresses: &[SocketAddr],
    bind_one: impl Fn(SocketAddr) -> io::Result<Listener>,
) -> Result<Vec<Listener>, ListenError> {
    addresses
        .iter()
        .map(|&address| {
            let listener = bind_one(address).or_else(|error| {
                if is_no_ipv6(&error) && address.is_ipv6() && address.ip().is_unspecified() {
                    bind_one((IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()).into())
                } else {
                    Err(error)
                }
            });
            listener.map_err(|error| ListenError {
                address,
                error,
                purpose: Purpose::Peers,
            })
        })
        .collect()
}

fn bind_one(address: SocketAddr, is_transparent: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections of an earlier run that linger in TIME_WAIT must not keep the port.
    socket.set_reuse_address(true)?;
    if is_transparent {
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_serves_both_families() {
        let listeners = bind(&["[::]:0".parse().unwrap()]).unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            std::net::TcpStream::connect((address, port)).unwrap();
        }
    }

    #[test]
    fn an_inherited_socket_that_does_not_listen_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        must_listen(&listener).unwrap();
        // As of a unit with Accept=yes: a connection.
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let handed = TcpListener::from(std::os::fd::OwnedFd::from(peer));
        let error = must_listen(&handed).unwrap_err().to_string();
        assert!(error.contains("Accept=no"), "{error}");
    }

    #[test]
    fn where_there_is_no_ipv6_it_listens_on_ipv4_alone() {
        let without_ipv6 = |code| {
            move |address: SocketAddr| match address.is_ipv6() {
                true => Err(io::Error::from_raw_os_error(code)),
                false => Ok(address),
            }
        };
        let any: SocketAddr = "[::]:80".parse().unwrap();
        for code in [
            libc::EAFNOSUPPORT,
            libc::EADDRNOTAVAIL,
            libc::EPROTONOSUPPORT,
        ] {
            let bound = bind_by(&[any], without_ipv6(code)).unwrap();
            assert_eq!(bound, ["0.0.0.0:80".parse().unwrap()]);
            // Who names an address wants that one.
            let named = "[2001:db8::1]:80".parse().unwrap();
            assert!(bind_by(&[named], without_ipv6(code)).is_err());
        }
        // Being kept from the port is no lack of a family.
        for code in [libc::EADDRINUSE, libc::EACCES] {
            assert!(bind_by(&[any], without_ipv6(code)).is_err());
        }
    }

    #[test]
    fn whoever_holds_the_port_is_named() {
        let listeners = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let text = bind(&[address]).unwrap_err().to_string();
        assert!(
            text.contains(&format!(
                "(pid {}) holds port {}",
                std::process::id(),
                address.port()
            )),
            "{text}"
        );
        assert!(text.contains("listen = []"), "{text}");
    }
}
