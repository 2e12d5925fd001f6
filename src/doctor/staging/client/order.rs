//! What the caller wrote, and what stands behind it in the end.

use std::path::PathBuf;

/// Let's Encrypt's staging directory.
pub(super) const LETS_ENCRYPT: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Directories and presets that are for tests, whoever names them (2026-11).
const STAGING: [&str; 6] = [
    LETS_ENCRYPT,
    "letsencrypt-test",
    "letsencrypt_test",
    "https://dv.acme-v02.test-api.pki.goog/directory",
    "google-test",
    "googletest",
];

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

/// What the caller wrote.
pub(super) struct Order<'a> {
    pub(super) before: &'a [String],
    pub(super) program: &'a str,
    pub(super) arguments: &'a [String],
    pub(super) server: Option<&'a str>,
    pub(super) scratch: &'a str,
    pub(super) words: Vec<String>,
}

impl Order<'_> {
    /// The caller's own server must be a staging one, or the one that was named.
    pub(super) fn accept_server(&mut self, options: &[&str]) -> Result<(), String> {
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
    pub(super) fn server_or(&self, usual: &str) -> String {
        let own = self.value(&["--server", "-server", "-s", "--ca"]);
        let own = own.filter(|own| STAGING.contains(own));
        self.server.or(own).unwrap_or(usual).to_owned()
    }

    pub(super) fn refuse(&self, options: &[&str]) -> Result<(), String> {
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

    pub(super) fn has(&self, option: &str) -> bool {
        self.arguments.iter().any(|word| word == option)
    }

    /// The last value of an option, behind it or behind an equals sign.
    pub(super) fn value(&self, options: &[&str]) -> Option<&str> {
        let mut each = self.arguments.iter().enumerate().rev();
        each.find_map(|(at, word)| match word.split_once('=') {
            Some((name, value)) if options.contains(&name) => Some(value),
            _ if options.contains(&word.as_str()) => self.arguments.get(at + 1).map(String::as_str),
            _ => None,
        })
    }

    pub(super) fn say(&mut self, word: &str) {
        self.words.push(word.to_owned());
    }

    pub(super) fn command(&self, arguments: &[String]) -> Vec<String> {
        [self.before, &[self.program.to_owned()], arguments].concat()
    }

    pub(super) fn staged(&mut self, name: &'static str, more: Vec<String>) -> Staged {
        let command = self.command(&[self.arguments, &more].concat());
        self.with(name, vec![command])
    }

    pub(super) fn with(&mut self, name: &'static str, commands: Vec<Vec<String>>) -> Staged {
        Staged {
            name,
            commands,
            script: None,
            words: std::mem::take(&mut self.words),
        }
    }
}
