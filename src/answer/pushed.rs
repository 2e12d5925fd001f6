//! Answers that hooks pushed, each bound to its challenge type, its identifier and a deadline.
//!
//! What it is for: answering from memory, in the accept task, without a file or a wait. What it
//! never does: answer for another identifier or by another challenge than was named, grow without
//! bound, read a clock, or keep anything over a restart (a client whose order outlives us orders
//! again).

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::token::{KeyAuthorization, TlsAnswer, Token};
use crate::locked::locked;

/// The most entries that live at once, of all types: forty orders of 100 names, at some 300 octets
/// each.
pub const MAX_ENTRIES: usize = 4096;
/// How long an entry lives if its pusher does not say: longer than any validation waits.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// The longest that an entry may live. Whatever is older was forgotten by its pusher.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Why an entry was not taken: [`MAX_ENTRIES`] live already. The operator's or a hook's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{MAX_ENTRIES} tokens are held already; remove some, or wait until they expire"
        )
    }
}

impl std::error::Error for Full {}

/// What is pushed: an answer and the challenge that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushedAnswer {
    /// The body of a response.
    Http01(KeyAuthorization),
    /// What a certificate carries.
    TlsAlpn01(TlsAnswer),
}

impl PushedAnswer {
    /// The token that it answers.
    pub fn token(&self) -> &Token {
        match self {
            Self::Http01(answer) => answer.token(),
            Self::TlsAlpn01(answer) => answer.token(),
        }
    }
}

/// One living entry, as `status` shows it: without what it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identifier that it answers for.
    pub identifier: Identifier,
    /// The challenge that it answers.
    pub challenge: ChallengeType,
    /// The token that it answers.
    pub token: Token,
    /// How long it still lives.
    pub remaining: Duration,
}

/// The store. Shared by control, which writes, and the answers, which read.
#[derive(Debug, Default)]
pub struct Pushed(Mutex<Store>);

#[derive(Debug, Default)]
struct Store {
    /// A request names its token; the identifiers that share one are few.
    http: HashMap<Token, Vec<Entry<KeyAuthorization>>>,
    /// A ClientHello names no token; the newest entry of its identifier is the last one.
    tls: HashMap<Identifier, Vec<Entry<TlsAnswer>>>,
}

#[derive(Debug)]
struct Entry<A> {
    identifier: Identifier,
    answer: A,
    deadline: Instant,
}

impl Pushed {
    /// Takes `answer` in for `identifier`, for `lifetime` but never longer than [`MAX_LIFETIME`].
    /// What was there for the same challenge, token and identifier is replaced.
    ///
    /// # Errors
    /// [`Full`]; then nothing has changed but that expired entries are gone.
    pub fn add(
        &self,
        identifier: Identifier,
        answer: PushedAnswer,
        lifetime: Duration,
        now: Instant,
    ) -> Result<(), Full> {
        let mut store = self.lock();
        let deadline = now + lifetime.min(MAX_LIFETIME);
        if !store.has(&identifier, &answer) {
            if store.count() >= MAX_ENTRIES {
                store.sweep(now);
            }
            if store.count() >= MAX_ENTRIES {
                return Err(Full);
            }
        }
        match answer {
            PushedAnswer::Http01(answer) => {
                let entries = store.http.entry(answer.token().clone()).or_default();
                entries.retain(|entry| entry.identifier != identifier);
                entries.push(Entry {
                    identifier,
                    answer,
                    deadline,
                });
            }
            PushedAnswer::TlsAlpn01(answer) => {
                let entries = store.tls.entry(identifier.clone()).or_default();
                entries.retain(|entry| entry.answer.token() != answer.token());
                entries.push(Entry {
                    identifier,
                    answer,
                    deadline,
                });
            }
        }
        Ok(())
    }

    /// Removes an entry; `false` when there was none that still lived.
    pub fn remove(
        &self,
        challenge: ChallengeType,
        identifier: &Identifier,
        token: &Token,
        now: Instant,
    ) -> bool {
        let mut store = self.lock();
        store.sweep(now);
        let before = store.count();
        match challenge {
            ChallengeType::Http01 => retain(&mut store.http, |entry| {
                entry.identifier != *identifier || entry.answer.token() != token
            }),
            ChallengeType::TlsAlpn01 => retain(&mut store.tls, |entry| {
                entry.identifier != *identifier || entry.answer.token() != token
            }),
        }
        store.count() < before
    }

    /// The key authorization that was pushed for this token of this identifier.
    pub fn find(
        &self,
        token: &Token,
        identifier: &Identifier,
        now: Instant,
    ) -> Option<KeyAuthorization> {
        let store = self.lock();
        let mut entries = store.http.get(token)?.iter();
        let entry = entries.find(|entry| entry.identifier == *identifier)?;
        (entry.deadline > now).then(|| entry.answer.clone())
    }

