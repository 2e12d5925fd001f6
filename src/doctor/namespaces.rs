//! Namespaces to throw away: one user namespace, and as many networks as a small world needs.
//!
//! What it is for: power over a network of one's own, without root (user_namespaces(7),
//! network_namespaces(7)). What it never does: touch the network, the firewall or a file of the
//! host; when the process ends, the kernel takes all of it away.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::rc::Rc;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, getgid, getuid};

/// Moves this process into a user and a network namespace of its own, where it is root.
///
/// Must be called while the process has one thread: unshare(2) refuses `CLONE_NEWUSER` otherwise.
///
/// # Errors
/// [`Refusal`]: the system's doing, or its administrator's; its text says how to allow it.
pub fn enter() -> Result<(), Refusal> {
    let (uid, gid) = (getuid(), getgid());
    let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) else {
        return map_ids(uid, gid);
    };
    // The real root needs no user namespace, and may be where they are switched off.
    if uid.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    Err(Refusal::new("unshare", errno.into()))
}

/// Makes the caller root of its new user namespace. Only this one id can be mapped without
/// privilege, and groups only once setgroups(2) has been given up.
fn map_ids(uid: Uid, gid: Gid) -> Result<(), Refusal> {
    let write = |file: &'static str, text: String| {
        fs::write(file, text).map_err(|error| Refusal::new(file, error))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A network namespace that this process made, and the one it stands in.
///
/// A socket belongs for good to the namespace in which it was made. So one thread serves them all:
/// it goes in, makes a socket, comes back, and may wait for that socket anywhere.
pub struct Netns {
    own: File,
    home: Rc<File>,
}

impl Netns {
    /// Opens the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The system's: no `/proc`.
    pub fn here() -> io::Result<Self> {
        let own = File::open(THREAD_NETNS)?;
        let home = Rc::new(own.try_clone()?);
        Ok(Self { own, home })
    }

    /// Makes a network namespace beside this one; the caller stays where it is.
    ///
    /// # Errors
    /// The system's: no power to make one, or too many.
    pub fn beside(&self) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let made = File::open(THREAD_NETNS);
        setns(&*self.home, CloneFlags::CLONE_NEWNET)?;
        Ok(Self {
            own: made?,
            home: Rc::clone(&self.home),
        })
    }

    /// Does `work` inside this namespace and comes back.
    ///
    /// `work` cannot wait: a task switch in there would let other tasks run in the wrong place.
    ///
    /// # Errors
    /// The system's: the way in or back is shut.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        setns(&self.own, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(&*self.home, CloneFlags::CLONE_NEWNET)?;
        Ok(result)
    }

    /// The namespace as a file, for netlink messages that name it.
    pub fn as_file(&self) -> &File {
        &self.own
    }
}

/// `self` would name the process's first thread, whoever asks.
const THREAD_NETNS: &str = "/proc/thread-self/ns/net";

/// Namespaces were refused: by whom we cannot know for sure, but what may be in the way we can.
#[derive(Debug)]
pub struct Refusal {
    what: &'static str,
    error: io::Error,
    host: Host,
}

impl Refusal {
    fn new(what: &'static str, error: io::Error) -> Self {
        Self {
            what,
            error,
            host: Host::look(),
        }
    }
}

impl Refusal {
    /// What the administrator can do about it, the likeliest first.
    pub fn ways_out(&self) -> Vec<&'static str> {
        self.host.ways_out()
    }

    /// What was refused, in one line.
    pub fn reason(&self) -> String {
        format!(
            "this system refuses namespaces ({}: {})",
            self.what, self.error
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reason())?;
        writeln!(
            f,
            "  What is tried out is tried in a user namespace of its own. To allow that, one of:"
        )?;
        for way in self.host.ways_out() {
            writeln!(f, "    {way}")?;
        }
        write!(f, "  Nothing was changed.")
    }
}

/// The switches of the host that are known to be in the way; `None` where there is no such switch.
#[derive(Debug, Default)]
struct Host {
    /// Debian's own: 0 forbids.
    unprivileged_userns_clone: Option<u32>,
    /// Ubuntu since 23.10: 1 takes the power away inside the new namespace.
    apparmor_restrict: Option<u32>,
    /// namespaces(7): 0 forbids, for root too.
    max_user_namespaces: Option<u32>,
    /// The same for networks.
    max_net_namespaces: Option<u32>,
    container: bool,
}

impl Host {
    fn look() -> Self {
        let switch = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            unprivileged_userns_clone: switch("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restrict: switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: switch("/proc/sys/user/max_user_namespaces"),
            max_net_namespaces: switch("/proc/sys/user/max_net_namespaces"),
            container: ["/.dockerenv", "/run/.containerenv"]
                .iter()
                .any(|mark| Path::new(mark).exists()),
        }
    }

    /// What to do, the likeliest first. Where nothing looks wrong, everything that could be.
    fn ways_out(&self) -> Vec<&'static str> {
        const CLONE: &str = "Debian: sudo sysctl kernel.unprivileged_userns_clone=1";
        const APPARMOR: &str = "Ubuntu: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0";
        const COUNT: &str = "anywhere: sudo sysctl user.max_user_namespaces=15000";
        const NETWORKS: &str = "anywhere: sudo sysctl user.max_net_namespaces=15000";
        const CONTAINER: &str = "in a container: docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN \
                                 --security-opt seccomp=unconfined --security-opt apparmor=unconfined";
        const ROOT: &str =
            "or run the same as root, with all of root's capabilities: sudo acmegate …";

        let mut ways = Vec::new();
        if self.unprivileged_userns_clone == Some(0) {
            ways.push(CLONE);
        }
        if self.apparmor_restrict.is_some_and(|value| value != 0) {
            ways.push(APPARMOR);
        }
        if self.max_user_namespaces == Some(0) {
            ways.push(COUNT);
        }
        if self.max_net_namespaces == Some(0) {
            ways.push(NETWORKS);
        }
        if self.container {
            ways.push(CONTAINER);
        }
        if ways.is_empty() {
            ways.extend([CLONE, APPARMOR, COUNT, CONTAINER]);
        }
        // Root too gets no network where there may be none.
        if self.max_net_namespaces != Some(0) {
            ways.push(ROOT);
        }
        ways
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_is_off_is_the_one_that_is_named() {
        let host = Host {
            unprivileged_userns_clone: Some(0),
            apparmor_restrict: Some(0),
            max_user_namespaces: Some(15000),
            max_net_namespaces: None,
            container: false,
        };
        let ways = host.ways_out().join("\n");
        assert!(ways.contains("kernel.unprivileged_userns_clone=1"));
        assert!(!ways.contains("apparmor_restrict"));
        assert!(!ways.contains("max_user_namespaces"));
        assert!(!ways.contains("container"));
        assert!(ways.contains("as root"));
    }

    #[test]
    fn where_no_network_may_be_made_root_gets_none_either() {
        let host = Host {
            max_net_namespaces: Some(0),
            ..Host::default()
        };
        assert_eq!(
            host.ways_out(),
            ["anywhere: sudo sysctl user.max_net_namespaces=15000"]
        );
    }

    #[test]
    fn where_nothing_looks_wrong_every_way_is_named() {
        let ways = Host::default().ways_out().join("\n");
        for word in [
            "kernel.unprivileged_userns_clone",
            "kernel.apparmor_restrict_unprivileged_userns",
            "user.max_user_namespaces",
            "--security-opt",
            "SYS_ADMIN",
            "as root",
        ] {
            assert!(ways.contains(word), "{word}");
        }
    }
}
