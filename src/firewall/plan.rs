//! Our table as a file that nft reads: what `firewall plan` prints. A test in `tests/netns` loads it
//! and compares it with what netlink made of the same settings.

use std::fmt::Write as _;

use super::ruleset::{
    BUDGET_SET, BUDGET_SET_SIZE, LEASE_SET, Mode, Settings, TABLE, rule_text, timed_sets,
};
use crate::gate::lease::Family;
use crate::gate::window::MAX_LEASES;

impl Settings {
    /// The table as a file that nft reads, with `elements` of a live table or without.
    pub fn to_nft(&self) -> String {
        let mut out = String::new();
        if let Mode::Set { set, .. } = &self.mode {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            let _ = writeln!(
                out,
                "# Needed from the administrator, in a table that exists already:\n\
                 #   set {} {{ type inet_service; flags timeout; }}   in table {} {}\n\
                 #   tcp dport @{} accept   where that table's chain drops port {}",
                set.name,
                set.family.name(),
                set.table,
                set.name,
                ports.join(", "),
            );
        }
        if self.mode == Mode::GateOnly {
            out.push_str("# mode gate-only: nothing is installed\n");
            return out;
        }
        let _ = writeln!(out, "table inet {TABLE} {{");
        for set in timed_sets() {
            let (key, size) = match set.name() {
                LEASE_SET => ("mark", MAX_LEASES as u32),
                BUDGET_SET => ("mark", BUDGET_SET_SIZE),
                _ => ("inet_service", MAX_LEASES as u32),
            };
            let _ = writeln!(
                out,
                "\tset {} {{\n\t\ttype {key}\n\t\tsize {size}\n\t\tflags timeout\n\t}}\n",
                set.name()
            );
        }
        for family in Family::ALL {
            let key = match family {
                Family::V4 => "ipv4_addr",
                Family::V6 => "ipv6_addr",
            };
            let elements = self.allow_text(family);
            let _ = write!(
                out,
                "\tset {} {{\n\t\ttype {key}\n\t\tflags interval\n",
                self.allow_set(family).name()
            );
            if !elements.is_empty() {
                let _ = writeln!(out, "\t\telements = {{ {} }}", elements.join(", "));
            }
            out.push_str("\t}\n\n");
        }
        for (at, chain) in self.chains().iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            let _ = writeln!(out, "\tchain {} {{", chain.name);
            if let Some(priority) = chain.base {
                let _ = writeln!(
                    out,
                    "\t\ttype filter hook prerouting priority {priority}; policy accept;"
                );
            }
            for rule in &chain.rules {
                let _ = writeln!(out, "\t\t{}", rule_text(rule));
            }
            out.push_str("\t}\n");
        }
        out.push_str("}\n");
        out
    }
}
