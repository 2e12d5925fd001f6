//! certbot writes its tokens into a webroot; acmegate reads them there.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::inside;
use crate::world::{Gate, Names, World, site};

fn issues_and_renews(names: Names, gate: impl FnOnce(&str) -> Gate) {
    let world = World::new(names);
    let webroot = world.directory.at("html");
    std::fs::create_dir(&webroot).expect("a new directory");
    let gate = gate(&site(&format!("{{ webroot = \"{webroot}\" }}")));
    world.with_gate(&gate, |daemon| {
        // The positive control of every look from outside: there is something to be shut from.
        daemon.cli(&["open", "--lease", "control"]).success();
        world.open();
        daemon.cli(&["close", "--lease", "control"]).success();
        let world = &world;
        let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
        Certbot { world, daemon }.issues_and_renews(|| Command::new("certbot"), &options);
    });
}

#[test]
fn certbot_issues_and_renews_behind_an_open_firewall_that_is_guarded() {
    inside(|| issues_and_renews(Names::V4, Gate::guard));
}

#[test]
fn certbot_issues_and_renews_behind_a_firewall_that_drops_but_asks_the_set() {
    inside(|| issues_and_renews(Names::V4, Gate::set));
}

#[test]
fn a_name_of_ipv6_alone_is_issued_and_renewed_in_guard() {
    inside(|| issues_and_renews(Names::V6, Gate::guard));
}

#[test]
fn a_name_of_ipv6_alone_is_issued_and_renewed_in_set() {
    inside(|| issues_and_renews(Names::V6, Gate::set));
}

#[test]
fn installed_in_certbots_hook_directories_they_open_and_close_what_certbot_renews() {
    inside(|| {
        let world = World::new(Names::V4);
        let webroot = world.directory.at("html");
        std::fs::create_dir(&webroot).expect("a new directory");
        let gate = Gate::guard(&site(&format!("{{ webroot = \"{webroot}\" }}")));
        world.with_gate(&gate, |daemon| {
            let certbot = Certbot {
                world: &world,
                daemon,
            };
            world.install_hooks(daemon, &["certbot"]);
            let etc = world.directory.at("etc/letsencrypt");
            symlink(etc, world.directory.at("certbot")).expect("certbot's directory");
            // Debian 12's certbot runs the directories' hooks for `renew` alone.
            let options = ["--webroot", "--webroot-path", &webroot];
            daemon.cli(&["open", "--lease", "first"]).success();
            certbot
                .certonly(Command::new("certbot"), &options)
                .success();
            daemon.cli(&["close", "--lease", "first"]).success();
            certbot.renews(|| Command::new("certbot"));
        });
    });
}
