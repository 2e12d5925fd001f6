//! A record that is not complete yet: what it takes down, and what it makes of it when it is told.
//!
//! Whether an event is its matter the [book](super) decides by port, family and time; who of too many keeps a
//! place is in [`places`](super::places).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::places::{ANSWERED, ASKED, CAME, make_room, place_of};
use crate::gate::challenge::ChallengeType;
use crate::gate::event::{Ended, Sight, Sighting, Tally};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Entrance, Family, Lease, LeaseName};
use crate::gate::token::Token;
use crate::gate::window::GRACE;
use crate::observe::pairing::pair;
use crate::observe::quorum::assess;
use crate::observe::record::{
    Dropped, End, EndedBy, Evidence, MAX_NAMED, MAX_OTHER_VISITS, MAX_RECORDED_PORTS,
    MAX_VALIDATIONS, Record, Role, VERSION, Visit, Why,
};

/// How many tokens one record knows.
pub(super) const MAX_TOKENS: usize = 512;
/// How long after a window's end what the kernel counted may still come in.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How exactly it is known when somebody's last packet came: the kernel's ticks, a reading, and the way here.
pub(super) const BLUR: Duration = Duration::from_millis(250);
/// Why nobody can say that a record has everything that the kernel saw.
pub(super) const RESTARTED: &str =
    "acmegate was started anew while it was open, and who came before may be missing";

/// A record that is not complete yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) name: LeaseName,
    pub(super) record: Record,
    pub(super) opened: Instant,
    pub(super) deadline: Instant,
    pub(super) ended: Option<Instant>,
    pub(super) families: Vec<Family>,
    pub(super) identifiers: Option<Vec<Identifier>>,
    /// Tokens of this window, by their short hashes: pushed while it was open, or answered.
    pub(super) tokens: BTreeSet<String>,
    pub(super) validations: usize,
    /// What the kernel had counted at the opening.
    tally: Tally,
    /// What it had counted before this process began.
    before: Evidence,
    pub(super) is_changed: bool,
    /// Something of it was handed on already.
    pub(super) has_draft: bool,
}

impl Open {
    /// A window of this lease that opened at this moment, by the steady clock and by the host's, in milliseconds
    /// after 1970; beside these other leases, when the kernel had counted this.
    pub(super) fn new(
        id: u64,
        lease: &Lease,
        why: Why,
        beside: Vec<String>,
        tally: &Tally,
        (opened, opened_at): (Instant, u64),
    ) -> Self {
        let mut open = Self {
            id,
            name: lease.name.clone(),
            record: Record {
                version: VERSION,
                lease: lease.name.to_string(),
                caller: lease.caller,
                holder: (lease.holder.as_ref())
                    .map(|holder| format!("{} (pid {})", holder.command, holder.pid)),
                why,
                opened_at,
                beside,
                evidence: Evidence {
                    is_kept: tally.is_kept,
                    ..Evidence::default()
                },
                ..Record::default()
            },
            opened,
            deadline: lease.deadline,
            ended: None,
            families: Vec::new(),
            identifiers: None,
            tokens: BTreeSet::new(),
            validations: 0,
            tally: tally.clone(),
            before: Evidence::default(),
            is_changed: true,
            has_draft: false,
        };
        open.follow(lease);
        open
    }

    /// Goes on where the history left it, in a new run of the daemon.
    pub(super) fn take_up(&mut self, stored: Option<Record>, now: Instant, wall: u64) {
        self.record.evidence.incomplete = Some(RESTARTED.to_owned());
        let Some(stored) = stored else { return };
        self.before = Evidence {
            incomplete: None,
            ..stored.evidence.clone()
        };
        let since = Duration::from_millis(wall.saturating_sub(stored.opened_at));
        // A clock that was set meanwhile must not make a window older than the host is.
        self.opened = now.checked_sub(since).unwrap_or(now);
        self.record = Record {
            end: None,
            renewals: stored.renewals,
            evidence: Evidence {
                incomplete: Some(RESTARTED.to_owned()),
                ..stored.evidence
            },
            ..stored
        };
        let visits = (self.record.sources.iter()).flat_map(|source| &source.visits);
        let (answers, others): (Vec<&Visit>, Vec<&Visit>) = visits
            .filter(|visit| visit.challenge.is_some())
            .partition(|visit| visit.is_answer());
        self.validations = answers.len() + others.len();
        let tokens = answers.into_iter().filter_map(|visit| visit.token.clone());
        self.tokens = tokens.take(MAX_TOKENS).collect();
    }

