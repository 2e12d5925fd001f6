//! A real CA and real clients, with acmegate between them, in namespaces and without privileges.

#[path = "../lab/mod.rs"]
mod lab;

mod harness;
