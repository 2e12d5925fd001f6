//! The negative control: without hooks the CA cannot connect, and acmegate never sees it.

use std::process::Command;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::inside;
use crate::world::{Gate, NAME, Names, World, connections, site};

fn fails(gate: impl FnOnce(&str) -> Gate) {
    let world = World::new(Names::V4);
    let webroot = world.directory.at("html");
    std::fs::create_dir(&webroot).expect("a new directory");
    let gate = gate(&site(&format!("{{ webroot = \"{webroot}\" }}")));
    world.with_gate(&gate, |daemon| {
        let certbot = Certbot {
            world: &world,
            daemon,
        };
        let without = ["--webroot", "--webroot-path", &webroot];
        let output = certbot.certonly(Command::new("certbot"), &without);
        assert_eq!(output.code, 1, "{output}");
        // Pebble's own words, by way of certbot: nothing within its time.
        let text = output.text();
        assert!(text.contains("Type:   connection"), "{output}");
        let words = format!("Get \"http://{NAME}:80/.well-known/acme-challenge/");
        assert!(text.contains(&words), "{output}");
        // Its library calls the same end "i/o timeout" or "context deadline exceeded", as it falls.
        assert!(text.contains("(Client.Timeout exceeded"), "{output}");
        assert!(world.ca_log().contains("INVALID"), "{}", world.ca_log());
        let none: [serde_json::Value; 0] = [];
        assert_eq!(connections(daemon), none);
        assert_eq!(daemon.status()["connections"], serde_json::json!([]));
        // With hooks, in the same world, it is issued: nothing else was missing.
        world.issues(daemon, || {
            let with = [&without[..], &HOOKS[..]].concat();
            certbot.certonly(Command::new("certbot"), &with).success();
        });
        certbot.serial();
    });
}

#[test]
fn the_ca_cannot_connect_through_a_guarded_port() {
    inside(|| fails(Gate::guard));
}

#[test]
fn the_ca_cannot_connect_through_a_firewall_that_drops() {
    inside(|| fails(Gate::set));
}
