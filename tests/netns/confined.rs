//! Where the daemon's account may connect to, by the rules of our table: tried by real sockets of a process
//! of that uid that no seal holds back, as if landlock and the system-call filter were not there.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use acmegate::firewall::ruleset::{Egress, MAX_DESTINATIONS};
use nix::mount::{MsFlags, mount};
use rustix::fs::Uid;
use rustix::process::Signal;
use rustix::thread::set_thread_uid;

use crate::enforcing::{self, Enforcing};
use crate::host::{HOST_4, Host};
use crate::kernel;
use crate::lab::{self, Daemon, TempDir, inside, run, wait_for};
use crate::users::inside_with_users;

/// An account that is on every Debian.
const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 21001;
const ROOT: u32 = 0;
const SOON: Duration = Duration::from_secs(60);
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

const UPSTREAM_4: &str = "10.0.0.2:8080";
const UPSTREAM_6: &str = "[2001:db8:1::2]:8080";
const AT_HOME: &str = "127.0.0.1:8080";
/// What is next to the upstreams: other ports of theirs, and their ports elsewhere.
const BESIDE: [&str; 7] = [
    "10.0.0.2:8081",
    "192.0.2.2:8080",
    "[2001:db8:1::2]:8081",
    "127.0.0.1:8081",
    "127.0.0.2:8080",
    "[::1]:8080",
    // Its own, by an address that is not the loopback interface's.
    "192.0.2.1:8080",
];

fn sites() -> String {
    let site = |name: &str, upstream: &str| {
        format!(
            "[[site]]\nidentifiers = [\"{name}.example.com\"]\nanswer = {{ upstream = \"http://{upstream}\" }}\n"
        )
    };
    [("a", UPSTREAM_4), ("b", UPSTREAM_6), ("c", AT_HOME)]
        .map(|(name, upstream)| site(name, upstream))
        .concat()
}

fn daemon(more: &str) -> (Daemon, TempDir) {
    let state = TempDir::new();
    let text = format!(
        "{more}[daemon]\nuser = \"{NOBODY}\"\nstate_dir = \"{}\"\n",
        state.at("state")
    );
    (Daemon::start(&text), state)
}

/// Does something as another account, with no capability, in a thread of its own.
fn as_uid<T: Send + 'static>(uid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        set_thread_uid(Uid::from_raw(uid)).expect("root may be anybody");
        work()
    });
    thread.join().expect("it does not panic")
}

fn connects(uid: u32, to: &str) -> io::Result<()> {
    let to: SocketAddr = to.parse().expect("an address");
    as_uid(uid, move || {
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).map(drop)
    })
}

/// Whether a datagram of this account arrives: here, or outside.
fn reaches_by_udp(host: &Host, uid: u32, to: &str) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    let bind = move || {
        let socket = UdpSocket::bind(to).expect("a free port");
        let limit = Some(Duration::from_millis(500));
        socket.set_read_timeout(limit).expect("a timeout");
        socket
    };
    let is_here = to.ip().is_loopback();
    let socket = match is_here {
        true => bind(),
        false => host.outside(bind),
    };
    let sent = as_uid(uid, move || {
        let own: IpAddr = match to {
            SocketAddr::V4(_) => "0.0.0.0".parse().expect("an address"),
            SocketAddr::V6(_) => "::".parse().expect("an address"),
        };
        UdpSocket::bind((own, 0))?.send_to(b"x", to)
    });
    // The kernel says so at once: nothing has to be waited for.
    if let Err(error) = sent {
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        return false;
    }
    socket.recv(&mut [0; 8]).is_ok()
}

/// Somebody listens wherever a test tries, and upstreams answer as ACME clients do.
fn listen_everywhere(host: &Host) {
    for to in [UPSTREAM_4, UPSTREAM_6, AT_HOME].into_iter().chain(BESIDE) {
        let address: SocketAddr = to.parse().expect("an address");
        let serve = move |listener: TcpListener| {
            for peer in listener.incoming().flatten() {
                std::thread::spawn(move || answer(peer));
            }
        };
        let is_here = address.ip().is_loopback() || to.starts_with(HOST_4);
        let bind = move || TcpListener::bind(address).expect("a free port");
        if is_here {
            let listener = bind();
            std::thread::spawn(move || serve(listener));
        } else {
            let (bound, is_bound) = channel();
            host.beside(move || {
                let listener = bind();
                bound.send(()).expect("somebody waits");
                serve(listener);
            });
            is_bound.recv().expect("bound");
        }
    }
}

