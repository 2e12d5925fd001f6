//! What front and enforcer can still do once they are sealed, tried from every thread they have.
//!
//! The seal binds a thread and those that it starts. Here one thread of the test seals itself and
//! builds the daemon's runtime, and the rest of the process looks on from outside: at the kernel's
//! own word on every thread, in /proc.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use acmegate::config::lists::{Lists, Trust};
use acmegate::config::{Config, Unchecked};
use acmegate::daemon::enforcer::enforcer_seal;
use acmegate::daemon::front_seal;
use acmegate::daemon::historian::historian_seal;
use acmegate::daemon::parts::AnyAccount;
use acmegate::daemon::reader::reader_seal;
use acmegate::daemon::sandbox::ground::{Ground, Tried};
use acmegate::daemon::sandbox::start_a_thread;
use acmegate::observe::history::Settings;
use acmegate::observe::history::keeper::{Keeper, prepare};
use acmegate::observe::history::message::{Ask, Question, Reply};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::host::{HOST_4, Host};
use crate::lab::historian::window;
use crate::lab::{Daemon, TempDir, inside};
use crate::process::{NET_ADMIN, powers};
use crate::users::inside_with_users;

#[test]
fn a_sealed_front_can_do_nothing_but_its_work_from_any_thread() {
    inside(|| {
        let ground = everything_works_unsealed();
        let (sealed, is_sealed) = channel();
        let (go_on, told) = channel::<()>();
        let before = threads();
        let front = std::thread::spawn(move || {
            front_seal(&ground.config).apply().expect("a seal");
            // As the daemon builds it.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .max_blocking_threads(16)
                .enable_all()
                .build()
                .expect("a sealed process can start its threads");
            let ground = Arc::new(ground);
            runtime.block_on(async {
                let (on_worker, blocking) = (Arc::clone(&ground), Arc::clone(&ground));
                let worker = tokio::spawn(async move { refused_to_the_front(&on_worker) });
                worker.await.expect("refused on a worker");
                let blocking = tokio::task::spawn_blocking(move || {
                    refused_to_the_front(&blocking);
                    sealed.send(()).expect("somebody looks");
                    told.recv().expect("somebody has looked");
                });
                blocking.await.expect("refused on a blocking thread");
            });
            refused_to_the_front(&ground);
            // Never returns if it works, and then nobody sees this test pass.
            let exec = Command::new("true").exec();
            assert_eq!(exec.kind(), io::ErrorKind::PermissionDenied, "{exec}");
            drop(runtime);
            Arc::into_inner(ground)
        });
        if is_sealed.recv().is_ok() {
            let added: Vec<_> = threads().difference(&before).copied().collect();
            // Itself, two workers, one blocking thread.
            assert!(added.len() >= 4, "{added:?}");
            for thread in added {
                assert_eq!(powers_here(thread), (0, true, true), "thread {thread}");
            }
        }
        let _ = go_on.send(());
        front.join().expect("sealed");
    });
}

#[test]
fn a_sealed_enforcer_changes_the_firewall_and_nothing_else() {
    inside(|| {
        let ground = everything_works_unsealed();
        let (send, receive) = channel();
        let before = threads();
        let (go_on, told) = channel::<()>();
        let enforcer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let settings = acmegate::daemon::parts::orders(
                    &ground.config,
                    Lists::read(&ground.config.allow).expect("no lists").list(),
                    None,
                )
                .settings;
                let mut kernel = acmegate::firewall::netlink::Kernel::connect().expect("netlink");
                enforcer_seal(&ground.config).apply().expect("a seal");
                refused(ground.try_everything());
                refused(vec![
                    ("start a thread", start_a_thread()),
                    (
                        "connect to an upstream",
                        ground.connect(0, &ground.upstream),
                    ),
                ]);
                let now = tokio::time::Instant::now().into_std();
                let windows = acmegate::gate::window::Windows::default();
                let done = kernel.ensure(&settings, &windows, now).await;
                done.expect("the one thing it is for");
                // That is its reader's.
                refused(vec![("read its configuration", ground.read_config())]);
            });
            send.send(()).expect("somebody looks");
            told.recv().expect("somebody has looked");
            ground
        });
        if receive.recv().is_ok() {
            const NET_ADMIN: u64 = 1 << 12;
            for thread in threads().difference(&before) {
                assert_eq!(powers_here(*thread), (NET_ADMIN, true, true));
            }
        }
        let _ = go_on.send(());
        enforcer.join().expect("sealed");
    });
}

