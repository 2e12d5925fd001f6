//! dehydrated calls the hook program that `install-hooks` writes, for each name or for all at once.

use std::process::Command;

use crate::lab::{Daemon, inside};
use crate::world::{Gate, NAME, Names, World};

const OTHER: &str = "b.example.com";

fn issues_and_renews(chain: &str) {
    let world = World::new(Names::V4);
    let sites = format!("[[site]]\nidentifiers = [\"{NAME}\", \"{OTHER}\"]\nanswer = \"pushed\"\n");
    world.with_gate(&Gate::set(&sites), |daemon| {
        world.install_hooks(daemon, &["dehydrated"]);
        let config = configure(&world, chain);
        let dehydrated = |order: &[&str]| {
            let mut command = Command::new("dehydrated");
            command.args(["--config", &config]).args(order);
            world.client(command, daemon).success()
        };
        dehydrated(&["--register", "--accept-terms"]);
        let names = format!("{NAME} {OTHER}");
        let serial = |daemon: &Daemon| {
            assert_eq!(daemon.status()["pushed"], 0, "each was withdrawn again");
            let certificate = format!("dehydrated/certs/{NAME}/fullchain.pem");
            let certificate = world.directory.at(&certificate);
            world.verify(&certificate, OTHER);
            world.verify(&certificate, NAME)
        };
        let mut serials = Vec::new();
        for force in [&[][..], &["--force"]] {
            let mut said = String::new();
            world.issues_for(2, daemon, || {
                let order = [&["--cron", "--domain", &names], force].concat();
                said = dehydrated(&order).stdout;
            });
            let in_one_call = said.contains("and 1 more");
            assert_eq!(in_one_call, chain == "yes", "{said}");
            serials.push(serial(daemon));
        }
        assert_ne!(serials[0], serials[1], "renewed means a new certificate");
        // Nothing is due: it starts and ends, and every other handler is passed over.
        let idle = dehydrated(&["--cron", "--domain", &names]);
        assert!(idle.stdout.contains("Skipping renew"), "{idle}");
        world.shut();
    });
}

fn configure(world: &World, chain: &str) -> String {
    let base = world.directory.at("dehydrated");
    std::fs::create_dir(&base).expect("a new directory");
    let (url, bundle) = (world.directory_url(), world.bundle());
    let hook = world.directory.at("etc/acmegate/hooks/dehydrated-hook");
    let config = format!(
        "CA={url}\nBASEDIR={base}\nWELLKNOWN={base}\nHOOK={hook}\nHOOK_CHAIN={chain}\n\
         CURL_OPTS=\"--cacert {bundle}\"\n"
    );
    world.directory.write("dehydrated.conf", &config)
}

#[test]
fn dehydrated_issues_and_renews_name_by_name() {
    inside(|| issues_and_renews("no"));
}

#[test]
fn dehydrated_issues_and_renews_with_all_challenges_in_one_call() {
    inside(|| issues_and_renews("yes"));
}

/// Its hook is told a digest in hexadecimal, and not for which challenge; the site says so.
#[test]
fn dehydrated_issues_by_tls_alpn_01_without_its_own_certificates() {
    inside(|| {
        let world = World::new(Names::V4);
        let sites = format!(
            "[tls]\nlisten = [\"[::]:443\"]\n[[site]]\nidentifiers = [\"{NAME}\", \"{OTHER}\"]\n\
             challenges = [\"tls-alpn-01\"]\n"
        );
        world.with_gate(&Gate::set(&sites), |daemon| {
            world.install_hooks(daemon, &["dehydrated"]);
            let config = configure(&world, "no");
            let dehydrated = |order: &[&str]| {
                let mut command = Command::new("dehydrated");
                command.args(["--config", &config, "--challenge", "tls-alpn-01"]);
                command.args(order);
                world.client(command, daemon).success()
            };
            dehydrated(&["--register", "--accept-terms"]);
            let names = format!("{NAME} {OTHER}");
            world.issues_for(2, daemon, || {
                dehydrated(&["--cron", "--domain", &names, "--force"]);
            });
            assert_eq!(daemon.status()["pushed"], 0);
            let certificate = format!("dehydrated/certs/{NAME}/fullchain.pem");
            let certificate = world.directory.at(&certificate);
            world.verify(&certificate, OTHER);
            for event in world.validations(daemon) {
                assert_eq!(event["port"], 443, "{event:#}");
            }
        });
    });
}

/// The window cannot be opened: it orders nothing, so nothing fails at the CA.
#[test]
fn dehydrated_orders_nothing_behind_a_port_that_stays_shut() {
    inside(|| {
        let world = World::new(Names::V4);
        let sites = format!("[[site]]\nidentifiers = [\"{NAME}\"]\nanswer = \"pushed\"\n");
        world.with_gate(&Gate::set(&sites), |daemon| {
            world.install_hooks(daemon, &["dehydrated"]);
            let config = configure(&world, "no");
            let dehydrated = |daemon: &Daemon, order: &[&str]| {
                let mut command = Command::new("dehydrated");
                command.args(["--config", &config]).args(order);
                world.client(command, daemon)
            };
            dehydrated(daemon, &["--register", "--accept-terms"]).success();
            daemon.kill();
            std::fs::remove_dir_all(daemon.runtime_dir()).expect("its sockets");
            let refused = dehydrated(daemon, &["--cron", "--domain", NAME]);
            assert_ne!(refused.code, 0, "{refused}");
            assert!(
                refused.stderr.contains("acmegate is not running"),
                "{refused}"
            );
            assert!(refused.stderr.contains("startup_hook"), "{refused}");
            assert!(
                !world.ca_log().contains("POST /order-plz"),
                "{}",
                world.ca_log()
            );
            std::fs::create_dir(daemon.runtime_dir()).expect("a new directory");
            daemon.start_again();
        });
    });
}
