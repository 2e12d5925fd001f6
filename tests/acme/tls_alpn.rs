//! Validations by TLS-ALPN-01, from a network that the firewall keeps out, while the site's visitors
//! are served: Debian's uacme with the responder that is built in, lego and Caddy with their own.

use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::lab::site::{SECRET, Server, TlsSite};
use crate::lab::tls::{Client, Version};
use crate::lab::{Daemon, Output, Process, find, inside, wait_for};
use crate::lego::as_a_unit;
use crate::world::{CLIENT, EDGE_4, EDGE_6, Gate, NAME, Names, SOON, World, connections};

/// Where the site's server is, and where clients answer for themselves.
const SERVER: u16 = 8443;
const RESPONDER: u16 = 5443;
/// An account that nobody here has.
const STRANGER: &str = "nP1qzpXGymHBrUEepNY9HCsQk7K8KhOypzEt62jcerQ";
/// An address of this host's that is on the allow-list, as everything private.
const NEAR: &str = "10.0.0.1";

/// Port 443 alone: no port 80 is looked at, and windows are for TLS-ALPN-01.
fn gate(identifier: &str, keys: &str) -> Gate {
    Gate::guard(&format!(
        "[http]\nlisten = []\n[tls]\nlisten = [\"[::]:443\"]\nserver = \"127.0.0.1:{SERVER}\"\n\
         [[site]]\nidentifiers = [\"{identifier}\"]\nchallenges = [\"tls-alpn-01\"]\n{keys}\n"
    ))
}

fn uacme(world: &World, daemon: &Daemon, order: &[&str]) -> Output {
    let hook = world.directory.at("etc/acmegate/hooks/uacme-hook");
    let mut command = Command::new("uacme");
    command
        .args(["--verbose", "--yes", "--acme-url", &world.directory_url()])
        .args(["--confdir", &world.directory.at("uacme"), "--hook", &hook])
        .args(order);
    world.client(command, daemon)
}

fn uacme_issues_and_renews(world: &World, daemon: &Daemon, identifier: &str) {
    world.install_hooks(daemon, &["uacme"]);
    uacme(world, daemon, &["new"]).success();
    let mut serials = Vec::new();
    for order in [
        &["issue", identifier][..],
        &["--force", "issue", identifier],
    ] {
        world.issues(daemon, || drop(uacme(world, daemon, order).success()));
        let certificate = format!("uacme/{identifier}/cert.pem");
        serials.push(world.verify(&world.directory.at(&certificate), identifier));
        assert_eq!(daemon.status()["pushed"], 0, "it was withdrawn again");
    }
    assert_ne!(serials[0], serials[1], "renewed means a new certificate");
}

/// Has `work` happen while a visitor asks for the page again and again, and gets it each time.
fn while_browsing_goes_on(work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let pages = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| {
            let mut pages = 0;
            while !is_over.load(Ordering::Relaxed) {
                let got = visit();
                assert!(got.contains(SECRET), "page {pages}: {got}");
                pages += 1;
            }
            pages
        });
        {
            // However it ends, or nobody would come back from here.
            let _over = OnDrop(|| is_over.store(true, Ordering::Relaxed));
            work();
        }
        visitor.join().expect("every page came")
    });
    assert!(pages > 10, "{pages} pages");
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What a visitor from the allow-list gets.
fn visit() -> String {
    let stream = TcpStream::connect((NEAR, 443)).expect("the gate listens");
    let got = Client::new(Version::Tls13, Some(NAME), &["http/1.1"]).run(stream);
    format!("{} {:?}", got.text(), got.error)
}

#[test]
fn uacme_gets_a_certificate_from_our_own_responder() {
    inside(|| {
        let world = World::new(Names::V4).by_tls("answered");
        world.trust_by_mounting();
        let _site = TlsSite::start(Server::Nginx, SERVER);
        world.with_gate(&gate(NAME, ""), |daemon| {
            while_browsing_goes_on(|| uacme_issues_and_renews(&world, daemon, NAME));
        });
    });
}

/// The CA needs no window then, and the client's hook opens and closes as ever.
#[test]
fn the_same_from_a_network_on_the_allow_list_while_browsing_goes_on() {
    inside(|| {
        let world = World::new(Names::V4).by_tls("answered");
        world.trust_by_mounting();
        let _site = TlsSite::start(Server::HaProxy, SERVER);
        let mut gate = gate(NAME, "");
        gate.config += "[allow]\nprefixes = [\"203.0.113.0/24\"]\n";
        world.with_gate(&gate, |daemon| {
            while_browsing_goes_on(|| uacme_issues_and_renews(&world, daemon, NAME));
        });
    });
}

