//! lego answers for itself, on a port of its own behind the gate.

use std::process::Command;

use crate::lab::{Daemon, find, inside};
use crate::world::{Gate, NAME, Names, World, site};

/// Debian's lego (4.9) has no hook before the order: whoever calls it opens.
const LEGO: &str = r#"
acmegate open --lease lego || exit
lego "$@"
result=$?
acmegate close --lease lego
exit "$result"
"#;

#[test]
fn lego_issues_and_renews_between_open_and_close() {
    find("lego");
    inside(|| {
        let world = World::new(Names::V4);
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        world.with_gate(&gate, |daemon| {
            let issued = lego(&world, daemon, &["run"]);
            // Pebble's certificates live five years.
            let renewed = lego(
                &world,
                daemon,
                &["renew", "--days", "9999", "--no-random-sleep"],
            );
            assert_ne!(issued, renewed, "renewed means a new certificate");
        });
    });
}

/// Gives the serial number of the certificate.
fn lego(world: &World, daemon: &Daemon, order: &[&str]) -> String {
    world.issues(daemon, || {
        let mut command = Command::new("sh");
        command
            .args(["-c", LEGO, "lego", "--accept-tos"])
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
