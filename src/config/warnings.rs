//! What a configuration may say, but perhaps does not mean.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{Config, Mode, Proxy, Source};
use crate::gate::allow_list::AllowList;
use crate::gate::challenge::ChallengeType;
use crate::gate::command::Blank;
use crate::gate::usage::Span;

/// Validators of one CA may come by one address, when the peer is seen behind a NAT; about this
/// many at once must pass.
const USUAL_PARALLEL: u32 = 100;

impl Config {
    /// What is allowed but perhaps not meant, with the allow-list that `[allow]` led to: a sentence
    /// each, for `config check`. Nothing here stops acmegate from starting.
    pub fn warnings(&self, allow: &AllowList) -> Vec<String> {
        let mut warnings = Vec::new();
        self.warn_of_allow_list(allow, &mut warnings);
        self.warn_of_proxies(allow, &mut warnings);
        self.warn_of_ports(&mut warnings);
        self.warn_of_commands(&mut warnings);
        if matches!(self.daemon.user.as_str(), "root" | "0") {
            warnings.push(
                "[daemon] user is root: the process that reads the Internet's bytes would keep every file of this host within reach; name an account of its own".to_owned(),
            );
        }
        if self.http.max_connections_per_source < USUAL_PARALLEL {
            warnings.push(format!(
                "[http] max_connections_per_source is {}: a CA that validates many names at once may open {USUAL_PARALLEL} connections",
                self.http.max_connections_per_source,
            ));
        }
        self.warn_of_budget(&mut warnings);
        for site in &self.sites {
            if matches!(site.source, Source::Upstream(_)) && site.gate.accounts.is_empty() {
                let name = site.gate.identifiers.first();
                let name = name.map_or_else(|| "the default site".to_owned(), ToString::to_string);
                warnings.push(format!(
                    "{name}: whatever ACME account the upstream answers for is passed on; name the right ones in `accounts` (`acmegate status` shows those that were seen)",
                ));
            }
        }
        warnings
    }

    fn warn_of_budget(&self, warnings: &mut Vec<String>) {
        let time = self.budget.time;
        for (name, allowance) in [
            ("", time.total),
            ("lease_", time.lease),
            ("identifier_", time.identifier),
        ] {
            for span in Span::ALL {
                if allowance
                    .of(span)
                    .is_some_and(|limit| limit < self.window.max)
                {
                    warnings.push(format!(
                        "[budget] {name}{} is shorter than [window] max: `acmegate open` without --for is always refused",
                        span.word(),
                    ));
                }
            }
        }
    }

    fn warn_of_allow_list(&self, list: &AllowList, warnings: &mut Vec<String>) {
        for group in &self.allow.unused_groups {
            warnings.push(format!(
                "[group.{group}] is not on the allow-list: name it in [allow] groups",
            ));
        }
        let allow = &self.allow;
        let names_countries = [&allow.listed, &allow.taken_off]
            .iter()
            .any(|named| !named.countries.is_empty());
        if !allow.country_source.is_empty() && !names_countries {
            warnings.push(
                "[allow] country_source without countries: nothing is read from it".to_owned(),
            );
        }
        if self.firewall.mode == Mode::GateOnly {
            return;
        }
        let all_v4 = list.v4().as_slice() == [(0, u32::MAX)];
        let all_v6 = list.v6().as_slice() == [(0, u128::MAX)];
        let who = match (all_v4, all_v6) {
            (true, true) => "the whole Internet",
            (true, false) => "every IPv4 address",
            (false, true) => "every IPv6 address",
            (false, false) => return,
        };
        warnings.push(format!(
            "[allow] holds {who}: the ports are open to them at all times, window or not",
        ));
    }

    fn warn_of_proxies(&self, list: &AllowList, warnings: &mut Vec<String>) {
        let Proxy {
            protocol_from,
            headers_from,
        } = &self.proxy;
        for prefix in protocol_from {
            let overlaps = |other: &&IpNet| other.contains(prefix) || prefix.contains(*other);
            if let Some(other) = headers_from.iter().find(overlaps) {
                warnings.push(format!(
                    "[proxy] {prefix} of protocol_from is in headers_from too ({other}): its connections must begin with a header, and the fields of their requests are believed only where that header names no other peer",
                ));
            }
        }
        if self.firewall.mode == Mode::GateOnly {
            return;
        }
        let http = (!self.http.listen.is_empty(), self.http.divert.is_some());
        let tls = (!self.tls.listen.is_empty(), self.tls.divert.is_some());
        let lists = [
            ("protocol_from", protocol_from, &[http, tls][..]),
            ("headers_from", headers_from, &[http]),
        ];
        for (key, prefixes, listeners) in lists {
            let is_diverted = listeners.contains(&(true, true));
            let is_plain = listeners.contains(&(true, false));
            for prefix in prefixes {
                let is_allowed =
                    list.contains(prefix.network()) && list.contains(prefix.broadcast());
                if !is_allowed && is_plain {
                    warnings.push(format!(
                        "[proxy] {key}: {prefix} is not on the allow-list: outside of windows the kernel shuts it out, whomever it speaks for",
                    ));
                }
                if is_allowed && is_diverted && !is_plain {
                    warnings.push(format!(
                        "[proxy] {key}: {prefix} is on the allow-list, which listen = \"divert\" does not hand to the gate: what it tells is not read",
                    ));
                }
            }
        }
    }