fn answer(mut peer: TcpStream) {
    let mut head = [0; 1024];
    if peer.read(&mut head).is_ok_and(|read| read > 0) {
        let body = format!("{TOKEN}.{THUMBPRINT}");
        let length = body.len();
        let _ = write!(
            peer,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}

fn validate(host: &Host, name: &str) -> String {
    let mut peer = host.connect(HOST_4, 80);
    let request = format!(
        "GET /.well-known/acme-challenge/{TOKEN} HTTP/1.1\r\nHost: {name}.example.com\r\n\r\n"
    );
    peer.write_all(request.as_bytes()).expect("it is open");
    let mut said = String::new();
    peer.read_to_string(&mut said).expect("an answer");
    said
}

const MODES: [(&str, &str); 3] = [
    ("[firewall]\n", ""),
    (
        "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n",
        "table inet filter { set acmegate { type inet_service; flags timeout; }
           chain input { type filter hook input priority 0; policy drop; ct state established accept
             iif lo accept
             tcp dport @acmegate accept
             icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
           }
         }",
    ),
    (
        "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n",
        "table inet filter { chain input { type filter hook input priority 0; policy drop
             ct state established accept
             iif lo accept
             icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
           }
         }",
    ),
];

#[test]
fn who_has_the_front_reaches_upstreams_and_nothing_else() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let everything = || [UPSTREAM_4, UPSTREAM_6, AT_HOME].into_iter().chain(BESIDE);
        let datagrams = ["10.0.0.2:5353", "[2001:db8:1::2]:5353", "127.0.0.1:5353"];
        let everybody_reaches_everything = |uids: &[u32]| {
            for uid in uids {
                for to in everything() {
                    let done = connects(*uid, to);
                    assert!(done.is_ok(), "uid {uid} to {to}: {done:?}");
                }
                for to in datagrams {
                    assert!(reaches_by_udp(host, *uid, to), "uid {uid} to {to}");
                }
            }
        };
        // The control: whatever is refused later would have worked.
        everybody_reaches_everything(&[NOBODY]);
        for (firewall, chains) in MODES {
            lab::nft(chains);
            let (mut daemon, _state) = daemon(&format!(
                "{firewall}egress = \"upstreams\"\n[http]\nlisten = [\"[::]:80\"]\n{}",
                sites()
            ));
            for to in [UPSTREAM_4, UPSTREAM_6, AT_HOME] {
                let done = connects(NOBODY, to);
                assert!(done.is_ok(), "{firewall}: {to}: {done:?}");
            }
            for to in BESIDE {
                let refused = connects(NOBODY, to).expect_err(to);
                let kind = refused.kind();
                assert_eq!(kind, io::ErrorKind::ConnectionRefused, "{firewall}: {to}");
            }
            for to in datagrams {
                assert!(!reaches_by_udp(host, NOBODY, to), "{firewall}: {to}");
            }
            // Nobody else is any different from before.
            everybody_reaches_everything(&[ROOT, SOMEBODY]);
            // And the front does its work: for those who come, and by its upstreams.
            daemon.cli(&["open", "--lease", "a"]).success();
            for name in ["a", "b", "c"] {
                let said = validate(host, name);
                assert!(said.starts_with("HTTP/1.1 200 "), "{firewall}: {said}");
                assert!(said.ends_with(THUMBPRINT), "{firewall}: {said}");
            }
            let egress = daemon.status()["firewall"]["egress"].to_string();
            assert!(
                egress.contains("uid 65534 connects to 10.0.0.2:8080, 127.0.0.1:8080, [2001:"),
                "{egress}"
            );
            assert_eq!(daemon.terminate(), 0);
            everybody_reaches_everything(&[NOBODY]);
            lab::nft("flush ruleset");
        }
    });
}

