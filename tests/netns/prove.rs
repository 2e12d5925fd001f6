//! `open --prove`: a hook believes in its window only when the world gets through a copy of the ruleset, and what was
//! proved holds until somebody changes the ruleset.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::host::Host;
use crate::kernel::{SHUT, open_ports};
use crate::lab::{Daemon, Output, inside, ip, nft};

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

/// A host with a way back to the world.
fn online() -> Host {
    let host = Host::new();
    ip("route add default via 192.0.2.2");
    ip("-6 route add default via 2001:db8:1::2");
    host
}

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
        let _host = online();
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
        let _host = online();
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
        let _host = online();
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

/// No group may have written it; and it is of this boot, of this network and of what would be installed.
#[test]
fn a_note_that_somebody_else_may_have_written_is_not_believed() {
    inside(|| {
        let _host = online();
        let daemon = Daemon::start("");
        let proved = || {
            let code = prove(&daemon, &[]).code;
            daemon.cli(&["close", "--lease", "one"]);
            code
        };
        assert_eq!(proved(), 0);
        forbid_twins();
        let note = Path::new(&daemon.runtime_dir()).join("proved.json");
        let written = fs::read_to_string(&note).expect("a note");
        let mode = |mode| fs::set_permissions(&note, Permissions::from_mode(mode)).expect("ours");
        assert_eq!(proved(), 0, "the note is believed");
        mode(0o664);
        assert_eq!(proved(), 69, "by a group that may write");
        mode(0o646);
        assert_eq!(proved(), 69, "by everybody");
        mode(0o644);
        let known: serde_json::Value = serde_json::from_str(&written).expect("a note");
        for field in ["boot", "network", "opened"] {
            let value = known[0][field].as_str().expect("text");
            fs::write(&note, written.replace(value, &format!("{value}0"))).expect("ours");
            assert_eq!(proved(), 69, "of another {field}");
        }
        fs::write(&note, &written).expect("ours");
        assert_eq!(proved(), 0, "the note as it was");
    });
}

#[test]
fn what_was_proved_is_proved_of_these_ports_and_this_configuration() {
    inside(|| {
        let _host = online();
        let config =
            |list: &str| format!("[firewall]\nports = [80, 443]\n[allow]\nprefixes = [{list}]\n");
        let daemon = Daemon::start(&config("\"203.0.113.0/24\""));
        let proved = |more: &[&str]| {
            let code = prove(&daemon, more).code;
            daemon.cli(&["close", "--lease", "one"]);
            code
        };
        assert_eq!(proved(&["--port", "80"]), 0);
        forbid_twins();
        assert_eq!(proved(&["--port", "80"]), 0);
        assert_eq!(proved(&["--port", "443"]), 69);
        daemon.write_config(&config("\"203.0.113.0/25\""));
        assert_eq!(proved(&["--port", "80"]), 69);
    });
}

/// A doubt is told each time: it is no proof.
#[test]
fn what_is_doubtful_is_told_and_not_remembered() {
    inside(|| {
        let _host = online();
        let daemon = Daemon::start("");
        let dry = prove(&daemon, &["--dry-run"]).success();
        assert!(!dry.stderr.contains("warning"), "{dry}");
        assert_eq!(open_ports(), SHUT);
        nft(
            "table inet other { chain input { type filter hook input priority 0; policy accept;
                tcp dport 9 socket transparent 1 accept
            }
            }",
        );
        let told = prove(&daemon, &[]).success();
        assert!(told.stderr.contains("not in the twin: "), "{told}");
        assert!(
            told.stderr.contains("asks for a program's socket"),
            "{told}"
        );
        daemon.cli(&["close", "--lease", "one"]).success();
        nft("delete table inet other\n");
        nft(EVERYBODY_IS_LISTED);
        let told = prove(&daemon, &[]).success();
        assert!(told.stderr.contains("inet other input"), "{told}");
        daemon.cli(&["close", "--lease", "one"]).success();
        forbid_twins();
        assert_eq!(prove(&daemon, &[]).code, 69);
    });
}

/// By an address or an interface: at that the world knocks, and at no other.
#[test]
fn the_world_knocks_where_the_window_opens() {
    inside(|| {
        let _host = online();
        ip("addr add 192.0.2.77/24 dev eth0");
        let daemon = Daemon::start("");
        nft(
            "table inet other { set everybody { type ipv4_addr; flags interval; elements = { 1.0.0.0-223.255.255.255 } }
            chain input { type filter hook input priority 0; policy accept;
                ip daddr 192.0.2.77 tcp dport 80 ip saddr @everybody drop
            }
            }",
        );
        let shut = prove(&daemon, &["--address", "192.0.2.77"]);
        assert_eq!(shut.code, 78, "{shut}");
        assert!(shut.stderr.contains("to 192.0.2.77 by eth0"), "{shut}");
        prove(&daemon, &["--address", "192.0.2.1"]).success();
    });
}
