//! What is hidden from a running front: a webroot that is there for everybody else, as the kernel tells it
//! (`/proc/PID/root`, proc_pid_root(5)).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Trial, WEBROOT_HIDDEN};
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::unit::way_out;

/// A file that is there, and not for the front.
pub(super) fn from_the_front(trial: &Trial<'_>, webroot: &Path, file: &Path) -> Option<Finding> {
    let front = trial.front?;
    let seen_from_there = |path: &Path| {
        let below = path.strip_prefix("/").unwrap_or(path);
        fs::metadata(Path::new(&format!("/proc/{front}/root")).join(below))
    };
    // Without a look at its root nothing can be said.
    seen_from_there(Path::new("/")).ok()?;
    let (here, there) = (fs::metadata(webroot).ok()?, seen_from_there(webroot));
    let is_same = there
        .as_ref()
        .is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()));
    if is_same || seen_from_there(file).is_ok() {
        return None;
    }
    let finding = trial
        .finding(
            WEBROOT_HIDDEN,
            Severity::Fault,
            format!(
                "the gate's own view of the file system has another {}",
                webroot.display()
            ),
        )
        .seen(match there {
            Ok(_) => format!("/proc/{front}/root has another directory there"),
            Err(error) => format!("/proc/{front}/root: {error}"),
        });
    Some(finding.remedy(way_out(webroot)))
}
