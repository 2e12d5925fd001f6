//! Proves: will a validation get through, before a CA is asked?
//!
//! CAs do not repeat a failed validation, and limit how many may fail in an hour. So a host is examined
//! beforehand, as a physician does it: each exam looks at one part of the way from a perspective to the answer, and
//! what it finds it says with the evidence and the remedy. What cannot be examined is said, never assumed.
//!
//! Nothing here changes the host's firewall, its configuration or its state; what is tried out is tried in
//! namespaces that are thrown away, or with a random token that nobody asked a CA for. None of it runs in
//! the daemon: everything belongs to the command line, with the caller's own power.
//!
//! | file | |
//! | --- | --- |
//! | `case.rs` | what is examined: a configuration, and the names that are to be validated |
//! | `daemon.rs` | whether the gate runs, and with which configuration |
//! | `dns/` | what the world is told about the names |
//! | `outlook.rs` | what would be a better way |
//! | `finding.rs` `letter.rs` | what was found, and how it is told |
//! | `firewall.rs` | the live ruleset, examined by the two below |
//! | `reading/` | the live ruleset, read and judged without a packet |
//! | `path.rs` | what became of a packet, by the kernel's own word |
//! | `namespaces.rs` | networks to throw away |
//! | `probe/` | vantage points in other networks fetch a random token |
//! | `twin/` | the live ruleset in such a network, and packets that are sent to it |
//! | `listener.rs` | who has the ports |
//! | `unit.rs` | what the service manager hides from the gate |
//! | `timed.rs` | a connection with a deadline |
//! | `sites/` | whether each site's answer is given, tried end to end through the real front |
//! | `sandbox.rs` | whether the daemon's processes are sealed here as they should be |
//! | `staging/` | what makes an ACME client ask for nothing in earnest, and what came of it |

pub mod case;
pub mod daemon;
pub mod dns;
pub mod finding;
pub mod firewall;
pub mod letter;
pub mod listener;
pub mod namespaces;
pub mod outlook;
pub mod path;
pub mod probe;
pub mod reading;
pub mod sandbox;
pub mod sites;
pub mod staging;
mod timed;
pub mod twin;
mod unit;
