//! The book of records: windows that are open, and those that ended a moment ago.
//!
//! It is told what happens and writes it down; it decides nothing, reads no clock and does no I/O.
//! Everything in it is bounded, whatever peers do: who is left out is counted, and whoever asked for a
//! validation takes the place of who did not.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::pairing::pair;
use super::quorum::assess;
use super::record::{
    Dropped, End, EndedBy, Evidence, MAX_NAMED, MAX_OTHER_VISITS, MAX_RECORDED_PORTS, MAX_SOURCES,
    MAX_VALIDATIONS, Place, Record, Role, Said, Source, VERSION, Visit, Why,
};
use crate::gate::challenge::ChallengeType;
use crate::gate::early::Network;
use crate::gate::event::{Ended, Evidence as Seen, Sight, Sighting, Tally};
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Entrance, Family, Lease, LeaseName};
use crate::gate::token::Token;
use crate::gate::window::GRACE;

/// How many leases beside its own one record names.
const MAX_BESIDE: usize = 64;
/// How many tokens one record knows.
const MAX_TOKENS: usize = 512;
/// How long a record is kept open after its window's end: what was admitted may go on for its grace.
const SETTLE: Duration = Duration::from_secs(GRACE.as_secs() + 1);
/// How long after a window's end what the kernel counted may still come in.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How exactly it is known when somebody's last packet came: the kernel's ticks, a reading, and the way here.
const BLUR: Duration = Duration::from_millis(250);
/// How many records are kept that ended.
const MAX_RECENT: usize = 16;
/// Why nobody can say that a record has everything that the kernel saw.
const RESTARTED: &str =
    "acmegate was started anew while it was open, and who came before may be missing";
/// The rank of who came, of who asked for a token, be it one that he made up, and of who knew one.
const CAME: u8 = 1;
const ASKED: u8 = 3;
const ANSWERED: u8 = 4;

/// The records of this moment.
#[derive(Debug, Default)]
pub struct Book {
    open: Vec<Open>,
    /// The last ones that are complete, oldest first.
    recent: Vec<Record>,
    tally: Tally,
    last_id: u64,
}

/// A record that is not complete yet.
#[derive(Debug)]
struct Open {
    id: u64,
    name: LeaseName,
    record: Record,
    opened: Instant,
    deadline: Instant,
    ended: Option<Instant>,
    families: Vec<Family>,
    identifiers: Option<Vec<Identifier>>,
    /// Tokens of this window, by their short hashes: pushed while it was open, or answered.
    tokens: BTreeSet<String>,
    validations: usize,
    /// What the kernel had counted at the opening.
    tally: Tally,
    /// What it had counted before this process began.
    before: Evidence,
    is_changed: bool,
}

/// A record to be stored, and by which number the book knows it.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The book's own number for it.
    pub id: u64,
    /// As it stands.
    pub record: Record,
    /// Nothing more will be added.
    pub is_complete: bool,
}

impl Book {
    /// Whether any record takes what happens.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// A lease was acquired or renewed. `wall` is the host's clock in milliseconds after 1970.
    pub fn opened(&mut self, lease: &Lease, why: Why, now: Instant, wall: u64) {
        if let Some(open) = self.living(&lease.name) {
            open.record.renewals += 1;
            open.follow(lease);
            return;
        }
        let beside: Vec<&mut Open> = (self.open.iter_mut())
            .filter(|open| open.ended.is_none())
            .filter(|open| (lease.scope.ports.iter()).any(|port| open.record.ports.contains(port)))
            .collect();
        let names = beside
            .iter()
            .map(|open| open.record.lease.clone())
            .collect();
        for open in beside {
            let (names, name) = (&mut open.record.beside, lease.name.to_string());
            if names.len() < MAX_BESIDE && !names.contains(&name) {
                names.push(name);
            }
            open.is_changed = true;
        }
        self.last_id += 1;
        let mut open = Open {
            id: self.last_id,
            name: lease.name.clone(),
            record: Record {
                version: VERSION,
                lease: lease.name.to_string(),
                caller: lease.caller,
                holder: (lease.holder.as_ref())
                    .map(|holder| format!("{} (pid {})", holder.command, holder.pid)),
                why,
                opened_at: wall,
                beside: names,
                evidence: Evidence {
                    is_kept: self.tally.is_kept,
                    ..Evidence::default()
                },
                ..Record::default()
            },
            opened: now,
            deadline: lease.deadline,
            ended: None,
            families: Vec::new(),
            identifiers: None,
            tokens: BTreeSet::new(),
            validations: 0,
            tally: self.tally.clone(),
            before: Evidence::default(),
            is_changed: true,
        };
        open.follow(lease);
        self.open.push(open);
    }

