//! What commands opened, and what is still to be closed.
//!
//! An opening is closed by every command line that its lease asked for and that no other living
//! opening asks for as well: `close 80` waits for the last lease, `close 80 for LEASE` does not.
//! Bounds are those of every other book (`gate::window`). Nothing here reads a clock or runs
//! anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::command::{Commands, MAX_NUMBER, Opening, Run};
use crate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use crate::gate::window::{Limits, Refusal, Windows};

/// How long after a closing failed it is tried again. After the last one it is given up, and the
/// status goes on saying so.
const BACK_OFF: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
/// The most closings that may be owed: more means that closing does not work here, and what cannot
/// be closed is not opened.
const MAX_OWED: usize = 256;

/// What is asked to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's name.
    pub lease: LeaseName,
    /// Who asked.
    pub caller: u32,
    /// What made it.
    pub trigger: Trigger,
    /// Which TCP ports.
    pub ports: Vec<u16>,
    /// Which families.
    pub families: Families,
    /// How long from now.
    pub length: Duration,
}

/// An opening that stands.
#[derive(Clone, Debug)]
struct Held {
    opening: Opening,
    commands: Arc<Commands>,
    /// When it ends by itself; `None` for what a state file told and no living lease has claimed.
    deadline: Option<Instant>,
}

/// A command line that is to be run so that something closes.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The command line.
    pub run: Run,
    /// What it closes.
    pub opening: Opening,
    /// Whose timeout holds.
    pub commands: Arc<Commands>,
    /// How often it failed.
    pub failures: usize,
    /// When it is next due; `None` when it is given up.
    pub due: Option<Instant>,
}

/// The book.
#[derive(Debug, Default)]
pub struct Book {
    bounds: Windows,
    held: BTreeMap<u16, Held>,
    owed: Vec<Owed>,
}

impl Book {
    /// What a state file told: nobody knows yet whether a living lease needs it.
    pub fn recover(openings: Vec<Opening>, commands: &Arc<Commands>) -> Self {
        let held = openings.into_iter().map(|opening| {
            let held = Held {
                commands: Arc::clone(commands),
                deadline: None,
                opening,
            };
            (held.opening.number, held)
        });
        Self {
            held: held.collect(),
            ..Self::default()
        }
    }

