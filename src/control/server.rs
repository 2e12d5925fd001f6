//! The two sockets, served: one obeys who may, one tells and never reads.
//!
//! A caller is whom the kernel says it is. What it sends is bounded in size and time, and so is
//! how many call at once. The sockets are made with their final mode: a umask stands while they
//! are bound, so that they are never, even for an instant, wider.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{SendFlags, send};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::protocol::{
    Acquired, Ask, Envelope, Exit, MAX_REQUEST_BYTES, Open, Response, parse_request,
};
use super::status::Status;
use crate::gate::caller::Caller;
use crate::locked::locked;

/// How many callers of one account are heard at once: many clients with many names still fit.
const MAX_CALLERS_OF_ONE: usize = 64;
/// How many callers that are not root are heard at once. With root's own this stays below the
/// descriptors that the daemon keeps for such things.
const MAX_CALLERS: usize = 128;
/// How long a caller may take to say what it wants: it is a program on this host.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long a reader of the status may take to take it.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(5);

/// The least time between two scenes: as fast as anybody can look.
const SCENE_INTERVAL: Duration = Duration::from_millis(250);

/// Whoever decides what a caller gets.
pub trait Authority: Send + Sync + 'static {
    /// Does what is asked, or says why not. `under` names the lease that the caller says it was
    /// armed.
    fn obey(
        &self,
        caller: Caller,
        ask: Ask,
        under: Option<String>,
    ) -> Pin<Box<dyn Future<Output = Response> + Send + '_>>;

    /// Arms a lease for as long as the caller stays, or says why not.
    fn arm(
        &self,
        caller: Caller,
        open: Open,
    ) -> Pin<Box<dyn Future<Output = Result<Arming, Response>> + Send + '_>>;

    /// The caller of this arming is gone: its lease ends.
    fn disarm(&self, arming: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Lets a caller watch, or says why not; what it gets counts changes.
    ///
    /// # Errors
    /// The refusal.
    fn watch(&self, caller: Caller) -> Result<watch::Receiver<u64>, Box<Response>>;

    /// What whoever watches is told now.
    fn scene(&self) -> Response;

    /// The caller has heard of the lease that it acquired.
    fn told(&self, acquired: &Acquired);

    /// Ends a lease whose caller went away before it heard of it: it believes that it has none. What
    /// another opened since stays.
    fn withdraw(&self, acquired: Acquired) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Tells everything: the status, and the metrics of the same moment as text.
    fn status(&self) -> Pin<Box<dyn Future<Output = (Status, String)> + Send + '_>>;
}

/// An armed lease, as its caller's connection knows it.
#[derive(Debug)]
pub struct Arming {
    /// Its number, which no other arming of this daemon has.
    pub number: u64,
    /// What its caller is told at once.
    pub told: Response,
    /// What its caller is told when it comes.
    pub news: mpsc::Receiver<Response>,
}