#[test]
fn both_read_lists_that_are_replaced_and_nothing_beside_them() {
    inside(|| {
        for seal in [front_seal, reader_seal] {
            let temp = TempDir::new();
            for name in ["lists", "zones", "elsewhere", "closed"] {
                fs::create_dir(temp.path().join(name)).expect("a directory of our own");
            }
            let put = |name: &str, text: &str| {
                let new = temp.write("new", text);
                fs::rename(new, temp.path().join(name)).expect("a file of our own");
            };
            put("lists/office", "192.0.2.0/24\n");
            put("elsewhere/li.zone", "198.51.100.0/24\n");
            put("closed/abuse", "192.0.2.7\n");
            symlink(
                temp.at("elsewhere/li.zone"),
                temp.path().join("zones/li.zone"),
            )
            .expect("a link of our own");
            let text = format!(
                "[allow]\nfiles = [\"{}\"]\ncountries = [\"LI\"]\ncountry_source = \"{}\"\n",
                temp.at("lists/office"),
                temp.at("zones")
            );
            let config = Config::parse(&text, "test.toml", &AnyAccount, &Unchecked);
            let mut allow = config.as_ref().expect("good").allow.clone();
            allow.taken_off.files.push(temp.at("closed/abuse").into());
            let (sealed, is_sealed) = channel();
            let (go_on, told) = channel::<()>();
            let process = std::thread::spawn(move || {
                let config = config.expect("good");
                let lists = Lists::read(&config.allow).expect("good");
                seal(&config).apply().expect("a seal");
                sealed.send(()).expect("somebody waits");
                told.recv().expect("the lists are new");
                assert!(lists.has_changed());
                let new = lists
                    .refresh(&config.allow, Trust::Careful)
                    .expect("still there");
                assert_eq!(new.problems(), [""; 0]);
                let closed = lists.refresh(&allow, Trust::Asked).expect_err("sealed");
                assert!(
                    closed.to_string().contains("it may not be read"),
                    "{closed}"
                );
                new.list()
            });
            is_sealed.recv().expect("sealed");
            put("lists/office", "192.0.2.0/24\n203.0.113.0/24\n");
            put("elsewhere/li.zone", "198.51.100.0/24\n198.18.0.0/15\n");
            put("zones/LI.ipv6", "2001:db8::/32\n");
            go_on.send(()).expect("it waits");
            let list = process.join().expect("a sealed process reads them");
            for address in ["203.0.113.1", "198.18.0.1", "2001:db8::1"] {
                assert!(
                    list.contains(address.parse().expect("an address")),
                    "{address}"
                );
            }
        }
    });
}

#[test]
fn the_enforcers_reader_reads_and_does_nothing_else() {
    inside(|| {
        let ground = everything_works_unsealed();
        let (send, receive) = channel();
        let before = threads();
        let (go_on, told) = channel::<()>();
        let reader = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let connect = async { acmegate::firewall::netlink::Kernel::connect() };
            let kernel = runtime.block_on(connect).expect("netlink");
            reader_seal(&ground.config).apply().expect("a seal");
            refused(ground.try_everything());
            refused(vec![("start a thread", start_a_thread())]);
            // Not even by the enforcer's own socket.
            let socket = kernel.connection().socket();
            let sent = rustix::net::send(socket, b"x", rustix::net::SendFlags::empty());
            refused(vec![(
                "speak to the kernel",
                sent.map(drop).map_err(io::Error::from),
            )]);
            ground.read_config().expect("a reload reads it");
            send.send(()).expect("somebody looks");
            told.recv().expect("somebody has looked");
            // What they end by, a thread that is not sealed does.
            (ground, kernel, runtime)
        });
        if receive.recv().is_ok() {
            for thread in threads().difference(&before) {
                assert_eq!(powers_here(*thread), (0, true, true));
            }
        }
        let _ = go_on.send(());
        drop(reader.join().expect("sealed"));
    });
}