    /// Writes an opening down, before it is made; an earlier one of the same lease stays until one
    /// of them is settled.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub fn open(
        &mut self,
        claim: Claim,
        commands: &Arc<Commands>,
        limits: &Limits,
        now: Instant,
    ) -> Result<Opening, Refusal> {
        let deadline = now + claim.length;
        let number = self.free_number().ok_or(Refusal::TooMany)?;
        if self.owed.len() >= MAX_OWED {
            return Err(Refusal::TooMany);
        }
        let lease = Lease {
            id: 0,
            name: claim.lease.clone(),
            holder: None,
            caller: claim.caller,
            trigger: claim.trigger,
            scope: Scope {
                ports: claim.ports.clone(),
                families: claim.families,
                entrance: Entrance::Any,
                identifiers: None,
            },
            deadline,
        };
        self.bounds.acquire(lease, limits, now)?;
        let opening = Opening {
            number,
            lease: claim.lease,
            ports: claim.ports,
            families: claim.families,
            // Never shorter than the lease.
            seconds: claim.length.as_millis().div_ceil(1000) as u64,
        };
        // What is opened anew need not be closed any more.
        let closings = closings(commands, &opening);
        self.owed
            .retain(|owed| !closings.iter().any(|run| run.is_same(&owed.run)));
        let held = Held {
            opening: opening.clone(),
            commands: Arc::clone(commands),
            deadline: Some(deadline),
        };
        self.held.insert(number, held);
        Ok(opening)
    }

    /// A number that nothing has that stands or is still to be closed.
    fn free_number(&self) -> Option<u16> {
        (1..=MAX_NUMBER).find(|number| {
            let is_owed = || self.owed.iter().any(|owed| owed.opening.number == *number);
            !self.held.contains_key(number) && !is_owed()
        })
    }

    /// Of a lease only the opening `kept` stays; the rest is to be closed now.
    pub fn settle(&mut self, lease: &LeaseName, kept: Option<u16>, now: Instant) {
        let of_lease = self.held.values().map(|held| &held.opening);
        let gone: Vec<u16> = of_lease
            .filter(|opening| opening.lease == *lease && Some(opening.number) != kept)
            .map(|opening| opening.number)
            .collect();
        self.end(&gone, now);
        let stays = self.held.values().any(|held| held.opening.lease == *lease);
        if !stays {
            self.bounds.release(lease, now);
        }
    }

    /// An opening failed and does not count: it is to be closed, as far as it came.
    pub fn undo(&mut self, opening: &Opening, now: Instant) {
        self.end(&[opening.number], now);
        let mut left = self.held.values();
        if !left.any(|held| held.opening.lease == opening.lease) {
            self.bounds.release(&opening.lease, now);
        }
    }

    /// A lease lives for `length` more, and what it opened no longer than that. The answer is the
    /// number of its opening; `None` if it has none.
    pub fn living(&mut self, lease: &LeaseName, length: Duration, now: Instant) -> Option<u16> {
        let mut of_lease = self.held.values_mut();
        let held = of_lease.rfind(|held| held.opening.lease == *lease)?;
        let until = now + length;
        // Whoever asks again and again prolongs nothing: only an opening does, and is counted.
        held.deadline = Some(held.deadline.map_or(until, |deadline| deadline.min(until)));
        Some(held.opening.number)
    }

    /// Everything that no living lease has claimed is to be closed; the answer is how many openings.
    pub fn sweep(&mut self, now: Instant) -> usize {
        let gone = self.numbers(|held| held.deadline.is_none());
        self.end(&gone, now);
        gone.len()
    }

    /// Everything is to be closed.
    pub fn close_all(&mut self, now: Instant) {
        let gone = self.numbers(|_| true);
        self.end(&gone, now);
        self.bounds.release_all(now);
        // A last try for what was given up, too.
        self.owed.iter_mut().for_each(|owed| owed.due = Some(now));
    }

    /// What has reached its deadline is to be closed.
    pub fn expire(&mut self, now: Instant) {
        let gone = self.numbers(|held| held.deadline.is_some_and(|deadline| deadline <= now));
        self.end(&gone, now);
        self.bounds.expire(now);
    }

    fn numbers(&self, is_meant: impl Fn(&Held) -> bool) -> Vec<u16> {
        let meant = self.held.iter().filter(|(_, held)| is_meant(held));
        meant.map(|(number, _)| *number).collect()
    }

    fn end(&mut self, numbers: &[u16], now: Instant) {
        let gone: Vec<Held> = numbers
            .iter()
            .filter_map(|number| self.held.remove(number))
            .collect();
        let needed: Vec<Run> = self
            .held
            .values()
            .flat_map(|held| closings(&held.commands, &held.opening))
            .collect();
        for held in gone {
            for run in closings(&held.commands, &held.opening) {
                let is_same = |other: &Run| run.is_same(other);
                if needed.iter().any(is_same) || self.owed.iter().any(|owed| is_same(&owed.run)) {
                    continue;
                }
                self.owed.push(Owed {
                    run,
                    opening: held.opening.clone(),
                    commands: Arc::clone(&held.commands),
                    failures: 0,
                    due: Some(now),
                });
            }
        }
    }

    /// The next closing that is due, of one lease or of any.
    pub fn due(&self, lease: Option<&LeaseName>, now: Instant) -> Option<Owed> {
        let mut due = self.owed.iter();
        due.find(|owed| {
            owed.due.is_some_and(|due| due <= now)
                && lease.is_none_or(|lease| owed.opening.lease == *lease)
        })
        .cloned()
    }

    /// It is closed.
    pub fn closed(&mut self, run: &Run) {
        self.owed.retain(|owed| !owed.run.is_same(run));
    }

    /// It could not be closed: it is tried again later, or given up.
    pub fn failed(&mut self, run: &Run, now: Instant) {
        for owed in self.owed.iter_mut().filter(|owed| owed.run.is_same(run)) {
            owed.due = BACK_OFF.get(owed.failures).map(|wait| now + *wait);
            owed.failures += 1;
        }
    }

    /// When anything is to be done by itself next.
    pub fn next_change(&self) -> Option<Instant> {
        let deadlines = self.held.values().filter_map(|held| held.deadline);
        deadlines
            .chain(self.owed.iter().filter_map(|owed| owed.due))
            .min()
    }

    /// Everything that may be open by our doing, for the state file.
    pub fn openings(&self) -> Vec<Opening> {
        let mut openings: BTreeMap<u16, &Opening> = BTreeMap::new();
        let owed = self.owed.iter().map(|owed| &owed.opening);
        for opening in owed.chain(self.held.values().map(|held| &held.opening)) {
            openings.insert(opening.number, opening);
        }
        openings.into_values().cloned().collect()
    }

    /// What could not be closed so far, one that was given up first.
    pub fn stuck(&self) -> Option<&Owed> {
        let stuck = self.owed.iter().filter(|owed| owed.failures > 0);
        stuck.min_by_key(|owed| owed.due.is_some())
    }
}

