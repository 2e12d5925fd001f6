//! Enforces: what the kernel is told.
//!
//! The enforcer is the only process with CAP_NET_ADMIN. It never executes anything and never reads
//! a byte that came from the Internet.
//!
//! | file | |
//! | --- | --- |
//! | `ruleset.rs` `plan.rs` | what should stand in the kernel, as data and as text; pure |
//! | `inspect.rs` `events.rs` | what does stand there, and who changed it |
//! | `netlink.rs` `elements.rs` `record.rs` | puts it there; what changes with every window; how a lease survives |
//! | `base_chains/` `survey.rs` | whether somebody else's chain makes it useless |
//! | `message.rs` `wire.rs` | what front and enforcer say to each other |
//! | `enforcer.rs` | the process that ties them together |

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
mod wire;
