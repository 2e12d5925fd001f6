//! Processes beside the front: how they find it at their beginning, and how the front waits for their end.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use super::Fatal;
use crate::control::protocol::Exit;

/// The front's end of the socket pair that a process beside it has as its standard input.
///
/// # Errors
/// [`by_run_alone`].
pub(super) fn front() -> Result<UnixStream, Fatal> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    stdin.map(UnixStream::from).map_err(by_run_alone)
}

/// Somebody else started it.
pub(super) fn by_run_alone(error: impl fmt::Display) -> Fatal {
    Fatal::new(
        Exit::Usage,
        format!("this is started by `acmegate run` alone: {error}"),
    )
}

/// Waits a moment for a child that is about to end; it is killed by the kernel when we end anyway.
pub(super) async fn reap(mut child: Child) -> Option<ExitStatus> {
    for _ in 0..100 {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}
