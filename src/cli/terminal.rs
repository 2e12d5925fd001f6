//! What all subcommands print alike.

use std::time::Duration;

use crate::config::format_duration;
pub use crate::observe::report::escape::plain;

/// A length for people: whole seconds, for nobody waits for the rest.
pub fn seconds(milliseconds: u64) -> String {
    format_duration(Duration::from_secs(milliseconds.div_ceil(1000))).to_string()
}
