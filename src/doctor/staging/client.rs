//! Which arguments make an ACME client order from a CA's staging environment alone, and keep it from touching the
//! certificates that are in use. A client for which that is not certain is refused.
//!
//! Ours come last on a command line, where every client that is known here lets the last one win. Pure.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Let's Encrypt's staging directory.
const LETS_ENCRYPT: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Directories and presets that are for tests, whoever names them (2026-11).
const STAGING: [&str; 6] = [
    LETS_ENCRYPT,
    "letsencrypt-test",
    "letsencrypt_test",
    "https://dv.acme-v02.test-api.pki.goog/directory",
    "google-test",
    "googletest",
];
/// The clients that are known.
const KNOWN: &str = "certbot, lego, dehydrated, uacme, acme.sh";

/// A client that will ask a staging environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// What the client is called.
    pub name: &'static str,
    /// What is run, one after the other, each only if the one before went well.
    pub commands: Vec<Vec<String>>,
    /// A script that must be there, and can be executed.
    pub script: Option<(PathBuf, String)>,
    /// What was added to what the caller wrote, and why; a sentence each.
    pub words: Vec<String>,
}

/// Makes a command a staging one. `server` is the staging directory that the caller named, if any; below `scratch`, a
/// directory of nobody else's, goes what the client would otherwise put in place of certificates that are in use.
///
/// # Errors
/// Why it cannot be done for certain, and what to write instead.
pub fn stage(command: &[OsString], server: Option<&str>, scratch: &Path) -> Result<Staged, String> {
    let words: Option<Vec<String>> = command
        .iter()
        .map(|word| word.to_str().map(str::to_owned))
        .collect();
    let words = words.ok_or("the command is not UTF-8")?;
    let scratch = scratch.to_str().ok_or("the directory is not UTF-8")?;
    let (before, client) = words.split_at(behind_exec(&words)?);
    let (program, arguments) = client.split_first().ok_or("no command")?;
    let name = Path::new(program)
        .file_name()
        .and_then(|name| name.to_str());
    let mut order = Order {
        before,
        program,
        arguments,
        server,
        scratch,
        words: Vec::new(),
    };
    match name {
        Some("certbot") => order.certbot(),
        Some("lego") => order.lego(),
        Some("dehydrated") => order.dehydrated(),
        Some("uacme") => order.uacme(),
        Some("acme.sh") => order.acme_sh(),
        _ => Err(format!(
            "{program} is no ACME client that is known here ({KNOWN}), so nobody knows what makes it staging: name the client itself, without a wrapper"
        )),
    }
}

/// Where the client's own command begins: `acmegate exec OPTIONS --` may stand before it.
fn behind_exec(words: &[String]) -> Result<usize, String> {
    let is_ours = words.first().is_some_and(|word| {
        Path::new(word)
            .file_name()
            .is_some_and(|name| name == "acmegate")
    });
    if !is_ours {
        return Ok(0);
    }
    let end = words.iter().position(|word| word == "--");
    match (words.get(1).map(String::as_str), end) {
        (Some("exec"), Some(end)) => Ok(end + 1),
        _ => Err(
            "of acmegate's own commands only `acmegate exec -- CLIENT…` starts a client".to_owned(),
        ),
    }
}

/// What the caller wrote.
struct Order<'a> {
    before: &'a [String],
    program: &'a str,
    arguments: &'a [String],
    server: Option<&'a str>,
    scratch: &'a str,
    words: Vec<String>,
}

