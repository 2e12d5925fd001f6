//! Tests against a real kernel, each in network namespaces of its own and without privileges.

mod base_chains;
mod demo;
mod random_rulesets;
mod signals;
mod world;
