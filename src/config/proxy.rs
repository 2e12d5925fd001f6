//! `[proxy]`: whose word is taken for whom a connection or a request is for.

use ipnet::IpNet;
use toml::Spanned;

use super::error::Problem;
use super::file::{self, Key, Section};
use super::{Proxy, prefix};

/// Checks `[proxy]`.
pub(super) fn proxy(section: &Section<file::Proxy>, problems: &mut Vec<Problem>) -> Proxy {
    Proxy {
        protocol_from: prefixes(&section.keys.protocol_from, problems),
        headers_from: prefixes(&section.keys.headers_from, problems),
    }
}

fn prefixes(entries: &Key<Vec<Spanned<String>>>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    for entry in entries.iter().flat_map(Spanned::get_ref) {
        match prefix::parse(entry.get_ref()) {
            Ok(prefix) if prefix.prefix_len() == 0 => problems.push(
                Problem::new(entry.span(), format!("`{prefix}` is everybody"))
                    .fix("name the balancers' own addresses")
                    .note("whoever is in this list says who the peer is, and is believed"),
            ),
            Ok(prefix) => prefixes.push(prefix),
            Err((message, fix)) => problems.push(Problem::new(entry.span(), message).fix(fix)),
        }
    }
    prefixes
}
