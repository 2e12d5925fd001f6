//! The two sockets, served: one obeys who may, one tells and never reads.
//!
//! A caller is whom the kernel says it is. What it sends is bounded in size and time, and so is
//! how many call at once. The sockets are made with their final mode: a umask stands while they
//! are bound, so that they are never, even for an instant, wider.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::protocol::{Ask, Exit, MAX_REQUEST_BYTES, Response, parse_request};
use super::status::Status;
use crate::gate::caller::Caller;
use crate::gate::window::LeaseName;

/// How many callers are heard at once; more wait in the socket's queue.
const MAX_CALLERS: usize = 16;
/// How long a caller may take to say what it wants: it is a program on this host.
const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long a reader of the status may take to take it.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(5);

/// Whoever decides what a caller gets.
pub trait Authority: Send + Sync + 'static {
    /// Does what is asked, or says why not.
    fn obey(&self, caller: Caller, ask: Ask)
    -> Pin<Box<dyn Future<Output = Response> + Send + '_>>;

    /// Ends a lease whose caller went away before it heard of it: it believes that it has none.
    fn withdraw(&self, lease: LeaseName) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Tells everything.
    fn status(&self) -> Pin<Box<dyn Future<Output = Status> + Send + '_>>;
}

/// Binds a socket at `path` with exactly `mode`, in the place of one that nobody serves any more.
///
/// The caller holds the lock of the directory, so what is there is a leftover.
///
/// # Errors
/// Any of the system's; the process must have one thread, because the umask is shared.
pub fn bind(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
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

/// Serves the control socket until `stop` becomes true.
///
/// # Errors
/// When the socket itself fails; the daemon cannot be told anything then and should end.
pub async fn serve_control(
    listener: StdUnixListener,
    authority: Arc<dyn Authority>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    serve(listener, stop, move |stream| {
        let authority = Arc::clone(&authority);
        async move { hear(stream, &*authority).await }
    })
    .await
}

/// Serves the observe socket until `stop` becomes true. Not one byte is read from it.
///
/// # Errors
/// When the socket itself fails.
pub async fn serve_observe(
    listener: StdUnixListener,
    authority: Arc<dyn Authority>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    serve(listener, stop, move |stream| {
        let authority = Arc::clone(&authority);
        async move {
            tell(stream, &authority.status().await).await;
        }
    })
    .await
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
    let places = Arc::new(Semaphore::new(MAX_CALLERS));
    let mut callers = JoinSet::new();
    loop {
        let place = tokio::select! {
            // Never closed, so a place comes.
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while callers.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let served = one(stream);
                callers.spawn(async move {
                    served.await;
                    drop(place);
                });
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

async fn hear(mut stream: UnixStream, authority: &dyn Authority) {
    let response = match tokio::time::timeout(REQUEST_DEADLINE, read_line(&mut stream)).await {
        Err(_) => Response::refused(Exit::Data, "the request did not come in time"),
        Ok(Err(error)) => Response::refused(Exit::Data, error.to_string()),
        Ok(Ok(line)) => match (parse_request(&line), stream.peer_cred()) {
            (Err(error), _) => Response::refused(Exit::Data, error.to_string()),
            (_, Err(error)) => Response::refused(
                Exit::NoPerm,
                format!("the kernel does not say who calls: {error}"),
            ),
            (Ok(ask), Ok(credentials)) => {
                let caller = Caller {
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                    pid: credentials.pid().and_then(|pid| u32::try_from(pid).ok()),
                };
                authority.obey(caller, ask).await
            }
        },
    };
    let is_told = tell(stream, &response).await;
    if let (false, Some(lease)) = (is_told, response.acquired) {
        authority.withdraw(*lease).await;
    }
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Err(io::Error::other("the request ends without a line end"));
        }
        line.extend_from_slice(&part[..count]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > MAX_REQUEST_BYTES {
            return Err(io::Error::other(format!(
                "the request is longer than {MAX_REQUEST_BYTES} bytes"
            )));
        }
    }
}

/// Writes one JSON line; `false` if the caller went away or does not read, and has only itself to
/// blame.
async fn tell(mut stream: UnixStream, message: &impl serde::Serialize) -> bool {
    let Ok(mut line) = serde_json::to_vec(message) else {
        return false;
    };
    line.push(b'\n');
    let written = tokio::time::timeout(RESPONSE_DEADLINE, stream.write_all(&line)).await;
    let is_told = matches!(written, Ok(Ok(())));
    if !is_told {
        tracing::debug!("a caller did not take its answer");
    }
    is_told
}
