//! Debian's certbot, as its manual says, with `acmegate open` and `acmegate close` as its hooks.

use std::process::Command;

use crate::lab::{Daemon, Output};
use crate::world::{NAME, World};

/// What every certificate in this world is ordered with.
pub struct Certbot<'a> {
    pub world: &'a World,
    pub daemon: &'a Daemon,
}

/// The hooks that open and close the window.
pub const HOOKS: [&str; 4] = [
    "--pre-hook",
    "acmegate open",
    "--post-hook",
    "acmegate close",
];

impl Certbot<'_> {
    /// Issues and renews by `certbot certonly` with these options, each time as the world must see
    /// it: two certificates of the CA for [`NAME`].
    pub fn issues_and_renews(&self, start: impl Fn() -> Command, options: &[&str]) {
        self.world.issues(self.daemon, || {
            self.certonly(start(), options).success();
        });
        self.renews(start);
    }

    /// Renews by `certbot renew`, as the world must see it.
    pub fn renews(&self, start: impl Fn() -> Command) {
        let before = self.serial();
        self.world.issues(self.daemon, || {
            let mut command = start();
            command.args(["renew", "--force-renewal", "--no-random-sleep-on-renew"]);
            let output = self.world.client(self.settled(command), self.daemon);
            let output = output.success();
            assert!(output.text().contains("all renewals succeeded"), "{output}");
        });
        assert_ne!(self.serial(), before, "renewed means a new certificate");
    }

    /// One `certbot certonly` with these options, however it ends.
    pub fn certonly(&self, command: Command, options: &[&str]) -> Output {
        let mut command = self.certonly_command(command, options);
        // Where pebble asked for no validation the client runs again, and has a certificate by then.
        command.arg("--force-renewal");
        self.world.client(command, self.daemon)
    }

    /// The same, not started yet.
    pub fn certonly_command(&self, mut command: Command, options: &[&str]) -> Command {
        command
            .args(["certonly", "-d", NAME, "--preferred-challenges", "http"])
            .args(["--agree-tos", "--register-unsafely-without-email"])
            .args(["--server", &self.world.directory_url()])
            .args(options);
        self.settled(command)
    }

    /// The serial number of the newest certificate, which is the CA's.
    pub fn serial(&self) -> String {
        let chain = format!("certbot/live/{NAME}/fullchain.pem");
        self.world.verify(&self.world.directory.at(&chain), NAME)
    }

    fn settled(&self, mut command: Command) -> Command {
        let at = |name: &str| self.world.directory.at(name);
        command
            .args(["--non-interactive", "--config-dir", &at("certbot")])
            .args(["--work-dir", &at("certbot-work")])
            .args(["--logs-dir", &at("certbot-log")]);
        command
    }
}
