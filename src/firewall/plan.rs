//! Our table as a file that nft reads: what `firewall plan` prints. A test in `tests/netns` loads it
//! and compares it with what netlink made of the same settings.

use std::fmt::Write as _;

use super::names::TABLE;
use super::rules::{Base, rule_text};
use super::ruleset::{Mode, Settings};
use crate::gate::lease::Family;

impl Settings {
    /// The table as a file that nft reads, with `elements` of a live table or without.
    pub fn to_nft(&self) -> String {
        let mut out = String::new();
        if let Mode::Set(set) = &self.mode {
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
        if let Mode::Attach(chains) = &self.mode {
            out.push_str("# At the head of each of these chains stands one rule more:\n");
            for chain in chains {
                let _ = writeln!(
                    out,
                    "#   insert rule {chain} {}",
                    rule_text(&self.attached_rule())
                );
            }
        }
        if self.mode == Mode::GateOnly {
            out.push_str("# mode gate-only: nothing is installed\n");
            return out;
        }
        let _ = writeln!(out, "table inet {TABLE} {{");
        for counter in self.counters() {
            let _ = writeln!(out, "\tcounter {counter} {{\n\t}}\n");
        }
        for set in self.timed_sets() {
            let flags = match set.fed_for {
                Some(stays) => format!("dynamic,timeout\n\t\ttimeout {}s", stays.as_secs()),
                None => "timeout".to_owned(),
            };
            let _ = writeln!(
                out,
                "\tset {} {{\n\t\ttype {}\n\t\tsize {}\n\t\tflags {flags}\n\t}}\n",
                set.name,
                set.key_text(),
                set.size,
            );
        }
        for family in Family::ALL {
            let key = match family {
                Family::V4 => "ipv4_addr",
                Family::V6 => "ipv6_addr",
            };
            let elements = self.allow.text(family);
            let _ = write!(
                out,
                "\tset {} {{\n\t\ttype {key}\n\t\tflags interval\n",
                self.allow.set(family).name()
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
            if let Some(Base { hook, priority }) = chain.base {
                let _ = writeln!(
                    out,
                    "\t\ttype filter hook {} priority {priority}; policy accept;",
                    hook.as_str(),
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
