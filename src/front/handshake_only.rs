//! Leads a validation to a responder further in, and lets it have its handshake there and nothing
//! else. What that is, `handshake.rs` knows; this moves the bytes.
//!
//! What it never does: outlive its deadline, or pass on a byte that was not judged.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout_at};

use super::edge::{is_passing, now, with_buffer};
use super::handshake::{Alerted, Handshake, Misstep};
use super::report::Failure;
use crate::gate::Reason;

/// How long both sides have to say goodbye once the handshake is complete. Validators close at
/// once.
const FAREWELL: Duration = Duration::from_secs(1);

/// Carries `proxy_header` and `hello` to `server`, then the rest of the handshake both ways, until
/// it is complete and both have gone, or a second later. `hello` is what the peer has sent so far:
/// a whole ClientHello and perhaps more. Both streams are then to be dropped.
///
/// # Errors
/// [`Reason::NotHandshake`]: the peer sent something else. [`Reason::PeerGone`],
/// [`Reason::UpstreamGone`]: one side left too early. [`Reason::UpstreamSlow`]: no answer by the
/// deadline. [`Reason::HandshakeFailed`]: an alert, or an answer that is no handshake, or one that
/// is not complete by the deadline.
pub(super) async fn relay_handshake(
    peer: &TcpStream,
    server: &TcpStream,
    proxy_header: &[u8],
    hello: &[u8],
    deadline: Instant,
) -> Result<(), Failure> {
    let mut exchange = Exchange {
        peer,
        server,
        handshake: Handshake::new(),
        has_peer_ended: false,
        has_server_ended: false,
    };
    let outcome = timeout_at(deadline.into(), exchange.run(proxy_header, hello)).await;
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => exchange.out_of_time(),
    }
}

struct Exchange<'a> {
    peer: &'a TcpStream,
    server: &'a TcpStream,
    handshake: Handshake,
    has_peer_ended: bool,
    has_server_ended: bool,
}

impl Exchange<'_> {
    async fn run(&mut self, proxy_header: &[u8], hello: &[u8]) -> Result<(), Failure> {
        let mut first = proxy_header.to_vec();
        self.handshake.hear_peer(hello, &mut first)?;
        self.tell_server(&first).await?;
        let mut farewell = None;
        while !(self.has_peer_ended && self.has_server_ended) {
            if farewell.is_none() && self.handshake.is_complete() {
                farewell = Some(now() + FAREWELL);
            }
            tokio::select! {
                biased;
                () = until(farewell) => break,
                _ = self.peer.readable(), if !self.has_peer_ended => self.hear_peer().await?,
                _ = self.server.readable(), if !self.has_server_ended => self.hear_server().await?,
            }
        }
        Ok(())
    }

    async fn hear_peer(&mut self) -> Result<(), Failure> {
        let mut pass = Vec::new();
        let heard = with_buffer(|buffer| {
            let length = self.peer.try_read(buffer)?;
            Ok(self
                .handshake
                .hear_peer(&buffer[..length], &mut pass)
                .map(|()| length))
        });
        match heard {
            Ok(heard) if heard? > 0 => self.tell_server(&pass).await,
            Err(error) if is_passing(&error) => Ok(()),
            _ if self.handshake.is_complete() => {
                self.has_peer_ended = true;
                let _ = shutdown(self.server, Shutdown::Write);
                Ok(())
            }
            _ => Err(self.left_by(Reason::PeerGone)),
        }
    }

    async fn hear_server(&mut self) -> Result<(), Failure> {
        let mut pass = Vec::new();
        let heard = with_buffer(|buffer| {
            let length = self.server.try_read(buffer)?;
            Ok(self
                .handshake
                .hear_server(&buffer[..length], &mut pass)
                .map(|()| length))
        });
        match heard {
            Ok(heard) if heard? > 0 => {
                let is_told = send(self.peer, &pass).await.is_ok();
                match is_told || self.handshake.is_complete() {
                    true => Ok(()),
                    false => Err(self.left_by(Reason::PeerGone)),
                }
            }
            Err(error) if is_passing(&error) => Ok(()),
            _ if self.handshake.is_complete() => {
                self.has_server_ended = true;
                let _ = shutdown(self.peer, Shutdown::Write);
                Ok(())
            }
            _ => Err(self.left_by(Reason::UpstreamGone)),
        }
    }

    async fn tell_server(&self, bytes: &[u8]) -> Result<(), Failure> {
        // A responder may close as soon as it has the Finished, and need not hear of the goodbye.
        match send(self.server, bytes).await {
            Err(_) if !self.handshake.is_complete() => Err(self.left_by(Reason::UpstreamGone)),
            _ => Ok(()),
        }
    }

    /// Somebody left before the handshake was complete: with an alert, or without a word.
    fn left_by(&self, reason: Reason) -> Failure {
        match self.handshake.alerted() {
            Some(alerted) => failed(alerted),
            None => (reason, None),
        }
    }

    fn out_of_time(&self) -> Result<(), Failure> {
        if self.handshake.is_complete() {
            return Ok(());
        }
        Err(match self.handshake.alerted() {
            Some(alerted) => failed(alerted),
            None if self.handshake.has_server_spoken() => {
                let detail = "the handshake was not complete in time".to_owned();
                (Reason::HandshakeFailed, Some(detail))
            }
            None => (Reason::UpstreamSlow, None),
        })
    }
}

fn failed(alerted: Alerted) -> Failure {
    (Reason::HandshakeFailed, Some(alerted.to_string()))
}

impl From<Misstep> for Failure {
    fn from(misstep: Misstep) -> Self {
        (misstep.reason, Some(misstep.detail.to_owned()))
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end.into()).await,
        None => pending().await,
    }
}

async fn send(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
