//! Live sides nobody made up: whatever the doctor says for certain, the kernel does.
//!
//! A seeded generator makes hosts as they are found in the field, only stranger: two ways to the
//! Internet, policy routing, timed sets, marks that one table sets and another one asks for, iptables-nft
//! beside nft, published ports. Real packets come from outside, and where they come out is the truth
//! that every reading is compared with. `ACMEGATE_FULL=1` runs 2,000 of them and not 160;
//! `ACMEGATE_SEED=N` begins elsewhere, and `ACMEGATE_CASE=N` runs that one alone, and prints it.

mod cables;
mod grammar;
mod iptables;
mod live;
mod packet;
mod reading;
mod side;
mod tally;
mod twin;

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::lab::{Node, inside, inside_within};
use grammar::Table;
use live::Live;
use side::{LiveSide, MORE, POLICY_RULES, Switches};
use tally::Tally;

/// Where the series begins unless told otherwise.
const SEED: u64 = 20_261_122;
const FEW: u32 = 160;
const FULL: u32 = 2_000;
/// What they may take on a machine that does other things beside; several times what they need.
const LIMIT: Duration = Duration::from_secs(300);
const FULL_LIMIT: Duration = Duration::from_secs(3_600);
/// As many hosts at once as the machine that this is written for has processors.
const LANES: u32 = 2;
/// A disagreement is made smaller in so many steps at most, each a live side of its own.
const SHRINKING: u32 = 250;
/// So many disagreements of a lane are told at once.
const ENOUGH: usize = 4;
/// After so many hosts a lane tells what it has seen: a long run that reaches its limit has not been for nothing.
const TOLD: u32 = 100;

fn live_side() -> impl Strategy<Value = LiveSide> {
    let tables = (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.45),
        prop::bool::weighted(0.2),
        grammar::table(0),
        grammar::table(1),
        grammar::netdev(),
    )
        .prop_map(|(first, second, at_device, a, b, c)| -> Vec<Table> {
            let tables = [(first, a), (second, b), (at_device, c)];
            tables
                .into_iter()
                .filter_map(|(is_there, table)| is_there.then_some(table))
                .collect()
        });
    let switches = (
        select(&[0_u8, 1, 2][..]),
        select(&[0_u8, 1, 2][..]),
        any::<bool>(),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(first, second, src_valid_mark, forwards)| Switches {
            rp_filter: [first, second],
            src_valid_mark,
            forwards,
        });
    (
        subsequence(&MORE[..], 0..=MORE.len()),
        prop_oneof![1 => Just(Vec::new()), 2 => subsequence(&POLICY_RULES[..], 1..4)],
        switches,
        tables,
        prop::option::weighted(0.4, iptables::iptables()),
    )
        .prop_map(
            |(more_addresses, rules, switches, tables, iptables)| LiveSide {
                more_addresses,
                rules,
                switches,
                nft: tables.iter().map(Table::to_string).collect(),
                iptables: iptables.map(|tables| [tables.of(true), tables.of(false)]),
                is_three_deep: tables.iter().any(Table::is_three_deep),
            },
        )
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is no number")),
    )
}

/// One lane: every `LANES`th live side, until it has had its share.
fn lane(number: u32, share: u32, seed: u64) -> (Tally, Vec<String>) {
    let tally = RefCell::new(Tally::default());
    let mut disagreements = Vec::new();
    let live = Live::new();
    let mut case = number;
    while tally.borrow().cases < share && disagreements.len() < ENOUGH {
        let found = try_case(&live, seed, case, &tally);
        if let Some(disagreement) = &found {
            eprintln!("{disagreement}");
        }
        disagreements.extend(found);
        case += LANES;
        let tally = tally.borrow();
        if tally.cases > 0 && tally.cases.is_multiple_of(TOLD) {
            eprintln!("lane {number}, up to case {case}:\n{tally}");
        }
    }
    (tally.into_inner(), disagreements)
}

