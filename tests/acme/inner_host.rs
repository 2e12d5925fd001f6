//! certbot answers for itself on an inner host, on a port of its own; acmegate asks it there.

use crate::certbot::Certbot;
use crate::lab::inside;
use crate::world::{Gate, INNER, Names, World, connections, site};

fn issues_and_renews(gate: impl FnOnce(&str) -> Gate) {
    let world = World::new(Names::V4);
    let upstream = format!("{{ upstream = \"http://{INNER}:8080\" }}");
    world.with_gate(&gate(&site(&upstream)), |daemon| {
        let certbot = Certbot {
            world: &world,
            daemon,
        };
        // The inner host's file system is the edge's here, so that its hooks reach the edge's
        // socket; in the field this is `ssh edge acmegate open`, where the lease needs a name.
        let options = [
            "--standalone",
            "--http-01-port=8080",
            "--pre-hook=acmegate open --lease inner",
            "--post-hook=acmegate close --lease inner",
        ];
        certbot.issues_and_renews(|| world.inner.command("certbot"), &options);
        let refused = |event: &serde_json::Value| event["verdict"] != "accept";
        assert!(!connections(daemon).iter().any(refused));
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
