//! What "shut" means: silence, or a reset, per family.

use crate::host::{HOST_4, HOST_6, HOST_PRIVATE, Seen, on_each_host};
use crate::lab::{Daemon, inside};
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
