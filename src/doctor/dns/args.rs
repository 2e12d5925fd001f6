//! What the command line adds to `[dns]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use crate::config::Dns;

/// Options of the exam of the DNS. What is given takes the place of the configuration's.
#[derive(Clone, Debug, Default, Args)]
pub struct DnsArgs {
    /// Ask this resolver, instead of [dns] resolvers; may stand more than once
    #[arg(long = "resolver", value_name = "ADDRESS", value_parser = Dns::resolver)]
    resolvers: Vec<SocketAddr>,
    /// DNSKEY records of the root to trust, instead of [dns] trust_anchor
    #[arg(long, value_name = "FILE")]
    trust_anchor: Option<PathBuf>,
    /// An address by which the world reaches this host, besides its own and [dns] public
    #[arg(long, value_name = "ADDRESS", value_parser = Dns::public)]
    public: Vec<IpAddr>,
    /// The CA that issues, as CAA records name it, instead of [dns] issuers
    #[arg(long = "ca", value_name = "NAME", value_parser = Dns::issuer)]
    issuers: Vec<String>,
    /// The URL of the ACME account that asks, instead of [dns] accounts
    #[arg(long = "account", value_name = "URL", value_parser = Dns::account)]
    accounts: Vec<String>,
}

impl DnsArgs {
    /// The configuration's section with these options.
    pub fn over(&self, configured: &Dns) -> Dns {
        let mut dns = configured.clone();
        let given = self.clone();
        if !given.resolvers.is_empty() {
            dns.resolvers = given.resolvers;
        }
        if given.trust_anchor.is_some() {
            dns.trust_anchor = given.trust_anchor;
        }
        if !given.issuers.is_empty() {
            dns.issuers = given.issuers;
        }
        if !given.accounts.is_empty() {
            dns.accounts = given.accounts;
        }
        dns.public.extend(given.public);
        dns
    }
}
