//! Asks: one file per subcommand. What a subcommand prints is for a person, one line where one is
//! enough; what it exits with is sysexits. Nothing is printed by the macros of std, which end the program
//! where nobody takes what they print: `terminal` has what does not.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod answer;
mod caller;
mod check;
mod close;
mod completions;
pub mod demo;
mod dns_persist;
mod doctor;
mod exec;
mod explain;
mod explain_config;
mod firewall;
pub mod hook;
mod install_hooks;
mod metrics;
mod open;
mod probe;
mod prove;
mod report;
mod sandbox_check;
mod security;
mod signals;
mod staging;
mod status;
mod terminal;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use self::caller::Client;
use self::terminal::{complain, say, written};
use crate::config::parse_duration;
use crate::control::client::ClientError;
use crate::control::protocol::{CONTROL_SOCKET, Exit, OBSERVE_SOCKET, RUNTIME_DIR, Response};
use crate::daemon::{self, Fatal, privilege};
use crate::doctor::twin;

/// Lets ACME validations through a firewall, and nothing else.
#[derive(Debug, Parser)]
#[command(
    name = "acmegate",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The configuration file [default: /etc/acmegate/acmegate.toml if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the daemon's sockets are
    #[arg(long, global = true, value_name = "DIR", default_value = RUNTIME_DIR, value_parser = PathBufValueParser::new().try_map(room_for_sockets))]
    runtime_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate: serve port 80 and open windows when asked
    Run,
    /// Open a window: a pre-hook
    Open(open::OpenArgs),
    /// Close it again: a post-hook
    Close(close::CloseArgs),
    /// Run an ACME client: its own hooks open and close, and it ends if they cannot
    Exec(exec::ExecArgs),
    /// Push or withdraw a key authorization
    #[command(subcommand)]
    Answer(answer::AnswerCommand),
    /// Speak an ACME client's own hook contract
    #[command(subcommand)]
    Hook(hook::HookCommand),
    /// Put hook files where a client or its unit finds them
    InstallHooks(install_hooks::InstallHooksArgs),
    /// Say what is open, for whom, how long, and what is wrong
    Status(status::StatusArgs),
    /// Say who came to a window, what they got, and what stopped them
    Report(report::ReportArgs),
    /// Let vantage points of your own fetch a random token through the real gate
    Probe(probe::ProbeArgs),
    /// Show windows and who comes as it happens, until q is pressed
    Watch,
    /// Print figures for a monitoring system, in the text format of Prometheus
    Metrics,
    /// Examine, before a CA is asked, whether a validation will get through; exit 2 if not, 1 if perhaps not
    Doctor(doctor::DoctorArgs),
    /// Show the path of one packet through the ruleset, by the kernel's own word
    Explain(explain::ExplainArgs),
    /// Print the DNS record of dns-persist-01, with which no validation comes here
    DnsPersist(dns_persist::DnsPersistArgs),
    /// Show, install or remove our part of the ruleset
    #[command(subcommand)]
    Firewall(firewall::FirewallCommand),
    /// Check the configuration, or explain it
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Show the whole story in throw-away namespaces: no root, no configuration
    Demo(demo::DemoArgs),
    /// Started by `run` alone: the process that may change the firewall
    #[command(hide = true)]
    Enforcer,
    /// Started by `run` alone: the process that runs configured commands
    #[command(hide = true)]
    Runner,
    /// Started by `run` alone: the process that keeps the history
    #[command(hide = true)]
    Historian,
    /// Started by what proves something alone: a copy of the ruleset in a namespace
    #[command(hide = true)]
    Twin,
    /// Seal a process as each of the daemon's is, and try what must not work; exit 1 if anything does
    #[command(hide = true, name = "sandbox-check")]
    SandboxCheck {
        /// One JSON array instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print the completions of a shell: a package is built with it
    #[command(hide = true)]
    Completions(completions::CompletionsArgs),
    /// Started by `exec` alone: becomes the command
    #[command(hide = true, name = "exec-command")]
    Become(exec::StartArgs),
}

/// Why a subcommand failed.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    /// Whose end this means: a client under `exec` that would go on nevertheless.
    ending: Option<Ending>,
}

/// How a client ends whose window could not be opened. It must not go on meanwhile, whatever it
/// makes of its hook's status.
#[derive(Debug)]
enum Ending {
    /// By `exec`, which was told.
    Awaited(Client),
    /// From here.
    Ours(Client),
}

impl Ending {
    fn carry_out(&self) {
        match self {
            Self::Awaited(client) => client.outlast(),
            Self::Ours(client) => {
                client.end();
                client.outlast();
            }
        }
    }
}

impl Failure {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            ending: None,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.exit(), error)
    }
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Self {
        Self {
            exit: fatal.exit,
            message: fatal.message,
            ending: None,
        }
    }
}

