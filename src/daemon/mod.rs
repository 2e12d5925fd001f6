//! Wires: processes, seals, start and stop.
//!
//! The order is the design: read the configuration, become the right user, bind every socket, start
//! the enforcer by executing ourselves, give everything up, and only then build a runtime and read
//! the first foreign byte. Clean stop takes our part of the ruleset away; a crash, or the signal
//! that a restart sends, leaves it, and the next start adopts it.

pub mod armed;
mod asked_ports;
mod attempts;
mod authority;
mod child;
pub mod commands;
pub mod confine;
pub mod desk;
pub mod early;
pub mod enforcer;
mod framed;
pub mod historian;
pub mod history;
pub mod lease_error;
pub mod leases;
pub mod link;
pub mod listen;
mod lists;
mod lock;
mod measure;
pub mod notices;
pub mod notify;
pub mod parts;
pub mod port;
pub mod privilege;
pub mod process;
mod pushing;
pub mod rate_limit;
pub mod reader;
pub mod recorder;
mod refused;
mod reload;
mod reporting;
pub mod runner;
pub mod sandbox;
pub mod seal;
mod serve;
mod tell;
mod under_exec;
mod words;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use self::confine::Account;
use self::notify::Notify;
use self::parts::{Remembered, Room};
use self::privilege::{HostAccounts, UserError};
use self::seal::{Calls, Seal};
use crate::answer::Pushed;
use crate::config::lists::Lists;
use crate::config::{Config, Disk, Format, Level, Mode};
use crate::control::protocol::{CONTROL_SOCKET, Exit, OBSERVE_SOCKET};
use crate::control::server;
use crate::front::{self, Speaks};
use crate::observe;

/// Open descriptors besides connections: the callers of two control sockets (192 each), watched lease
/// holders (64), listeners, webroots, the runtime's own.
const OTHER_DESCRIPTORS: u64 = 512;
/// Below this nothing is started. The processes' own take some 30; who runs out of them half-way through a
/// start, or with the first visitor, cannot say any more what is wrong.
const LEAST_DESCRIPTORS: u64 = 64;

/// What `acmegate run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--runtime-dir`.
    pub runtime_dir: PathBuf,
}

/// Why the daemon did not start, or ended.
#[derive(Debug)]
pub struct Fatal {
    /// sysexits.
    pub exit: Exit,
    /// For the operator.
    pub message: String,
}

impl Fatal {
    fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`Fatal`].
pub fn run(options: &Options) -> Result<(), Fatal> {
    let mut accounts = Remembered::over(HostAccounts);
    let config = Config::load_with(options.config.as_deref(), &accounts, &Disk)
        .map_err(|error| Fatal::new(Exit::Config, error))?;
    let directories = [
        &options.runtime_dir,
        &config.daemon.state_dir,
        &parts::built_in_webroot(&config),
    ];
    privilege::become_user(
        &config.daemon.user,
        &directories.map(|directory| directory.as_path()),
    )
    .map_err(|error| {
        let exit = match error {
            UserError::Unknown(_) => Exit::Config,
            UserError::Directory(..) | UserError::System(_) => Exit::Os,
        };
        Fatal::new(exit, error)
    })?;
    start_log(&config);
    name_process(c"acmegate");

    let _locks = lock::take(&options.runtime_dir, config.firewall.mode != Mode::GateOnly)?;
    let room = raise_descriptor_limit(&config)?;
    let mut problems = Vec::new();
    let listeners = listeners(&config)?;
    problems.extend(unnamed_ports(
        &config,
        listeners.iter().map(|listener| listener.address),
    ));
    let scraped = scraped(&config)?;
    let sockets = control_sockets(&options.runtime_dir, &config)?;
    // Only the built-in one is ours to make; a configured webroot belongs to its ACME client.
    let _ = fs::create_dir_all(parts::built_in_webroot(&config));
    let pushed = Arc::new(Pushed::default());
    let lists = Lists::read(&config.allow).map_err(|error| Fatal::new(Exit::Config, error))?;
    let rules = parts::rules(&config, lists.list(), &pushed, room, &mut problems)
        .map_err(|error| Fatal::new(Exit::Config, error))?;
    let notify = Notify::from_env();
    let account = Account::own();
    if let Some(refusal) = account.confined(&config).refusal(&config) {
        return Err(Fatal::new(Exit::Config, refusal));
    }
    let (enforcer, child) = start_enforcer(&config)?;
    let runner = runner::start(&config)?;
    let historian = historian::start(&config);
    problems.extend(parts::missing_programs(&config));
    accounts.seal();

    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    let sealed = front_seal(&config).apply();
    let demanded = sealed.and_then(|done| done.demand(config.daemon.require_seals));
    let landlocked = demanded.map_err(|error| {
        Fatal::new(
            Exit::Os,
            format!("cannot give up what the front must not have: {error}"),
        )
    })?;

    let runtime = room_for_threads(workers + 1).and_then(|()| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(16)
            .enable_all()
            .build()
    });
    let runtime =
        runtime.map_err(|error| Fatal::new(Exit::Os, format!("cannot start: {error}")))?;
    let served = runtime.block_on(serve::serve(serve::Daemon {
        options: options.clone(),
        accounts,
        upstream_ports: parts::upstream_ports(&config),
        room,
        config: Arc::new(config),
        listeners,
        scraped,
        sockets,
        pushed,
        rules,
        lists,
        problems,
        notify,
        enforcer,
        child,
        runner,
        historian,
        landlocked,
        account,
    }));
    // A thread that still reads lists has nothing to finish.
    runtime.shutdown_background();
    served
}

