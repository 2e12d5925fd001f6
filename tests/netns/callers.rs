//! Who may ask what, by other accounts than the daemon's; and what the daemon keeps of root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use acmegate::daemon::armed::MAX_ARMED_OF_ONE;
use nix::mount::{MsFlags, mount};

use crate::host::{HOST_4, Host};
use crate::kernel::{SHUT, elements, open_ports};
use crate::lab::{self, BINARY, Daemon, Output, TempDir, inside, run};
use crate::process::{NET_ADMIN, powers};
use crate::users::inside_with_users;

/// An account that is on every Debian.
const DAEMON_USER: &str = "nobody";
const OPENER: u32 = 21001;
const PUSHER: u32 = 21002;
const PUSHERS_GROUP: u32 = 22000;
const STRANGER: u32 = 21003;
const READER: u32 = 21004;
/// A token and a thumbprint that are well-formed.
const ANSWER: &str =
    "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

/// Another account with its own copy of the program, which it may execute wherever the build is.
struct Accounts {
    directory: TempDir,
}

impl Accounts {
    fn new() -> Self {
        let directory = TempDir::new();
        fs::copy(BINARY, directory.path().join("acmegate")).expect("our own program");
        Self { directory }
    }

    fn ask(&self, daemon: &Daemon, uid: u32, gid: u32, arguments: &[&str]) -> Output {
        let command = self.command(daemon, uid, gid, arguments);
        run(command, Duration::from_secs(20))
    }

    fn command(&self, daemon: &Daemon, uid: u32, gid: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={uid}"), &format!("--regid={gid}")])
            .args(["--clear-groups", "--", &self.directory.at("acmegate")])
            .args(["--config", &daemon.config()])
            .args(["--runtime-dir", &daemon.runtime_dir()])
            .args(arguments);
        command
    }
}

fn daemon(more: &str) -> (Daemon, TempDir) {
    let state = TempDir::new();
    let text = format!(
        "{more}[daemon]\nuser = \"{DAEMON_USER}\"\nstate_dir = \"{}\"\n",
        state.at("state")
    );
    (Daemon::start(&text), state)
}

#[test]
fn without_a_grant_root_alone_may_ask() {
    inside_with_users(|| {
        let host = Host::new();
        let accounts = Accounts::new();
        let (daemon, _state) = daemon("");
        let mode = |name: &str| {
            let socket = fs::metadata(format!("{}/{name}", daemon.runtime_dir()));
            socket.expect("a socket").permissions().mode() & 0o777
        };
        assert_eq!((mode("control.sock"), mode("observe.sock")), (0o600, 0o666));
        for arguments in [
            &["open", "--lease", "a"][..],
            &["open", "--dry-run"],
            &["close", "--lease", "a"],
            &["answer", "add", "a.example.com", ANSWER],
            &["answer", "remove", "a.example.com", ANSWER],
            &["firewall", "apply"],
            &["firewall", "remove"],
            &["report"],
            &["watch"],
            &["hook", "dehydrated", "startup_hook"],
            &["hook", "mod-md", "challenge-setup:http-01:a.example.com"],
            &["hook", "caddy", "cert_obtaining", "a.example.com"],
        ] {
            let refused = accounts.ask(&daemon, STRANGER, STRANGER, arguments);
            assert_eq!(refused.code, 77, "{arguments:?}: {refused}");
            assert!(refused.stderr.contains("run as root"), "{refused}");
            // To be in root's group is not to be root.
            assert_eq!(accounts.ask(&daemon, STRANGER, 0, arguments).code, 77);
        }
        assert_eq!(open_ports(), SHUT);
        assert!(!host.is_open(80));
        // Everybody may look, and root may ask.
        accounts
            .ask(&daemon, STRANGER, STRANGER, &["status"])
            .success();
        daemon
            .cli(&["answer", "add", "a.example.com", ANSWER])
            .success();
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
    });
}

