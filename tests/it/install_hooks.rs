//! `acmegate install-hooks`: what is written, what is left alone, and what systemd and the clients
//! make of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::lab::{BINARY, Output, TempDir, find, run};

const LIMIT: Duration = Duration::from_secs(20);
const MARKER: &str = "# acmegate install-hooks ";

const CERTBOT: [File; 4] = [
    ("etc/letsencrypt/renewal-hooks/pre/acmegate", 0o755),
    ("etc/letsencrypt/renewal-hooks/post/acmegate", 0o755),
    ("etc/systemd/system/certbot.service.d/acmegate.conf", 0o644),
    (
        "etc/systemd/system/snap.certbot.renew.service.d/acmegate.conf",
        0o644,
    ),
];

/// A file by its path below the root, and its mode.
type File = (&'static str, u32);
/// Leaves something at a place; gives what is there then.
type Leave<'a> = &'a dyn Fn(&TempDir) -> String;

/// Every call that writes files, with the files.
fn all() -> [(&'static [&'static str], Vec<File>); 5] {
    [
        (&["certbot"], CERTBOT.to_vec()),
        (
            &["dehydrated"],
            vec![("etc/acmegate/hooks/dehydrated-hook", 0o755)],
        ),
        (&["uacme"], vec![("etc/acmegate/hooks/uacme-hook", 0o755)]),
        (
            &["lego", "--unit", "lego@.service"],
            vec![("etc/systemd/system/lego@.service.d/acmegate.conf", 0o644)],
        ),
        (
            &["acme-sh", "--unit", "acme_letsencrypt"],
            vec![(
                "etc/systemd/system/acme_letsencrypt.service.d/acmegate.conf",
                0o644,
            )],
        ),
    ]
}

fn install(root: &TempDir, words: &[&str]) -> Output {
    let mut command = Command::new("sh");
    // Modes are ours to say, whoever calls with whatever umask.
    command.args([
        "-c",
        "umask 0077; exec \"$@\"",
        "sh",
        BINARY,
        "install-hooks",
    ]);
    command.arg("--root").arg(root.path()).args(words);
    run(command, LIMIT)
}

/// Every file below, with its inode and modification time, and every directory.
fn tree(directory: &Path) -> Vec<(String, u64, i64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_dir() {
            found.push((path.display().to_string(), 0, 0));
            found.extend(tree(&path));
        } else {
            let changed = metadata.mtime_nsec();
            found.push((path.display().to_string(), metadata.ino(), changed));
        }
    }
    found.sort();
    found
}

