//! acmegate beside the firewall managers that people really run, each reloaded in the middle of
//! validations, and packets of both families from outside as the only witness.

mod divert;
mod docker;
mod firewalld;
mod geo;
mod legacy;
mod life;
mod openwrt;
pub mod own;
mod owned;
mod plain;
mod two;
mod ufw;
mod validations;
