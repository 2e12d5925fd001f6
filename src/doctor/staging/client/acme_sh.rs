//! acme.sh: an account and a directory of its own.

use super::order::{Order, Staged};

impl Order<'_> {
    pub(super) fn acme_sh(&mut self) -> Result<Staged, String> {
        if !self.has("--issue") {
            return Err("of acme.sh's commands only `acme.sh --issue …` is a trial".to_owned());
        }
        self.refuse(&[
            "reloadcmd",
            "reloadCmd",
            "renew-hook",
            "i",
            "install-cert",
            "installcert",
            "deploy",
            // Each of these has an older name.
            "key-file",
            "keypath",
            "cert-file",
            "certpath",
            "ca-file",
            "capath",
            "fullchain-file",
            "fullchainpath",
            "cert-home",
            "certhome",
            "config-home",
            "home",
        ])?;
        self.accept_server(&["--server"])?;
        self.say("acme.sh gets an account and a directory of its own (--config-home), so that no certificate in use is replaced");
        let mut own = match self.server {
            Some(url) => vec!["--server".to_owned(), url.to_owned()],
            None => vec![
                "--staging".to_owned(),
                "--server".to_owned(),
                "letsencrypt_test".to_owned(),
            ],
        };
        own.extend(["--config-home".to_owned(), self.scratch.to_owned()]);
        Ok(self.staged("acme.sh", own))
    }
}
