//! Tests against a real kernel, each in network namespaces of its own and without privileges.

mod attempts;
mod base_chains;
mod callers;
mod clock;
mod commands;
mod demo;
mod enforcer;
mod flushed;
mod group_signals;
mod held;
mod host;
mod kernel;
mod killed;
#[path = "../lab/mod.rs"]
mod lab;
mod leases;
mod lying_front;
mod managers;
mod modes;
mod moments;
mod pairs;
mod process;
mod random_rulesets;
mod seals;
mod signals;
mod users;
mod world;