    /// A window was opened because a token was pushed. What a token only prolonged was asked for.
    pub fn opened_for_token(&mut self, name: &LeaseName) {
        if let Some(open) = self.living(name).filter(|open| open.record.renewals == 0) {
            open.record.why = Why::Token;
        }
    }

    /// A window that was open before this process was: its record goes on where the history left it.
    pub fn taken_up(&mut self, lease: &Lease, stored: Option<Record>, now: Instant, wall: u64) {
        self.opened(lease, Why::Adopted, now, wall);
        let Some(open) = self.living(&lease.name) else {
            return;
        };
        open.record.evidence.incomplete = Some(RESTARTED.to_owned());
        let Some(stored) = stored else { return };
        open.before = Evidence {
            incomplete: None,
            ..stored.evidence.clone()
        };
        let since = Duration::from_millis(wall.saturating_sub(stored.opened_at));
        // A clock that was set meanwhile must not make a window older than the host is.
        open.opened = now.checked_sub(since).unwrap_or(now);
        open.record = Record {
            end: None,
            renewals: stored.renewals,
            evidence: Evidence {
                incomplete: Some(RESTARTED.to_owned()),
                ..stored.evidence
            },
            ..stored
        };
        let visits = (open.record.sources.iter()).flat_map(|source| &source.visits);
        let (answers, others): (Vec<&Visit>, Vec<&Visit>) = visits
            .filter(|visit| visit.challenge.is_some())
            .partition(|visit| visit.is_answer());
        open.validations = answers.len() + others.len();
        let tokens = answers.into_iter().filter_map(|visit| visit.token.clone());
        open.tokens = tokens.take(MAX_TOKENS).collect();
        open.follow(lease);
    }

    /// A lease ended before its time.
    pub fn ended(&mut self, name: &LeaseName, by: EndedBy, now: Instant) {
        if let Some(open) = self.living(name) {
            open.end(by, now);
        }
    }

    /// Every lease ended at once, or all that are not among these.
    pub fn ended_all_but(&mut self, kept: &[&LeaseName], by: EndedBy, now: Instant) {
        for open in &mut self.open {
            if open.ended.is_none() && !kept.contains(&&open.name) {
                open.end(by, now);
            }
        }
    }

    /// Ends what reached its deadline.
    pub fn expire(&mut self, now: Instant) {
        for open in &mut self.open {
            if open.ended.is_none() && open.deadline <= now {
                open.end(EndedBy::Deadline, now);
            }
        }
    }

    /// What the client said at its end.
    pub fn said(&mut self, name: &LeaseName, said: Said) {
        let mut of_name = self.open.iter_mut().rev();
        if let Some(open) = of_name.find(|open| open.name == *name) {
            open.record.said = Some(said);
            open.is_changed = true;
        }
    }

    /// For which identifiers a window that ended counts as a failed attempt.
    pub fn failed(&mut self, ended: &Record, identifiers: &[Identifier]) {
        let mut open = self
            .open
            .iter_mut()
            .map(|open| (&mut open.record, &mut open.is_changed));
        let own =
            open.find(|(own, _)| own.lease == ended.lease && own.opened_at == ended.opened_at);
        if let Some((own, is_changed)) = own {
            own.failed = identifiers.iter().map(Identifier::to_string).collect();
            *is_changed = true;
        }
    }

    /// A token was announced for an identifier.
    pub fn announced(&mut self, identifier: &Identifier, token: &Token) {
        for open in &mut self.open {
            let is_its = (open.identifiers.as_ref()).is_none_or(|names| names.contains(identifier));
            if open.ended.is_none() && is_its {
                open.know(hash(token));
            }
        }
    }

    /// A connection ended. Who is on the allow-list needs no window, and is in no record.
    pub fn visited(&mut self, event: &Ended<'_>, now: Instant) {
        if event.is_listed {
            return;
        }
        let family = Family::of(event.peer);
        let is_meant = |open: &&mut Open| {
            open.record.ports.contains(&event.local_port)
                && open.families.contains(&family)
                && open.opened <= event.accepted
                && open.ended.is_none_or(|ended| event.accepted <= ended)
        };
        // Of leases that are open at once, those that the identifier is for.
        let covers = |open: &Open| match (event.identifier, &open.identifiers) {
            (Some(asked), Some(names)) => names.contains(asked),
            _ => true,
        };
        let is_covered = self
            .open
            .iter_mut()
            .filter(is_meant)
            .any(|open| covers(open));
        for open in self.open.iter_mut().filter(is_meant) {
            if !is_covered || covers(open) {
                open.visited(event, now);
            }
        }
    }

