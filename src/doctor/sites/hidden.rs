//! What the service manager hides from the gate: a webroot that is there for everybody else.
//!
//! Of a running front the kernel tells it (`/proc/PID/root`, proc_pid_root(5)); of a unit that does not run, the service
//! manager's own word on its settings.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Trial, WEBROOT_HIDDEN};
use crate::config::{Config, Source};
use crate::doctor::finding::{Finding, Severity};

/// What ProtectHome= is about (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What PrivateTmp= is about.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// How long `systemctl` may wait for its manager.
const PATIENCE_SECONDS: &str = "3";

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
    Some(way_out(webroot).into_iter().fold(finding, Finding::remedy))
}

/// A webroot that the unit hides, by the service manager's word, and what to write into a drop-in. Blocks, for a
/// bounded time.
pub(in crate::doctor) fn by_the_unit(config: &Config) -> Option<(String, Vec<String>)> {
    let webroots = config.sites.iter().filter_map(|site| match &site.source {
        Source::Webroot(path) => Some(path),
        _ => None,
    });
    let below: Vec<&PathBuf> = webroots
        .filter(|path| is_below(path, &HOMES) || is_below(path, &TEMPORARY))
        .collect();
    if below.is_empty() {
        return None;
    }
    let shown = Command::new("timeout")
        .args([PATIENCE_SECONDS, "systemctl", "show", "acmegate.service"])
        .args(["--property=ProtectHome", "--property=PrivateTmp"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    below.into_iter().find_map(|path| {
        let setting = hides(&shown, path)?;
        Some((
            format!(
                "{} is hidden from acmegate.service ({setting})",
                path.display()
            ),
            way_out(path),
        ))
    })
}

/// Which of the settings that `systemctl show` printed hides this path.
fn hides<'shown>(shown: &'shown str, path: &Path) -> Option<&'shown str> {
    shown.lines().find(|line| match line.split_once('=') {
        Some(("ProtectHome", value)) => {
            matches!(value, "yes" | "true" | "1" | "tmpfs") && is_below(path, &HOMES)
        }
        Some(("PrivateTmp", value)) => {
            !matches!(value, "no" | "false" | "0" | "") && is_below(path, &TEMPORARY)
        }
        _ => false,
    })
}

/// The lines of a drop-in.
fn way_out(webroot: &Path) -> Vec<String> {
    let path = webroot.display();
    if is_below(webroot, &TEMPORARY) {
        return vec![
            "a service has a /tmp of its own (PrivateTmp=): let the ACME client write elsewhere, such as /var/lib/acmegate/webroot, and name that as `webroot`".to_owned(),
        ];
    }
    let line = match is_below(webroot, &HOMES) {
        true => "ProtectHome=read-only".to_owned(),
        false => format!("BindReadOnlyPaths={path}"),
    };
    vec![
        format!("`systemctl edit acmegate`, with the lines `[Service]` and `{line}`"),
        "then `systemctl restart acmegate`".to_owned(),
    ]
}

fn is_below(path: &Path, roots: &[&str]) -> bool {
    roots.iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_hides_is_told_by_path_and_setting() {
        let shown = "ProtectHome=yes\nPrivateTmp=yes\n";
        let hides = |shown, path: &str| super::hides(shown, Path::new(path));
        assert_eq!(hides(shown, "/home/alice/www"), Some("ProtectHome=yes"));
        assert_eq!(hides(shown, "/run/user/1000/www"), Some("ProtectHome=yes"));
        assert_eq!(hides(shown, "/var/tmp/www"), Some("PrivateTmp=yes"));
        assert_eq!(hides(shown, "/homes/www"), None);
        assert_eq!(hides(shown, "/var/www/html"), None);
        let as_shipped = "ProtectHome=read-only\nPrivateTmp=no\n";
        assert_eq!(hides(as_shipped, "/root/www"), None);
        assert_eq!(hides(as_shipped, "/tmp/www"), None);
    }

    #[test]
    fn the_way_out_is_the_lines_of_a_drop_in() {
        let lines = way_out(Path::new("/home/alice/www")).join("\n");
        assert!(lines.contains("systemctl edit acmegate"), "{lines}");
        assert!(lines.contains("`ProtectHome=read-only`"), "{lines}");
        let elsewhere = way_out(Path::new("/opt/www")).join("\n");
        assert!(
            elsewhere.contains("BindReadOnlyPaths=/opt/www"),
            "{elsewhere}"
        );
        assert!(way_out(Path::new("/tmp/www"))[0].contains("PrivateTmp"));
    }
}