    fn warn_of_commands(&self, warnings: &mut Vec<String>) {
        let Some(commands) = &self.firewall.commands else {
            return;
        };
        match (&commands.open, &commands.close) {
            (Some(open), None) if !open.has(Blank::Seconds) => warnings.push(
                "[firewall] open_command has no {seconds} and there is no close_command: nothing ever closes what it opens".to_owned(),
            ),
            (Some(open), Some(_)) if !open.has(Blank::Seconds) => warnings.push(
                "[firewall] open_command has no {seconds}: while acmegate is down nothing closes what it opened; give it a time of its own if the program has one".to_owned(),
            ),
            (None, _) => warnings.push(
                "[firewall] close_command without an open_command: nothing is opened by a command".to_owned(),
            ),
            _ => {}
        }
    }

    fn warn_of_ports(&self, warnings: &mut Vec<String>) {
        let ports = &self.firewall.ports;
        let of_http = ChallengeType::Http01.port();
        let speaks_http = !self.http.listen.is_empty() || self.tls.listen.is_empty();
        if !ports.is_empty() && !ports.contains(&of_http) && speaks_http {
            warnings.push(format!(
                "[firewall] ports do not hold {of_http}: {} comes to that port alone, unless something in front forwards it",
                ChallengeType::Http01,
            ));
        }
        let own = [
            ("http", &self.http.listen, self.http.divert),
            ("tls", &self.tls.listen, self.tls.divert),
        ];
        for (name, listen, divert) in own {
            let listened: BTreeSet<u16> = listen.iter().map(SocketAddr::port).collect();
            for port in listened.iter().filter(|port| !ports.contains(port)) {
                if self.firewall.mode != Mode::GateOnly && *port != 0 && divert.is_none() {
                    warnings.push(format!(
                        "port {port} of [{name}] listen is not in [firewall] ports: no window opens it, so only the allow-list is served there",
                    ));
                }
            }
        }
        if let Some(to) = self.http.divert {
            let diverted = self.diverted().into_iter();
            for (port, _) in diverted.filter(|own| own.1 == to && own.0 != of_http) {
                warnings.push(format!(
                    "[firewall] ports hold {port}: a window that opens it hands everybody off the allow-list who comes there to the gate, which answers {} alone",
                    ChallengeType::Http01,
                ));
            }
        }
        self.warn_of_tls(warnings);
    }

    fn warn_of_tls(&self, warnings: &mut Vec<String>) {
        let challenge = ChallengeType::TlsAlpn01;
        let (tls, port) = (&self.tls, challenge.port());
        let guarded = self.firewall.ports.contains(&port);
        if tls.listen.is_empty() {
            let mut sites = self.sites.iter();
            if sites.any(|site| site.challenges.contains(&challenge)) {
                warnings.push(format!(
                    "a site has {challenge} among its challenges and [tls] does not listen: nothing answers it here",
                ));
            }
            if guarded && self.http.divert.is_none() && self.firewall.mode != Mode::GateOnly {
                warnings.push(format!(
                    "[firewall] ports hold {port} and [tls] does not listen: a window that opens it shows whatever listens there to the whole world; [tls] listen = \"divert\" lets {challenge} through and nothing else",
                ));
            }
            return;
        }
        if tls.divert.is_some() {
            if !guarded {
                warnings.push(format!(
                    "[firewall] ports do not hold {port}: [tls] listen = \"divert\" gets nobody",
                ));
            }
            return;
        }
        warnings.push(
            "[tls] listens itself, so visitors of the sites pass through acmegate: while it is down they reach nothing there; with listen = \"divert\" they never meet it".to_owned(),
        );
        if tls.server.is_none() && self.sites.iter().all(|site| site.server.is_none()) {
            warnings.push(
                "[tls] has no server, nor has a site: visitors from the allow-list are led nowhere; name one, such as server = \"127.0.0.1:8443\"".to_owned(),
            );
        }
    }
}
