//! A certificate for an address (RFC 8738): Debian's uacme orders it, its hook pushes the token.

use std::process::Command;

use crate::lab::{Daemon, inside};
use crate::world::{EDGE_4, EDGE_6, Gate, Names, World};

fn issues(names: Names, address: &str, gate: impl FnOnce(&str) -> Gate) {
    let world = World::new(names);
    let site = format!("[[site]]\nidentifiers = [\"{address}\"]\nanswer = \"pushed\"\n");
    world.trust_by_mounting();
    world.with_gate(&gate(&site), |daemon| {
        world.install_hooks(daemon, &["uacme"]);
        uacme(&world, daemon, &["new"]);
        let mut serials = Vec::new();
        for order in [&["issue", address][..], &["--force", "issue", address]] {
            world.issues(daemon, || uacme(&world, daemon, order));
            let certificate = format!("uacme/{address}/cert.pem");
            serials.push(world.verify(&world.directory.at(&certificate), address));
            assert_eq!(daemon.status()["pushed"], 0, "it was withdrawn again");
        }
        assert_ne!(serials[0], serials[1], "renewed means a new certificate");
    });
}

fn uacme(world: &World, daemon: &Daemon, order: &[&str]) {
    let hook = world.directory.at("etc/acmegate/hooks/uacme-hook");
    let mut command = Command::new("uacme");
    command
        .args(["--verbose", "--yes", "--acme-url", &world.directory_url()])
        .args(["--confdir", &world.directory.at("uacme"), "--hook", &hook])
        .args(order);
    world.client(command, daemon).success();
}

#[test]
fn uacme_gets_a_certificate_for_an_ipv4_address_in_guard() {
    inside(|| issues(Names::V4, EDGE_4, Gate::guard));
}

#[test]
fn uacme_gets_a_certificate_for_an_ipv6_address_in_set() {
    inside(|| issues(Names::V6, EDGE_6, Gate::set));
}
