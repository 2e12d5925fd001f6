//! Apache's mod_md orders by itself and tells MDMessageCmd what it is about to do.

use std::process::Command;

use rustix::process::Signal;

use crate::lab::{BINARY, Daemon, Process, find, inside, wait_for};
use crate::world::{CLIENT, Gate, NAME, Names, SOON, World, site};

/// Where Apache listens, behind the gate.
const PORT: u16 = 8080;
/// Where it would answer tls-alpn-01, which it tries first.
const TLS_PORT: u16 = 8443;
/// Where Debian's package apache2-bin has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

struct Apache<'a> {
    world: &'a World,
    config: String,
}

impl<'a> Apache<'a> {
    /// With this program as the hook.
    fn new(world: &'a World, program: &str) -> Self {
        let at = |name: &str| world.directory.at(name);
        std::fs::create_dir_all(at("apache/run")).expect("a new directory");
        let module = |name: &str| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n");
        let modules: String = ["mpm_event", "authz_core", "ssl", "md"]
            .map(module)
            .concat();
        let (root, bundle, url) = (at("apache"), world.bundle(), world.directory_url());
        // Pebble's certificates live five years, so this is always due.
        let config = format!(
            "{modules}ServerRoot {root}\nDefaultRuntimeDir {root}/run\nPidFile {root}/pid\n\
             ErrorLog {root}/error.log\nLogLevel info md:debug\n\
             Listen 127.0.0.1:{PORT}\nServerName {NAME}\n\
             MDStoreDir {root}/md\nMDCertificateAuthority {url}\nMDCACertificateFile {bundle}\n\
             MDCertificateAgreement accepted\nMDContactEmail root@example.com\n\
             MDPortMap 80:{PORT} 443:{TLS_PORT}\nListen 127.0.0.1:{TLS_PORT}\n\
             Protocols http/1.1 acme-tls/1\nMDCAChallenges tls-alpn-01 http-01\nMDRenewMode always\n\
             MDRenewWindow 3000d\nMDMessageCmd {program} hook mod-md\nMDomain {NAME}\n\
             <VirtualHost 127.0.0.1:{PORT}>\nServerName {NAME}\n</VirtualHost>\n\
             <VirtualHost 127.0.0.1:{TLS_PORT}>\nServerName {NAME}\nSSLEngine on\n</VirtualHost>\n"
        );
        let config = world.directory.write("apache/apache.conf", &config);
        Self { world, config }
    }

    /// Apache refuses to serve as root, which a test is in its own namespace; so it has one where
    /// it is somebody else. To acmegate, outside of that one, it is who it was.
    fn start(&self) -> Process {
        let mut command = Command::new("env");
        command
            .args(["-i", "unshare", "--user", "--map-user=33", "--map-group=33"])
            .arg(find("apache2"))
            .args(["-DFOREGROUND", "-f", &self.config]);
        Process::spawn(command)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.world.directory.at("apache/error.log")).unwrap_or_default()
    }

    /// Runs until it has one more certificate, which it uses from its next start on; gives the
    /// serial number.
    fn renews(&self, daemon: &Daemon) -> String {
        let staged = format!("apache/md/staging/{NAME}/pubcert.pem");
        let staged = self.world.directory.at(&staged);
        // It closes when it has renewed, whether there was a window or not.
        let closed = || daemon.log().matches("\"ask\":\"close\"").count();
        self.world.issues(daemon, || {
            let past = closed();
            let mut apache = self.start();
            wait_for(CLIENT, "mod_md renews and tells so", || {
                let said = apache.stderr();
                assert!(apache.ended().is_none(), "{said}{}", self.log());
                (closed() > past).then_some(())
            });
            apache.signal(Signal::TERM);
            apache.wait(SOON);
        });
        assert!(
            daemon.log().contains("(apache2-") && daemon.log().contains("nothing wrong"),
            "{}",
            daemon.log()
        );
        self.world.verify(&staged, NAME)
    }

    /// What mod_md keeps of its work on this domain.
    fn job(&self) -> String {
        let job = format!("apache/md/staging/{NAME}/job.json");
        std::fs::read_to_string(self.world.directory.at(&job)).unwrap_or_default()
    }
}

#[test]
fn mod_md_issues_and_renews_by_its_message_command() {
    inside(|| {
        let world = World::new(Names::V4);
        let upstream = format!("{{ upstream = \"http://127.0.0.1:{PORT}\" }}");
        world.with_gate(&Gate::guard(&site(&upstream)), |daemon| {
            let apache = Apache::new(&world, &program(daemon));
            let issued = apache.renews(daemon);
            assert!(
                apache
                    .log()
                    .contains("declined: acmegate opens for http-01")
            );
            let renewed = apache.renews(daemon);
            assert_ne!(issued, renewed, "renewed means a new certificate");
        });
    });
}

/// A hook that fails keeps mod_md from telling the CA: nothing fails there, and it tries later.
#[test]
fn mod_md_asks_for_no_validation_when_the_window_is_refused() {
    inside(|| {
        let world = World::new(Names::V4);
        let upstream = format!("{{ upstream = \"http://127.0.0.1:{PORT}\" }}");
        world.with_gate(&Gate::guard(&site(&upstream)), |daemon| {
            let nobody = world.directory.at("nobody-listens-here");
            let script = format!("#!/bin/sh\nexec '{BINARY}' --runtime-dir '{nobody}' \"$@\"\n");
            let apache = Apache::new(&world, &world.directory.program("refused", &script));
            let mut running = apache.start();
            wait_for(CLIENT, "mod_md gives up for now", || {
                assert!(
                    running.ended().is_none(),
                    "{}{}",
                    running.stderr(),
                    apache.log()
                );
                apache
                    .job()
                    .contains("challenge-setup-failure")
                    .then_some(())
            });
            running.signal(Signal::TERM);
            running.wait(SOON);
            assert!(!world.ca_log().contains("INVALID"), "{}", world.ca_log());
            assert_eq!(world.validations(daemon), [] as [serde_json::Value; 0]);
        });
    });
}

/// Apache runs its commands without an environment: they have a whole path.
fn program(daemon: &Daemon) -> String {
    let path = daemon.search_path();
    let directory = path
        .split(':')
        .next()
        .expect("the first one is the daemon's");
    format!("{directory}/acmegate")
}
