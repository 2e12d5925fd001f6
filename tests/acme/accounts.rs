//! A site that names its ACME accounts vouches for no other, and tells which one it saw.

use std::process::Command;

use rustix::process::Signal;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::{inside, wait_for};
use crate::world::{Gate, Names, SOON, World, site};

/// Somebody's, whom nobody here knows.
const OTHER: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";

#[test]
fn an_account_is_refused_until_it_is_pasted_from_the_status() {
    inside(|| {
        let world = World::new(Names::V4);
        let webroot = world.directory.at("html");
        std::fs::create_dir(&webroot).expect("a new directory");
        let vouching_for = |account: &str| {
            let site = site(&format!("{{ webroot = \"{webroot}\" }}"));
            Gate::guard(&format!("{site}accounts = [\"{account}\"]\n"))
        };
        world.with_gate(&vouching_for(OTHER), |daemon| {
            let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            let certonly = |daemon: &_| {
                let certbot = Certbot {
                    world: &world,
                    daemon,
                };
                certbot.certonly(Command::new("certbot"), &options)
            };
            let refused = certonly(daemon);
            assert_eq!(refused.code, 1, "{refused}");
            assert!(refused.text().contains("Type:   unauthorized"), "{refused}");
            let refusals = world.validations(daemon);
            assert!(!refusals.is_empty(), "{}", daemon.log());
            for event in refusals {
                assert_eq!(event["reason"], "foreign-account", "{event:#}");
            }

            let status = daemon.status();
            let seen = status["sites"][0]["seen"][0].as_str().expect("an account");
            daemon.write_config(&vouching_for(seen).config);
            daemon.signal(Signal::HUP);
            wait_for(SOON, "the daemon reads it again", || {
                daemon
                    .log()
                    .contains("configuration reloaded")
                    .then_some(())
            });
            world.issues(daemon, || {
                certonly(daemon).success();
            });
        });
    });
}