/// What the front may still do once it is sealed.
pub fn front_seal(config: &Config) -> Seal {
    Seal {
        capabilities: CapabilitySet::empty(),
        readable: parts::readable(config),
        writable: Vec::new(),
        connect_ports: parts::upstream_ports(config),
        calls: Calls::Front,
    }
}

/// Whether so many threads can be had at once: a runtime that is refused one of its own panics.
fn room_for_threads(count: usize) -> io::Result<()> {
    let all_are_there = RwLock::new(());
    std::thread::scope(|scope| {
        let _waiting = all_are_there.write();
        let started = (0..count).try_for_each(|_| {
            let waits = || drop(all_are_there.read());
            std::thread::Builder::new()
                .spawn_scoped(scope, waits)
                .map(drop)
        });
        started.map_err(|error| {
            let told = format!(
                "no room for {count} threads ({error}): raise TasksMax= of the unit, or the limit of processes \
                 of this account or container"
            );
            io::Error::new(error.kind(), told)
        })
    })
}

/// The two sockets, bound.
pub struct ControlSockets {
    control: std::os::unix::net::UnixListener,
    observe: std::os::unix::net::UnixListener,
}

fn start_log(config: &Config) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match config.log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    observe::log::start(config.log.format == Format::Json, level);
}

/// A socket, what is spoken there, and where it is.
pub struct Listener {
    socket: std::net::TcpListener,
    speaks: Speaks,
    address: SocketAddr,
}

/// A socket where metrics are shown, and where it is.
pub struct Scraped {
    socket: std::net::TcpListener,
    address: SocketAddr,
}

fn scraped(config: &Config) -> Result<Vec<Scraped>, Fatal> {
    let bound = listen::bind_for_metrics(&config.metrics.listen);
    let sockets = bound.map_err(|error| Fatal::new(Exit::Os, error))?;
    let addressed = sockets.into_iter().map(|socket| {
        let address = address_of(&socket)?;
        Ok(Scraped { socket, address })
    });
    addressed.collect()
}

fn listeners(config: &Config) -> Result<Vec<Listener>, Fatal> {
    let (http, tls) = (&config.http, &config.tls);
    let mut listeners = Vec::new();
    for socket in listen::inherited().map_err(|error| Fatal::new(Exit::Config, error))? {
        let address = address_of(&socket)?;
        // Of a socket that was handed over, the configuration knows the port alone.
        let is_tls = tls.listen.iter().any(|own| own.port() == address.port());
        let speaks = match is_tls {
            true => Speaks::Tls,
            false => Speaks::Http,
        };
        listeners.push(Listener {
            socket,
            speaks,
            address,
        });
    }
    for (speaks, addresses, divert) in [
        (Speaks::Http, &http.listen, http.divert),
        (Speaks::Tls, &tls.listen, tls.divert),
    ] {
        // What was handed over takes the place of what is configured.
        if listeners.iter().any(|listener| listener.speaks == speaks) {
            continue;
        }
        let bound = match divert {
            Some(_) => listen::bind_transparent(addresses),
            None => listen::bind(addresses),
        };
        for socket in bound.map_err(|error| Fatal::new(Exit::Os, error))? {
            listeners.push(Listener {
                address: address_of(&socket)?,
                socket,
                speaks,
            });
        }
    }
    Ok(listeners)
}

fn address_of(socket: &std::net::TcpListener) -> Result<SocketAddr, Fatal> {
    socket
        .local_addr()
        .map_err(|error| Fatal::new(Exit::Os, format!("a listener has no address: {error}")))
}

/// What is wrong with where the gate listens, by this configuration.
fn unnamed_ports<'a>(
    config: &'a Config,
    listeners: impl Iterator<Item = SocketAddr> + 'a,
) -> impl Iterator<Item = String> + 'a {
    let has_windows = config.firewall.mode != Mode::GateOnly;
    // Diverted peers come to other ports than the one they are handed to.
    let is_diverted_to = |port| [config.http.divert, config.tls.divert].contains(&Some(port));
    listeners
        .map(|address| address.port())
        .filter(move |port| has_windows && !is_diverted_to(*port))
        .filter(|port| !config.firewall.ports.contains(port))
        .map(|port| {
            format!(
                "the gate listens on port {port} but [firewall] ports does not name it: no window opens it"
            )
        })
}

