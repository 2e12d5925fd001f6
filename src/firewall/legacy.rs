//! iptables-legacy: rules that nftables does not see, and so no survey of ours.
//!
//! They stand in the same hooks, and their drop is as final. All that can be told without them
//! is that there are some; only root may read even that, and hooks mostly run as root.

use std::collections::BTreeSet;
use std::fs;

/// The tables of iptables-legacy that the kernel has here, of either family; none if they may not be
/// asked for.
pub fn tables() -> BTreeSet<String> {
    let names = [
        "/proc/thread-self/net/ip_tables_names",
        "/proc/thread-self/net/ip6_tables_names",
    ]
    .map(|path| fs::read_to_string(path).unwrap_or_default());
    let names = names.iter().flat_map(|names| names.lines());
    names.map(str::to_owned).collect()
}

/// A warning, if the kernel has tables of iptables-legacy.
pub fn warning() -> Option<String> {
    let tables: Vec<String> = tables().into_iter().collect();
    if tables.is_empty() {
        return None;
    }
    Some(format!(
        "iptables-legacy has tables here ({}), whose rules nftables does not show: whether they drop the port was not \
         looked at; `iptables-legacy-save` and `ip6tables-legacy-save` show them",
        tables.join(", ")
    ))
}
