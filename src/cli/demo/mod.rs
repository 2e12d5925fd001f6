//! `acmegate demo`: the whole story in ten seconds, without root and without configuration.
//!
//! In namespaces of its own it builds a small world: six networks, an edge that drops by default
//! and an inner server. Then the shipped binary guards the edge, and real packets show what it
//! promises. It never touches the host's network, firewall or files, but for one temporary
//! directory, and needs no program but itself.
//!
//! | file | |
//! | --- | --- |
//! | `world`, `edge_filter`, `inner` | what stands there |
//! | `processes` | the gate and its hooks |
//! | `peer` | who comes from outside |
//! | `step`, `story`, `screen` | what is promised, and how it is told |
//!
//! Everything runs on one thread. That is needed to enter a user namespace, and enough: a socket
//! stays in the network namespace in which it was made.

mod edge_filter;
mod inner;
mod peer;
mod processes;
mod screen;
mod step;
mod story;
mod world;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::inner::InnerServer;
use self::processes::Processes;
use self::screen::Screen;
use self::step::{Mismatch, Step};
use self::story::{INNER_IDENTIFIER, Story};
use self::world::{INNER, World, WorldError};
use super::signals::{Came, Signals};
use crate::doctor::namespaces::{self, Refusal};

/// Arguments of `acmegate demo`.
#[derive(Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// For tests: wait for a line on standard input after this step. The edge can be entered
    /// meanwhile: `nsenter -t PID -U -n --preserve-credentials`.
    #[arg(long, hide = true, value_name = "STEP")]
    pause_after: Option<usize>,
    /// For tests: run this program as the gate.
    #[arg(long, hide = true, value_name = "PROGRAM")]
    gate: Option<PathBuf>,
}

/// Tells the story. Must be called before the process has started any thread.
///
/// Exits 0 when every promise was kept, 1 naming the step that was not, 69 (`EX_UNAVAILABLE`,
/// sysexits.h) where the system does not let the world be built, and 128 + n after signal n.
pub fn run(args: &DemoArgs) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "demo: {error}");
            error.exit_code()
        }
    }
}

fn try_run(args: &DemoArgs) -> Result<(), DemoError> {
    namespaces::enter()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(until_a_signal(demonstrate(args)))
}

/// Gives up when asked to; what had been started is ended by dropping the story.
async fn until_a_signal(
    story: impl Future<Output = Result<(), DemoError>>,
) -> Result<(), DemoError> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        told = story => told,
        came = signals.next() => Err(DemoError::Signal(came)),
    }
}

async fn demonstrate(args: &DemoArgs) -> Result<(), DemoError> {
    let began = Instant::now();
    let mut screen = Screen::stdout();
    let world = World::build().await?;
    let mut inner = InnerServer::start(&world.inner)?;
    let mut processes = Processes::prepare(args.gate.as_deref(), configuration)?;
    screen.world();
    let mut story = Story {
        world: &world,
        inner: &mut inner,
        processes: &mut processes,
        screen: &mut screen,
    };
    for step in Step::ALL {
        match story.tell(step).await {
            Ok(what) => story.screen.kept(step, &what),
            Err(mismatch) => {
                let log = story.processes.log_tail(LOG_LINES);
                story.screen.broken(step, &mismatch, &log);
                return Err(DemoError::Step(step, mismatch));
            }
        }
        if args.pause_after == Some(step.number()) {
            pause(step).await;
        }
    }
    screen.end(&format!(
        "Seven promises kept in {:.1} s. Your turn: acmegate --help",
        began.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// How much of the gate's log is shown when a promise was not kept.
const LOG_LINES: usize = 8;

/// What the edge's administrator wrote for the gate. It keeps its state in `directory`, not where
/// the host's own acmegate would, and stays who it is: in this user namespace there is nobody else.
fn configuration(directory: &Path) -> String {
    format!(
        r#"[daemon]
user = "root"
state_dir = "{directory}/state"
[http]
listen = ["[::]:80"]
[window]
max = "1m"
[firewall]
mode = "set"
set = "{set}"
[[site]]
identifiers = ["{identifier}"]
answer = "pushed"
[[site]]
identifiers = ["{INNER_IDENTIFIER}"]
answer = {{ upstream = "http://{INNER}" }}
"#,
        directory = directory.display(),
        set = edge_filter::SET,
        identifier = story::IDENTIFIER,
    )
}

/// Waits for a line or the end of standard input. A thread reads it: a file cannot be polled, and a
/// read that blocked this thread would block signals too.
async fn pause(step: Step) {
    let (read, line) = oneshot::channel();
    let _ = writeln!(io::stderr(), "demo: paused after step {}", step.number());
    std::thread::spawn(move || {
        let _ = io::stdin().read_line(&mut String::new());
        let _ = read.send(());
    });
    let _ = line.await;
}

/// Why the story ended early.
#[derive(Debug)]
enum DemoError {
    /// The system's fault, or its administrator's wish.
    Refused(Refusal),
    /// The system's fault: something is missing in this kernel.
    World(WorldError),
    /// The system's fault: no temporary files, no runtime.
    System(io::Error),
    /// Ours: a promise was not kept.
    Step(Step, Mismatch),
    /// Somebody pressed Ctrl-C, sent SIGTERM or closed the terminal.
    Signal(Came),
}

impl DemoError {
    fn exit_code(&self) -> ExitCode {
        const EX_UNAVAILABLE: u8 = 69;
        match self {
            Self::Refused(_) | Self::World(_) | Self::System(_) => EX_UNAVAILABLE.into(),
            Self::Step(..) => ExitCode::FAILURE,
            Self::Signal(came) => came.code.into(),
        }
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::World(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::Step(step, mismatch) => write!(
                f,
                "step {} ({}): expected {}; seen: {}",
                step.number(),
                step.title(),
                mismatch.expected,
                mismatch.seen.lines().next().unwrap_or_default()
            ),
            Self::Signal(came) => write!(f, "ended by {}", came.name),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<Refusal> for DemoError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<WorldError> for DemoError {
    fn from(error: WorldError) -> Self {
        Self::World(error)
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
