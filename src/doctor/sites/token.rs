//! Random tokens, put up where an ACME client puts them, and always taken down again.
//!
//! A file is made beneath the webroot without following a link, as certbot makes it; what was made, the
//! directories too, is removed when the value is dropped. A pushed answer lives for seconds in any case.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, unlinkat,
};
use rustix::io::{Errno, write};

use super::leftovers;
use crate::control::client::{self, ClientError};
use crate::control::protocol::{Ask, ChallengeName};
use crate::control::under;
use crate::gate::identifier::Identifier;
use crate::gate::token::{KeyAuthorization, TRIAL, Thumbprint, Token};

/// For how long a pushed token is answered at most: longer than asking takes.
const LIFETIME: Duration = Duration::from_secs(30);

/// A key authorization that nobody asked a CA for, by `account` or by nobody's.
///
/// # Errors
/// The system's: no random octets.
pub(super) fn random(account: Option<&Thumbprint>) -> io::Result<KeyAuthorization> {
    let text = format!("{TRIAL}{}", letters()?);
    let none = || io::Error::other("random text is no token");
    let token = Token::parse(text.as_bytes()).map_err(|_| none())?;
    let thumbprint = match account {
        Some(account) => account.clone(),
        None => Thumbprint::parse(letters()?.as_bytes()).ok_or_else(none)?,
    };
    Ok(KeyAuthorization::new(token, thumbprint))
}

/// 43 letters of base64url: 258 random bits.
fn letters() -> io::Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut octets = [0u8; 43];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| io::Error::other("the system gives no random octets"))?;
    Ok(octets
        .iter()
        .map(|octet| char::from(ALPHABET[usize::from(octet & 63)]))
        .collect())
}

/// A file in a webroot that answers a token. Dropping it removes what was made.
#[derive(Debug)]
pub(super) struct Placed {
    /// The directory that has the file.
    directory: OwnedFd,
    name: String,
    /// Directories that were made for it, the innermost first: where each stands, and its name.
    made: Vec<(OwnedFd, &'static str)>,
    path: PathBuf,
}

impl Placed {
    /// Where it stands.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // Whoever removed it meanwhile did our work.
        let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        for (above, name) in &self.made {
            // One that somebody else put something into stays.
            let _ = unlinkat(above, *name, AtFlags::REMOVEDIR);
        }
    }
}

/// Puts a key authorization beneath a webroot, as certbot's webroot plugin does: directories of mode 0755 with the
/// webroot's owner, a new file of mode 0644.
///
/// # Errors
/// Where it failed, and the system's word.
pub(super) fn place(webroot: &Path, answer: &KeyAuthorization) -> Result<Placed, (PathBuf, Errno)> {
    let directory = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let root = openat(CWD, webroot, directory, Mode::empty())
        .map_err(|error| (webroot.to_owned(), error))?;
    let owner = fstat(&root).map_err(|error| (webroot.to_owned(), error))?;
    let mut path = webroot.to_owned();
    let mut placed = Placed {
        directory: root,
        name: String::new(),
        made: Vec::new(),
        path: path.clone(),
    };
    for name in [".well-known", "acme-challenge"] {
        path.push(name);
        let failed = |error| (path.clone(), error);
        let is_new = match mkdirat(&placed.directory, name, Mode::from(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error)),
        };
        let next = openat(
            &placed.directory,
            name,
            directory | OFlags::NOFOLLOW,
            Mode::empty(),
        );
        let above = match &next {
            Ok(next) => std::mem::replace(&mut placed.directory, dup(next).map_err(failed)?),
            Err(error) => return Err(failed(*error)),
        };
        if let (true, Ok(next)) = (is_new, next) {
            placed.made.insert(0, (above, name));
            // Whatever our umask is.
            fchmod(&next, Mode::from(0o755)).map_err(failed)?;
            // As certbot does it, and like certbot without minding a refusal.
            let _ = fchown(
                &next,
                Some(Uid::from_raw(owner.st_uid)),
                Some(Gid::from_raw(owner.st_gid)),
            );
        }
    }
    path.push(answer.token().as_str());
    let failed = |error| (path.clone(), error);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = answer.token().as_str().to_owned();
    let file = openat(&placed.directory, &name, flags, Mode::from(0o644)).map_err(failed)?;
    placed.name = name;
    placed.path.clone_from(&path);
    fchmod(&file, Mode::from(0o644)).map_err(failed)?;
    let body = answer.to_body();
    match write(&file, body.as_bytes()) {
        Ok(count) if count == body.len() => {
            // Before us somebody may have been killed here.
            let _ = leftovers::clear(&placed.directory, &file);
            Ok(placed)
        }
        Ok(_) => Err(failed(Errno::NOSPC)),
        Err(error) => Err(failed(error)),
    }
}

fn dup(handle: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(handle, 0)
}

/// A pushed answer. Dropping it withdraws it; the daemon forgets it soon in any case.
#[derive(Debug)]
pub(super) struct PushedUp {
    runtime_dir: PathBuf,
    challenge: ChallengeName,
    identifier: String,
    token: String,
}

impl Drop for PushedUp {
    fn drop(&mut self) {
        // A daemon that is gone has forgotten it.
        let _ = client::ask(
            &self.runtime_dir,
            Ask::AnswerRemove {
                challenge: self.challenge,
                identifier: self.identifier.clone(),
                token: self.token.clone(),
            },
        );
    }
}

/// Why an answer could not be pushed.
#[derive(Debug)]
pub(super) enum NotPushed {
    /// Nobody took the question.
    Client(ClientError),
    /// The daemon's own words.
    Refused(String),
}

/// Pushes an answer, as a hook does. Blocks, for a bounded time.
///
/// # Errors
/// [`NotPushed`].
pub(super) fn push(
    runtime_dir: &Path,
    challenge: ChallengeName,
    identifier: &Identifier,
    answer: &KeyAuthorization,
) -> Result<PushedUp, NotPushed> {
    if !matches!(under::lease(), Ok(None)) {
        return Err(NotPushed::Refused(
            "this runs under `acmegate exec`, whose lease a pushed token would open: run it by itself"
                .to_owned(),
        ));
    }
    let ask = Ask::AnswerAdd {
        challenge,
        identifier: identifier.to_string(),
        key_authorization: Some(answer.to_body()),
        digest: None,
        milliseconds: Some(u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX)),
    };
    let response = client::ask(runtime_dir, ask).map_err(NotPushed::Client)?;
    match response.code {
        0 => Ok(PushedUp {
            runtime_dir: runtime_dir.to_owned(),
            challenge,
            identifier: identifier.to_string(),
            token: answer.token().as_str().to_owned(),
        }),
        _ => Err(NotPushed::Refused(response.message)),
    }
}
