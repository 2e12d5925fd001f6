//! acmegate: a firewall-side gatekeeper for ACME validation.
//!
//! | folder | | |
//! | --- | --- | --- |
//! | [`gate`] | decides | may this peer reach a challenge responder now, and why? Pure. |
//! | [`config`] | reads | the operator's words into values that cannot be wrong |
//! | [`answer`] | knows | where key authorizations come from |
//! | [`front`] | listens | reads the Internet's bytes, holds no power |
//! | [`firewall`] | enforces | what the kernel is told |
//! | [`runner`] | runs | commands that the configuration names, and nothing else |
//! | [`control`] | obeys | hooks and operators, by their credentials |
//! | [`observe`] | tells | log and status |
//! | [`daemon`] | wires | processes, seals, start and stop |
//! | [`doctor`] | proves | whether a validation will get through, before a CA is asked |
//! | [`cli`] | asks | one file per subcommand |
//!
//! **Dependency rule.** `gate` uses nothing of ours. `config`, `answer`, `front`, `firewall`,
//! `runner`, `control` and `observe` may use `gate`, not each other; `firewall` and `runner` share
//! the octets of their frames, [`wire`], `front` and `answer` those of the PROXY protocol,
//! [`proxy_protocol`]; whoever has a lock takes it by [`locked`]. `daemon` alone knows them all;
//! `doctor` looks at what they made of a host, from outside, and may use them; `cli` starts these
//! or talks to them.
#![forbid(unsafe_code)]

pub mod answer;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod firewall;
pub mod front;
pub mod gate;
pub mod locked;
pub mod observe;
pub mod proxy_protocol;
pub mod runner;
pub mod wire;
