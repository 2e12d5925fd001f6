//! What must hold beside every manager, told once: a window's life with reloads in the middle.

use std::time::{Duration, Instant};

use crate::host::{HOST_PRIVATE, Host};
use crate::lab::{Daemon, ruleset, wait_for};
use crate::managers::validations::{self, Validations};

/// How long that may take on a busy machine.
const BACK: Duration = Duration::from_secs(2);

/// Who answers for a port that no window is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// acmegate's own rules: no packet passes, whatever the manager does to its rules.
    Ours,
    /// The manager's own chain: shut when the manager is done, and its own business meanwhile.
    Theirs,
    /// The same, and it rejects: what comes between its new rules and our rule fails at once, where
    /// silence would have had the peer's kernel try again a second later.
    TheirsRejecting,
}

/// How many validations one reload of a rejecting manager may cost: those of some milliseconds.
const REJECTED_BY_A_RELOAD: usize = 4;

/// Goes through a window's life: shut, open, validations while `reload` is done `times` times,
/// shut, and a last reload that opens nothing.
#[track_caller]
pub fn window_and_reloads(
    host: &Host,
    daemon: &Daemon,
    outside: Outside,
    times: usize,
    mut reload: impl FnMut(),
) {
    validations::push(daemon);
    assert!(!host.is_open(80), "shut before the window");
    let shut_through = |reload: &mut dyn FnMut()| {
        let watch = (outside == Outside::Ours).then(|| host.watch(80));
        reload();
        if let Some(watch) = watch {
            let probes = watch.wait_until(Instant::now(), 2);
            let passed: Vec<_> = probes.iter().filter(|probe| probe.seen.passed()).collect();
            assert!(passed.is_empty(), "{passed:?} of {}", probes.len());
        }
        // A table that is nobody's own is back some milliseconds after it was flushed.
        wait_for(BACK, "shut after a reload", || {
            (!host.is_open(80)).then_some(())
        });
    };
    shut_through(&mut reload);

    daemon
        .cli(&["open", "--lease", "renewal", "--for", "5m"])
        .success();
    assert!(host.lets_in(80), "open");
    let validations = Validations::start(host);
    for _ in 0..times {
        validations.wait_for_answers(Instant::now());
        reload();
    }
    validations.wait_for_answers(Instant::now());
    let done = validations.done();
    let failed: Vec<_> = done
        .iter()
        .filter_map(|one| Some((one.to, one.took, one.failure.as_ref()?)))
        .collect();
    let most = match outside {
        Outside::TheirsRejecting => times * REJECTED_BY_A_RELOAD,
        Outside::Ours | Outside::Theirs => 0,
    };
    assert!(failed.len() <= most, "of {}: {failed:#?}", done.len());
    drop(validations);

    daemon.cli(&["close", "--lease", "renewal"]).success();
    assert!(!host.is_open(80), "shut after the window");
    shut_through(&mut reload);
    assert!(
        host.probe(HOST_PRIVATE, 80).passed(),
        "the allow-list was never ours to shut"
    );
}

/// Mode `attach` for these chains.
pub fn attach(chains: &[&str]) -> String {
    format!("[firewall]\nmode = \"attach\"\nchains = {chains:?}\n")
}

/// Ends the daemon for good: what is left is what was there before it came.
#[track_caller]
pub fn leaves_nothing(mut daemon: Daemon, before: &str) {
    assert_eq!(daemon.terminate(), 0, "{}", daemon.log());
    assert_eq!(ruleset(), before);
}

/// A window that cannot be opened: refused with the culprit and what to do, nothing opened.
#[track_caller]
pub fn open_is_refused(host: &Host, daemon: &Daemon, words: &[&str]) {
    for more in [&["--dry-run"][..], &[]] {
        let refused = daemon.cli(&[&["open", "--lease", "renewal"], more].concat());
        assert_eq!(refused.code, 78, "{refused}");
        for word in words {
            assert!(refused.stderr.contains(word), "`{word}` in: {refused}");
        }
    }
    assert_eq!(daemon.status()["leases"], serde_json::json!([]));
    assert!(!host.is_open(80));
}
