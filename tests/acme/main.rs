//! A real CA and real clients, with acmegate between them, in namespaces and without privileges.

#[path = "../lab/mod.rs"]
mod lab;

mod accounts;
mod certbot;
mod dehydrated;
mod doctor;
mod early;
mod exec;
mod harness;
mod inner_host;
mod installed;
mod ip_identifier;
mod lego;
mod manual_hooks;
mod mod_md;
mod report;
mod sabotaged;
mod tls_alpn;
mod webroot;
mod without_hooks;
mod world;