    /// The answer by TLS-ALPN-01 that was pushed last for this identifier, of those that live.
    pub fn find_tls(&self, identifier: &Identifier, now: Instant) -> Option<TlsAnswer> {
        let store = self.lock();
        let mut newest_first = store.tls.get(identifier)?.iter().rev();
        let entry = newest_first.find(|entry| entry.deadline > now)?;
        Some(entry.answer.clone())
    }

    /// Until when this token of this identifier is answered, by whatever challenge.
    pub fn answered_until(
        &self,
        identifier: &Identifier,
        token: &Token,
        now: Instant,
    ) -> Option<Instant> {
        let store = self.lock();
        let http = store.http.get(token).into_iter().flatten();
        let http = http.filter(|entry| entry.identifier == *identifier);
        let tls = store.tls.get(identifier).into_iter().flatten();
        let tls = tls.filter(|entry| entry.answer.token() == token);
        let deadlines = http
            .map(|entry| entry.deadline)
            .chain(tls.map(|entry| entry.deadline));
        deadlines.max().filter(|deadline| *deadline > now)
    }

    /// Every living entry, by identifier, challenge and token.
    pub fn list(&self, now: Instant) -> Vec<Listed> {
        let mut store = self.lock();
        store.sweep(now);
        let http = store.http.values().flatten();
        let tls = store.tls.values().flatten();
        let http = http.map(|entry| entry.listed(ChallengeType::Http01, entry.answer.token(), now));
        let tls =
            tls.map(|entry| entry.listed(ChallengeType::TlsAlpn01, entry.answer.token(), now));
        let mut listed: Vec<_> = http.chain(tls).collect();
        listed.sort_by(|a, b| {
            (&a.identifier, a.challenge, &a.token).cmp(&(&b.identifier, b.challenge, &b.token))
        });
        listed
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        locked(&self.0)
    }
}

impl Store {
    fn has(&self, identifier: &Identifier, answer: &PushedAnswer) -> bool {
        match answer {
            PushedAnswer::Http01(answer) => {
                let entries = self.http.get(answer.token());
                let mut entries = entries.into_iter().flatten();
                entries.any(|entry| entry.identifier == *identifier)
            }
            PushedAnswer::TlsAlpn01(answer) => {
                let mut entries = self.tls.get(identifier).into_iter().flatten();
                entries.any(|entry| entry.answer.token() == answer.token())
            }
        }
    }

    fn sweep(&mut self, now: Instant) {
        retain(&mut self.http, |entry| entry.deadline > now);
        retain(&mut self.tls, |entry| entry.deadline > now);
    }

    fn count(&self) -> usize {
        let http: usize = self.http.values().map(Vec::len).sum();
        let tls: usize = self.tls.values().map(Vec::len).sum();
        http + tls
    }
}

impl<A> Entry<A> {
    fn listed(&self, challenge: ChallengeType, token: &Token, now: Instant) -> Listed {
        Listed {
            identifier: self.identifier.clone(),
            challenge,
            token: token.clone(),
            remaining: self.deadline.saturating_duration_since(now),
        }
    }
}

