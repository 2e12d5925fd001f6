//! `acmegate probe`: vantage points of the administrator's own fetch random tokens through the real gate, as a CA's
//! perspectives do.
//!
//! The window and the tokens are taken back whatever happens: by this command, on signals too; and if it is killed,
//! by the daemon, which watches this process, and by the kernel, which has their time and our table of traces.

mod asking;
mod session;
mod setup;
mod show;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::asking::{services, ssh_points};
use self::session::Session;
use self::setup::Setup;
use super::doctor::identifier;
use super::signals::Signals;
use super::terminal::{Color, complain};
use super::{Failure, length, milliseconds, wall};
use crate::config::lists::Lists;
use crate::config::{Config, Unchecked};
use crate::control::protocol::Exit;
use crate::daemon::parts::AnyAccount;
use crate::doctor::probe::trace::Trace;
use crate::doctor::probe::vantage::From;
use crate::doctor::probe::verdict::Probe;
use crate::doctor::probe::web::{Key, Url};
use crate::doctor::probe::{PORT, letsdebug};
use crate::gate::identifier::Identifier;
use crate::observe::quorum::Rules;

/// For how long vantage points are waited for, where nothing else is said: a CA's perspective gives up after 10 s
/// for a connection and as many for the answer, and ssh needs its own time.
const PATIENCE: &str = "40s";
/// The longest that they can be.
const MAX_PATIENCE: Duration = Duration::from_secs(300);
/// How much longer than that the window may be open: opening, pushing, reading what came.
const AROUND: Duration = Duration::from_secs(15);
/// The most names that are probed at once.
const MAX_NAMES: usize = 16;
/// The most vantage points.
const MAX_FROM: usize = 32;
/// How often what was traced is read.
const HEAR_EVERY: Duration = Duration::from_millis(50);
/// Where the key of services may stand.
const KEY_VARIABLE: &str = "ACMEGATE_MPIC_KEY";
/// The most octets of a file with a key.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Who is asked for what.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The names, or addresses, that are to be validated
    #[arg(required = true, value_name = "NAME", value_parser = identifier)]
    names: Vec<Identifier>,
    /// A vantage point: ssh:DESTINATION, or mpic:URL of a service that speaks the Open MPIC API; may be repeated
    #[arg(long, value_name = "FROM", required_unless_present = "letsdebug")]
    from: Vec<From>,
    /// Ask Let's Debug as well: the names leave this host, and the result is public
    #[arg(long)]
    letsdebug: bool,
    /// Where Let's Debug is
    #[arg(long, value_name = "URL", default_value = letsdebug::USUAL, value_parser = Url::parse)]
    letsdebug_url: Url,
    /// Vantage points ask these name servers [default: those of each name's zone]
    #[arg(long = "name-server", value_name = "ADDRESS")]
    name_servers: Vec<IpAddr>,
    /// CAA has to permit this CA; may be repeated [default: whom the service stands for]
    #[arg(long = "issuer", value_name = "DOMAIN", value_parser = issuer)]
    issuers: Vec<String>,
    /// The key for services is in this file [default: the environment's ACMEGATE_MPIC_KEY, if it is there]
    #[arg(long, value_name = "FILE")]
    mpic_key_file: Option<PathBuf>,
    /// The field of the request that holds the key
    #[arg(long, value_name = "FIELD", default_value = "x-api-key")]
    mpic_key_field: String,
    /// For how long vantage points are waited for
    #[arg(long, value_name = "TIME", value_parser = length, default_value = PATIENCE)]
    timeout: Duration,
    /// Open no window: probe the port as it is
    #[arg(long)]
    no_window: bool,
    /// One JSON object instead of text (docs/doctor.md)
    #[arg(long)]
    json: bool,
    /// When the text has colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

pub fn run(
    config: Option<&Path>,
    runtime_dir: &Path,
    args: &ProbeArgs,
) -> Result<ExitCode, Failure> {
    let setup = setup(config, runtime_dir, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Os, error))?;
    let done = runtime.block_on(probe(setup, args));
    // Questions that nobody waits for any more end by their own deadlines.
    runtime.shutdown_background();
    match done? {
        Done::Over(probe) => show::show(&probe, rules(), args.json, args.color.paint()),
        Done::Interrupted(code) => Ok(ExitCode::from(code)),
    }
}

enum Done {
    Over(Box<Probe>),
    /// By a signal; with what a shell says of that.
    Interrupted(u8),
}

fn rules() -> Rules {
    Rules::at(wall())
}

