//! `[dns]`: whom the doctor asks, what leads to this host, and what the world is meant to be told.
//!
//! Nothing but the doctor reads it: the gate looks no name up.

use std::net::{IpAddr, SocketAddr};

use toml::Spanned;

use super::Dns;
use super::error::Problem;
use super::file::{self, Key, Section};
use super::value::directory;
use crate::gate::identifier::{DnsName, Identifier, Pattern};

/// The port of a resolver that names none (RFC 1035 §4.2).
const PORT: u16 = 53;
/// Each is waited for in turn; libc asks three.
const MAX_RESOLVERS: usize = 4;
/// What a host, or a client, may have of anything else here.
const MAX_ENTRIES: usize = 100;
/// What fits into a CAA record beside the rest.
const MAX_ACCOUNT_BYTES: usize = 1024;

impl Dns {
    /// Reads a resolver: an address, perhaps with a port.
    ///
    /// # Errors
    /// What to write.
    pub fn resolver(text: &str) -> Result<SocketAddr, &'static str> {
        let address = match text.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, PORT),
            Err(_) => text
                .parse()
                .map_err(|_| "write an address: \"192.0.2.53\", or \"[2001:db8::53]:5353\"")?,
        };
        match address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            true => Err("write the resolver's own address"),
            false => Ok(address),
        }
    }

    /// Reads an address that the world reaches this host by.
    ///
    /// # Errors
    /// What to write.
    pub fn public(text: &str) -> Result<IpAddr, &'static str> {
        match text.parse::<IpAddr>() {
            Ok(address)
                if !(address.is_unspecified()
                    || address.is_loopback()
                    || address.is_multicast()) =>
            {
                Ok(address.to_canonical())
            }
            Ok(_) => Err("write the address that the world knows"),
            Err(_) => Err("write an address: \"203.0.113.7\""),
        }
    }

    /// Reads a CA's name as it stands in CAA records.
    ///
    /// # Errors
    /// What to write.
    pub fn issuer(text: &str) -> Result<String, &'static str> {
        DnsName::parse(text)
            .map(|name| name.as_str().to_owned())
            .map_err(|_| "write the CA's name in CAA records: \"letsencrypt.org\"")
    }

    /// Reads an ACME account's URI.
    ///
    /// # Errors
    /// What to write.
    pub fn account(text: &str) -> Result<String, &'static str> {
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b';');
        let is_uri = text.starts_with("https://") || text.starts_with("http://");
        match is_plain && is_uri && text.len() <= MAX_ACCOUNT_BYTES {
            true => Ok(text.to_owned()),
            false => Err(
                "write the account's URL: \"https://acme-v02.api.letsencrypt.org/acme/acct/1234\"",
            ),
        }
    }

    /// Reads a name whose dns-persist-01 record is expected.
    fn persisting(text: &str) -> Result<Pattern, &'static str> {
        match Pattern::parse(text) {
            Ok(Pattern::Exact(Identifier::Ip(_))) => Err("only names have such a record"),
            Ok(pattern) => Ok(pattern),
            Err(_) => Err("write a name: \"example.com\", or \"*.example.com\""),
        }
    }
}

/// Checks `[dns]`.
pub(super) fn dns(section: &Section<file::Dns>, problems: &mut Vec<Problem>) -> Dns {
    let keys = &section.keys;
    let mut list = Lists { problems };
    Dns {
        resolvers: list.read(&keys.resolvers, "resolver", MAX_RESOLVERS, Dns::resolver),
        public: list.read(&keys.public, "public address", MAX_ENTRIES, Dns::public),
        issuers: list.read(&keys.issuers, "issuer", MAX_ENTRIES, Dns::issuer),
        accounts: list.read(&keys.accounts, "account's URL", MAX_ENTRIES, Dns::account),
        persist: list.read(&keys.persist, "name", MAX_ENTRIES, Dns::persisting),
        trust_anchor: keys
            .trust_anchor
            .as_ref()
            .map(|path| directory(path, "trust_anchor", problems)),
    }
}

struct Lists<'problems> {
    problems: &'problems mut Vec<Problem>,
}

impl Lists<'_> {
    fn read<T>(
        &mut self,
        key: &Key<Vec<Spanned<String>>>,
        what: &str,
        most: usize,
        parse: fn(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let Some(key) = key else {
            return Vec::new();
        };
        if key.get_ref().len() > most {
            let message = format!("{} entries", key.get_ref().len());
            let problem = Problem::new(key.span(), message);
            self.problems
                .push(problem.fix(format!("write {most} at most")));
        }
        let mut read = Vec::new();
        for entry in key.get_ref() {
            match parse(entry.get_ref()) {
                Ok(value) => read.push(value),
                Err(fix) => {
                    let message = format!("`{}` is no {what}", entry.get_ref());
                    self.problems
                        .push(Problem::new(entry.span(), message).fix(fix));
                }
            }
        }
        read
    }
}
