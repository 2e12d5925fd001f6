//! What somebody else does to the ruleset between two things that the enforcer does, with the test in the place of its
//! front.

use acmegate::firewall::message::{Reply, Request};

use crate::enforcer::claim;
use crate::enforcing::{Enforcing, orders};
use crate::host::Host;
use crate::kernel::nft;
use crate::lab::{self, inside};

/// A list that is read again, and is what it was, changes nothing: nor does it make somebody's change ours.
#[test]
fn a_list_that_did_not_change_hides_no_change_of_somebody_elses() {
    inside(|| {
        let _host = Host::new();
        lab::nft(
            "add table inet filter\nadd chain inet filter input { type filter hook input priority 0; }",
        );
        let orders = orders("[firewall]\nports = [80]\n");
        let list = orders.settings.allow.clone();
        let enforcing = Enforcing::start(orders);
        enforcing.open(&[80]);
        nft(&[
            "add", "rule", "inet", "filter", "input", "tcp", "dport", "80", "drop",
        ]);
        enforcing.change_list(&list);
        enforcing.wait_for_the_list();
        let reply = enforcing.ask(&Request::Open(claim("b")));
        assert!(
            matches!(&reply, Reply::Blocked(why) if why.contains("inet filter input rule")),
            "{reply:?}"
        );
    });
}