/// One live side, the same for the same seed and number; the smallest that shows a disagreement, if any.
fn try_case(live: &Live, seed: u64, case: u32, tally: &RefCell<Tally>) -> Option<String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&case.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        max_shrink_iters: SHRINKING,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tree = live_side().new_tree(&mut runner).expect("a live side");
    if number("ACMEGATE_CASE").is_some() {
        println!("{}", tree.current());
    }
    let result = runner.run_one(tree, |side| {
        let seen = live.examine(&side, case).map_err(|refusal| {
            if number("ACMEGATE_CASE").is_some() {
                println!("{refusal}");
            }
            TestCaseError::reject(refusal)
        })?;
        seen.agree().map_err(TestCaseError::fail)?;
        // What is tried while a disagreement is made smaller is no part of the series.
        let mut tally = tally.borrow_mut();
        tally.has(&side);
        seen.count(&mut tally);
        Ok(())
    });
    let which = format!("ACMEGATE_SEED={seed} ACMEGATE_CASE={case}");
    match result {
        Ok(true) => None,
        Ok(false) => {
            tally.borrow_mut().refused += 1;
            None
        }
        Err(TestError::Fail(why, side)) => Some(format!("{which}: {why}\n{side}")),
        Err(error) => panic!("{which}: {error}"),
    }
}

#[test]
fn whatever_is_certain_of_a_random_live_side_is_true() {
    let limit = match std::env::var_os("ACMEGATE_FULL") {
        Some(_) => FULL_LIMIT,
        None => LIMIT,
    };
    inside_within(limit, || {
        let seed = number("ACMEGATE_SEED").unwrap_or(SEED);
        if let Some(case) = number("ACMEGATE_CASE") {
            let case = u32::try_from(case).expect("a number of the series");
            let found = Node::new().run(|| try_case(&Live::new(), seed, case, &RefCell::default()));
            assert!(found.is_none(), "{}", found.unwrap_or_default());
            return;
        }
        let cases = match std::env::var_os("ACMEGATE_FULL") {
            Some(_) => FULL,
            None => FEW,
        };
        let mut tally = Tally::default();
        let mut disagreements = Vec::new();
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES)
                .map(|lane| {
                    scope.spawn(move || {
                        Node::new().run(|| self::lane(lane, cases.div_ceil(LANES), seed))
                    })
                })
                .collect();
            for lane in lanes {
                let (counted, found) = lane.join().expect("it does not panic");
                tally.add(&counted);
                disagreements.extend(found);
            }
        });
        println!("ACMEGATE_SEED={seed}\n{tally}");
        assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
        assert_eq!(
            tally.missing(),
            [""; 0],
            "what never or hardly ever occurred:\n{tally}"
        );
        assert!(
            tally.refused * 5 < tally.cases,
            "the tools refuse too many:\n{tally}"
        );
        for (all, some, percent) in [
            (live::ROUTED, live::PASSED, 30),
            (live::ROUTED, live::DROPPED, 30),
            (reading::ASKED, reading::PASSES, 30),
            (reading::ASKED, reading::DROPS, 30),
            (twin::ASKED, twin::RIGHT, 99),
            (twin::NAMED, twin::SAME, 95),
        ] {
            let share = u64::from(tally.of(some)) * 100;
            let enough = share >= u64::from(tally.of(all)) * percent;
            assert!(
                enough,
                "`{some}` is less than {percent} of a hundred `{all}`:\n{tally}"
            );
        }
    });
}

/// A live side that once showed a disagreement, cut down to what it takes.
fn agrees(nft: &str, iptables: Option<[&str; 2]>) {
    let side = side(nft, iptables);
    let seen = Node::new().run(|| Live::new().examine(&side, 0));
    let seen = seen.unwrap_or_else(|refusal| panic!("{refusal}"));
    seen.agree().unwrap_or_else(|why| panic!("{why}\n{side}"));
    assert_eq!(seen.not_carried(), [""; 0], "{side}");
}