fn closings(commands: &Commands, opening: &Opening) -> Vec<Run> {
    let close = commands.close.iter();
    close.flat_map(|command| command.runs(opening)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::command::{Blank, Command, Word};
    use crate::gate::usage::TimeLimits;
    use crate::gate::window::Budget;

    fn commands(close: &[&str]) -> Arc<Commands> {
        let words = close
            .iter()
            .map(|word| Word::parse(word, &Blank::OF_OPENINGS).unwrap());
        Arc::new(Commands {
            open: None,
            close: Some(Command::new("close".to_owned(), words.collect())),
            timeout: Duration::from_secs(5),
            net_admin: false,
        })
    }

    fn claim(lease: &str, ports: &[u16], seconds: u64) -> Claim {
        Claim {
            lease: name(lease),
            caller: 0,
            trigger: Trigger::Asked,
            ports: ports.to_vec(),
            families: Families::BOTH,
            length: Duration::from_secs(seconds),
        }
    }

    fn name(lease: &str) -> LeaseName {
        LeaseName::parse(lease).unwrap()
    }

    fn limits() -> Limits {
        Limits {
            ports: vec![80, 443],
            max: Duration::from_secs(600),
            budget: Budget {
                per_hour: 50,
                per_caller: 20,
                reserve: 10,
                time: TimeLimits::default(),
            },
        }
    }

    fn open(book: &mut Book, claim: Claim, commands: &Arc<Commands>, now: Instant) -> u16 {
        book.open(claim, commands, &limits(), now).unwrap().number
    }

    /// Closes what is due, and tells which command lines that took.
    fn close_due(book: &mut Book, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(owed) = book.due(None, now) {
            lines.push(owed.run.to_string());
            book.closed(&owed.run);
        }
        lines
    }

    #[test]
    fn a_port_is_closed_with_the_last_lease_that_has_it() {
        let (mut book, now, commands) = (Book::default(), Instant::now(), commands(&["{port}"]));
        open(&mut book, claim("a", &[80, 443], 60), &commands, now);
        open(&mut book, claim("b", &[80], 60), &commands, now);
        book.settle(&name("a"), None, now);
        assert_eq!(close_due(&mut book, now), ["close 443"]);
        book.settle(&name("b"), None, now);
        assert_eq!(close_due(&mut book, now), ["close 80"]);
        assert!(book.openings().is_empty());
    }

    #[test]
    fn what_names_lease_or_number_is_closed_with_each() {
        let (mut book, now) = (Book::default(), Instant::now());
        let commands = commands(&["{port}", "{number}"]);
        let first = open(&mut book, claim("a", &[80], 60), &commands, now);
        let second = open(&mut book, claim("a", &[80], 90), &commands, now);
        assert_eq!((first, second), (1, 2));
        // A renewal: both stand until it is settled which one stays.
        assert_eq!(book.openings().len(), 2);
        book.settle(&name("a"), Some(second), now);
        assert_eq!(close_due(&mut book, now), ["close 80 1"]);
        assert_eq!(
            open(&mut book, claim("b", &[80], 60), &commands, now),
            1,
            "free again"
        );
    }

    #[test]
    fn expiry_closes_and_a_new_opening_calls_a_closing_off() {
        let (mut book, now, commands) = (Book::default(), Instant::now(), commands(&["{port}"]));
        open(&mut book, claim("a", &[80], 60), &commands, now);
        let end = now + Duration::from_secs(60);
        assert_eq!(book.next_change(), Some(end));
        book.expire(end - Duration::from_millis(1));
        assert!(book.due(None, end).is_none());
        book.expire(end);
        let owed = book.due(None, end).unwrap();
        book.failed(&owed.run, end);
        assert!(book.due(None, end).is_none() && book.stuck().is_some());
        open(&mut book, claim("b", &[80], 60), &commands, end);
        assert!(book.stuck().is_none());
        book.settle(&name("b"), None, end);
        assert_eq!(close_due(&mut book, end), ["close 80"]);
    }

    #[test]
    fn a_closing_that_keeps_failing_is_given_up_and_still_told() {
        let (mut book, mut now, commands) =
            (Book::default(), Instant::now(), commands(&["{port}"]));
        open(&mut book, claim("a", &[80], 60), &commands, now);
        book.settle(&name("a"), None, now);
        let mut tries = 0;
        while let Some(next) = book.next_change() {
            now = next;
            let owed = book.due(None, now).unwrap();
            book.failed(&owed.run, now);
            tries += 1;
        }
        assert_eq!(tries, 1 + BACK_OFF.len());
        assert!(book.stuck().is_some_and(|owed| owed.due.is_none()));
        assert_eq!(book.openings().len(), 1, "a restart tries again");
        book.close_all(now);
        assert_eq!(close_due(&mut book, now), ["close 80"]);
    }

    #[test]
    fn what_a_restart_finds_is_closed_unless_a_lease_lives() {
        let (mut book, now, commands) = (Book::default(), Instant::now(), commands(&["{port}"]));
        open(&mut book, claim("a", &[80], 60), &commands, now);
        open(&mut book, claim("b", &[443], 60), &commands, now);
        let mut book = Book::recover(book.openings(), &commands);
        let left = Duration::from_secs(30);
        assert_eq!(book.living(&name("b"), left, now), Some(2));
        assert_eq!(book.living(&name("c"), left, now), None);
        assert_eq!(book.sweep(now), 1);
        assert_eq!(close_due(&mut book, now), ["close 80"]);
        book.expire(now + left);
        assert_eq!(close_due(&mut book, now + left), ["close 443"]);
    }

    #[test]
    fn bounds_are_the_enforcers() {
        let (mut book, now, commands) = (Book::default(), Instant::now(), commands(&["{port}"]));
        let mut refusal = |claim| book.open(claim, &commands, &limits(), now).err();
        assert_eq!(refusal(claim("a", &[22], 60)), Some(Refusal::Port));
        assert_eq!(refusal(claim("a", &[], 60)), Some(Refusal::Port));
        assert_eq!(refusal(claim("a", &[80], 601)), Some(Refusal::Length));
        assert_eq!(refusal(claim("a", &[80], 0)), Some(Refusal::Length));
        for _ in 0..20 {
            let by_user = Claim {
                caller: 1000,
                ..claim("a", &[80], 60)
            };
            assert_eq!(refusal(by_user), None);
        }
        let by_user = Claim {
            caller: 1000,
            ..claim("a", &[80], 60)
        };
        assert_eq!(refusal(by_user), Some(Refusal::Budget));
    }
}
