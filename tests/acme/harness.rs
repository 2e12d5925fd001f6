//! The harness itself: what it says of the daemon is so.

use crate::lab::{Daemon, Node, inside, ip, nft, ruleset};

#[test]
fn a_daemon_starts_serves_restarts_and_leaves_nothing() {
    inside(|| {
        let node = Node::new();
        node.cable("peer0", "eth0");
        ip("addr add 192.0.2.1/24 dev eth0");
        nft("table inet filter { chain input { type filter hook input priority 0; }\n}\n");
        let before = ruleset();
        let mut daemon = Daemon::start("");
        assert_ne!(daemon.front(), daemon.enforcer());
        assert_eq!(daemon.status()["firewall"]["installed"], true);
        assert_ne!(ruleset(), before);
        let opened = daemon.cli(&["open", "--lease", "test"]).success();
        assert!(opened.stdout.contains("open"), "{opened}");
        daemon.kill();
        daemon.start_again();
        assert_eq!(daemon.status()["leases"][0]["name"], "test");
        assert_eq!(daemon.terminate(), 0);
        assert_eq!(ruleset(), before);
        assert!(daemon.log().contains("stopping"), "{}", daemon.log());
    });
}
