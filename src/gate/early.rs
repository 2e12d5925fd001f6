//! Early: when a lease has done what it was opened for, and may end before its time.
//!
//! Two signs, both off by default. *Tokens*: every token that was pushed while the lease lived is
//! withdrawn or expired. *Quorum*: what the CA asks for has been answered to several distinct
//! networks (CA/Browser Forum BR §3.2.2.9 wants every validation seen from several), and nobody
//! asks any more. Both wait for a while in which nothing happens.
//!
//! A lease too many that goes on costs a few minutes of an open window; one too few costs a
//! certificate. So what cannot be told leaves the lease alone: what began before it, more tokens
//! than [`MAX_TOKENS`], a token that a peer may have made up, and, for a lease without identifiers,
//! the company of another lease, whose tokens nobody could tell from its own.
//!
//! Nothing here is kept for each peer: a token remembers no more networks than make a quorum.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::identifier::Identifier;
use super::lease::{Lease, LeaseName};
use super::token::Token;

/// The most tokens of one lease that are followed: an order has 100 names at most.
pub const MAX_TOKENS: usize = 256;
/// The most networks that may be asked for, and that a token remembers.
pub const MAX_QUORUM: u32 = 16;

/// Which signs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None: a lease ends when it is released, when its holder dies, or when its time is over.
    Off,
    /// Its tokens are gone.
    Tokens,
    /// Its tokens are gone, or were answered to a quorum.
    Quorum,
}

/// `[window] close_early` and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which signs count.
    pub when: When,
    /// For how long nothing must happen.
    pub settle: Duration,
    /// How many distinct networks must have had each token, 2 to [`MAX_QUORUM`].
    pub quorum: u32,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            when: When::Off,
            // All perspectives but the first ask at once, and CAs wait seconds for stragglers.
            settle: Duration::from_secs(5),
            // From 2026-06-15 a CA asks from five perspectives or more, and one may fail.
            quorum: 4,
        }
    }
}

/// A network, coarsely: the first 16 bits of an IPv4 address, the first 32 of an IPv6 one, which is
/// about what a registry gives to one operator. Perspectives are 500 km apart, and in different
/// operators' networks or at least in different regions of one; who has one network alone is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    /// The first two octets.
    V4([u8; 2]),
    /// The first four octets.
    V6([u8; 4]),
}

impl Network {
    /// The network of an address. An IPv4-mapped one is the IPv4 that it is.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, ..] = address.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.octets();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b]) => write!(f, "{a}.{b}.0.0/16"),
            Self::V6([a, b, c, d]) => {
                let segment = |high: u8, low: u8| u16::from_be_bytes([high, low]);
                let first = Ipv6Addr::new(segment(*a, *b), segment(*c, *d), 0, 0, 0, 0, 0, 0);
                write!(f, "{first}/32")
            }
        }
    }
}

/// Which sign a lease ends by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The last of its tokens is gone.
    TokensGone,
    /// Each was answered to a quorum of networks.
    Quorum,
}

impl Why {
    /// For the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::TokensGone => "tokens-gone",
            Self::Quorum => "quorum",
        }
    }
}

/// A lease that may end now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its name.
    pub name: LeaseName,
    /// Its deadline: one that was renewed since has another.
    pub deadline: Instant,
    /// By which sign.
    pub why: Why,
}

/// What was seen of every living lease.
#[derive(Debug, Default)]
pub struct Early {
    rule: Rule,
    watched: BTreeMap<LeaseName, Watched>,
}

#[derive(Debug)]
struct Watched {
    deadline: Instant,
    identifiers: Option<Vec<Identifier>>,
    evidence: Evidence,
}

#[derive(Debug, Default)]
struct Evidence {
    tokens: BTreeMap<(Identifier, Token), Seen>,
    last_answer: Option<Instant>,
    /// Somebody may have made up a token that was answered: no quorum means anything.
    is_spoiled: bool,
    /// There were more tokens than are followed, or some that may be another lease's.
    is_lost: bool,
}

/// One token of a lease.
#[derive(Debug, Default)]
struct Seen {
    /// Until when it is answered, if it was pushed; not known of a webroot's or an upstream's.
    until: Option<Instant>,
    /// Who had it, each once, no more than make a quorum.
    networks: Vec<Network>,
}

