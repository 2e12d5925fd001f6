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

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::lab::{Node, inside};
use live::Live;
use side::{LiveSide, MORE, POLICY_RULES, Switches};
use tally::Tally;

/// Where the series begins unless told otherwise.
const SEED: u64 = 20_261_122;
const FEW: u32 = 160;
const FULL: u32 = 2_000;
/// As many hosts at once as the machine that this is written for has processors.
const LANES: u32 = 2;
/// A disagreement is made smaller in so many steps at most, each a live side of its own.
const SHRINKING: u32 = 3_000;
/// So many disagreements of a lane are told at once.
const ENOUGH: usize = 4;

fn live_side() -> impl Strategy<Value = LiveSide> {
    let tables = (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.45),
        prop::bool::weighted(0.2),
        grammar::table(0),
        grammar::table(1),
        grammar::netdev(),
    )
        .prop_map(|(first, second, at_device, a, b, c)| {
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
                tables,
                iptables,
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
        disagreements.extend(try_case(&live, seed, case, &tally));
        case += LANES;
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
            if number("ACMEGATE_CASE").is_some() || std::env::var_os("ACMEGATE_REFUSALS").is_some()
            {
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
    inside(|| {
        let seed = number("ACMEGATE_SEED").unwrap_or(SEED);
        if let Some(case) = number("ACMEGATE_CASE") {
            let case = u32::try_from(case).expect("a number of the series");
            let found = Node::new().run(|| try_case(&Live::new(), seed, case, &RefCell::default()));
            assert!(found.is_none(), "{}", found.unwrap_or_default());
            return;
        }
        let cases = match std::env::var_os("ACMEGATE_FULL") {
            Some(_) => 400,
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
        for (all, some) in [
            (live::ROUTED, live::PASSED),
            (live::ROUTED, live::DROPPED),
            (reading::ASKED, reading::PASSES),
            (reading::ASKED, reading::DROPS),
        ] {
            let (all, some) = (tally.of(all), tally.of(some));
            assert!(some * 10 >= all * 3, "{some} of {all}:\n{tally}");
        }
    });
}