fn read(root: &TempDir, file: &str) -> String {
    fs::read_to_string(root.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn it_writes_what_it_showed_once_and_takes_exactly_that_away() {
    for (words, files) in all() {
        let root = TempDir::new();
        let shown = install(&root, &[words, &["--print"]].concat()).success();
        assert_eq!(tree(root.path()), [], "--print writes nothing");
        let written = install(&root, words).success();
        for (file, mode) in &files {
            let text = read(&root, file);
            assert!(text.contains(MARKER), "{text}");
            let path = root.path().join(file);
            assert_eq!(
                fs::metadata(&path).expect("it").permissions().mode() & 0o7777,
                *mode
            );
            let parent = path.parent().expect("a directory");
            assert_eq!(
                fs::metadata(parent).expect("it").permissions().mode() & 0o7777,
                0o755
            );
            assert!(
                written
                    .stdout
                    .contains(&format!("written: {}", path.display())),
                "{written}"
            );
            let as_shown = format!(
                "==> {} (mode {mode:04o}) would be written\n{text}",
                path.display()
            );
            assert!(shown.stdout.contains(&as_shown), "{shown}");
        }
        assert!(written.stdout.contains("next: "), "{written}");

        let before = tree(root.path());
        let again = install(&root, words).success();
        assert_eq!(tree(root.path()), before, "nothing is written twice");
        assert_eq!(
            again.stdout.matches("unchanged: ").count(),
            files.len(),
            "{again}"
        );
        assert!(!again.stdout.contains("next: "), "{again}");
        let shown = install(&root, &[words, &["--print"]].concat()).success();
        assert_eq!(
            shown.stdout.matches("is there already").count(),
            files.len(),
            "{shown}"
        );

        let removed = install(&root, &[words, &["--remove"]].concat()).success();
        assert_eq!(
            removed.stdout.matches("removed: ").count(),
            files.len(),
            "{removed}"
        );
        let left: Vec<String> = tree(root.path())
            .into_iter()
            .map(|(path, _, _)| path)
            .collect();
        assert!(
            !left.iter().any(|path| path.contains(".service.d")),
            "{left:?}"
        );
        assert!(
            !left.iter().any(|path| path.ends_with("/hooks")),
            "{left:?}"
        );
        assert!(!left.iter().any(|path| path.contains('~')), "{left:?}");
        for (file, _) in &files {
            assert!(!root.path().join(file).exists(), "{file}");
        }
        let again = install(&root, &[words, &["--remove"]].concat()).success();
        assert_eq!(
            again.stdout.matches("not there: ").count(),
            files.len(),
            "{again}"
        );
    }
}

#[test]
fn what_is_not_ours_is_neither_replaced_nor_removed() {
    let theirs = "#!/bin/sh\nexec /usr/local/bin/my-own-hook\n";
    let place = CERTBOT[1].0;
    let changed = |root: &TempDir| {
        install(root, &["certbot"]).success();
        let text = read(root, place) + "systemctl reload nginx\n";
        // Only this one stands there, so that a half-done write would be seen.
        install(root, &["certbot", "--remove"]).success();
        root.write(place, &text);
        text
    };
    let put: [(&str, Leave<'_>); 4] = [
        ("is not acmegate's", &|root| {
            root.write(place, theirs);
            theirs.to_owned()
        }),
        ("was changed", &changed),
        ("was changed", &|root| {
            let text = format!("#!/bin/sh\n{MARKER}1 0123456789abcdef\n");
            root.write(place, &text);
            text
        }),
        ("is not acmegate's", &|root| {
            let text = "x".repeat(1 << 20);
            root.write(place, &text);
            text
        }),
    ];
    for (why, put) in put {
        let root = TempDir::new();
        let text = put(&root);
        let files = |root: &TempDir| {
            let mut files = tree(root.path());
            files.retain(|(_, inode, _)| *inode != 0);
            files
        };
        let before = files(&root);
        let refused = install(&root, &["certbot"]);
        assert!(
            refused.code == 78 && refused.stderr.lines().count() == 1,
            "{refused}"
        );
        for words in [why, place, "nothing was written"] {
            assert!(refused.stderr.contains(words), "{words}: {refused}");
        }
        assert_eq!(files(&root), before, "all or none");
        let shown = install(&root, &["certbot", "--print"]).success();
        assert!(shown.stdout.contains("is not ours"), "{shown}");
        let left = install(&root, &["certbot", "--remove"]);
        assert!(
            left.code == 78 && left.stderr.contains("left alone"),
            "{left}"
        );
        assert_eq!(files(&root), before);
        assert_eq!(read(&root, place), text);
    }
}

#[test]
fn a_link_is_never_followed_to_a_file() {
    let root = TempDir::new();
    install(&root, &["uacme"]).success();
    let place = root.path().join("etc/acmegate/hooks/uacme-hook");
    let elsewhere = root.path().join("elsewhere");
    fs::rename(&place, &elsewhere).expect("our own file");
    symlink(&elsewhere, &place).expect("a link");
    assert_eq!(install(&root, &["uacme"]).code, 78);
    assert_eq!(install(&root, &["uacme", "--remove"]).code, 78);
    assert!(elsewhere.is_file() && place.is_symlink());
    // Nor does one on the way lead out of an image.
    let (image, host) = (TempDir::new(), TempDir::new());
    symlink(host.path(), image.path().join("etc")).expect("a link");
    let refused = install(&image, &["uacme"]);
    assert!(
        refused.code == 65 && refused.stderr.contains("leads out of"),
        "{refused}"
    );
    assert_eq!(tree(host.path()), []);
}

/// What another version wrote, and a mode that somebody changed, are put right.
#[test]
fn what_another_version_of_ours_wrote_is_brought_up_to_date() {
    let root = TempDir::new();
    install(&root, &["certbot"]).success();
    let place = root.path().join(CERTBOT[0].0);
    let new = read(&root, CERTBOT[0].0);
    // A file of ours from elsewhere: whole, and not this one's text.
    fs::copy(root.path().join(CERTBOT[1].0), &place).expect("a file");
    let updated = install(&root, &["certbot"]).success();
    assert!(
        updated
            .stdout
            .contains(&format!("updated: {}", place.display())),
        "{updated}"
    );
    assert_eq!(
        updated.stdout.matches("unchanged: ").count(),
        3,
        "{updated}"
    );
    assert_eq!(read(&root, CERTBOT[0].0), new);
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("our own file");
    install(&root, &["certbot"]).success();
    let mode = fs::metadata(&place)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o7777,
        0o755,
        "certbot passes over what it cannot execute"
    );
}

#[test]
fn a_directory_with_something_else_in_it_stays() {
    let root = TempDir::new();
    let other = root.write(
        "etc/systemd/system/certbot.service.d/other.conf",
        "[Unit]\n",
    );
    install(&root, &["certbot"]).success();
    install(&root, &["certbot", "--remove"]).success();
    assert_eq!(fs::read_to_string(other).expect("theirs"), "[Unit]\n");
    assert!(
        root.path()
            .join("etc/letsencrypt/renewal-hooks/pre")
            .is_dir(),
        "certbot's own"
    );
}

#[test]
fn without_a_unit_the_line_is_shown_and_no_crontab_is_touched() {
    let root = TempDir::new();
    for client in ["lego", "acme-sh"] {
        for more in [&[][..], &["--print"]] {
            let shown = install(&root, &[&[client], more].concat()).success();
            for words in [
                "Nothing is written",
                "acmegate open",
                "acmegate close",
                "--unit",
            ] {
                assert!(shown.stdout.contains(words), "{words}: {shown}");
            }
            let line = shown
                .stdout
                .lines()
                .find(|line| line.contains("17 3 * * *"));
            let own = format!("  {} open --lease", env!("CARGO_BIN_EXE_acmegate"));
            assert!(line.is_some_and(|line| line.contains(&own)), "{shown}");
            // cron(8) reads a percent sign as the end of the command.
            assert!(!shown.stdout.contains('%'), "{shown}");
        }
        assert_eq!(install(&root, &[client, "--remove"]).code, 64);
    }
    assert_eq!(tree(root.path()), []);
}

#[test]
fn a_wrong_call_is_refused_and_writes_nothing() {
    let root = TempDir::new();
    for words in [
        &["certbot", "--unit", "certbot.service"][..],
        &["lego", "--unit", "../../passwd"],
        &["lego", "--unit", "lego.timer"],
        &["lego", "--unit", ""],
        &["certbot", "--print", "--remove"],
        &["caddy"],
        &[],
    ] {
        let refused = install(&root, words);
        assert!(
            refused.code == 64 && !refused.stderr.is_empty(),
            "{words:?}: {refused}"
        );
    }
    let mut command = Command::new(BINARY);
    command.args(["install-hooks", "uacme", "--root", "/nowhere/at/all"]);
    assert_eq!(run(command, LIMIT).code, 65);
    assert_eq!(tree(root.path()), []);
}

#[test]
fn who_may_not_write_there_is_told_so() {
    let root = TempDir::new();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    let mut command = Command::new(BINARY);
    if rustix::process::geteuid().is_root() {
        // Root without the capability that lets it write everywhere is nobody special.
        let program = root.at("acmegate");
        fs::copy(BINARY, &program).expect("our own program");
        command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
            &program,
        ]);
    }
    let directory = root.path().join("image");
    fs::create_dir(&directory).expect("a new directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).expect("our own");
    command
        .args(["install-hooks", "uacme", "--root"])
        .arg(&directory);
    let refused = run(command, LIMIT);
    assert!(
        refused.code == 77 && refused.stderr.contains("run as root"),
        "{refused}"
    );
    assert_eq!(tree(&directory), []);
}

/// The drop-ins beside the units they are for, as systemd reads them.
#[test]
fn systemd_finds_nothing_wrong_with_the_drop_ins() {
    find("systemd-analyze");
    let root = TempDir::new();
    let service = "[Unit]\nDescription=A client\n[Service]\nType=oneshot\nExecStart=/bin/true\n";
    let units = [
        "certbot.service",
        "snap.certbot.renew.service",
        "lego.service",
    ];
    for unit in units {
        root.write(&format!("etc/systemd/system/{unit}"), service);
    }
    install(&root, &["certbot"]).success();
    install(&root, &["lego", "--unit", "lego"]).success();
    for unit in units {
        let drop_in = root
            .path()
            .join(format!("etc/systemd/system/{unit}.d/acmegate.conf"));
        let text = fs::read_to_string(&drop_in).expect("it was written");
        // As on a host that has the program where units look for it.
        let text = text.replace("acmegate open", &format!("{BINARY} open"));
        let text = text.replace("acmegate close", &format!("{BINARY} close"));
        fs::write(&drop_in, text).expect("our own file");
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]);
        command.arg(root.path().join("etc/systemd/system").join(unit));
        let verified = run(command, LIMIT).success();
        let about_us = |line: &&str| line.contains("acmegate.conf") || line.contains(unit);
        let told: Vec<&str> = verified.stderr.lines().filter(about_us).collect();
        assert!(told.is_empty(), "{verified}");
        // The control: what is wrong in a drop-in is told.
        fs::write(&drop_in, "[Service]\nExecStartPre=/no/such/program\n").expect("our own file");
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]);
        command.arg(root.path().join("etc/systemd/system").join(unit));
        assert_ne!(run(command, LIMIT).code, 0);
    }
}
