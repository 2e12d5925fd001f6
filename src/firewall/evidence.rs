//! What the kernel saw of who comes to open windows: read several times a second while one is open, and
//! made into what is new. Which rules fill the sets is `rules/observe.rs`'s; when to look is
//! `enforcer/look.rs`'s.
//!
//! Nothing here changes the kernel, and nothing waits: a look is made of short steps, between which
//! windows open and close.

mod message;
mod socket;
mod told;
mod trace;
mod words;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nlink::netlink::nftables::{Family as NftFamily, RuleInfo, SetElement};
use nlink::netlink::{Connection, Nftables};

use self::message::Answer;
pub use self::message::{Answer as SetAnswer, answers};
pub use self::socket::Tracing;
use self::socket::{Piece, Reader, Wanted};
use self::told::{Counted, Peer, Reading, Told};
pub use self::trace::{DroppedPacket, Packets, Place, Traced, Verdict, What, traced};
use super::error::KernelError;
use super::names::{ARRIVED_COUNTER, KEPT_COUNTER, KEPT_FOR};
use super::ruleset::{Kept, evidence_set};
use crate::gate::event::{Sight, Sighting, Tally};
use crate::gate::lease::Family;

/// How long a source's next packet is waited for. One that was dropped comes again after 1, 3, 7 and 15
/// seconds.
pub(super) const TRACED_FOR: Duration = Duration::from_secs(10);

/// The most sources that get into the trace sets at one look.
const TRACED_AT_ONCE: usize = 16;

/// What is read, and what of it was told.
pub(super) struct Evidence {
    /// Who got through, and the counters: short.
    short: Reader,
    /// Who came: long, if somebody forges packets.
    long: Reader,
    tracing: Tracing,
    packets: Packets,
    told: Told,
    /// The counters as last read: arrived, kept.
    counters: [Option<u64>; 2],
    is_short_done: bool,
}

impl Evidence {
    /// Opens the sockets; afterwards the process can be sealed.
    ///
    /// # Errors
    /// [`KernelError::Refused`].
    pub(super) fn prepare() -> Result<Self, KernelError> {
        let refused =
            |error| KernelError::Refused("opening a socket for evidence", Box::new(error));
        let sets = |kept| Family::ALL.map(|family| Wanted::Set(evidence_set(kept, family).name));
        let counters = [ARRIVED_COUNTER, KEPT_COUNTER].map(Wanted::Counter);
        let short = sets(Kept::Reached).into_iter().chain(counters).collect();
        let reader = |wanted| Reader::of(wanted).map_err(|error| refused(error.into()));
        Ok(Self {
            short: reader(short)?,
            long: reader(sets(Kept::Seen).into())?,
            tracing: Tracing::subscribe().map_err(refused)?,
            packets: Packets::default(),
            told: Told::default(),
            counters: [None; 2],
            is_short_done: false,
        })
    }

    /// Reads what was counted before this process began, which is nobody's business.
    pub(super) fn forget_what_was(&mut self, now: Instant) {
        loop {
            let piece = self.short.read();
            if self.take(piece, now) {
                break;
            }
        }
        self.told = Told::default();
    }

    /// A window is open where none was; `is_adopted` if it was so before this process began.
    pub(super) fn begin(&mut self, is_adopted: bool, now: Instant) {
        self.told.begin(now);
        if is_adopted {
            self.told.begin_before();
        }
        // What was traced for somebody else meanwhile is nobody's business here.
        drop(self.tracing.heard());
        self.packets.forget();
    }

    /// Looks anew from the next step on. After how many whole looks everything has been read since
    /// now: what is half read has to be read to its end first.
    pub(super) fn look_again(&mut self) -> u32 {
        self.is_short_done = false;
        match self.short.is_under_way() || self.long.is_under_way() {
            true => 2,
            false => 1,
        }
    }

