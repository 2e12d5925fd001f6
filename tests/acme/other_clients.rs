//! Clients with ways of their own: lego answers for itself, dehydrated calls a script.

use std::process::Command;

use crate::lab::{find, inside};
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
    find("lego");
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
            let hook = world.directory.program("dehydrated-hook", DEHYDRATED_HOOK);
            let base = world.directory.at("dehydrated");
            std::fs::create_dir(&base).expect("a new directory");
            let (url, bundle) = (world.directory_url(), world.bundle());
            let config = format!(
                "CA={url}\nBASEDIR={base}\nWELLKNOWN={base}\nHOOK={hook}\n\
                 CURL_OPTS=\"--cacert {bundle}\"\n"
            );
            let config = world.directory.write("dehydrated.conf", &config);
            let dehydrated = |order: &[&str]| {
                let mut command = Command::new("dehydrated");
                command.args(["--config", &config]).args(order);
                world.client(command, daemon).success();
            };
            dehydrated(&["--register", "--accept-terms"]);
            world.issues(daemon, || dehydrated(&["--cron", "--domain", NAME]));
            let certificate = format!("dehydrated/certs/{NAME}/fullchain.pem");
            world.verify(&world.directory.at(&certificate), NAME);
            assert_eq!(daemon.status()["pushed"], 0, "it was withdrawn again");
        });
    });
}
