//! certbot: a dry run, which saves nothing.

use super::order::{LETS_ENCRYPT, Order, Staged};

impl Order<'_> {
    pub(super) fn certbot(&mut self) -> Result<Staged, String> {
        // As certbot finds it: wherever it stands.
        let verb = self
            .arguments
            .iter()
            .find(|word| CERTBOT_VERBS.contains(&word.as_str()));
        let is_renewal = match verb.map(String::as_str) {
            Some("certonly") => false,
            Some("renew") => true,
            verb => {
                return Err(format!(
                    "`certbot {}` has no --dry-run: name `certbot renew` or `certbot certonly …`",
                    verb.unwrap_or("run")
                ));
            }
        };
        self.accept_server(&["--server"])?;
        let mut more = Vec::new();
        if !self.has("--dry-run") {
            self.say("--dry-run was added: nothing is saved and no deploy-hook runs");
            more.push("--dry-run".to_owned());
        }
        more.extend(["--server".to_owned(), self.server_or(LETS_ENCRYPT)]);
        for (needed, option) in [
            (true, "--non-interactive"),
            (is_renewal, "--no-random-sleep-on-renew"),
        ] {
            if needed && !self.has(option) {
                more.push(option.to_owned());
            }
        }
        Ok(self.staged("certbot", more))
    }
}

/// The words by which certbot knows what to do (certbot/_internal/cli/cli_constants.py and verb_help.py).
const CERTBOT_VERBS: [&str; 17] = [
    "auth",
    "certonly",
    "config_changes",
    "run",
    "install",
    "plugins",
    "register",
    "unregister",
    "renew",
    "revoke",
    "update_symlinks",
    "certificates",
    "delete",
    "enhance",
    "show_account",
    "reconfigure",
    "update_account",
];
