//! A real CA and real clients, with acmegate between them, in namespaces and without privileges.

#[path = "../lab/mod.rs"]
mod lab;

mod accounts;
mod certbot;
mod exec;
mod harness;
mod inner_host;
mod ip_identifier;
mod manual_hooks;
mod other_clients;
mod webroot;
mod without_hooks;
mod world;