#[test]
fn a_sealed_historian_writes_its_directory_and_does_nothing_else() {
    inside(|| {
        let ground = everything_works_unsealed();
        let history = prepare(&ground.config.daemon.state_dir).expect("a directory of our own");
        let (send, receive) = channel();
        let (go_on, told) = channel::<()>();
        let before = threads();
        let historian = std::thread::spawn(move || {
            let seal = historian_seal(&ground.config, Some(&history));
            seal.apply().expect("a seal");
            refused(ground.try_everything());
            refused(vec![
                ("start a thread", start_a_thread()),
                (
                    "connect to an upstream",
                    ground.connect(0, &ground.upstream),
                ),
                (
                    "write what commands opened",
                    fs::write(history.with_file_name("commands.json"), "[]"),
                ),
                (
                    "make a directory in its own",
                    fs::create_dir(history.join("more")),
                ),
                (
                    "link something into its own",
                    symlink(ground.directory.join("webroot"), history.join("webroot")),
                ),
                (
                    "move a file of its own out",
                    fs::write(history.join("mine"), "").and_then(|()| {
                        fs::rename(history.join("mine"), history.with_file_name("webroot"))
                    }),
                ),
                (
                    "make its own readable for others",
                    fs::set_permissions(
                        history.join("mine"),
                        std::os::unix::fs::PermissionsExt::from_mode(0o644),
                    ),
                ),
                (
                    "give its own away",
                    std::os::unix::fs::chown(history.join("mine"), Some(0), Some(0)),
                ),
            ]);
            ground.read_config().expect("a reload reads it");
            fs::rename(history.join("mine"), history.join("aside")).expect("its own");
            fs::remove_file(history.join("aside")).expect("its own");
            let settings = Settings {
                keep: Duration::from_secs(24 * 3600),
                max_bytes: 8 << 20,
                databases: Vec::new(),
            };
            let mut keeper = Keeper::new(Ok(history), settings, Box::new(|| Err(String::new())));
            let question = Question {
                id: 1,
                ask: Ask::Store(Box::new(window("a", 1_781_568_000_000))),
            };
            let reply = keeper.obey(question).reply;
            assert!(matches!(reply, Reply::Stored(_)), "{reply:?}");
            send.send(()).expect("somebody looks");
            told.recv().expect("somebody has looked");
            ground
        });
        if receive.recv().is_ok() {
            for thread in threads().difference(&before) {
                assert_eq!(powers_here(*thread), (0, true, true));
            }
        }
        let _ = go_on.send(());
        historian.join().expect("sealed");
    });
}

#[test]
fn the_running_daemon_is_sealed_in_every_thread() {
    inside(|| {
        let host = Host::new();
        let daemon = Daemon::start("");
        daemon.cli(&["open", "--lease", "a"]).success();
        // A token that is looked for in the webroot, so that a blocking thread is there too.
        let mut peer = host.connect(HOST_4, 80);
        let request = format!(
            "GET /.well-known/acme-challenge/{} HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
            "x".repeat(43)
        );
        peer.write_all(request.as_bytes()).expect("it is open");
        peer.read_to_string(&mut String::new()).expect("an answer");
        let mut names = BTreeSet::new();
        for pid in [daemon.front(), daemon.enforcer(), daemon.historian()] {
            for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("our own process") {
                let thread = thread.expect("a thread").path();
                let status = thread.join("status").display().to_string();
                let name = fs::read_to_string(thread.join("comm")).expect("a name");
                let kept = if name == "acmegate-enf\n" {
                    NET_ADMIN
                } else {
                    0
                };
                assert_eq!(powers(&status), (kept, true, true), "{name}: {status}");
                names.insert(name);
            }
        }
        for name in [
            "acmegate\n",
            "tokio-rt-worker\n",
            "acmegate-enf\n",
            "acmegate-read\n",
            "acmegate-hist\n",
        ] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
    });
}

