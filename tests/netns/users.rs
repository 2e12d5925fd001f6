//! Tests that need more than one account: as the host's root, or with a subordinate range of ids.

use std::any::type_name_of_val;
use std::process::Command;
use std::time::Duration;

use crate::lab::{Output, ip, run};

/// Set in the process that is inside.
const INSIDE: &str = "ACMEGATE_TEST_USERS";
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a test's body in fresh network and mount namespaces where every uid exists, by starting
/// the test again there. The body must be a closure that is written directly in the test function.
///
/// The host's root just does it. Anybody else needs newuidmap and a range in /etc/subuid; where
/// there is none the body cannot run, which CI, being root, must never see: there it is a failure.
pub fn inside_with_users<Body: FnOnce()>(body: Body) {
    let path = type_name_of_val(&body);
    let path = path.split("::{{closure}}").next().unwrap_or(path);
    let (_, name) = path.split_once("::").expect("a crate and a path");
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return body();
    }
    let is_root = rustix::process::geteuid().is_root() && is_whole("/proc/self/uid_map");
    let namespaces: &[&str] = match is_root {
        true => &["-nm"],
        false => &["-Urnm", "--map-auto"],
    };
    if !is_root && !can_start(namespaces) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run this test as root, or with newuidmap (Debian package uidmap) and a range in /etc/subuid"
        );
        eprintln!(
            "{name}: neither root nor a range in /etc/subuid; src/gate/caller.rs has the table"
        );
        return;
    }
    let output = start(namespaces, name);
    assert!(output.code == 0, "inside the namespaces: {output}");
    assert!(
        output.stdout.contains("1 passed"),
        "no test is called {name}: {output}"
    );
}

fn start(namespaces: &[&str], name: &str) -> Output {
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .args(["--kill-child", "--"])
        .arg(std::env::current_exe().expect("the path of this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1");
    run(command, LIMIT)
}

fn can_start(namespaces: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["--", "true"]);
    run(command, LIMIT).code == 0
}

/// Whether every id is mapped, as on the host itself.
fn is_whole(map: &str) -> bool {
    let map = std::fs::read_to_string(map).unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
