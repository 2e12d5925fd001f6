//! Seals: what a process gives up before it reads its first foreign byte, for good.
//!
//! The order matters. Capabilities and landlock bind one thread and its children, so all of it
//! happens while the process has one thread; only then is a runtime built (the other order fails
//! silently: every worker keeps what main gave up). Nothing here is undone later.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

/// What a sealed process may still do.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Capabilities that it keeps.
    pub capabilities: CapabilitySet,
    /// Files and directories that it may read, with everything below.
    pub readable: Vec<PathBuf>,
    /// Directories in which it may make, write and remove files.
    pub writable: Vec<PathBuf>,
    /// TCP ports that it may connect to.
    pub connect_ports: Vec<u16>,
    /// Which system calls it needs.
    pub calls: Calls,
}

/// Five sets of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Many threads, sockets of the Internet families, no new netlink or raw socket.
    Front,
    /// One thread, no new socket at all, no file.
    Enforcer,
    /// A thread that reads files and speaks to nobody but the enforcer's memory.
    Reader,
    /// One thread, no new socket, and what a database on disk takes.
    Historian,
    /// Everything that an ordinary program may need, for programs inherit it; but nothing that
    /// changes the system or looks into other processes.
    Runner,
}

/// How far the kernel went along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlocked {
    /// Everything that was asked for holds.
    Fully,
    /// An older kernel: some files are restricted, and what its version of landlock (1, 2 …) knows besides.
    Partly(u32),
    /// No landlock in this kernel; capabilities and system calls are restricted all the same.
    Not,
}

/// What each version of landlock (landlock(7)) came to restrict, after files themselves.
const LAYERS: [(u32, &str); 4] = [
    (3, "truncating files"),
    (4, "TCP ports"),
    (5, "device ioctls"),
    (6, "signals and abstract sockets"),
];

/// The version of landlock all of whose rights are restricted: what no rule below grants is refused.
const NEWEST: ABI = ABI::V6;

/// What may be done with a file of [`Seal::readable`].
const FILE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile});

/// What may be done beneath a directory of it. A reload opens each webroot, to see that it may be read, and opens
/// what stands in a list's place, to say that it is a directory; to list one there is no system call.
const DIRECTORY: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// What may be done beneath [`Seal::writable`]. SQLite opens the directory itself, to have a name that came or went
/// on the disk.
const WRITABLE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
});

impl Landlocked {
    /// What the status calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fully => "fully",
            Self::Partly(_) => "partly",
            Self::Not => "not",
        }
    }

    /// What this kernel's landlock leaves unrestricted.
    pub fn missing(self) -> Vec<&'static str> {
        let version = match self {
            Self::Fully => u32::MAX,
            Self::Partly(version) => version,
            Self::Not => 0,
        };
        let files = (version == 0).then_some("files");
        let layers = LAYERS.iter().filter(|(since, _)| version < *since);
        files
            .into_iter()
            .chain(layers.map(|(_, what)| *what))
            .collect()
    }

    /// Refuses to go on with less than all of it, where the configuration says so.
    ///
    /// # Errors
    /// What is missing, in one line.
    pub fn demand(self, all_of_it: bool) -> io::Result<Self> {
        let missing = self.missing();
        if !all_of_it || missing.is_empty() {
            return Ok(self);
        }
        let missing = missing.join(", ");
        Err(io::Error::other(format!(
            "the landlock of this kernel or container does not restrict {missing}, and [daemon] require_seals is true \
             (Linux 6.12 restricts all of it; with false acmegate goes on without)"
        )))
    }
}

impl Seal {
    /// Seals the calling thread, which must be the only one.
    ///
    /// # Errors
    /// Whatever part could not be had; then the process must not go on.
    pub fn apply(&self) -> io::Result<Landlocked> {
        clear_ambient_capability_set()?;
        // What programs are to have goes through their exec as an ambient capability.
        let inherited = match self.calls {
            Calls::Runner => self.capabilities,
            Calls::Front | Calls::Enforcer | Calls::Reader | Calls::Historian => {
                CapabilitySet::empty()
            }
        };
        let kept = CapabilitySets {
            effective: self.capabilities,
            permitted: self.capabilities,
            inheritable: inherited,
        };
        set_capabilities(None, kept)?;
        for capability in inherited.iter() {
            configure_capability_in_ambient_set(capability, true)?;
        }
        set_no_new_privs(true)?;
        let landlocked = match self.calls {
            // It would bind the commands, and which files those need only their author knows.
            Calls::Runner => Landlocked::Not,
            Calls::Front | Calls::Enforcer | Calls::Reader | Calls::Historian => self.landlock()?,
        };
        for program in self.calls.filters()? {
            apply_filter(&program).map_err(io::Error::other)?;
        }
        Ok(landlocked)
    }