    /// Takes over what a lease opens, which a renewal may change.
    pub(super) fn follow(&mut self, lease: &Lease) {
        let scope = &lease.scope;
        self.families = (Family::ALL.into_iter())
            .filter(|family| scope.families.has(*family) && scope.entrance.is_of(*family))
            .collect();
        self.identifiers.clone_from(&scope.identifiers);
        self.deadline = lease.deadline;
        let record = &mut self.record;
        for port in &scope.ports {
            if !record.ports.contains(port) && record.ports.len() < MAX_RECORDED_PORTS {
                record.ports.push(*port);
            }
        }
        record.ports.sort_unstable();
        record.families = (self.families.iter())
            .map(|family| family.word().to_owned())
            .collect();
        record.entrance = match &scope.entrance {
            Entrance::Any => None,
            entrance => Some(entrance.to_string()),
        };
        record.identifiers = (scope.identifiers.as_ref()).map(|names| {
            names
                .iter()
                .take(MAX_NAMED)
                .map(ToString::to_string)
                .collect()
        });
        record.deadline = millis(lease.deadline.saturating_duration_since(self.opened));
        self.is_changed = true;
    }

    pub(super) fn end(&mut self, by: EndedBy, now: Instant) {
        let late = now.saturating_duration_since(self.deadline);
        self.ended = Some(now);
        self.record.end = Some(End {
            by,
            at: self.offset(now),
            late: millis(late),
        });
        self.is_changed = true;
    }

    fn offset(&self, instant: Instant) -> u64 {
        millis(instant.saturating_duration_since(self.opened))
    }

    pub(super) fn know(&mut self, token: String) {
        if self.tokens.len() < MAX_TOKENS {
            self.tokens.insert(token);
        }
    }

    pub(super) fn visited(&mut self, event: &Ended<'_>, now: Instant) {
        let at = self.offset(event.accepted);
        let visit = Visit {
            at,
            port: event.local_port,
            verdict: event.reason.verdict().to_string(),
            reason: event.reason.word().to_owned(),
            challenge: event.challenge.as_ref().map(ChallengeType::to_string),
            identifier: event.identifier.map(ToString::to_string),
            token: event.token.map(hash),
            status: event.status,
            octets: event.octets,
            took: micros(now.saturating_duration_since(event.accepted)),
            detail: event.detail.map(str::to_owned),
        };
        let is_validation = visit.challenge.is_some();
        if visit.is_answer()
            && let Some(token) = &visit.token
        {
            self.know(token.clone());
        }
        let is_answer = visit.is_answer();
        let own = match (is_answer, is_validation) {
            (true, _) => ANSWERED,
            (false, true) => ASKED,
            (false, false) => CAME,
        };
        if place_of(&mut self.record, &mut self.validations, event.peer, at, own).is_none() {
            self.is_changed = true;
            return;
        }
        if is_validation && self.validations >= MAX_VALIDATIONS {
            make_room(
                &mut self.record,
                &mut self.validations,
                event.peer,
                is_answer,
            );
        }
        let is_full = self.validations >= MAX_VALIDATIONS;
        let place = place_of(&mut self.record, &mut self.validations, event.peer, at, own);
        let Some(source) = place else {
            return;
        };
        source.reached = true;
        // What came of a trace before does not hold any more.
        source.dropped = None;
        let others = (source.visits.iter()).filter(|visit| visit.challenge.is_none());
        let fits = match is_validation {
            true => !is_full,
            false => others.count() < MAX_OTHER_VISITS,
        };
        match fits {
            true => source.visits.push(visit),
            false => source.more_visits += 1,
        }
        self.validations += usize::from(is_validation && fits);
        self.is_changed = true;
    }

    /// Whether what was seen may have come while this was open: what came before or afterwards is another
    /// window's, which may have opened a moment ago.
    pub(super) fn is_of_its_time(&self, sighting: &Sighting, now: Instant) -> bool {
        if let Sight::Seen { ago, .. } = sighting.sight {
            // When the last packet came is not known more exactly.
            let (earliest, latest) = (now + BLUR, now.checked_sub(ago + BLUR));
            return earliest >= self.opened + ago
                && (self.ended).is_none_or(|ended| latest.is_none_or(|latest| latest <= ended));
        }
        // What became of its packets is found out later; but only of who came here.
        let mut sources = self.record.sources.iter();
        self.ended.is_none_or(|ended| {
            now <= ended + GRACE && sources.any(|source| source.address == sighting.source)
        })
    }

