//! `acmegate explain SRC PORT`: the path of one first packet through the ruleset, by the kernel's own word.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Failure;
use super::terminal::{plain, print};
use crate::config::lists::Lists;
use crate::config::{Config, Unchecked};
use crate::control::protocol::Exit;
use crate::daemon::confine::Account;
use crate::daemon::parts::{self, AnyAccount};
use crate::doctor::path::{End, Fate, Knock, Protocol};
use crate::doctor::twin::{
    self, Answer, Door, MAX_LISTING_BYTES, Order, PATIENCE, Source, TwinError, Window,
};
use crate::firewall::names;
use crate::firewall::ruleset::Settings;
use crate::observe::report::escape;

/// Which packet, and in which ruleset.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who sends it; nothing is ever sent to them
    #[arg(value_name = "SRC")]
    source: IpAddr,
    /// The port of this host that it is for
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The address that it is for [default: the first one of the interface]
    #[arg(long, value_name = "ADDR")]
    to: Option<IpAddr>,
    /// The interface that it comes in by [default: the one with the default route]
    #[arg(long = "in", value_name = "IFACE")]
    interface: Option<String>,
    /// A datagram instead of a TCP SYN
    #[arg(long)]
    udp: bool,
    /// With acmegate's window open or shut, whatever it is now
    #[arg(long, value_name = "STATE")]
    window: Option<WindowWord>,
    /// A saved ruleset instead of the live one, as nft, iptables-save or ip6tables-save printed it; may be given
    /// several times, and needs no root
    #[arg(long, value_name = "FILE")]
    ruleset: Vec<PathBuf>,
    /// One JSON object instead of text (docs/doctor.md)
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WindowWord {
    Open,
    Shut,
}

/// The version of the JSON document.
const VERSION: u32 = 1;

/// What is told of it.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    packet: &'a Knock,
    window: Window,
    fate: &'a Fate,
    answer: Option<&'a Fate>,
    advice: Option<&'a str>,
    not_carried: &'a [String],
    otherwise: &'a [String],
}

pub fn run(config: Option<&Path>, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Os, error))?;
    runtime.block_on(explain(config, args))
}

