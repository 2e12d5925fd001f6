use super::*;

#[test]
fn what_an_older_kernel_does_not_restrict_is_named_and_can_be_fatal() {
    let (ports, signals) = ("TCP ports", "signals and abstract sockets");
    for (landlocked, missing) in [
        (Landlocked::Fully, vec![]),
        (Landlocked::Partly(5), vec![signals]),
        (
            Landlocked::Partly(2),
            vec!["truncating files", ports, "device ioctls", signals],
        ),
    ] {
        assert_eq!(landlocked.missing(), missing, "{landlocked:?}");
        assert!(landlocked.demand(false).is_ok());
        assert_eq!(landlocked.demand(true).is_ok(), missing.is_empty());
    }
    let error = Landlocked::Not.demand(true).unwrap_err().to_string();
    assert!(
        error.contains("does not restrict files, truncating"),
        "{error}"
    );
}

/// Of all that landlock has a name for, by right: whether it is there for a file to read, beneath a directory to
/// read, and beneath one to write.
#[test]
fn a_path_has_the_rights_of_its_use_and_no_other() {
    let (granted, refused) = (true, false);
    let table = [
        (AccessFs::Execute, refused, refused, refused),
        (AccessFs::WriteFile, refused, refused, granted),
        (AccessFs::ReadFile, granted, granted, granted),
        (AccessFs::ReadDir, refused, granted, granted),
        (AccessFs::RemoveDir, refused, refused, refused),
        (AccessFs::RemoveFile, refused, refused, granted),
        (AccessFs::MakeChar, refused, refused, refused),
        (AccessFs::MakeDir, refused, refused, refused),
        (AccessFs::MakeReg, refused, refused, granted),
        (AccessFs::MakeSock, refused, refused, refused),
        (AccessFs::MakeFifo, refused, refused, refused),
        (AccessFs::MakeBlock, refused, refused, refused),
        (AccessFs::MakeSym, refused, refused, refused),
        (AccessFs::Refer, refused, refused, refused),
        (AccessFs::Truncate, refused, refused, granted),
        (AccessFs::IoctlDev, refused, refused, refused),
    ];
    let found = AccessFs::from_all(NEWEST).iter();
    let found = found.map(|right| {
        let [file, directory, written] = [FILE, DIRECTORY, WRITABLE].map(|all| all.contains(right));
        (right, file, directory, written)
    });
    assert_eq!(found.collect::<Vec<_>>(), table);
    let ports = AccessNet::BindTcp | AccessNet::ConnectTcp;
    assert_eq!(AccessNet::from_all(NEWEST), ports);
    let others = Scope::AbstractUnixSocket | Scope::Signal;
    assert_eq!(Scope::from_all(NEWEST), others);
}

#[test]
fn every_filter_compiles() {
    for (calls, count) in [
        (Calls::Front, 2),
        (Calls::Enforcer, 2),
        (Calls::Reader, 2),
        (Calls::Historian, 2),
        (Calls::Runner, 3),
    ] {
        assert_eq!(calls.filters().unwrap().len(), count);
    }
}

/// What the kernel would answer, were a thread under these filters to make this call (seccomp(2)): the
/// classic BPF that filters are made of, as far as seccompiler makes use of it. Of many the strictest counts, and
/// an errno is stricter than leave.
fn answer(calls: Calls, call: i64, arguments: [u64; 6]) -> u32 {
    const LD_W_ABS: u16 = 0x20;
    const ALU_AND_K: u16 = 0x54;
    const JA: u16 = 0x05;
    const JEQ: u16 = 0x15;
    const JGT: u16 = 0x25;
    const JGE: u16 = 0x35;
    const RET: u16 = 0x06;
    const AUDIT_ARCH: u32 = match cfg!(target_arch = "x86_64") {
        true => 0xc000_003e,
        false => 0xc000_00b7,
    };
    let load = |at: u32| -> u32 {
        match at {
            0 => call as u32,
            4 => AUDIT_ARCH,
            16.. => {
                let argument = arguments[(at as usize - 16) / 8];
                match at % 8 {
                    0 => argument as u32,
                    _ => (argument >> 32) as u32,
                }
            }
            _ => 0,
        }
    };
    let run = |program: &BpfProgram| -> u32 {
        let (mut at, mut sum) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |is: bool| usize::from(if is { step.jt } else { step.jf });
            match step.code {
                LD_W_ABS => sum = load(step.k),
                ALU_AND_K => sum &= step.k,
                JA => at += step.k as usize,
                JEQ => at += jump(sum == step.k),
                JGT => at += jump(sum > step.k),
                JGE => at += jump(sum >= step.k),
                RET => return step.k,
                other => panic!("{other:#x} is no step of a filter"),
            }
        }
    };
    let filters = calls.filters().unwrap();
    filters.iter().map(run).min().unwrap()
}

