//! lego 5: LEGO_HOOK_* variables for --pre-hook and --post-hook. A --pre-hook that fails stops it.
//!
//! lego 4 has no hook before the order: whoever calls it opens. Its --run-hook and --renew-hook
//! come after a success alone, and are told other variables.

use std::process::ExitCode;

use clap::ValueEnum;

use super::{Daemon, lease, say, variable};
use crate::cli::Failure;
use crate::control::protocol::Exit;

/// Which hook calls.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum When {
    /// --pre-hook: open for the names of the certificate
    Pre,
    /// --post-hook: close, whatever came of it
    Post,
}

const DOMAINS: &str = "LEGO_HOOK_CERT_DOMAINS";
const WHO: &str = "lego 5 sets it for --pre-hook; lego 4 has no hook before the order, \
    so there `acmegate open` stands before lego and `acmegate close` after it";

pub fn run(daemon: Daemon<'_>, when: When) -> Result<ExitCode, Failure> {
    let response = match when {
        When::Pre => daemon.open(lease()?, Some(http_names(&variable(DOMAINS, WHO)?)?)),
        When::Post => daemon.close(lease()?),
    };
    Ok(say(vec![response?]))
}

/// The names that http-01 can validate: a wildcard is dns-01's alone (RFC 8555 §8.3).
fn http_names(domains: &str) -> Result<Vec<String>, Failure> {
    let names = domains.split(',').map(str::trim);
    let names: Vec<String> = names
        .filter(|name| !name.is_empty() && !name.starts_with("*."))
        .map(str::to_owned)
        .collect();
    match names.is_empty() {
        true => Err(Failure::new(
            Exit::Data,
            format!(
                "{DOMAINS} has no name that http-01 validates: a wildcard needs dns-01, and no window"
            ),
        )),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_need_no_window() {
        let names = http_names("*.a.test, a.test,192.0.2.1,").map_err(|failure| failure.message);
        assert_eq!(names, Ok(vec!["a.test".to_owned(), "192.0.2.1".to_owned()]));
        for none in ["", ",", "*.a.test"] {
            assert!(http_names(none).is_err(), "{none}");
        }
    }
}
