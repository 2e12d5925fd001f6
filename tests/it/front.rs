//! The front, by raw bytes over loopback.

mod closing;
mod limits;
mod mutations;
mod reload;
mod shortage;
mod strictness;
mod tls;
mod windows;
