//! One file per behaviour; no privileges, loopback only.

mod answer;
mod config;
mod front;
mod harness;
mod seeds;
mod shipped;
