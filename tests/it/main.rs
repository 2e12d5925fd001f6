//! One file per behaviour; no privileges, loopback only.

mod allow_lists;
mod answer;
mod client_hello;
mod config;
mod daemon;
mod dns_persist;
mod doctor;
mod documents;
mod explain_config;
mod front;
mod harness;
mod history;
mod hooks;
mod install_hooks;
#[path = "../lab/mod.rs"]
mod lab;
mod manual;
mod metrics;
mod output;
mod report;
mod schema;
mod seeds;
mod shipped;
mod tls_alpn;
mod watch;