const ALLOWED: u32 = 0x7fff_0000;
const SEALED: [Calls; 4] = [
    Calls::Front,
    Calls::Enforcer,
    Calls::Reader,
    Calls::Historian,
];

fn allows(calls: Calls, call: i64, arguments: [u64; 6]) -> bool {
    let answer = answer(calls, call, arguments);
    assert!(
        answer == ALLOWED || answer & 0xffff_0000 == 0x5_0000,
        "{answer:#x}"
    );
    answer == ALLOWED
}

/// Every number that a system call has, or may come to have; on x86-64 twice, as x32 has them.
fn every_call() -> impl Iterator<Item = i64> {
    (0..1024).chain(0x4000_0000..0x4000_0400)
}

fn with(argument: usize, value: i32) -> [u64; 6] {
    let mut all = [0; 6];
    all[argument] = value as u64;
    all
}

#[test]
fn no_code_comes_into_being() {
    let (data, code) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::PROT_READ | libc::PROT_EXEC,
    );
    for calls in SEALED {
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            assert!(allows(calls, call, with(2, data)), "{calls:?}");
            assert!(!allows(calls, call, with(2, code)), "{calls:?}");
        }
        assert!(!allows(calls, libc::SYS_memfd_create, [0; 6]));
        assert!(!allows(calls, libc::SYS_pkey_mprotect, with(2, code)));
    }
}

#[test]
fn no_signal_goes_to_anybody_else() {
    let own = std::process::id() as i32;
    for calls in SEALED {
        assert!(allows(calls, libc::SYS_tgkill, with(0, own)));
        assert!(!allows(calls, libc::SYS_tgkill, with(0, own + 1)));
        for call in [
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_send_signal,
            libc::SYS_timer_create,
        ] {
            assert!(!allows(calls, call, with(0, own)), "{calls:?} {call}");
        }
    }
}

/// The other side of the lists, by call: what it is for, and who has it. With arguments of zero; what they decide
/// has tests of its own.
#[test]
fn each_has_the_calls_of_its_work_and_no_other() {
    use Calls::{Enforcer, Front, Historian, Reader};
    let everybody = &SEALED[..];
    let polls = &[Front, Enforcer, Historian][..];
    let reads = &[Front, Reader, Historian][..];
    #[rustfmt::skip]
    let table: &[(&[i64], &[Calls])] = &[
        // Memory.
        (&[libc::SYS_brk, libc::SYS_madvise, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_munmap], everybody),
        // Waiting for each other, the time, chance.
        (&[libc::SYS_clock_gettime, libc::SYS_futex, libc::SYS_getrandom, libc::SYS_sched_yield], everybody),
        // Who one is.
        (&[libc::SYS_getpid, libc::SYS_gettid, libc::SYS_geteuid], everybody),
        // Descriptors that are open.
        (&[libc::SYS_close, libc::SYS_read, libc::SYS_write, libc::SYS_writev], everybody),
        // Signals that come, and the end.
        (&[libc::SYS_restart_syscall, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack], everybody),
        (&[libc::SYS_exit, libc::SYS_exit_group], everybody),
        // Sockets that are open.
        (&[libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_recvfrom, libc::SYS_sendto], polls),
        // Netlink.
        (&[libc::SYS_recvmsg], &[Enforcer]),
        // Files.
        (&[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_statx], reads),
        (&[libc::SYS_openat2], &[Front]),
        (&[libc::SYS_faccessat, libc::SYS_fsync, libc::SYS_ftruncate], &[Historian]),
        (&[libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_renameat, libc::SYS_unlinkat], &[Historian]),
        // Connections, and pipes between them.
        (&[libc::SYS_accept4, libc::SYS_connect, libc::SYS_getpeername, libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_pipe2, libc::SYS_shutdown, libc::SYS_splice], &[Front]),
        // A runtime that is made when the seal is on, and its threads.
        (&[libc::SYS_epoll_create1, libc::SYS_eventfd2, libc::SYS_rseq, libc::SYS_sched_getaffinity, libc::SYS_set_robust_list], &[Front]),
        // Holders of leases; and the other processes, which end by themselves.
        (&[libc::SYS_pidfd_open, libc::SYS_wait4], &[Front]),
        #[cfg(not(target_env = "musl"))]
        (&[libc::SYS_clock_nanosleep], &[Historian]),
        #[cfg(target_env = "musl")]
        (&[libc::SYS_nanosleep], &[Historian]),
        #[cfg(target_arch = "x86_64")]
        (&[libc::SYS_epoll_wait], polls),
        #[cfg(target_arch = "x86_64")]
        (&[libc::SYS_access, libc::SYS_rename, libc::SYS_unlink], &[Historian]),
        #[cfg(all(target_env = "musl", target_arch = "x86_64"))]
        (&[libc::SYS_lstat, libc::SYS_open, libc::SYS_stat], reads),
    ];
    for calls in SEALED {
        let has = |(list, who): &&(&[i64], &[Calls])| -> Vec<i64> {
            let list = list.iter().filter(|_| who.contains(&calls));
            list.copied().collect()
        };
        let mut expected: Vec<i64> = table.iter().flat_map(|row| has(&row)).collect();
        expected.sort_unstable();
        let found = every_call().filter(|call| allows(calls, *call, [0; 6]));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{calls:?}");
    }
}

