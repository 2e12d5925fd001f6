//! What the front was told of who came, so that it is told only what is new. Pure: *now* is an argument.
//!
//! A session is the time in which some window is open; what came in an earlier one counts no more. The
//! sources that are kept are bounded, for anybody can forge packets of as many as he likes: who
//! finished a handshake comes first, then who came again, as validators do and forged packets do not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::TRACED_FOR;
use crate::firewall::names::KEPT_FOR;
use crate::gate::event::{Sight, Sighting, Tally};

/// The most sources and ports that are kept of a session. A certificate's validation has six to ten.
const MAX_SOURCES: usize = 1024;
/// How often more packets of a source that is known are told.
const PACKETS_EVERY: Duration = Duration::from_secs(1);
/// How long a source that got no further is given before its next packet is traced: a handshake across
/// the world takes 300 ms.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often the next packet of a source is waited for.
const MAX_TRACES: u8 = 3;
/// Two readings of when a packet came may differ by so much; a timer of the kernel ticks every 10 ms at
/// most, and a reading takes a while.
const TICK: Duration = Duration::from_millis(250);

/// A source and the port that it came to.
pub(super) type Peer = (IpAddr, u16);

/// What the kernel says of a source in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// How many packets it counted since the source is in the set.
    pub(super) packets: u64,
    /// When the last one came.
    pub(super) last: Instant,
}

/// What is known of a source.
#[derive(Clone, Debug)]
struct Known {
    /// As last read.
    read: Option<Reading>,
    /// What `read` said when the session began, or what counts that much less.
    before: u64,
    /// Of earlier stays in the set.
    earlier: u64,
    noticed: Instant,
    /// It came in an earlier session already: until it comes again its connections are of that one.
    is_old: bool,
    reached: bool,
    /// When the last packet of a connection came that had finished its handshake.
    through: Option<Instant>,
    dropped: bool,
    traces: u8,
    traced: Option<Instant>,
    told_packets: u64,
    told_at: Option<Instant>,
    told_reached: bool,
    /// More of its packets were told since that it got through: a window that opened meanwhile has not
    /// heard it.
    owes_reached: bool,
}

/// The book of a session.
#[derive(Debug, Default)]
pub(super) struct Told {
    sources: HashMap<Peer, Known>,
    /// How many sources have each rank.
    ranks: [usize; 3],
    began: Option<Instant>,
    tally: Tally,
    /// Of this session: what came, and what a set took of it.
    arrived: u64,
    kept: u64,
    overflowed: bool,
    /// Why not everything was read, if so.
    unread: Option<String>,
    told: Option<Tally>,
}

/// The kernel's two counts, as differences to the reading before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// First packets that came.
    pub(super) arrived: u64,
    /// Those whose source a set took.
    pub(super) kept: u64,
}

impl Known {
    fn new(noticed: Instant) -> Self {
        Self {
            read: None,
            before: 0,
            earlier: 0,
            noticed,
            is_old: false,
            reached: false,
            through: None,
            dropped: false,
            traces: 0,
            traced: None,
            told_packets: 0,
            told_at: None,
            told_reached: false,
            owes_reached: false,
        }
    }

    /// Whether it got through again after its last first packet, and that is to be told again.
    fn is_through_again(&self) -> bool {
        let last = self.read.map(|read| read.last);
        let is_later = self
            .through
            .zip(last)
            .is_some_and(|(through, last)| through + TICK >= last);
        self.owes_reached && is_later
    }

    fn packets(&self) -> u64 {
        let read = self.read.map_or(0, |read| read.packets);
        self.earlier + read.saturating_sub(self.before)
    }

    fn rank(&self) -> usize {
        match (self.reached, self.packets()) {
            (true, _) => 2,
            (false, 0 | 1) => 0,
            (false, _) => 1,
        }
    }
}

impl Told {
    /// A window opened where none was.
    pub(super) fn begin(&mut self, now: Instant) {
        // Who is in the kernel's sets no longer cannot be taken for new.
        self.sources.retain(|_, known| {
            known
                .read
                .is_some_and(|read| now.saturating_duration_since(read.last) < KEPT_FOR + TICK)
        });
        for known in self.sources.values_mut() {
            *known = Known {
                read: known.read,
                before: known.read.map_or(0, |read| read.packets),
                is_old: true,
                ..Known::new(known.noticed)
            };
        }
        self.ranks = [self.sources.len(), 0, 0];
        self.began = Some(now);
        (self.arrived, self.kept) = (0, 0);
        self.overflowed = false;
        self.unread = None;
    }

    /// A window is open that was so before we came: what came to it counts.
    pub(super) fn begin_before(&mut self) {
        self.began = None;
    }

