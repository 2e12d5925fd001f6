//! Tokens, thumbprints, key authorizations (RFC 8555 §8.1, §8.3) and their digests (RFC 8737 §3).
//!
//! What it is for: turning untrusted bytes into values that cannot be wrong. What it never does:
//! normalise. A byte that does not belong makes the whole value invalid.

use std::fmt;

/// The least number of octets in a token: 128 bits of entropy in base64url (RFC 8555 §8.3).
pub const MIN_TOKEN_BYTES: usize = 22;
/// The largest number of octets in a token; this bound is ours. Every CA read so far sends 32 or 43.
pub const MAX_TOKEN_BYTES: usize = 128;
/// A thumbprint is base64url without padding of a SHA-256 digest (RFC 7638 §3): always 43 octets.
pub const THUMBPRINT_BYTES: usize = 43;
/// Token, full stop, thumbprint.
pub const MAX_KEY_AUTHORIZATION_BYTES: usize = MAX_TOKEN_BYTES + 1 + THUMBPRINT_BYTES;

/// The random value of one challenge: 22 to 128 octets of base64url without padding.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(String);

/// Why bytes are not a token. Both are the fault of whoever sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Shorter than [`MIN_TOKEN_BYTES`] or longer than [`MAX_TOKEN_BYTES`].
    Length,
    /// An octet outside `A-Z a-z 0-9 - _`.
    Alphabet,
}

/// What every token of the doctor's begins with, so that who finds one knows whose it was.
pub const TRIAL: &str = "acmegate-doctor-";

impl Token {
    /// Parses a token from exactly these bytes.
    ///
    /// # Errors
    /// [`TokenError::Length`] or [`TokenError::Alphabet`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        if !(MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&bytes.len()) {
            return Err(TokenError::Length);
        }
        base64url(bytes).map(Self).ok_or(TokenError::Alphabet)
    }

    /// The token as it stands in the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the doctor made it up: no account is behind its answer.
    pub fn is_trial(&self) -> bool {
        self.0.starts_with(TRIAL)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.0)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => write!(
                f,
                "a token has {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} characters"
            ),
            Self::Alphabet => f.write_str("a token holds only A-Z a-z 0-9 - and _"),
        }
    }
}

impl std::error::Error for TokenError {}

/// The SHA-256 thumbprint of an account key (RFC 7638), which names an ACME account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// Parses 43 octets of base64url; anything else is `None`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != THUMBPRINT_BYTES {
            return None;
        }
        base64url(bytes).map(Self)
    }

    /// The 43 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a responder answers: token, full stop, thumbprint (RFC 8555 §8.1).
///
/// Its `Debug` never shows the thumbprint, so that no log line can carry a whole answer.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyAuthorization {
    token: Token,
    thumbprint: Thumbprint,
}

impl KeyAuthorization {
    /// Joins a token with the account that vouches for it.
    pub fn new(token: Token, thumbprint: Thumbprint) -> Self {
        Self { token, thumbprint }
    }

    /// Parses `token.thumbprint`; trailing white space is cut (RFC 8555 §8.3 lets validators ignore
    /// it), leading bytes are not. Anything else is `None`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii_end();
        let dot = bytes.iter().position(|byte| *byte == b'.')?;
        Some(Self {
            token: Token::parse(&bytes[..dot]).ok()?,
            thumbprint: Thumbprint::parse(&bytes[dot + 1..])?,
        })
    }

    /// The token that this answers.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The account that vouches.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// Its SHA-256 digest.
    pub fn digest(&self) -> KeyAuthorizationDigest {
        let mut digest = [0; 32];
        let sha256 = ring::digest::digest(&ring::digest::SHA256, self.to_body().as_bytes());
        digest.copy_from_slice(sha256.as_ref());
        KeyAuthorizationDigest(digest)
    }

    /// The exact body of a 200: no line end.
    pub fn to_body(&self) -> String {
        format!("{}.{}", self.token.0, self.thumbprint.0)
    }
}

/// The SHA-256 digest of a key authorization: what the certificate of TLS-ALPN-01 carries (RFC 8737
/// §3), and all that some clients tell of it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyAuthorizationDigest([u8; 32]);

