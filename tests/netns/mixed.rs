//! Ports that the gate listens on itself beside ports that are diverted to it, each to a listener of its
//! own, in every mode. The enforcer runs in the test's own process and the gate is the test: what is
//! tried is the kernel's part, and the gate's death is its listeners' closing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use acmegate::firewall::enforcer::Orders;
use acmegate::firewall::ruleset::{Closed, Divert, Settings, Shut};
use socket2::{Domain, Protocol, Socket, Type};

use crate::divert::{Site, get_from};
use crate::enforcing::{self, Enforcing};
use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, Seen, on_each_host};
use crate::lab::{self, inside, wait_for};
use crate::scope::Way;

const FOREIGN: [&str; 2] = [HOST_4, HOST_6];
const SOON: Duration = Duration::from_secs(60);
const HTTP: Divert = Divert { port: 80, to: 8402 };
const TLS: Divert = Divert {
    port: 443,
    to: 8403,
};

fn orders(firewall: &str, divert: &[Divert]) -> Orders {
    let orders = enforcing::orders(&format!("{firewall}ports = [80, 443]\n"));
    Orders {
        settings: Settings {
            divert: divert.to_vec(),
            ..orders.settings
        },
        ..orders
    }
}

/// The gate: says by which of its ports it was reached. Dropping it is its death.
pub struct Gate {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gate {
    /// Listens on `plain` for everybody, and transparently on `diverted` of the loopback addresses.
    pub fn start(plain: &[u16], diverted: &[u16]) -> Self {
        let plain = plain.iter().map(|port| (format!("[::]:{port}"), false));
        let diverted = diverted.iter().flat_map(|port| {
            ["127.0.0.1", "[::1]"].map(|address| (format!("{address}:{port}"), true))
        });
        let stop = Arc::new(AtomicBool::new(false));
        let threads = plain.chain(diverted).map(|(address, is_transparent)| {
            let listener = listen(address.parse().expect("an address"), is_transparent);
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || answer(&listener, &stop))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr, is_transparent: bool) -> TcpListener {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    match address {
        _ if !is_transparent => {}
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true).expect("IP_TRANSPARENT"),
        SocketAddr::V6(_) => socket
            .set_ip_transparent_v6(true)
            .expect("IPV6_TRANSPARENT"),
    }
    socket.bind(&address.into()).expect("a free port");
    socket.listen(64).expect("it listens");
    socket.set_nonblocking(true).expect("fcntl");
    socket.into()
}

fn answer(listener: &TcpListener, stop: &AtomicBool) {
    let port = listener.local_addr().expect("an address").port();
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut peer, _)) = listener.accept() else {
            pause();
            continue;
        };
        let _ = peer.set_nonblocking(false);
        let _ = peer.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = peer.read(&mut [0; 512]);
        let _ = peer.write_all(format!("the gate at {port}").as_bytes());
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread that polls a listener")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

#[track_caller]
fn gate_answers(host: &Host, port: u16, at: u16) {
    for to in FOREIGN {
        let answer = get_from(host, to, port, "/");
        assert_eq!(answer, format!("the gate at {at}"), "{to} port {port}");
    }
}

#[track_caller]
fn is_shut(host: &Host, port: u16) {
    assert_eq!(
        FOREIGN.map(|to| host.probe(to, port)),
        [Seen::Silence; 2],
        "port {port}"
    );
}

#[track_caller]
fn site_greets(host: &Host, port: u16) {
    let visitor = get_from(host, HOST_PRIVATE, port, "/");
    assert!(visitor.ends_with("the site greets 10.0.0.2"), "{visitor}");
}

#[test]
fn one_port_is_listened_on_and_another_diverted_in_every_mode() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let _site = Site::start_on(&[443], None);
            let gate = Gate::start(&[80], &[8403]);
            let enforcing = Enforcing::start(orders(way.prepare(), &[TLS]));
            // Who is listed reaches the site itself, from their own address.
            site_greets(host, 443);
            let visitor = get_from(host, HOST_PRIVATE, 80, "/");
            assert_eq!(visitor, "the gate at 80");
            is_shut(host, 80);
            is_shut(host, 443);