/// What a socket's path may have at most, in octets: unix(7), `sun_path` without its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A runtime directory in which the sockets have room for their names.
fn room_for_sockets(directory: PathBuf) -> Result<PathBuf, String> {
    let longest = [CONTROL_SOCKET, OBSERVE_SOCKET]
        .map(|name| directory.join(name).as_os_str().len())
        .into_iter()
        .max();
    match longest {
        Some(bytes) if bytes > MAX_SOCKET_PATH_BYTES => Err(format!(
            "a socket's path in it would have {bytes} octets, and {MAX_SOCKET_PATH_BYTES} are the most: name a shorter one"
        )),
        _ => Ok(directory),
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Arguments::try_parse() {
        Ok(arguments) => refuse_file_capabilities().and_then(|()| dispatch(arguments)),
        // Help and version are no errors; everything else is the caller's.
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(Exit::Usage as u8);
        }
        Err(asked) => written(asked.print()).map(|_| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            complain(format_args!("acmegate: {}", failure.message));
            if let Some(ending) = failure.ending {
                ending.carry_out();
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Global {
        config,
        runtime_dir,
    } = arguments.global;
    match arguments.command {
        Command::Run => daemon::run(&daemon::Options {
            config,
            runtime_dir,
        })?,
        Command::Enforcer => daemon::enforcer::run(config.as_deref())?,
        Command::Runner => daemon::runner::run(config.as_deref())?,
        Command::Completions(args) => return completions::run(&args),
        Command::Historian => daemon::historian::run(config.as_deref())?,
        Command::SandboxCheck { json } => return sandbox_check::run(config.as_deref(), json),
        Command::Explain(args) => return explain::run(config.as_deref(), &args),
        Command::Twin => return Ok(twin::run()),
        Command::Open(args) => return open::run(config.as_deref(), &runtime_dir, &args),
        Command::Close(args) => return close::run(&runtime_dir, &args),
        Command::Exec(args) => return exec::run(&runtime_dir, &args),
        Command::Become(args) => return exec::start(&args),
        Command::Answer(command) => return answer::run(&runtime_dir, &command),
        Command::Hook(command) => return hook::run(&runtime_dir, &command),
        Command::InstallHooks(args) => return install_hooks::run(&args),
        Command::Status(args) => return status::run(&runtime_dir, &args),
        Command::Report(args) => return report::run(&runtime_dir, &args),
        Command::Probe(args) => return probe::run(config.as_deref(), &runtime_dir, &args),
        Command::DnsPersist(args) => return dns_persist::run(args),
        Command::Doctor(args) => return doctor::run(config.as_deref(), &runtime_dir, &args),
        Command::Watch => return watch::run(&runtime_dir),
        Command::Metrics => return metrics::run(&runtime_dir),
        Command::Firewall(command) => {
            return firewall::run(config.as_deref(), &runtime_dir, &command);
        }
        Command::Config(command) => return check::run(config.as_deref(), &command),
        Command::Demo(args) => return Ok(demo::run(&args)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A binary that lends its power by file capabilities would give every user of the host what only
/// its administrator may.
fn refuse_file_capabilities() -> Result<(), Failure> {
    let binary = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    if privilege::is_lending_power(&binary) {
        return Err(Failure::new(
            Exit::NoPerm,
            format!(
                "{0} carries file capabilities, which lend its power to every user: \
                 `setcap -r {0}` as root, and start it by systemd",
                binary.display()
            ),
        ));
    }
    Ok(())
}

/// A length of time on the command line.
fn length(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// As the control protocol has it.
fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// The host's clock, in milliseconds after 1970, as records have it.
#[expect(
    clippy::disallowed_methods,
    reason = "how long ago something was is shown, and decides nothing"
)]
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, milliseconds)
}

/// FNV-1a of 64 bits: tells texts apart that nobody chose in order to collide.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What the daemon granted. A refusal is a failure, and where the client is being ended because of
/// it, only after that.
fn granted(response: Response) -> Result<Response, Failure> {
    match response.code {
        0 => Ok(response),
        code => Err(Failure {
            exit: Exit::from_code(code),
            message: response.message,
            ending: caller::client()
                .filter(|_| response.ends_client)
                .map(Ending::Awaited),
        }),
    }
}

/// Prints what the daemon said, and ends as it says.
fn finish(response: &Response, quiet: bool) -> ExitCode {
    for warning in &response.warnings {
        complain(format_args!("acmegate: warning: {warning}"));
    }
    if response.code != 0 {
        complain(format_args!("acmegate: {}", response.message));
    } else if !quiet {
        say(format_args!("{}", response.message));
        for line in &response.more {
            say(line);
        }
    }
    ExitCode::from(response.code)
}