/// A live side of these rules, with nothing else about it.
fn side(nft: &str, iptables: Option<[&str; 2]>) -> LiveSide {
    LiveSide {
        more_addresses: Vec::new(),
        rules: Vec::new(),
        switches: Switches {
            rp_filter: [0, 0],
            src_valid_mark: false,
            forwards: true,
        },
        nft: nft.to_owned(),
        iptables: iptables.map(|both| both.map(str::to_owned)),
        is_three_deep: false,
    }
}

#[test]
fn who_comes_first_at_the_priority_of_connection_tracking_is_said_to_be_unknown() {
    inside(|| {
        let side = side(
            "table inet t0 {
                chain b0 {
                    type filter hook prerouting priority -200;
                    ct mark 0x1 accept
                }
            }
            table inet t1 {
                chain b0 {
                    type filter hook prerouting priority -200;
                    meta mark set ct mark reject
                }
                chain elsewhere {
                    type filter hook prerouting priority -199;
                }
            }
            table inet t2 {
                chain b0 {
                    type filter hook prerouting priority -200;
                    meta mark 0x1 accept
                }
            }",
            None,
        );
        let seen = Node::new().run(|| Live::new().examine(&side, 0));
        let seen = seen.unwrap_or_else(|refusal| panic!("{refusal}"));
        let said = |table: &str| {
            format!(
                "whether chain {table} b0 comes before connection tracking, whose priority it has too"
            )
        };
        assert_eq!(seen.not_carried(), [said("t0"), said("t1")]);
    });
}

#[test]
fn a_translation_of_one_family_does_not_track_the_other() {
    inside(|| {
        agrees(
            "table inet t0 {
                chain b0 {
                    type nat hook prerouting priority dstnat; policy drop;
                    tcp dport 80 dnat ip to 10.0.0.2:80
                }
            }",
            None,
        );
    });
}

#[test]
fn a_question_before_a_translation_of_one_family_tracks_the_other_too() {
    inside(|| {
        agrees(
            "table inet t0 {
                chain b0 {
                    type nat hook prerouting priority dstnat; policy drop;
                    ct mark 0x1 tcp dport 80 dnat ip to 10.0.0.2:80
                }
            }",
            None,
        );
    });
}

#[test]
fn a_limit_of_connections_in_iptables_makes_the_kernel_track_them() {
    let limit =
        "*filter\n:web - [0:0]\n-A web -m connlimit --connlimit-above 10000 -j ACCEPT\nCOMMIT\n";
    inside(|| {
        agrees(
            "table inet t0 {
                chain b0 {
                    type nat hook prerouting priority dstnat;
                    iifname . tcp dport vmap { \"eth0\" . 80 : accept, \"eth1\" . 80 : drop }
                }
            }",
            Some([limit, limit]),
        );
    });
}

#[test]
fn the_chain_that_was_made_last_translates_first() {
    let nat = |to| {
        format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination {to}\nCOMMIT\n"
        )
    };
    inside(|| {
        agrees(
            "table inet t0 {
                chain b0 {
                    type nat hook prerouting priority dstnat;
                    drop
                }
            }",
            Some([&nat("10.0.0.2:80"), &nat("[fd00::2]:80")]),
        );
    });
}

#[test]
fn a_translated_destination_is_no_longer_local_to_iptables() {
    let rules = |to| {
        format!(
            "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination {to}\nCOMMIT\n\
             *filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m addrtype --dst-type LOCAL -j REJECT\nCOMMIT\n"
        )
    };
    inside(|| agrees("", Some([&rules("10.0.0.2:80"), &rules("[fd00::2]:80")])));
}

#[test]
fn a_range_that_ran_out_is_not_in_the_way_of_the_others() {
    inside(|| {
        agrees(
            "table inet t0 {
                set banned {
                    type ipv4_addr
                    flags interval,timeout
                    elements = { 198.51.100.0/26 timeout 1ms, 198.51.100.64/26 timeout 1h }
                }
                chain b0 {
                    type filter hook input priority 0;
                    ip saddr @banned drop
                }
            }",
            None,
        );
    });
}