    pub(super) fn sighted(&mut self, sighting: &Sighting, now: Instant) {
        let first = match &sighting.sight {
            Sight::Seen { ago, .. } => self.offset(now).saturating_sub(millis(*ago)),
            _ => self.offset(now),
        };
        let place = place_of(
            &mut self.record,
            &mut self.validations,
            sighting.source,
            first,
            CAME,
        );
        let Some(source) = place else {
            self.is_changed = true;
            return;
        };
        match &sighting.sight {
            Sight::Seen { packets, .. } => source.packets = source.packets.max(*packets),
            Sight::Reached => source.reached = true,
            Sight::Dropped { table, chain, rule } => {
                source.dropped = Some(Dropped {
                    table: table.clone(),
                    chain: chain.clone(),
                    rule: rule.clone(),
                });
            }
        }
        self.is_changed = true;
    }

    pub(super) fn tallied(&mut self, tally: &Tally, now: Instant) {
        // The last look comes with the end; what is counted later is another window's.
        if self.ended.is_some_and(|ended| now > ended + LAST_LOOK) {
            return;
        }
        let (since, before) = (&self.tally, &self.before);
        let counted =
            |before: u64, now: u64, then: u64| before.saturating_add(now.saturating_sub(then));
        let evidence = Evidence {
            is_kept: tally.is_kept,
            packets: counted(before.packets, tally.packets, since.packets),
            seen: counted(before.seen, tally.seen, since.seen),
            reached: counted(before.reached, tally.reached, since.reached),
            incomplete: tally
                .incomplete
                .clone()
                .or(self.record.evidence.incomplete.take()),
        };
        self.is_changed |= evidence != self.record.evidence;
        self.record.evidence = evidence;
    }

    /// The record as it is told: who came for what, who came twice, and what it comes to.
    pub(super) fn settled(&self) -> Record {
        let mut record = self.record.clone();
        // Where some token of an identifier was answered, or announced, others are nonsense.
        let known: BTreeSet<(&str, bool)> = (record.sources.iter())
            .flat_map(|source| &source.visits)
            .filter_map(|visit| Some((visit.identifier.as_deref()?, self.knows(visit))))
            .collect();
        let named: BTreeSet<String> = (known.iter())
            .filter(|(_, is_known)| *is_known)
            .map(|(name, _)| (*name).to_owned())
            .collect();
        // Whoever opened it for some names asked for no validation of others.
        let own: Option<BTreeSet<String>> = (self.identifiers.as_ref())
            .map(|names| names.iter().map(Identifier::to_string).collect());
        for source in &mut record.sources {
            let is_validator = source.visits.iter().any(|visit| {
                let name = visit.identifier.as_deref();
                let is_own = name.is_none_or(|name| {
                    own.as_ref().is_none_or(|own| own.contains(name)) || visit.is_answer()
                });
                let is_named = name.is_some_and(|name| named.contains(name));
                let is_known = visit.token.is_none() || self.knows(visit);
                visit.challenge.is_some() && is_own && (is_known || !is_named)
            });
            source.role = match (is_validator, source.visits.is_empty()) {
                (true, _) => Role::Validator,
                (false, true) => Role::Unheard,
                (false, false) => Role::Visitor,
            };
        }
        judge(&mut record);
        record
    }

    fn knows(&self, visit: &Visit) -> bool {
        (visit.token.as_ref()).is_some_and(|token| self.tokens.contains(token))
    }
}

/// Says what a record comes to, by all that is in it: where sources are may have been learnt since.
pub fn judge(record: &mut Record) {
    record.sources.sort_by_key(|source| source.first);
    pair(&mut record.sources);
    record.assessment = assess(record);
}

/// The first 8 hexadecimal digits of a token's SHA-256 digest: enough to tell tokens of one window
/// apart, and no help to whoever wants one.
pub(super) fn hash(token: &Token) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_str().as_bytes());
    let first = digest.as_ref().iter().take(4);
    first.map(|octet| format!("{octet:02x}")).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