#[test]
fn uacme_gets_a_certificate_for_an_ipv4_address() {
    inside(|| {
        let world = World::new(Names::V4).by_tls("answered");
        world.trust_by_mounting();
        world.with_gate(&gate(EDGE_4, ""), |daemon| {
            uacme_issues_and_renews(&world, daemon, EDGE_4);
        });
    });
}

#[test]
fn uacme_gets_a_certificate_for_an_ipv6_address() {
    inside(|| {
        let world = World::new(Names::V6).by_tls("answered");
        world.trust_by_mounting();
        world.with_gate(&gate(EDGE_6, ""), |daemon| {
            uacme_issues_and_renews(&world, daemon, EDGE_6);
        });
    });
}

/// Only answers: the window is `exec`'s, and port 443's because that is where such answers are asked
/// for.
const PUSHING_HOOK: &str = r#"#!/bin/sh
[ "$2" = tls-alpn-01 ] || exit 1
case "$1" in
begin) acmegate answer add --tls-alpn-01 --digest "$5" --token "$4" "$3" ;;
*) acmegate answer remove --tls-alpn-01 "$3" "$4" ;;
esac
"#;

#[test]
fn uacme_under_exec_is_let_in_by_its_first_answer() {
    inside(|| {
        let world = World::new(Names::V4).by_tls("answered");
        world.trust_by_mounting();
        world.with_gate(&gate(NAME, ""), |daemon| {
            world.install_hooks(daemon, &["uacme"]);
            let hook = world.directory.program("uacme-hook", PUSHING_HOOK);
            uacme(&world, daemon, &["new"]).success();
            let path = daemon.search_path();
            let directory = path.split(':').next().expect("the first of the path");
            let mut serials = Vec::new();
            for order in [&["issue", NAME][..], &["--force", "issue", NAME]] {
                world.issues(daemon, || {
                    let mut command = Command::new(format!("{directory}/acmegate"));
                    command
                        .args(["exec", "--", "uacme", "--yes"])
                        .args(["--acme-url", &world.directory_url(), "--hook", &hook])
                        .args(["--confdir", &world.directory.at("uacme")])
                        .args(order);
                    world.client(command, daemon).success();
                });
                let certificate = world.directory.at(&format!("uacme/{NAME}/cert.pem"));
                serials.push(world.verify(&certificate, NAME));
            }
            assert_ne!(serials[0], serials[1], "renewed means a new certificate");
        });
    });
}

fn lego(world: &World, order: &[&str], start: &[&str]) -> Command {
    let (program, before) = start.split_first().expect("a program");
    let mut command = Command::new(program);
    command
        .args(before)
        .args(["--accept-tos", "--email", "root@example.com"])
        .args(["--domains", NAME, "--server", &world.directory_url()])
        .args(["--path", &world.directory.at("lego"), "--tls"])
        .args(["--tls.port", &format!("127.0.0.1:{RESPONDER}")])
        .args(order);
    command
}

fn to_lego() -> String {
    format!("tls_answer = {{ upstream = \"127.0.0.1:{RESPONDER}\" }}")
}

#[test]
fn lego_answers_for_itself_behind_the_gate_while_browsing_goes_on() {
    find("lego");
    inside(|| {
        let world = World::new(Names::V4).by_tls("relayed");
        let _site = TlsSite::start(Server::Python, SERVER);
        world.with_gate(&gate(NAME, &to_lego()), |daemon| {
            while_browsing_goes_on(|| {
                let unit = as_a_unit(&world, daemon);
                let mut serials = Vec::new();
                let renew = ["renew", "--days", "9999", "--no-random-sleep"];
                for order in [&["run"][..], &renew] {
                    world.issues(daemon, || {
                        let lego = lego(&world, order, &["sh", "-c", &unit, "lego"]);
                        world.client(lego, daemon).success();
                    });
                    let certificate = format!("lego/certificates/{NAME}.crt");
                    serials.push(world.verify(&world.directory.at(&certificate), NAME));
                }
                assert_ne!(serials[0], serials[1], "renewed means a new certificate");
            });
        });
    });
}

