//! The check of the seals on the system that they are to hold on: a process of the daemon's account puts on each
//! of them, as the installed configuration makes it, and tries what must not work any more.
//!
//! It opens nothing, changes nothing, and asks nobody but listeners of its own. What is found to work is a
//! finding, whatever made it so: an old kernel, a container, a configuration that stands beside the passwords.
//! The same attempts are what the tests of the seals make, where they are also tried unsealed.

pub mod attempt;
pub mod ground;

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
};

pub use self::attempt::Attempt;
use self::ground::{Ground, Tried};
use super::confine::{Account, Confined};
use super::enforcer::enforcer_seal;
use super::historian::historian_seal;
use super::parts::AnyAccount;
use super::privilege;
use super::reader::reader_seal;
use super::runner::runner_seal;
use super::seal::{Calls, Seal};
use super::{Fatal, front_seal};
use crate::config::{Config, Disk};
use crate::control::protocol::Exit;
use crate::firewall::netlink::{Kernel, Standing};

/// How long all of it may take; it takes a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long one connection may take here, to listeners of this very process.
const CONNECT: Duration = Duration::from_secs(2);

/// The word for an attempt of the daemon's account, unsealed.
pub const ACCOUNT: &str = "account";

/// The processes whose seals are tried.
pub fn processes() -> impl Iterator<Item = &'static str> {
    Process::ALL.into_iter().map(Process::name)
}

/// Has a process of the daemon's account try everything, and gives what it found. As root that account is
/// the one of `[daemon] user`; for anybody else it is the own one. `program` is ours: `/proc/self/exe` for all
/// but tests.
///
/// # Errors
/// It could not be started, or did not tell within 30 s: one line.
pub fn examine(program: &Path, config: Option<&Path>) -> Result<Vec<Attempt>, String> {
    let failed = |error: io::Error| format!("the check of the seals cannot be started: {error}");
    let mut command = Command::new(program);
    command.arg("sandbox-check").arg("--json");
    if let Some(path) = config {
        command.arg("--config").arg(path);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (said, complained) = (child.stdout.take(), child.stderr.take());
    let (send, received) = channel();
    thread::spawn(move || {
        let read = |stream: Option<&mut dyn io::Read>| {
            let mut text = String::new();
            let read = stream.map(|stream| stream.take(1 << 20).read_to_string(&mut text));
            read.transpose().map(|_| text)
        };
        let mut said = said;
        let mut complained = complained;
        let said = read(said.as_mut().map(|stream| stream as &mut dyn io::Read));
        let complained = read(
            complained
                .as_mut()
                .map(|stream| stream as &mut dyn io::Read),
        );
        // Nobody waits any more who has given up.
        let _ = send.send((said, complained));
    });
    let told = received.recv_timeout(DEADLINE);
    end(&mut child);
    let Ok((said, complained)) = told else {
        let limit = DEADLINE.as_secs();
        return Err(format!(
            "the check of the seals did not end within {limit} s"
        ));
    };
    let said = said.map_err(failed)?;
    Attempt::read(&said, &complained.unwrap_or_default())
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Becomes the daemon's account, puts on one seal after the other, each in a thread of its own, and tries
/// everything. This is what the hidden subcommand does.
///
/// # Errors
/// [`Fatal`]: the configuration is bad, or there is nothing to try it on.
pub fn run(path: Option<&Path>) -> Result<Vec<Attempt>, Fatal> {
    let config = Config::load_with(path, &AnyAccount, &Disk)
        .map_err(|error| Fatal::new(Exit::Config, error))?;
    privilege::become_user(&config.daemon.user, &[])
        .map_err(|error| Fatal::new(Exit::Config, error))?;
    let standing = standing();
    let mut tried = Vec::new();
    for process in Process::ALL {
        let ground = Ground::new().map_err(|error| Fatal::new(Exit::Os, error))?;
        let seal = process.seal(&config, &ground);
        // A thread that cannot be sealed tells that; the process itself never is.
        let source = config.source.as_deref();
        let tries = || process.tries(&seal, &ground, source);
        let tries = thread::scope(|scope| scope.spawn(tries).join());
        tried.extend(tries.unwrap_or_default());
    }
    let confined = Account::own().confined(&config);
    let account = thread::spawn(move || try_as_the_account(&confined, standing.as_ref())).join();
    tried.extend(account.unwrap_or_default());
    Ok(tried)
}

/// What of ours is in the kernel, where this process may ask.
fn standing() -> Option<Standing> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime.block_on(async { Kernel::connect().ok()?.standing().await.ok() })
}

/// Whose seal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Process {
    Front,
    Enforcer,
    Reader,
    Historian,
    Runner,
}

