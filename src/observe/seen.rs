//! Which accounts were answered for, so that `status` can show them ready to paste.

use std::collections::VecDeque;

use crate::gate::identifier::Identifier;
use crate::gate::token::Thumbprint;

/// How many pairs are kept. A host with more identifiers than this forgets the oldest.
const MAX_SEEN: usize = 256;

/// Pairs of identifier and account, the most recently new one last. Bounded: tokens that nobody
/// announced bring no thumbprint, so only this host's own clients and upstreams fill it.
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
            self.pairs.pop_front();
        }
        self.pairs
            .push_back((identifier.clone(), thumbprint.clone()));
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
}
