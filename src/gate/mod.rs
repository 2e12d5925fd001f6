//! Decides: may this peer reach a challenge responder now, and why?

pub mod identifier;
pub mod token;
