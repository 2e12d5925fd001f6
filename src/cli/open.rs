//! `acmegate open`: the pre-hook. It exits 0 only when the kernel has acknowledged the window and
//! no foreign chain would drop the packets.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Failure, caller, finish, length, milliseconds};
use crate::control::client;
use crate::control::protocol::{Ask, FamilyName, Open};
use crate::daemon::port::who_listens;

/// How a window is asked for.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// The lease's name [default: the calling ACME client and its pid]
    #[arg(long, value_name = "NAME")]
    lease: Option<String>,
    /// For how long at most, such as 90s or 2m [default: [window] max]
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
    /// This port, of those in [firewall] ports; may be repeated [default: 80, or all if 80 is none of them]
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
    /// Say what would be done and whether anything is in the way, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print nothing when all is well
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyArg {
    Ipv4,
    Ipv6,
}

pub fn run(runtime_dir: &Path, args: &OpenArgs) -> Result<ExitCode, Failure> {
    let client = caller::client();
    let open = Open {
        lease: args
            .lease
            .clone()
            .unwrap_or_else(|| caller::default_lease(client.as_ref())),
        milliseconds: args.length.map(milliseconds),
        ports: args.port.clone(),
        family: args.family.map(|family| match family {
            FamilyArg::Ipv4 => FamilyName::Ipv4,
            FamilyArg::Ipv6 => FamilyName::Ipv6,
        }),
        address: args.address,
        interface: args.interface.clone(),
        identifiers: (!args.identifiers.is_empty()).then(|| args.identifiers.clone()),
        holder: client.as_ref().map(caller::Client::to_holder),
        dry_run: args.dry_run,
    };
    let mut response = client::ask(runtime_dir, Ask::Open(open))?;
    if response.code == 0 {
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
    }
    Ok(finish(&response, args.quiet))
}