            enforcing.open(&[80]);
            gate_answers(host, 80, 80);
            is_shut(host, 443);
            enforcing.close();
            enforcing.open(&[443]);
            gate_answers(host, 443, 8403);
            is_shut(host, 80);
            enforcing.close();
            enforcing.open(&[80, 443]);
            gate_answers(host, 80, 80);
            gate_answers(host, 443, 8403);
            site_greets(host, 443);
            // The gate dies, and the window stays.
            drop(gate);
            for to in FOREIGN {
                let seen = [80, 443].map(|port| host.probe(to, port));
                assert!(!seen.contains(&Seen::Connected), "{way:?} {to}: {seen:?}");
            }
            site_greets(host, 443);
            let _gate = Gate::start(&[80], &[8403]);
            gate_answers(host, 443, 8403);
            enforcing.close();
            is_shut(host, 80);
            is_shut(host, 443);
            site_greets(host, 443);
        });
    });
}

#[test]
fn each_diverted_port_goes_to_a_listener_of_its_own_in_every_mode() {
    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let _site = Site::start(None);
            let gate = Gate::start(&[], &[8402, 8403]);
            let enforcing = Enforcing::start(orders(way.prepare(), &[HTTP, TLS]));
            for (opened, other) in [(HTTP, TLS), (TLS, HTTP)] {
                enforcing.open(&[opened.port]);
                gate_answers(host, opened.port, opened.to);
                is_shut(host, other.port);
                enforcing.close();
                is_shut(host, opened.port);
            }
            enforcing.open(&[80, 443]);
            for Divert { port, to } in [HTTP, TLS] {
                gate_answers(host, port, to);
                site_greets(host, port);
            }
            drop(gate);
            // One of the two listeners alone takes nothing of the other's.
            let _half = Gate::start(&[], &[8402]);
            gate_answers(host, 80, 8402);
            for to in FOREIGN {
                assert_ne!(host.probe(to, 443), Seen::Connected, "{way:?} {to}");
            }
            site_greets(host, 443);
        });
    });
}

#[test]
fn outside_of_windows_only_a_diverted_port_passes() {
    inside(|| {
        let host = &Host::new();
        let _site = Site::start_on(&[443], None);
        let _gate = Gate::start(&[80], &[8403]);
        let orders = || {
            // What the kernel is told where one of two ports is diverted and shut means pass.
            let mut orders = orders("[firewall]\n", &[TLS]);
            orders.settings.closed = Closed {
                v4: Shut::Pass,
                v6: Shut::Pass,
            };
            orders
        };
        let enforcing = Enforcing::start(orders());
        for to in FOREIGN {
            let answer = get_from(host, to, 443, "/");
            assert!(answer.contains("the site greets"), "{to}: {answer}");
        }
        is_shut(host, 80);
        enforcing.open(&[443]);
        gate_answers(host, 443, 8403);
        is_shut(host, 80);
    });
}

/// What `firewall plan` prints of a mixed configuration is what stands in the kernel.
#[test]
fn a_mixed_plan_is_what_is_installed() {
    inside(|| {
        on_each_host(&Way::ALL, |_, way| {
            for divert in [&[TLS][..], &[HTTP], &[HTTP, TLS]] {
                let mut orders = orders(way.prepare(), divert);
                orders.settings.owned = false;
                let settings = orders.settings.clone();
                let enforcing = Enforcing::start(orders);
                let installed = own_table();
                drop(enforcing);
                lab::nft("delete table inet acmegate");
                lab::nft(&settings.to_nft());
                assert_eq!(own_table(), installed, "{way:?} {divert:?}");
                lab::nft("flush ruleset");
            }
        });
    });
}

fn own_table() -> String {
    crate::kernel::nft(&["-s", "-t", "list", "table", "inet", "acmegate"])
}

/// Two groups of chains come back as one does.
#[test]
fn a_flushed_mixed_table_is_back_at_once() {
    inside(|| {
        let host = &Host::new();
        let _site = Site::start_on(&[443], None);
        let _gate = Gate::start(&[80], &[8403]);
        let mut orders = orders("[firewall]\n", &[TLS]);
        orders.settings.owned = false;
        let enforcing = Enforcing::start(orders);
        enforcing.open(&[443]);
        let before = own_table();
        lab::nft("flush ruleset");
        wait_for(SOON, "it is back", || {
            (own_table_or_none()? == before).then_some(())
        });
        gate_answers(host, 443, 8403);
        is_shut(host, 80);
        site_greets(host, 443);
    });
}

pub fn own_table_or_none() -> Option<String> {
    let mut command = std::process::Command::new("nft");
    command.args(["-s", "-t", "list", "table", "inet", "acmegate"]);
    let listed = lab::run(command, SOON);
    (listed.code == 0).then_some(listed.stdout)
}