#[test]
fn a_grant_gives_its_verbs_and_identifiers_and_no_more() {
    inside_with_users(|| {
        let host = Host::new();
        let accounts = Accounts::new();
        let (daemon, _state) = daemon(&format!(
            "[[grant]]\nuser = \"{OPENER}\"\nmay = [\"open\", \"close\"]\n\
             [[grant]]\ngroup = \"{PUSHERS_GROUP}\"\nmay = [\"answer\"]\nidentifiers = [\"*.example.com\"]\n\
             [[grant]]\nuser = \"{READER}\"\nmay = [\"report\"]\n"
        ));
        let reader = |arguments: &[&str]| accounts.ask(&daemon, READER, READER, arguments);
        let opener = |arguments: &[&str]| accounts.ask(&daemon, OPENER, OPENER, arguments);
        let pusher = |arguments: &[&str]| accounts.ask(&daemon, PUSHER, PUSHERS_GROUP, arguments);
        let stranger = |arguments: &[&str]| accounts.ask(&daemon, STRANGER, STRANGER, arguments);
        let refused = |output: Output| {
            assert_eq!(output.code, 77, "{output}");
            assert!(
                output.stderr.contains("may not") || output.stderr.contains("belongs to"),
                "{output}"
            );
        };
        let push = ["answer", "add", "a.example.com", ANSWER];

        refused(stranger(&["open", "--lease", "a"]));
        refused(pusher(&["open", "--lease", "a"]));
        assert_eq!(open_ports(), SHUT);
        // As Apache's account calls it, which never is root's.
        let set_up = ["hook", "mod-md", "challenge-setup:http-01:a.example.com"];
        refused(pusher(&set_up));
        opener(&set_up).success();
        assert!(host.lets_in(80));
        opener(&["hook", "mod-md", "renewed", "a.example.com"]).success();
        assert!(!host.is_open(80));
        opener(&["open", "--lease", "a", "--for", "5m"]).success();
        assert!(host.lets_in(80));
        let lease = elements("lease").into_values().next().expect("a lease");
        let caller = format!("a {OPENER} asked");
        assert!(lease.comment.starts_with(&caller), "{lease:?}");

        refused(opener(&push));
        refused(stranger(&push));
        refused(pusher(&["answer", "add", "a.example.org", ANSWER]));
        refused(pusher(&["answer", "add", "example.com", ANSWER]));
        refused(pusher(&["answer", "add", "b.a.example.com", ANSWER]));
        assert_eq!(daemon.status()["pushed"], 0);
        pusher(&push).success();
        assert_eq!(daemon.status()["pushed"], 1);
        refused(opener(&["answer", "remove", "a.example.com", ANSWER]));
        assert_eq!(daemon.status()["pushed"], 1);

        // Who came is for whom it was granted to, not for whoever opens.
        for read in [
            &["report"][..],
            &["report", "a", "--json"],
            &["report", "--since", "1d"],
            &["watch"],
        ] {
            refused(opener(read));
            refused(pusher(read));
        }
        reader(&["report", "a"]).success();
        refused(reader(&["open", "--lease", "b"]));
        refused(reader(&["close", "--lease", "a"]));
        for verb in ["apply", "remove"] {
            refused(opener(&["firewall", verb]));
            refused(pusher(&["firewall", verb]));
        }
        // Nobody closes, renews or takes over what is somebody else's.
        daemon
            .cli(&["open", "--lease", "roots", "--for", "5m"])
            .success();
        refused(opener(&["close", "--lease", "roots"]));
        refused(opener(&["open", "--lease", "roots", "--for", "1s"]));
        refused(pusher(&["close", "--lease", "a"]));
        opener(&["close", "--lease", "a"]).success();
        assert!(host.lets_in(80));
        daemon.cli(&["close", "--lease", "roots"]).success();
        assert!(!host.is_open(80));
    });
}

#[test]
fn whoever_arms_takes_no_place_of_others_and_ends_no_command_of_theirs() {
    inside_with_users(|| {
        let host = Host::new();
        let accounts = Accounts::new();
        let (daemon, _state) = daemon(&format!(
            "[[grant]]\nuser = \"{OPENER}\"\nmay = [\"open\"]\n\
             [[grant]]\nuser = \"{PUSHER}\"\nmay = [\"open\", \"close\"]\n"
        ));
        let exec = |uid, lease: &str, words: &[&str]| {
            let arguments = [&["exec", "--lease", lease, "--"], words].concat();
            accounts.command(&daemon, uid, uid, &arguments)
        };
        let armed = || daemon.status()["armed"].as_array().map_or(0, Vec::len);
        let mut held: Vec<_> = (0..MAX_ARMED_OF_ONE)
            .map(|at| lab::Process::spawn(exec(OPENER, &format!("f{at}"), &["sleep", "100"])))
            .collect();
        lab::wait_for(Duration::from_secs(20), "all are armed", || {
            (armed() == MAX_ARMED_OF_ONE).then_some(())
        });
        let soon = Duration::from_secs(20);
        let one_more = run(exec(OPENER, "more", &["true"]), soon);
        assert_eq!(one_more.code, 75, "{one_more}");
        assert!(
            one_more.stderr.contains("too many leases are armed"),
            "{one_more}"
        );
        run(exec(PUSHER, "others", &["true"]), soon).success();
        run(exec(0, "roots", &["true"]), soon).success();
        let stranger = run(exec(STRANGER, "strange", &["true"]), soon);
        assert_eq!(stranger.code, 77, "{stranger}");

        // By its name alone nobody opens it, and nobody makes it fail.
        for (uid, code) in [(PUSHER, 77), (STRANGER, 77), (OPENER, 0)] {
            let asked = accounts.ask(&daemon, uid, uid, &["open", "--lease", "f0"]);
            assert_eq!(asked.code, code, "{uid}: {asked}");
        }
        let lease = &daemon.status()["leases"][0];
        assert_eq!(
            (&lease["name"], &lease["caller"]),
            (&"f0".into(), &OPENER.into())
        );
        assert!(host.lets_in(80));
        let refused = accounts.ask(&daemon, PUSHER, PUSHER, &["close", "--lease", "f0"]);
        assert_eq!(refused.code, 77, "{refused}");
        assert_eq!(armed(), MAX_ARMED_OF_ONE);
        assert!(held.iter_mut().all(|process| process.ended().is_none()));
        // A client that runs as another account is ended by its own hook.
        let client = format!(
            "import subprocess; subprocess.call(['{}', '--runtime-dir', '{}', 'open']); print('ordered')",
            accounts.directory.at("acmegate"),
            daemon.runtime_dir()
        );
        let another = [
            "setpriv",
            &format!("--reuid={PUSHER}"),
            &format!("--regid={PUSHER}"),
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            &client,
        ];
        let ended = run(exec(0, "roots", &another), soon);
        assert_eq!(ended.code, 128 + 15, "{ended}");
        assert!(ended.stderr.contains("belongs to uid 0"), "{ended}");
        assert!(!ended.stdout.contains("ordered"), "{ended}");
        drop(held);
        lab::wait_for(soon, "all are gone", || (armed() == 0).then_some(()));
        assert!(!host.is_open(80));
    });
}

