//! lego: an account and a directory of its own.

use super::order::{LETS_ENCRYPT, Order, Staged};

impl Order<'_> {
    pub(super) fn lego(&mut self) -> Result<Staged, String> {
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
}

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