impl Process {
    const ALL: [Self; 5] = [
        Self::Front,
        Self::Enforcer,
        Self::Reader,
        Self::Historian,
        Self::Runner,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Enforcer => "enforcer",
            Self::Reader => "reader",
            Self::Historian => "historian",
            Self::Runner => "runner",
        }
    }

    /// As it is put on, but for the historian's directory: that is its own.
    fn seal(self, config: &Config, ground: &Ground) -> Seal {
        let seal = match self {
            Self::Front => front_seal(config),
            Self::Enforcer => enforcer_seal(config),
            Self::Reader => reader_seal(config),
            Self::Historian => historian_seal(config, Some(&ground.directory.join("history"))),
            Self::Runner => runner_seal(config),
        };
        // A check by somebody without the daemon's rights has none of them to keep.
        let has = privilege::has_net_admin();
        Seal {
            capabilities: match has {
                true => seal.capabilities,
                false => CapabilitySet::empty(),
            },
            ..seal
        }
    }

    /// `source` is the configuration's file, which all read again but the enforcer: its reader does.
    fn tries(self, seal: &Seal, ground: &Ground, source: Option<&Path>) -> Vec<Attempt> {
        let name = self.name();
        // Made in time: a sealed thread makes none.
        let history = ground.directory.join("history");
        let made = std::fs::create_dir(&history);
        if let Err(error) = made.and_then(|()| seal.apply()) {
            return vec![Attempt::of(name, ("put on the seal", Err(error)), true)];
        }
        let refused = |name: &str, all: Vec<Tried>| -> Vec<Attempt> {
            let all = all.into_iter();
            all.map(|one| Attempt::of(name, one, false)).collect()
        };
        let mut tried = match self {
            Self::Runner => refused(name, ground.try_against_the_system()),
            _ => refused(name, ground.try_everything()),
        };
        if self == Self::Front {
            // What was given up before threads are started binds them all; after, only one.
            match on_a_thread(ground) {
                Ok(all) => tried.extend(refused("front (thread)", all)),
                Err(error) => {
                    let started = ("start a thread", Err(error));
                    tried.push(Attempt::of(name, started, true));
                }
            }
        }
        if matches!(self, Self::Enforcer | Self::Reader | Self::Historian) {
            tried.extend(refused(name, vec![("start a thread", start_a_thread())]));
        }
        let reads = matches!(self, Self::Front | Self::Reader | Self::Historian);
        if let Some(source) = source.filter(|_| reads) {
            let read = std::fs::read(source).map(drop);
            tried.push(Attempt::of(name, ("read the configuration", read), true));
        }
        if seal.calls == Calls::Historian {
            let written = std::fs::write(history.join("file"), "kept");
            tried.push(Attempt::of(name, ("write in its directory", written), true));
        }
        if seal.calls == Calls::Front {
            let accepted = accept(ground);
            tried.push(Attempt::of(name, ("accept a connection", accepted), true));
        }
        if seal.calls == Calls::Runner {
            let started = Command::new("true").status().map(drop);
            tried.push(Attempt::of(name, ("start a program", started), true));
        }
        tried
    }
}

