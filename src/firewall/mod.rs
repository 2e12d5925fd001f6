//! Enforces: what the kernel is told.
//!
//! The enforcer is the only process with CAP_NET_ADMIN. It never executes anything and never reads
//! a byte that came from the Internet.
//!
//! `ruleset` says what should stand in the kernel, `netlink` puts it there, `survey` asks whether
//! somebody else's chain makes it useless, `message` is what front and enforcer say to each other,
//! and `enforcer` is the process that ties them together.

pub mod base_chains;
pub mod enforcer;
pub mod message;
pub mod netlink;
pub mod record;
pub mod ruleset;
pub mod survey;