    /// What the kernel saw.
    pub fn witnessed(&mut self, evidence: &Seen, now: Instant) {
        match evidence {
            Seen::Tallied(tally) => {
                for open in &mut self.open {
                    open.tallied(tally, now);
                }
                self.tally = tally.clone();
            }
            Seen::Sighted(sighting) => {
                let family = Family::of(sighting.source);
                for open in &mut self.open {
                    if open.record.ports.contains(&sighting.port)
                        && open.families.contains(&family)
                        && open.is_of_its_time(sighting, now)
                    {
                        open.sighted(sighting, now);
                    }
                }
            }
        }
    }

    /// What has changed since this was last called, to be stored.
    pub fn take_changed(&mut self, now: Instant) -> Vec<Draft> {
        let mut drafts = Vec::new();
        self.open.retain_mut(|open| {
            let is_complete = open.ended.is_some_and(|ended| now >= ended + SETTLE);
            if open.is_changed || is_complete {
                open.is_changed = false;
                drafts.push(Draft {
                    id: open.id,
                    record: open.settled(),
                    is_complete,
                });
            }
            if is_complete {
                if self.recent.len() >= MAX_RECENT {
                    self.recent.remove(0);
                }
                self.recent.push(open.settled());
            }
            !is_complete
        });
        drafts
    }

    /// What has changed of the last window of this name, if it is not complete.
    pub fn take_changed_of(&mut self, name: &LeaseName) -> Option<Draft> {
        let mut open = self.open.iter_mut().rev();
        let open = open.find(|open| open.name == *name && open.is_changed)?;
        open.is_changed = false;
        Some(Draft {
            id: open.id,
            record: open.settled(),
            is_complete: false,
        })
    }

    /// When [`Book::take_changed`] has something new by time alone.
    pub fn next_change(&self) -> Option<Instant> {
        let ends = self.open.iter().map(|open| match open.ended {
            Some(ended) => ended + SETTLE,
            None => open.deadline,
        });
        ends.min()
    }

    /// What the history made of a draft: its number, and where its sources are.
    pub fn stored(&mut self, id: u64, number: Option<u64>, places: &BTreeMap<IpAddr, Place>) {
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else {
            return;
        };
        open.record.number = number.or(open.record.number);
        for source in &mut open.record.sources {
            if let Some(place) = places.get(&source.address) {
                source.place = Some(place.clone());
            }
        }
    }

    /// Puts the last word on a complete record in the place of ours.
    pub fn completed(&mut self, record: &Record) {
        let ours = (self.recent.iter_mut())
            .rev()
            .find(|ours| ours.lease == record.lease && ours.opened_at == record.opened_at);
        if let Some(ours) = ours {
            ours.clone_from(record);
        }
    }

    /// The record of the last window of this name, complete or not.
    pub fn last_of(&self, name: &LeaseName) -> Option<Record> {
        let mut open = self.open.iter().rev();
        open.find(|open| open.name == *name)
            .map(Open::settled)
            .or_else(|| {
                let mut recent = self.recent.iter().rev();
                recent.find(|record| record.lease == name.as_str()).cloned()
            })
    }

    /// Every record that is here, the oldest first.
    pub fn all(&self) -> Vec<Record> {
        let mut all = self.recent.clone();
        all.extend(self.open.iter().map(Open::settled));
        all
    }

    fn living(&mut self, name: &LeaseName) -> Option<&mut Open> {
        let mut open = self.open.iter_mut();
        open.find(|open| open.ended.is_none() && open.name == *name)
    }
}