#[test]
fn without_the_daemon_only_the_capability_opens() {
    inside_with_users(|| {
        let host = Host::new();
        let accounts = Accounts::new();
        let (mut daemon, _state) = daemon("[firewall]\nowner = \"never\"\n");
        daemon.kill();
        for verb in ["apply", "remove"] {
            let refused = accounts.ask(&daemon, STRANGER, STRANGER, &["firewall", verb]);
            assert_eq!(refused.code, 77, "{refused}");
        }
        for verb in ["run", "enforcer"] {
            let refused = accounts.ask(&daemon, STRANGER, STRANGER, &[verb]);
            assert_ne!(refused.code, 0, "{refused}");
        }
        assert!(!host.is_open(80));
    });
}

#[test]
fn started_as_root_it_keeps_one_capability_in_one_thread() {
    inside_with_users(|| {
        let host = Host::new();
        let (daemon, _state) = daemon("");
        let nobody = fs::metadata(daemon.runtime_dir())
            .expect("a directory")
            .uid();
        assert_ne!(nobody, 0);
        for (pid, kept) in [(daemon.front(), 0), (daemon.enforcer(), NET_ADMIN)] {
            let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task"))
                .expect("our own process")
                .map(|entry| entry.expect("a thread").path().join("status"))
                .collect();
            for status in &threads {
                let status = status.to_str().expect("a path");
                // What reads files beside the enforcer has nothing of its power.
                let is_main = status.ends_with(&format!("/task/{pid}/status"));
                let kept = if is_main { kept } else { 0 };
                assert_eq!(powers(status), (kept, true, true), "{status}");
                let text = fs::read_to_string(status).expect("our own process");
                for ids in ["Uid:", "Gid:"] {
                    let line = text.lines().find_map(|line| line.strip_prefix(ids));
                    let ids: Vec<_> = line.expect("ids").split_whitespace().collect();
                    assert!(ids.iter().all(|id| *id != "0"), "{status}: {ids:?}");
                }
                assert!(text.lines().any(|line| line.trim() == "Groups:"), "{text}");
            }
        }
        // And with that it works.
        daemon.cli(&["open", "--lease", "a"]).success();
        assert!(host.lets_in(80));
        assert_eq!(
            host.connect(HOST_4, 80)
                .peer_addr()
                .map(|peer| peer.port())
                .ok(),
            Some(80)
        );
    });
}

/// What can be seen with one account: the sockets are never wider than what is meant.
#[test]
fn the_sockets_are_as_wide_as_the_grants() {
    inside(|| {
        let _host = Host::new();
        for (grants, control) in [
            ("", 0o600),
            ("[[grant]]\nuser = \"12345\"\nmay = [\"open\"]\n", 0o666),
        ] {
            let daemon = Daemon::start(grants);
            for (socket, mode) in [("control.sock", control), ("observe.sock", 0o666)] {
                let path = format!("{}/{socket}", daemon.runtime_dir());
                let metadata = fs::metadata(path).expect("a socket");
                assert_eq!(metadata.permissions().mode() & 0o777, mode, "{socket}");
            }
            // The one that tells reads nothing: what is written to it changes nothing.
            let path = format!("{}/observe.sock", daemon.runtime_dir());
            let mut socket = std::os::unix::net::UnixStream::connect(path).expect("it listens");
            let ask = b"{\"version\":1,\"ask\":\"firewall-remove\"}\n";
            let _ = std::io::Write::write_all(&mut socket, ask);
            let _ = std::io::Read::read_to_string(&mut socket, &mut String::new());
            assert_eq!(daemon.status()["firewall"]["installed"], true);
            lab::send(daemon.front(), rustix::process::Signal::HUP);
        }
    });
}

