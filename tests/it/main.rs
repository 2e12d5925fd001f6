//! One file per behaviour; no privileges, loopback only.

mod config;
