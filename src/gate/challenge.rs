//! Challenge types and the well-known path (RFC 8555 §8.3, RFC 8737).

use std::fmt;

use super::token::{Token, TokenError};

/// Where HTTP-01 answers stand, byte for byte (RFC 8555 §8.3).
pub const PREFIX: &str = "/.well-known/acme-challenge/";

/// A way to prove control of an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChallengeType {
    /// RFC 8555 §8.3: port 80.
    Http01,
    /// RFC 8737 §3: port 443.
    TlsAlpn01,
}

impl ChallengeType {
    /// Every type that comes to a port of ours.
    pub const ALL: [Self; 2] = [Self::Http01, Self::TlsAlpn01];

    /// The port that validators ask; fixed by the RFC that defines the type.
    pub fn port(self) -> u16 {
        match self {
            Self::Http01 => 80,
            Self::TlsAlpn01 => 443,
        }
    }

    /// The name registered for the type (RFC 8555 §9.7.8, RFC 8737 §6.3).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl fmt::Display for ChallengeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads a target as a challenge path: `None` when it is none, and never a normalised one.
///
/// # Errors
/// The prefix is there, byte-exact, but what follows is not a token.
pub fn token_of(target: &str) -> Option<Result<Token, TokenError>> {
    target
        .strip_prefix(PREFIX)
        .map(|rest| Token::parse(rest.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

    #[test]
    fn only_the_byte_exact_prefix_is_the_challenge_path() {
        assert!(matches!(token_of(&format!("{PREFIX}{TOKEN}")), Some(Ok(_))));
        for other in [
            format!("//.well-known/acme-challenge/{TOKEN}"),
            format!("/.Well-Known/acme-challenge/{TOKEN}"),
            format!("/./.well-known/acme-challenge/{TOKEN}"),
            format!("/%2ewell-known/acme-challenge/{TOKEN}"),
            format!("/.well-known//acme-challenge/{TOKEN}"),
            format!("/.well-known/acme-challenge{TOKEN}"),
            "/.well-known/acme-challenge".to_owned(),
        ] {
            assert!(token_of(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn nothing_may_follow_the_token() {
        for tail in ["/", "?", "?a=b", "#", ";", "%00", ".", "%2e", "/../x", "\\"] {
            let target = format!("{PREFIX}{TOKEN}{tail}");
            assert!(matches!(token_of(&target), Some(Err(_))), "{target}");
        }
        assert!(matches!(token_of(PREFIX), Some(Err(TokenError::Length))));
    }
}
