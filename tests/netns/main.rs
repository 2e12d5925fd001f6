//! Tests against a real kernel, each in network namespaces of its own and without privileges.

mod attach;
mod attempts;
mod base_chains;
mod callers;
mod clock;
mod closed;
mod commands;
mod demo;
mod divert;
mod early;
mod enforcer;
mod exec;
mod firewalld;
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
mod lying_runner_front;
mod managers;
mod moments;
mod pairs;
mod process;
mod random_rulesets;
mod remains;
mod runner;
mod scope;
mod seals;
mod signals;
mod users;
mod world;
