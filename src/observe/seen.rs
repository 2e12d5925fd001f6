//! Which accounts were answered for, so that `status` can show them ready to paste.

use std::collections::{HashMap, VecDeque};

use crate::gate::identifier::Identifier;
use crate::gate::token::Thumbprint;

/// How many pairs are kept. A host with more identifiers than this forgets the oldest.
const MAX_SEEN: usize = 256;

/// Pairs of identifier and account, the most recently new one last. Bounded, and by its accounts
/// also fair: where a site answers any token of any name by its account's thumbprint, peers choose
/// the names, and push out no other account than that one.
#[derive(Debug, Default)]
pub struct Seen {
    pairs: VecDeque<(Identifier, Thumbprint)>,
}

impl Seen {
    /// Remembers a pair.
    pub fn note(&mut self, identifier: &Identifier, thumbprint: &Thumbprint) {
        let known = self
            .pairs
            .iter()
            .any(|(name, account)| name == identifier && account == thumbprint);
        if known {
            return;
        }
        if self.pairs.len() >= MAX_SEEN {
            self.forget_one();
        }
        self.pairs
            .push_back((identifier.clone(), thumbprint.clone()));
    }

    /// Forgets the oldest pair of the account that has the most.
    fn forget_one(&mut self) {
        let mut pairs_of = HashMap::<&str, usize>::new();
        for (_, account) in &self.pairs {
            *pairs_of.entry(account.as_str()).or_default() += 1;
        }
        let most = pairs_of.values().max().copied();
        let has_most = |account: &Thumbprint| pairs_of.get(account.as_str()).copied() == most;
        let oldest = self.pairs.iter().position(|(_, account)| has_most(account));
        if let Some(oldest) = oldest {
            self.pairs.remove(oldest);
        }
    }

    /// Every pair, oldest first.
    pub fn list(&self) -> Vec<(Identifier, Thumbprint)> {
        self.pairs.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_each_pair_once_and_never_more_than_its_bound() {
        let mut seen = Seen::default();
        let account = Thumbprint::parse(&[b'a'; 43]).unwrap();
        for at in 0..2 * MAX_SEEN {
            let name = Identifier::parse(&format!("n{at}.test")).unwrap();
            seen.note(&name, &account);
            seen.note(&name, &account);
        }
        assert_eq!(seen.list().len(), MAX_SEEN);
        assert_eq!(seen.list()[0].0.to_string(), format!("n{MAX_SEEN}.test"));
    }

    #[test]
    fn names_that_peers_choose_push_out_no_other_account() {
        let mut seen = Seen::default();
        let [own, flooded] = [b'a', b'b'].map(|byte| Thumbprint::parse(&[byte; 43]).unwrap());
        let name = Identifier::parse("own.test").unwrap();
        seen.note(&name, &own);
        for at in 0..2 * MAX_SEEN {
            let name = Identifier::parse(&format!("n{at}.test")).unwrap();
            seen.note(&name, &flooded);
        }
        assert_eq!(seen.list().len(), MAX_SEEN);
        assert!(seen.list().contains(&(name, own)));
    }
}
