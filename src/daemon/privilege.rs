//! Who the daemon runs as: from root, from systemd, or from nothing at all in a user namespace.
//!
//! Started as root it becomes the configured user by executing itself with exactly the two
//! capabilities that systemd's unit gives, so that one way of running remains. It never keeps a
//! capability by file attribute and refuses to run where one was set for others.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Group as UnixGroup, Uid, User};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, configure_capability_in_ambient_set, set_capabilities,
    set_capabilities_secure_bits,
};

/// Set for the process that `become_user` executes, so that it does not try again.
const BECAME: &str = "ACMEGATE_BECAME_USER";

/// This program, even where its file was replaced.
const OURSELVES: &str = "/proc/self/exe";

/// What stands between root and the configured user.
#[derive(Debug)]
pub enum UserError {
    /// No such account.
    Unknown(String),
    /// A directory cannot be made that account's.
    Directory(PathBuf, io::Error),
    /// The change itself failed.
    System(io::Error),
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "the user `{name}` of [daemon] user does not exist; `systemd-sysusers` with acmegate's \
                 file makes it, or `useradd --system --no-create-home {name}`, or name another"
            ),
            Self::Directory(path, error) => write!(
                f,
                "cannot make {} a directory of [daemon] user: {error}; put that right, or name another \
                 (--runtime-dir, [daemon] state_dir)",
                path.display()
            ),
            Self::System(error) => write!(f, "cannot become the configured user: {error}"),
        }
    }
}

/// Whether this binary carries file capabilities and somebody else than root runs it: then it would
/// lend its power to every user of the host.
pub fn is_lending_power(binary: &Path) -> bool {
    let mut attribute = [0u8; 64];
    let carries = rustix::fs::getxattr(binary, "security.capability", &mut attribute).is_ok();
    carries && !rustix::process::getuid().is_root()
}

/// Whether the process may open windows: CAP_NET_ADMIN in its network namespace's user namespace.
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether anything that this process executes could get CAP_NET_ADMIN: it is in the bounding set.
pub fn may_have_net_admin() -> bool {
    capability_is_in_bounding_set(CapabilitySet::NET_ADMIN).unwrap_or(true)
}

/// Becomes `user` if this process is root on the host, by executing itself; returns otherwise:
/// when it is not root, already became the user, or lives in a user namespace that does not know
/// another. Before, as root, it makes `directories` that account's.
///
/// # Errors
/// [`UserError`].
pub fn become_user(user: &str, directories: &[&Path]) -> Result<(), UserError> {
    if !rustix::process::getuid().is_root() || std::env::var_os(BECAME).is_some() {
        return Ok(());
    }
    let Some((uid, gid)) = account(user) else {
        // In a namespace of one id there is nobody else to become.
        return if is_mapped(1) {
            Err(UserError::Unknown(user.to_owned()))
        } else {
            Ok(())
        };
    };
    if uid.is_root() || !is_mapped(uid.as_raw()) {
        return Ok(());
    }
    for directory in directories {
        hand_over(directory, uid, gid)
            .map_err(|error| UserError::Directory((*directory).to_owned(), error))?;
    }
    keep_two_capabilities().map_err(UserError::System)?;
    // exec only returns to say why it failed.
    let failed = Command::new(OURSELVES)
        .args(std::env::args_os().skip(1))
        .env(BECAME, "1")
        .uid(uid.as_raw())
        .gid(gid.as_raw())
        .exec();
    Err(UserError::System(io::Error::other(format!(
        "{OURSELVES}: {failed}"
    ))))
}

fn hand_over(directory: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let there = fs::symlink_metadata(directory)?;
    // What is right is left alone: the disk may be read-only.
    if (there.uid(), there.gid()) == (uid.as_raw(), gid.as_raw()) {
        return Ok(());
    }
    // By now it may be a link of that account's making, and we are root.
    lchown(directory, Some(uid.as_raw()), Some(gid.as_raw()))
}

fn keep_two_capabilities() -> io::Result<()> {
    let two = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
    let held = capabilities(None)?;
    let two = two & held.permitted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: held.effective,
            permitted: held.permitted,
            inheritable: two,
        },
    )?;
    // Without this bit the change of uid itself would clear the ambient set.
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    for capability in two.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    // Full sets survive until the exec, which takes all but the ambient ones: the new uid is not 0.
    Ok(())
}

fn account(user: &str) -> Option<(Uid, Gid)> {
    let found = match user.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(user),
    };
    found.ok().flatten().map(|user| (user.uid, user.gid))
}

/// The uid of an account, by its name or its digits; `None` if this host has no such account.
pub fn uid_of(user: &str) -> Option<u32> {
    account(user).map(|(uid, _)| uid.as_raw())
}

/// The name of an account, if it has one.
pub fn name_of(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map(|user| user.name)
}

/// Whether this user namespace has `uid`.
fn is_mapped(uid: u32) -> bool {
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else {
        // A kernel without user namespaces has no such file, and every account. Nor may root stay root where the file
        // cannot be read.
        return true;
    };
    map.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| word.parse::<u64>().unwrap_or(0));
        let (inside, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (inside, count) = (inside.unwrap_or(0), count.unwrap_or(0));
        (inside..inside + count).contains(&u64::from(uid))
    })
}

/// The host's accounts, as `[[grant]]` names them. Asked before the process is sealed.
pub struct HostAccounts;

impl crate::config::Accounts for HostAccounts {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<crate::config::Group> {
        let group = UnixGroup::from_name(name).ok().flatten()?;
        let members = group
            .mem
            .iter()
            .filter_map(|member| User::from_name(member).ok().flatten())
            .map(|user| user.uid.as_raw())
            .collect();
        Some(crate::config::Group {
            gid: group.gid.as_raw(),
            members,
        })
    }
}