/// Its responder listens, and the CA does not get there.
#[test]
fn without_a_window_lego_gets_no_certificate() {
    find("lego");
    inside(|| {
        let world = World::new(Names::V4).by_tls("relayed");
        let _site = TlsSite::start(Server::Python, SERVER);
        let fails = |daemon: &Daemon| {
            let output = world.client(lego(&world, &["run"], &["lego"]), daemon);
            assert_eq!(output.code, 1, "{output}");
            assert!(world.ca_log().contains("INVALID"), "{}", world.ca_log());
        };
        // The kernel drops, and the gate never sees it.
        world.with_gate(&gate(NAME, &to_lego()), |daemon| {
            fails(daemon);
            assert_eq!(connections(daemon), Vec::<Value>::new());
        });
        // Where nothing is in the kernel, the gate says that no window covers the name.
        let mut gate = gate(NAME, &to_lego());
        gate.config += "[firewall]\nmode = \"gate-only\"\n";
        let daemon = Daemon::start(&gate.config);
        fails(&daemon);
        let seen = wait_for(SOON, "the log shows every validation", || {
            let seen = world.validations(&daemon);
            (seen.len() >= 3).then_some(seen)
        });
        for event in seen {
            assert_eq!(event["reason"], "not-covered", "{event:#}");
        }
    });
}

/// Caddy as the site's server and as its own client, on one port: visitors are led to it, and
/// validators get a handshake.
#[test]
fn caddy_gets_its_own_certificate_behind_the_gate() {
    find("caddy");
    inside(|| {
        let world = World::new(Names::V4).by_tls("relayed");
        let upstream = format!("tls_answer = {{ upstream = \"127.0.0.1:{SERVER}\" }}");
        world.with_gate(&gate(NAME, &upstream), |daemon| {
            let mut serials = Vec::new();
            let mut running = None;
            for number in 0..2 {
                // Forgetting everything is as good as a renewal.
                let home = world.directory.at(&format!("caddy-{number}"));
                let certificate = world.issued_by_caddy(&home);
                world.issues(daemon, || {
                    running = None;
                    daemon.cli(&["open", "--lease", "caddy"]).success();
                    running = Some(caddy(&world, daemon, &home));
                    let caddy = running.as_mut().expect("it was started");
                    wait_for(CLIENT, "Caddy has its certificate", || {
                        assert!(caddy.ended().is_none(), "{}", caddy.stderr());
                        std::path::Path::new(&certificate).exists().then_some(())
                    });
                    daemon.cli(&["close", "--lease", "caddy"]).success();
                });
                serials.push(world.verify(&certificate, NAME));
                let page = wait_for(SOON, "Caddy serves", || {
                    let page = visit();
                    page.contains(SECRET).then_some(page)
                });
                assert!(page.contains(SECRET));
            }
            assert_ne!(serials[0], serials[1], "renewed means a new certificate");
        });
    });
}

fn caddy(world: &World, daemon: &Daemon, home: &str) -> Process {
    let file = format!(
        "{{
            admin off
            storage file_system {home}
            http_port 8081
            https_port {SERVER}
            auto_https disable_redirects
        }}
        {NAME} {{
            bind 127.0.0.1
            tls {{
                issuer acme {{
                    dir {}
                    trusted_roots {}
                    disable_http_challenge
                }}
            }}
            respond {SECRET}
        }}
        ",
        world.directory_url(),
        world.bundle()
    );
    let file = world.directory.write("Caddyfile", &file);
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config", &file]);
    Process::spawn(world.prepare(command, daemon))
}

impl World {
    /// Where Caddy puts what it was issued.
    fn issued_by_caddy(&self, home: &str) -> String {
        let ca = self.directory_url();
        let ca = ca.trim_start_matches("https://").replace([':', '/'], "-");
        format!("{home}/certificates/{ca}/{NAME}/{NAME}.crt")
    }
}

/// The site knows its account, and this is another one: the client is told so, and the CA gets
/// nothing.
#[test]
fn another_account_gets_no_certificate() {
    inside(|| {
        let world = World::new(Names::V4).by_tls("answered");
        world.trust_by_mounting();
        let accounts = format!("accounts = [\"{STRANGER}\"]");
        world.with_gate(&gate(NAME, &accounts), |daemon| {
            world.install_hooks(daemon, &["uacme"]);
            uacme(&world, daemon, &["new"]).success();
            let output = uacme(&world, daemon, &["issue", NAME]);
            assert_ne!(output.code, 0, "{output}");
            assert!(output.text().contains("account"), "{output}");
            assert_eq!(daemon.status()["leases"], Value::Array(Vec::new()));
            assert_eq!(daemon.status()["pushed"], 0);
        });
    });
}
