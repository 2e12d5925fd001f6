//! A thousand windows leave nothing behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use acmegate::control::client;
use acmegate::control::protocol::{Ask, Open};

use crate::host::Host;
use crate::kernel::{SHUT, elements, nft, open_ports};
use crate::lab::{Daemon, inside, wait_for};

fn pairs() -> usize {
    match std::env::var_os("ACMEGATE_FULL") {
        Some(_) => 1000,
        None => 100,
    }
}

fn descriptors(daemon: &Daemon) -> [usize; 2] {
    [daemon.front(), daemon.enforcer()].map(|pid| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("our own process");
        open.count()
    })
}

#[test]
fn a_thousand_windows_leave_ruleset_and_descriptors_as_before() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("[budget]\nper_hour = 3600\n");
        let runtime_dir = daemon.runtime_dir();
        let ask = |ask: Ask| {
            let response = client::ask(Path::new(&runtime_dir), ask).expect("it answers");
            assert_eq!(response.code, 0, "{}", response.message);
        };
        let pair = |number: usize| {
            let lease = format!("pair-{}", number % 10);
            ask(Ask::Open(Open {
                lease: lease.clone(),
                milliseconds: Some(60_000),
                ports: Vec::new(),
                challenges: Vec::new(),
                validates: None,
                family: None,
                address: None,
                interface: None,
                identifiers: None,
                holder: None,
                dry_run: false,
                force: false,
            }));
            ask(Ask::Close { lease, said: None });
        };
        pair(0);
        let quiet = |daemon: &Daemon| {
            wait_for(Duration::from_secs(15), "the last grace is over", || {
                let graces = ["grace4", "grace6", "lease"].map(elements);
                graces.iter().all(|set| set.is_empty()).then_some(())
            });
            assert_eq!(open_ports(), SHUT);
            (nft(&["-s", "-t", "list", "ruleset"]), descriptors(daemon))
        };
        let before = quiet(&daemon);
        (0..pairs()).for_each(pair);
        let after = quiet(&daemon);
        assert_eq!(after, before);
        // What does remain is what is meant to: every opening counts.
        assert_eq!(elements("budget").len(), 1 + pairs());
        assert_eq!(daemon.status()["budget"]["used"], 1 + pairs());
        assert!(!host.is_open(80));
        daemon.cli(&["open", "--lease", "last"]).success();
        assert!(host.lets_in(80));
    });
}