async fn explain(config: Option<&Path>, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let doors = twin::doors()
        .await
        .map_err(|error| Failure::new(Exit::Os, error))?;
    let knock = args.knock(&doors)?;
    let window = match args.window {
        None => Window::AsItStands,
        Some(WindowWord::Open) => Window::Open,
        Some(WindowWord::Shut) => Window::Shut,
    };
    let order = Order {
        source: source(&args.ruleset)?,
        settings: match window {
            Window::AsItStands => None,
            Window::Shut | Window::Open => Some(settings(config)?),
        },
        windows: vec![window],
        knocks: vec![knock],
        patience: PATIENCE,
    };
    let answer = twin::prove(&order).await.map_err(failure)?;
    let (Some(knock), Some(fate)) = (
        order.knocks.first(),
        answer.fates.first().and_then(|run| run.first()),
    ) else {
        return Err(Failure::new(Exit::Software, "the twin told of no packet"));
    };
    let reply = answer.replies.first().and_then(|run| run.first()?.as_ref());
    let advice = answer
        .advice
        .first()
        .and_then(|run| run.first()?.as_deref());
    // What is shut on purpose needs none.
    let ours = format!("inet {}", names::TABLE);
    let is_ours = fate.culprit().is_some_and(|step| step.table == ours);
    let advice = advice.filter(|_| window != Window::Shut && !is_ours);
    let told = match args.json {
        true => json(&Document {
            version: VERSION,
            packet: knock,
            window,
            fate,
            answer: reply,
            advice,
            not_carried: &answer.not_carried,
            otherwise: &answer.otherwise,
        })?,
        false => text(knock, window, [Some(fate), reply], advice, &answer),
    };
    print(&told)?;
    // What nobody can tell of the answer is said, and no failure.
    let is_silenced = reply.is_some_and(|reply| matches!(reply.end, End::Dropped { .. }));
    Ok(match fate.passes() && !is_silenced {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The saved rulesets, or the live one where none is named.
///
/// # Errors
/// [`Failure`]: a file that cannot be read.
pub fn source(files: &[PathBuf]) -> Result<Source, Failure> {
    if files.is_empty() {
        return Ok(Source::Live);
    }
    let read = |file: &PathBuf| {
        let refused = |why: String| {
            let file = plain(&file.display().to_string());
            Failure::new(Exit::Data, format!("{file}: {why}"))
        };
        let opened = File::open(file).map_err(|error| refused(error.to_string()))?;
        let mut text = String::new();
        // A pipe or a device does not tell how long it is.
        let read = opened
            .take(MAX_LISTING_BYTES as u64 + 1)
            .read_to_string(&mut text);
        if text.len() > MAX_LISTING_BYTES {
            return Err(refused(format!("longer than {MAX_LISTING_BYTES} octets")));
        }
        read.map_err(|error| refused(error.to_string()))?;
        Ok(text)
    };
    let listings: Result<Vec<String>, Failure> = files.iter().map(read).collect();
    listings.map(Source::Listing)
}

impl ExplainArgs {
    /// The packet; what was not said of it is as it would be for somebody on the Internet.
    fn knock(&self, doors: &[Door]) -> Result<Knock, Failure> {
        let is_fit = |door: &&Door| {
            door.address.is_ipv4() == self.source.is_ipv4()
                && self.to.is_none_or(|to| door.address == to)
                && (self.interface.as_ref()).is_none_or(|wanted| *wanted == door.interface)
        };
        let fit = doors.iter().find(is_fit);
        // An address that is not the host's own comes in where everything does.
        let entrance = doors
            .iter()
            .find(|door| door.address.is_ipv4() == self.source.is_ipv4());
        let interface =
            (self.interface.clone()).or_else(|| Some(fit.or(entrance)?.interface.clone()));
        let destination = self.to.or_else(|| Some(fit?.address));
        let (Some(interface), Some(destination)) = (interface, destination) else {
            return Err(Failure::new(
                Exit::Usage,
                "this host has no such way in: say `--in IFACE --to ADDR`, of the family of SRC",
            ));
        };
        if destination.is_ipv4() != self.source.is_ipv4() {
            return Err(Failure::new(
                Exit::Usage,
                format!("{destination} and {} are not of one family", self.source),
            ));
        }
        if interface.len() > 15 || interface.is_empty() || interface == "lo" {
            return Err(Failure::new(
                Exit::Usage,
                "`--in` takes an interface that the Internet may come by",
            ));
        }
        Ok(Knock {
            interface,
            source: self.source,
            destination,
            protocol: if self.udp {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            port: self.port,
        })
    }
}

fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    let config = Config::load_with(config, &AnyAccount, &Unchecked)
        .map_err(|error| Failure::new(Exit::Config, error))?;
    let lists = Lists::read(&config.allow).map_err(|error| Failure::new(Exit::Config, error))?;
    let account = Account::to_be(&config);
    Ok(parts::orders(&config, lists.list(), account).settings)
}

fn failure(error: TwinError) -> Failure {
    let exit = match &error {
        TwinError::Namespaces(..) => Exit::Unavailable,
        TwinError::NoPower => Exit::NoPerm,
        TwinError::Listing(_) | TwinError::TooMuch(_) => Exit::Data,
        TwinError::Late(_) => Exit::TempFail,
        TwinError::Broken(_) => Exit::Os,
    };
    let mut message = error.to_string();
    for way in error.ways_out() {
        let _ = write!(message, "\n  {way}");
    }
    Failure::new(exit, message)
}

fn json(document: &Document<'_>) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::new(Exit::Software, error))?;
    Ok(format!("{}\n", escape::json(&text)))
}

fn text(
    knock: &Knock,
    window: Window,
    [fate, reply]: [Option<&Fate>; 2],
    advice: Option<&str>,
    answer: &Answer,
) -> String {
    let mut text = String::new();
    let state = match window {
        Window::AsItStands => "",
        Window::Shut => ", the window shut",
        Window::Open => ", the window open",
    };
    let _ = writeln!(
        text,
        "{} from {} to {} port {}, in by {}{state}",
        knock.protocol,
        knock.source,
        knock.destination,
        knock.port,
        plain(&knock.interface)
    );
    if let Some(fate) = fate {
        tell(&mut text, fate, "sent on");
    }
    if let Some(reply) = reply {
        text.push_str("its answer\n");
        tell(&mut text, reply, "sent");
    }
    if let Some(advice) = advice {
        let _ = writeln!(text, "to let it pass: {}", plain(advice));
    }
    for missing in &answer.not_carried {
        let _ = writeln!(text, "not in the twin, so not known: {}", plain(missing));
    }
    text
}

/// The steps of a packet, and where it ended.
fn tell(text: &mut String, fate: &Fate, sent_on: &str) {
    for step in &fate.steps {
        let _ = match (&step.rule, step.handle) {
            (Some(_), Some(handle)) => writeln!(
                text,
                "  {}  # handle {handle}: {}",
                plain(&step.to_string()),
                plain(&step.verdict)
            ),
            _ => writeln!(text, "  {}", plain(&step.to_string())),
        };
    }
    let end = match &fate.end {
        End::Delivered { address, port } => format!("delivered to {address} port {port}"),
        End::Forwarded {
            interface,
            address,
            port,
        } => format!("{sent_on} by {} to {address} port {port}", plain(interface)),
        End::Dropped { rejects: true } => "rejected: the sender is told at once".to_owned(),
        End::Dropped { rejects: false } => "dropped: the sender waits in vain".to_owned(),
        End::Lost(why) => format!("lost: {}", plain(why)),
    };
    let _ = writeln!(text, "{end}");
}