    /// The part of it that is landlock: files, ports, signals and abstract sockets. It binds the calling thread and
    /// those that it starts.
    ///
    /// # Errors
    /// A directory to write in that is not there, or the kernel's refusal.
    pub fn landlock(&self) -> io::Result<Landlocked> {
        let rules = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
            let mut ruleset = Ruleset::default()
                .handle_access(AccessFs::from_all(NEWEST))?
                .handle_access(AccessNet::from_all(NEWEST))?
                .scope(Scope::from_all(NEWEST))?
                .create()?;
            for path in &self.readable {
                // What is not there cannot be read; it is no reason to start without a seal.
                if let Ok(handle) = PathFd::new(path) {
                    let access = if path.is_dir() { DIRECTORY } else { FILE };
                    ruleset = ruleset.add_rule(PathBeneath::new(handle, access))?;
                }
            }
            for path in &self.writable {
                ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, WRITABLE))?;
            }
            for &port in &self.connect_ports {
                ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
            }
            Ok(ruleset.restrict_self()?)
        };
        let status = rules().map_err(io::Error::other)?;
        let version = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        };
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Landlocked::Fully,
            RulesetStatus::PartiallyEnforced => Landlocked::Partly(version),
            RulesetStatus::NotEnforced => Landlocked::Not,
        })
    }
}

impl Calls {
    /// The filters, in the order they are applied. What they do not allow fails with EPERM, so that
    /// a library that tries too much gets an error it can report.
    fn filters(self) -> io::Result<Vec<BpfProgram>> {
        // clone3 hides its flags behind a pointer; told that there is none, glibc falls back to
        // clone, whose flags can be read. Of two filters the stricter answer counts. The other one
        // comes last: once an allow-list stands, seccomp(2) itself is gone.
        let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let no_clone3 = filter(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS))?;
        if self == Self::Runner {
            let refused = REFUSED_TO_COMMANDS.iter().map(|call| (*call, Vec::new()));
            let mut refused: BTreeMap<i64, Vec<SeccompRule>> = refused.collect();
            refused.insert(libc::SYS_clone, into_any_namespace()?);
            let refused = filter(refused, SeccompAction::Allow, errno(libc::EPERM))?;
            return Ok(vec![no_clone3, no_second_numbers(), refused]);
        }
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            COMMON.iter().map(|call| (*call, Vec::new())).collect();
        // FIONBIO is how std and tokio make sockets non-blocking.
        rules.insert(libc::SYS_ioctl, vec![only(1, FIONBIO)?]);
        // Naming a thread.
        rules.insert(libc::SYS_prctl, vec![only(0, libc::PR_SET_NAME as u64)?]);
        // Ending oneself by a signal; landlock knows of signals only from Linux 6.12 on.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![only(0, own)?]);
        // F_SETOWN would have the kernel send them.
        let any_of = |commands: &[i32]| {
            let each = commands.iter().map(|command| only(1, *command as u64));
            each.collect::<io::Result<Vec<_>>>()
        };
        rules.insert(libc::SYS_fcntl, any_of(&FCNTL)?);
        // No code comes into being that was not there at the start.
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![without(2, libc::PROT_EXEC as u64)?]);
        }
        let mut allow = |calls: &[i64]| rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        match self {
            Self::Runner => {}
            Self::Enforcer => {
                allow(POLLING);
                allow(ENFORCER);
            }
            Self::Reader => allow(FILES),
            Self::Historian => {
                allow(POLLING);
                allow(FILES);
                allow(HISTORIAN);
                rules.insert(libc::SYS_fcntl, any_of(&[&FCNTL[..], &LOCKS].concat())?);
                rules.insert(libc::SYS_sendto, vec![send_to_nobody_else()?]);
            }
            Self::Front => {
                allow(POLLING);
                allow(FILES);
                allow(FRONT);
                // Options of IP, and with them netfilter's own, are nobody's business here.
                rules.insert(
                    libc::SYS_setsockopt,
                    any_of(&[libc::SOL_SOCKET, libc::IPPROTO_TCP])?,
                );
                // The pipes that bulk data goes through are larger than the kernel's own measure.
                let commands = [&FCNTL[..], &[libc::F_SETPIPE_SZ]].concat();
                rules.insert(libc::SYS_fcntl, any_of(&commands)?);
                rules.insert(libc::SYS_clone, vec![thread_only()?]);
                rules.insert(libc::SYS_sendto, vec![send_to_nobody_else()?]);
                let streams = |family| stream_sockets(family, [0, libc::IPPROTO_TCP]);
                rules.insert(
                    libc::SYS_socket,
                    [streams(libc::AF_INET)?, streams(libc::AF_INET6)?].concat(),
                );
                // The signal driver's; a pair for datagrams could still send to any socket's path.
                rules.insert(libc::SYS_socketpair, stream_sockets(libc::AF_UNIX, [0, 0])?);
            }
        }
        let allow_list = filter(rules, errno(libc::EPERM), SeccompAction::Allow)?;
        Ok(vec![no_clone3, allow_list])
    }
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(io::Error::other)?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// Refuses x32: every system call of x86-64 has a second number, this bit larger, in a kernel that was built
/// for that, and a list of what is refused does not name it. A filter sees no other difference (seccomp(2)).
/// Elsewhere no call has so large a number.
fn no_second_numbers() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jump_unless: u8, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_unless,
        k,
    };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        step(libc::BPF_RET, 0, errno(libc::EPERM).into()),
        step(libc::BPF_RET, 0, SeccompAction::Allow.into()),
    ]
}