/// From a thread that is started when the seal is on, as the runtime's are.
fn on_a_thread(ground: &Ground) -> io::Result<Vec<Tried>> {
    thread::scope(|scope| {
        let tries = thread::Builder::new().spawn_scoped(scope, || ground.try_everything());
        tries.map(|tries| tries.join().unwrap_or_default())
    })
}

/// Tries to start a thread.
///
/// musl has one word for whatever kept a thread from being started, that there is no room. There is: the caller is a
/// thread that was started just now.
///
/// # Errors
/// What the kernel said, permission denied for musl's word.
pub fn start_a_thread() -> io::Result<()> {
    match thread::Builder::new().spawn(|| ()) {
        Err(error) if cfg!(target_env = "musl") && error.kind() == io::ErrorKind::WouldBlock => {
            Err(rustix::io::Errno::PERM.into())
        }
        started => started.map(drop),
    }
}

/// Nobody has connected: either is an answer of the kernel.
fn accept(ground: &Ground) -> io::Result<()> {
    ground.listener.set_nonblocking(true)?;
    match ground.listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        accepted => accepted.map(drop),
    }
}

/// What the rules of our table leave to whoever has the account and no seal at all. Only a standing table limits
/// anything; where none stands that is told, and nothing is tried.
fn try_as_the_account(confined: &Confined, standing: Option<&Standing>) -> Vec<Attempt> {
    if !matches!(confined, Confined::To(_)) {
        return Vec::new();
    }
    let Some(standing) = standing else {
        return Vec::new();
    };
    let stands = match standing.confined.is_empty() {
        false => Ok(()),
        true => Err(io::Error::other("no rule limits it: is acmegate running?")),
    };
    let stands = Attempt::of(ACCOUNT, ("be limited by our table", stands), true);
    if !stands.is_good() {
        return vec![stands];
    }
    let powerless = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let given_up = clear_ambient_capability_set()
        .and_then(|()| set_capabilities(None, powerless))
        .map_err(io::Error::from);
    let connects = |address: IpAddr| {
        let listener = TcpListener::bind(SocketAddr::new(address, 0))?;
        TcpStream::connect_timeout(&listener.local_addr()?, CONNECT).map(drop)
    };
    let sends = |address: IpAddr| {
        let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
        socket.send_to(b"x", socket.local_addr()?).map(drop)
    };
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let mut tried = vec![
        stands,
        Attempt::of(ACCOUNT, ("give up its capabilities", given_up), true),
    ];
    let here = |address: IpAddr| UdpSocket::bind(SocketAddr::new(address, 0)).is_ok();
    let all = [
        (v4, ("connect to what is no upstream", connects(v4))),
        (
            v6,
            ("connect to what is no upstream, by IPv6", connects(v6)),
        ),
        (v4, ("send a datagram", sends(v4))),
        (v6, ("send a datagram by IPv6", sends(v6))),
    ];
    // A host without IPv6 has nothing to refuse there.
    let all = all.into_iter().filter(|(address, _)| here(*address));
    tried.extend(all.map(|(_, one)| Attempt::of(ACCOUNT, one, false)));
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fails for another reason than a refusal would have worked with better luck.
    #[test]
    fn only_a_refusal_is_one() {
        let works = |error: Option<i32>, should_work: bool| {
            let result = match error {
                Some(code) => Err(io::Error::from_raw_os_error(code)),
                None => Ok(()),
            };
            let attempt = Attempt::of("front", ("try", result), should_work);
            (attempt.works, attempt.is_good())
        };
        for refusal in [libc::EPERM, libc::EACCES, libc::ECONNREFUSED] {
            assert_eq!(works(Some(refusal), false), (false, true));
            assert_eq!(works(Some(refusal), true), (false, false));
        }
        for other in [libc::EINVAL, libc::EEXIST, libc::ETIMEDOUT] {
            assert_eq!(works(Some(other), false), (true, false));
            assert_eq!(works(Some(other), true), (false, false));
        }
        assert_eq!(works(None, false), (true, false));
        assert_eq!(works(None, true), (true, true));
    }
}
