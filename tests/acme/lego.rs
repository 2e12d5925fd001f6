//! lego answers for itself, on a port of its own behind the gate.

use std::process::Command;

use crate::lab::{Daemon, find, inside};
use crate::world::{Gate, NAME, Names, World, site};

/// Debian's lego (4.9) has no hook before the order. Its unit has: these are the commands of the
/// drop-in that `install-hooks` writes, run by a shell as systemd runs them, the last one in any case.
pub fn as_a_unit(world: &World, daemon: &Daemon) -> String {
    world.install_hooks(daemon, &["lego", "--unit", "lego"]);
    let drop_in = "etc/systemd/system/lego.service.d/acmegate.conf";
    let drop_in = std::fs::read_to_string(world.directory.at(drop_in)).expect("it was written");
    let command = |key: &str| {
        let line = drop_in.lines().find_map(|line| line.strip_prefix(key));
        let line = line.expect("the drop-in has this key");
        line.trim_start_matches(['+', '-']).replace("%N", "lego")
    };
    let (pre, post) = (command("ExecStartPre="), command("ExecStopPost="));
    format!("{pre} && lego \"$@\"; result=$?; {post}; exit $result")
}

#[test]
fn lego_issues_and_renews_between_the_commands_of_its_units_drop_in() {
    find("lego");
    inside(|| {
        let world = World::new(Names::V4);
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        world.with_gate(&gate, |daemon| {
            let unit = as_a_unit(&world, daemon);
            let issued = lego(&world, daemon, &unit, &["run"]);
            // Pebble's certificates live five years.
            let renewed = lego(
                &world,
                daemon,
                &unit,
                &["renew", "--days", "9999", "--no-random-sleep"],
            );
            assert_ne!(issued, renewed, "renewed means a new certificate");
        });
    });
}

/// Gives the serial number of the certificate.
fn lego(world: &World, daemon: &Daemon, unit: &str, order: &[&str]) -> String {
    world.issues(daemon, || {
        let mut command = Command::new("sh");
        command
            .args(["-c", unit, "lego", "--accept-tos"])
            .args(["--email", "root@example.com", "--domains", NAME])
            .args(["--server", &world.directory_url()])
            .args(["--path", &world.directory.at("lego"), "--http"])
            .args(["--http.port", "127.0.0.1:5080"])
            .args(order);
        world.client(command, daemon).success();
    });
    let certificate = format!("lego/certificates/{NAME}.crt");
    world.verify(&world.directory.at(&certificate), NAME)
}
