//! Hosts on which a validation fails for one reason each. The doctor's first finding is that reason: what it says to do is
//! done, nothing else, and the certificate is issued.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::certbot::{Certbot, HOOKS};
use crate::doctor::{doctor, resolve_by_the_ca};
use crate::lab::{Daemon, Process, find, inside, nft, run, wait_for};
use crate::world::{Gate, NAME, Names, SOON, World, site};

/// A host whose web root answers, until something is done to it.
struct Host {
    world: World,
    webroot: String,
}

impl Host {
    fn new() -> Self {
        let world = World::new(Names::V4);
        resolve_by_the_ca(&world);
        let webroot = world.directory.at("html");
        fs::create_dir(&webroot).expect("a new directory");
        Self { world, webroot }
    }

    fn gate(&self) -> Gate {
        Gate::guard(&site(&format!("{{ webroot = \"{}\" }}", self.webroot)))
    }

    /// The client's options with the webroot.
    fn options(&self) -> Vec<&str> {
        [&["--webroot", "--webroot-path", &self.webroot], &HOOKS[..]].concat()
    }

    fn issues(&self, daemon: &Daemon, options: &[&str]) {
        let world = &self.world;
        let certbot = Certbot { world, daemon };
        world.issues(daemon, || {
            certbot.certonly(Command::new("certbot"), options).success();
        });
        certbot.serial();
    }

    /// The positive control of what is done to the host: now it fails.
    fn fails(&self, daemon: &Daemon, options: &[&str]) {
        let world = &self.world;
        let certbot = Certbot { world, daemon };
        let output = certbot.certonly(Command::new("certbot"), options);
        assert_ne!(output.code, 0, "{output}");
    }

    /// The first finding, which must be this fault.
    #[track_caller]
    fn fault(&self, daemon: &Daemon, code: &str) -> Value {
        let (exit, letter) = doctor(&self.world, daemon, &[NAME]);
        first(&letter, code);
        assert_eq!(exit, 2, "{letter:#}");
        letter["findings"][0].clone()
    }

    /// No fault is left.
    #[track_caller]
    fn healthy(&self, daemon: &Daemon) {
        let (exit, letter) = doctor(&self.world, daemon, &[NAME]);
        assert_ne!(exit, 2, "{letter:#}");
    }
}

#[track_caller]
fn first(letter: &Value, code: &str) {
    let first = &letter["findings"][0];
    assert_eq!(first["code"], code, "{letter:#}");
    assert_eq!(first["severity"], "fault", "{letter:#}");
}

/// What is to be typed, by the finding's own words, of the commands that this host has.
#[track_caller]
fn type_it(finding: &Value, begins: &str) {
    let remedies = finding["remedy"].as_array().expect("a list");
    let words = remedies.iter().filter_map(Value::as_str);
    let mut commands = words.flat_map(|line| line.split('`').skip(1).step_by(2));
    let command = commands.find(|command| command.starts_with(begins));
    let command = command.unwrap_or_else(|| panic!("{finding:#}"));
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    run(shell, SOON).success();
}

#[test]
fn somebody_has_the_gates_port() {
    inside(|| {
        let host = Host::new();
        host.world.with_gate(&host.gate(), |daemon| {
            assert_eq!(daemon.terminate(), 0);
            let other = TcpListener::bind("0.0.0.0:80").expect("a free port");
            let finding = host.fault(daemon, "port-taken");
            let seen = finding["evidence"][0].as_str().expect("a line");
            assert!(
                seen.contains(&format!("(pid {})", std::process::id())),
                "{seen}"
            );
            drop(other);
            daemon.start_again();
            host.healthy(daemon);
            host.issues(daemon, &host.options());
        });
    });
}

