use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("acmegate-webroot-{}-{count}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir_all(path.join("www/html")).unwrap();
        let scratch = Self(path);
        for part in ["", "www", "www/html"] {
            scratch.set_mode(part, 0o755);
        }
        scratch
    }

    fn path(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }

    fn set_mode(&self, part: &str, mode: u32) {
        fs::set_permissions(self.path(part), fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.set_mode("www", 0o755);
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn reader(uid: Option<u32>) -> Reader {
    Reader {
        name: "acmegate".to_owned(),
        uid,
    }
}

/// An account that is certainly not the one that runs the tests.
fn somebody_else() -> Reader {
    reader(Some(rustix::process::geteuid().as_raw() ^ 0x5555))
}

#[test]
fn a_directory_that_all_may_read_is_fit() {
    let scratch = Scratch::new();
    assert_eq!(Disk.look(&scratch.path("www/html"), &reader(None)), Ok(()));
    assert_eq!(
        Disk.look(&scratch.path("www/html"), &somebody_else()),
        Ok(())
    );
}

#[test]
fn the_first_component_that_fails_is_named() {
    let scratch = Scratch::new();
    fs::write(scratch.path("www/file"), "").unwrap();
    symlink("nowhere", scratch.path("www/link")).unwrap();
    for (webroot, fault) in [
        ("no/html/deep", Fault::Missing(scratch.path("no"))),
        ("www/file", Fault::NoDirectory(scratch.path("www/file"))),
        (
            "www/file/deep",
            Fault::NoDirectory(scratch.path("www/file")),
        ),
        ("www/link", Fault::Missing(scratch.path("www/link"))),
    ] {
        for reader in [reader(None), somebody_else()] {
            let seen = Disk.look(&scratch.path(webroot), &reader);
            assert_eq!(seen, Err(fault.clone()), "{webroot}");
        }
    }
}

#[test]
fn another_account_is_judged_by_the_mode() {
    let scratch = Scratch::new();
    let webroot = scratch.path("www/html");
    for (part, mode, fault) in [
        ("www", 0o700, Some(Fault::NoEntry(scratch.path("www")))),
        ("www", 0o711, None),
        ("www", 0o710, None),
        ("www/html", 0o711, Some(Fault::NoReading(webroot.clone()))),
        ("www/html", 0o750, None),
    ] {
        scratch.set_mode(part, mode);
        let seen = Disk.look(&webroot, &somebody_else());
        assert_eq!(seen, fault.map_or(Ok(()), Err), "{part} {mode:o}");
        scratch.set_mode(part, 0o755);
    }
}

#[test]
fn a_link_is_followed_to_where_the_files_are() {
    let scratch = Scratch::new();
    symlink(scratch.path("www/html"), scratch.path("link")).unwrap();
    scratch.set_mode("www", 0o700);
    assert_eq!(
        Disk.look(&scratch.path("link"), &somebody_else()),
        Err(Fault::NoEntry(scratch.path("www")))
    );
}

#[test]
fn every_fault_says_what_to_do() {
    let path = || PathBuf::from("/srv/www");
    for (fault, message, fix) in [
        (
            Fault::Missing(path()),
            "`/srv/www` does not exist",
            "create it: mkdir -p /srv/www",
        ),
        (
            Fault::Missing(PathBuf::from("/var/tmp/www")),
            "`/var/tmp/www` does not exist",
            "a service has a /tmp of its own: name a directory elsewhere",
        ),
        (
            Fault::NoDirectory(path()),
            "`/srv/www` is not a directory",
            "name the directory that holds .well-known",
        ),
        (
            Fault::NoEntry(path()),
            "`acmegate` may not pass through `/srv/www`",
            "chmod o+x /srv/www, or setfacl -m u:acmegate:x /srv/www",
        ),
        (
            Fault::NoReading(path()),
            "`acmegate` may not read `/srv/www`",
            "chmod o+rx /srv/www, or setfacl -m u:acmegate:rx /srv/www",
        ),
        (
            Fault::Other(path(), "too many links".to_owned()),
            "`/srv/www` cannot be looked at: too many links",
            "name a directory that can be read",
        ),
    ] {
        let told = fault.explain(&path(), &reader(None));
        assert_eq!(told, (message.to_owned(), fix.to_owned()));
    }
}

#[test]
fn a_pasted_command_does_nothing_else() {
    let fault = Fault::Missing(PathBuf::from("/srv/it's; $(reboot)"));
    let (_, fix) = fault.explain(Path::new("/srv/it's; $(reboot)"), &reader(None));
    assert_eq!(fix, r"create it: mkdir -p '/srv/it'\''s; $(reboot)'");
}

#[test]
fn what_the_unit_hides_is_shown_by_the_lines_that_are_told() {
    let webroot = Path::new("/home/alice/www");
    let shown = "`systemctl edit acmegate` with the lines `[Service]`, `ProtectHome=tmpfs`, \
                 `BindReadOnlyPaths=\"/home/alice/www\"`, then restart it";
    for (fault, fix) in [
        // As ProtectHome=yes has it, and ProtectHome=tmpfs without the second line.
        (
            Fault::NoEntry(PathBuf::from("/home")),
            format!("ProtectHome= of the unit hides it: {shown}"),
        ),
        (
            Fault::Missing(PathBuf::from("/home/alice")),
            format!(
                "create it: mkdir -p /home/alice; and where ProtectHome= of the unit hides it: {shown}"
            ),
        ),
        (
            Fault::NoDirectory(webroot.to_owned()),
            "name the directory that holds .well-known".to_owned(),
        ),
    ] {
        assert_eq!(fault.explain(webroot, &reader(None)).1, fix);
    }
    for elsewhere in ["/srv/home/alice", "/homestead"] {
        assert!(!drop_in_for(Path::new(elsewhere)).contains("ProtectHome"));
    }
    let odd = drop_in_for(Path::new("/root/a:b 5%"));
    assert!(
        odd.contains("`BindReadOnlyPaths=\"/root/a\\:b 5%%\"`"),
        "{odd}"
    );
}
