//! A flood of first packets from forged sources: the report stays true, memory bounded, and nobody waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use acmegate::firewall::message::{Claim, Reply, Request};

use crate::enforcer::claim;
use crate::enforcing::{self, Enforcing};
use crate::evidence::{GUARD, PEERS, Report, listen};
use crate::host::{HOST_4, HOST_6, Host, Seen};
use crate::lab::{self, inside, wait_for};
use crate::raw::{self, SYN, Segment};

/// So many sources at once.
pub const SOURCES: u32 = 100_000;
/// What a hook would notice.
const AT_ONCE: Duration = Duration::from_secs(3);

#[test]
fn a_flood_from_forged_sources_hides_nobody_and_keeps_nobody_waiting() {
    inside(|| {
        let host = &Host::new();
        listen(80);
        let enforcing = &Enforcing::start(enforcing::orders(GUARD));
        lab::ip("route add default via 192.0.2.2");
        let report = Report::of(enforcing);
        enforcing.open(&[80]);
        let memory = peak_kilobytes();
        for round in 0..3 {
            host.beside(move || raw::send(flood(round)));
        }
        wait_for(Duration::from_secs(60), "a flood", || {
            (report.tally().packets > 10_000).then_some(())
        });
        // Amid it: a validation, a second window, and its end.
        for to in [HOST_4, HOST_6] {
            wait_for(Duration::from_secs(10), "a connection", || {
                (host.probe(to, 80) == Seen::Connected).then_some(())
            });
        }
        let begun = Instant::now();
        let reply = enforcing.ask(&Request::Open(Claim {
            ports: vec![443],
            ..claim("b")
        }));
        assert!(matches!(reply, Reply::Health(_)), "{reply:?}");
        let reply = enforcing.ask(&Request::Close(claim("b").name));
        assert!(matches!(reply, Reply::Health(_)), "{reply:?}");
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        for from in PEERS {
            report.wait_for(from, 80, |known| known.reached);
        }
        // The kernel's own count: at least as many arrived as there are sources.
        wait_for(Duration::from_secs(100), "all of them", || {
            (report.tally().packets >= u64::from(SOURCES)).then_some(())
        });
        let begun = Instant::now();
        enforcing.close();
        assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        let tally = report.tally();
        assert_eq!(tally.reached, 2, "{tally:?}");
        assert!(tally.incomplete.is_some(), "{tally:?}");
        let told = report.sources().len();
        assert!(told <= 2048, "{told} sources were told");
        let more = peak_kilobytes().saturating_sub(memory);
        assert!(more < 40_000, "{more} kB more than before");
        // Once it is over, all is told again.
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
    });
}

/// One packet of each source, and of some of them more.
pub fn flood(round: u32) -> impl Iterator<Item = Segment> {
    let SocketAddr::V4(to) = crate::host::socket_address(HOST_4, 80) else {
        panic!("an address of IPv4")
    };
    (0..SOURCES).map(move |number| Segment {
        // 198.18.0.0/15, which is for measurements.
        from: (
            Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number),
            40_000,
        ),
        to: (*to.ip(), 80),
        flags: SYN,
        sequence: round * SOURCES + number,
    })
}

/// The most memory that this process ever had.
fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words: Vec<&str> = line.expect("VmHWM").split_whitespace().collect();
    words[1].parse().expect("a number")
}