#[test]
fn the_front_sets_options_of_sockets_and_tcp_and_of_nothing_below() {
    for (level, may) in [
        (libc::SOL_SOCKET, true),
        (libc::IPPROTO_TCP, true),
        (libc::IPPROTO_IP, false),
        (libc::IPPROTO_IPV6, false),
        (libc::SOL_RAW, false),
    ] {
        assert_eq!(
            allows(Calls::Front, libc::SYS_setsockopt, with(1, level)),
            may
        );
    }
}

#[test]
fn a_command_makes_processes_and_no_namespace() {
    let (fork, thread) = (libc::SIGCHLD, libc::CLONE_VM | libc::CLONE_THREAD);
    for (call, flags, may) in [
        (libc::SYS_clone, fork, true),
        (libc::SYS_clone, thread, true),
        (
            libc::SYS_clone,
            libc::CLONE_VFORK | libc::CLONE_VM | fork,
            true,
        ),
        (libc::SYS_clone, libc::CLONE_NEWUSER | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWNS | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWCGROUP | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWIPC | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWNET | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWPID | fork, false),
        (libc::SYS_clone, libc::CLONE_NEWUTS | fork, false),
        (libc::SYS_clone3, 0, false),
        (libc::SYS_unshare, libc::CLONE_NEWUSER, false),
        (libc::SYS_execve, 0, true),
        (libc::SYS_socket, libc::AF_NETLINK, true),
    ] {
        let is_allowed = allows(Calls::Runner, call, with(0, flags));
        assert_eq!(is_allowed, may, "{call} {flags:#x}");
    }
}

/// By what it would do; with arguments of zero, which clone(2) may have.
#[test]
fn a_command_has_every_call_but_these() {
    #[rustfmt::skip]
    let mut expected: Vec<i64> = [
        &[libc::SYS_clone3][..],
        // Other namespaces, roots and mounts.
        &[libc::SYS_unshare, libc::SYS_setns, libc::SYS_chroot, libc::SYS_pivot_root],
        &[libc::SYS_mount, libc::SYS_umount2, libc::SYS_fsopen, libc::SYS_move_mount, libc::SYS_open_tree, libc::SYS_mount_setattr],
        // A file by its number, past every directory.
        &[libc::SYS_open_by_handle_at],
        // Other processes, and what is traced and measured.
        &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd, libc::SYS_perf_event_open],
        // Code in the kernel, and its ways past a filter.
        &[libc::SYS_bpf, libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_kexec_file_load],
        &[libc::SYS_io_uring_setup, libc::SYS_userfaultfd],
        // The clock, the host's names, keys, accounts of use, swap, the end of everything.
        &[libc::SYS_adjtimex, libc::SYS_clock_adjtime, libc::SYS_clock_settime, libc::SYS_settimeofday],
        &[libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_add_key, libc::SYS_keyctl, libc::SYS_request_key],
        &[libc::SYS_acct, libc::SYS_quotactl, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot],
    ]
    .concat();
    expected.extend(0x4000_0000..0x4000_0400);
    expected.sort_unstable();
    let refused = every_call().filter(|call| !allows(Calls::Runner, *call, [0; 6]));
    assert_eq!(refused.collect::<Vec<_>>(), expected);
}

/// glibc goes on to clone(2) for this answer alone.
#[test]
fn whoever_may_clone_is_told_that_there_is_no_clone3() {
    for calls in [Calls::Front, Calls::Runner] {
        let answer = answer(calls, libc::SYS_clone3, [0; 6]);
        assert_eq!(answer, 0x5_0000 | libc::ENOSYS as u32, "{calls:?}");
    }
    for calls in [Calls::Enforcer, Calls::Reader, Calls::Historian] {
        assert!(!allows(calls, libc::SYS_clone3, [0; 6]), "{calls:?}");
    }
}

