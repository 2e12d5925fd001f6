//! Real clients under `acmegate exec`: what they get, and what becomes of one that is ended, or
//! whose pre-hook failed.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::{Daemon, Process, inside, nft, send, wait_for};
use crate::world::{EDGE_4, Gate, NAME, Names, SOON, World, site};

/// How long after its holder's death a lease is released, and what a busy machine may add.
const GRACE: Duration = Duration::from_secs(5 + 3);

/// `acmegate exec OPTIONS -- CLIENT`, ready for the client's own arguments.
fn under(daemon: &Daemon, options: &[&str], client: &str) -> Command {
    let path = daemon.search_path();
    let directory = path.split(':').next().expect("the first of the path");
    let mut command = Command::new(format!("{directory}/acmegate"));
    command.arg("exec").args(options).args(["--", client]);
    command
}

#[test]
fn certbot_issues_and_renews_by_its_own_hooks() {
    inside(|| {
        let world = World::new(Names::V4);
        let webroot = world.directory.at("html");
        std::fs::create_dir(&webroot).expect("a new directory");
        let gate = Gate::guard(&site(&format!("{{ webroot = \"{webroot}\" }}")));
        world.with_gate(&gate, |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            Certbot { world, daemon }.issues_and_renews(|| under(daemon, &[], "certbot"), &options);
        });
    });
}

#[test]
fn certbot_issues_by_its_first_token_and_needs_no_other_hook() {
    inside(|| {
        let world = World::new(Names::V4);
        world.with_gate(&Gate::guard(&site("\"pushed\"")), |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let manual = [
                "--manual",
                "--manual-auth-hook",
                "acmegate hook certbot auth",
                "--manual-cleanup-hook",
                "acmegate hook certbot cleanup",
            ];
            let certbot = Certbot { world, daemon };
            certbot.issues_and_renews(|| under(daemon, &["--for", "2m"], "certbot"), &manual);
        });
    });
}

/// Only tokens: the window is `exec`'s.
const DEHYDRATED_HOOK: &str = r#"#!/bin/sh
case "$1" in
deploy_challenge) acmegate answer add "$2" "$4" ;;
clean_challenge) acmegate answer remove "$2" "$3" ;;
esac
"#;

#[test]
fn dehydrated_issues_by_its_first_token() {
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
                let mut command = under(daemon, &[], "dehydrated");
                command.args(["--config", &config]).args(order);
                world.client(command, daemon).success();
            };
            dehydrated(&["--register", "--accept-terms"]);
            world.issues(daemon, || dehydrated(&["--cron", "--domain", NAME]));
            let certificate = format!("dehydrated/certs/{NAME}/fullchain.pem");
            world.verify(&world.directory.at(&certificate), NAME);
        });
    });
}

const UACME_HOOK: &str = r#"#!/bin/sh
case "$1 $2" in
"begin http-01") acmegate answer add "$3" "$5" ;;
"done http-01" | "failed http-01") acmegate answer remove "$3" "$4" ;;
*) exit 1 ;;
esac
"#;

#[test]
fn uacme_issues_by_its_first_token() {
    inside(|| {
        let world = World::new(Names::V4);
        let site = format!("[[site]]\nidentifiers = [\"{EDGE_4}\"]\nanswer = \"pushed\"\n");
        world.trust_by_mounting();
        world.with_gate(&Gate::guard(&site), |daemon| {
            let hook = world.directory.program("uacme-hook", UACME_HOOK);
            let uacme = |order: &[&str]| {
                let mut command = under(daemon, &[], "uacme");
                command
                    .args(["--verbose", "--yes", "--acme-url", &world.directory_url()])
                    .args(["--confdir", &world.directory.at("uacme"), "--hook", &hook])
                    .args(order);
                world.client(command, daemon).success();
            };
            uacme(&["new"]);
            world.issues(daemon, || uacme(&["issue", EDGE_4]));
            let certificate = format!("uacme/{EDGE_4}/cert.pem");
            world.verify(&world.directory.at(&certificate), EDGE_4);
        });
    });
}

