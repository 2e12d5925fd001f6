//! Clients with ways of their own: lego answers for itself, dehydrated calls a script.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::lab::inside;
use crate::world::{Gate, NAME, Names, World, site};

/// Debian's lego (4.9) has no hook before the order: whoever calls it opens.
const LEGO: &str = r#"
acmegate open --lease lego || exit
lego "$@"
result=$?
acmegate close --lease lego
exit "$result"
"#;

/// dehydrated's hook contract, as its documentation has it.
const DEHYDRATED_HOOK: &str = r#"#!/bin/sh
case "$1" in
startup_hook) acmegate open ;;
deploy_challenge) acmegate answer add "$2" "$4" ;;
clean_challenge) acmegate answer remove "$2" "$3" ;;
exit_hook) acmegate close ;;
esac
"#;

#[test]
fn lego_answers_for_itself_on_a_port_of_its_own() {
    inside(|| {
        let world = World::new(Names::V4);
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        world.with_gate(&gate, |daemon| {
            let mut command = Command::new("sh");
            command
                .args([
                    "-c",
                    LEGO,
                    "lego",
                    "--accept-tos",
                    "--email",
                    "root@example.com",
                ])
                .args(["--server", &world.directory_url(), "--domains", NAME])
                .args(["--path", &world.directory.at("lego"), "--http"])
                .args(["--http.port", "127.0.0.1:5080", "run"]);
            world.issues(daemon, || {
                world.client(command, daemon).success();
            });
            let certificate = format!("lego/certificates/{NAME}.crt");
            world.verify(&world.directory.at(&certificate), NAME);
        });
    });
}

#[test]
fn dehydrated_opens_pushes_and_closes_by_its_hook_script() {
    inside(|| {
        let world = World::new(Names::V4);
        world.with_gate(&Gate::set(&site("\"pushed\"")), |daemon| {
            let hook = world.directory.write("dehydrated-hook", DEHYDRATED_HOOK);
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&hook, mode).expect("our own file");
            let (url, base, bundle) = (
                world.directory_url(),
                world.directory.at("dehydrated"),
                world.bundle(),
            );
            let config =
                format!("CA={url}\nBASEDIR={base}\nWELLKNOWN={base}\nHOOK={hook}\nCURL_OPTS=\"--cacert {bundle}\"\n");
            std::fs::create_dir(&base).expect("a new directory");
            let config = world.directory.write("dehydrated.conf", &config);
            for order in [
                &["--register", "--accept-terms"][..],
                &["--cron", "-d", NAME][..],
            ] {
                let mut command = Command::new("dehydrated");
                command.args(["--config", &config]).args(order);
                if order[0] == "--register" {
                    world.client(command, daemon).success();
                } else {
                    world.issues(daemon, || {
                        world.client(command, daemon).success();
                    });
                }
            }
            let certificate = format!("dehydrated/certs/{NAME}/fullchain.pem");
            world.verify(&world.directory.at(&certificate), NAME);
            assert_eq!(daemon.status()["pushed"], 0, "it was withdrawn again");
        });
    });
}