/// The positive control: whatever is refused later would have worked. In threads of its own, since
/// some of it changes the thread.
fn everything_works_unsealed() -> Ground {
    let ground = Ground::new().expect("a ground of our own");
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| ground.try_everything()).join();
        for (what, result) in tried.expect("nothing panics") {
            // Not even root of a user namespace reads it, unless it is the host's own root.
            let is_elsewhere = what == "open /etc/shadow" && !is_root_of_the_host();
            assert!(
                result.is_ok() || is_elsewhere,
                "unsealed, {what}: {result:?}"
            );
        }
    });
    drop(ground);
    Ground::new().expect("a ground of our own")
}

fn is_root_of_the_host() -> bool {
    fs::metadata("/etc/shadow")
        .is_ok_and(|shadow| std::os::unix::fs::MetadataExt::uid(&shadow) == 0)
}

fn refused(tried: Vec<Tried>) {
    let done: Vec<_> = tried
        .into_iter()
        .filter(|(_, result)| {
            let error = result.as_ref().err().map(io::Error::kind);
            error != Some(io::ErrorKind::PermissionDenied)
        })
        .collect();
    assert!(done.is_empty(), "sealed, and not refused: {done:?}");
}

fn refused_to_the_front(ground: &Ground) {
    refused(ground.try_everything());
    let allowed = [
        (
            "connect to the upstream",
            ground.connect(0, &ground.upstream),
        ),
        ("read beneath the webroot", ground.read_beneath()),
        ("read its configuration", ground.read_config()),
        ("accept a connection", accept(ground)),
        ("watch the holder of a lease", watch(ground)),
    ];
    for (what, result) in allowed {
        assert!(result.is_ok(), "sealed, {what}: {result:?}");
    }
}

/// What somebody else connected before, or nobody yet: either is an answer of the kernel.
fn accept(ground: &Ground) -> io::Result<()> {
    ground.listener.set_nonblocking(true)?;
    match ground.listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        accepted => accepted.map(drop),
    }
}

fn watch(ground: &Ground) -> io::Result<()> {
    pidfd_open(ground.stranger(), PidfdFlags::empty())
        .map(drop)
        .map_err(io::Error::from)
}

