//! Tests against a real kernel, each in network namespaces of its own and without privileges.

mod attempts;
mod base_chains;
mod host;
mod kernel;
mod killed;
#[path = "../lab/mod.rs"]
mod lab;
mod process;
mod random_rulesets;
mod seals;
mod world;
