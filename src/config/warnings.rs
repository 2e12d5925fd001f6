//! What a configuration may say, but perhaps does not mean.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{Config, Mode, Source};
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
        let challenge = ChallengeType::Http01;
        if !ports.is_empty() && !ports.contains(&challenge.port()) {
            warnings.push(format!(
                "[firewall] ports do not hold {}: {challenge} comes to that port alone, unless something in front forwards it",
                challenge.port(),
            ));
        }
        if self.http.divert.is_some() {
            for port in ports.iter().filter(|port| **port != challenge.port()) {
                warnings.push(format!(
                    "[firewall] ports hold {port}: a window that opens it hands everybody off the allow-list who comes there to the gate, which answers {challenge} alone",
                ));
            }
            return;
        }
        let listened: BTreeSet<u16> = self.http.listen.iter().map(SocketAddr::port).collect();
        for port in listened.iter().filter(|port| !ports.contains(port)) {
            if self.firewall.mode != Mode::GateOnly && *port != 0 {
                warnings.push(format!(
                    "port {port} of [http] listen is not in [firewall] ports: no window opens it, so only the allow-list is served there",
                ));
            }
        }
    }
}
