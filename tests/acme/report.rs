//! What is reported of a real CA's validations, ordered by a real client.

use std::process::Command;

use serde_json::Value;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::{Daemon, inside};
use crate::world::{Gate, NAME, Names, World, connections, site};

/// The last window's record, as `acmegate report --json` prints it.
#[track_caller]
fn last(daemon: &Daemon) -> Value {
    let output = daemon.cli(&["report", "--last", "--json"]).success();
    let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
    document["windows"][0].clone()
}

#[test]
fn each_of_the_cas_requests_is_in_the_record_and_nothing_else_is() {
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
            let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            // Once in a hundred orders the CA asks for nothing: see `World::issues_for`.
            let mut said = String::new();
            world.issues(daemon, || {
                let run = certbot.certonly(Command::new("certbot"), &options);
                said = run.success().text();
            });
            let record = last(daemon);
            assert_eq!(record["why"], "asked");
            assert!(
                record["lease"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("certbot-"))
            );
            assert_eq!(record["end"]["by"], "close");
            assert_eq!(record["assessment"]["outcome"], "answered");
            // The test's own look from outside, before the window, sends its packet again inside of it.
            let sources = record["sources"].as_array().expect("an array");
            let (sources, others): (Vec<&Value>, Vec<&Value>) = sources
                .iter()
                .partition(|source| source["role"] == "validator");
            assert_eq!(sources.len(), 1, "{record:#}");
            let is_unheard = |source: &&Value| source["role"] == "unheard";
            assert!(others.iter().all(is_unheard), "{record:#}");
            let visits = sources[0]["visits"].as_array().expect("an array");
            // One to one with what the gate's log has of the CA.
            let logged = world.validations(daemon);
            assert_eq!(visits.len(), 3, "{record:#}");
            assert!(logged.len() >= visits.len());
            for visit in visits {
                assert_eq!(visit["reason"], "answered");
                assert_eq!(visit["identifier"], NAME);
                assert_eq!(visit["status"], 200);
                assert_eq!(visit["token"], visits[0]["token"]);
            }
            assert_eq!(record["assessment"]["identifiers"][0]["identifier"], NAME);
            assert_eq!(connections(daemon).len(), logged.len());
            // The hook's own words, which certbot shows.
            assert!(said.contains("1 network"), "{said}");
        });
    });
}

#[test]
fn what_the_ca_was_refused_is_told_with_the_reason() {
    inside(|| {
        let world = World::new(Names::V4);
        let webroot = world.directory.at("html");
        let elsewhere = world.directory.at("elsewhere");
        for directory in [&webroot, &elsewhere] {
            std::fs::create_dir(directory).expect("a new directory");
        }
        let gate = Gate::guard(&site(&format!("{{ webroot = \"{elsewhere}\" }}")));
        world.with_gate(&gate, |daemon| {
            let certbot = Certbot {
                world: &world,
                daemon,
            };
            let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            let run = certbot.certonly(Command::new("certbot"), &options);
            assert_ne!(run.code, 0, "{run}");
            let record = last(daemon);
            assert_eq!(record["assessment"]["outcome"], "failed", "{record:#}");
            let visits = record["sources"][0]["visits"].as_array().expect("an array");
            assert!(!visits.is_empty());
            for visit in visits {
                assert_eq!(
                    (&visit["reason"], &visit["status"]),
                    (&"unknown-token".into(), &404.into())
                );
            }
            assert!(run.text().contains("404"), "the CA says the same: {run}");
        });
    });
}
