//! Key authorizations in files, as `certbot --webroot`, acme.sh and lego write them.
//!
//! What it is for: reading one small file beneath a directory that was opened before the process
//! gave up its power. What it never does: follow a link, leave the directory, open by an absolute
//! path, block on what is no plain file, or believe that a file is finished: its content must be
//! the whole key authorization of the token that is its name.
//!
//! Every look-up walks down from the handle anew, because clients remove the directories that they
//! made and make them again. Follows openat2(2).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::{Errno, read};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::gate::Reason;
use crate::gate::challenge::PREFIX;
use crate::gate::event::Answer;
use crate::gate::token::{KeyAuthorization, Token};

/// The largest file that is looked into: a key authorization has at most 172 octets, and an editor
/// may have put a few line ends behind it.
const MAX_FILE_BYTES: usize = 512;
/// How long a look-up may take; a network file system that hangs must not hold validations longer
/// than a connection may last.
const DEADLINE: Duration = Duration::from_secs(2);
/// How many look-ups may hold a thread. A hung file system keeps its threads past the deadline, and
/// this many is all it gets.
const MAX_IN_FLIGHT: usize = 32;
/// How often a walk is begun anew because somebody renamed a directory meanwhile (openat2(2),
/// EAGAIN).
const MAX_WALKS: usize = 4;

/// A directory whose `.well-known/acme-challenge/` holds answers.
#[derive(Clone, Debug)]
pub struct Webroot {
    directory: Arc<OwnedFd>,
    in_flight: Arc<Semaphore>,
}

impl Webroot {
    /// Opens the directory itself; `path` may lead there by symbolic links, what is beneath may not.
    /// The directory must stay while we run; what is beneath may come and go.
    ///
    /// # Errors
    /// It is not there, no directory, or out of reach: the operator's fault.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A bare path handle is given to everybody, a sealed process included, and proves nothing.
        drop(openat(
            CWD,
            path.as_ref(),
            flags | OFlags::RDONLY,
            Mode::empty(),
        )?);
        let directory = openat(CWD, path.as_ref(), flags | OFlags::PATH, Mode::empty())?;
        Ok(Self::from_handle(directory))
    }

    /// Takes a handle of the directory that was opened before (`O_PATH` suffices).
    pub fn from_handle(directory: OwnedFd) -> Self {
        Self {
            directory: Arc::new(directory),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    /// Reads the answer to `token`, within two seconds.
    ///
    /// Reasons: [`Reason::UnknownToken`], [`Reason::UnfitFile`], [`Reason::WebrootFailed`].
    pub async fn look_up(&self, token: &Token) -> Answer {
        let (directory, token) = (Arc::clone(&self.directory), token.clone());
        let in_flight = Arc::clone(&self.in_flight);
        let reading = async move {
            let place = in_flight.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let answer = find(directory.as_fd(), &token);
                drop(place);
                answer
            })
            .await
        };
        match timeout(DEADLINE, reading).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => failed("the reading thread ended early"),
            Err(_) => failed("not read within two seconds"),
        }
    }
}

fn failed(detail: impl Into<String>) -> Answer {
    Err((Reason::WebrootFailed, Some(detail.into())))
}

fn unfit(detail: &str) -> Answer {
    Err((Reason::UnfitFile, Some(detail.to_owned())))
}

/// Reads `.well-known/acme-challenge/TOKEN` beneath `directory`. May block.
fn find(directory: impl AsFd, token: &Token) -> Answer {
    let flags =
        // Opening a FIFO must not wait for its writer, nor a terminal become ours.
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut opened = open_beneath(&directory, token, flags);
    // systemd's RestrictSUIDSGID= and older containers keep openat2(2) from everybody.
    if matches!(opened, Err(Errno::NOSYS | Errno::PERM)) {
        opened = walk(&directory, token, flags);
    }
    match opened {
        Ok(file) => understand(file, token),
        Err(Errno::NOENT | Errno::NOTDIR) => match fstat(&directory) {
            Ok(status) if status.st_nlink == 0 => {
                failed("the webroot itself was removed; restart to open the new one")
            }
            _ => Err((Reason::UnknownToken, None)),
        },
        Err(Errno::LOOP) => unfit("a symbolic link"),
        Err(Errno::XDEV) => unfit("it leads out of the webroot"),
        // open(2) of a socket, or of a device without a driver.
        Err(Errno::NXIO | Errno::NODEV) => unfit("not a plain file"),
        Err(error) => failed(format!("open: {error}")),
    }
}

