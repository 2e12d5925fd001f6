//! The server behind the edge, which the outside must never reach: it counts who connects.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::peer;
use super::world::{HTTP, INNER};
use crate::doctor::namespaces::Netns;

/// How long the edge's own visit may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A listener that accepts, counts and hangs up.
pub struct InnerServer {
    seen: Arc<AtomicUsize>,
    own_visits: usize,
    task: JoinHandle<()>,
}

impl InnerServer {
    /// Listens inside `netns`.
    ///
    /// # Errors
    /// The system's: the address is not there.
    pub fn start(netns: &Netns) -> io::Result<Self> {
        let listener = netns.within(|| {
            let listener = std::net::TcpListener::bind((INNER, HTTP))?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })??;
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            // The stream goes out of scope, which hangs up, only after it has been counted.
            while let Ok(_stream) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self {
            seen,
            own_visits: 0,
            task,
        })
    }

    /// How many strangers came, ever.
    ///
    /// The edge connects first and waits to be hung up on. That shows that the server would have
    /// seen them; and since connections are accepted in the order in which they came, whoever came
    /// before has been counted by then.
    ///
    /// # Errors
    /// The edge's own connection did not arrive.
    pub async fn strangers(&mut self, edge: &Netns) -> Result<usize, String> {
        let visit = async {
            let mut stream = peer::connect(edge, SocketAddr::from((INNER, HTTP))).await?;
            stream.read(&mut [0]).await
        };
        match timeout(PATIENCE, visit).await {
            Ok(Ok(0)) => {}
            Ok(Ok(_)) => return Err("the inner server spoke, which it never does".to_owned()),
            Ok(Err(error)) => {
                return Err(format!("the edge cannot reach the inner server: {error}"));
            }
            Err(_) => return Err("the inner server does not answer the edge".to_owned()),
        }
        self.own_visits += 1;
        Ok(self.seen.load(Ordering::Relaxed) - self.own_visits)
    }
}

impl Drop for InnerServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
