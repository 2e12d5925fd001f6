//! What tests build on that run the program: namespaces, processes, and the daemon itself.
//!
//! Everything that is started here is ended by its pid, on success and on panic alike, and dies
//! with the test's process if that is killed. Nothing here knows which test is calling; a test
//! binary takes it in by `#[path = "../lab/mod.rs"] mod lab;` and uses what it needs.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part"
)]

mod daemon;
pub mod hasty;
pub mod hello;
pub mod historian;
mod node;
mod numbers;
pub mod perspective;
mod process;
pub mod site;
mod temp;
pub mod tls;

use std::time::{Duration, Instant};

pub use daemon::{BINARY, Builder, Daemon, is_alive};
pub use node::{Node, inside, inside_within, ip, nft, ruleset, run_nft};
pub use numbers::Numbers;
pub use process::{Output, Process, faketime_library, find, run, send};
pub use temp::TempDir;

/// Asks `done` again and again until it gives something; panics with `what` at the deadline.
pub fn wait_for<T>(deadline: Duration, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        pause();
    }
}

/// Between two questions to something that cannot wake us.
#[expect(
    clippy::disallowed_methods,
    reason = "processes and kernels under test run by the real clock; callers have deadlines"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
