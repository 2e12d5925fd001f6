//! The kernel's own view, as nft tells it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::run;

const TOOL: Duration = Duration::from_secs(60);

/// One element of a set: its comment, and how long it has to live; `None` for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub comment: String,
    pub seconds_left: Option<u64>,
}

/// Runs nft.
#[track_caller]
pub fn nft(arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    run(command, TOOL).success().stdout
}

/// The elements of a set of our table, by key.
pub fn elements(set: &str) -> BTreeMap<u64, Element> {
    elements_of("inet acmegate", set)
}

/// The elements of any set, by key. A table that is not there has none.
pub fn elements_of(table: &str, set: &str) -> BTreeMap<u64, Element> {
    let mut command = Command::new("nft");
    command
        .args(["-j", "list", "set"])
        .args(table.split(' '))
        .arg(set);
    let output = run(command, TOOL);
    if output.code != 0 {
        assert!(output.stderr.contains("No such file"), "{output}");
        return BTreeMap::new();
    }
    let json: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let listed = &json["nftables"][1]["set"]["elem"];
    let listed = listed.as_array().cloned().unwrap_or_default();
    listed.iter().map(element).collect()
}

/// `80`, or `{"elem": {"val": 80, "timeout": 600, "expires": 590, "comment": "…"}}`.
fn element(json: &Value) -> (u64, Element) {
    let inner = json.get("elem").unwrap_or(json);
    let key = inner.get("val").unwrap_or(inner);
    let element = Element {
        comment: inner["comment"].as_str().unwrap_or_default().to_owned(),
        seconds_left: inner["expires"].as_u64(),
    };
    (key.as_u64().expect("a number"), element)
}

/// The ports that are open to new connections of IPv4 and of IPv6.
pub fn open_ports() -> [Vec<u64>; 2] {
    ["window4", "window6"].map(|set| elements(set).into_keys().collect())
}

/// What [`open_ports`] says when nothing is open.
pub const SHUT: [Vec<u64>; 2] = [Vec::new(), Vec::new()];

/// A listed ruleset without who came to an open window: that changes whoever watches.
pub fn without_sources(listed: &str) -> String {
    let is_of_sources = |line: &&str| {
        line.contains(" counter expires ")
            || line.contains(" counter }")
            || line.contains(" counter,")
    };
    let lines = listed.split_inclusive('\n');
    // Those of rules begin with a word.
    lines
        .filter(|line| line.trim_start().starts_with("update ") || !is_of_sources(line))
        .collect()
}
