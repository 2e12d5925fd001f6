//! One daemon for one runtime directory, and one that has a part of the ruleset for one host.
//!
//! Both locks end with the process, however it ends. The second is a name in the abstract namespace
//! of unix(7), which belongs to the network namespace just as the ruleset does: where our table has
//! no owner flag, two daemons with different runtime directories would share it and each take
//! away what the other opens. Anybody may bind such a name, so it counts only if root or our own
//! user holds it; nobody else can keep the daemon from starting.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::Fatal;
use crate::control::protocol::Exit;

/// The name of the host's lock, after the octet 0.
const NAME: &[u8] = b"acmegate/firewall";

/// What is held until the daemon ends.
pub struct Locks {
    _runtime_dir: fs::File,
    _host: Option<OwnedFd>,
}

/// Makes the runtime directory and takes its lock; with `changes_ruleset` that of the host too.
///
/// # Errors
/// [`Fatal`] when another daemon holds one of them.
pub fn take(runtime_dir: &Path, changes_ruleset: bool) -> Result<Locks, Fatal> {
    let runtime_dir = directory(runtime_dir)?;
    let host = if changes_ruleset { host()? } else { None };
    Ok(Locks {
        _runtime_dir: runtime_dir,
        _host: host,
    })
}

fn directory(directory: &Path) -> Result<fs::File, Fatal> {
    let refused = |error: io::Error| {
        Fatal::new(
            Exit::Os,
            format!(
                "cannot use the runtime directory {}: {error}; start as root or by systemd, or name another \
                 with --runtime-dir",
                directory.display()
            ),
        )
    };
    fs::create_dir_all(directory).map_err(refused)?;
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        // Whoever may read a file may lock it, and so keep the daemon from starting.
        .mode(0o600)
        // Nor is a link followed, or a pipe's other end waited for: the directory is its account's.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(directory.join("lock"))
        .map_err(|error| {
            refused(io::Error::other(format!(
                "its file `lock`, to be removed if no acmegate runs: {error}"
            )))
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Fatal::new(
            Exit::TempFail,
            format!(
                "another acmegate runs already (it holds the lock in {})",
                directory.display()
            ),
        )),
        Err(error) => Err(refused(error.into())),
    }
}

/// Takes the host's lock; `None` where a stranger keeps it from us.
fn host() -> Result<Option<OwnedFd>, Fatal> {
    let failed = |error: Errno| {
        let error = io::Error::from(error);
        Fatal::new(Exit::Os, format!("cannot take the host's lock: {error}"))
    };
    let name = SocketAddrUnix::new_abstract_name(NAME).map_err(failed)?;
    let socket = socket().map_err(failed)?;
    match bind(&socket, &name) {
        // Listening is what lets the next one see who we are.
        Ok(()) => listen(&socket, 1).map_err(failed).map(|()| Some(socket)),
        Err(Errno::ADDRINUSE) => match holder(&name) {
            Some(uid) if uid.is_root() || uid == rustix::process::geteuid() => Err(Fatal::new(
                Exit::TempFail,
                "another acmegate runs already and has its part of this host's ruleset; only one can: \
                 end it, or let this one be of mode \"gate-only\"",
            )),
            _ => {
                tracing::warn!("another user's process holds the host's lock: not heeded");
                Ok(None)
            }
        },
        Err(error) => Err(failed(error)),
    }
}

/// Who listens under the name; `None` if that cannot be told.
fn holder(name: &SocketAddrUnix) -> Option<rustix::process::Uid> {
    let socket = socket().ok()?;
    connect(&socket, name).ok()?;
    getsockopt(&socket, PeerCredentials)
        .ok()
        .map(|them| rustix::process::Uid::from_raw(them.uid()))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}
