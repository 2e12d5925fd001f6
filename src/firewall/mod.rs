//! Enforces: what the kernel is told.
//!
//! The enforcer is the only process with CAP_NET_ADMIN. It never executes anything and never reads
//! a byte that came from the Internet.

pub mod message;
pub mod netlink;
pub mod record;
pub mod ruleset;
