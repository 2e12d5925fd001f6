//! `acmegate doctor --staging` with real clients: the CA is pebble, named as the staging environment.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::certbot::{Certbot, HOOKS};
use crate::lab::{Daemon, faketime_library, find, inside, is_alive, nft, run, wait_for};
use crate::world::{CLIENT, Gate, NAME, Names, SOON, World, site};

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

/// The CA's packets end at somebody else's firewall: the window was open, and nobody came.
#[test]
fn a_window_that_nobody_came_to_is_told() {
    inside(|| {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        world.with_gate(&Gate::guard(&site("\"pushed\"")), |daemon| {
            let (world, daemon) = (&world, &*daemon);
            world.outside(|| {
                nft("table inet away { chain out { type filter hook output priority 0; tcp dport 80 reject with tcp reset; }\n }");
            });
            let (code, letter) = by_hand(world, daemon, "acmegate open", &["acmegate close"]);
            assert_eq!(code, 2, "{letter:#}");
            assert_eq!(letter["findings"][0]["code"], "nobody-came", "{letter:#}");
            world.outside(|| nft("delete table inet away"));
            world.issues(daemon, || {
                let (_, letter) = by_hand(world, daemon, "acmegate open", &["acmegate close"]);
                finding(&letter, "staging-issued");
            });
        });
    });
}

/// Whoever opened it lives on, and closes nothing.
#[test]
fn a_window_that_nobody_closes_is_told() {
    inside(|| {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        world.with_gate(&Gate::guard(&site("\"pushed\"")), |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let [asked, opened] = ["asked", "opened"].map(|name| world.directory.at(name));
            let before = format!("touch {asked}; until test -e {opened}; do sleep 0.1; done");
            let (code, letter) = std::thread::scope(|scope| {
                let trial = scope.spawn(|| by_hand(world, daemon, &before, &[]));
                wait_for(CLIENT, "its hook", || {
                    std::path::Path::new(&asked).exists().then_some(())
                });
                daemon
                    .cli(&["open", "--lease", "forgotten", "--for", "5m"])
                    .success();
                world.directory.write("opened", "");
                trial.join().expect("it does not panic")
            });
            assert_ne!(code, 2, "{letter:#}");
            let left = finding(&letter, "window-left-open");
            assert!(left.to_string().contains("forgotten"), "{letter:#}");
            finding(&letter, "staging-issued");
            world.open();
            daemon.cli(&["close", "--lease", "forgotten"]).success();
        });
    });
}

/// Fifteen minutes pass on the doctor's own clock, and no other.
#[test]
fn a_client_that_hangs_is_ended_with_all_that_it_started() {
    inside(|| {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        world.with_gate(&Gate::guard(&site("\"pushed\"")), |daemon| {
            let (world, daemon) = (&world, &*daemon);
            let clock = world.directory.write("clock", "+0\n");
            let hook = world.directory.at("hook-pid");
            let hangs = format!("echo $$ > {hook}; exec sleep 600");
            let mut command = manual(world, daemon, &hangs, &[]);
            command
                .env("LD_PRELOAD", faketime_library())
                .env("FAKETIME_TIMESTAMP_FILE", &clock)
                .env("FAKETIME_NO_CACHE", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let doctor = world
                .prepare(command, daemon)
                .spawn()
                .expect("our own program");
            let hook: u32 = wait_for(CLIENT, "the hook", || {
                std::fs::read_to_string(&hook).ok()?.trim().parse().ok()
            });
            assert!(is_alive(hook));
            world.directory.write("clock", "+16m\n");
            // Whoever sleeps by the real clock looks at his own again when he goes on.
            let pid = Pid::from_raw(doctor.id().cast_signed()).expect("a process");
            kill_process(pid, Signal::STOP).expect("our own child");
            let stat = format!("/proc/{}/stat", doctor.id());
            wait_for(SOON, "it stands still", || {
                let stat = std::fs::read_to_string(&stat).ok()?;
                stat.contains(") T ").then_some(())
            });
            kill_process(pid, Signal::CONT).expect("our own child");
            let output = doctor.wait_with_output().expect("it ends");
            let letter: Value = serde_json::from_slice(&output.stdout).expect("a letter");
            assert_eq!(output.status.code(), Some(2), "{letter:#}");
            assert_eq!(letter["findings"][0]["code"], "client-hangs", "{letter:#}");
            wait_for(SOON, "the hook is ended too", || {
                (!is_alive(hook)).then_some(())
            });
        });
    });
}

/// certbot by `--manual`, whose hooks push the token, with a pre-hook and perhaps a post-hook.
fn manual(world: &World, daemon: &Daemon, before: &str, after: &[&str]) -> Command {
    let certbot = Certbot { world, daemon };
    let mut command = staging(world, daemon);
    command.arg("certbot");
    let mut options = vec!["--manual", "--pre-hook", before];
    options.extend(["--manual-auth-hook", "acmegate hook certbot auth"]);
    options.extend(["--manual-cleanup-hook", "acmegate hook certbot cleanup"]);
    options.extend(after.iter().flat_map(|after| ["--post-hook", after]));
    certbot.certonly_command(command, &options)
}

fn by_hand(world: &World, daemon: &Daemon, before: &str, after: &[&str]) -> (i32, Value) {
    letter(world, daemon, manual(world, daemon, before, after))
}
