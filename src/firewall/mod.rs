//! Enforces: what the kernel is told.

pub mod base_chains;
