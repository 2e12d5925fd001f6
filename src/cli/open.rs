//! `acmegate open`: the pre-hook. It exits 0 only when the kernel has acknowledged the window and
//! no foreign chain would drop the packets.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::caller::Client;
use super::{Ending, Failure, caller, finish, granted, length, milliseconds, prove};
use crate::control::client;
use crate::control::protocol::{Ask, ChallengeName, FamilyName, HolderWord, Open, Response};
use crate::control::under;
use crate::daemon::port::who_listens;
use crate::firewall::legacy;

/// How a window is asked for.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// The lease's name [default: the calling ACME client and its pid]
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// Say what would be done and whether anything is in the way, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Have the world knock at a copy of the ruleset too, and close again if it does not get through (root)
    #[arg(long)]
    prove: bool,
    /// Print nothing when all is well
    #[arg(long, short)]
    quiet: bool,
}

/// What is to be opened, for `open` and for what `exec` arms.
#[derive(Debug, Args)]
pub struct Wanted {
    /// For how long at most, such as 90s or 2m [default: [window] max]
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
    /// For validations by http-01, at port 80 [default: as the sites' `challenges` say]
    #[arg(long = "http-01")]
    by_http: bool,
    /// For validations by tls-alpn-01, at port 443
    #[arg(long = "tls-alpn-01")]
    by_tls: bool,
    /// This port too, of those in [firewall] ports; may be repeated
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Only this address family [default: both, as CAs want it]
    #[arg(long, value_enum)]
    family: Option<FamilyArg>,
    /// Only by this address of the host [default: every one]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "interface")]
    address: Option<IpAddr>,
    /// Only by this interface [default: every one]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Only for validations of this identifier; may be repeated [default: all]
    #[arg(long = "identifier", value_name = "NAME")]
    identifiers: Vec<String>,
    /// Although windows for the same failed too often in the last hour ([budget] failures_per_hour)
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyArg {
    Ipv4,
    Ipv6,
}

impl Wanted {
    /// In the words of the control protocol.
    pub fn open(&self, lease: String, holder: Option<HolderWord>) -> Open {
        Open {
            lease,
            milliseconds: self.length.map(milliseconds),
            ports: self.port.clone(),
            challenges: {
                let http = self.by_http.then_some(ChallengeName::Http01);
                let tls = self.by_tls.then_some(ChallengeName::TlsAlpn01);
                http.into_iter().chain(tls).collect()
            },
            validates: None,
            family: self.family.map(|family| match family {
                FamilyArg::Ipv4 => FamilyName::Ipv4,
                FamilyArg::Ipv6 => FamilyName::Ipv6,
            }),
            address: self.address,
            interface: self.interface.clone(),
            identifiers: (!self.identifiers.is_empty()).then(|| self.identifiers.clone()),
            holder,
            dry_run: false,
            force: self.force,
        }
    }
}

pub fn run(
    config: Option<&Path>,
    runtime_dir: &Path,
    args: &OpenArgs,
) -> Result<ExitCode, Failure> {
    let client = caller::client();
    let lease = match &args.lease {
        Some(lease) => lease.clone(),
        None => caller::default_lease(client.as_ref())?,
    };
    let holder = client.as_ref().map(Client::to_holder);
    let open = Open {
        dry_run: args.dry_run,
        ..args.wanted.open(lease, holder)
    };
    let mut response = acquire(runtime_dir, open.clone(), client.clone())?;
    if args.prove {
        match prove::prove(config, runtime_dir, &open, &response) {
            Ok(doubts) => response.warnings.extend(doubts),
            Err(failure) => return Err(closed_again(runtime_dir, &open, client, failure)),
        }
    }
    Ok(finish(&response, args.quiet))
}

/// A window that is of no use does not stay open.
fn closed_again(
    runtime_dir: &Path,
    open: &Open,
    client: Option<Client>,
    failure: Failure,
) -> Failure {
    if open.dry_run {
        return failure;
    }
    let lease = open.lease.clone();
    let closed = client::ask(runtime_dir, Ask::Close { lease, said: None });
    let message = match closed.map(|response| response.code) {
        Ok(0) => format!("closed again: {}", failure.message),
        // The kernel closes it in its time.
        _ => format!("could not be closed again: {}", failure.message),
    };
    Failure {
        message,
        ending: client.filter(|_| is_armed(open)).map(Ending::Ours),
        ..failure
    }
}

/// Whether `exec` armed this lease for the caller.
fn is_armed(open: &Open) -> bool {
    let armed = under::lease().ok().flatten();
    !open.dry_run && armed.is_some_and(|armed| armed.as_str() == open.lease)
}

/// Asks for a lease, and warns of what an open window shows besides the gate, and of what nobody looked
/// at. Where the lease is armed, a client that goes on nevertheless is ended.
///
/// # Errors
/// [`Failure`], with that client.
pub fn acquire(
    runtime_dir: &Path,
    open: Open,
    client: Option<Client>,
) -> Result<Response, Failure> {
    let is_armed = is_armed(&open);
    let asked = client::ask(runtime_dir, Ask::Open(open)).map_err(Failure::from);
    // `exec` ends it; where nobody could be told, that is done from here.
    let ending = client.filter(|_| is_armed).map(Ending::Ours);
    let mut response = asked.and_then(granted).map_err(|failure| Failure {
        ending: failure.ending.or(ending),
        ..failure
    })?;
    let exposed = response
        .ports
        .iter()
        .filter(|port| !response.gate_ports.contains(port));
    let warnings: Vec<String> = exposed
        .filter_map(|port| {
            let listening = who_listens(*port).into_iter().next()?;
            Some(format!(
                "{listening} answers on port {port}, not the gate: all of it is open to the world while the window is"
            ))
        })
        .collect();
    response.warnings.extend(warnings);
    response.warnings.extend(legacy::warning());
    Ok(response)
}
