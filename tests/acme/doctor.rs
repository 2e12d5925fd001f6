//! `acmegate doctor --staging` with real clients: the CA is pebble, named as the staging environment.

use std::process::Command;

use serde_json::Value;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::{Daemon, find, inside, nft, run};
use crate::world::{Gate, NAME, Names, SOON, World, site};

/// Runs the doctor; its status and its letter.
#[track_caller]
pub fn doctor(world: &World, daemon: &Daemon, arguments: &[&str]) -> (i32, Value) {
    let mut command = acmegate(daemon);
    command.args(["doctor", "--json"]).args(arguments);
    letter(world, daemon, command)
}

fn acmegate(daemon: &Daemon) -> Command {
    let path = daemon.search_path();
    let directory = path.split(':').next().expect("the first of the path");
    Command::new(format!("{directory}/acmegate"))
}

#[track_caller]
fn letter(world: &World, daemon: &Daemon, command: Command) -> (i32, Value) {
    let output = world.client(command, daemon);
    let letter = serde_json::from_str(&output.stdout);
    (
        output.code,
        letter.unwrap_or_else(|error| panic!("{error}: {output}")),
    )
}

/// Our host asks the CA's name server, which has every name.
pub fn resolve_by_the_ca(world: &World) {
    let server = world.directory_url();
    let (_, rest) = server.split_once("//").expect("a URL");
    let (address, _) = rest.rsplit_once(':').expect("a port");
    let file = world
        .directory
        .write("resolv.conf", &format!("nameserver {address}\n"));
    let mut mount = Command::new("mount");
    mount.args(["--bind", &file, "/etc/resolv.conf"]);
    run(mount, SOON).success();
}

/// `acmegate doctor --staging -- CLIENT…`, ready for the client's arguments.
fn staging(world: &World, daemon: &Daemon) -> Command {
    let mut command = acmegate(daemon);
    command
        .args(["doctor", "--json", "--staging", "--staging-server"])
        .args([&world.directory_url(), NAME, "--"]);
    command
}

#[track_caller]
fn finding<'letter>(letter: &'letter Value, code: &str) -> &'letter Value {
    let findings = letter["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["code"] == code);
    found.unwrap_or_else(|| panic!("no {code}: {letter:#}"))
}

#[test]
fn certbot_is_tried_by_its_own_hooks_and_saves_nothing() {
    inside(|| {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        let webroot = world.directory.at("html");
        std::fs::create_dir(&webroot).expect("a new directory");
        // Refusals are told at once, so that the CA waits for nothing.
        let told = "[firewall]\nclosed = \"reject\"\n";
        let site = site(&format!("{{ webroot = \"{webroot}\" }}"));
        world.with_gate(&Gate::guard(&format!("{site}{told}")), |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let certbot = Certbot { world, daemon };
            let trial = |options: &[&str]| {
                let mut command = staging(world, daemon);
                command.arg("certbot");
                let command = certbot.certonly_command(command, options);
                letter(world, daemon, command)
            };
            let with_hooks = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            world.issues(daemon, || {
                let (code, letter) = trial(&with_hooks);
                assert_ne!(code, 2, "{letter:#}");
                let issued = finding(&letter, "staging-issued");
                let said = issued["finding"].as_str().expect("text");
                assert!(said.contains("all were answered") || said.contains("was answered"), "{said}");
            });
            let live = world.directory.at("certbot/live");
            assert!(!std::path::Path::new(&live).join(NAME).exists());

            // Without its hooks no window opens, and the CA is kept out.
            let (code, letter) = trial(&["--webroot", "--webroot-path", &webroot]);
            assert_eq!(code, 2, "{letter:#}");
            assert_eq!(letter["findings"][0]["code"], "no-window", "{letter:#}");

            // A geo-block behind an open window.
            nft(
                "table inet geo { chain in { type filter hook prerouting priority -90; ip saddr 203.0.113.0/24 tcp dport 80 reject with tcp reset\n}\n}\n",
            );
            let (code, letter) = trial(&with_hooks);
            assert_eq!(code, 2, "{letter:#}");
            assert_eq!(letter["findings"][0]["code"], "networks-dropped", "{letter:#}");
            let rule = finding(&letter, "drops-some-sources").to_string();
            assert!(rule.contains("inet geo"), "{letter:#}");
            nft("delete table inet geo\n");
            world.issues(daemon, || {
                certbot.certonly(Command::new("certbot"), &with_hooks).success();
            });
        });
    });
}

#[test]
fn lego_is_tried_under_exec_with_a_directory_of_its_own() {
    find("lego");
    inside(|| {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        world.with_gate(&gate, |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let lego = |last: &[&str]| {
                let mut command = staging(world, daemon);
                command
                    .args(["acmegate", "exec", "--now", "--", "lego", "--accept-tos"])
                    .args(["--email", "root@example.com", "--domains", NAME])
                    .args(["--path", &world.directory.at("lego"), "--http"])
                    .args(["--http.port", "127.0.0.1:5080"])
                    .args(last);
                world.client(command, daemon)
            };
            world.issues(daemon, || {
                let output = lego(&["run"]);
                assert_ne!(output.code, 2, "{output}");
                let letter: Value = serde_json::from_str(&output.stdout).expect("a letter alone");
                finding(&letter, "staging-issued");
                assert!(output.stderr.contains("directory of its own"), "{output}");
            });
            let own = world.directory.at("lego");
            assert!(
                !std::path::Path::new(&own).exists(),
                "nothing in use is touched"
            );

            // What would replace a certificate in use is refused before anything is done.
            for (order, word) in [
                (&["renew"][..], "lego renew"),
                (&["run", "--run-hook", "/bin/true"], "--run-hook"),
            ] {
                let output = lego(order);
                assert_eq!(output.code, 64, "{output}");
                assert!(output.stderr.contains(word), "{output}");
                assert_eq!(output.stdout, "", "{output}");
            }
        });
    });
}
