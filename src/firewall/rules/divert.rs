//! The rules of diverted ports: what the gate gets, and how conntrack is kept out of it.
//!
//! With the gate dead a packet that it would have got goes nowhere, window or not. Nothing here decides
//! which ports are diverted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nlink::netlink::nftables::{
    Family as NftFamily, Field, Item, Match, RuleSpec, SocketKey, Stmt, Value, Verdict,
};

use super::words::{
    doors, doors_by_family, end, is_first, is_not_first, is_unknown, is_whole_socket, rule,
};
use crate::firewall::ruleset::{Divert, Doors, Mode, Settings, Shut};
use crate::gate::lease::Family;

impl Settings {
    pub(super) fn deliver_rules(&self) -> Vec<RuleSpec> {
        let mut rules = self.allowed();
        for Divert { port, to } in &self.divert {
            let is_port = Match::eq(Field::TcpDport, *port);
            for (family, door) in doors_by_family(Doors::Window) {
                let (nft_family, address): (_, IpAddr) = match family {
                    Family::V4 => (NftFamily::Ip, Ipv4Addr::LOCALHOST.into()),
                    Family::V6 => (NftFamily::Ip6, Ipv6Addr::LOCALHOST.into()),
                };
                let tproxy = Stmt::Tproxy {
                    family: nft_family,
                    addr: Some(address),
                    port: Some(*to),
                };
                for which in self.what_a_window_takes() {
                    let matches = [vec![is_port.clone()], door.clone(), which];
                    let then = [tproxy.clone().into(), is_whole_socket().into()];
                    rules.push(rule(matches, then, Verdict::Accept));
                }
            }
        }
        let is_gates = || Match::eq(Field::Socket(SocketKey::Transparent), Value::Bool(true));
        for door in doors(Doors::Grace) {
            let rest = vec![is_not_first(), is_gates()];
            rules.push(rule([door, rest], [], Verdict::Accept));
        }
        // A handshake's first packet come again, which its answer outlives; or, with the gate dead,
        // one to what is left of a connection of the gate's, which would wake whoever else listens.
        rules.push(rule([vec![is_first(), is_gates()]], [], Verdict::Drop));
        if self.passes_when_shut() {
            // What the gate was given and may no longer have.
            let firm = self.firmly();
            rules.extend(firm.shut(&[is_gates()]));
            // Inside a window the gate gets it or nobody: with the gate dead `tproxy` did not match.
            for (family, door) in doors_by_family(Doors::Window) {
                let shut = firm.closed.of(family);
                rules.push(end(shut, [door, vec![is_first()]].concat()));
            }
            // The last packet of a handshake that the gate answered with a cookie is nobody else's.
            for (family, door) in doors_by_family(Doors::Grace) {
                let shut = firm.closed.of(family);
                rules.push(end(
                    shut,
                    [door, vec![is_not_first(), is_unknown()]].concat(),
                ));
            }
        }
        rules.extend(self.shut_what_the_set_opens(&[is_first()]));
        if self.mode == Mode::Guard {
            rules.extend(self.shut(&[]));
        }
        rules
    }

    /// Whether anything but the gate may get what comes outside of windows.
    fn passes_when_shut(&self) -> bool {
        self.mode != Mode::Guard || [self.closed.v4, self.closed.v6].contains(&Shut::Pass)
    }

    /// Connections that went elsewhere outside of windows stay there: one of a container has no socket
    /// here, by which `tproxy` would know it. What conntrack does not know may be the last packet of
    /// a handshake that the gate answered with a cookie.
    fn what_a_window_takes(&self) -> Vec<Vec<Match>> {
        match self.passes_when_shut() {
            true => vec![vec![is_first()], vec![is_not_first(), is_unknown()]],
            false => vec![Vec::new()],
        }
    }

    pub(super) fn bypass_rules(&self) -> Vec<RuleSpec> {
        let mut rules = self.allowed();
        let notrack = || [Item::from(Stmt::Notrack)];
        for door in doors(Doors::Window) {
            // Connections that went elsewhere outside of windows stay with their conntrack.
            let which = match self.passes_when_shut() {
                true => vec![is_first()],
                false => Vec::new(),
            };
            rules.push(rule([door, which], notrack(), Verdict::Accept));
        }
        let is_gates = Match::eq(Field::Socket(SocketKey::Transparent), Value::Bool(true));
        rules.push(rule([vec![is_gates]], notrack(), Verdict::Accept));
        rules
    }

    /// Of a connection that was not tracked when it came, an answer would be a new one: given
    /// another address by who masquerades, or called invalid.
    pub(super) fn answers_rules(&self) -> Vec<RuleSpec> {
        let ports = self.divert.iter().map(|divert| {
            let is_gates = Match::eq(Field::Socket(SocketKey::Transparent), Value::Bool(true));
            let matches = vec![Match::eq(Field::TcpSport, divert.port), is_gates];
            rule([matches], [Item::from(Stmt::Notrack)], Verdict::Accept)
        });
        ports.collect()
    }
}
