//! What the gate's unit hides from it: a webroot that is there for everybody else.
//!
//! It is the service manager's own word on the unit's settings, so the unit need not run. Nothing is changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::{Config, Source};

/// What ProtectHome= is about (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What PrivateTmp= is about.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// How long `systemctl` may wait for its manager.
const PATIENCE_SECONDS: &str = "3";

/// A webroot that the unit hides, by the service manager's word, and what to write into a drop-in. Blocks, for a
/// bounded time.
pub(super) fn by_the_unit(config: &Config) -> Option<(String, Vec<String>)> {
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

/// What keeps a webroot from being hidden: the lines of a drop-in.
pub(super) fn way_out(webroot: &Path) -> Vec<String> {
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
