//! The front, by raw bytes over loopback.

mod balanced;
mod balanced_tls;
mod closing;
mod forwarded;
mod limits;
mod mutations;
mod redirect_for;
mod reload;
mod shortage;
mod strictness;
mod tls;
mod tls_limits;
mod told;
mod windows;