#[test]
fn a_reload_moves_the_limit_and_a_flush_does_not_lift_it() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let site = |upstream: &str| {
            format!(
                "[firewall]\nowner = \"never\"\negress = \"upstreams\"\n[[site]]\nidentifiers = [\"a.example.com\"]\n\
                 answer = {{ upstream = \"http://{upstream}\" }}\n"
            )
        };
        let (daemon, state) = daemon(&site(UPSTREAM_4));
        let stands = |to: [(&str, bool); 2]| {
            to.into_iter()
                .all(|(to, reaches)| connects(NOBODY, to).is_ok() == reaches)
        };
        assert!(stands([(UPSTREAM_4, true), ("192.0.2.2:8080", false)]));
        lab::nft("flush ruleset");
        wait_for(SOON, "the limit is back", || {
            stands([(UPSTREAM_4, true), ("192.0.2.2:8080", false)]).then_some(())
        });
        let write = |text: &str| {
            daemon.write_config(&format!(
                "{text}[daemon]\nuser = \"{NOBODY}\"\nstate_dir = \"{}\"\n",
                state.at("state")
            ));
            daemon.signal(Signal::HUP);
        };
        write(&site("192.0.2.2:8080"));
        wait_for(SOON, "the limit has moved", || {
            stands([(UPSTREAM_4, false), ("192.0.2.2:8080", true)]).then_some(())
        });
        let shape = || kernel::nft(&["-s", "-t", "list", "table", "inet", "acmegate"]);
        assert!(shape().contains("meta skuid 65534 goto reach"));
        // It goes, and comes, while all else stands.
        write(&site(UPSTREAM_4).replace("\"upstreams\"", "\"any\""));
        wait_for(SOON, "the limit is gone", || {
            stands([(UPSTREAM_4, true), ("192.0.2.2:8080", true)]).then_some(())
        });
        assert!(!shape().contains("chain confine") && !shape().contains("chain reach"));
        write(&site(UPSTREAM_4));
        wait_for(SOON, "the limit is back", || {
            stands([(UPSTREAM_4, true), ("192.0.2.2:8080", false)]).then_some(())
        });
        assert_eq!(
            daemon.status()["firewall"]["gaps"],
            1,
            "only the flush was one"
        );
    });
}

/// By default the limit stands where the account is acmegate's own by name, and no command runs under it.
#[test]
fn only_an_account_of_our_own_is_limited_by_itself() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let files = TempDir::new();
        let accounts = std::fs::read_to_string("/etc/passwd").expect("accounts");
        let own = "acmegate:x:21002:21002::/nonexistent:/usr/sbin/nologin\n";
        // First, in case that this host has acmegate.
        let passwd = files.write("passwd", &format!("{own}{accounts}"));
        // In this mount namespace alone.
        mount(
            Some(passwd.as_str()),
            "/etc/passwd",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .expect("a file over a file");
        for (user, more, is_limited, why) in [
            ("acmegate", "", true, "uid 21002 connects to 10.0.0.2:8080"),
            ("nobody", "", false, "somebody else may use it"),
            ("acmegate", "egress = \"any\"\n", false, "egress = \"any\""),
            (
                "acmegate",
                "open_command = [\"true\"]\nclose_command = [\"true\"]\n",
                false,
                "commands run under the same account",
            ),
            ("0", "", false, "the account is root"),
        ] {
            let state = TempDir::new();
            let text = format!(
                "[firewall]\n{more}[daemon]\nuser = \"{user}\"\nstate_dir = \"{}\"\n[[site]]\nidentifiers = [\"a.example.com\"]\n\
                 answer = {{ upstream = \"http://{UPSTREAM_4}\" }}\n",
                state.at("state")
            );
            let mut daemon = Daemon::start(&text);
            let uid = match user {
                "acmegate" => 21002,
                "nobody" => NOBODY,
                _ => ROOT,
            };
            assert!(connects(uid, UPSTREAM_4).is_ok(), "{user} {more}");
            assert_eq!(
                connects(uid, BESIDE[0]).is_err(),
                is_limited,
                "{user} {more}"
            );
            let egress = daemon.status()["firewall"]["egress"].to_string();
            let egress = egress.replace("\\\"", "\"");
            assert!(egress.contains(why), "{user} {more}: {egress}");
            let plan = daemon.cli(&["firewall", "plan"]).success().stdout;
            assert_eq!(
                plan.contains("meta skuid 21002 goto reach"),
                is_limited,
                "{plan}"
            );
            assert_eq!(daemon.terminate(), 0);
        }
    });
}

#[test]
fn a_limit_that_cannot_be_is_refused_and_not_left_out() {
    inside(|| {
        let refused = Daemon::with("[firewall]\negress = \"upstreams\"\n").refuse();
        assert_eq!(refused.code, 78, "{refused}");
        assert!(refused.stderr.contains("this one is root"), "{refused}");
    });
}