impl Early {
    /// A book that follows this rule. With another rule it begins anew.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            watched: BTreeMap::new(),
        }
    }

    /// Which leases live. A renewed one begins anew; one without identifiers that was not always alone is
    /// left alone until then.
    pub fn follow<'lease>(&mut self, leases: impl Iterator<Item = &'lease Lease>, now: Instant) {
        if self.rule.when == When::Off {
            return;
        }
        let mut before = std::mem::take(&mut self.watched);
        for lease in leases.filter(|lease| lease.deadline > now) {
            let known = before
                .remove(&lease.name)
                .filter(|watched| watched.deadline == lease.deadline);
            let watched = known.unwrap_or_else(|| Watched {
                deadline: lease.deadline,
                identifiers: lease.scope.identifiers.clone(),
                evidence: Evidence::default(),
            });
            self.watched.insert(lease.name.clone(), watched);
        }
        if self.watched.len() > 1 {
            for watched in self.watched.values_mut() {
                if watched.identifiers.is_none() {
                    watched.evidence = Evidence {
                        is_lost: true,
                        ..Evidence::default()
                    };
                }
            }
        }
    }

    /// A token was pushed, and is answered until `until`.
    pub fn pushed(&mut self, identifier: &Identifier, token: &Token, until: Instant) {
        for evidence in self.evidence_for(identifier) {
            if let Some(seen) = evidence.token(identifier, token) {
                seen.until = Some(until);
            }
        }
    }

    /// A pushed token was withdrawn.
    pub fn withdrawn(&mut self, identifier: &Identifier, token: &Token, now: Instant) {
        let key = (identifier.clone(), token.clone());
        for evidence in self.evidence_for(identifier) {
            if let Some(until) = evidence
                .tokens
                .get_mut(&key)
                .and_then(|seen| seen.until.as_mut())
            {
                *until = now.min(*until);
            }
        }
    }

    /// A token was answered. `is_any` says that its site answers whatever token a peer asks for.
    pub fn answered(
        &mut self,
        identifier: &Identifier,
        token: &Token,
        network: Network,
        is_any: bool,
        now: Instant,
    ) {
        if self.rule.when != When::Quorum {
            return;
        }
        let quorum = self.rule.quorum as usize;
        let key = (identifier.clone(), token.clone());
        for evidence in self.evidence_for(identifier) {
            if is_any && !evidence.tokens.contains_key(&key) {
                evidence.is_spoiled = true;
                continue;
            }
            evidence.last_answer = Some(now);
            if let Some(seen) = evidence.token(identifier, token)
                && seen.networks.len() < quorum
                && !seen.networks.contains(&network)
            {
                seen.networks.push(network);
            }
        }
    }

    /// The leases that may end now. Each is told once, and then begins anew.
    pub fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let rule = self.rule;
        let mut due = Vec::new();
        for (name, watched) in &mut self.watched {
            if let Some((at, why)) = watched.due(rule)
                && at <= now
            {
                watched.evidence = Evidence::default();
                due.push(Due {
                    name: name.clone(),
                    deadline: watched.deadline,
                    why,
                });
            }
        }
        due
    }

    /// When a lease may end next, if nothing happens until then.
    pub fn next(&self) -> Option<Instant> {
        let due = self
            .watched
            .values()
            .filter_map(|watched| watched.due(self.rule));
        due.map(|(at, _)| at).min()
    }

    /// The evidence of every lease that a token of `identifier` is one of.
    fn evidence_for(&mut self, identifier: &Identifier) -> impl Iterator<Item = &mut Evidence> {
        let is_alone = self.watched.len() == 1;
        self.watched
            .values_mut()
            .filter(move |watched| match &watched.identifiers {
                None => is_alone,
                Some(identifiers) => identifiers.contains(identifier),
            })
            .map(|watched| &mut watched.evidence)
    }
}

impl Watched {
    fn due(&self, rule: Rule) -> Option<(Instant, Why)> {
        if self.evidence.is_lost {
            return None;
        }
        let gone = self
            .evidence
            .gone_at()
            .map(|at| (at + rule.settle, Why::TokensGone));
        let quorum = self.quorum_at(rule).map(|at| (at, Why::Quorum));
        gone.into_iter().chain(quorum).min_by_key(|(at, _)| *at)
    }

    /// When a quorum has had all that it is to have, if nothing more is asked.
    fn quorum_at(&self, rule: Rule) -> Option<Instant> {
        let evidence = &self.evidence;
        let has_quorum = |seen: &&Seen| seen.networks.len() >= rule.quorum as usize;
        if rule.when != When::Quorum || evidence.is_spoiled {
            return None;
        }
        let is_proven = |identifier: &Identifier| {
            let mut tokens = evidence.tokens.iter();
            tokens.any(|((own, _), seen)| own == identifier && has_quorum(&seen))
        };
        let are_proven = match &self.identifiers {
            None => evidence.tokens.values().any(|seen| has_quorum(&seen)),
            Some(identifiers) => !identifiers.is_empty() && identifiers.iter().all(is_proven),
        };
        if !are_proven {
            return None;
        }
        let mut at = evidence.last_answer? + rule.settle;
        for lacking in evidence.tokens.values().filter(|seen| !has_quorum(seen)) {
            // A pushed one stops to count when it is gone; of others nobody knows.
            at = at.max(lacking.until?);
        }
        Some(at)
    }
}

impl Evidence {
    /// The place of a token, if there is one.
    fn token(&mut self, identifier: &Identifier, token: &Token) -> Option<&mut Seen> {
        let key = (identifier.clone(), token.clone());
        if self.tokens.len() >= MAX_TOKENS && !self.tokens.contains_key(&key) {
            self.is_lost = true;
            return None;
        }
        Some(self.tokens.entry(key).or_default())
    }

    /// When the last pushed token is gone, if there was one.
    fn gone_at(&self) -> Option<Instant> {
        self.tokens.values().filter_map(|seen| seen.until).max()
    }
}

#[cfg(test)]
mod tests;
