//! certbot's manual hooks push each token; nothing is read from any file.

use std::process::Command;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::inside;
use crate::world::{Gate, Names, World, site};

const MANUAL: [&str; 5] = [
    "--manual",
    "--manual-auth-hook",
    "acmegate hook certbot auth",
    "--manual-cleanup-hook",
    "acmegate hook certbot cleanup",
];

fn issues_and_renews(gate: impl FnOnce(&str) -> Gate) {
    let world = World::new(Names::V4);
    world.with_gate(&gate(&site("\"pushed\"")), |daemon| {
        let certbot = Certbot {
            world: &world,
            daemon,
        };
        let options = [&MANUAL[..], &HOOKS[..]].concat();
        certbot.issues_and_renews(|| Command::new("certbot"), &options);
        assert_eq!(daemon.status()["pushed"], 0, "each was withdrawn again");
    });
}

#[test]
fn certbot_issues_and_renews_behind_an_open_firewall_that_is_guarded() {
    inside(|| issues_and_renews(Gate::guard));
}

#[test]
fn certbot_issues_and_renews_behind_a_firewall_that_drops_but_asks_the_set() {
    inside(|| issues_and_renews(Gate::set));
}
