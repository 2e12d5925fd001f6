//! Obeys: hooks and operators, by their credentials; and tells the status to whoever asks.
//!
//! Two sockets: `control.sock` hears requests and acts, `observe.sock` reads nothing from its
//! caller. What a caller may do is the gate's table (`gate::caller`); what is done is the daemon's.

pub mod client;
pub mod protocol;
pub mod server;
pub mod status;
pub mod under;
