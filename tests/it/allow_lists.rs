//! The allow-list from files, as an operator meets it: `config check`, `firewall plan`, the start and
//! a reload.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{Daemon, Output, TempDir, run, wait_for};

const SECONDS: Duration = Duration::from_secs(10);
const COUNTRIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/lists/mmdb/dbip-24.mmdb"
);

/// A configuration with lists beside it.
struct Ground {
    directory: TempDir,
    config: String,
}

impl Ground {
    fn new() -> Self {
        let directory = TempDir::new();
        let office = directory.write("office.list", "192.0.2.128/25\n2001:db8:77::/48\n");
        let config = format!(
            "[http]\nlisten = [\"127.0.0.1:0\"]\n[firewall]\nports = [80]\n[allow]\nlocal = false\n\
             files = [\"{office}\"]\ncountries = [\"LI\", \"!CH\"]\ncountry_source = \"{COUNTRIES}\"\n"
        );
        directory.write("acmegate.toml", &config);
        Self { directory, config }
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acmegate"));
        command
            .args(["--config", &self.directory.at("acmegate.toml")])
            .args(arguments);
        run(command, SECONDS)
    }
}

#[test]
fn a_check_says_what_is_read_from_where() {
    let ground = Ground::new();
    let checked = ground.cli(&["config", "check"]).success();
    let (config, office) = (
        ground.directory.at("acmegate.toml"),
        ground.directory.at("office.list"),
    );
    assert_eq!(
        checked.stdout,
        format!(
            "{config}: good\n\
             the allow-list: 2 IPv4 and 2 IPv6 ranges\n  \
             {office}: 1 IPv4 and 1 IPv6 ranges\n  \
             CH of {COUNTRIES}: 2 IPv4 and 1 IPv6 ranges\n  \
             LI of {COUNTRIES}: 2 IPv4 and 1 IPv6 ranges\n"
        )
    );
    assert_eq!(checked.stderr, "");
}

#[test]
fn a_list_of_everybody_is_warned_of() {
    let ground = Ground::new();
    ground
        .directory
        .write("office.list", "0.0.0.0-255.255.255.255\n::/0\n");
    let config = ground.config.replace("\"!CH\"", "\"CH\"");
    ground.directory.write("acmegate.toml", &config);
    let told = ground.cli(&["config", "check"]).success().stderr;
    assert!(told.contains("[allow] holds the whole Internet"), "{told}");
}

#[test]
fn what_a_list_is_read_to_is_what_the_kernel_is_told() {
    let ground = Ground::new();
    let plan = ground.cli(&["firewall", "plan"]).success().stdout;
    for range in ["198.51.100.0-198.51.100.255", "203.0.113.128-203.0.113.255"] {
        let prefix = match range {
            "198.51.100.0-198.51.100.255" => "198.51.100.0/24",
            _ => "203.0.113.128/25",
        };
        assert!(plan.contains(range) || plan.contains(prefix), "{plan}");
    }
    // The office's are Switzerland's, which is taken off.
    assert!(!plan.contains("192.0.2.128"), "{plan}");
}

#[test]
fn a_bad_list_is_told_by_a_check_and_stops_the_start() {
    let ground = Ground::new();
    let office = ground
        .directory
        .write("office.list", "192.0.2.0/24\n192.0.2.0/33 # \u{1b}[31m\n");
    let told =
        format!("{office}:2: `192.0.2.0/33` is not a prefix; write one such as \"192.0.2.0/24\"");
    for arguments in [&["config", "check"][..], &["firewall", "plan"]] {
        let refused = ground.cli(arguments);
        assert_eq!(
            (refused.code, refused.stdout.as_str()),
            (78, ""),
            "{refused}"
        );
        assert!(refused.stderr.contains(&told), "{refused}");
    }
    let config = ground
        .config
        .replace("[firewall]\n", "[firewall]\nmode = \"gate-only\"\n");
    let refused = Daemon::with(&config).refuse();
    assert!(
        refused.code == 78 && refused.stderr.contains(&told),
        "{refused}"
    );
    let missing = config.replace("office.list", "offices.list");
    let refused = Daemon::with(&missing).refuse();
    assert!(
        refused.code == 78
            && refused
                .stderr
                .contains("there is no such file; put it there"),
        "{refused}"
    );
}

#[test]
fn a_reload_that_names_a_bad_list_changes_nothing() {
    let ground = Ground::new();
    let config = ground
        .config
        .replace("[firewall]\n", "[firewall]\nmode = \"gate-only\"\n");
    let daemon = Daemon::start(&config);
    let abuse = ground.directory.write("abuse.list", "abuse\n");
    let office = ground.directory.at("office.list");
    daemon.write_config(&config.replace(
        &format!("\"{office}\""),
        &format!("\"{office}\", \"!{abuse}\""),
    ));
    daemon.signal(Signal::HUP);
    wait_for(SECONDS, "the bad list is told", || {
        let problems = daemon.status()["problems"].to_string();
        problems.contains("`abuse` is not a prefix").then_some(())
    });
    ground.directory.write("abuse.list", "192.0.2.7\n");
    daemon.signal(Signal::HUP);
    wait_for(SECONDS, "the good list is taken", || {
        (daemon.status()["problems"] == serde_json::json!([])).then_some(())
    });
}
