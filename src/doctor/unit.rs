//! What the gate's unit hides from it: a webroot that is there for everybody else.
//!
//! It is the service manager's own word on the unit's settings, so the unit need not run. Nothing is changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::{Config, Source, drop_in_for, is_in_a_home};

/// What PrivateTmp= is about (systemd.exec(5)).
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// How long `systemctl` may wait for its manager.
const PATIENCE_SECONDS: &str = "3";

/// A webroot that the unit hides, by the service manager's word, and what to write into a drop-in. Blocks, for a
/// bounded time.
pub(super) fn by_the_unit(config: &Config) -> Option<(String, String)> {
    let webroots = config.sites.iter().filter_map(|site| match &site.source {
        Source::Webroot(path) => Some(path),
        _ => None,
    });
    let below: Vec<&PathBuf> = webroots
        .filter(|path| is_in_a_home(path) || is_temporary(path))
        .collect();
    if below.is_empty() {
        return None;
    }
    let shown = Command::new("timeout")
        .args([PATIENCE_SECONDS, "systemctl", "show", "acmegate.service"])
        .args(["--property=ProtectHome", "--property=PrivateTmp"])
        .args(["--property=BindReadOnlyPaths", "--property=BindPaths"])
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
    if shown.lines().any(|line| shows(line, path)) {
        return None;
    }
    shown.lines().find(|line| match line.split_once('=') {
        Some(("ProtectHome", value)) => {
            matches!(value, "yes" | "true" | "1" | "tmpfs") && is_in_a_home(path)
        }
        Some(("PrivateTmp", value)) => {
            !matches!(value, "no" | "false" | "0" | "") && is_temporary(path)
        }
        _ => false,
    })
}

/// Whether this line has the path, or what is above it, shown all the same: what counts is where a bind leads
/// to (systemd.exec(5)). Of paths with blanks or colons in them the whole is looked for, since they cannot be told
/// apart there.
fn shows(line: &str, path: &Path) -> bool {
    let Some(("BindReadOnlyPaths" | "BindPaths", binds)) = line.split_once('=') else {
        return false;
    };
    let path_text = path.to_string_lossy();
    if path_text.contains([' ', ':']) {
        return binds.match_indices(&*path_text).any(|(at, _)| {
            let is_place = binds[..at].ends_with(':');
            is_place || !binds[at + path_text.len()..].starts_with(":/")
        });
    }
    binds.split(' ').any(|bind| path.starts_with(place(bind)))
}

/// Where `source`, `-source`, `source:place` or `source:place:options` leads to.
fn place(bind: &str) -> &str {
    let mut parts = bind.strip_prefix('-').unwrap_or(bind).split(':');
    let source = parts.next().unwrap_or_default();
    let place = parts.next().filter(|part| part.starts_with('/'));
    match place.unwrap_or(source) {
        // A path begins with that, too.
        "" => "-",
        place => place,
    }
}

/// What to write into a drop-in, or why none helps.
pub(super) fn way_out(webroot: &Path) -> String {
    match is_temporary(webroot) {
        true => "a service has a /tmp of its own (PrivateTmp=): let the ACME client write elsewhere, such as /var/lib/acmegate/webroot, and name that as `webroot`".to_owned(),
        false => drop_in_for(webroot),
    }
}

fn is_temporary(path: &Path) -> bool {
    TEMPORARY.iter().any(|root| path.starts_with(root))
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
        let open = "ProtectHome=read-only\nPrivateTmp=no\n";
        assert_eq!(hides(open, "/root/www"), None);
        assert_eq!(hides(open, "/tmp/www"), None);
    }

    /// As systemd 252 prints them.
    #[test]
    fn what_a_drop_in_shows_is_not_hidden() {
        let hides = |places: &str, path: &str| {
            let shown = format!("ProtectHome=tmpfs\nBindReadOnlyPaths={places}\n");
            super::hides(&shown, Path::new(path)).is_some()
        };
        assert!(hides("", "/home/alice/www"));
        assert!(!hides(
            "/home/alice/www:/home/alice/www:rbind",
            "/home/alice/www"
        ));
        assert!(!hides("/srv/a /home/alice", "/home/alice/www"));
        assert!(hides("/home/alice/www2:rbind", "/home/alice/www"));
        assert!(!hides("/home/alice/my www:rbind", "/home/alice/my www"));
        assert!(hides("/home/bob/www", "/home/alice/www"));
        assert!(!hides("-/home/alice", "/home/alice/www"));
        // Shown elsewhere is not shown here.
        assert!(hides("/home/alice/www:/srv/www:rbind", "/home/alice/www"));
        assert!(!hides("/srv/www:/home/alice/www:rbind", "/home/alice/www"));
        assert!(hides(
            "/home/alice/my www:/srv/www:rbind",
            "/home/alice/my www"
        ));
        assert!(!hides(
            "/srv/www:/home/alice/my www:rbind",
            "/home/alice/my www"
        ));
    }

    #[test]
    fn the_way_out_is_a_drop_in_where_one_helps() {
        let line = way_out(Path::new("/home/alice/www"));
        assert!(line.contains("`ProtectHome=tmpfs`"), "{line}");
        let elsewhere = way_out(Path::new("/opt/www"));
        assert!(!elsewhere.contains("ProtectHome"), "{elsewhere}");
        assert!(way_out(Path::new("/tmp/www")).contains("PrivateTmp"));
    }
}
