//! OpenWrt's fw4, which writes its one table anew as a whole. fw4 itself runs on OpenWrt alone: these are its rules, loaded
//! as it loads them.

use crate::host::Host;
use crate::lab::{self, Daemon, inside, ruleset};
use crate::managers::life::{Outside, attach, leaves_nothing, open_is_refused, window_and_reloads};
use crate::managers::validations::site;

/// What `fw4 reload` gives to nft, with one traffic rule of the administrator's.
fn fw4() -> String {
    let rules = include_str!("../../data/rulesets/gallery/fw4.nft");
    let redirections = "ct status dnat accept";
    let with_rule = format!("ip saddr 10.0.0.0/8 counter accept\n\t\t{redirections}");
    assert_eq!(rules.matches(redirections).count(), 1);
    format!(
        "table inet fw4\nflush table inet fw4\ndelete table inet fw4\n{}",
        rules.replace(redirections, &with_rule)
    )
}

#[test]
fn a_window_in_the_zones_chain_outlives_fw4() {
    inside(|| {
        let host = Host::new();
        let rules = fw4();
        lab::nft(&rules);
        let before = ruleset();
        let daemon = Daemon::start(&site());
        open_is_refused(&host, &daemon, &["inet fw4", "drop_from_wan"]);
        leaves_nothing(daemon, &before);

        let mode = attach(&["inet fw4 input_wan"]);
        let daemon = Daemon::start(&format!("{}{mode}", site()));
        window_and_reloads(&host, &daemon, Outside::Ours, 4, || lab::nft(&rules));
        leaves_nothing(daemon, &before);
    });
}
