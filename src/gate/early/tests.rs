use proptest::prelude::*;

use super::super::lease::{Families, Scope, Trigger};
use super::*;

const SETTLE: u64 = 5;

fn rule(when: When) -> Rule {
    Rule {
        when,
        settle: Duration::from_secs(SETTLE),
        quorum: 3,
    }
}

fn identifier(text: &str) -> Identifier {
    Identifier::parse(text).unwrap()
}

fn token(number: usize) -> Token {
    Token::parse(format!("{number:022}").as_bytes()).unwrap()
}

fn network(number: u8) -> Network {
    Network::of(IpAddr::from([198, number, 100, 7]))
}

fn lease(name: &str, identifiers: Option<&[&str]>, deadline: Instant) -> Lease {
    Lease {
        id: 0,
        name: LeaseName::parse(name).unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families::BOTH,
            entrance: crate::gate::lease::Entrance::Any,
            identifiers: identifiers
                .map(|names| names.iter().map(|name| identifier(name)).collect()),
        },
        deadline,
    }
}

/// One lease in a book of its own, and a clock in seconds.
struct Story {
    early: Early,
    lease: Lease,
    start: Instant,
}

impl Story {
    fn new(when: When, identifiers: Option<&[&str]>) -> Self {
        let start = Instant::now();
        let lease = lease("a", identifiers, start + Duration::from_secs(600));
        let mut early = Early::new(rule(when));
        early.follow([&lease].into_iter(), start);
        Self {
            early,
            lease,
            start,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn push(&mut self, name: &str, number: usize, until: u64) {
        let until = self.at(until);
        self.early.pushed(&identifier(name), &token(number), until);
    }

    fn withdraw(&mut self, name: &str, number: usize, now: u64) {
        let now = self.at(now);
        self.early.withdrawn(&identifier(name), &token(number), now);
    }

    fn answer(&mut self, name: &str, number: usize, from: u8, now: u64) {
        self.answer_any(name, number, from, false, now);
    }

    fn answer_any(&mut self, name: &str, number: usize, from: u8, is_any: bool, now: u64) {
        let now = self.at(now);
        let (name, token) = (identifier(name), token(number));
        self.early
            .answered(&name, &token, network(from), is_any, now);
    }

    /// Not due a second before, due then, and told once.
    #[track_caller]
    fn is_due(&mut self, seconds: u64, why: Why) {
        assert_eq!(self.early.next(), Some(self.at(seconds)));
        assert_eq!(self.early.take_due(self.at(seconds - 1)), []);
        let due = self.early.take_due(self.at(seconds));
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].why, due[0].deadline), (why, self.lease.deadline));
        assert_eq!(self.early.take_due(self.at(599)), []);
    }

    #[track_caller]
    fn is_never_due(&mut self) {
        assert_eq!(self.early.next(), None);
        assert_eq!(self.early.take_due(self.at(599)), []);
    }
}

#[test]
fn a_lease_ends_when_the_last_of_its_tokens_is_gone_for_a_while() {
    for when in [When::Tokens, When::Quorum] {
        let mut story = Story::new(when, None);
        story.is_never_due();
        story.push("a.test", 1, 300);
        story.push("b.test", 2, 300);
        story.withdraw("a.test", 1, 10);
        assert_eq!(story.early.take_due(story.at(20)), []);
        story.withdraw("b.test", 2, 12);
        // A new one before the while is over.
        story.push("c.test", 3, 300);
        assert_eq!(story.early.take_due(story.at(30)), []);
        story.withdraw("c.test", 3, 40);
        story.is_due(40 + SETTLE, Why::TokensGone);
    }
}

#[test]
fn a_token_that_expires_is_gone_like_one_that_was_withdrawn() {
    let mut story = Story::new(When::Tokens, None);
    story.push("a.test", 1, 60);
    // Withdrawn after its end, it was gone at its end.
    story.withdraw("a.test", 1, 70);
    story.is_due(60 + SETTLE, Why::TokensGone);
}

#[test]
fn a_lease_with_identifiers_knows_its_own_tokens() {
    let mut story = Story::new(When::Tokens, Some(&["a.test"]));
    story.push("b.test", 1, 300);
    story.withdraw("b.test", 1, 10);
    story.is_never_due();
    story.push("a.test", 2, 300);
    story.push("b.test", 3, 300);
    story.withdraw("a.test", 2, 20);
    story.is_due(20 + SETTLE, Why::TokensGone);
    // After a restart of the daemon nobody knows which: none is its own.
    let mut story = Story::new(When::Quorum, Some(&[]));
    story.push("a.test", 1, 10);
    story.is_never_due();
}

