//! The wall clock is set while a window is open: nothing of it depends on that clock.
//!
//! Nobody's real clock is touched. libfaketime stands between each process and the system's clock
//! and reads a file that jumps; the monotonic clock is left alone, as the kernel leaves it alone
//! when a clock is set. The kernel's own timeouts run by that one (jiffies), beyond anyone's reach.

use std::time::{Duration, Instant};

use acmegate::firewall::message::{Claim, Reply, Request};

use crate::enforcer::{Enforcer, claim};
use crate::host::Host;
use crate::kernel::{SHUT, open_ports};
use crate::lab::{Daemon, TempDir, faketime_library, inside, wait_for};

/// Where the hands stand: what libfaketime reads.
struct Clock {
    directory: TempDir,
    library: String,
}

impl Clock {
    fn new() -> Self {
        let clock = Self {
            directory: TempDir::new(),
            library: faketime_library().display().to_string(),
        };
        clock.set("2026-06-01 12:00:00");
        clock
    }

    fn set(&self, time: &str) {
        self.directory.write("clock", &format!("@{time}\n"));
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.directory.at("clock")),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

const LEASE: Duration = Duration::from_secs(3);

#[test]
fn a_clock_set_back_or_forth_moves_no_window_of_the_front() {
    inside(|| {
        let host = Host::new();
        let clock = Clock::new();
        // The one site's webroot is a directory that the sealed front may read.
        let site = format!(
            "[[site]]\ndefault = true\nanswer = {{ webroot = \"{}\" }}\n",
            clock.directory.path().display()
        );
        let mut daemon = Daemon::with(&site);
        for (name, value) in clock.environment() {
            daemon = daemon.env(&name, &value);
        }
        let daemon = daemon.start();
        for (lease, time, year) in [
            ("back", "2001-06-01 00:00:00", "2001-"),
            ("forth", "2037-06-01 00:00:00", "2037-"),
        ] {
            daemon
                .cli(&["open", "--lease", lease, "--for", "3s"])
                .success();
            let deadline = Instant::now() + LEASE;
            clock.set(time);
            // The control: the front itself sees that clock.
            daemon
                .cli(&["open", "--dry-run", "--lease", "look"])
                .success();
            let log = daemon.log();
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains(year), "{last}");
            let left = daemon.status()["leases"][0]["milliseconds"].as_u64();
            assert!(
                left.is_some_and(|left| left > 500 && left <= 3000),
                "{left:?}"
            );
            assert!(host.lets_in(80), "{lease}: not before its time");
            let over = wait_for(2 * LEASE, "the lease is over", || {
                let is_over = daemon.status()["leases"] == serde_json::json!([]);
                is_over.then(Instant::now)
            });
            let late = over.saturating_duration_since(deadline);
            assert!(late < Duration::from_secs(1), "{lease}: {late:?} late");
            assert!(!host.is_open(80), "{lease}: shut on time");
        }
    });
}

#[test]
fn a_clock_set_back_or_forth_moves_no_window_of_the_enforcer() {
    inside(|| {
        let clock = Clock::new();
        let environment = clock.environment();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        // It may read its configuration's directory alone, so that is where its clock hangs too.
        let config = "[http]\nlisten = []\n[firewall]\nports = [80]\n";
        let mut enforcer = Enforcer::start_in(&clock.directory, config, &environment);
        for time in ["2001-06-01 00:00:00", "2037-06-01 00:00:00"] {
            let given = enforcer.open(&Claim {
                length: LEASE,
                ..claim("a")
            });
            assert!(matches!(given, Reply::Health(_)), "{given:?}");
            let deadline = Instant::now() + LEASE;
            clock.set(time);
            let told = enforcer.ask(&Request::Snapshot);
            let Some(Reply::Lease(lease)) = told.first() else {
                panic!("it lives: {told:?}");
            };
            assert!(
                lease.length <= LEASE && lease.length > LEASE / 4,
                "{lease:?}"
            );
            assert_eq!(open_ports(), [vec![80], vec![80]]);
            wait_for(2 * LEASE, "the lease is over", || {
                let told = enforcer.ask(&Request::Snapshot);
                (!told.iter().any(|reply| matches!(reply, Reply::Lease(_)))).then_some(())
            });
            let late = deadline.elapsed();
            assert!(late < Duration::from_secs(1), "{late:?} late");
            wait_for(Duration::from_secs(1), "the kernel shut it", || {
                (open_ports() == SHUT).then_some(())
            });
        }
    });
}