/// Opens the token's file in one system call.
fn open_beneath(directory: impl AsFd, token: &Token, flags: OFlags) -> Result<OwnedFd, Errno> {
    // The prefix is a path from the root of a URL; here it begins at the handle.
    let path = format!("{}{}", PREFIX.trim_start_matches('/'), token.as_str());
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..MAX_WALKS {
        opened = openat2(&directory, &path, flags, Mode::empty(), resolve);
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    opened
}

/// Opens the token's file step by step. No step follows a link, and neither the directories' names
/// nor a token can be `..`, so this leaves the webroot no more than openat2(2) does.
fn walk(directory: impl AsFd, token: &Token, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut reached: Option<OwnedFd> = None;
    for name in PREFIX.split('/').filter(|name| !name.is_empty()) {
        let from = reached.as_ref().map_or(directory.as_fd(), AsFd::as_fd);
        reached = Some(openat(from, name, step, Mode::empty())?);
    }
    let from = reached.as_ref().map_or(directory.as_fd(), AsFd::as_fd);
    openat(from, token.as_str(), flags, Mode::empty())
}

fn understand(file: OwnedFd, token: &Token) -> Answer {
    let status = match fstat(&file) {
        Ok(status) => status,
        Err(error) => return failed(format!("stat: {error}")),
    };
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return unfit("not a plain file");
    }
    // The size may change under our hands; what is read is bounded all the same.
    let mut content = [0; MAX_FILE_BYTES + 1];
    let mut length = 0;
    while length < content.len() {
        match read(&file, &mut content[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(error) => return failed(format!("read: {error}")),
        }
    }
    if length > MAX_FILE_BYTES {
        return unfit("larger than any key authorization");
    }
    match KeyAuthorization::parse(&content[..length]) {
        Some(answer) if answer.token() == token => Ok(answer),
        Some(_) => unfit("another token's key authorization"),
        None => unfit("not a key authorization, or not wholly written yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn behind_reads_that_hang_nobody_waits_longer_than_two_seconds() {
        let webroot = Webroot::open("/").unwrap();
        // What a hung file system leaves behind.
        let _hung = webroot.in_flight.acquire_many(MAX_IN_FLIGHT as u32).await;
        let begun = tokio::time::Instant::now();
        let token = Token::parse(&[b'a'; 43]).unwrap();
        let (reason, detail) = webroot.look_up(&token).await.unwrap_err();
        assert_eq!(reason, Reason::WebrootFailed);
        assert_eq!(detail.as_deref(), Some("not read within two seconds"));
        assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    }

    #[test]
    fn where_openat2_is_refused_the_same_files_pass_and_no_others() {
        let root = std::env::temp_dir().join(format!("acmegate-walk-{}", std::process::id()));
        let challenges = root.join(PREFIX.trim_start_matches('/'));
        let token = Token::parse(&[b'a'; 43]).unwrap();
        let place = challenges.join(token.as_str());
        let whole = format!("{}.{}", token.as_str(), "A".repeat(43));
        std::fs::create_dir_all(&challenges).unwrap();
        let directory = Webroot::open(&root).unwrap().directory;
        let look = || without_openat2(|| find(&*directory, &token)).map_err(|(reason, _)| reason);

        assert_eq!(look(), Err(Reason::UnknownToken));
        std::fs::write(&place, &whole).unwrap();
        assert!(look().is_ok());
        // A link in the file's place, and one on the way.
        std::fs::rename(&place, root.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), &place).unwrap();
        assert_eq!(look(), Err(Reason::UnfitFile));
        std::fs::remove_file(&place).unwrap();
        std::fs::write(&place, &whole).unwrap();
        let moved = root.join("moved");
        std::fs::rename(&challenges, &moved).unwrap();
        std::os::unix::fs::symlink(
            &moved,
            challenges
                .as_os_str()
                .to_str()
                .unwrap()
                .trim_end_matches('/'),
        )
        .unwrap();
        assert_eq!(look(), Err(Reason::UnknownToken));
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// What systemd's RestrictSUIDSGID= does to it, for one thread that ends afterwards.
    fn without_openat2<T: Send>(look: impl FnOnce() -> T + Send) -> T {
        use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(
            [(libc::SYS_openat2, Vec::new())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(libc::ENOSYS as u32),
            arch,
        );
        let filter: BpfProgram = filter.unwrap().try_into().unwrap();
        std::thread::scope(|scope| {
            let sealed = scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                apply_filter(&filter).unwrap();
                look()
            });
            sealed.join().unwrap()
        })
    }

    #[test]
    fn a_device_is_no_plain_file() {
        let file = openat(CWD, "/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let token = Token::parse(&[b'a'; 43]).unwrap();
        let (reason, detail) = understand(file, &token).unwrap_err();
        assert_eq!(reason, Reason::UnfitFile);
        assert_eq!(detail.as_deref(), Some("not a plain file"));
    }
}
