//! The end of a process that was started beside the front.

use std::process::{Child, ExitStatus};
use std::time::Duration;

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
