//! What a window let in, it also ends: in the kernel, and by the front.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Host, on_each_host};
use crate::lab::{Daemon, inside, wait_for};
use crate::scope::Way;

const GRACE: Duration = acmegate::gate::window::GRACE;
/// What rounding and a busy host may add.
const MARGIN: Duration = Duration::from_secs(2);
const HALF: &[u8] = b"GET /.well-known/acme-challenge/unknown HTTP/1.1\r\n";
const REST: &[u8] = b"Host: a.example.com\r\n\r\n";

#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Expired,
}

/// One connection of each kind on a host of its own.
type Case = (Way, Listen, End);

/// Who gets what a window admits.
#[derive(Clone, Copy, Debug)]
enum Listen {
    Port,
    Divert,
}

/// Every way of admitting, and every way of ending it.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in Way::ALL {
        for listen in [Listen::Port, Listen::Divert] {
            cases.extend([End::Closed, End::Expired].map(|end| (way, listen, end)));
        }
    }
    cases
}

/// A daemon on the calling host. A peer may be slow here: only the window's end is to end it.
fn daemon((way, listen, _): Case) -> Daemon {
    let listen = match listen {
        Listen::Port => "",
        Listen::Divert => {
            serve_a_site();
            "listen = \"divert\"\n"
        }
    };
    let firewall = way.prepare();
    Daemon::start(&format!(
        "{firewall}[http]\nhead_timeout = \"20s\"\n{listen}"
    ))
}

/// The web server that keeps port 80: it has no such page.
fn serve_a_site() {
    let listener = TcpListener::bind("[::]:80").expect("a free port in a new namespace");
    let answer = |mut stream: TcpStream| {
        let mut request = Vec::new();
        let mut part = [0; 512];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(count) if count > 0 => request.extend(&part[..count]),
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
}

#[test]
fn the_front_ends_what_a_window_let_in() {
    inside(|| {
        on_each_host(&cases(), |host, case| {
            let daemon = daemon(case);
            let (.., end) = case;
            let length = match end {
                End::Closed => "5m",
                End::Expired => "1s",
            };
            // The window ends a second after some moment in here.
            let asked = Instant::now();
            daemon
                .cli(&["open", "--lease", "a", "--for", length])
                .success();
            let opened = Instant::now();
            let mut admitted = [HOST_4, HOST_6].map(|address| half_a_request(host, address));
            let mut listed = half_a_request(host, HOST_PRIVATE);
            let (not_before, ended) = match end {
                End::Closed => {
                    let asked = Instant::now();
                    daemon.cli(&["close", "--lease", "a"]).success();
                    (asked, Instant::now())
                }
                End::Expired => {
                    let length = Duration::from_secs(1);
                    (asked + length, opened + length)
                }
            };
            for peer in &mut admitted {
                let limit = (ended + GRACE + MARGIN).saturating_duration_since(Instant::now());
                peer.set_read_timeout(Some(limit)).expect("a timeout");
                let read = peer.read(&mut [0; 64]);
                // Not one byte of an answer: an end, or a reset.
                let is_end = match &read {
                    Ok(count) => *count == 0,
                    Err(error) => error.kind() == ErrorKind::ConnectionReset,
                };
                assert!(is_end, "{case:?}: {read:?} after {:?}", ended.elapsed());
                let after = not_before.elapsed();
                assert!(after >= GRACE, "no grace: {after:?}");
            }
            wait_for(MARGIN, "it is told", || {
                (daemon.log().matches("window-closed").count() == 2).then_some(())
            });
            // The allow-listed peer's connection was nothing of the window's.
            listed.write_all(REST).expect("it is open");
            let mut answer = String::new();
            listed.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        });
    });
}

#[test]
fn the_kernel_ends_what_a_window_let_in_even_if_the_front_sleeps() {
    inside(|| {
        on_each_host(&cases(), |host, case| {
            let daemon = daemon(case);
            let (.., end) = case;
            let length = match end {
                End::Closed => "5m",
                End::Expired => "1s",
            };
            daemon
                .cli(&["open", "--lease", "a", "--for", length])
                .success();
            let opened = Instant::now();
            let mut admitted = [HOST_4, HOST_6].map(|address| half_a_request(host, address));
            let mut listed = half_a_request(host, HOST_PRIVATE);
            let ended = match end {
                End::Closed => {
                    daemon.cli(&["close", "--lease", "a"]).success();
                    Instant::now()
                }
                End::Expired => opened + Duration::from_secs(1),
            };
            daemon.signal(Signal::STOP);
            // Within the grace it goes on: the kernel of the host acknowledges.
            for peer in &mut admitted {
                assert!(arrives(host, peer), "within the grace");
            }
            assert!(ended.elapsed() < GRACE, "too slow a host for this test");
            wait_until(ended + GRACE + MARGIN / 4);
            for peer in &mut admitted {
                assert!(!arrives(host, peer), "{case:?}: after the grace");
            }
            assert!(arrives(host, &mut listed), "an allow-listed peer goes on");
            daemon.signal(Signal::CONT);
        });
    });
}

/// Outside of windows everybody reaches the site then, and still nobody the gate.
#[test]
fn the_kernel_ends_it_too_where_others_pass_after_the_window() {
    inside(|| {
        let host = Host::new();
        serve_a_site();
        let daemon = Daemon::start(
            "[firewall]\nclosed = \"pass\"\n[http]\nhead_timeout = \"20s\"\nlisten = \"divert\"\n",
        );
        daemon.cli(&["open", "--lease", "a"]).success();
        let mut admitted = [HOST_4, HOST_6].map(|address| half_a_request(&host, address));
        daemon.cli(&["close", "--lease", "a"]).success();
        let closed = Instant::now();
        daemon.signal(Signal::STOP);
        for peer in &mut admitted {
            assert!(arrives(&host, peer), "within the grace");
        }
        assert!(closed.elapsed() < GRACE, "too slow a host for this test");
        wait_until(closed + GRACE + MARGIN / 4);
        for peer in &mut admitted {
            assert!(!arrives(&host, peer), "after the grace");
        }
        daemon.signal(Signal::CONT);
    });
}

fn half_a_request(host: &Host, address: &str) -> TcpStream {
    let mut peer = host.connect(address, 80);
    peer.write_all(HALF).expect("it is open");
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    peer
}

fn wait_until(moment: Instant) {
    let limit = moment.saturating_duration_since(Instant::now()) + MARGIN;
    wait_for(limit, "the clock goes on", || {
        (Instant::now() >= moment).then_some(())
    });
}

/// Whether a byte that the peer sends now is acknowledged within half a second: its send queue, by
/// the peer's kernel, becomes empty.
fn arrives(host: &Host, peer: &mut TcpStream) -> bool {
    let port = peer.local_addr().expect("connected").port();
    peer.write_all(b"X").expect("it goes into the queue");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        if host.outside(move || unacknowledged(port)) == 0 {
            return true;
        }
    }
    false
}

/// The octets that a connection from `port` has sent and nobody has acknowledged (proc_net(5)).
fn unacknowledged(port: u16) -> u64 {
    let own = format!(":{port:04X}");
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>())
        .find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is_ours = fields.get(1)?.ends_with(&own);
            let queue = fields.get(4)?.split(':').next()?;
            is_ours.then(|| u64::from_str_radix(queue, 16).ok())?
        })
        .expect("the connection is known to the peer's kernel")
}