fn errno(code: i32) -> SeccompAction {
    SeccompAction::Errno(code as u32)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(io::Error::other)
}

fn only(argument: u8, value: u64) -> io::Result<SeccompRule> {
    let is = condition(argument, SeccompCmpOp::Eq, value)?;
    SeccompRule::new(vec![is]).map_err(io::Error::other)
}

/// The argument has none of these bits.
fn without(argument: u8, bits: u64) -> io::Result<SeccompRule> {
    let has_none = condition(argument, SeccompCmpOp::MaskedEq(bits), 0)?;
    SeccompRule::new(vec![has_none]).map_err(io::Error::other)
}

fn thread_only() -> io::Result<SeccompRule> {
    let thread = libc::CLONE_THREAD as u64;
    let is = condition(0, SeccompCmpOp::MaskedEq(thread), thread)?;
    SeccompRule::new(vec![is]).map_err(io::Error::other)
}

/// clone(2) with any of the flags that unshare(2) has for namespaces.
fn into_any_namespace() -> io::Result<Vec<SeccompRule>> {
    let has = |flag: &i32| {
        let flag = u64::from(flag.cast_unsigned());
        let is = condition(0, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![is]).map_err(io::Error::other)
    };
    NAMESPACES.iter().map(has).collect()
}

/// Sockets for streams of one family and two protocols: no datagram, raw, packet or netlink
/// socket; and no MPTCP, which landlock's rule for TCP ports does not see.
fn stream_sockets(family: i32, protocols: [i32; 2]) -> io::Result<Vec<SeccompRule>> {
    const TYPE_BITS: u64 = 0xf;
    let of = |protocol: i32| {
        SeccompRule::new(vec![
            condition(0, SeccompCmpOp::Eq, family as u64)?,
            condition(
                1,
                SeccompCmpOp::MaskedEq(TYPE_BITS),
                libc::SOCK_STREAM as u64,
            )?,
            condition(2, SeccompCmpOp::Eq, protocol as u64)?,
        ])
        .map_err(io::Error::other)
    };
    protocols.into_iter().map(of).collect()
}

/// Only to whom the socket is connected already: a `sendto` with MSG_FASTOPEN is a connect(2) that
/// landlock does not see (tcp(7)).
fn send_to_nobody_else() -> io::Result<SeccompRule> {
    const ADDRESS: u8 = 4;
    SeccompRule::new(vec![
        SeccompCondition::new(ADDRESS, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
            .map_err(io::Error::other)?,
        condition(3, SeccompCmpOp::MaskedEq(libc::MSG_FASTOPEN as u64), 0)?,
    ])
    .map_err(io::Error::other)
}

/// What any process needs once it runs: memory, time, its own end, and descriptors that are open already.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What a tokio runtime needs besides: polling, and sockets that are open already.
const POLLING: &[i64] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_recvfrom,
];

/// Opening and reading files, for `Reload` and webroots: landlock narrows it to the directories that are
/// configured.
const FILES: &[i64] = &[
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_statx,
    // musl asks these of x86-64 instead of openat(2) and newfstatat(2).
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    libc::SYS_lstat,
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    libc::SYS_open,
    #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
    libc::SYS_stat,
];

/// What fcntl(2) is for: copies of descriptors, and to see that one is open. The flags of files and sockets stay.
const FCNTL: [i32; 3] = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL];

/// What it is for to a database: locks.
const LOCKS: [i32; 2] = [libc::F_GETLK, libc::F_SETLK];

/// What the enforcer needs besides: netlink. Nobody has `sendmsg`: for the front it would be a way to connect, by
/// MSG_FASTOPEN and an address behind a pointer that no filter sees.
const ENFORCER: &[i64] = &[libc::SYS_recvmsg, libc::SYS_sendto];

/// What the historian needs besides: what SQLite does to a file, its journal and their directory. Modes
/// and owners are not among it: landlock does not know them, and they are right when a file is made.
const HISTORIAN: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    // While somebody else has the database; musl's nanosleep(3) is another call than glibc's.
    #[cfg(not(target_env = "musl"))]
    libc::SYS_clock_nanosleep,
    #[cfg(target_env = "musl")]
    libc::SYS_nanosleep,
    libc::SYS_faccessat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// What no command has a reason to do, nor the runner itself: another namespace or root directory,
/// kernel modules, programs in the kernel, other processes' memory, mounts, the clock, keys.
const REFUSED_TO_COMMANDS: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// What clone(2) can make with a process. Its flag for a namespace of time is a signal's number there.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// ioctl(2)'s way to a socket that does not block. musl has numbers of ioctl as `int`, glibc as `unsigned long`.
const FIONBIO: u64 = libc::FIONBIO as _;

/// What the front needs besides: its runtime, which is made when the seal is on, threads, connections and pipes
/// between them, webroots, and watching lease holders.
const FRONT: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pipe2,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_shutdown,
    libc::SYS_splice,
    libc::SYS_wait4,
];

#[cfg(test)]
mod tests;
