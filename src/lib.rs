//! acmegate: a firewall-side gatekeeper for ACME validation.
#![forbid(unsafe_code)]

pub mod firewall;
pub mod gate;
