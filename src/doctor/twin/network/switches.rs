//! The switches below `/proc/sys/net` that decide about packets.

use std::fs;

use super::Network;

/// Switches of the whole host that decide about packets.
const OF_THE_HOST: [&str; 9] = [
    "ipv4/ip_forward",
    "ipv4/ip_nonlocal_bind",
    "ipv4/fwmark_reflect",
    "ipv4/tcp_fwmark_accept",
    "ipv4/fib_multipath_hash_policy",
    "netfilter/nf_conntrack_acct",
    "netfilter/nf_conntrack_helper",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_tcp_loose",
];
/// Switches of each interface.
const OF_INTERFACES_4: [&str; 6] = [
    "forwarding",
    "rp_filter",
    "accept_local",
    "route_localnet",
    "src_valid_mark",
    "ignore_routes_with_linkdown",
];
const OF_INTERFACES_6: [&str; 3] = ["disable_ipv6", "forwarding", "ignore_routes_with_linkdown"];

impl Network {
    pub(super) fn read_switches(&mut self) {
        let mut paths: Vec<String> = OF_THE_HOST.map(str::to_owned).into();
        let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        // What is written to `all` is written to each of them.
        for name in ["all", "default"].into_iter().chain(names) {
            let of = |family: &str, switch: &&str| format!("{family}/conf/{name}/{switch}");
            paths.extend(OF_INTERFACES_4.iter().map(|switch| of("ipv4", switch)));
            paths.extend(OF_INTERFACES_6.iter().map(|switch| of("ipv6", switch)));
        }
        for path in paths {
            if let Ok(value) = fs::read_to_string(switch_path(&path)) {
                self.switches.push((path, value.trim().to_owned()));
            }
        }
    }

    pub(super) fn write_switches(&self, missing: &mut Vec<String>) {
        for (path, value) in &self.switches {
            let now = fs::read_to_string(switch_path(path)).unwrap_or_default();
            if now.trim() != value && !write_switch(path, value) {
                missing.push(format!("net.{} = {value}", path.replace('/', ".")));
            }
        }
    }
}

fn switch_path(path: &str) -> String {
    format!("/proc/sys/net/{path}")
}

pub(super) fn write_switch(path: &str, value: &str) -> bool {
    fs::write(switch_path(path), value).is_ok()
}
