//! Bulk data of visitors goes through a pipe of the size that the relay asks for: the front's seal lets it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::host::{HOST_PRIVATE, Host};
use crate::lab::hello::ClientHello;
use crate::lab::{Daemon, inside, wait_for};

/// Far more than what is copied before a pipe is lent.
const BULK: usize = 8 * 1024 * 1024;

#[test]
fn the_seal_lets_bulk_data_go_through_pipes() {
    inside(|| {
        let host = Host::new();
        let server = TcpListener::bind("127.0.0.1:8443").expect("a free port");
        let daemon = Daemon::start(
            "[tls]\nlisten = [\"[::]:443\"]\nserver = \"127.0.0.1:8443\"\n[firewall]\nports = [443]\n",
        );
        let others = pipes(&daemon);
        let mut visitor = host.connect(HOST_PRIVATE, 443);
        let hello = ClientHello::new().name("www.example.com").record();
        visitor.write_all(&hello).expect("it is heard");
        let (mut site, _) = server.accept().expect("the relay comes");
        let sending = std::thread::spawn(move || {
            site.write_all(&vec![b'b'; BULK]).expect("it is relayed");
            site
        });
        visitor
            .read_exact(&mut vec![0; BULK])
            .expect("all of it comes");
        let _site = sending.join().expect("no panic");
        // It is kept for the next one; had its size been refused, there would be none.
        wait_for(Duration::from_secs(10), "both ends of one", || {
            (pipes(&daemon) == others + 2).then_some(())
        });
    });
}

/// How many of the front's descriptors are ends of pipes.
fn pipes(daemon: &Daemon) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.front())).expect("it lives");
    let targets = open
        .flatten()
        .flat_map(|entry| std::fs::read_link(entry.path()));
    targets
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}