fn control_sockets(directory: &Path, config: &Config) -> Result<ControlSockets, Fatal> {
    // With grants the kernel lets everybody knock, and the table decides by credentials.
    let mode = if config.grants.is_empty() {
        0o600
    } else {
        0o666
    };
    let bind = |name: &str, mode| {
        let path = directory.join(name);
        server::bind(&path, mode).map_err(|error| {
            Fatal::new(
                Exit::Os,
                format!("cannot make the socket {}: {error}", path.display()),
            )
        })
    };
    Ok(ControlSockets {
        control: bind(CONTROL_SOCKET, mode)?,
        observe: bind(OBSERVE_SOCKET, 0o666)?,
    })
}

/// Asks for as many descriptors as connections are configured; says how many connections there is
/// room for, so that the control sockets, which need descriptors too, never starve beside them.
fn raise_descriptor_limit(config: &Config) -> Result<Room, Fatal> {
    let limit = getrlimit(Resource::Nofile);
    let http = u64::from(config.http.max_connections);
    // A visitor has one, and the site's server another.
    let (tls, other) = match config.tls.listen.is_empty() {
        true => (0, OTHER_DESCRIPTORS),
        false => (
            2 * u64::from(config.tls.max_connections),
            OTHER_DESCRIPTORS + front::PIPE_DESCRIPTORS as u64,
        ),
    };
    let other = match config.metrics.listen.len() as u64 {
        0 => other,
        listeners => other + listeners + observe::scrape::MAX_SCRAPERS as u64 * listeners,
    };
    let wanted = http + tls + other;
    let reachable = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let mut current = limit.current.unwrap_or(wanted);
    if current < reachable {
        let raised = Rlimit {
            current: Some(reachable),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = reachable,
            Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
        }
    }
    if current < LEAST_DESCRIPTORS {
        return Err(Fatal::new(
            Exit::Os,
            format!(
                "the limit of open files is {current}: {LEAST_DESCRIPTORS} is the least, and {wanted} is what the configuration takes (LimitNOFILE= of the unit, `ulimit -n` of a shell)"
            ),
        ));
    }
    if current < wanted {
        tracing::warn!(
            limit = current,
            wanted,
            "the limit of open files is lower than max_connections of [http] and [tls]: fewer connections are taken"
        );
    }
    // Half of very few is better than none; who has more in the file has more of what there is.
    let room = current
        .saturating_sub(other)
        .max(current / 2)
        .min(http + tls);
    let share = |part: u64| usize::try_from(room * part / (http + tls)).unwrap_or(usize::MAX);
    Ok(Room {
        http: share(http),
        tls: share(tls) / 2,
    })
}

/// Starts the enforcer, if this process can give it what it needs.
fn start_enforcer(config: &Config) -> Result<(UnixStream, Child), Fatal> {
    if config.firewall.mode != Mode::GateOnly && !privilege::has_net_admin() {
        // systemd gives what the unit asks for, but nobody can give what a container withholds.
        let way_out = match privilege::may_have_net_admin() {
            true => "start it by systemd (acmegate.service), or as root",
            false => {
                "it is withheld from this container or unit as a whole: add it there (systemd-nspawn \
                 --capability=CAP_NET_ADMIN, docker --cap-add=NET_ADMIN, CapabilityBoundingSet=)"
            }
        };
        return Err(Fatal::new(
            Exit::NoPerm,
            format!(
                "opening windows needs CAP_NET_ADMIN. Ways out: {way_out}; \
                 or set [firewall] mode = \"gate-only\" and let the gate alone decide"
            ),
        ));
    }
    start_beside("enforcer", config)
}

/// Starts our own program as the process that `name` is the subcommand of, with one end of a socket
/// pair as its standard input and nothing of our environment.
fn start_beside(name: &str, config: &Config) -> Result<(UnixStream, Child), Fatal> {
    let failed =
        |error: io::Error| Fatal::new(Exit::Os, format!("cannot start the {name}: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(name)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)));
    if let Some(path) = &config.source {
        command.arg("--config").arg(path);
    }
    for name in ["JOURNAL_STREAM", "NO_COLOR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let child = command.spawn().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    Ok((ours, child))
}

/// Now, by the clock that tests can pause. Wall-clock time moves; this does not.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// Now, by the clock on the wall.
#[expect(
    clippy::disallowed_methods,
    reason = "said of starts and of records, and decides nothing"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Executing /proc/self/exe leaves `exe` as the name that ps and `nft list` show.
fn name_process(name: &std::ffi::CStr) {
    // A process that cannot be renamed works as well.
    let _ = rustix::thread::set_name(name);
}
