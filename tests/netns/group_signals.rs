//! What reaches both processes at once, as from a terminal, and a reload that the seal cannot
//! follow.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Daemon, TempDir, inside, send, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_stop_that_reaches_both_processes_is_a_clean_one() {
    inside(|| {
        for signal in [Signal::TERM, Signal::INT, Signal::USR1] {
            let mut daemon = Daemon::start("");
            // The worse order: an enforcer that obeyed would be gone before the front knows.
            send(daemon.enforcer(), signal);
            send(daemon.front(), signal);
            assert_eq!(daemon.gone(), 0, "{signal:?}: {}", daemon.log());
        }
    });
}

#[test]
fn a_webroot_that_the_seal_does_not_know_is_refused_at_a_reload() {
    inside(|| {
        let webroots = TempDir::new();
        let site = |name: &str| {
            let webroot = webroots.at(name);
            fs::create_dir_all(&webroot).expect("a new directory");
            format!(
                "[[site]]\nidentifiers = [\"example.com\"]\nanswer = {{ webroot = \"{webroot}\" }}\n"
            )
        };
        let daemon = Daemon::start(&site("known"));
        daemon.write_config(&site("new"));
        daemon.signal(Signal::HUP);
        let problem = wait_for(SOON, "the status tells", || {
            daemon.status()["problems"][0].as_str().map(str::to_owned)
        });
        assert!(problem.contains("needs a restart"), "{problem}");
        assert_eq!(
            daemon.status()["sites"][0]["answer"],
            format!("webroot {}", webroots.at("known"))
        );
    });
}
