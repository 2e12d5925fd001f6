//! The package where no systemd runs, as in a container that is being built, and where something is in its way:
//! a full disk, a configuration that was changed, an account of that name, a daemon that nobody manages.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::machine::{Root, inside_as_root};
use super::{BUILD, SOON, build};
use crate::lab::{Process, TempDir, ruleset, run, wait_for};

const CONFIG: &str = "/etc/acmegate/acmegate.toml";

#[test]
fn a_package_comes_and_goes_where_nothing_is_booted() {
    inside_as_root(|| {
        let root = Root::new();
        root.does(&["mount", "-t", "proc", "proc", "/proc"]);
        // The index of manual pages, after every step, takes longer than everything else.
        root.does(&["rm", "-f", "/var/lib/man-db/auto-update"]);
        let packages = TempDir::new();
        let first = build(packages.path(), "1");
        root.copy(&first, "/srv/1.deb");
        let second = with_another_configuration(&first, packages.path());
        root.copy(&second, "/srv/2.deb");
        let before = census(&root);

        a_full_disk_is_an_install_that_can_be_tried_again(&root);
        a_changed_configuration_stays(&root);
        what_was_removed_is_installed_again(&root);
        root.does(&["dpkg", "--purge", "acmegate"]);
        assert_eq!(census(&root), before, "installed, and purged at once");
        an_account_that_was_there_stays(&root, &before);
        a_daemon_that_nobody_manages_is_told_of(&root);
        assert_eq!(census(&root), before);
    });
}

fn a_full_disk_is_an_install_that_can_be_tried_again(root: &Root) {
    let place = "/usr/share/doc/acmegate";
    root.does(&["mkdir", place]);
    root.does(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]);
    let full = root.run(&["dpkg", "--install", "/srv/1.deb"]);
    assert_ne!(full.code, 0, "{full}");
    assert!(full.text().contains("No space left on device"), "{full}");
    root.does(&["umount", place]);
    assert!(!root.at("/usr/bin/acmegate").exists(), "half of a package");
    root.does(&["dpkg", "--install", "/srv/1.deb"]);
    assert_eq!(root.does(&["dpkg", "--audit"]), "");
    assert_eq!(root.does(&["dpkg", "--verify", "acmegate"]), "");
    root.does(&["acmegate", "config", "check"]);
}

fn a_changed_configuration_stays(root: &Root) {
    let ours = "[window]\nmax = \"3m\"\n";
    fs::write(root.at(CONFIG), ours).expect("a file of our own");
    root.does(&["dpkg", "--force-confold", "--install", "/srv/2.deb"]);
    assert_eq!(read(root, CONFIG), ours);
    let shipped = root.at("/etc/acmegate/acmegate.toml.dpkg-dist");
    assert!(shipped.exists(), "the new one stands beside it");
    root.does(&["dpkg", "--force-confold", "--install", "/srv/1.deb"]);
    assert_eq!(read(root, CONFIG), ours, "after a downgrade");
    // Nor does one that cannot be read hold up an upgrade.
    fs::write(root.at(CONFIG), "[window\n").expect("a file of our own");
    root.does(&["dpkg", "--force-confold", "--install", "/srv/2.deb"]);
    assert_eq!(read(root, CONFIG), "[window\n");
}

fn what_was_removed_is_installed_again(root: &Root) {
    let uid = || root.does(&["id", "-u", "acmegate"]);
    let old = uid();
    root.does(&["dpkg", "--remove", "acmegate"]);
    assert_eq!(uid(), old, "files of its are still there");
    assert!(root.at(CONFIG).exists());
    root.does(&["dpkg", "--install", "/srv/2.deb"]);
    assert_eq!(uid(), old);
    assert_eq!(read(root, CONFIG), "[window\n");
}

fn an_account_that_was_there_stays(root: &Root, before: &[String]) {
    let somebodys = [
        "useradd",
        "--create-home",
        "--shell",
        "/bin/bash",
        "acmegate",
    ];
    root.does(&somebodys);
    let account = || root.does(&["getent", "passwd", "acmegate"]);
    let old = account();
    for how in ["--install", "--remove", "--purge"] {
        let what = if how == "--install" {
            "/srv/1.deb"
        } else {
            "acmegate"
        };
        root.does(&["dpkg", how, what]);
        assert_eq!(account(), old, "{how}");
    }
    root.does(&["userdel", "--remove", "acmegate"]);
    assert_eq!(census(root), before);
}

fn a_daemon_that_nobody_manages_is_told_of(root: &Root) {
    root.does(&["dpkg", "--install", "/srv/1.deb"]);
    fs::create_dir_all(root.at("/run/acmegate")).expect("a directory of our own");
    root.does(&["chown", "acmegate", "/run/acmegate"]);
    let mut command = Command::new("chroot");
    command.arg(root.at("/")).args(["acmegate", "run"]);
    let mut daemon = Process::spawn(command);
    wait_for(SOON, "the daemon guards", || {
        ruleset().contains("table inet acmegate").then_some(())
    });
    let told = root.run(&["dpkg", "--purge", "acmegate"]).success();
    assert!(
        told.stderr.contains("the account acmegate is left"),
        "{told}"
    );
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait(SOON);
    assert_eq!(ruleset(), "");
    root.does(&["userdel", "acmegate"]);
}

/// The next version, whose shipped configuration is another one.
fn with_another_configuration(package: &Path, out: &Path) -> std::path::PathBuf {
    let next = out.join("2.deb");
    let script = r#"dpkg-deb --raw-extract "$1" "$2" &&
        echo '# And a line.' >>"$2/etc/acmegate/acmegate.toml" &&
        sed -i 's/^Version: .*/&.1/' "$2/DEBIAN/control" &&
        sed -i '/ etc\/acmegate/d' "$2/DEBIAN/md5sums" &&
        dpkg-deb --root-owner-group -Znone --build "$2" "$3""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]);
    command.arg(package).arg(out.join("tree")).arg(&next);
    run(command, BUILD).success();
    next
}

fn read(root: &Root, place: &str) -> String {
    fs::read_to_string(root.at(place)).expect("it is there")
}

/// Every file and every account, but for the copies that useradd(8) makes.
fn census(root: &Root) -> Vec<String> {
    let files = "find / -xdev ( -path /proc -o -path /srv -o -path /var/lib/dpkg -o -path /var/log -o \
                 -path /var/cache -o -path /tmp -o -path /etc/*- ) -prune -o -print";
    let files = root.does(&files.split(' ').collect::<Vec<_>>());
    let accounts = root.does(&["cat", "/etc/passwd", "/etc/group"]);
    let mut all: Vec<String> = [files, accounts]
        .iter()
        .flat_map(|text| text.lines())
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}
