//! Findings of what stands beside the rules: iptables-legacy, and switches of the kernel.

use std::collections::BTreeSet;

use super::{LEGACY, NO_SYN_COOKIES, REVERSE_PATH, View};
use crate::doctor::finding::{Finding, Severity};
use crate::gate::lease::Family;

/// Below this many half-open connections a small flood takes the place of a validation's.
const SMALL_BACKLOG: u32 = 1024;
/// `rp_filter`: the answer must leave by the interface that the packet came in by.
const STRICT: u32 = 1;

impl View<'_> {
    pub(super) fn of_the_host(&self) -> Vec<Finding> {
        [self.legacy(), self.reverse_path(), self.syn_cookies()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn legacy(&self) -> Option<Finding> {
        let tables = &self.reading.legacy;
        if tables.is_empty() {
            return None;
        }
        let names: Vec<&str> = tables.iter().map(String::as_str).collect();
        let sentence = "iptables-legacy has rules here that nftables does not show: whether they drop the port was \
                        not looked at";
        Some(
            Finding::new(LEGACY, Severity::Doubt, sentence)
                .seen(format!("its tables: {}", names.join(", ")))
                .remedy("`iptables-legacy-save` and `ip6tables-legacy-save` show them")
                .remedy(
                    "move them to nftables (`iptables-legacy-save | iptables-nft-restore`) and flush the old ones \
                     (`iptables-legacy -F`)",
                ),
        )
    }

    fn reverse_path(&self) -> Option<Finding> {
        let ways = self.reading.ways.iter();
        let by_4: BTreeSet<&str> = ways
            .filter(|way| way.family == Family::V4)
            .map(|way| way.interface.as_str())
            .collect();
        let strict: Vec<&str> = by_4
            .iter()
            .filter(|interface| self.reading.reverse_path.get(**interface) == Some(&STRICT))
            .copied()
            .collect();
        if by_4.len() < 2 || strict.is_empty() {
            return None;
        }
        let sentence = format!(
            "the Internet may come in by {}, and the kernel drops what it would answer by another interface",
            by_4.iter().copied().collect::<Vec<_>>().join(" and ")
        );
        let mut finding = Finding::new(REVERSE_PATH, Severity::Doubt, sentence);
        for interface in strict {
            finding = finding
                .seen(format!(
                    "net.ipv4.conf.{interface}.rp_filter is 1, or that of `all` is"
                ))
                .remedy(format!("`sysctl -w net.ipv4.conf.{interface}.rp_filter=2`"));
        }
        Some(finding)
    }

    fn syn_cookies(&self) -> Option<Finding> {
        let (Some(0), Some(backlog)) = (self.reading.syn_cookies, self.reading.syn_backlog) else {
            return None;
        };
        if backlog >= SMALL_BACKLOG {
            return None;
        }
        let sentence = format!(
            "after {backlog} half-open connections the kernel drops new ones, those of a validation too"
        );
        Some(
            Finding::new(NO_SYN_COOKIES, Severity::Advice, sentence)
                .seen("net.ipv4.tcp_syncookies is 0")
                .seen(format!("net.ipv4.tcp_max_syn_backlog is {backlog}"))
                .remedy("`sysctl -w net.ipv4.tcp_syncookies=1`"),
        )
    }
}