    /// One step of a look; `true` when it is whole.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        if !self.is_short_done {
            let piece = self.short.read();
            self.is_short_done = self.take(piece, now);
            return false;
        }
        let piece = self.long.read();
        let is_whole = self.take(piece, now);
        if is_whole {
            self.is_short_done = false;
        }
        is_whole
    }

    /// A look has to end before it is whole.
    pub(super) fn give_up(&mut self) {
        self.told.miss("too much came to read all of it");
    }

    fn take(&mut self, piece: Piece, now: Instant) -> bool {
        let (wanted, answers, is_last) = match piece {
            Piece::Of(wanted, answers, is_last) => (wanted, answers, is_last),
            Piece::Refused(wanted, error, is_last) => {
                tracing::debug!(%error, ?wanted, "evidence cannot be read");
                self.told.miss("the kernel's sets could not be read");
                return is_last;
            }
        };
        // Of one set all, and in a flood of forged packets they are many.
        let kept = Family::ALL.map(|family| evidence_set(Kept::Reached, family).name);
        let have_reached = matches!(&wanted, Wanted::Set(set) if kept.contains(set));
        for answer in answers {
            match (&wanted, answer) {
                (Wanted::Counter(name), Answer::Counter(count)) => self.count(name, count),
                (Wanted::Set(_), Answer::Element(element)) => {
                    let age = KEPT_FOR.saturating_sub(element.left);
                    let reading = Reading {
                        packets: element.packets,
                        last: now.checked_sub(age).unwrap_or(now),
                    };
                    let peer = (element.source, element.port);
                    match have_reached {
                        true => self.told.reached(peer, reading),
                        false => self.told.seen(peer, reading),
                    }
                }
                _ => {}
            }
        }
        is_last
    }

    fn count(&mut self, name: &str, count: u64) {
        let index = usize::from(name == KEPT_COUNTER);
        let before = self.counters[index].replace(count);
        // A table that was made anew counts from nought.
        let before = before.filter(|before| *before <= count).unwrap_or_default();
        let more = count - before;
        let mut counted = Counted::default();
        match index {
            0 => counted.arrived = more,
            _ => counted.kept = more,
        }
        self.told.count(counted);
    }

    /// What is new of who came, at most so much.
    pub(super) fn news(&mut self, most: usize, is_last: bool, now: Instant) -> Vec<Sighting> {
        self.told.news(most, is_last, now)
    }

    /// What all of it comes to, if that is asked for or new.
    pub(super) fn tally(&mut self, is_asked: bool) -> Option<Tally> {
        self.told.tally(is_asked)
    }

    /// Whose next packet is to be traced from now on.
    pub(super) fn trace_next(&mut self, now: Instant) -> Vec<Peer> {
        self.told.trace_next(TRACED_AT_ONCE, now)
    }

    /// Which of the packets that were waited for have been dropped, and where.
    pub(super) fn drops(&mut self) -> Vec<DroppedPacket> {
        let heard = self.tracing.heard();
        let drops = heard
            .iter()
            .flat_map(|datagram| self.packets.read(datagram));
        let drops: Vec<DroppedPacket> = drops.collect();
        drops
            .into_iter()
            .filter(|drop| self.told.dropped((drop.source, drop.port)))
            .collect()
    }
}

/// What is told of a drop: the rule as people know it.
pub(super) async fn sighting(nft: &Connection<Nftables>, drop: DroppedPacket) -> Sighting {
    let DroppedPacket {
        source,
        port,
        place,
    } = drop;
    let family = NftFamily::from_u8(place.family);
    let rule = match (place.rule, family) {
        (None, _) => None,
        (Some(handle), Some(family)) => {
            let rule = words_of_handle(nft, family, &place.table, &place.chain, handle).await;
            Some(rule.unwrap_or_else(|| format!("(rule {handle}, which is no longer there)")))
        }
        (Some(handle), None) => Some(format!("(rule {handle})")),
    };
    let family = family.map_or("?", NftFamily::name);
    Sighting {
        source,
        port,
        sight: Sight::Dropped {
            table: words::plain(&format!("{family} {}", place.table)),
            chain: words::plain(&place.chain),
            rule,
        },
    }
}

/// The rule of a handle as [`rule_words`] has it; `None` if it is not there.
pub async fn words_of_handle(
    nft: &Connection<Nftables>,
    family: NftFamily,
    table: &str,
    chain: &str,
    handle: u64,
) -> Option<String> {
    let rules = nft.list_rules(table, family).await.unwrap_or_default();
    let mut rules = rules.iter();
    let rule = rules.find(|rule| rule.handle == handle && rule.chain == chain)?;
    Some(rule_words(nft, rule).await)
}

/// A rule as nft lists it, as far as that can be told, without counters and on one line.
pub async fn rule_words(nft: &Connection<Nftables>, rule: &RuleInfo) -> String {
    words::rule_words(rule, &sets_in(nft, rule).await)
}

/// The texts of the sets that stand in a rule itself; long ones are left out.
async fn sets_in(nft: &Connection<Nftables>, rule: &RuleInfo) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let wanted = words::anonymous_sets(rule);
    if wanted.is_empty() {
        return texts;
    }
    let (table, family) = (&rule.table, rule.family);
    let sets = nft.list_sets_in(table, family).await.unwrap_or_default();
    for set in sets.iter().filter(|set| wanted.contains(&set.name)) {
        if words::is_short(set)
            && let Ok(elements) = nft.list_set_elements(table, &set.name, family).await
            && let Some(text) = words::set_words(set, &elements)
        {
            texts.insert(set.name.clone(), text);
        }
    }
    texts
}

/// A source and its port as an element of a set of its family.
pub(super) fn element((source, port): Peer) -> (Family, SetElement) {
    let address = match source {
        IpAddr::V4(address) => SetElement::ipv4(address),
        IpAddr::V6(address) => SetElement::ipv6(address),
    };
    let element = SetElement::concat([address, SetElement::port(port)]);
    (Family::of(source), element)
}
