//! The runtime directory's lock: one daemon, and nothing that somebody put in the lock's place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::lab::{Daemon, Output, run};

const LIMIT: Duration = Duration::from_secs(60);

/// One more, in the same directories.
fn one_more(daemon: &Daemon) -> Output {
    let mut command = daemon.command();
    command.arg("run");
    run(command, LIMIT)
}

#[test]
fn a_second_daemon_is_refused_and_nobody_else_may_lock() {
    // Whatever the mask of whoever runs the tests is.
    let wrapper = ["sh", "-c", "umask 022; exec \"$@\"", "sh"];
    let daemon = Daemon::with(&super::config("")).under(&wrapper).start();
    let lock = format!("{}/lock", daemon.runtime_dir());
    let mode = fs::metadata(lock)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600, "who may read it may lock it");
    let second = one_more(&daemon);
    assert_eq!(second.code, 75, "{second}");
    assert!(second.stderr.contains("holds the lock in"), "{second}");
}

/// The directory is its account's, and the daemon may come as root.
#[test]
fn a_link_or_a_pipe_in_the_locks_place_is_neither_followed_nor_waited_for() {
    let mut daemon = Daemon::start(&super::config(""));
    assert_eq!(daemon.terminate(), 0);
    let lock = format!("{}/lock", daemon.runtime_dir());
    let target = format!("{}/target", daemon.runtime_dir());
    let refused = || {
        let refused = one_more(&daemon);
        assert_eq!(refused.code, 71, "{refused}");
        let words = "cannot use the runtime directory";
        assert!(refused.stderr.contains(words), "{refused}");
        assert!(refused.stderr.contains("its file `lock`"), "{refused}");
        fs::remove_file(&lock).expect("it was left alone");
    };
    fs::remove_file(&lock).expect("its own");
    symlink(&target, &lock).expect("a link of our own");
    refused();
    assert!(fs::metadata(&target).is_err(), "it was made");
    fs::write(&target, "kept").expect("a file of our own");
    symlink(&target, &lock).expect("a link of our own");
    refused();
    mknodat(CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe of our own");
    refused();
}