    /// A source stands in a `seen` set.
    pub(super) fn seen(&mut self, peer: Peer, reading: Reading) {
        if !self.is_news(reading) {
            return;
        }
        let rank = usize::from(reading.packets > 1);
        let Some(known) = self.entry(peer, rank, reading.last) else {
            return;
        };
        let before = known.rank();
        match known.read {
            // Another stay in the set: it is counted from the beginning again.
            Some(read)
                if reading.packets < read.packets
                    || (reading.packets == read.packets && reading.last > read.last + TICK) =>
            {
                known.earlier += read.packets.saturating_sub(known.before);
                known.before = 0;
            }
            _ => {}
        }
        known.read = Some(reading);
        let after = known.rank();
        self.move_rank(before, after);
    }

    /// A source stands in a `reached` set.
    pub(super) fn reached(&mut self, peer: Peer, reading: Reading) {
        if !self.is_news(reading) {
            return;
        }
        let Some(known) = self.entry(peer, 2, reading.last) else {
            return;
        };
        let before = known.rank();
        known.reached = true;
        known.through = known.through.max(Some(reading.last));
        self.move_rank(before, 2);
    }

    /// One of its packets was traced, and dropped. `false` if that is known, or nobody waits for it.
    pub(super) fn dropped(&mut self, peer: Peer) -> bool {
        match self.sources.get_mut(&peer) {
            Some(known) if known.traces > 0 && !known.dropped => {
                known.dropped = true;
                true
            }
            _ => false,
        }
    }

    /// What the kernel counted since it was asked before.
    pub(super) fn count(&mut self, counted: Counted) {
        self.tally.packets += counted.arrived;
        self.arrived += counted.arrived;
        self.kept += counted.kept;
    }

    /// Something could not be read.
    pub(super) fn miss(&mut self, why: &str) {
        self.unread = Some(why.to_owned());
    }

    /// Whose next packet is to be traced from now on, at most so many; they count as traced.
    pub(super) fn trace_next(&mut self, most: usize, now: Instant) -> Vec<Peer> {
        let is_due = |known: &Known| {
            !known.reached
                && !known.dropped
                && known.packets() > 0
                && known.traces < MAX_TRACES
                && now.saturating_duration_since(known.noticed) >= PATIENCE
                && known
                    .traced
                    .is_none_or(|at| now.saturating_duration_since(at) >= TRACED_FOR)
        };
        let mut due: Vec<(&Peer, &mut Known)> = (self.sources.iter_mut())
            .filter(|(_, known)| is_due(known))
            .collect();
        // Who came again first; of the others who came last.
        due.sort_by_key(|(_, known)| (known.rank(), known.noticed));
        let chosen = due.into_iter().rev().take(most);
        chosen
            .map(|(peer, known)| {
                known.traced = Some(now);
                known.traces += 1;
                *peer
            })
            .collect()
    }

    /// What is new, at most so many, the most telling first. What is left is new the next time.
    pub(super) fn news(&mut self, most: usize, is_last: bool, now: Instant) -> Vec<Sighting> {
        let is_new = |known: &Known| {
            let is_time = is_last
                || known
                    .told_at
                    .is_none_or(|at| now.saturating_duration_since(at) >= PACKETS_EVERY);
            (known.packets() > known.told_packets && is_time)
                || (known.reached && !known.told_reached && (!known.is_old || known.packets() > 0))
                || known.is_through_again()
        };
        let mut new: Vec<(&Peer, &mut Known)> = (self.sources.iter_mut())
            .filter(|(_, known)| is_new(known))
            .collect();
        new.sort_by_key(|(_, known)| std::cmp::Reverse(known.rank()));
        let mut news = Vec::new();
        for ((source, port), known) in new.into_iter().take(most) {
            let sighting = |sight| Sighting {
                source: *source,
                port: *port,
                sight,
            };
            if known.told_at.is_none() {
                self.tally.seen += 1;
            }
            if known.packets() > known.told_packets {
                let last = known.read.map_or(now, |read| read.last);
                news.push(sighting(Sight::Seen {
                    packets: known.packets(),
                    ago: now.saturating_duration_since(last),
                }));
                known.owes_reached = known.told_reached;
            }
            let is_first = known.reached && !known.told_reached;
            if is_first || known.is_through_again() {
                self.tally.reached += u64::from(is_first);
                known.owes_reached = false;
                news.push(sighting(Sight::Reached));
            }
            known.told_packets = known.packets();
            known.told_reached = known.reached;
            known.told_at = Some(now);
        }
        news
    }

    /// What all that comes to, if it is to be told, or is new.
    pub(super) fn tally(&mut self, is_asked: bool) -> Option<Tally> {
        let tally = Tally {
            is_kept: true,
            incomplete: self.incomplete(),
            ..self.tally.clone()
        };
        if !is_asked && self.told.as_ref() == Some(&tally) {
            return None;
        }
        self.told = Some(tally.clone());
        Some(tally)
    }