/// Keeps what `stays`, and no key without an entry.
fn retain<K: Eq + Hash, A>(
    entries: &mut HashMap<K, Vec<Entry<A>>>,
    stays: impl Fn(&Entry<A>) -> bool,
) {
    entries.retain(|_, entries| {
        entries.retain(|entry| stays(entry));
        !entries.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::token::Thumbprint;

    const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

    fn identifier(text: &str) -> Identifier {
        Identifier::parse(text).unwrap()
    }

    fn answer(number: usize) -> KeyAuthorization {
        let token = Token::parse(format!("{number:022}").as_bytes()).unwrap();
        KeyAuthorization::new(token, Thumbprint::parse(THUMBPRINT.as_bytes()).unwrap())
    }

    fn http(number: usize) -> PushedAnswer {
        PushedAnswer::Http01(answer(number))
    }

    fn tls(number: usize) -> PushedAnswer {
        PushedAnswer::TlsAlpn01(answer(number).into())
    }

    #[test]
    fn an_entry_answers_for_its_identifier_until_its_deadline() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let (a, b) = (identifier("a.test"), identifier("b.test"));
        let hour = DEFAULT_LIFETIME;
        pushed.add(a.clone(), http(1), hour, now).unwrap();
        let token = answer(1).token().clone();
        assert_eq!(pushed.find(&token, &a, now), Some(answer(1)));
        assert_eq!(pushed.find(&token, &b, now), None);
        assert_eq!(pushed.find(answer(2).token(), &a, now), None);
        let almost = now + hour - Duration::from_nanos(1);
        assert_eq!(pushed.find(&token, &a, almost), Some(answer(1)));
        assert_eq!(pushed.find(&token, &a, now + hour), None);
        assert_eq!(pushed.list(now + hour), []);
    }

    #[test]
    fn identifiers_that_share_a_token_do_not_share_its_entry() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let (a, b) = (identifier("a.test"), identifier("b.test"));
        let token = answer(1).token().clone();
        for name in [&a, &b] {
            pushed
                .add(name.clone(), http(1), DEFAULT_LIFETIME, now)
                .unwrap();
        }
        assert_eq!(pushed.list(now).len(), 2);
        assert!(pushed.remove(ChallengeType::Http01, &a, &token, now));
        assert!(!pushed.remove(ChallengeType::Http01, &a, &token, now));
        assert_eq!(pushed.find(&token, &a, now), None);
        assert_eq!(pushed.find(&token, &b, now), Some(answer(1)));
    }

    #[test]
    fn pushing_again_replaces_and_nothing_lives_longer_than_a_day() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let a = identifier("a.test");
        for lifetime in [Duration::from_secs(1), Duration::MAX] {
            pushed.add(a.clone(), http(1), lifetime, now).unwrap();
        }
        let listed = pushed.list(now);
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].remaining, MAX_LIFETIME);
        assert!(!format!("{listed:?}{pushed:?}").contains(THUMBPRINT));
    }

    #[test]
    fn a_full_store_refuses_until_something_has_expired() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let a = identifier("a.test");
        let add = |number: usize, seconds, now| {
            let answer = match number % 2 {
                0 => http(number),
                _ => tls(number),
            };
            pushed.add(a.clone(), answer, Duration::from_secs(seconds), now)
        };
        for number in 0..MAX_ENTRIES {
            add(number, if number == 7 { 10 } else { 60 }, now).unwrap();
        }
        assert_eq!(add(MAX_ENTRIES, 60, now), Err(Full));
        // What is there already may still be renewed.
        assert_eq!(add(0, 60, now), Ok(()));
        assert_eq!(add(1, 60, now), Ok(()));
        let later = now + Duration::from_secs(10);
        assert_eq!(add(MAX_ENTRIES, 60, later), Ok(()));
        assert_eq!(add(MAX_ENTRIES + 1, 60, later), Err(Full));
        assert_eq!(pushed.list(later).len(), MAX_ENTRIES);
    }

    #[test]
    fn the_newest_living_answer_by_tls_is_found_by_its_identifier() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let (a, b) = (identifier("a.test"), identifier("b.test"));
        let found = |name, at| {
            let answer: Option<TlsAnswer> = pushed.find_tls(name, at);
            answer.map(|answer| answer.token().clone())
        };
        let token = |number| Some(answer(number).token().clone());
        let add = |number, seconds| {
            let lifetime = Duration::from_secs(seconds);
            pushed.add(a.clone(), tls(number), lifetime, now).unwrap();
        };
        let remove = |number| {
            let token = answer(number).token().clone();
            pushed.remove(ChallengeType::TlsAlpn01, &a, &token, now)
        };
        assert_eq!(found(&a, now), None);
        add(1, 60);
        add(2, 60);
        add(3, 10);
        assert_eq!(found(&a, now), token(3));
        assert_eq!(found(&b, now), None);
        // An older one is back when the newer one is gone, by its time or by its pusher's word.
        assert_eq!(found(&a, now + Duration::from_secs(10)), token(2));
        assert!(remove(2) && !remove(2));
        assert_eq!(found(&a, now + Duration::from_secs(10)), token(1));
        // What is pushed again is the newest, and still there once.
        add(1, 60);
        assert_eq!(found(&a, now), token(1));
        assert_eq!(pushed.list(now).len(), 2);
        assert!(remove(1) && remove(3));
        assert_eq!(found(&a, now), None);
        assert_eq!(pushed.lock().tls.len(), 0);
    }

    #[test]
    fn an_answer_to_one_challenge_answers_no_other() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let a = identifier("a.test");
        let token = answer(1).token().clone();
        let add = |answer| pushed.add(a.clone(), answer, DEFAULT_LIFETIME, now);
        add(http(1)).unwrap();
        assert_eq!(pushed.find_tls(&a, now), None);
        assert!(!pushed.remove(ChallengeType::TlsAlpn01, &a, &token, now));
        add(tls(1)).unwrap();
        let types: Vec<_> = pushed.list(now).iter().map(|one| one.challenge).collect();
        assert_eq!(types, ChallengeType::ALL);
        assert!(pushed.remove(ChallengeType::Http01, &a, &token, now));
        assert_eq!(pushed.find(&token, &a, now), None);
        assert_eq!(pushed.find_tls(&a, now), Some(answer(1).into()));
    }

    #[test]
    fn a_token_is_answered_until_its_last_entry_ends() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let a = identifier("a.test");
        let token = answer(1).token().clone();
        let seconds = Duration::from_secs;
        let until = |at| pushed.answered_until(&a, &token, at);
        assert_eq!(until(now), None);
        pushed.add(a.clone(), tls(1), seconds(60), now).unwrap();
        pushed.add(a.clone(), http(1), seconds(10), now).unwrap();
        assert_eq!(until(now), Some(now + seconds(60)));
        assert!(pushed.remove(ChallengeType::TlsAlpn01, &a, &token, now));
        assert_eq!(until(now), Some(now + seconds(10)));
        assert_eq!(until(now + seconds(10)), None);
    }
}
