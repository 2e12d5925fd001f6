//! Which arguments make an ACME client order from a CA's staging environment alone, and keep it from touching the
//! certificates that are in use. A client for which that is not certain is refused.
//!
//! Ours come last on a command line, where every client that is known here lets the last one win. Pure.
//!
//! | file | |
//! | --- | --- |
//! | `order.rs` | what the caller wrote, and what every client's arguments have in common |
//! | `certbot.rs` `lego.rs` `dehydrated.rs` `uacme.rs` `acme_sh.rs` | what is the client's own |

mod acme_sh;
mod certbot;
mod dehydrated;
mod lego;
pub mod order;
mod uacme;

use std::ffi::OsString;
use std::path::Path;

use self::order::{Order, Staged};

/// The clients that are known.
const KNOWN: &str = "certbot, lego, dehydrated, uacme, acme.sh";

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
    // Behind it nothing is an option any more, and ours come last.
    if arguments.iter().any(|word| word == "--") {
        return Err(format!(
            "leave `--` out among the arguments of {program}: behind it nothing makes the order a staging one"
        ));
    }
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
            ("uacme --hook /x -- issue a.test", None, "leave `--` out"),
            ("lego run --domains a.test --", None, "leave `--` out"),
            ("acme.sh --renew -d a.test", None, "--issue"),
            (
                "acme.sh --issue -d a.test --fullchain-file /etc/x.pem",
                None,
                "--fullchain-file",
            ),
            (
                "acme.sh --issue -d a.test --fullchainpath /etc/x.pem",
                None,
                "--fullchainpath",
            ),
            (
                "acme.sh --issue -d a.test --keypath /etc/x.key",
                None,
                "--keypath",
            ),
            (
                "acme.sh --issue -d a.test --reloadCmd x",
                None,
                "--reloadCmd",
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
