//! Turns callers' words into values, or into a refusal that says what to write instead.

use std::net::IpAddr;

use super::refused::Refused;
use crate::answer::PushedAnswer;
use crate::control::protocol::{DigestWord, Exit};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::lease::{Entrance, Interface, LeaseName};
use crate::gate::site::Site;
use crate::gate::token::{KeyAuthorization, KeyAuthorizationDigest, TlsAnswer, Token};

/// What a caller tells of an answer.
pub(super) enum Told {
    /// All of it.
    Whole(ChallengeType, KeyAuthorization),
    /// Only what TLS-ALPN-01 needs.
    Digest(Token, KeyAuthorizationDigest),
}

impl Told {
    /// Reads what was told.
    ///
    /// # Errors
    /// [`Refused`]: it is no answer to this challenge.
    pub(super) fn of(
        challenge: ChallengeType,
        key_authorization: Option<String>,
        digest: Option<DigestWord>,
    ) -> Result<Self, Refused> {
        let wrong = |message: &str| Refused::new(Exit::Data, message);
        match (key_authorization, digest) {
            (Some(text), None) => KeyAuthorization::parse(text.as_bytes())
                .map(|answer| Self::Whole(challenge, answer))
                .ok_or_else(|| {
                    wrong(
                        "this is not a key authorization: it must be TOKEN.THUMBPRINT (certbot: $CERTBOT_VALIDATION of http-01)",
                    )
                }),
            (None, Some(_)) if challenge != ChallengeType::TlsAlpn01 => Err(wrong(
                "a digest answers tls-alpn-01 alone: give the whole key authorization",
            )),
            (None, Some(told)) => {
                let token = Token::parse(told.token.as_bytes())
                    .map_err(|error| wrong(&error.to_string()))?;
                let digest = KeyAuthorizationDigest::parse(told.sha256.as_bytes()).ok_or_else(
                    || wrong("this is not a SHA-256 digest in base64url: it has 43 characters"),
                )?;
                Ok(Self::Digest(token, digest))
            }
            (None, None) | (Some(_), Some(_)) => Err(wrong(
                "an answer is a key authorization, or a token and a digest, and not both",
            )),
        }
    }

    /// What to answer, if it is of an account that the site names, or the site names none.
    pub(super) fn vouched_by(self, site: &Site) -> Result<PushedAnswer, Account> {
        match self {
            Self::Whole(challenge, answer) => {
                let account = answer.thumbprint();
                if !site.accounts.is_empty() && !site.accounts.contains(account) {
                    return Err(Account::Named(account.as_str().to_owned()));
                }
                Ok(match challenge {
                    ChallengeType::Http01 => PushedAnswer::Http01(answer),
                    ChallengeType::TlsAlpn01 => PushedAnswer::TlsAlpn01(answer.into()),
                })
            }
            Self::Digest(token, digest) if site.accounts.is_empty() => {
                let answer = TlsAnswer::of_digest(token, digest);
                Ok(PushedAnswer::TlsAlpn01(answer))
            }
            Self::Digest(token, digest) => {
                let of_accounts = site.accounts.iter();
                let mut of_accounts = of_accounts
                    .map(|account| KeyAuthorization::new(token.clone(), account.clone()));
                of_accounts
                    .find(|answer| answer.digest() == digest)
                    .map(|answer| PushedAnswer::TlsAlpn01(answer.into()))
                    .ok_or(Account::Hidden)
            }
        }
    }
}

/// An account that a site does not name.
pub(super) enum Account {
    /// This one.
    Named(String),
    /// A digest does not tell whose it is.
    Hidden,
}

/// By which way a window is to be opened.
pub(super) fn entrance(
    address: Option<IpAddr>,
    interface: Option<&str>,
) -> Result<Entrance, Refused> {
    match (address, interface) {
        (None, None) => Ok(Entrance::Any),
        (Some(address), None) => Ok(Entrance::Address(address.to_canonical())),
        (None, Some(name)) => Interface::parse(name)
            .map(Entrance::Interface)
            .ok_or_else(|| {
                let name = name.escape_debug();
                Refused::new(Exit::Data, format!("`{name}` is no name of an interface"))
            }),
        (Some(_), Some(_)) => Err(Refused::new(
            Exit::Data,
            "an address or an interface, not both: an address is reached by any interface",
        )),
    }
}

pub(super) fn lease_name(text: &str) -> Result<LeaseName, Refused> {
    LeaseName::parse(text).ok_or_else(|| {
        Refused::new(
            Exit::Data,
            "a lease name is 1 to 40 of letters, digits and . _ : @ + -, and begins with no hyphen",
        )
    })
}

pub(super) fn identifier(text: &str) -> Result<Identifier, Refused> {
    Identifier::parse(text).map_err(|error| {
        Refused::new(
            Exit::Data,
            format!("`{}` is not an identifier: {error}", text.escape_debug()),
        )
    })
}
