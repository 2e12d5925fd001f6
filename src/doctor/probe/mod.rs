//! `probe`: a miniature of what CAs do from several networks at once (multi-perspective validation), from vantage
//! points of the administrator's own, with random tokens that no CA has asked for.
//!
//! Real tokens lie at the real gate while it is asked, in a window of its own; each vantage point has tokens of its
//! own, so that the gate's record says from which address it came. Whoever stands on the allow-list, or in this
//! host's own networks, proves nothing: it would get in anyway.
//!
//! What it never does: it asks no CA, and nobody else than who was named; it changes nothing but the lease, the tokens
//! and the table of traces that `cli::probe` takes away again.
//!
//! | file | |
//! | --- | --- |
//! | `vantage.rs` | who is asked |
//! | `ssh.rs` `script.sh` `told.rs` | hosts by ssh: what runs there, and what it tells |
//! | `mpic.rs` `letsdebug.rs` `web.rs` | services of the web |
//! | `trace.rs` | what the packets meet in the live rules |
//! | `seen.rs` `verdict.rs` | what was seen, and what that comes to |

pub mod letsdebug;
pub mod mpic;
pub mod seen;
pub mod ssh;
pub mod told;
pub mod trace;
pub mod vantage;
pub mod verdict;
pub mod web;

use ring::rand::{SecureRandom, SystemRandom};

use crate::gate::identifier::Identifier;
use crate::gate::token::{KeyAuthorization, KeyAuthorizationDigest, TRIAL, Thumbprint, Token};

/// The port of http-01 (RFC 8555 §8.3).
pub const PORT: u16 = 80;

/// A token that is to be fetched, and what has to come.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of which identifier.
    pub name: Identifier,
    /// What has to come.
    pub answer: KeyAuthorization,
}

impl Question {
    /// A random one. `account` is whose thumbprint stands in it: a site may let those of its accounts pass alone.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn of(name: Identifier, account: Option<Thumbprint>) -> Result<Self, String> {
        let token = format!("{TRIAL}{}", random()?);
        let token = Token::parse(token.as_bytes()).map_err(|error| error.to_string())?;
        let account = match account {
            Some(account) => account,
            None => Thumbprint::parse(random()?.as_bytes()).ok_or("no thumbprint")?,
        };
        Ok(Self {
            name,
            answer: KeyAuthorization::new(token, account),
        })
    }

    /// Where it is fetched.
    pub fn path(&self) -> String {
        format!(
            "/.well-known/acme-challenge/{}",
            self.answer.token().as_str()
        )
    }

    /// By what the gate's records name its token: the first 8 hexadecimal digits of its SHA-256 digest.
    pub fn mark(&self) -> String {
        let token = self.answer.token().as_str();
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let digits = digest.as_ref().iter().take(4);
        digits.map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A word that nobody can guess and every shell takes for a word.
///
/// # Errors
/// The system has no random numbers.
pub fn mark() -> Result<String, String> {
    let random = random()?;
    let plain = random.bytes().filter(u8::is_ascii_alphanumeric).take(16);
    Ok(plain.map(char::from).collect())
}

/// 256 random bits in base64url: 43 characters.
fn random() -> Result<String, String> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(KeyAuthorizationDigest::from(bytes).to_base64url())
}
