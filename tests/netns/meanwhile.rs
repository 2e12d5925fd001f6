//! What somebody else does to the ruleset between two things that the enforcer does, with the test in the place of its
//! front.

use std::time::Duration;

use acmegate::firewall::message::{Health, Reply, Request};

use crate::enforcer::claim;
use crate::enforcing::{Enforcing, orders};
use crate::host::Host;
use crate::kernel::nft;
use crate::lab::{self, inside, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// Waits until the enforcer says this of itself.
fn wait_until(enforcing: &Enforcing, what: &str, is_it: impl Fn(&Health) -> bool) -> Health {
    wait_for(SOON, what, || Some(enforcing.health()).filter(&is_it))
}

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

/// In a truce nothing is put back; but who opens asks for it, and then it is there until it is taken away again.
#[test]
fn what_is_taken_away_in_a_truce_is_said_to_be_gone() {
    inside(|| {
        let _host = Host::new();
        let enforcing = Enforcing::start(orders("[firewall]\nowner = \"never\"\nports = [80]\n"));
        let is_fought = |health: &Health| health.note.contains("as often as it is put back");
        let mut gaps = 0;
        loop {
            nft(&["delete", "table", "inet", "acmegate"]);
            let health = wait_until(&enforcing, "an answer to its loss", |health| {
                is_fought(health) || health.gaps > gaps
            });
            gaps = health.gaps;
            if is_fought(&health) {
                assert!(!health.is_installed);
                break;
            }
        }
        enforcing.open(&[80]);
        wait_until(&enforcing, "it is back", |health| health.is_installed);
        nft(&["delete", "table", "inet", "acmegate"]);
        let health = wait_until(&enforcing, "its loss", |health| !health.is_installed);
        assert!(is_fought(&health), "{health:?}");
    });
}