/// Binds a socket at `path` with exactly `mode`, in the place of one that nobody serves any more.
///
/// The caller holds the lock of the directory, so a socket of ours that is there is a leftover. Nothing
/// else is removed, followed or taken over.
///
/// # Errors
/// Any of the system's, and what is in the way; the process must have one thread, because the umask is
/// shared.
pub fn bind(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    remove_leftover(path)?;
    let before = rustix::process::umask(Mode::from_raw_mode(!mode & 0o777));
    let bound = StdUnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound?;
    // A default ACL of the directory could have made it wider after all.
    let actual = std::fs::symlink_metadata(path)?.permissions().mode() & 0o777;
    if actual & !mode != 0 {
        std::fs::remove_file(path)?;
        return Err(io::Error::other(format!(
            "{} would have mode {actual:04o}: its directory's default ACL must go",
            path.display()
        )));
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket that an earlier run of ours left at `path`.
fn remove_leftover(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let in_the_way = |what: &str| {
        let message = format!("{what} is in its place, which acmegate did not leave: remove it");
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    };
    let kind = found.file_type();
    if !kind.is_socket() {
        return Err(in_the_way(match kind {
            _ if kind.is_symlink() => "a symbolic link",
            _ if kind.is_dir() => "a directory",
            _ if kind.is_file() => "a regular file",
            _ => "a file that is no socket",
        }));
    }
    let directory = std::fs::metadata(path.parent().unwrap_or(Path::new(".")))?;
    let ours = [0, rustix::process::geteuid().as_raw(), directory.uid()];
    if !ours.contains(&found.uid()) {
        return Err(in_the_way(&format!("a socket of uid {}", found.uid())));
    }
    // Never waiting: a queue that is full is somebody's as well.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    let served = match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => true,
        Err(error) => {
            error.kind() == io::ErrorKind::WouldBlock
                || error.raw_os_error() == Some(libc::EPROTOTYPE)
        }
    };
    if served {
        return Err(in_the_way("a socket that another program serves"));
    }
    std::fs::remove_file(path)
}

/// Serves the control socket until `stop` becomes true.
///
/// # Errors
/// When the socket itself fails; the daemon cannot be told anything then and should end.
pub async fn serve_control(
    listener: StdUnixListener,
    authority: Arc<dyn Authority>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let stopping = stop.clone();
    serve(listener, stop, move |stream| {
        let (authority, stopping) = (Arc::clone(&authority), stopping.clone());
        async move { hear(stream, &*authority, stopping).await }
    })
    .await
}

/// Serves the observe socket until `stop` becomes true. Not one byte is read from it: so everybody
/// gets the status, as one line, and behind it the metrics to the end; who wants one of them leaves
/// the other.
///
/// # Errors
/// When the socket itself fails.
pub async fn serve_observe(
    listener: StdUnixListener,
    authority: Arc<dyn Authority>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let told = Arc::new(LastTold::default());
    serve(listener, stop, move |stream| {
        let (authority, told) = (Arc::clone(&authority), Arc::clone(&told));
        async move {
            let mut stream = stream;
            let text = told.text(&*authority).await;
            give(&mut stream, &text).await;
        }
    })
    .await
}

/// What the observe socket told last. Who asks while it is put together is told the next one, together
/// with everybody else who asked before that one was begun: a crowd costs what one caller after the
/// other does, and nobody is told anything older than its question.
#[derive(Default)]
struct LastTold(tokio::sync::Mutex<Option<(Instant, Arc<[u8]>)>>);

impl LastTold {
    async fn text(&self, authority: &dyn Authority) -> Arc<[u8]> {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((begun, text)) = &*last
            && *begun > asked
        {
            return Arc::clone(text);
        }
        let begun = Instant::now();
        let (status, metrics) = authority.status().await;
        let mut text = serde_json::to_vec(&status).unwrap_or_default();
        text.push(b'\n');
        text.extend_from_slice(metrics.as_bytes());
        let text = Arc::from(text);
        *last = Some((begun, Arc::clone(&text)));
        text
    }
}

async fn serve<Served>(
    listener: StdUnixListener,
    mut stop: watch::Receiver<bool>,
    one: impl Fn(UnixStream) -> Served,
) -> io::Result<()>
where
    Served: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Places::default());
    let mut callers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while callers.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().map_or(u32::MAX, |caller| caller.uid());
                match Places::take(&places, uid) {
                    Some(place) => {
                        let served = one(stream);
                        callers.spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                    None => turn_away(&stream, uid),
                }
            }
            // Out of descriptors or memory: wait for some to come back, never spin.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a caller");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // Whoever was heard gets its answer; every answer has a deadline of its own.
    while callers.join_next().await.is_some() {}
    Ok(())
}

/// Who is heard at the moment: so many of one account, and so many of all that are not root. What
/// others do never keeps root from being heard.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<u32, usize>>);

impl Places {
    fn take(places: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut held = places.lock();
        let all: usize = held
            .iter()
            .filter(|(uid, _)| **uid != 0)
            .map(|(_, count)| count)
            .sum();
        let own = held.get(&uid).copied().unwrap_or(0);
        if own >= MAX_CALLERS_OF_ONE || (uid != 0 && all >= MAX_CALLERS) {
            return None;
        }
        held.insert(uid, own + 1);
        let places = Arc::clone(places);
        Some(Place { places, uid })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        locked(&self.0)
    }
}

/// A place; dropping it gives it back.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        match held.get_mut(&self.uid) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.remove(&self.uid);
            }
        }
    }
}