/// The host's own DNAT neither gives the account a way elsewhere nor takes its upstreams away: what counts is whom
/// it asked for.
#[test]
fn where_it_wants_to_go_is_judged_and_not_where_the_host_sends_it() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let (_daemon, _state) = daemon(&format!("[firewall]\negress = \"upstreams\"\n{}", sites()));
        assert!(connects(NOBODY, "192.0.2.2:8080").is_err());
        lab::nft(
            "table ip away { chain out { type nat hook output priority -100;
               ip daddr 10.0.0.2 tcp dport 8080 dnat to 192.0.2.2:8080
               ip daddr 192.0.2.2 tcp dport 8080 dnat to 10.0.0.2:8080
             }
            }",
        );
        assert!(connects(ROOT, "192.0.2.2:8080").is_ok());
        assert!(connects(NOBODY, UPSTREAM_4).is_ok());
        assert!(connects(NOBODY, "192.0.2.2:8080").is_err());
    });
}

/// What a reload asks for and cannot have leaves the old limit standing, and is told.
#[test]
fn a_limit_that_cannot_be_any_more_stays_as_it_was() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let site = |name: &str, upstream: &str| {
            format!(
                "[[site]]\nidentifiers = [\"{name}.example.com\"]\nanswer = {{ upstream = \"http://{upstream}\" }}\n"
            )
        };
        let asked = "[firewall]\negress = \"upstreams\"\n";
        let (daemon, state) = daemon(&format!("{asked}{}", site("a", UPSTREAM_4)));
        let too_many: String = (0..=MAX_DESTINATIONS)
            .map(|number| {
                let (high, low) = (number / 250, number % 250 + 1);
                site(&format!("n{number}"), &format!("10.1.{high}.{low}:8080"))
            })
            .collect();
        daemon.write_config(&format!(
            "{asked}{too_many}[daemon]\nuser = \"{NOBODY}\"\nstate_dir = \"{}\"\n",
            state.at("state")
        ));
        daemon.signal(Signal::HUP);
        let problem = wait_for(SOON, "the reload is refused", || {
            let problems = daemon.status()["problems"].to_string();
            problems.contains("not accepted").then_some(problems)
        });
        assert!(problem.contains("256 destinations at most"), "{problem}");
        assert!(connects(NOBODY, UPSTREAM_4).is_ok());
        assert!(connects(NOBODY, BESIDE[0]).is_err());
    });
}

/// Without the rights of the first user namespace a batch is small, and it all fits; and as many rules cost
/// nobody else anything that could be noticed.
#[test]
fn as_many_destinations_as_can_be_fit_and_are_the_plan_s() {
    inside(|| {
        let mut orders = enforcing::orders("[firewall]\nowner = \"never\"\n");
        let to = |number: usize| {
            SocketAddr::new(
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 1, number as u16]),
                443,
            )
        };
        orders.settings.egress = Some(Egress {
            uid: NOBODY,
            to: (1..=MAX_DESTINATIONS).map(to).collect(),
        });
        let settings = orders.settings.clone();
        let enforcing = Enforcing::start(orders);
        let own_table = || kernel::nft(&["-s", "-t", "list", "table", "inet", "acmegate"]);
        let installed = own_table();
        assert_eq!(
            installed.matches(" tcp dport 443 accept").count(),
            MAX_DESTINATIONS
        );
        drop(enforcing);
        lab::nft("delete table inet acmegate");
        lab::nft(&settings.to_nft());
        assert_eq!(own_table(), installed);
    });
}

/// The check of the checks: `setpriv` makes the same process as the threads here are.
#[test]
fn a_program_of_that_account_is_limited_like_a_thread_of_it() {
    inside_with_users(|| {
        let host = &Host::new();
        listen_everywhere(host);
        let (_daemon, _state) = daemon(&format!("[firewall]\negress = \"upstreams\"\n{}", sites()));
        let bash = |to: &str| {
            let mut command = Command::new("setpriv");
            let uid = format!("--reuid={NOBODY}");
            command.args([&uid, "--clear-groups", "--", "bash", "-c"]);
            command.arg(format!("exec 3<>/dev/tcp/{to}"));
            run(command, SOON).code
        };
        assert_eq!(bash("10.0.0.2/8080"), 0);
        assert_ne!(bash("10.0.0.2/8081"), 0);
    });
}
