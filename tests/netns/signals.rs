//! What signals do to the two processes: a stop that reaches both is a clean one, and a reload that
//! the seal cannot follow is refused as a whole.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use acmegate::control::client;
use acmegate::control::status::Status;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Far above what a start or a stop takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// `acmegate run` in namespaces of its own, in a process group of its own.
struct Daemon {
    child: Child,
    directory: PathBuf,
}

impl Daemon {
    fn start(name: &str, sites: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("signals-{name}-{}", std::process::id()));
        fs::create_dir_all(directory.join("etc")).unwrap();
        let daemon = Self {
            child: Command::new("unshare")
                .args(["-Urn", "--"])
                .arg(env!("CARGO_BIN_EXE_acmegate"))
                .args(["run", "--config"])
                .arg(write(&directory, sites))
                .arg("--runtime-dir")
                .arg(&directory)
                .stderr(File::create(directory.join("log")).unwrap())
                .process_group(0)
                .spawn()
                .unwrap_or_else(|error| panic!("unshare (package util-linux): {error}")),
            directory,
        };
        daemon.wait_for(|status| status.firewall.installed);
        daemon
    }

    fn wait_for(&self, is_so: impl Fn(&Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            match client::status(&self.directory) {
                Ok(status) if is_so(&status) => return status,
                told if began.elapsed() > DEADLINE => panic!("{told:?}\n{}", self.log()),
                _ => std::thread::yield_now(),
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "still running\n{}",
                fs::read_to_string(self.directory.join("log")).unwrap()
            );
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn write(directory: &Path, sites: &str) -> PathBuf {
    let file = directory.join("etc/acmegate.toml");
    let state = directory.join("state");
    // In this user namespace there is nobody else to become.
    let daemon = format!(
        "[daemon]\nuser = \"root\"\nstate_dir = \"{}\"\n",
        state.display()
    );
    fs::write(&file, daemon + sites).unwrap();
    file
}

#[test]
fn a_stop_that_reaches_both_processes_is_a_clean_one() {
    for signal in [Signal::TERM, Signal::INT, Signal::USR1] {
        // Which of the two would die first is left to chance, so more than once.
        for round in 0..3 {
            let mut daemon = Daemon::start(&format!("stop-{}-{round}", signal.as_raw()), "");
            kill_process_group(daemon.pid(), signal).unwrap();
            let ended = daemon.ended();
            assert!(ended.success(), "{signal:?}: {ended}\n{}", daemon.log());
        }
    }
}

#[test]
fn a_webroot_that_the_seal_does_not_know_is_refused_at_a_reload() {
    let site = |webroot: &Path| {
        format!(
            "[[site]]\nidentifiers = [\"example.com\"]\nanswer = {{ webroot = \"{}\" }}\n",
            webroot.display()
        )
    };
    let webroots = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("signals-webroots-{}", std::process::id()));
    let (known, new) = (webroots.join("known"), webroots.join("new"));
    fs::create_dir_all(&known).unwrap();
    fs::create_dir_all(&new).unwrap();

    let daemon = Daemon::start("webroot", &site(&known));
    write(&daemon.directory, &site(&new));
    kill_process(daemon.pid(), Signal::HUP).unwrap();
    let status = daemon.wait_for(|status| !status.problems.is_empty());
    assert!(
        status.problems[0].contains("needs a restart"),
        "{:?}",
        status.problems
    );
    assert_eq!(
        status.sites[0].answer,
        format!("webroot {}", known.display())
    );
    fs::remove_dir_all(webroots).unwrap();
}
