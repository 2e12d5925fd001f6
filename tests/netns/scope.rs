//! A window of one family, one address or one interface opens that and nothing else, in every mode
//! that asks the kernel.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use acmegate::firewall::netlink::Kernel;
use acmegate::gate::lease::{Entrance, Families, Lease, LeaseName, MAX_PORTS, Scope, Trigger};
use acmegate::gate::window::Windows;

use crate::enforcing::orders;
use crate::host::{HOST_4, HOST_6, Host, on_each_host};
use crate::kernel::{SHUT, nft, open_ports};
use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab::{self, Daemon, Node, inside, ip, wait_for};

/// Another address of the host, on the same interface.
const OTHER_4: &str = "192.0.2.7";
const OTHER_6: &str = "2001:db8:1::7";
/// The host's address on another interface.
const ELSEWHERE: &str = "198.51.100.1";
const PATIENCE: Duration = Duration::from_secs(10);

/// How the firewall is asked.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Guard,
    Set,
    Attach,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Guard, Self::Set, Self::Attach];

    /// Makes the firewall that this way is for, and gives the configuration.
    pub fn prepare(self) -> &'static str {
        match self {
            Self::Guard => "[firewall]\nmode = \"guard\"\n",
            Self::Set => {
                lab::nft(SET_BY_ADMINISTRATOR);
                "[firewall]\nmode = \"set\"\nset = \"inet filter acmegate\"\n"
            }
            Self::Attach => {
                lab::nft(SET_BY_ADMINISTRATOR);
                "[firewall]\nmode = \"attach\"\nchains = [\"inet filter input\"]\n"
            }
        }
    }
}

/// A host with two addresses of each family on one interface, and a second interface with another
/// neighbour.
struct Place {
    host: Host,
    neighbour: Node,
}

fn place(host: Host) -> Place {
    ip(&format!("addr add {OTHER_4}/24 dev eth0"));
    ip(&format!("addr add {OTHER_6}/64 dev eth0 nodad"));
    let neighbour = Node::new();
    neighbour.cable("peer1", "eth1");
    ip(&format!("addr add {ELSEWHERE}/24 dev eth1"));
    neighbour.ip("addr add 198.51.100.2/24 dev peer1");
    Place { host, neighbour }
}

impl Place {
    fn neighbour_passes(&self) -> bool {
        let to = format!("{ELSEWHERE}:80").parse().expect("an address");
        let limit = Duration::from_millis(700);
        let tried = self
            .neighbour
            .run(|| std::net::TcpStream::connect_timeout(&to, limit));
        match tried {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        }
    }

    /// Who passes: the host's four addresses on eth0, and the one on eth1.
    #[track_caller]
    fn expect(&self, passes: [bool; 5]) {
        let addresses = [HOST_4, OTHER_4, HOST_6, OTHER_6];
        let now = || {
            let mut seen = addresses
                .map(|to| self.host.probe(to, 80).passed())
                .to_vec();
            seen.push(self.neighbour_passes());
            seen
        };
        let mut seen = now();
        // The first packet to a new address waits for its neighbour's hardware address.
        if seen != passes {
            seen = now();
        }
        assert_eq!(seen, passes, "{addresses:?} and {ELSEWHERE}");
    }
}

#[test]
fn a_window_opens_what_it_is_for_and_nothing_else() {
    inside(|| {
        on_each_host(&Way::ALL, |_, way| {
            let place = place(Host::new());
            let config = way.prepare();
            let mut daemon = Daemon::start(config);
            place.expect([false; 5]);
            let open = |options: &[&str]| {
                let command = [&["open", "--lease", "a", "--for", "5m"], options].concat();
                daemon.cli(&command).success();
            };
            open(&["--family", "ipv4"]);
            place.expect([true, true, false, false, true]);
            open(&["--family", "ipv6"]);
            place.expect([false, false, true, true, false]);
            open(&["--address", OTHER_4]);
            place.expect([false, true, false, false, false]);
            open(&["--address", OTHER_6]);
            place.expect([false, false, false, true, false]);
            open(&["--interface", "eth1"]);
            place.expect([false, false, false, false, true]);
            open(&["--interface", "eth0"]);
            place.expect([true, true, true, true, false]);
            open(&["--interface", "eth0", "--family", "ipv4"]);
            place.expect([true, true, false, false, false]);
            open(&["--interface", "eth0", "--family", "ipv6"]);
            place.expect([false, false, true, true, false]);
            open(&["--interface", "eth0"]);
            // A second lease adds what it opens.
            let second = ["open", "--lease", "b", "--interface", "eth1"];
            daemon.cli(&second).success();
            place.expect([true; 5]);
            daemon.cli(&["close", "--lease", "a"]).success();
            place.expect([false, false, false, false, true]);

            // It survives the daemon, and the next one knows it for what it is.
            daemon.kill();
            place.expect([false, false, false, false, true]);
            daemon.start_again();
            place.expect([false, false, false, false, true]);
            let lease = &daemon.status()["leases"][0];
            assert_eq!(lease["entrance"], "eth1", "{lease}");
            daemon.cli(&["close", "--lease", "b"]).success();
            place.expect([false; 5]);
        });
    });
}