/// A plain word without waiting for anything.
fn turn_away(stream: &UnixStream, uid: u32) {
    let refusal = Response::refused(
        Exit::TempFail,
        format!("too many requests at the same time (uid {uid}): try again"),
    );
    if let Ok(mut line) = serde_json::to_vec(&refusal) {
        line.push(b'\n');
        // Not by the reactor, which does not know this socket yet and would send nothing. Whoever takes no word is
        // not waited for.
        let _ = send(stream, &line, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

async fn hear(mut stream: UnixStream, authority: &dyn Authority, stop: watch::Receiver<bool>) {
    let response = match request(&mut stream).await {
        Err(refusal) => refusal,
        Ok((caller, envelope)) => match envelope.ask {
            Ask::Arm(open) => match authority.arm(caller, open).await {
                Ok(arming) => return stay(stream, authority, arming, stop).await,
                Err(refusal) => refusal,
            },
            Ask::Watch => match authority.watch(caller) {
                Ok(changes) => return show(stream, authority, changes, stop).await,
                Err(refusal) => *refusal,
            },
            ask => authority.obey(caller, ask, envelope.under).await,
        },
    };
    let is_told = tell(&mut stream, &response).await;
    match (is_told, response.acquired) {
        (_, None) => {}
        (true, Some(acquired)) => authority.told(&acquired),
        (false, Some(acquired)) => authority.withdraw(*acquired).await,
    }
}

/// The one request of a connection, and whose it is.
async fn request(stream: &mut UnixStream) -> Result<(Caller, Envelope), Response> {
    let bad = |message: String| Response::refused(Exit::Data, message);
    let line = tokio::time::timeout(REQUEST_DEADLINE, read_line(stream))
        .await
        .map_err(|_| bad("the request did not come in time".to_owned()))?
        .map_err(|error| bad(error.to_string()))?;
    let envelope = parse_request(&line).map_err(|error| bad(error.to_string()))?;
    let credentials = stream.peer_cred().map_err(|error| {
        Response::refused(
            Exit::NoPerm,
            format!("the kernel does not say who calls: {error}"),
        )
    })?;
    let caller = Caller {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()),
    };
    Ok((caller, envelope))
}

/// Keeps whoever armed a lease: without a deadline, but in its one place among the callers, and
/// with one octet of memory for what it may say, which is nothing. When the daemon itself stops,
/// the lease is not ended: a restart adopts it, and its caller comes back.
async fn stay(
    mut stream: UnixStream,
    authority: &dyn Authority,
    mut arming: Arming,
    mut stop: watch::Receiver<bool>,
) {
    let mut stays = tell(&mut stream, &arming.told).await;
    let mut byte = [0; 1];
    while stays {
        stays = tokio::select! {
            news = arming.news.recv() => match news {
                Some(news) => tell(&mut stream, &news).await,
                None => false,
            },
            // Its end, or something that it has no business to say.
            _ = stream.read(&mut byte) => false,
            () = stopped(&mut stop) => return,
        };
    }
    authority.disarm(arming.number).await;
}

/// Tells whoever watches what there is, again and again as it changes, until it goes away. Who reads
/// too slowly misses what was in between, and at last its place.
async fn show(
    mut stream: UnixStream,
    authority: &dyn Authority,
    mut changes: watch::Receiver<u64>,
    mut stop: watch::Receiver<bool>,
) {
    let mut byte = [0; 1];
    loop {
        changes.mark_unchanged();
        if !tell(&mut stream, &authority.scene()).await {
            return;
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // Its end, or something that it has no business to say.
            _ = stream.read(&mut byte) => return,
            () = stopped(&mut stop) => return,
        }
        tokio::time::sleep(SCENE_INTERVAL).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Err(io::Error::other("the request ends without a line end"));
        }
        let end = part[..count].iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&part[..end.unwrap_or(count)]);
        // With its end, which is not kept, it is one octet longer.
        if line.len() >= MAX_REQUEST_BYTES {
            return Err(io::Error::other(format!(
                "the request is longer than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// Writes one JSON line; `false` if the caller went away or does not read, and has only itself to
/// blame.
async fn tell(stream: &mut UnixStream, message: &impl serde::Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(message) else {
        return false;
    };
    line.push(b'\n');
    give(stream, &line).await
}

async fn give(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    let written = tokio::time::timeout(RESPONSE_DEADLINE, stream.write_all(bytes)).await;
    let is_given = matches!(written, Ok(Ok(())));
    if !is_given {
        tracing::debug!("a caller did not take its answer");
    }
    is_given
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;

    #[test]
    fn an_account_that_takes_every_place_takes_none_of_roots() {
        let places = Arc::new(Places::default());
        let mut taken = Vec::new();
        for uid in [1000, 1001, 1002] {
            while let Some(place) = Places::take(&places, uid) {
                taken.push(place);
            }
        }
        assert_eq!(taken.len(), MAX_CALLERS);
        let roots: Vec<_> = std::iter::from_fn(|| Places::take(&places, 0)).collect();
        assert_eq!(roots.len(), MAX_CALLERS_OF_ONE);
        taken.pop();
        assert!(Places::take(&places, 1002).is_some());
        drop((taken, roots));
        assert!(places.lock().is_empty());
    }

    #[tokio::test]
    async fn who_is_turned_away_hears_why_at_once() {
        let (mut caller, accepted) = StdUnixStream::pair().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let accepted = UnixStream::from_std(accepted).unwrap();
        turn_away(&accepted, 1000);
        drop(accepted);
        let mut heard = String::new();
        caller.read_to_string(&mut heard).unwrap();
        assert!(heard.contains("(uid 1000): try again"), "{heard:?}");
    }

    #[tokio::test]
    async fn a_request_is_as_long_as_it_may_be_and_no_longer() {
        for (length, fits) in [(MAX_REQUEST_BYTES, true), (MAX_REQUEST_BYTES + 1, false)] {
            let (mut caller, mut served) = UnixStream::pair().unwrap();
            let mut line = vec![b'x'; length - 1];
            line.push(b'\n');
            let (_, heard) = tokio::join!(caller.write_all(&line), read_line(&mut served));
            assert_eq!(heard.is_ok(), fits, "{length} octets with their line end");
        }
    }
}