#[test]
fn lego_issues_in_a_window_that_is_open_at_once() {
    inside(|| {
        let world = World::new(Names::V4);
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        world.with_gate(&gate, |daemon| {
            world.issues(daemon, || {
                let mut command = under(daemon, &["--now", "--identifier", NAME], "lego");
                command
                    .args(["--accept-tos", "--email", "root@example.com"])
                    .args(["--server", &world.directory_url(), "--domains", NAME])
                    .args(["--path", &world.directory.at("lego"), "--http"])
                    .args(["--http.port", "127.0.0.1:5080", "run"]);
                world.client(command, daemon).success();
            });
            let certificate = format!("lego/certificates/{NAME}.crt");
            world.verify(&world.directory.at(&certificate), NAME);
        });
    });
}

/// Somebody's chain that no window can open.
const IN_THE_WAY: &str = "table inet other {
    chain input { type filter hook input priority filter; policy accept;
        iif != lo tcp dport 80 drop
    }
}
";

#[test]
fn a_failing_pre_hook_stops_certbot_before_it_orders() {
    inside(|| {
        let world = World::new(Names::V4);
        let webroot = world.directory.at("html");
        std::fs::create_dir(&webroot).expect("a new directory");
        let gate = Gate::guard(&site(&format!("{{ webroot = \"{webroot}\" }}")));
        world.with_gate(&gate, |daemon| {
            let (world, daemon) = (&world, &*daemon);
            nft(IN_THE_WAY);
            let certbot = Certbot { world, daemon };
            let options = [&["--webroot", "--webroot-path", &webroot], &HOOKS[..]].concat();
            let orders = || world.ca_log().matches("POST /order-plz").count();
            let ended = certbot.certonly(under(daemon, &[], "certbot"), &options);
            assert_eq!(ended.code, 78, "{ended}");
            for words in ["inet other input", "certbot was ended"] {
                assert!(ended.stderr.contains(words), "{words}: {ended}");
            }
            assert_eq!(orders(), 0, "{}", world.ca_log());
            // The control: by itself it prints what its hook said, and orders.
            let went_on = certbot.certonly(Command::new("certbot"), &options);
            assert_ne!(went_on.code, 0, "{went_on}");
            assert!(orders() > 0, "{}", world.ca_log());
            nft("delete table inet other\n");
        });
    });
}

#[test]
fn certbot_is_ended_in_the_middle_and_the_window_shuts_on_time() {
    inside(|| {
        let world = World::new(Names::V4);
        let gate = Gate::guard(&site("\"pushed\""));
        world.with_gate(&gate, |daemon| {
            let (world, daemon) = (&world, &*daemon);
            // Its authorization hook takes longer than anybody waits.
            let middle = world.directory.at("middle");
            let hook = format!("touch {middle}; exec sleep 60");
            let hook = world
                .directory
                .program("auth", &format!("#!/bin/sh\n{hook}\n"));
            let options = [&["--manual", "--manual-auth-hook", &hook], &HOOKS[..]].concat();
            for signal in [Signal::TERM, Signal::KILL] {
                for is_under_exec in [true, false] {
                    let start = match is_under_exec {
                        true => under(daemon, &[], "certbot"),
                        false => Command::new("certbot"),
                    };
                    let certbot = Certbot { world, daemon };
                    let command = certbot.certonly_command(start, &options);
                    let mut process = Process::spawn(world.prepare(command, daemon));
                    wait_for(SOON, "certbot asks for its token", || {
                        std::path::Path::new(&middle).exists().then_some(())
                    });
                    std::fs::remove_file(&middle).expect("it was made");
                    world.open();
                    let client = match is_under_exec {
                        true => child_of(process.pid()),
                        false => process.pid(),
                    };
                    let begun = Instant::now();
                    send(client, signal);
                    let limit = if is_under_exec { SOON } else { GRACE };
                    wait_for(limit, "the lease ends", || {
                        (daemon.status()["leases"] == serde_json::json!([])).then_some(())
                    });
                    world.shut();
                    if is_under_exec {
                        process.wait(SOON);
                        world.shut();
                        assert!(
                            begun.elapsed() < Duration::from_secs(5),
                            "{signal:?}: no grace"
                        );
                    }
                }
            }
        });
    });
}

/// The one child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("CONFIG_PROC_CHILDREN");
    children.trim().parse().expect("one child")
}
