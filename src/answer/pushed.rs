//! Key authorizations that hooks pushed, each bound to its identifier and to a deadline.
//!
//! What it is for: answering from memory, in the accept task, without a file or a wait. What it
//! never does: answer for another identifier than the one that was named, grow without bound, read
//! a clock, or keep anything over a restart (a client whose order outlives us orders again).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::gate::identifier::Identifier;
use crate::gate::token::{KeyAuthorization, Token};

/// The most entries that live at once: forty orders of 100 names, at some 300 octets each.
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

/// One living entry, as `status` shows it: without its key authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The identifier that it answers for.
    pub identifier: Identifier,
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
    /// A token is asked by its bytes; the identifiers that share one are few.
    entries: HashMap<Token, Vec<Entry>>,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    identifier: Identifier,
    key_authorization: KeyAuthorization,
    deadline: Instant,
}

impl Pushed {
    /// Takes `key_authorization` in for `identifier`, for `lifetime` but never longer than
    /// [`MAX_LIFETIME`]. What was there for the same token and identifier is replaced.
    ///
    /// # Errors
    /// [`Full`]; then nothing has changed but that expired entries are gone.
    pub fn add(
        &self,
        identifier: Identifier,
        key_authorization: KeyAuthorization,
        lifetime: Duration,
        now: Instant,
    ) -> Result<(), Full> {
        let mut store = self.lock();
        let token = key_authorization.token().clone();
        let entry = Entry {
            identifier,
            key_authorization,
            deadline: now + lifetime.min(MAX_LIFETIME),
        };
        if let Some(own) = store.entry(&token, &entry.identifier) {
            *own = entry;
            return Ok(());
        }
        if store.count >= MAX_ENTRIES {
            store.sweep(now);
        }
        if store.count >= MAX_ENTRIES {
            return Err(Full);
        }
        store.count += 1;
        store.entries.entry(token).or_default().push(entry);
        Ok(())
    }

    /// Removes an entry; `false` when there was none that still lived.
    pub fn remove(&self, identifier: &Identifier, token: &Token, now: Instant) -> bool {
        let mut store = self.lock();
        store.sweep(now);
        store.retain(|entry| {
            entry.identifier != *identifier || entry.key_authorization.token() != token
        })
    }

    /// The key authorization that was pushed for this token of this identifier.
    pub fn find(
        &self,
        token: &Token,
        identifier: &Identifier,
        now: Instant,
    ) -> Option<KeyAuthorization> {
        let mut store = self.lock();
        let entry = store.entry(token, identifier)?;
        (entry.deadline > now).then(|| entry.key_authorization.clone())
    }

    /// Every living entry, by identifier and token.
    pub fn list(&self, now: Instant) -> Vec<Listed> {
        let mut store = self.lock();
        store.sweep(now);
        let mut listed: Vec<_> = store
            .entries
            .values()
            .flatten()
            .map(|entry| Listed {
                identifier: entry.identifier.clone(),
                token: entry.key_authorization.token().clone(),
                remaining: entry.deadline.saturating_duration_since(now),
            })
            .collect();
        listed.sort_by(|a, b| (&a.identifier, &a.token).cmp(&(&b.identifier, &b.token)));
        listed
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        // No code in here can leave the store half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn entry(&mut self, token: &Token, identifier: &Identifier) -> Option<&mut Entry> {
        let entries = self.entries.get_mut(token)?;
        entries
            .iter_mut()
            .find(|entry| entry.identifier == *identifier)
    }

    fn sweep(&mut self, now: Instant) {
        self.retain(|entry| entry.deadline > now);
    }

    /// Keeps what `stays`, and says whether anything went.
    fn retain(&mut self, stays: impl Fn(&Entry) -> bool) -> bool {
        let before = self.count;
        self.entries.retain(|_, entries| {
            entries.retain(|entry| stays(entry));
            !entries.is_empty()
        });
        self.count = self.entries.values().map(Vec::len).sum();
        self.count < before
    }
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

    #[test]
    fn an_entry_answers_for_its_identifier_until_its_deadline() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let (a, b) = (identifier("a.test"), identifier("b.test"));
        let hour = DEFAULT_LIFETIME;
        pushed.add(a.clone(), answer(1), hour, now).unwrap();
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
                .add(name.clone(), answer(1), DEFAULT_LIFETIME, now)
                .unwrap();
        }
        assert_eq!(pushed.list(now).len(), 2);
        assert!(pushed.remove(&a, &token, now));
        assert!(!pushed.remove(&a, &token, now));
        assert_eq!(pushed.find(&token, &a, now), None);
        assert_eq!(pushed.find(&token, &b, now), Some(answer(1)));
    }

    #[test]
    fn pushing_again_replaces_and_nothing_lives_longer_than_a_day() {
        let (pushed, now) = (Pushed::default(), Instant::now());
        let a = identifier("a.test");
        for lifetime in [Duration::from_secs(1), Duration::MAX] {
            pushed.add(a.clone(), answer(1), lifetime, now).unwrap();
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
            pushed.add(a.clone(), answer(number), Duration::from_secs(seconds), now)
        };
        for number in 0..MAX_ENTRIES {
            add(number, if number == 7 { 10 } else { 60 }, now).unwrap();
        }
        assert_eq!(add(MAX_ENTRIES, 60, now), Err(Full));
        // What is there already may still be renewed.
        assert_eq!(add(0, 60, now), Ok(()));
        let later = now + Duration::from_secs(10);
        assert_eq!(add(MAX_ENTRIES, 60, later), Ok(()));
        assert_eq!(add(MAX_ENTRIES + 1, 60, later), Err(Full));
        assert_eq!(pushed.list(later).len(), MAX_ENTRIES);
    }
}