#[test]
fn a_quorum_is_of_networks_and_of_every_token_that_lives() {
    let mut story = Story::new(When::Quorum, None);
    for number in [1, 2] {
        story.push("a.test", number, 300);
    }
    for from in [1, 1, 1, 2, 2] {
        story.answer("a.test", 1, from, 10);
    }
    assert_eq!(story.early.take_due(story.at(100)), []);
    story.answer("a.test", 1, 3, 11);
    // Now the other one is what it waits for, for as long as that lives.
    assert_eq!(story.early.next(), Some(story.at(300)));
    for from in [1, 2, 3] {
        story.answer("a.test", 2, from, 20);
    }
    // Somebody asks once more: a straggler, or the CA's second try.
    story.answer("a.test", 2, 4, 22);
    story.is_due(22 + SETTLE, Why::Quorum);
}

#[test]
fn a_token_without_quorum_that_was_withdrawn_is_not_waited_for() {
    let mut story = Story::new(When::Quorum, None);
    story.push("a.test", 1, 300);
    story.push("b.test", 2, 300);
    for from in [1, 2, 3] {
        story.answer("a.test", 1, from, 10);
    }
    story.withdraw("b.test", 2, 30);
    story.is_due(30, Why::Quorum);
}

#[test]
fn of_tokens_that_nobody_pushed_each_one_asked_must_have_its_quorum() {
    let mut story = Story::new(When::Quorum, Some(&["a.test", "b.test"]));
    for from in [1, 2, 3] {
        story.answer("a.test", 1, from, 10);
    }
    // Every identifier that the lease names must be proven.
    story.is_never_due();
    for from in [1, 2] {
        story.answer("b.test", 2, from, 20);
    }
    story.is_never_due();
    story.answer("b.test", 2, 3, 21);
    story.answer("a.test", 3, 1, 22);
    story.is_never_due();
    for from in [2, 3] {
        story.answer("a.test", 3, from, 30);
    }
    story.is_due(30 + SETTLE, Why::Quorum);
}

#[test]
fn what_peers_make_up_proves_nothing_and_spoils_the_quorum() {
    let mut story = Story::new(When::Quorum, None);
    for from in [1, 2, 3] {
        story.answer_any("a.test", 1, from, true, 10);
    }
    story.is_never_due();
    // A token that was pushed is nobody's invention, whatever its site is.
    let mut story = Story::new(When::Quorum, None);
    story.push("a.test", 1, 300);
    for from in [1, 2, 3] {
        story.answer_any("a.test", 1, from, true, 10);
    }
    story.is_due(10 + SETTLE, Why::Quorum);
}

#[test]
fn a_lease_without_identifiers_that_had_company_is_left_alone_until_it_is_renewed() {
    let mut story = Story::new(When::Tokens, None);
    let other = lease("b", None, story.at(500));
    story.push("a.test", 1, 300);
    story
        .early
        .follow([&story.lease, &other].into_iter(), story.at(1));
    story.push("a.test", 2, 300);
    story.withdraw("a.test", 2, 3);
    story.is_never_due();
    story.early.follow([&story.lease].into_iter(), story.at(4));
    story.is_never_due();
    // The first token still waits for its validation.
    story.push("a.test", 3, 300);
    story.withdraw("a.test", 3, 10);
    story.is_never_due();
    story.lease.deadline += Duration::from_secs(1);
    let (lease, now) = (story.lease.clone(), story.at(20));
    story.early.follow([&lease].into_iter(), now);
    story.push("a.test", 4, 300);
    story.withdraw("a.test", 4, 30);
    story.is_due(30 + SETTLE, Why::TokensGone);
}

#[test]
fn a_renewed_lease_begins_anew_and_an_ended_one_is_forgotten() {
    let mut story = Story::new(When::Tokens, None);
    story.push("a.test", 1, 10);
    story.lease.deadline += Duration::from_secs(1);
    let (lease, now) = (story.lease.clone(), story.at(2));
    story.early.follow([&lease].into_iter(), now);
    story.is_never_due();
    story.push("a.test", 1, 10);
    story.early.follow([].into_iter(), now);
    story.is_never_due();
    // Off is off.
    let mut story = Story::new(When::Off, None);
    story.push("a.test", 1, 10);
    story.is_never_due();
}

