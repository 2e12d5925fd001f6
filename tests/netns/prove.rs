//! `open --prove`: a hook believes in its window only when the world gets through a copy of the ruleset, and what was
//! proved holds until somebody changes the ruleset.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::host::Host;
use crate::kernel::{SHUT, open_ports};
use crate::lab::{Daemon, Output, inside, nft};

/// Everybody stands in a list that is dropped. No reading of the rules knows what is in a list.
const EVERYBODY_IS_LISTED: &str = "table inet other {
    set everybody {
        type ipv4_addr
        flags interval
        elements = { 1.0.0.0-223.255.255.255 }
    }
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport 80 ip saddr @everybody drop
    }
}
";

fn prove(daemon: &Daemon, more: &[&str]) -> Output {
    daemon.cli(&[&["open", "--prove", "--lease", "one"], more].concat())
}

/// No namespace more can be made from now on, so that no twin can.
fn forbid_twins() {
    fs::write("/proc/sys/user/max_net_namespaces", "0").expect("root of this namespace");
}

#[test]
fn what_was_proved_holds_until_somebody_changes_the_ruleset() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        let first = prove(&daemon, &[]).success();
        assert!(first.stdout.starts_with("open: tcp 80"), "{first}");
        daemon.cli(&["close", "--lease", "one"]).success();
        forbid_twins();
        // Opening and closing changed the ruleset as well, but only by our own doing.
        for _ in 0..2 {
            prove(&daemon, &[]).success();
            daemon.cli(&["close", "--lease", "one"]).success();
        }
        // Another way in is another proof.
        let other = prove(&daemon, &["--family", "ipv4"]);
        assert_eq!(other.code, 69, "{other}");
        assert_eq!(open_ports(), SHUT);
        nft("table inet other { }\n");
        let changed = prove(&daemon, &[]);
        assert_eq!(changed.code, 69, "{changed}");
        for word in ["closed again", "namespaces", "--prove"] {
            assert!(changed.stderr.contains(word), "{word}: {changed}");
        }
        assert_eq!(changed.stderr.lines().count(), 1, "one line: {changed}");
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn a_window_that_the_world_does_not_get_through_is_closed_again() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        nft(EVERYBODY_IS_LISTED);
        // The reading has a doubt, and opens.
        let surveyed = daemon.cli(&["open", "--lease", "one", "--family", "ipv4"]);
        assert_eq!(surveyed.code, 0, "{surveyed}");
        daemon.cli(&["close", "--lease", "one"]).success();
        for more in [
            &["--family", "ipv4"][..],
            &["--family", "ipv4", "--dry-run"],
        ] {
            let refused = prove(&daemon, more);
            assert_eq!(refused.code, 78, "{refused}");
            let last = refused.stderr.lines().last().unwrap_or_default();
            for word in ["shut to the whole world", "inet other input", "@everybody"] {
                assert!(last.contains(word), "{word}: {refused}");
            }
            assert_eq!(open_ports(), SHUT);
        }
        // By IPv6 the world gets through: a CA that meets silence turns to the other family.
        let both = prove(&daemon, &[]).success();
        assert!(both.stderr.contains("inet other input"), "{both}");
        nft("delete table inet other\n");
        prove(&daemon, &[]).success();
    });
}

#[test]
fn a_note_that_is_no_note_proves_nothing_and_leads_nowhere() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        let note = Path::new(&daemon.runtime_dir()).join("proved.json");
        let elsewhere = Path::new(&daemon.runtime_dir()).join("elsewhere");
        fs::write(&elsewhere, "mine").expect("a file");
        symlink(&elsewhere, &note).expect("a link");
        prove(&daemon, &[]).success();
        assert_eq!(fs::read_to_string(&elsewhere).expect("a file"), "mine");
        assert!(note.symlink_metadata().expect("a note").is_file());
        fs::write(&note, "[{]").expect("a file");
        daemon.cli(&["close", "--lease", "one"]).success();
        forbid_twins();
        assert_eq!(prove(&daemon, &[]).code, 69);
    });
}