#[test]
fn a_directory_keeps_the_gate_out() {
    inside(|| {
        let host = Host::new();
        host.world.with_gate(&host.gate(), |daemon| {
            let challenges = format!("{}/.well-known/acme-challenge", host.webroot);
            fs::create_dir_all(&challenges).expect("a new directory");
            fs::set_permissions(&challenges, Permissions::from_mode(0o600)).expect("our own");
            host.fails(daemon, &host.options());
            let finding = host.fault(daemon, "webroot-unreadable");
            type_it(&finding, "chmod");
            host.healthy(daemon);
            host.issues(daemon, &host.options());
        });
    });
}

#[test]
fn the_webroot_was_made_anew() {
    inside(|| {
        let host = Host::new();
        host.world.with_gate(&host.gate(), |daemon| {
            fs::remove_dir(&host.webroot).expect("an empty directory");
            fs::create_dir(&host.webroot).expect("a new directory");
            host.fails(daemon, &host.options());
            host.fault(daemon, "webroot-replaced");
            // `systemctl restart acmegate`, as the unit does it.
            assert_eq!(daemon.end_by(Signal::USR1), 0);
            daemon.start_again();
            host.healthy(daemon);
            host.issues(daemon, &host.options());
        });
    });
}

#[test]
fn the_file_was_changed_and_the_gate_not_told() {
    inside(|| {
        let host = Host::new();
        let right = host.gate();
        let wrong = Gate::guard(
            &site(&format!("{{ webroot = \"{}\" }}", host.webroot)).replace(NAME, "b.example.com"),
        );
        host.world.with_gate(&wrong, |daemon| {
            host.fault(daemon, "no-site");
            daemon.write_config(&right.config);
            host.fails(daemon, &host.options());
            host.fault(daemon, "other-configuration");
            // `systemctl reload acmegate`, as the unit does it.
            daemon.signal(Signal::HUP);
            wait_for(SOON, "the gate knows the name", || {
                let sites = daemon.status()["sites"].to_string();
                sites.contains(NAME).then_some(())
            });
            host.healthy(daemon);
            host.issues(daemon, &host.options());
        });
    });
}

/// A web server that sends everybody to HTTPS, challenges too.
const REDIRECTS: &str = r"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(301)
        self.send_header('Location', 'https://www.example.com' + self.path)
        self.end_headers()
http.server.ThreadingHTTPServer(('', 443), Handler).serve_forever()
";

#[test]
fn a_forgotten_rule_leads_port_80_to_another_server() {
    inside(|| {
        let host = Host::new();
        host.world.with_gate(&host.gate(), |daemon| {
            let mut other = Command::new(find("python3"));
            other.args(["-c", REDIRECTS]);
            let _other = Process::spawn(other);
            wait_for(SOON, "it listens", || {
                std::net::TcpStream::connect("127.0.0.1:443").is_ok().then_some(())
            });
            nft(
                "table ip forgotten {\n\
                 chain in { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :443\n}\n\
                 chain out { type nat hook output priority -100; tcp dport 80 redirect to :443\n}\n}\n",
            );
            // The rule is the cause; that the other server answers follows from it.
            let finding = host.fault(daemon, "sent-elsewhere");
            assert!(finding.to_string().contains("ip forgotten in"), "{finding:#}");
            nft("delete table ip forgotten\n");
            host.healthy(daemon);
            host.issues(daemon, &host.options());
        });
    });
}

#[test]
fn the_inner_clients_port_is_dropped() {
    inside(|| {
        let host = Host::new();
        let gate = Gate::guard(&site("{ upstream = \"http://127.0.0.1:5080\" }"));
        host.world.with_gate(&gate, |daemon| {
            nft(
                "table ip inner { chain in { type filter hook input priority 0; tcp dport 5080 drop\n}\n}\n",
            );
            host.fault(daemon, "upstream-slow");
            nft("delete table ip inner\n");
            host.healthy(daemon);
            let standalone = ["--standalone", "--http-01-port", "5080"];
            host.issues(daemon, &[&standalone, &HOOKS[..]].concat());
        });
    });
}
