//! Enforces: what the kernel is told.
//!
//! The enforcer is the only process with CAP_NET_ADMIN. It never executes anything and never reads
//! a byte that came from the Internet.
//!
//! `ruleset` says what should stand in the kernel (`plan`: the same as text), `inspect` whether it does, `events` who
//! changed it, `netlink` puts it there
//! (`elements`: what changes with every window; `record`: how a lease survives), `survey` asks whether
//! somebody else's chain makes it useless, `message` is what front and enforcer say to each other,
//! and `enforcer` is the process that ties them together.

pub mod base_chains;
mod elements;
pub mod enforcer;
pub mod error;
mod events;
mod inspect;
pub mod message;
pub mod netlink;
mod plan;
pub mod record;
pub mod ruleset;
pub mod survey;