impl Order<'_> {
    fn certbot(&mut self) -> Result<Staged, String> {
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

    fn lego(&mut self) -> Result<Staged, String> {
        let at = lego_command(self.arguments).ok_or(
            "the command of `lego` cannot be told from its options: write `lego OPTIONS run`",
        )?;
        let order = self.arguments.get(at).map_or("", String::as_str);
        if order != "run" {
            return Err(format!(
                "`lego {order}` would work on the certificates that are in use: name `lego OPTIONS run`, which gets a directory of its own here"
            ));
        }
        self.refuse(&["run-hook", "renew-hook", "deploy-hook"])?;
        self.accept_server(&["--server", "-server", "-s"])?;
        self.say("lego gets an account and a directory of its own (--path), so that no certificate in use is replaced");
        let server = self.server_or(LETS_ENCRYPT);
        let own = ["--server", &server, "--path", self.scratch].map(str::to_owned);
        // Since version 5 options stand behind the command.
        let (options, rest) = self.arguments.split_at(at);
        let arguments = match options.is_empty() && rest.len() > 1 {
            true => [rest, &own].concat(),
            false => [options, &own, rest].concat(),
        };
        Ok(self.with("lego", vec![self.command(&arguments)]))
    }

    fn dehydrated(&mut self) -> Result<Staged, String> {
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

    fn uacme(&mut self) -> Result<Staged, String> {
        if !self.has("issue") {
            return Err(
                "of uacme's commands only `uacme OPTIONS issue IDENTIFIER…` is a trial".to_owned(),
            );
        }
        self.accept_server(&["--acme-url", "-a"])?;
        self.say("uacme gets an account and a directory of its own (--confdir), whose terms are accepted");
        let mut own = match self.server {
            Some(url) => vec!["--acme-url".to_owned(), url.to_owned()],
            None => vec!["--staging".to_owned()],
        };
        own.extend([
            "--confdir".to_owned(),
            self.scratch.to_owned(),
            "--yes".to_owned(),
        ]);
        let account = [&[self.program.to_owned()], &own[..], &["new".to_owned()]].concat();
        let order = self.command(&[self.arguments, &own].concat());
        Ok(self.with("uacme", vec![account, order]))
    }

    fn acme_sh(&mut self) -> Result<Staged, String> {
        if !self.has("--issue") {
            return Err("of acme.sh's commands only `acme.sh --issue …` is a trial".to_owned());
        }
        self.refuse(&[
            "reloadcmd",
            "renew-hook",
            "install-cert",
            "installcert",
            "deploy",
            "key-file",
            "cert-file",
            "ca-file",
            "fullchain-file",
            "cert-home",
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

    /// The caller's own server must be a staging one, or the one that was named.
    fn accept_server(&mut self, options: &[&str]) -> Result<(), String> {
        match (self.value(options), self.server) {
            (Some(own), Some(server)) if own == server => Ok(()),
            (Some(own), None) if STAGING.contains(&own) => Ok(()),
            (Some(own), _) => Err(format!(
                "{own} is not known to be a staging environment: leave it out, or name the CA's by `--staging-server URL`"
            )),
            (None, server) => {
                if let Some(server) = server {
                    self.say(&format!("the order goes to {server}"));
                } else {
                    self.say("the order goes to Let's Encrypt's staging environment");
                }
                Ok(())
            }
        }
    }

    /// The server: the caller's, or the one that was named, or `usual`.
    fn server_or(&self, usual: &str) -> String {
        let own = self.value(&["--server", "-server", "-s", "--ca"]);
        let own = own.filter(|own| STAGING.contains(own));
        self.server.or(own).unwrap_or(usual).to_owned()
    }

    fn refuse(&self, options: &[&str]) -> Result<(), String> {
        let named = self.arguments.iter().find(|word| {
            let name = word
                .trim_start_matches('-')
                .split('=')
                .next()
                .unwrap_or_default();
            word.starts_with('-') && options.contains(&name)
        });
        match named {
            Some(word) => Err(format!(
                "leave {word} out: it would put a staging certificate in place of one in use"
            )),
            None => Ok(()),
        }
    }

    fn has(&self, option: &str) -> bool {
        self.arguments.iter().any(|word| word == option)
    }

    /// The last value of an option, behind it or behind an equals sign.
    fn value(&self, options: &[&str]) -> Option<&str> {
        let mut each = self.arguments.iter().enumerate().rev();
        each.find_map(|(at, word)| match word.split_once('=') {
            Some((name, value)) if options.contains(&name) => Some(value),
            _ if options.contains(&word.as_str()) => self.arguments.get(at + 1).map(String::as_str),
            _ => None,
        })
    }

    fn say(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    fn command(&self, arguments: &[String]) -> Vec<String> {
        [self.before, &[self.program.to_owned()], arguments].concat()
    }

    fn staged(&mut self, name: &'static str, more: Vec<String>) -> Staged {
        let command = self.command(&[self.arguments, &more].concat());
        self.with(name, vec![command])
    }

    fn with(&mut self, name: &'static str, commands: Vec<Vec<String>>) -> Staged {
        Staged {
            name,
            commands,
            script: None,
            words: std::mem::take(&mut self.words),
        }
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

/// Options of lego's that have no value (version 4).
const LEGO_FLAGS: [&str; 13] = [
    "accept-tos",
    "a",
    "eab",
    "http",
    "tls",
    "dns.disable-cp",
    "pem",
    "pfx",
    "tls-skip-verify",
    "disable-cn",
    "overall-request-limit-off",
    "help",
    "h",
];

/// Where lego's command stands: behind its options. An option that is not known here has a value, so that at
/// worst no command is found.
fn lego_command(arguments: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        if !word.starts_with('-') {
            return Some(at);
        }
        let name = word.trim_start_matches('-');
        at += match name.contains('=') || LEGO_FLAGS.contains(&name) {
            true => 1,
            false => 2,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEBBLE: &str = "https://127.0.0.1:14000/dir";

    fn staged(line: &str, server: Option<&str>) -> Result<Staged, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        stage(&words, server, Path::new("/scratch"))
    }

    #[track_caller]
    fn lines(line: &str, server: Option<&str>) -> Vec<String> {
        let staged = staged(line, server).unwrap();
        assert!(!staged.words.is_empty() || server.is_none());
        staged
            .commands
            .iter()
            .map(|words| words.join(" "))
            .collect()
    }

    #[test]
    fn what_is_ours_comes_last_and_makes_each_client_a_staging_one() {
        for (line, server, wanted) in [
            (
                "certbot renew",
                None,
                "certbot renew --dry-run --server https://acme-staging-v02.api.letsencrypt.org/directory --non-interactive --no-random-sleep-on-renew",
            ),
            (
                "/usr/bin/certbot certonly --dry-run -d a.test --webroot -w /srv --non-interactive",
                Some(PEBBLE),
                "/usr/bin/certbot certonly --dry-run -d a.test --webroot -w /srv --non-interactive --server https://127.0.0.1:14000/dir",
            ),
            (
                "acmegate exec --for 2m -- certbot renew --no-random-sleep-on-renew",
                Some(PEBBLE),
                "acmegate exec --for 2m -- certbot renew --no-random-sleep-on-renew --dry-run --server https://127.0.0.1:14000/dir --non-interactive",
            ),
            (
                "lego --accept-tos --email a@b.test --domains a.test --http --path /etc/lego run",
                None,
                "lego --accept-tos --email a@b.test --domains a.test --http --path /etc/lego --server https://acme-staging-v02.api.letsencrypt.org/directory --path /scratch run",
            ),
            (
                "lego run --domains a.test --path=/etc/lego",
                Some(PEBBLE),
                "lego run --domains a.test --path=/etc/lego --server https://127.0.0.1:14000/dir --path /scratch",
            ),
            (
                "dehydrated --cron --ca letsencrypt-test --hook /etc/hook",
                None,
                "dehydrated --cron --ca letsencrypt-test --hook /etc/hook --ca letsencrypt-test --accept-terms --out /scratch/certs --hook /scratch/hook",
            ),
            (
                "acme.sh --issue -d a.test -w /srv",
                None,
                "acme.sh --issue -d a.test -w /srv --staging --server letsencrypt_test --config-home /scratch",
            ),
        ] {
            assert_eq!(lines(line, server), [wanted], "{line}");
        }
        assert_eq!(
            lines("uacme --confdir /etc/uacme --hook /x issue a.test", None),
            [
                "uacme --staging --confdir /scratch --yes new",
                "uacme --confdir /etc/uacme --hook /x issue a.test --staging --confdir /scratch --yes",
            ]
        );
    }

    #[test]
    fn what_cannot_be_made_staging_for_certain_is_refused() {
        for (line, server, word) in [
            ("certbot", None, "certbot run"),
            ("certbot run -d a.test", None, "no --dry-run"),
            ("certbot delete", None, "certbot delete"),
            (
                "certbot renew --server https://acme.ca.test/dir",
                None,
                "--staging-server",
            ),
            (
                "certbot renew --server=https://acme.ca.test/dir",
                Some(PEBBLE),
                "not known",
            ),
            ("lego --domains a.test renew", None, "lego renew"),
            ("lego --domains a.test", None, "cannot be told"),
            ("lego --domains", None, "cannot be told"),
            (
                "lego --domains a.test run --run-hook /x",
                None,
                "--run-hook",
            ),
            (
                "lego -s https://acme.ca.test/dir --http run",
                None,
                "not known",
            ),
            ("dehydrated --revoke x", None, "--cron"),
            ("dehydrated -c --ca zerossl", None, "zerossl"),
            ("uacme new", None, "issue"),
            (
                "uacme -a https://acme.ca.test/dir issue a.test",
                None,
                "not known",
            ),
            ("acme.sh --renew -d a.test", None, "--issue"),
            (
                "acme.sh --issue -d a.test --fullchain-file /etc/x.pem",
                None,
                "--fullchain-file",
            ),
            ("caddy run", None, "no ACME client"),
            ("sudo certbot renew", None, "sudo is no ACME client"),
            ("acmegate run", None, "exec"),
            ("acmegate exec certbot renew", None, "exec"),
        ] {
            let refused = staged(line, server);
            let why = refused.expect_err(line);
            assert!(why.contains(word), "{line}: {why}");
        }
    }

    #[test]
    fn dehydrateds_hook_gets_challenges_and_no_certificate() {
        let (path, text) = staged("dehydrated -c -k /etc/hook", None)
            .unwrap()
            .script
            .unwrap();
        assert_eq!(path, Path::new("/scratch/hook"));
        assert!(text.contains("exec /etc/hook \"$@\""), "{text}");
        assert!(text.contains("deploy_cert"), "{text}");
        let (_, text) = staged("dehydrated -c", None).unwrap().script.unwrap();
        assert_eq!(text, "#!/bin/sh\nexit 0\n");
    }
}