fn threads() -> BTreeSet<u32> {
    fs::read_dir("/proc/self/task")
        .expect("proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Every capability that a thread has or could pass on, whether it may gain more, and whether its
/// system calls are filtered.
fn powers_here(thread: u32) -> (u64, bool, bool) {
    powers(&format!("/proc/self/task/{thread}/status"))
}

#[test]
fn the_status_tells_what_the_kernel_says_of_every_process() {
    inside_with_users(|| {
        let _host = Host::new();
        let state = TempDir::new();
        let start = |more: &str| {
            Daemon::start(&format!(
                "[firewall]\nports = [80]\n{more}[daemon]\nuser = \"nobody\"\nstate_dir = \"{}\"\n",
                state.at("state")
            ))
        };
        let security = |daemon: &Daemon| -> serde_json::Value {
            let output = daemon.cli(&["status", "--security", "--json"]).success();
            serde_json::from_str(&output.stdout).expect("JSON")
        };
        let capabilities = |security: &serde_json::Value| -> Vec<(String, String)> {
            let processes = security["processes"].as_array().expect("processes").iter();
            processes
                .map(|process| {
                    let text = |field: &str| process[field].to_string().replace('"', "");
                    assert_eq!(
                        (text("uids"), text("gids")),
                        ("[65534]".into(), "[65534]".into())
                    );
                    assert_eq!(process["no_new_privs"], true, "{process}");
                    let filters = process["filters"].as_u64().expect("a number");
                    let least = if text("name") == "runner" { 1 } else { 2 };
                    assert!(filters >= least, "{process}");
                    (text("name"), text("capabilities"))
                })
                .collect()
        };
        let net_admin = "[CAP_NET_ADMIN]";
        let of = |processes: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = processes.iter();
            owned
                .map(|(name, has)| ((*name).to_owned(), (*has).to_owned()))
                .collect()
        };
        let daemon = start("egress = \"upstreams\"\n");
        let told = security(&daemon);
        let mut found = capabilities(&told);
        found.sort();
        assert_eq!(
            found,
            of(&[
                ("enforcer", net_admin),
                ("front", "[]"),
                ("historian", "[]")
            ])
        );
        assert_eq!(told["problems"], serde_json::json!([]), "{told}");
        assert_eq!(told["table"]["stands"], true, "{told}");
        assert_eq!(told["table"]["confined"][0], "meta skuid 65534 goto reach");
        // The enforcer's reader has nothing of what the enforcer has.
        let processes = told["processes"].as_array().expect("processes");
        let enforcer = processes
            .iter()
            .find(|process| process["name"] == "enforcer");
        let enforcer = enforcer.expect("it is there");
        assert_eq!(enforcer["threads"], 2, "{enforcer}");
        assert_eq!(enforcer["threads_with_capabilities"], 1, "{enforcer}");
        let text = daemon.cli(&["status", "--security"]).success().stdout;
        assert!(text.contains("landlock  fully"), "{text}");
        assert!(text.contains("uid 65534 connects to nowhere"), "{text}");
        drop(daemon);
        let command = "open_command = [\"true\"]\nclose_command = [\"true\"]\n";
        let mut daemon = start(&format!("{command}command_net_admin = true\n"));
        let mut found = capabilities(&security(&daemon));
        found.sort();
        assert_eq!(
            found,
            of(&[
                ("enforcer", net_admin),
                ("front", "[]"),
                ("historian", "[]"),
                ("runner", net_admin)
            ])
        );
        assert_eq!(daemon.terminate(), 0);
        let daemon = start("mode = \"gate-only\"\n");
        let told = security(&daemon);
        assert!(
            capabilities(&told).iter().all(|(_, has)| has == "[]"),
            "{told}"
        );
        assert_eq!(told["table"]["stands"], false, "{told}");
    });
}

/// A kernel that has less is shown by strace, which answers in its place.
#[test]
fn a_kernel_without_all_of_landlock_is_told_of_and_can_be_refused() {
    inside(|| {
        // Whether there is landlock, and which one, is asked first of all.
        for (answer, missing) in [
            ("error=EOPNOTSUPP", "files, truncating files, TCP ports"),
            ("retval=3:when=1", "TCP ports, device ioctls, signals"),
        ] {
            let strace = [
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=landlock_create_ruleset",
                "-e",
                &format!("inject=landlock_create_ruleset:{answer}"),
            ];
            let with = |more: &str| {
                let state = TempDir::new();
                let text = format!(
                    "[daemon]\nuser = \"0\"\nstate_dir = \"{}\"\n{more}",
                    state.at("state")
                );
                (Daemon::with(&text).under(&strace), state)
            };
            let (refused, _state) = with("require_seals = true\n");
            let refused = refused.refuse();
            assert_eq!(refused.code, 71, "{refused}");
            assert!(refused.stderr.contains(missing), "{refused}");
            assert!(refused.stderr.contains("require_seals"), "{refused}");
            let (daemon, _state) = with("");
            let daemon = daemon.start();
            let status = daemon.cli(&["status"]).success().stdout;
            assert!(status.contains("\nsealed    "), "{status}");
            let security = daemon.cli(&["status", "--security"]).success().stdout;
            assert!(security.contains(missing), "{security}");
        }
    });
}
