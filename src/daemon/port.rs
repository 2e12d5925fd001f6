//! Who listens on a TCP port: read from /proc, for messages that name the one in the way.
//!
//! Other users' processes cannot be looked into without root; then the uid is all there is.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::process::{self, Process};

/// A listening socket of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Whose it is.
    pub uid: u32,
    /// Who hold it, of those that may be looked into; whose it is comes first.
    pub holders: Vec<Process>,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holders.first() {
            Some(Process { pid, command, .. }) => {
                write!(f, "{} (pid {pid})", command.escape_debug())
            }
            None => write!(f, "a process of uid {}", self.uid),
        }
    }
}

/// Every listening socket on `port`, of either family, one for all of the same holders.
pub fn who_listens(port: u16) -> Vec<Listening> {
    let mut found: Vec<Listening> = Vec::new();
    for (_, listening) in listening_sockets(port) {
        if !found.contains(&listening) {
            found.push(listening);
        }
    }
    found
}

/// Every listening socket on `port` with the address it is bound to, IPv4 first. Whether one on `[::]` serves
/// IPv4 as well is not told there.
pub fn listening_sockets(port: u16) -> Vec<(SocketAddr, Listening)> {
    // Not /proc/net: the unit's ProcSubset=pid hides that link, and what it leads to stays.
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| parse(line, port))
        .map(|socket| {
            let listening = Listening {
                uid: socket.uid,
                holders: holders(socket.inode),
            };
            (SocketAddr::new(socket.address, port), listening)
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    uid: u32,
    inode: u64,
}

/// A line of /proc/PID/net/tcp (proc(5)): `sl local_address rem_address st … uid timeout inode`.
fn parse(line: &str, port: u16) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, own_port) = words.get(1)?.rsplit_once(':')?;
    let is_listening = *words.get(3)? == LISTEN && u16::from_str_radix(own_port, 16) == Ok(port);
    is_listening.then_some(())?;
    Some(Socket {
        address: parse_address(address)?,
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits in the byte order of the host, in hexadecimal.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn holders(inode: u64) -> Vec<Process> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let holders = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            descriptors
                .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
                .any(|target| target.as_os_str() == wanted.as_str())
        })
        .filter_map(process::read);
    in_order(holders.collect())
}

/// Whose the socket is comes first: a server before its workers, and before a child on its way to the program
/// that it is to run. Process ids tell nothing of that, they begin anew when they are used up. The service manager
/// comes last, which keeps sockets for others.
fn in_order(mut holders: Vec<Process>) -> Vec<Process> {
    const SERVICE_MANAGER: u32 = 1;
    holders.sort_by_key(|holder| {
        (
            holder.pid == SERVICE_MANAGER,
            holder.start_ticks,
            holder.pid,
        )
    });
    holders
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_finds_this_very_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = who_listens(listener.local_addr().unwrap().port());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].holders[0].pid, std::process::id());
    }

    #[test]
    fn a_server_comes_before_its_worker_whoever_has_the_lower_id_and_the_service_manager_last() {
        let process = |pid, start_ticks| Process {
            pid,
            parent: 1,
            start_ticks,
            command: "nginx".to_owned(),
            arguments: Vec::new(),
        };
        let (manager, server, worker) = (process(1, 2), process(32_700, 500), process(310, 501));
        let found = in_order(vec![manager.clone(), worker.clone(), server.clone()]);
        assert_eq!(found, [server, worker, manager]);
    }

    #[test]
    fn the_address_of_each_socket_is_told() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap();
            let found = listening_sockets(bound.port());
            assert!(found.iter().any(|(at, _)| *at == bound), "{found:?}");
        }
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let line = "0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 33 0 7 1 0 100";
        let socket = Socket {
            address: Ipv4Addr::UNSPECIFIED.into(),
            uid: 33,
            inode: 7,
        };
        assert_eq!(parse(line, 80), Some(socket));
        assert_eq!(parse(line, 81), None);
        assert_eq!(parse(&line.replace(" 0A ", " 01 "), 80), None);
        assert_eq!(parse("  sl  local_address rem_address", 80), None);
    }
}
