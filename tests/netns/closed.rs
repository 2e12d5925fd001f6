//! What "shut" means: silence, or a reset, per family.

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Seen, on_each_host};
use crate::lab::{Daemon, Node, inside, ip, wait_for};
use crate::scope::Way;

#[test]
fn a_shut_port_is_silent_or_answers_with_a_reset_as_configured() {
    inside(|| {
        let cases = [
            ("\"drop\"", Seen::Silence, Seen::Silence),
            ("\"reject\"", Seen::Refused, Seen::Refused),
            ("{ ipv6 = \"reject\" }", Seen::Silence, Seen::Refused),
            (
                "{ ipv4 = \"reject\", ipv6 = \"drop\" }",
                Seen::Refused,
                Seen::Silence,
            ),
        ];
        on_each_host(&cases, |host, (closed, v4, v6)| {
            let daemon = Daemon::start(&format!("[firewall]\nclosed = {closed}\n"));
            let seen = || [HOST_4, HOST_6].map(|address| host.probe(address, 80));
            assert_eq!(seen(), [v4, v6], "{closed}");
            assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
            daemon.cli(&["open", "--lease", "a"]).success();
            assert_eq!(seen(), [Seen::Connected; 2]);
            daemon.cli(&["close", "--lease", "a"]).success();
            assert_eq!(seen(), [v4, v6], "{closed}");
        });
    });
}

/// With a reset the peer knows at once; in every mode, for what the window itself let in.
#[test]
fn a_held_connection_is_reset_after_the_grace_where_shut_means_reject() {
    use std::io::{ErrorKind, Read, Write};
    use std::time::{Duration, Instant};

    inside(|| {
        on_each_host(&Way::ALL, |host, way| {
            let config = format!(
                "{}closed = \"reject\"\n[http]\nhead_timeout = \"60s\"\n",
                way.prepare()
            );
            let daemon = Daemon::start(&config);
            daemon.cli(&["open", "--lease", "a"]).success();
            let peers = [HOST_4, HOST_6].map(|address| host.connect(address, 80));
            daemon.cli(&["close", "--lease", "a"]).success();
            let closed = Instant::now();
            // The gate itself must not be who ends them.
            daemon.signal(rustix::process::Signal::STOP);
            for mut peer in peers {
                peer.set_read_timeout(Some(Duration::from_millis(200)))
                    .expect("a timeout");
                let ended = crate::lab::wait_for(Duration::from_secs(20), "a reset", || {
                    let written = peer.write(b"G");
                    let read = peer.read(&mut [0; 8]);
                    let error = written.err().or(read.err())?;
                    let is_reset = matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                    );
                    is_reset.then(|| closed.elapsed())
                });
                assert!(
                    ended > Duration::from_secs(4),
                    "{way:?}: no grace, {ended:?}"
                );
            }
            daemon.signal(rustix::process::Signal::CONT);
        });
    });
}

/// A router that guards its own port 80 is still a router, and may still look at itself.
#[test]
fn what_is_for_another_host_or_from_this_one_is_never_shut() {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    const BEHIND: [&str; 2] = ["198.51.100.2", "2001:db8:2::2"];
    inside(|| {
        let cases = ["", "[http]\nlisten = \"divert\"\n"];
        on_each_host(&cases, |host, config| {
            let behind = Node::new();
            behind.cable("eth0", "eth1");
            ip("addr add 198.51.100.1/24 dev eth1");
            ip("addr add 2001:db8:2::1/64 dev eth1 nodad");
            behind.ip("addr add 198.51.100.2/24 dev eth0");
            behind.ip("addr add 2001:db8:2::2/64 dev eth0 nodad");
            behind.ip("route add default via 198.51.100.1");
            behind.ip("-6 route add default via 2001:db8:2::1");
            host.outside(|| ip("route add 198.51.100.0/24 via 192.0.2.1"));
            host.outside(|| ip("-6 route add 2001:db8:2::/64 via 2001:db8:1::1"));
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("a sysctl of our own");
            }
            // So that no probe waits for the neighbours to learn each other's hardware addresses.
            for to in BEHIND {
                wait_for(Duration::from_secs(10), "it is a router", || {
                    host.probe(to, 9).passed().then_some(())
                });
            }
            let daemon = Daemon::start(config);
            let check = || {
                // Nobody listens there: a reset comes from that host itself.
                assert_eq!(BEHIND.map(|to| host.probe(to, 80)), [Seen::Refused; 2]);
                for own in [HOST_4, HOST_6] {
                    let own = SocketAddr::new(own.parse().expect("an address"), 80);
                    let tried = TcpStream::connect_timeout(&own, Duration::from_secs(2));
                    let passes = tried.map_or_else(
                        |error| error.kind() == ErrorKind::ConnectionRefused,
                        |_| true,
                    );
                    assert!(passes, "{own} from the host itself");
                }
            };
            assert_eq!(host.probe(HOST_4, 80), Seen::Silence, "the control");
            check();
            daemon.cli(&["open", "--lease", "a"]).success();
            check();
        });
    });
}
