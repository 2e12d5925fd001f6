//! The host's resolvers (resolv.conf(5)).

use std::fs;
use std::net::{IpAddr, SocketAddr};

const PATH: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// libc asks no more.
const MOST: usize = 3;
/// Nobody's is longer.
const MAX_BYTES: u64 = 64 * 1024;

/// Those that the file names.
pub(super) fn read() -> Vec<SocketAddr> {
    let is_small = fs::metadata(PATH).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
    match fs::read(PATH) {
        Ok(octets) if is_small => parse(&octets),
        _ => Vec::new(),
    }
}

/// An address of one link (`fe80::1%eth0`) is left out: what it leads to cannot be named here. A comment may be in
/// any encoding.
fn parse(octets: &[u8]) -> Vec<SocketAddr> {
    let text = String::from_utf8_lossy(octets);
    let mut words = text.lines().map(str::split_ascii_whitespace);
    let servers = words.by_ref().filter_map(|mut line| match line.next() {
        Some("nameserver") => line.next()?.parse::<IpAddr>().ok(),
        _ => None,
    });
    let servers = servers.take(MOST);
    servers
        .map(|address| SocketAddr::new(address, PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_and_nothing_else() {
        let text =
            b"# nameserver 192.0.2.1\n# r\xe9solveur\nsearch a.test\nnameserver 192.0.2.53\n\
                    nameserver\t2001:db8::53 # ours\nnameserver fe80::1%eth0\nnameserver x\n\
                    nameserver 192.0.2.54\nnameserver 192.0.2.55\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["192.0.2.53:53", "[2001:db8::53]:53", "192.0.2.54:53"]
        );
    }
}