    fn incomplete(&self) -> Option<String> {
        let mut why = Vec::new();
        if self.kept < self.arrived {
            why.push(format!(
                "the sources of {} of {} first packets were kept, for too many came at once",
                self.kept, self.arrived
            ));
        }
        if self.overflowed {
            why.push(format!(
                "more sources came than the {MAX_SOURCES} that are kept"
            ));
        }
        why.extend(self.unread.clone());
        (!why.is_empty()).then(|| why.join("; "))
    }

    /// Whether it came in this session: the sets hold a source for a while after its last packet.
    fn is_news(&self, reading: Reading) -> bool {
        self.began.is_none_or(|began| reading.last + TICK > began)
    }

    fn move_rank(&mut self, from: usize, to: usize) {
        self.ranks[from] = self.ranks[from].saturating_sub(1);
        self.ranks[to] += 1;
    }

    /// The source, if there is room for one of this rank.
    fn entry(&mut self, peer: Peer, rank: usize, noticed: Instant) -> Option<&mut Known> {
        if !self.sources.contains_key(&peer) {
            if self.sources.len() >= MAX_SOURCES {
                self.overflowed = true;
                let lowest = self.ranks.iter().position(|count| *count > 0)?;
                if lowest >= rank {
                    return None;
                }
                let mut sources = self.sources.iter();
                let (gone, _) = sources.find(|(_, known)| known.rank() == lowest)?;
                let gone = *gone;
                self.sources.remove(&gone);
                self.ranks[lowest] -= 1;
            }
            self.ranks[0] += 1;
            self.sources.insert(peer, Known::new(noticed));
        }
        self.sources.get_mut(&peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u32) -> Peer {
        (IpAddr::from(number.to_be_bytes()), 80)
    }

    fn reading(packets: u64, last: Instant) -> Reading {
        Reading { packets, last }
    }

    fn told(began: Instant) -> Told {
        let mut told = Told::default();
        told.begin(began);
        told
    }

    fn sights(news: Vec<Sighting>) -> Vec<Sight> {
        news.into_iter().map(|sighting| sighting.sight).collect()
    }

    fn seen(packets: u64, ago: Duration) -> Sight {
        Sight::Seen { packets, ago }
    }

    #[test]
    fn only_what_is_new_is_told_and_more_packets_once_a_second() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(1, now));
        let first = told.news(9, false, now + SECOND / 10);
        assert_eq!(sights(first), [seen(1, SECOND / 10)]);
        assert_eq!(told.news(9, false, now + SECOND / 5), []);
        told.seen(peer(1), reading(2, now + SECOND));
        assert_eq!(told.news(9, false, now + SECOND), [], "told a moment ago");
        let again = told.news(9, false, now + SECOND * 2);
        assert_eq!(sights(again), [seen(2, SECOND)]);
        told.reached(peer(1), reading(1, now + SECOND * 2));
        let reached = told.news(9, false, now + SECOND * 2);
        assert_eq!(sights(reached), [Sight::Reached]);
        let tally = told.tally(false).unwrap();
        assert_eq!((tally.seen, tally.reached), (1, 1));
        assert_eq!(told.tally(false), None);
        assert_eq!(told.tally(true), Some(tally));
    }

    #[test]
    fn who_came_in_an_earlier_window_is_not_told_again() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(3, now));
        told.reached(peer(1), reading(3, now));
        assert_eq!(told.news(9, true, now).len(), 2);
        let later = now + SECOND * 5;
        told.begin(later);
        told.seen(peer(1), reading(3, now));
        told.reached(peer(1), reading(3, now));
        told.seen(peer(2), reading(9, now));
        assert_eq!(told.news(9, true, later), []);
        told.seen(peer(1), reading(4, later + SECOND));
        let news = told.news(9, false, later + SECOND);
        assert_eq!(sights(news), [seen(1, Duration::ZERO)]);
    }

    #[test]
    fn who_came_a_moment_before_the_window_is_told_when_it_comes_again() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(1, now));
        told.reached(peer(1), reading(2, now));
        assert_eq!(told.news(9, true, now).len(), 2);
        let later = now + TICK / 2;
        told.begin(later);
        told.seen(peer(1), reading(1, now));
        told.reached(peer(1), reading(3, later));
        assert_eq!(told.news(9, true, later), []);
        told.seen(peer(1), reading(2, later + SECOND));
        let news = sights(told.news(9, true, later + SECOND));
        assert_eq!(news, [seen(1, Duration::ZERO), Sight::Reached]);
    }

    #[test]
    fn who_comes_again_and_gets_through_is_told_so_again_for_a_window_that_opened_meanwhile() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(1, now));
        told.reached(peer(1), reading(1, now));
        assert_eq!(told.news(9, false, now).len(), 2);
        let later = now + SECOND;
        told.seen(peer(1), reading(2, later));
        told.reached(peer(1), reading(2, later));
        let news = sights(told.news(9, false, later));
        assert_eq!(news, [seen(2, Duration::ZERO), Sight::Reached]);
        // Not before it has got through, and then at once.
        let last = later + SECOND;
        told.seen(peer(1), reading(3, last));
        assert_eq!(sights(told.news(9, false, last)), [seen(3, Duration::ZERO)]);
        assert_eq!(told.news(9, true, last), []);
        told.reached(peer(1), reading(3, last));
        assert_eq!(sights(told.news(9, false, last)), [Sight::Reached]);
        assert_eq!(told.news(9, true, last), []);
        assert_eq!(told.tally(true).unwrap().reached, 1);
    }

    #[test]
    fn a_source_that_left_the_set_and_came_back_is_counted_on() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(3, now));
        let later = now + SECOND * 40;
        told.seen(peer(1), reading(1, later));
        assert_eq!(
            sights(told.news(9, false, later)),
            [seen(4, Duration::ZERO)]
        );
        told.seen(peer(1), reading(1, later + SECOND * 40));
        let news = told.news(9, false, later + SECOND * 40);
        assert_eq!(sights(news), [seen(5, Duration::ZERO)]);
    }

    #[test]
    fn a_flood_keeps_out_nobody_who_finished_a_handshake_or_came_again() {
        let now = Instant::now();
        let mut told = told(now);
        for number in 0..60_000 {
            told.seen(peer(number), reading(1, now));
        }
        assert_eq!(told.sources.len(), MAX_SOURCES);
        told.seen(peer(70_000), reading(2, now));
        told.reached(peer(70_001), reading(1, now));
        for number in 0..60_000 {
            told.seen(peer(number), reading(1, now));
        }
        assert_eq!(told.sources.len(), MAX_SOURCES);
        assert_eq!(told.ranks, [MAX_SOURCES - 2, 1, 1]);
        let news = told.news(2, true, now);
        let sources: Vec<_> = news.iter().map(|sighting| sighting.source).collect();
        assert_eq!(sources, [peer(70_001).0, peer(70_000).0]);
        let why = told.tally(true).unwrap().incomplete.unwrap();
        assert!(why.contains("more sources came than the 1024"), "{why}");
    }

    #[test]
    fn ranks_are_counted_as_they_are() {
        let now = Instant::now();
        let mut told = told(now);
        for number in 0..3000_u32 {
            let number = number * 7919 % 2000;
            let packets = u64::from(number % 3 + 1);
            told.seen(peer(number), reading(packets, now));
            if number % 5 == 0 {
                told.reached(peer(number), reading(1, now));
            }
        }
        let mut ranks = [0; 3];
        for known in told.sources.values() {
            ranks[known.rank()] += 1;
        }
        assert_eq!(told.ranks, ranks);
    }

    #[test]
    fn what_was_not_kept_is_said() {
        let now = Instant::now();
        let mut told = told(now);
        told.count(Counted {
            arrived: 5,
            kept: 5,
        });
        assert_eq!(told.tally(true).unwrap().incomplete, None);
        told.count(Counted {
            arrived: 100,
            kept: 10,
        });
        let tally = told.tally(true).unwrap();
        assert_eq!(tally.packets, 105);
        let why = tally.incomplete.unwrap();
        assert!(why.contains("of 15 of 105 first packets"), "{why}");
        told.begin(now);
        let tally = told.tally(true).unwrap();
        assert_eq!((tally.packets, tally.incomplete), (105, None));
    }

    #[test]
    fn who_gets_no_further_is_traced_for_a_while_and_not_for_ever() {
        let now = Instant::now();
        let mut told = told(now);
        told.seen(peer(1), reading(1, now));
        told.seen(peer(2), reading(1, now));
        told.reached(peer(2), reading(1, now));
        assert_eq!(told.trace_next(9, now), [], "it may be on its way");
        assert!(!told.dropped(peer(1)), "not asked for");
        let mut at = now + PATIENCE;
        for _ in 0..MAX_TRACES {
            assert_eq!(told.trace_next(9, at), [peer(1)]);
            assert_eq!(told.trace_next(9, at), []);
            at += TRACED_FOR;
        }
        assert_eq!(told.trace_next(9, at), []);
        assert!(told.dropped(peer(1)) && !told.dropped(peer(1)));
        assert!(!told.dropped(peer(2)) && !told.dropped(peer(3)));
    }
}
