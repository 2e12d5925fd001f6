//! `acmegate close`: the post-hook. A lease that already ended is no failure.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, caller, finish};
use crate::control::client;
use crate::control::protocol::{Ask, SaidWord};
use crate::observe::record::MAX_SAID;

/// Which lease is released.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// The lease's name [default: the calling ACME client and its pid]
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    /// Print nothing when all is well
    #[arg(long, short)]
    quiet: bool,
}

pub fn run(runtime_dir: &Path, args: &CloseArgs) -> Result<ExitCode, Failure> {
    let client = caller::client();
    let said = client
        .as_ref()
        .filter(|client| client.name == CERTBOT)
        .and_then(|_| said(|variable| std::env::var(variable).ok()));
    let lease = match &args.lease {
        Some(lease) => lease.clone(),
        None => caller::default_lease(client.as_ref())?,
    };
    let response = client::ask(runtime_dir, Ask::Close { lease, said })?;
    Ok(finish(&response, args.quiet))
}

/// Whose post-hook is told more than nothing.
const CERTBOT: &str = "certbot";
/// certbot cuts FAILED_DOMAINS and RENEWED_DOMAINS to so many characters, wherever that is.
const CUT_AT: [usize; 2] = [16_000, 32_000];

/// What certbot tells its post-hook (4.2 and later): names in one variable each, by spaces.
///
/// Its variables leak from one hook into the next, and an older certbot's post-hook still sees the
/// RENEWED_DOMAINS of the last deploy-hook, which are not all. FAILED_DOMAINS no other hook is given: where
/// it is set, if only to nothing, both are meant for us.
fn said(variable: impl Fn(&str) -> Option<String>) -> Option<SaidWord> {
    let failed = names(&variable("FAILED_DOMAINS")?);
    let renewed = variable("RENEWED_DOMAINS").map_or_else(Vec::new, |text| names(&text));
    let said = SaidWord { renewed, failed };
    (said != SaidWord::default()).then_some(said)
}

/// At most [`MAX_SAID`] names; what certbot has cut in two is none.
fn names(text: &str) -> Vec<String> {
    let whole = match CUT_AT.contains(&text.chars().count()) {
        true => text.rsplit_once(' ').map_or("", |(whole, _)| whole),
        false => text,
    };
    let names = whole.split_whitespace().map(str::to_owned);
    names.take(MAX_SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(renewed: Option<&str>, failed: Option<&str>) -> Option<SaidWord> {
        said(|variable| {
            let text = match variable {
                "RENEWED_DOMAINS" => renewed,
                "FAILED_DOMAINS" => failed,
                other => panic!("{other} is none of certbot's post-hook"),
            };
            text.map(str::to_owned)
        })
    }

    #[test]
    fn leftovers_of_a_deploy_hook_are_not_believed() {
        assert_eq!(told(None, None), None);
        assert_eq!(told(Some("a.test"), None), None);
        assert_eq!(told(Some(""), Some("")), None);
        let both = told(Some("a.test b.test"), Some(" c.test")).unwrap();
        assert_eq!(both.renewed, ["a.test", "b.test"]);
        assert_eq!(both.failed, ["c.test"]);
        assert!(told(Some("a.test"), Some("")).unwrap().failed.is_empty());
    }

    #[test]
    fn a_name_that_was_cut_in_two_is_none_and_many_are_bounded() {
        for length in CUT_AT {
            let rest = length - "a.test ".len();
            let cut = format!("a.test {}", "x".repeat(rest));
            assert_eq!(names(&cut), ["a.test"]);
            assert_eq!(names(&cut[1..]).len(), 2);
        }
        assert!(names(&"x".repeat(16_000)).is_empty());
        let many = "a.test ".repeat(1000);
        assert_eq!(names(&many).len(), MAX_SAID);
    }
}