impl Open {
    /// Takes over what a lease opens, which a renewal may change.
    fn follow(&mut self, lease: &Lease) {
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

    fn end(&mut self, by: EndedBy, now: Instant) {
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

    fn know(&mut self, token: String) {
        if self.tokens.len() < MAX_TOKENS {
            self.tokens.insert(token);
        }
    }

    fn visited(&mut self, event: &Ended<'_>, now: Instant) {
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
        if self.source(event.peer, at, own).is_none() {
            self.is_changed = true;
            return;
        }
        if is_validation && self.validations >= MAX_VALIDATIONS {
            self.make_room(event.peer, is_answer);
        }
        let is_full = self.validations >= MAX_VALIDATIONS;
        let Some(source) = self.source(event.peer, at, own) else {
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
    fn is_of_its_time(&self, sighting: &Sighting, now: Instant) -> bool {
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

    fn sighted(&mut self, sighting: &Sighting, now: Instant) {
        let first = match &sighting.sight {
            Sight::Seen { ago, .. } => self.offset(now).saturating_sub(millis(*ago)),
            _ => self.offset(now),
        };
        let Some(source) = self.source(sighting.source, first, CAME) else {
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

    fn tallied(&mut self, tally: &Tally, now: Instant) {
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

    /// Lets go of one validation that was not answered, of whoever has most of them: a stranger may make
    /// up tokens without end. A request that was not answered itself takes no place from who has no more.
    fn make_room(&mut self, of: IpAddr, is_answer: bool) {
        let in_vain = |source: &Source| {
            source
                .visits
                .iter()
                .filter(|visit| is_in_vain(visit))
                .count()
        };
        let sources = &mut self.record.sources;
        let own = sources.iter().find(|source| source.address == of);
        let own = own.map_or(0, in_vain);
        let most = sources.iter_mut().max_by_key(|source| in_vain(source));
        let Some(source) = most.filter(|source| is_answer || in_vain(source) > own + 1) else {
            return;
        };
        if let Some(last) = source.visits.iter().rposition(is_in_vain) {
            source.visits.remove(last);
            source.more_visits += 1;
            self.validations -= 1;
        }
    }

    /// The source of this address, of such a rank at least; a new one finds a place, or is counted.
    fn source(&mut self, address: IpAddr, first: u64, own: u8) -> Option<&mut Source> {
        let sources = &mut self.record.sources;
        let known = sources.iter().position(|source| source.address == address);
        let at = match known {
            Some(at) => at,
            None => {
                let network = network(address);
                if sources.len() >= MAX_SOURCES {
                    self.record.more_sources += 1;
                    let least = least(sources, own, &network)?;
                    let left = sources.remove(least);
                    let left = left.visits.iter().filter(|visit| visit.challenge.is_some());
                    self.validations -= left.count();
                }
                sources.push(Source {
                    address,
                    network,
                    place: None,
                    role: Role::Unheard,
                    first,
                    packets: 0,
                    reached: false,
                    dropped: None,
                    visits: Vec::new(),
                    more_visits: 0,
                    then: None,
                });
                sources.len() - 1
            }
        };
        let source = sources.get_mut(at)?;
        source.first = source.first.min(first);
        if own >= ASKED {
            source.role = Role::Validator;
        }
        Some(source)
    }

    /// The record as it is told: who came for what, who came twice, and what it comes to.
    fn settled(&self) -> Record {
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

/// Whose place a new source of such a rank and network takes: the last of those of the lowest rank, in the
/// network that has most of them. Of its own rank only that of a network that has more than its own: one
/// host may have a whole network's addresses.
fn least(sources: &[Source], own: u8, network: &str) -> Option<usize> {
    let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *crowds.entry(&source.network).or_default() += 1;
    }
    let crowd = |network: &str| crowds.get(network).copied().unwrap_or_default();
    let (at, source) = (sources.iter().enumerate().rev())
        .min_by_key(|(_, source)| (rank(source), Reverse(crowd(&source.network))))?;
    let is_less = match rank(source).cmp(&own) {
        Ordering::Less => true,
        Ordering::Equal => own < ANSWERED && crowd(&source.network) > crowd(network) + 1,
        Ordering::Greater => false,
    };
    is_less.then_some(at)
}

/// How much somebody's place on the record is worth.
fn rank(source: &Source) -> u8 {
    match source.role {
        _ if source.is_answered() => ANSWERED,
        Role::Unheard => u8::from(source.packets > 1),
        Role::Visitor => CAME + 1,
        Role::Validator => ASKED,
    }
}

/// Whether this asked for an answer and got none.
fn is_in_vain(visit: &Visit) -> bool {
    visit.challenge.is_some() && !visit.is_answer()
}

/// Says what a record comes to, by all that is in it: where sources are may have been learnt since.
pub fn judge(record: &mut Record) {
    record.sources.sort_by_key(|source| source.first);
    pair(&mut record.sources);
    record.assessment = assess(record);
}

/// The first 8 hexadecimal digits of a token's SHA-256 digest: enough to tell tokens of one window
/// apart, and no help to whoever wants one.
fn hash(token: &Token) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_str().as_bytes());
    let first = digest.as_ref().iter().take(4);
    first.map(|octet| format!("{octet:02x}")).collect()
}

fn network(address: IpAddr) -> String {
    Network::of(address).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
