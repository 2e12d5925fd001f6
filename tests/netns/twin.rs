//! The twin: the ruleset in a namespace to throw away is the one that it was copied from, and what it says of a
//! packet is what becomes of that packet.

mod copied;
mod ends;
mod host;
mod windows;

use std::path::Path;
use std::time::Duration;

use acmegate::doctor::path::{End, Fate, Knock, Protocol};
use acmegate::doctor::twin::{Answer, Order, Source, TwinError, Window, prove_by};
use acmegate::firewall::ruleset::Settings;

use crate::lab::BINARY;
use crate::world::{HOST_4, HOST_6, PEER_4};

/// A SYN to the host by its only cable.
fn knock(source: &str, port: u16) -> Knock {
    let source = source.parse().expect("an address");
    let host = match source {
        std::net::IpAddr::V4(_) => HOST_4,
        std::net::IpAddr::V6(_) => HOST_6,
    };
    Knock {
        interface: "eth0".to_owned(),
        source,
        destination: host.parse().expect("an address"),
        protocol: Protocol::Tcp,
        port,
    }
}

fn order(source: Source, knocks: Vec<Knock>) -> Order {
    Order {
        source,
        settings: None,
        windows: vec![Window::AsItStands],
        knocks,
        patience: Duration::from_secs(60),
    }
}

/// The same with the window shut and open.
fn shut_and_open(settings: Settings, knocks: Vec<Knock>) -> Order {
    Order {
        settings: Some(settings),
        windows: vec![Window::Shut, Window::Open],
        ..order(Source::Live, knocks)
    }
}

fn ask(order: &Order) -> Result<Answer, TwinError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(prove_by(Path::new(BINARY), order))
}

/// What a twin of this namespace says of each knock.
fn fates(knocks: Vec<Knock>) -> Vec<Fate> {
    let answer = ask(&order(Source::Live, knocks)).expect("a twin");
    assert_eq!(answer.not_carried, Vec::<String>::new());
    assert!(answer.generation.is_some());
    answer.fates.into_iter().next().expect("one run")
}

fn one(source: &str, port: u16) -> Fate {
    fates(vec![knock(source, port)]).remove(0)
}

fn delivered(address: &str, port: u16) -> End {
    End::Delivered {
        address: address.parse().expect("an address"),
        port,
    }
}

#[test]
fn a_steps_words_are_those_of_nft() {
    crate::world::inside("twin::a_steps_words_are_those_of_nft", |world| {
        world.nft(
            "table inet filter {
                chain web { tcp dport { 80, 443 } counter accept
                }
                chain input {
                    type filter hook input priority filter; policy drop;
                    meta mark set 0x1
                    ip protocol tcp jump web
                }
            }",
        );
        let fate = one(PEER_4, 80);
        let words: Vec<(&str, &str, &str)> = fate
            .steps
            .iter()
            .map(|step| {
                let rule = step.rule.as_deref().unwrap_or("policy");
                (step.chain.as_str(), rule, step.verdict.as_str())
            })
            .collect();
        assert_eq!(
            words,
            [
                ("input", "meta mark set 0x00000001", "continue"),
                ("input", "ip protocol tcp jump web", "jump web"),
                ("web", "tcp dport { 80, 443 } counter accept", "accept"),
            ]
        );
        assert_eq!(fate.end, delivered(HOST_4, 80));
        let refused = one(PEER_4, 81);
        assert_eq!(refused.end, End::Dropped { rejects: false });
        let culprit = refused.culprit().expect("the policy");
        assert_eq!(culprit.to_string(), "inet filter input: its policy drop");
        // The live rule's own number, whatever the copy's is.
        let handle = fate.steps[2].handle.expect("a rule");
        let listed = crate::lab::run_nft(&["-a", "list", "chain", "inet", "filter", "web"]);
        assert!(
            listed.contains(&format!("# handle {handle}\n")),
            "{handle}: {listed}"
        );
    });
}