/// What is asked, checked before anything is touched.
fn setup(config: Option<&Path>, runtime_dir: &Path, args: &ProbeArgs) -> Result<Setup, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let mut names = args.names.clone();
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_NAMES || args.from.len() > MAX_FROM {
        return Err(usage(format!(
            "at most {MAX_NAMES} names and {MAX_FROM} vantage points at once"
        )));
    }
    let mut from = Vec::new();
    for one in &args.from {
        if !from.contains(one) {
            from.push(one.clone());
        }
    }
    let config = Config::load_with(config, &AnyAccount, &Unchecked)
        .map_err(|error| Failure::new(Exit::Config, error))?;
    let lists = Lists::read(&config.allow).map_err(|error| Failure::new(Exit::Config, error))?;
    Ok(Setup {
        names,
        from,
        letsdebug: args.letsdebug.then(|| args.letsdebug_url.clone()),
        name_servers: args.name_servers.iter().map(IpAddr::to_string).collect(),
        issuers: args.issuers.clone(),
        key: key(args)?,
        timeout: args.timeout.min(MAX_PATIENCE),
        allow: lists.list(),
        runtime_dir: runtime_dir.to_owned(),
        config,
    })
}

/// A domain of a CA, as it stands in CAA.
fn issuer(text: &str) -> Result<String, String> {
    match Identifier::parse(text) {
        Ok(Identifier::Dns(name)) => Ok(name.to_string()),
        _ => Err("write a CA's domain, such as letsencrypt.org".to_owned()),
    }
}

/// The key for services: never an argument, which everybody on the host may read.
fn key(args: &ProbeArgs) -> Result<Option<Key>, Failure> {
    let said = |text: String| Failure::new(Exit::Usage, text);
    let value = match &args.mpic_key_file {
        Some(file) => {
            use std::io::Read as _;
            let mut text = String::new();
            let read = std::fs::File::open(file)
                .and_then(|opened| opened.take(MAX_KEY_BYTES).read_to_string(&mut text));
            read.map_err(|error| said(format!("{}: {error}", file.display())))?;
            text
        }
        None => match std::env::var(KEY_VARIABLE) {
            Ok(value) => value,
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(said(format!("{KEY_VARIABLE}: {error}"))),
        },
    };
    Key::new(&args.mpic_key_field, &value)
        .map(Some)
        .map_err(said)
}

async fn probe(setup: Setup, args: &ProbeArgs) -> Result<Done, Failure> {
    let system = |error: std::io::Error| Failure::new(Exit::Os, error);
    // Before anything is opened, so that no signal is missed that has to close it.
    let mut signals = Signals::listen().map_err(system)?;
    let mut probe = Probe {
        names: setup.names.iter().map(Identifier::to_string).collect(),
        ..Probe::default()
    };
    if let Some(url) = &setup.letsdebug {
        complain(format_args!(
            "acmegate: {}",
            letsdebug::leaving(url, &probe.names)
        ));
    }
    let mut trace = match Trace::begin(PORT, setup.timeout + AROUND).await {
        Ok(trace) => Some(trace),
        Err(error) => {
            let why = match error.is_permission_denied() {
                true => "that needs root".to_owned(),
                false => error.to_string(),
            };
            probe.not_covered.push(format!(
                "what the packets meet in the rules of this host: {why}"
            ));
            None
        }
    };
    let session = Session::begin(
        &setup,
        (!args.no_window).then(|| milliseconds(setup.timeout + AROUND)),
    )
    .await;
    let mut session = match session {
        Ok(session) => session,
        Err(failure) => {
            end(trace).await;
            return Err(failure);
        }
    };
    let interrupted = {
        let mut work = std::pin::pin!(work(&setup, &session, &mut probe));
        let mut tick = tokio::time::interval(HEAR_EVERY);
        loop {
            tokio::select! {
                () = work.as_mut() => break None,
                came = signals.next() => break Some(came.code),
                _ = tick.tick() => if let Some(trace) = &mut trace {
                    trace.hear();
                },
            }
        }
    };
    if interrupted.is_none() {
        session.who_came(&mut probe, &setup).await;
        if let Some(trace) = &mut trace {
            trace.hear();
            asking::paths(trace, &mut probe).await;
        }
        asking::prove(&mut probe, &setup.allow);
        probe.judge(rules());
    }
    end(trace).await;
    session.end().await;
    if interrupted.is_none() {
        session.where_they_are(&mut probe, &setup).await;
    }
    Ok(match interrupted {
        Some(code) => {
            complain("acmegate: interrupted: the window is closed and the tokens are withdrawn");
            Done::Interrupted(code)
        }
        None => Done::Over(Box::new(probe)),
    })
}

async fn end(trace: Option<Trace>) {
    if let Some(trace) = trace {
        trace.end().await;
    }
}

/// Everybody at once, as CAs do.
async fn work(setup: &Setup, session: &Session, probe: &mut Probe) {
    let (here, points, services, lets_debug) = tokio::join!(
        asking::here(setup, session),
        ssh_points(setup, session),
        services(setup, session),
        asking::lets_debug(setup, session),
    );
    probe.here = here;
    probe.vantage_points = points;
    for service in services {
        probe.vantage_points.extend(service.vantages);
        probe.not_covered.extend(service.not_covered);
        probe.services.extend(service.told);
    }
    match lets_debug {
        None => {}
        Some(Ok(problems)) => probe.lets_debug = Some(problems),
        Some(Err(why)) => probe.not_covered.push(format!("Let's Debug: {why}")),
    }
}
