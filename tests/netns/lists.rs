//! Long allow-lists in a real kernel: swapped without a lost or a wrongly passed packet, filled between
//! whatever else there is to do, and never half counted, whoever is killed meanwhile.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use acmegate::firewall::allow::Listed;
use acmegate::firewall::enforcer::Orders;
use acmegate::firewall::message::{List, Reply, Request};
use acmegate::gate::allow_list::{AllowList, Entries};

use crate::enforcer::claim;
use crate::enforcing::{self, Enforcing};
use crate::host::{HOST_4, HOST_PRIVATE, Host, Seen};
use crate::kernel::nft;
use crate::lab::{self, inside, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The peer that every list holds, and the one that none does.
const LISTED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// `count` ranges of two addresses, different ones for each number, and the listed peer.
fn list(number: u32, count: u32) -> Listed {
    let begin = 0x1400_0000 + number * 0x0080_0000;
    let many = (0..count).map(|at| (begin + at * 4, begin + at * 4 + 1));
    let peer = LISTED.to_bits();
    let entries = Entries {
        v4: many.chain([(peer, peer)]).collect(),
        v6: (0..count / 4)
            .map(|at| {
                (
                    u128::from(at) << 32 | 1 << 100,
                    u128::from(at) << 32 | 1 << 100 | 7,
                )
            })
            .collect(),
    };
    AllowList::from_entries(entries, Entries::default()).into()
}

fn orders(allow: Listed) -> Orders {
    let orders = enforcing::orders("[firewall]\nowner = \"never\"\nports = [80]\n");
    Orders {
        settings: orders.settings.with_allow(allow),
        ..orders
    }
}

/// The names of the lists that stand in the kernel.
pub fn lists_there() -> Vec<String> {
    let table = nft(&["-t", "list", "table", "inet", "acmegate"]);
    let sets = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set "));
    let names = sets.filter_map(|set| set.split(' ').next());
    names
        .filter(|name| Listed::is_one(name))
        .map(str::to_owned)
        .collect()
}

pub fn count_in_kernel(set: &str) -> usize {
    let listed = nft(&["list", "set", "inet", "acmegate", set]);
    let Some((_, elements)) = listed.split_once("elements = {") else {
        return 0;
    };
    elements.split(',').count()
}

#[track_caller]
fn stands_alone(list: &Listed) {
    let mut there = lists_there();
    there.sort();
    assert_eq!(there, list.names());
}

/// Connects over and over from both addresses until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicUsize>,
    wrong: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

impl Load {
    fn start(host: &Host) -> Self {
        let load = Self {
            stop: Arc::default(),
            tried: Arc::default(),
            wrong: Arc::default(),
            others: Arc::default(),
        };
        let (stop, tried, wrong) = (load.stop.clone(), load.tried.clone(), load.wrong.clone());
        host.beside(move || {
            while !stop.load(Ordering::Relaxed) {
                // Long before a first packet would be sent again: one that is lost is seen.
                let seen = crate::host::try_once(HOST_PRIVATE, 80, Duration::from_millis(700));
                tried.fetch_add(1, Ordering::Relaxed);
                if seen != Seen::Refused {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let (stop, others, wrong) = (load.stop.clone(), load.others.clone(), load.wrong.clone());
        host.beside(move || {
            while !stop.load(Ordering::Relaxed) {
                let seen = crate::host::try_once(HOST_4, 80, Duration::from_millis(5));
                others.fetch_add(1, Ordering::Relaxed);
                if seen != Seen::Silence {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        load
    }

    /// How many tries of the listed peer and of the other one there were, and how many went wrong.
    fn end(self) -> (usize, usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let [tried, others, wrong] =
            [&self.tried, &self.others, &self.wrong].map(|count| count.load(Ordering::Relaxed));
        (tried, others, wrong)
    }
}

fn swaps() -> u32 {
    match std::env::var_os("ACMEGATE_FULL").is_some() {
        true => 100,
        false => 8,
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("[::]:80").expect("a free port");
    let accepting = listener.try_clone().expect("a socket");
    std::thread::spawn(move || while accepting.accept().is_ok() {});
    listener
}

/// Two lists of 6,251 ranges, again and again one for the other: eight times, a hundred with
/// `ACMEGATE_FULL=1`.
#[test]
fn a_swap_under_load_loses_no_listed_packet_and_passes_no_other() {
    inside(|| {
        let host = Host::new();
        // Nobody listens: a reset is a packet that passed, and no queue of a listener's can run full.
        let lists = [list(1, 5_000), list(2, 5_000)];
        let enforcing = Enforcing::start(orders(lists[0].clone()));
        enforcing.wait_for_the_list();
        stands_alone(&lists[0]);
        let load = Load::start(&host);
        for swap in 1..=swaps() {
            let next = &lists[swap as usize % 2];
            enforcing.change_list(next);
            enforcing.wait_for_the_list();
            // nft reads every range before it prints a line.
            if swap % 8 == 0 {
                stands_alone(next);
            }
        }
        let (tried, others, wrong) = load.end();
        assert_eq!(wrong, 0, "of {tried} and {others} tries");
        // The control: there was something to lose at every swap.
        let least = swaps() as usize * 10;
        assert!(tried > least && others > least, "{tried}, {others}");
        assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Refused);
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
    });
}

#[test]
fn a_window_opens_and_closes_while_a_long_list_is_being_filled() {
    inside(|| {
        let host = Host::new();
        let _listener = listen();
        let long = list(1, 60_000);
        let enforcing = Enforcing::start(orders(list(0, 3)));
        enforcing.change_list(&long);
        assert_eq!(enforcing.wait_for_a_part(), 75_001);
        // Acknowledged, and the list is still on its way.
        let reply = enforcing.ask(&Request::Open(claim("a")));
        let Reply::Health(health) = reply else {
            panic!("{reply:?}")
        };
        assert!(matches!(health.list, List::Filling { percent, .. } if percent < 100));
        assert!(host.lets_in(80));
        assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
        enforcing.close();
        assert!(
            matches!(enforcing.list(), List::Filling { .. }),
            "the control"
        );
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        enforcing.wait_for_the_list();
        stands_alone(&long);
        assert_eq!(count_in_kernel(&long.names()[0]), 60_001);
        assert_eq!(count_in_kernel(&long.names()[1]), 15_000);
    });
}

#[test]
fn a_list_that_changes_while_it_is_filled_gives_way_to_the_newest() {
    inside(|| {
        let _host = Host::new();
        let small = list(0, 3);
        let enforcing = Enforcing::start(orders(small.clone()));
        let long = list(1, 60_000);
        enforcing.change_list(&long);
        enforcing.wait_for_a_part();
        let newest = list(2, 5_000);
        enforcing.change_list(&newest);
        enforcing.wait_for_the_list();
        stands_alone(&newest);
        assert_eq!(count_in_kernel(&newest.names()[0]), 5_001);
        // Back to what stands: what is on its way is given up.
        enforcing.change_list(&long);
        enforcing.wait_for_a_part();
        enforcing.change_list(&newest);
        enforcing.wait_for_the_list();
        stands_alone(&newest);
    });
}

#[test]
fn a_table_that_is_flushed_while_a_list_is_filled_is_back_at_once_and_filled_again() {
    inside(|| {
        let host = Host::new();
        let _listener = listen();
        let [standing, next] = [list(1, 5_000), list(2, 150_000)];
        let enforcing = Enforcing::start(orders(standing.clone()));
        enforcing.wait_for_the_list();
        enforcing.change_list(&next);
        enforcing.wait_for_a_part();
        lab::nft("flush ruleset");
        // Shut to the world, and open to the local networks of the list that stood. Both at once, and before the peers
        // are asked: to list the table, and to believe in silence, takes longer than a list takes to fill.
        wait_for(
            SOON,
            "it is back, and the list is being filled again",
            || {
                let is_back = nft(&["list", "tables"]).contains("table inet acmegate");
                (is_back && matches!(enforcing.list(), List::Filling { .. })).then_some(())
            },
        );
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
        enforcing.wait_for_the_list();
        stands_alone(&next);
        assert_eq!(count_in_kernel(&next.names()[0]), 150_001);
    });
}

/// What the kernel does not take is told, and what stood goes on to count.
#[test]
fn a_list_that_the_kernel_refuses_is_told_and_the_one_before_counts() {
    inside(|| {
        let host = Host::new();
        let _listener = listen();
        let [standing, next] = [list(1, 1_000), list(2, 60_000)];
        let enforcing = Enforcing::start(orders(standing.clone()));
        enforcing.wait_for_the_list();
        enforcing.change_list(&next);
        enforcing.wait_for_a_part();
        // Somebody makes another set of that name, which holds no addresses.
        let name = &next.names()[0];
        lab::nft(&format!(
            "delete set inet acmegate {name}\nadd set inet acmegate {name} {{ type inet_service; flags interval; }}"
        ));
        wait_for(SOON, "it is told", || {
            matches!(enforcing.list(), List::Refused { errno } if errno > 0).then_some(())
        });
        assert_eq!(host.probe(HOST_PRIVATE, 80), Seen::Connected);
        assert_eq!(host.probe(HOST_4, 80), Seen::Silence);
        // A window is none the worse for it, nor is another list.
        enforcing.open(&[80]);
        assert!(host.lets_in(80));
        enforcing.close();
        let another = list(3, 1_000);
        enforcing.change_list(&another);
        enforcing.wait_for_the_list();
        stands_alone(&another);
    });
}

/// The ends of the address space are where an interval set has no address after the last.
#[test]
fn ranges_at_the_ends_of_the_address_space_hold_what_they_say() {
    inside(|| {
        let host = Host::new();
        let _listener = listen();
        let of = |v4: &[(u32, u32)], v6: &[(u128, u128)]| {
            let entries = Entries {
                v4: v4.to_vec(),
                v6: v6.to_vec(),
            };
            Listed::from(AllowList::from_entries(entries, Entries::default()))
        };
        let enforcing = Enforcing::start(orders(of(&[], &[])));
        let seen = || [HOST_4, crate::host::HOST_6].map(|to| host.probe(to, 80));
        assert_eq!(seen(), [Seen::Silence; 2]);
        let peers = (
            0xc000_0202u32,
            0x2001_0db8_0001_0000_0000_0000_0000_0002u128,
        );
        let cases = [
            // All there is.
            (of(&[(0, u32::MAX)], &[(0, u128::MAX)]), true),
            // From the first, and up to the last, address.
            (of(&[(0, peers.0)], &[(0, peers.1)]), true),
            (of(&[(peers.0, u32::MAX)], &[(peers.1, u128::MAX)]), true),
            (of(&[(0, peers.0 - 1)], &[(0, peers.1 - 1)]), false),
            (
                of(&[(peers.0 + 1, u32::MAX)], &[(peers.1 + 1, u128::MAX)]),
                false,
            ),
            // The first and the last address alone, beside a peer.
            (
                of(
                    &[(0, 0), (peers.0, peers.0), (u32::MAX, u32::MAX)],
                    &[(0, 0), (peers.1, peers.1), (u128::MAX, u128::MAX)],
                ),
                true,
            ),
            (
                of(&[(u32::MAX, u32::MAX)], &[(u128::MAX, u128::MAX)]),
                false,
            ),
            (of(&[(0, 0)], &[(0, 0)]), false),
        ];
        for (list, passes) in cases {
            enforcing.change_list(&list);
            enforcing.wait_for_the_list();
            stands_alone(&list);
            let expected = if passes {
                Seen::Connected
            } else {
                Seen::Silence
            };
            assert_eq!(seen(), [expected; 2], "{list:?}");
        }
    });
}
