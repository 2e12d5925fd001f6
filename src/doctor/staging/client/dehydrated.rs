//! dehydrated: a directory of its own, and its hook for challenges alone.

use std::path::Path;

use super::order::{Order, Staged};

impl Order<'_> {
    pub(super) fn dehydrated(&mut self) -> Result<Staged, String> {
        if !self.has("--cron") && !self.has("-c") {
            return Err(
                "`dehydrated` orders by --cron alone: name `dehydrated --cron …`".to_owned(),
            );
        }
        for command in [
            "--signcsr",
            "--revoke",
            "--deactivate",
            "--cleanup",
            "--register",
        ] {
            if self.has(command) {
                return Err(format!("`dehydrated {command}` is no trial: leave it out"));
            }
        }
        self.accept_server(&["--ca"])?;
        let hook = self.value(&["--hook", "-k"]).map(str::to_owned);
        let script = Path::new(self.scratch).join("hook");
        let text = match &hook {
            Some(hook) => {
                self.say("its hook is called for challenges, and not with the certificate");
                format!(
                    "#!/bin/sh\ncase \"$1\" in\ndeploy_cert|deploy_ocsp|unchanged_cert|sync_cert|generate_csr) exit 0 ;;\nesac\nexec {} \"$@\"\n",
                    crate::config::quoted(Path::new(hook))
                )
            }
            None => {
                self.say("no hook is called, for what it does with a certificate is unknown; name the one for challenges: `--hook FILE`");
                "#!/bin/sh\nexit 0\n".to_owned()
            }
        };
        self.say("its terms are accepted for staging, and certificates go into a directory of their own (--out)");
        let own = [
            "--ca".to_owned(),
            self.server_or("letsencrypt-test"),
            "--accept-terms".to_owned(),
            "--out".to_owned(),
            format!("{}/certs", self.scratch),
            "--hook".to_owned(),
            script.display().to_string(),
        ];
        let staged = self.staged("dehydrated", own.to_vec());
        Ok(Staged {
            script: Some((script, text)),
            ..staged
        })
    }
}
