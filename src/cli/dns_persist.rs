//! `acmegate dns-persist`: prints the record that stands in the DNS for good, so that no validation comes here.
//!
//! It asks nobody and changes nothing; `acmegate doctor` looks whether the record is there.

use std::process::ExitCode;

use clap::Args;

use super::terminal::{plain, print};
use super::{Failure, wall};
use crate::config::Dns;
use crate::control::protocol::Exit;
use crate::doctor::dns::persist::{Mistake, Record, seconds_of};
use crate::gate::identifier::DnsName;

/// What the record is to say.
#[derive(Debug, Args)]
pub struct DnsPersistArgs {
    /// The name that is to be validated, without "*."
    #[arg(value_name = "NAME", value_parser = name)]
    name: DnsName,
    /// The CA, as CAA records name it
    #[arg(long, value_name = "NAME", value_parser = Dns::issuer)]
    issuer: String,
    /// The URL of the ACME account that may have certificates issued
    #[arg(long, value_name = "URL", value_parser = Dns::account)]
    account: String,
    /// The last day on which it counts, or a second after 1970 [default: for good]
    #[arg(long, value_name = "DATE", value_parser = until)]
    until: Option<u64>,
    /// For *.NAME and every name below it as well
    #[arg(long)]
    wildcard: bool,
}

pub fn run(args: DnsPersistArgs) -> Result<ExitCode, Failure> {
    if args.until.is_some_and(|until| until < wall() / 1000) {
        let said = "that date has passed: the record would not count";
        return Err(Failure::new(Exit::Usage, said));
    }
    let record = Record {
        issuer: args.issuer,
        account: args.account,
        is_wildcard: args.wildcard,
        until: args.until,
    };
    match record.line(args.name.as_str()) {
        Ok(line) => print(&format!("{line}\n")),
        Err(mistake) => {
            let said = match mistake {
                Mistake::Issuer => "no CA has such a name",
                Mistake::Account => "no record can hold that account's URL",
            };
            Err(Failure::new(Exit::Usage, said))
        }
    }
}

fn name(text: &str) -> Result<DnsName, String> {
    if text.starts_with("*.") {
        return Err("write the name without \"*.\", and --wildcard".to_owned());
    }
    DnsName::parse(text).map_err(|error| plain(&error.to_string()))
}

/// `2027-01-31`, to the end of that day in UTC, or seconds.
fn until(text: &str) -> Result<u64, String> {
    let known = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok(),
        false => seconds_of(text),
    };
    known.ok_or_else(|| "write a date: 2027-01-31".to_owned())
}