/// As `setcap` makes it: whoever may execute such a binary has its power.
#[test]
fn a_binary_with_file_capabilities_works_for_nobody_but_root() {
    inside_with_users(|| {
        let host = Host::new();
        let accounts = Accounts::new();
        let (daemon, _state) = daemon("[firewall]\nowner = \"never\"\n");
        let program = accounts.directory.at("acmegate");
        let mut setcap = Command::new("setcap");
        setcap.args(["cap_net_admin,cap_net_bind_service+ep", &program]);
        run(setcap, Duration::from_secs(20)).success();
        let rules = lab::ruleset();
        for arguments in [
            &["status"][..],
            &["open"],
            &["run"],
            &["enforcer"],
            &["firewall", "plan"],
            &["firewall", "apply"],
            &["firewall", "remove"],
            &["config", "check"],
            &["demo"],
        ] {
            let refused = accounts.ask(&daemon, STRANGER, STRANGER, arguments);
            assert_eq!(refused.code, 77, "{arguments:?}: {refused}");
            assert!(refused.stderr.contains("setcap -r"), "{refused}");
            assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
        }
        assert_eq!(lab::ruleset(), rules);
        assert!(!host.is_open(80));
        // The control: it is the attribute, and root lends itself nothing.
        accounts.ask(&daemon, 0, 0, &["status"]).success();
        let mut setcap = Command::new("setcap");
        setcap.args(["-r", &program]);
        run(setcap, Duration::from_secs(20)).success();
        accounts
            .ask(&daemon, STRANGER, STRANGER, &["status"])
            .success();
    });
}

/// The account of the daemon may have put a link where root looks for its directory.
#[test]
fn started_as_root_it_gives_nothing_away_by_a_link() {
    inside_with_users(|| {
        let _host = Host::new();
        let (mut daemon, state) = daemon("");
        assert_eq!(daemon.terminate(), 0);
        let roots = state.path().join("roots");
        fs::create_dir(&roots).expect("a directory of root's");
        let webroot = state.path().join("state/webroot");
        fs::remove_dir(&webroot).expect("the built-in webroot");
        std::os::unix::fs::symlink(&roots, &webroot).expect("a link");
        daemon.start_again();
        assert_eq!(fs::metadata(&roots).expect("it is there").uid(), 0);
    });
}

/// Nor does it stay root where it cannot be seen which accounts there are.
#[test]
fn started_as_root_without_proc_it_does_not_begin() {
    inside_with_users(|| {
        let _host = Host::new();
        let (mut daemon, _state) = daemon("");
        assert_eq!(daemon.terminate(), 0);
        let lock = format!("{}/lock", daemon.runtime_dir());
        fs::remove_file(&lock).expect("its own");
        let mut command = Command::new("unshare");
        let hidden = "mount -t tmpfs none /proc && exec \"$@\"";
        command.args(["--mount", "sh", "-c", hidden, "sh", BINARY]);
        command.args(daemon.command().get_args()).arg("run");
        let refused = run(command, Duration::from_secs(20));
        assert_eq!(refused.code, 71, "{refused}");
        let words = "cannot become the configured user: /proc/self/exe";
        assert!(refused.stderr.contains(words), "{refused}");
        assert!(fs::metadata(&lock).is_err(), "it took root's lock");
    });
}

/// What is right already is left alone, as on a disk that is read-only; what cannot be made right is named.
#[test]
fn started_as_root_it_names_the_directory_that_it_cannot_have() {
    inside_with_users(|| {
        let _host = Host::new();
        let (mut daemon, _state) = daemon("");
        assert_eq!(daemon.terminate(), 0);
        let state = daemon.state_dir().to_owned();
        let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        for flags in [MsFlags::MS_BIND, remount] {
            mount(Some(&*state), &*state, None::<&str>, flags, None::<&str>)
                .expect("a mount of our own");
        }
        daemon.start_again();
        daemon.cli(&["open", "--lease", "a"]).success();
        assert_eq!(daemon.terminate(), 0);

        let runtime = daemon.runtime_dir().to_owned();
        fs::remove_dir_all(&runtime).expect("a directory of our own");
        fs::write(&runtime, "").expect("a file in its place");
        let mut command = daemon.command();
        command.arg("run");
        let refused = run(command, Duration::from_secs(20));
        assert_eq!(refused.code, 71, "{refused}");
        let words = format!("cannot make {runtime} a directory of [daemon] user");
        assert!(refused.stderr.contains(&words), "{refused}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    });
}