#[test]
fn memory_is_bounded_and_what_is_too_much_leaves_the_lease_alone() {
    let mut story = Story::new(When::Quorum, None);
    for number in 0..MAX_TOKENS {
        story.push("a.test", number, 10);
        for from in 0..=255 {
            story.answer("a.test", number, from, 1);
        }
    }
    let evidence = &story.early.watched.values().next().unwrap().evidence;
    assert_eq!(evidence.tokens.len(), MAX_TOKENS);
    assert!(
        evidence
            .tokens
            .values()
            .all(|seen| seen.networks.len() == 3)
    );
    assert!(story.early.next().is_some());
    story.push("a.test", MAX_TOKENS, 10);
    story.is_never_due();
}

#[test]
fn a_network_is_a_slash_16_or_a_slash_32() {
    let of = |text: &str| Network::of(text.parse().unwrap());
    assert_eq!(of("198.51.100.7"), of("198.51.3.9"));
    assert_ne!(of("198.51.100.7"), of("198.52.100.7"));
    assert_eq!(of("::ffff:198.51.100.7"), of("198.51.3.9"));
    assert_eq!(of("2001:db8:1::1"), of("2001:db8:ffff::1"));
    assert_ne!(of("2001:db8::1"), of("2001:db9::1"));
}

#[derive(Clone, Debug)]
enum Step {
    OpenScoped(bool),
    Push(usize, usize, u64),
    Withdraw(usize, usize),
    Answer(usize, usize, u8),
}

const NAMES: [&str; 2] = ["a.test", "b.test"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(Step::OpenScoped),
        4 => (0..2usize, 0..3usize, 1..12u64).prop_map(|(n, t, l)| Step::Push(n, t, l)),
        4 => (0..2usize, 0..3usize).prop_map(|(n, t)| Step::Withdraw(n, t)),
        12 => (0..2usize, 0..3usize, 0..4u8).prop_map(|(n, t, f)| Step::Answer(n, t, f)),
    ]
}

/// The same by simulation: everything that happened, and a look at every second.
struct Oracle<'story> {
    history: &'story [(u64, Step)],
    /// From which step on evidence counts.
    since: usize,
    names: &'static [usize],
}

impl Oracle<'_> {
    fn own(&self) -> impl Iterator<Item = &(u64, Step)> {
        self.history[self.since..]
            .iter()
            .filter(|(_, step)| match step {
                Step::OpenScoped(_) => false,
                Step::Push(name, ..) | Step::Withdraw(name, _) | Step::Answer(name, ..) => {
                    self.names.contains(name)
                }
            })
    }

    fn was_pushed(&self, key: (usize, usize)) -> bool {
        self.own()
            .any(|(_, step)| matches!(step, Step::Push(n, t, _) if (*n, *t) == key))
    }

    /// Whether a token that was pushed lives at the end of second `now`.
    fn lives(&self, key: (usize, usize), now: u64) -> bool {
        let mut lives = false;
        for (at, step) in self.own().filter(|(at, _)| *at <= now) {
            match step {
                Step::Push(n, t, length) if (*n, *t) == key => lives = at + length > now,
                Step::Withdraw(n, t) if (*n, *t) == key => lives = false,
                _ => {}
            }
        }
        lives
    }

    fn networks(&self, key: (usize, usize)) -> usize {
        let mut seen = Vec::new();
        for (_, step) in self.own() {
            if let Step::Answer(n, t, from) = step
                && (*n, *t) == key
                && !seen.contains(from)
            {
                seen.push(*from);
            }
        }
        seen.len()
    }

    fn keys(&self) -> Vec<(usize, usize)> {
        let all = (0..2).flat_map(|name| (0..3).map(move |token| (name, token)));
        all.filter(|key| {
            self.own().any(|(_, step)| match step {
                Step::Push(n, t, _) | Step::Answer(n, t, _) => (*n, *t) == *key,
                _ => false,
            })
        })
        .collect()
    }

    fn tokens_gone(&self, now: u64) -> bool {
        let pushed: Vec<_> = self
            .keys()
            .into_iter()
            .filter(|key| self.was_pushed(*key))
            .collect();
        let is_quiet = |second: u64| pushed.iter().all(|key| !self.lives(*key, second));
        !pushed.is_empty()
            && now >= SETTLE
            // At the end of that second and of each one since, no token lived; and none was there
            // for a part of a second in between.
            && (now - SETTLE..=now).all(is_quiet)
            && !self
                .own()
                .any(|(at, step)| matches!(step, Step::Push(..)) && at + SETTLE > now)
            && !self.own().any(|(at, step)| {
                matches!(step, Step::Withdraw(n, t) if self.was_pushed((*n, *t))
                    && at + SETTLE > now && *at > 0 && self.lived_before(*at, (*n, *t)))
            })
    }

    /// Whether a token lived when second `at` began.
    fn lived_before(&self, at: u64, key: (usize, usize)) -> bool {
        let mut end = 0;
        for (when, step) in self.own().filter(|(when, _)| *when < at) {
            match step {
                Step::Push(n, t, length) if (*n, *t) == key => end = when + length,
                Step::Withdraw(n, t) if (*n, *t) == key => end = end.min(*when),
                _ => {}
            }
        }
        end > at
    }

    fn quorum(&self, now: u64, is_scoped: bool) -> bool {
        let keys = self.keys();
        let proven = |key: &(usize, usize)| self.networks(*key) >= 3;
        let are_proven = match is_scoped {
            true => self
                .names
                .iter()
                .all(|name| keys.iter().any(|key| key.0 == *name && proven(key))),
            false => keys.iter().any(proven),
        };
        are_proven
            && keys
                .iter()
                .filter(|key| !proven(key))
                .all(|key| self.was_pushed(*key) && !self.lives(*key, now))
            && !self
                .own()
                .any(|(at, step)| matches!(step, Step::Answer(..)) && at + SETTLE > now)
    }
}