#[test]
fn what_this_host_does_not_have_is_not_opened() {
    inside(|| {
        let _host = Host::new();
        let daemon = Daemon::start("");
        for (option, value, word) in [
            ("--address", "192.0.2.99", "does not have"),
            ("--address", "2001:db8::99", "does not have"),
            ("--interface", "eth9", "does not have"),
            ("--interface", "lo", "does not have"),
            ("--interface", "a/b", "no name of an interface"),
            ("--interface", "", "no name of an interface"),
        ] {
            let refused = daemon.cli(&["open", "--lease", "a", option, value]);
            assert_eq!(refused.code, 65, "{option} {value}: {refused}");
            assert!(refused.stderr.contains(word), "{refused}");
        }
        let other_family = ["--family", "ipv6", "--address", HOST_4];
        let refused = daemon.cli(&[&["open", "--lease", "a"][..], &other_family].concat());
        assert_eq!(refused.code, 65, "{refused}");
        let both = ["open", "--address", HOST_4, "--interface", "eth0"];
        assert_eq!(daemon.cli(&both).code, 64);
        assert_eq!(open_ports(), SHUT);
    });
}

#[test]
fn the_front_judges_by_the_address_too() {
    inside(|| {
        let host = Host::new();
        ip(&format!("addr add {OTHER_4}/24 dev eth0"));
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\n");
        let open = ["open", "--lease", "a", "--address", OTHER_4];
        daemon.cli(&open).success();
        // The enforcer cannot put back what is taken away while it stands still.
        rustix::process::kill_process(pid(daemon.enforcer()), rustix::process::Signal::STOP)
            .expect("it lives");
        lab::nft("flush ruleset");
        let answer = |address: &'static str| {
            use std::io::{Read, Write};
            let mut peer = host.connect(address, 80);
            let request = "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
            // The gate may close before it has read.
            let _ = peer.write_all(request.as_bytes());
            let mut answer = String::new();
            let _ = peer.read_to_string(&mut answer);
            answer
        };
        assert!(answer(OTHER_4).starts_with("HTTP/1.1 "));
        assert_eq!(answer(HOST_4), "", "nothing for whom no window is open");
        wait_for(PATIENCE, "it is told", || {
            daemon.log().contains("no-lease").then_some(())
        });
        rustix::process::kill_process(pid(daemon.enforcer()), rustix::process::Signal::CONT)
            .expect("it lives");
    });
}

fn pid(pid: u32) -> rustix::process::Pid {
    let pid = i32::try_from(pid).expect("a pid");
    rustix::process::Pid::from_raw(pid).expect("a pid")
}

/// Leases on an address of their own each, with as many ports as one may have, and as many that ended a moment ago: more
/// doors than there may be leases, and as much as one message of a container's carries.
#[test]
fn leases_on_addresses_of_their_own_have_a_door_for_each_port() {
    inside(|| {
        let settings = orders("[firewall]\nports = [80, 443, 8080, 8443]\n").settings;
        let begun = Instant::now();
        let lease = |number: u32| Lease {
            id: number + 1,
            name: LeaseName::parse(&format!("lease-{number}")).expect("a name"),
            holder: None,
            caller: 0,
            trigger: Trigger::Asked,
            scope: Scope {
                ports: settings.ports.clone(),
                families: Families::BOTH,
                entrance: Entrance::Address(Ipv6Addr::from(1 << 100 | u128::from(number)).into()),
                identifiers: None,
            },
            deadline: begun + Duration::from_secs(300),
        };
        let most = 24;
        let mut windows = Windows::default();
        for number in most..2 * most {
            windows.adopt(lease(number));
        }
        windows.release_all(begun);
        for number in 0..most {
            windows.adopt(lease(number));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut kernel = Kernel::connect().expect("netlink");
            let done = kernel.ensure(&settings, &windows, begun).await;
            done.unwrap_or_else(|error| panic!("{error}"));
            let adopted = kernel.adopt(begun).await.expect("what it kept");
            assert_eq!(adopted.leases().count(), 24);
        });
        let open = |set| nft(&["list", "set", "inet", "acmegate", set]);
        let count = |set| open(set).matches(" expires ").count();
        assert_eq!(count("window_to6"), 24 * MAX_PORTS);
        assert_eq!(count("grace_to6"), 2 * 24 * MAX_PORTS);
    });
}
