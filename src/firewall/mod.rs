//! Enforces: what the kernel is told.
//!
//! The enforcer is the only process with CAP_NET_ADMIN. It never executes anything and never reads
//! a byte that came from the Internet.
//!
//! | file | |
//! | --- | --- |
//! | `ruleset.rs` `rules.rs` `plan.rs` | what should stand in the kernel, as data and as text; pure |
//! | `inspect.rs` `events.rs` | what does stand there, and who changed it |
//! | `netlink.rs` `elements.rs` `record.rs` | puts it there; what changes with every window; how a lease survives |
//! | `netlink/table.rs` | our table as a whole: made, taken over, brought up to date |
//! | `foreign.rs` | one rule of ours in somebody else's chain |
//! | `base_chains/` `survey.rs` | whether somebody else's chain makes it useless |
//! | `legacy.rs` | whose rules nobody here can see |
//! | `evidence.rs` | who came to open windows, who got through, and which rule dropped the others |
//! | `message.rs` `wire.rs` | what front and enforcer say to each other |
//! | `enforcer.rs` | the process that ties them together |
//! | `enforcer/watch.rs` `fight.rs` | puts back what somebody took away; when it stops doing so |

pub mod allow;
pub mod base_chains;
mod elements;
pub mod enforcer;
pub mod error;
mod events;
pub mod evidence;
mod fight;
mod foreign;
mod inspect;
pub mod legacy;
pub mod message;
pub mod names;
pub mod netlink;
mod plan;
pub mod record;
mod rules;
pub mod ruleset;
pub mod survey;
mod wire;