proptest! {
    /// Two leases, one for everything and one for `a.test` that comes and goes; every second both
    /// books are asked which of them may end.
    #[test]
    fn the_book_agrees_with_a_simulation(
        steps in prop::collection::vec((0..4u64, step()), 0..60),
        with_quorum in any::<bool>(),
    ) {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let when = if with_quorum { When::Quorum } else { When::Tokens };
        let mut early = Early::new(rule(when));
        let all = lease("all", None, at(100_000));
        let one = lease("one", Some(&["a.test"]), at(100_000));
        let (mut all_since, mut one_since) = (0, 0);
        let (mut has_one, mut had_company) = (false, false);
        early.follow([&all].into_iter(), at(0));
        let mut history: Vec<(u64, Step)> = Vec::new();
        let mut second = 0;
        let mut steps = steps.into_iter().peekable();
        while steps.peek().is_some() || second < 400 {
            if steps.peek().is_none() && history.last().is_none_or(|(last, _)| last + 30 < second) {
                break;
            }
            while let Some((_, step)) = steps.next_if(|(gap, _)| {
                history.last().map_or(0, |(last, _)| *last) + gap <= second
            }) {
                history.push((second, step.clone()));
                match step {
                    Step::OpenScoped(is_open) => {
                        if is_open && !has_one {
                            one_since = history.len();
                        }
                        has_one = is_open;
                        let leases = [Some(&all), is_open.then_some(&one)];
                        early.follow(leases.into_iter().flatten(), at(second));
                        had_company |= is_open;
                    }
                    Step::Push(name, number, length) => {
                        early.pushed(&identifier(NAMES[name]), &token(number), at(second + length));
                    }
                    Step::Withdraw(name, number) => {
                        early.withdrawn(&identifier(NAMES[name]), &token(number), at(second));
                    }
                    Step::Answer(name, number, from) => {
                        early.answered(&identifier(NAMES[name]), &token(number), network(from), false, at(second));
                    }
                }
            }
            let due: Vec<String> = early.take_due(at(second)).iter().map(|due| due.name.to_string()).collect();
            let mut expected = Vec::new();
            if !had_company {
                let oracle = Oracle { history: &history, since: all_since, names: &[0, 1] };
                if oracle.tokens_gone(second) || (with_quorum && oracle.quorum(second, false)) {
                    expected.push("all".to_owned());
                    all_since = history.len();
                }
            }
            if has_one {
                let oracle = Oracle { history: &history, since: one_since, names: &[0] };
                if oracle.tokens_gone(second) || (with_quorum && oracle.quorum(second, true)) {
                    expected.push("one".to_owned());
                    one_since = history.len();
                }
            }
            prop_assert_eq!(due, expected, "second {}: {:?}", second, history);
            second += 1;
        }
    }
}
