//! What ends a lease besides its caller: the death of its holder, and its own deadline.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::Leases;
use crate::daemon::now;
use crate::gate::lease::{Holder, LeaseName};
use crate::gate::window::GRACE;

/// Releases the leases of holders that died, a grace after their death. Runs until dropped.
pub async fn watch_holders(leases: Arc<Leases>, mut to_watch: mpsc::Receiver<(LeaseName, Holder)>) {
    let mut watched: JoinSet<(LeaseName, Holder)> = JoinSet::new();
    // One watch for each lease: a client that lives for months opens again and again, and its
    // watches must not take the places of others.
    let mut watches: HashMap<LeaseName, AbortHandle> = HashMap::new();
    let mut windows = leases.windows();
    loop {
        tokio::select! {
            Some((name, holder)) = to_watch.recv() => {
                if windows.borrow().lease(&name).is_none() {
                    continue;
                }
                let watch = watched.spawn({
                    let name = name.clone();
                    async move {
                        died(&holder).await;
                        tokio::time::sleep(GRACE).await;
                        (name, holder)
                    }
                });
                if let Some(earlier) = watches.insert(name, watch) {
                    earlier.abort();
                }
            }
            Some(ended) = watched.join_next() => {
                // One that was called off has nothing to say.
                let Ok((name, holder)) = ended else { continue };
                let (lease, command) = (&name, &holder.command);
                match leases.close_of(&name, &holder).await {
                    Ok(true) => {
                        tracing::info!(%lease, holder = %command, "the holder of a lease is gone: released");
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(%lease, holder = %command, %error, "the holder of a lease is gone");
                    }
                }
            }
            // An ended lease needs no watch, nor the descriptor that a watch takes.
            Ok(()) = windows.changed() => {
                let windows = windows.borrow_and_update();
                watches.retain(|name, watch| {
                    let lives = windows.lease(name).is_some();
                    if !lives {
                        watch.abort();
                    }
                    lives
                });
            }
            else => return,
        }
    }
}

/// Returns once the process is gone; never, if it cannot be watched.
async fn died(holder: &Holder) {
    let pid = i32::try_from(holder.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return;
    };
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an owned pidfd stays the same open descriptor until dropped"
    )]
    let watched = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(descriptor) => AsyncFd::new(descriptor).ok(),
        Err(rustix::io::Errno::SRCH) => return,
        Err(_) => None,
    };
    match watched {
        // A pidfd becomes readable when its process ends (pidfd_open(2)).
        Some(watched) => drop(watched.readable().await),
        None => std::future::pending().await,
    }
}

/// Sweeps expired leases out of the front's book when their time comes, so that whoever follows
/// the windows hears of it. Runs until dropped.
pub async fn watch_deadlines(leases: Arc<Leases>) {
    let mut windows = leases.windows();
    loop {
        let next = windows.borrow_and_update().next_change();
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                leases.windows.send_modify(|windows| Arc::make_mut(windows).expire(now()));
                leases.recorder.expired();
            }
            changed = windows.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
