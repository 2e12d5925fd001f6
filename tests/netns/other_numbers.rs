//! System calls by other numbers than the machine's own: x32's, and those of i386 and of 32-bit ARM, which a list of what
//! is refused to commands does not name. Tried by programs of a few instructions that a command could be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use acmegate::config::{Config, Unchecked};
use acmegate::daemon::parts::AnyAccount;
use acmegate::daemon::runner::runner_seal;

use crate::lab::{TempDir, inside};

#[test]
fn a_command_that_calls_as_a_machine_of_32_bits_does_is_ended() {
    const SIGSYS: i32 = 31;
    inside(|| {
        let directory = TempDir::new();
        for elf in programs_that_exit_with_7() {
            let program = written(&directory, &elf);
            assert_eq!(
                run(&program).code(),
                Some(7),
                "this kernel needs IA32_EMULATION, or COMPAT and a processor for it"
            );
            assert_eq!(sealed(program).signal(), Some(SIGSYS));
        }
    });
}

/// By int 0x80, of which a program of 64 bits is as capable.
#[cfg(target_arch = "x86_64")]
fn programs_that_exit_with_7() -> Vec<Vec<u8>> {
    const EM_386: u16 = 3;
    // mov eax, 1; mov ebx, 7; int 0x80; ud2
    const CODE: &[u8] = &[0xb8, 1, 0, 0, 0, 0xbb, 7, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b];
    vec![x32::elf64(CODE), elf32(EM_386, 0, CODE)]
}

/// By svc 0 in a program of 32 bits; in one of 64 it has aarch64's own numbers.
#[cfg(target_arch = "aarch64")]
fn programs_that_exit_with_7() -> Vec<Vec<u8>> {
    const EM_ARM: u16 = 40;
    const EF_ARM_EABI_VER5: u32 = 0x0500_0000;
    // mov r0, #7; mov r7, #1; svc 0; udf #0
    const CODE: [u32; 4] = [0xe3a0_0007, 0xe3a0_7001, 0xef00_0000, 0xe7f0_00f0];
    let code = CODE.map(u32::to_le_bytes).concat();
    vec![elf32(EM_ARM, EF_ARM_EABI_VER5, &code)]
}

/// elf(5): a header, one segment, the code.
fn elf32(machine: u16, flags: u32, code: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 52 + 32;
    const BASE: u32 = 0x804_8000;
    let length = HEADERS + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2, 0]);
    elf.extend(machine.to_le_bytes());
    for word in [1, BASE + HEADERS, 52, 0, flags] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for word in [1, 0, BASE, BASE, length, length, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    [&elf, code].concat()
}

fn written(directory: &TempDir, elf: &[u8]) -> String {
    let path = directory.at("program");
    let _ = fs::remove_file(&path);
    fs::write(&path, elf).expect("a file of our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a file of our own");
    path
}

fn run(program: impl AsRef<Path>) -> ExitStatus {
    let status = Command::new(program.as_ref()).status();
    status.expect("a program of this machine")
}

/// As a command of the runner: in a thread of its own, since a seal stays.
fn sealed(program: String) -> ExitStatus {
    let config = Config::parse("", "test.toml", &AnyAccount, &Unchecked).expect("the defaults");
    let runs = move || {
        runner_seal(&config).apply().expect("a seal");
        run(program)
    };
    std::thread::spawn(runs).join().expect("it ran")
}

/// What x86-64 alone has: a second number of each call of its own.
#[cfg(target_arch = "x86_64")]
mod x32 {
    use super::{TempDir, inside, run, sealed, written};

    /// What numbers of x32 have, and others have not.
    const X32: u32 = 0x4000_0000;
    /// ptrace(2) has a number of its own there.
    const X32_PTRACE: u32 = X32 | 521;

    #[test]
    fn a_command_has_no_system_calls_by_x32() {
        inside(|| {
            let directory = TempDir::new();
            for call in [X32 | libc::SYS_unshare as u32, X32_PTRACE] {
                let asking = elf64(&[&asks(call), EXITS_WITH_ERROR].concat());
                let program = written(&directory, &asking);
                // With or without x32 in this kernel, it is not permission that is missing.
                assert_ne!(run(&program).code(), Some(libc::EPERM), "{call:#x}");
                assert_eq!(sealed(program).code(), Some(libc::EPERM), "{call:#x}");
            }
            let own = asks(libc::SYS_getpid as u32);
            let program = written(&directory, &elf64(&[&own, EXITS_WELL].concat()));
            assert_eq!(sealed(program).code(), Some(0), "its own numbers go on");
        });
    }

    /// Without arguments.
    fn asks(call: u32) -> Vec<u8> {
        let [a, b, c, d] = call.to_le_bytes();
        // mov eax, call; xor edi, edi; xor esi, esi; syscall
        vec![0xb8, a, b, c, d, 0x31, 0xff, 0x31, 0xf6, 0x0f, 0x05]
    }

    /// neg eax; mov edi, eax; mov eax, 60; syscall: the errno is the exit status.
    const EXITS_WITH_ERROR: &[u8] = &[0xf7, 0xd8, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

    /// xor edi, edi; mov eax, 60; syscall
    const EXITS_WELL: &[u8] = &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

    /// elf(5), as [`super::elf32`].
    pub fn elf64(code: &[u8]) -> Vec<u8> {
        const HEADERS: u64 = 64 + 56;
        const BASE: u64 = 0x40_0000;
        let length = HEADERS + code.len() as u64;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [BASE + HEADERS, 64, 0] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
        for word in [0, BASE, BASE, length, length, 0x1000] {
            elf.extend(word.to_le_bytes());
        }
        [&elf, code].concat()
    }
}
