//! Stateless answers: the account's thumbprint behind whatever token is asked.
//!
//! What it never does: look at the identifier. Whoever configures it answers for every order of
//! that account key, so the gate's sites decide which names it stands for. The token's alphabet,
//! which keeps such an answer from carrying markup (RFC 8555 §8.3), is checked by its type.

use crate::gate::token::{KeyAuthorization, Thumbprint, Token};

/// The key authorization of `token` by the account.
pub fn answer(token: &Token, account: &Thumbprint) -> KeyAuthorization {
    KeyAuthorization::new(token.clone(), account.clone())
}
