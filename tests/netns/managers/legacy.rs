//! iptables-legacy, whose rules nftables cannot show: what nobody looked at is said.

use crate::host::Host;
use crate::lab::{Daemon, inside};
use crate::managers::own::tool;

#[test]
fn rules_that_cannot_be_seen_are_no_secret() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        let open = || daemon.cli(&["open", "--lease", "a"]).success();
        let seen = open();
        assert!(!seen.text().contains("legacy"), "the control: {seen}");
        assert!(host.lets_in(80));
        let rule = "-A INPUT -p tcp --dport 80 -j DROP";
        tool("iptables-legacy", &rule.split(' ').collect::<Vec<_>>());
        // Nothing says no, and so neither does it; but it does not say that all is well.
        let unseen = open();
        let word = "iptables-legacy has tables here (filter)";
        assert!(unseen.stderr.contains(word), "{unseen}");
        assert!(!host.probe(crate::host::HOST_4, 80).passed());
    });
}
