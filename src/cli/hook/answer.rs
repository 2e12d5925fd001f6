//! What clients say of a challenge's answer, read: arguments and variables that somebody else's program gave.
//!
//! Nothing is asked here, and nothing read that was not given. What does not fit is said with who is at fault.

use std::ffi::OsStr;

use crate::control::protocol::{ChallengeName, Exit};
use crate::gate::token::KeyAuthorizationDigest;
use crate::observe::report::escape::plain;

/// What a client said that no answer can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Whose fault.
    pub exit: Exit,
    /// One line.
    pub message: String,
}

impl Unfit {
    fn of(exit: Exit, message: String) -> Self {
        Self { exit, message }
    }
}

/// A token has 128 characters at most and a thumbprint 43; far beyond, the request would be too
/// long for the control socket, which says so less plainly.
pub const MAX_VALUE_BYTES: usize = 1024;

/// What a client tells of the answer to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A key authorization.
    Http01(&'a str),
    /// The digest of one, in base64url.
    TlsAlpn01 {
        /// The token.
        token: &'a str,
        /// The digest.
        sha256: String,
    },
}

impl Answer<'_> {
    /// Which challenge it answers.
    pub fn challenge(&self) -> ChallengeName {
        match self {
            Self::Http01(_) => ChallengeName::Http01,
            Self::TlsAlpn01 { .. } => ChallengeName::TlsAlpn01,
        }
    }

    /// The token; empty where the client gave none.
    pub fn token(&self) -> &str {
        match self {
            Self::Http01(key_authorization) => token_of(key_authorization),
            Self::TlsAlpn01 { token, .. } => token,
        }
    }
}

/// An argument of the contract as text.
///
/// # Errors
/// [`Unfit`]: it is not UTF-8.
pub fn text<'a>(what: &str, argument: &'a OsStr) -> Result<&'a str, Unfit> {
    argument.to_str().ok_or_else(|| {
        Unfit::of(
            Exit::Data,
            format!(
                "{what} is not UTF-8: {}",
                plain(&argument.to_string_lossy())
            ),
        )
    })
}

/// What a client calls the validation's value: for http-01 a key authorization, for dns-01 and
/// tls-alpn-01 a digest.
///
/// # Errors
/// [`Unfit`]: it is too long, or of another challenge.
pub fn key_authorization<'a>(what: &str, value: &'a str) -> Result<Answer<'a>, Unfit> {
    bounded(what, value)?;
    match value.contains('.') {
        true => Ok(Answer::Http01(value)),
        false => Err(Unfit::of(
            Exit::Usage,
            format!(
                "{what} is not a key authorization: acmegate answers http-01, and this is another type, such as dns-01"
            ),
        )),
    }
}

/// The same where the contract gives the token as well: both must mean one challenge.
///
/// # Errors
/// [`Unfit`]: as [`key_authorization`], or they mean two.
pub fn key_authorization_of<'a>(
    token: &OsStr,
    what: &str,
    value: &'a OsStr,
) -> Result<Answer<'a>, Unfit> {
    let answer = key_authorization(what, text(what, value)?)?;
    match answer.token() == text("TOKEN", token)? {
        true => Ok(answer),
        false => Err(Unfit::of(
            Exit::Data,
            format!("{what} does not begin with TOKEN"),
        )),
    }
}

/// The same where the value alone tells the challenge: the digest of tls-alpn-01 comes in hexadecimal.
///
/// # Errors
/// [`Unfit`]: as [`key_authorization_of`].
pub fn either_of<'a>(token: &'a OsStr, what: &str, value: &'a OsStr) -> Result<Answer<'a>, Unfit> {
    let Some(sha256) = sha256_of(value) else {
        return key_authorization_of(token, what, value);
    };
    let token = text("TOKEN", token)?;
    bounded("TOKEN", token)?;
    Ok(Answer::TlsAlpn01 { token, sha256 })
}

/// The part before the full stop, which no token holds.
pub fn token_of(text: &str) -> &str {
    text.split_once('.').map_or(text, |(token, _)| token)
}

/// A value that a request has room for.
///
/// # Errors
/// [`Unfit`]: it is longer than [`MAX_VALUE_BYTES`].
pub fn bounded(what: &str, value: &str) -> Result<(), Unfit> {
    if value.len() <= MAX_VALUE_BYTES {
        return Ok(());
    }
    Err(Unfit::of(
        Exit::Data,
        format!(
            "{what} is {} bytes long: no key authorization is",
            value.len()
        ),
    ))
}

/// 32 octets in hexadecimal with colons between them, as `openssl dgst -c` writes them, in base64url.
fn sha256_of(value: &OsStr) -> Option<String> {
    let octets = value.to_str()?.split(':').map(|octet| {
        let is_octet = octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(octet, 16).ok().filter(|_| is_octet)
    });
    let octets: Option<Vec<u8>> = octets.collect();
    let digest: [u8; 32] = octets?.try_into().ok()?;
    Some(KeyAuthorizationDigest::from(digest).to_base64url())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_has_no_room_for_is_refused_for_either_challenge() {
        let octet = "00".to_owned();
        let digest = vec![octet; 32].join(":");
        let long = "T".repeat(MAX_VALUE_BYTES + 1);
        let of = |token: &str, value: &str| {
            either_of(OsStr::new(token), "VALUE", OsStr::new(value))
                .map(|answer| answer.challenge())
                .map_err(|unfit| unfit.message)
        };
        assert_eq!(of("T", &digest), Ok(ChallengeName::TlsAlpn01));
        assert_eq!(of("T", "T.x"), Ok(ChallengeName::Http01));
        let said = |what: &str, bytes: usize| {
            Err(format!(
                "{what} is {bytes} bytes long: no key authorization is"
            ))
        };
        assert_eq!(of(&long, &digest), said("TOKEN", 1025));
        assert_eq!(of(&long, &format!("{long}.x")), said("VALUE", 1027));
    }

    #[test]
    fn a_digest_in_hexadecimal_is_one_of_tls_alpn_01() {
        // SHA-256 of "abc" (FIPS 180-4), as `openssl dgst -sha256 -c -hex` writes it.
        let abc = "ba:78:16:bf:8f:01:cf:ea:41:41:40:de:5d:ae:22:23:b0:03:61:a3:96:17:7a:9c:b4:10:ff:61:f2:00:15:ad";
        let expected = Some("ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0".to_owned());
        assert_eq!(sha256_of(OsStr::new(abc)), expected);
        let shorter = &abc[3..];
        let signed = abc.replace("ba:", "+a:");
        for wrong in [shorter, &signed, "", "T1.x", &abc.replace(':', "")] {
            assert_eq!(sha256_of(OsStr::new(wrong)), None, "{wrong}");
        }
    }
}