impl KeyAuthorizationDigest {
    /// Parses 43 octets of base64url without padding; anything else is `None`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != THUMBPRINT_BYTES {
            return None;
        }
        let mut digest = [0; 32];
        let (mut bits, mut count, mut at) = (0_u32, 0, 0);
        for byte in bytes {
            bits = bits << 6 | sextet(*byte)?;
            count += 6;
            if count >= 8 {
                count -= 8;
                *digest.get_mut(at)? = (bits >> count) as u8;
                bits &= (1 << count) - 1;
                at += 1;
            }
        }
        // What is left over of the last sextet must be nothing, or two texts would be one digest.
        (bits == 0).then_some(Self(digest))
    }

    /// The 43 characters.
    pub fn to_base64url(&self) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let groups = self.0.chunks(3).flat_map(|group| {
            let octet = |at| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
            let sextets = [18, 12, 6, 0].map(|shift| (bits >> shift & 63) as usize);
            sextets.into_iter().take(group.len() + 1)
        });
        groups.map(|sextet| char::from(alphabet[sextet])).collect()
    }

    /// Its 32 octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for KeyAuthorizationDigest {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Debug for KeyAuthorizationDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyAuthorizationDigest(…)")
    }
}

/// What a responder of TLS-ALPN-01 proves, and as far as it is known for which account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsAnswer {
    token: Token,
    digest: KeyAuthorizationDigest,
    thumbprint: Option<Thumbprint>,
}

impl TlsAnswer {
    /// An answer of which only the digest is known: whose account it is, nobody has said.
    pub fn of_digest(token: Token, digest: KeyAuthorizationDigest) -> Self {
        Self {
            token,
            digest,
            thumbprint: None,
        }
    }

    /// The token that it answers.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// What the certificate carries.
    pub fn digest(&self) -> &KeyAuthorizationDigest {
        &self.digest
    }

    /// The account that vouches, if it is known.
    pub fn thumbprint(&self) -> Option<&Thumbprint> {
        self.thumbprint.as_ref()
    }
}

impl From<KeyAuthorization> for TlsAnswer {
    fn from(key_authorization: KeyAuthorization) -> Self {
        Self {
            digest: key_authorization.digest(),
            token: key_authorization.token,
            thumbprint: Some(key_authorization.thumbprint),
        }
    }
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

impl fmt::Debug for KeyAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyAuthorization({}.…)", self.token.0)
    }
}

fn base64url(bytes: &[u8]) -> Option<String> {
    let fits = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    // All bytes are ASCII here, so they are UTF-8 too.
    fits.then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";
    const THUMBPRINT: &str = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

    #[test]
    fn a_digest_is_the_same_from_the_key_authorization_and_from_its_text() {
        // By `printf %s TOKEN.THUMBPRINT | openssl dgst -sha256 -binary | basenc --base64url`.
        let text = b"LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
        let digest = KeyAuthorization::parse(format!("{TOKEN}.{THUMBPRINT}").as_bytes())
            .unwrap()
            .digest();
        assert_eq!(KeyAuthorizationDigest::parse(text), Some(digest.clone()));
        assert_eq!(digest.to_base64url().as_bytes(), text);
        assert!(!format!("{digest:?}").contains("["));
        // The last character has two bits that say nothing.
        let mut other = *text;
        other[42] += 1;
        for bad in [&other[..], &text[..42], b"", &[b'+'; 43]] {
            assert_eq!(KeyAuthorizationDigest::parse(bad), None);
        }
    }

    #[test]
    fn the_token_of_rfc_8555_is_a_token() {
        assert_eq!(Token::parse(TOKEN.as_bytes()).unwrap().as_str(), TOKEN);
    }

    #[test]
    fn a_token_is_22_to_128_octets() {
        for (length, fits) in [
            (0, false),
            (21, false),
            (22, true),
            (128, true),
            (129, false),
        ] {
            assert_eq!(Token::parse(&vec![b'a'; length]).is_ok(), fits, "{length}");
        }
    }

    #[test]
    fn no_octet_outside_base64url_is_let_through() {
        for byte in 0..=255u8 {
            let mut token = vec![b'a'; 43];
            token[20] = byte;
            let fits = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            assert_eq!(Token::parse(&token).is_ok(), fits, "{byte:#x}");
        }
    }

    #[test]
    fn a_key_authorization_loses_trailing_white_space_and_nothing_else() {
        let whole = format!("{TOKEN}.{THUMBPRINT}");
        for tail in ["", "\n", "\r\n", " \t\n"] {
            let parsed = KeyAuthorization::parse(format!("{whole}{tail}").as_bytes()).unwrap();
            assert_eq!(parsed.to_body(), whole);
        }
        for wrong in [
            format!(" {whole}"),
            format!("\u{feff}{whole}"),
            format!("{whole}."),
            format!("{whole}\nx"),
            TOKEN.to_owned(),
            format!("{TOKEN}."),
            format!("{TOKEN}.{}", &THUMBPRINT[1..]),
        ] {
            assert_eq!(KeyAuthorization::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn debug_never_shows_a_whole_answer() {
        let parsed = KeyAuthorization::parse(format!("{TOKEN}.{THUMBPRINT}").as_bytes()).unwrap();
        assert!(!format!("{parsed:?}").contains(THUMBPRINT));
    }
}
