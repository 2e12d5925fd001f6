//! Rulesets nobody wrote: whatever the judgement says for certain, the kernel does.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use acmegate::firewall::base_chains::{Doubt, IpFamily, Path, Probe, judge, read};

use crate::world::{PEER_4, PEER_6, inside};

/// Each takes up to 150 ms, for a drop is silent. `PROPTEST_CASES` asks for more.
const CASES: u32 = 48;

/// Some match, some do not, one in ten cannot be known.
const MATCHES: &[&str] = &[
    "tcp dport 80",
    "tcp dport { 80, 443 }",
    "tcp dport != 22",
    "tcp dport 1-79",
    "tcp dport 80-90",
    "tcp flags & (syn|ack) == syn",
    "udp dport 80",
    "meta l4proto tcp",
    "meta nfproto ipv6",
    "ct state new",
    "ct state established,related",
    "ct state invalid",
    "iifname \"eth0\"",
    "iifname { \"lo\", \"eth1\" }",
    "iifname != \"lo\"",
    "ip saddr 10.0.0.0/8",
    "ip saddr != @listed",
    "ip6 saddr 2000::/3",
    "ip6 saddr != 2001:db8:77::/48",
    "fib daddr type local",
    "meta mark 0x1",
    "meta mark & 0x3 == 0x2",
    "meta mark != 0",
    "ct mark 0x1",
    "limit rate 1000/second",
    "limit rate over 1000/second",
    "meta mark . tcp dport { 0x1 . 80, 0x2 . 80-90 }",
    "iifname . ct state { \"eth0\" . new }",
    "numgen random mod 2 0",
    "ip ttl > 1",
];

const STATEMENTS: &[&str] = &[
    "",
    "",
    "counter",
    "meta mark set 0x1",
    "meta mark set meta mark or 0x2",
    "ct mark set meta mark",
    "notrack",
];

/// Base chains, then chains that only the ones before them jump to.
const CHAINS: [&str; 5] = [
    "type filter hook prerouting priority -300;",
    "type filter hook prerouting priority -150;",
    "type filter hook input priority 0;",
    "",
    "",
];
const FIRST_PLAIN: usize = 3;

fn verdict(chain: usize) -> impl Strategy<Value = String> {
    let mut verdicts: Vec<String> = [
        "",
        "accept",
        "drop",
        "return",
        "continue",
        "tcp dport vmap { 80 : drop, 443 : accept }",
        "ct state vmap { new : accept, invalid : drop }",
    ]
    .map(str::to_owned)
    .into();
    for later in FIRST_PLAIN.max(chain + 1)..CHAINS.len() {
        verdicts.push(format!("jump c{later}"));
        verdicts.push(format!("goto c{later}"));
    }
    prop::sample::select(verdicts)
}

fn rule(chain: usize) -> impl Strategy<Value = String> {
    let matches = prop::collection::vec(prop::sample::select(MATCHES), 0..3);
    // Only a chain before connection tracking may refuse it.
    let statement = prop::sample::select(STATEMENTS)
        .prop_map(move |s| if s == "notrack" && chain != 0 { "" } else { s });
    (matches, statement, verdict(chain))
        .prop_map(|(matches, statement, end)| format!("{} {statement} {end}", matches.join(" ")))
        .prop_filter("an empty rule", |rule| !rule.trim().is_empty())
}

fn chain(number: usize) -> impl Strategy<Value = String> {
    let rules = prop::collection::vec(rule(number), 0..5);
    (rules, prop::bool::weighted(0.3)).prop_map(move |(rules, drops)| {
        let policy = match (CHAINS[number], drops) {
            ("", _) => "",
            (_, true) => " policy drop;",
            (_, false) => " policy accept;",
        };
        let head = CHAINS[number];
        format!(
            "chain c{number} {{\n{head}{policy}\n{}\n}}\n",
            rules.join("\n")
        )
    })
}

fn ruleset() -> impl Strategy<Value = String> {
    (chain(0), chain(1), chain(2), chain(3), chain(4)).prop_map(|(a, b, c, d, e)| {
        // nft wants a chain to be there before it is jumped to.
        let sets = "set listed {\ntype ipv4_addr\nelements = { 10.1.2.3 }\n}\n";
        format!("table inet some {{\n{sets}{e}{d}{c}{b}{a}}}\n")
    })
}

#[test]
fn whatever_is_certain_is_true() {
    inside("random_rulesets::whatever_is_certain_is_true", |world| {
        let cases = Config::default().cases;
        let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
            cases
        } else {
            CASES
        };
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let result = TestRunner::new(config).run(&ruleset(), |rules| {
            if let Err(refusal) = world.try_nft(&rules) {
                // Two matches can contradict each other in nft's own eyes.
                return Err(TestCaseError::reject(refusal));
            }
            for (family, peer) in [(IpFamily::V4, PEER_4), (IpFamily::V6, PEER_6)] {
                let probe = Probe {
                    family,
                    port: 80,
                    interface: "eth0".to_owned(),
                    ifindex: None,
                    destination: None,
                    mark: 0,
                    ct_mark: 0,
                    is_untracked: false,
                    accepted_sets: Vec::new(),
                };
                let ruleset = world.block_on(read(&world.netlink())).expect("the ruleset");
                let path = judge(&ruleset, &probe, &[]);
                let passes = match &path {
                    Path::Drops(_) => false,
                    Path::Passes { doubts } => {
                        if doubts.iter().any(|d| !matches!(d, Doubt::DropsListed(_))) {
                            continue;
                        }
                        true
                    }
                };
                let connected = world.connects(peer, 80, passes);
                if connected != passes {
                    let message = format!("{family:?}: {path:?}, connected {connected}\n{rules}");
                    return Err(TestCaseError::fail(message));
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}
