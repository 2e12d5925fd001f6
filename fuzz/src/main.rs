//! The program that libFuzzer drives: one for all targets, so that building costs one link. Which target it
//! feeds says `ACMEGATE_FUZZ_TARGET`. `fuzz/run` builds and starts it, with libFuzzer and its `main` as
//! Debian's libclang-rt has them: nothing of C++ is compiled, and no crate is needed.
//!
//! The library is no dependency of it but stands here, as far as the targets reach: what only a program's own
//! code reaches is never compiled, and the rest (most of `cli`, `daemon` and `doctor`) is not even read.
#![no_main]

extern crate self as acmegate;

#[path = "../../src/answer/mod.rs"]
pub mod answer;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/control/mod.rs"]
pub mod control;
#[path = "../../src/firewall/mod.rs"]
pub mod firewall;
#[path = "../../src/front/mod.rs"]
pub mod front;
#[path = "../../src/gate/mod.rs"]
pub mod gate;
#[path = "../../src/locked.rs"]
pub mod locked;
#[path = "../../src/observe/mod.rs"]
pub mod observe;
#[path = "../../src/proxy_protocol.rs"]
pub mod proxy_protocol;
#[path = "../../src/runner/mod.rs"]
pub mod runner;
#[path = "../../src/wire.rs"]
pub mod wire;

/// What other programs tell.
#[path = "../../src/cli"]
pub mod cli {
    /// What ACME clients tell their hooks.
    pub mod hook {
        pub mod answer;
    }
}

/// What a configuration comes to.
#[path = "../../src/daemon"]
pub mod daemon {
    pub mod confine;
    pub mod parts;
    pub mod privilege;
    pub mod process;

    /// What the check of the seals tells.
    pub mod sandbox {
        pub mod attempt;
    }
}

/// What reads the bytes of others.
#[path = "../../src/doctor"]
pub mod doctor {
    pub mod finding;
    pub mod path;
    mod timed;

    /// What servers answer, and what records mean.
    pub mod dns {
        pub mod issue_value;
        pub mod reply;
    }

    /// What is heard of a site, and who may read its files.
    pub mod sites {
        pub mod acl;
        pub mod answer;
    }

    /// What vantage points and services tell.
    pub mod probe {
        /// A public service.
        pub mod letsdebug {
            pub mod answer;
        }

        /// Services of Open MPIC.
        pub mod mpic {
            pub mod answer;
        }

        pub mod seen;
        pub mod told;
        pub mod web;
    }
}

mod targets;

use std::sync::LazyLock;

use targets::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("ACMEGATE_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    match found {
        Some((_, target)) => *target,
        None => panic!("ACMEGATE_FUZZ_TARGET names no target: {wanted:?}"),
    }
});

/// What libFuzzer calls with each input. A panic ends the program here, and libFuzzer keeps the bytes.
///
/// # Safety
/// `data` points at `size` octets that stay as they are until it returns; libFuzzer's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> i32 {
    let bytes = match size {
        0 => &[][..],
        // SAFETY: as the caller promises.
        size => unsafe { std::slice::from_raw_parts(data, size) },
    };
    TARGET(bytes);
    0
}