#[test]
fn the_front_makes_threads_and_no_process() {
    for (flags, may) in [
        (libc::CLONE_VM | libc::CLONE_THREAD, true),
        (libc::SIGCHLD, false),
        (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, false),
    ] {
        let is_allowed = allows(Calls::Front, libc::SYS_clone, with(0, flags));
        assert_eq!(is_allowed, may, "{flags:#x}");
    }
    for calls in [Calls::Enforcer, Calls::Reader, Calls::Historian] {
        let thread = libc::CLONE_VM | libc::CLONE_THREAD;
        assert!(!allows(calls, libc::SYS_clone, with(0, thread)));
    }
}

#[test]
fn the_front_makes_sockets_of_tcp_and_pairs_of_streams() {
    let (inet, inet6) = (libc::AF_INET, libc::AF_INET6);
    let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
    let (tcp, udp, mptcp) = (libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_MPTCP);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let all = |domain: i32, kind: i32, protocol: i32| {
        [domain as u64, kind as u64, protocol as u64, 0, 0, 0]
    };
    for (domain, kind, protocol, may) in [
        (inet, stream, 0, true),
        (inet6, stream | flags, tcp, true),
        (inet, stream, mptcp, false),
        (inet6, stream, mptcp, false),
        (inet, stream, libc::IPPROTO_SCTP, false),
        (inet, datagram, 0, false),
        (inet6, datagram | flags, udp, false),
        (inet, libc::SOCK_RAW, tcp, false),
        (inet, libc::SOCK_SEQPACKET, 0, false),
        (libc::AF_UNIX, stream, 0, false),
        (libc::AF_NETLINK, libc::SOCK_RAW, 0, false),
        (libc::AF_PACKET, stream, 0, false),
        (libc::AF_VSOCK, stream, 0, false),
    ] {
        let is_allowed = allows(Calls::Front, libc::SYS_socket, all(domain, kind, protocol));
        assert_eq!(is_allowed, may, "{domain} {kind} {protocol}");
    }
    for (domain, kind, may) in [
        (libc::AF_UNIX, stream | flags, true),
        (libc::AF_UNIX, datagram, false),
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, false),
        (libc::AF_TIPC, stream, false),
    ] {
        let is_allowed = allows(Calls::Front, libc::SYS_socketpair, all(domain, kind, 0));
        assert_eq!(is_allowed, may, "{domain} {kind}");
    }
}

#[test]
fn nobody_but_the_enforcer_names_whom_it_sends_to() {
    let send = |flags: i32, address: u64| [3, 0, 0, flags as u64, address, 0];
    for (flags, address, may) in [
        (libc::MSG_NOSIGNAL, 0, true),
        (libc::MSG_NOSIGNAL, 0x7fff_0000, false),
        // An address of which half the bits are zero.
        (libc::MSG_NOSIGNAL, 1 << 32, false),
        (libc::MSG_FASTOPEN, 0, false),
        (libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL, 0, false),
    ] {
        for calls in [Calls::Front, Calls::Historian] {
            let is_allowed = allows(calls, libc::SYS_sendto, send(flags, address));
            assert_eq!(is_allowed, may, "{calls:?} {flags:#x} {address:#x}");
        }
    }
    assert!(!allows(Calls::Reader, libc::SYS_sendto, send(0, 0)));
    assert!(allows(Calls::Enforcer, libc::SYS_sendto, send(0, 1)));
}

/// Of fcntl(2), besides, what a database and the front's pipes take; nothing that has the kernel send signals.
#[test]
fn descriptors_are_copied_and_looked_at() {
    for calls in SEALED {
        let more: &[i32] = match calls {
            Calls::Front => &[libc::F_SETPIPE_SZ],
            Calls::Historian => &[libc::F_GETLK, libc::F_SETLK],
            Calls::Enforcer | Calls::Reader | Calls::Runner => &[],
        };
        let all = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL];
        for command in 0..2048 {
            let may = all.contains(&command) || more.contains(&command);
            let is_allowed = allows(calls, libc::SYS_fcntl, with(1, command));
            assert_eq!(is_allowed, may, "{calls:?} {command}");
        }
    }
}

#[test]
fn devices_and_processes_are_set_up_no_further_than_the_runtime_does() {
    for calls in SEALED {
        for (request, may) in [(FIONBIO, true), (0x5412, false), (0x5452, false)] {
            let is_allowed = allows(calls, libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
            assert_eq!(is_allowed, may, "{calls:?} {request:#x}");
        }
        for (option, may) in [
            (libc::PR_SET_NAME, true),
            (libc::PR_SET_DUMPABLE, false),
            (libc::PR_SET_SECCOMP, false),
            (libc::PR_CAP_AMBIENT, false),
        ] {
            let is_allowed = allows(calls, libc::SYS_prctl, with(0, option));
            assert_eq!(is_allowed, may, "{calls:?} {option}");
        }
    }
}
