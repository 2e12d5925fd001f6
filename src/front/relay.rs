//! Leads a visitor from the allow-list to the site's server and back, octet by octet.
//!
//! What it is for: both directions at once, each side's end carried over to the other, and nothing
//! held back or ahead. What it never does: look into the bytes, read more than it can pass on, or
//! keep a connection on which nothing moves.
//!
//! The first bytes of a direction go through the thread's buffer, so that short connections and
//! waiting ones cost no memory; what comes after them through a pipe (`pipes.rs`), which is lent
//! only while bytes are in it. Whoever drops the future at any point loses the bytes under way and
//! nothing else.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::edge::{is_passing, now, with_buffer};
use super::pipes::{NoPipe, Pipe, Pipes};

/// After so many octets of a direction it is taken for bulk data. A page and its style sheet are
/// less, and two more descriptors do not pay for them.
const COPIED_BYTES: u64 = 64 * 1024;
/// How often a direction may go on before the other tasks of the thread get their turn: some 4 MiB
/// by pipe, a millisecond.
const ROUNDS: usize = 16;

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    /// Octets that the server's socket took, what was given to begin with included; not what it took
    /// before.
    pub(super) to_server: u64,
    /// Octets that the peer's socket took.
    pub(super) to_peer: u64,
    /// How it ended.
    pub(super) end: End,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have ended what they had to say.
    Closed,
    /// The peer broke off; so will our connection to the server.
    PeerReset,
    /// The server broke off. The peer has got, or will get, all that the server had said.
    ServerReset,
    /// Nothing moved for too long.
    Idle,
}

/// Carries `first`, if anything is left of it, to `server`, then everything in both directions, until both have ended, one has
/// broken off, or nothing has moved for `idle`. Both streams are then to be dropped.
pub(super) fn relay<'a>(
    peer: &'a TcpStream,
    server: &'a TcpStream,
    first: Vec<u8>,
    idle: Duration,
    pipes: &'a Pipes,
) -> impl Future<Output = Relayed> + Send + 'a {
    let mut to_server = Direction::new(pipes, first);
    // The peer's first flight, or some of it, has been sent by whoever connected.
    to_server.has_sent = true;
    let mut to_peer = Direction::new(pipes, Vec::new());
    async move {
        let mut last_move = now();
        let mut timer = pin!(sleep(idle));
        let end = poll_fn(|cx| {
            let before = (to_server.octets, to_peer.octets);
            to_server.carry(cx, peer, server);
            to_peer.carry(cx, server, peer);
            if let Some(end) = end(&to_server, &to_peer) {
                return Poll::Ready(end);
            }
            if before != (to_server.octets, to_peer.octets) {
                last_move = now();
            }
            // The timer is moved when it strikes, not whenever something moves.
            while timer.as_mut().poll(cx).is_ready() {
                let due = last_move + idle;
                if now() >= due {
                    return Poll::Ready(End::Idle);
                }
                timer.as_mut().reset(due.into());
            }
            Poll::Pending
        })
        .await;
        if end == End::PeerReset && to_peer.state != State::Ended {
            // Closed this way, the server's side learns of the reset at once; without it, it would
            // see an orderly end of a request that was cut off.
            let _ = SockRef::from(server).set_linger(Some(Duration::ZERO));
        }
        Relayed {
            to_server: to_server.octets,
            to_peer: to_peer.octets,
            end,
        }
    }
}

fn end(to_server: &Direction<'_>, to_peer: &Direction<'_>) -> Option<End> {
    match (to_server.state, to_peer.state) {
        (State::SourceReset, _) => Some(End::PeerReset),
        (_, State::SourceReset) => Some(End::ServerReset),
        (State::Ended, State::Ended) => Some(End::Closed),
        // Whoever takes nothing any more may still have said something: that direction goes on to
        // its end, which comes soon.
        (State::TargetReset, State::Ended) => Some(End::ServerReset),
        (State::Ended | State::TargetReset, State::TargetReset) => Some(End::PeerReset),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Open,
    /// The source has ended; the target is to be told once it has everything.
    Ending,
    /// The target has been told.
    Ended,
    /// The source broke off.
    SourceReset,
    /// The target takes nothing any more.
    TargetReset,
}

/// One way of a connection.
struct Direction<'a> {
    pipes: &'a Pipes,
    /// What was read by copying and not yet sent. Nothing is read while there is any.
    unsent: Vec<u8>,
    /// Lent only while something moves.
    pipe: Option<Pipe<'a>>,
    /// What the target took.
    octets: u64,
    state: State,
    may_splice: bool,
    has_sent: bool,
    is_undelayed: bool,
    /// The kernel may hold back the end of what was sent: it was told that more follows.
    is_held_back: bool,
}

impl<'a> Direction<'a> {
    fn new(pipes: &'a Pipes, unsent: Vec<u8>) -> Self {
        Self {
            pipes,
            unsent,
            pipe: None,
            octets: 0,
            state: State::Open,
            may_splice: true,
            has_sent: false,
            is_undelayed: false,
            is_held_back: false,
        }
    }

    /// Carries on as far as it goes without waiting, and leaves the task's waker where it waits.
    fn carry(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) {
        for _ in 0..ROUNDS {
            match self.state {
                State::Open | State::Ending if self.has_unsent() => match to.poll_write_ready(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Err(_)) => self.state = State::TargetReset,
                    Poll::Ready(Ok(())) => self.send(to),
                },
                State::Open => match from.poll_read_ready(cx) {
                    Poll::Pending => {
                        self.pipe = None;
                        if std::mem::take(&mut self.is_held_back) {
                            let _ = to.set_nodelay(true);
                        }
                        return;
                    }
                    Poll::Ready(Err(_)) => self.state = State::SourceReset,
                    Poll::Ready(Ok(())) => self.receive(from, to),
                },
                State::Ending => {
                    self.pipe = None;
                    // Not connected any more: then the other direction will see the same.
                    let _ = shutdown(to, Shutdown::Write);
                    self.state = State::Ended;
                    return;
                }
                State::Ended | State::SourceReset | State::TargetReset => {
                    self.pipe = None;
                    self.unsent = Vec::new();
                    return;
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    /// Sends of what is unsent.
    fn send(&mut self, to: &TcpStream) {
        self.undelay(to);
        let sent = match &mut self.pipe {
            Some(pipe) if self.unsent.is_empty() => {
                self.is_held_back = pipe.expects_more();
                pipe.drain(to)
            }
            _ => to.try_write(&self.unsent).inspect(|sent| {
                self.unsent.drain(..*sent);
            }),
        };
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        self.has_been_sent(sent);
    }

    fn has_been_sent(&mut self, sent: io::Result<usize>) {
        match sent {
            Ok(sent) => {
                self.octets += sent as u64;
                self.has_sent = true;
            }
            Err(error) if is_passing(&error) => {}
            Err(_) => self.state = State::TargetReset,
        }
    }

    /// Nagle's algorithm would hold the second small flight back until the first is acknowledged.
    /// Connections of one flight, scans and health checks, are spared the call.
    fn undelay(&mut self, to: &TcpStream) {
        if self.has_sent && !self.is_undelayed {
            let _ = to.set_nodelay(true);
            self.is_undelayed = true;
        }
    }

    /// Receives, with nothing unsent.
    fn receive(&mut self, from: &TcpStream, to: &TcpStream) {
        if self.pipe.is_none() && self.may_splice && self.octets >= COPIED_BYTES {
            match self.pipes.lend() {
                Ok(pipe) => self.pipe = Some(pipe),
                Err(NoPipe::AllLent) => {}
                // Asking again would cost four calls each time.
                Err(NoPipe::Refused) => self.may_splice = false,
            }
        }
        let received = match &mut self.pipe {
            Some(pipe) => pipe.fill(from),
            None => self.copy(from, to),
        };
        match received {
            Ok(0) => self.state = State::Ending,
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(_) => self.state = State::SourceReset,
        }
    }

    /// Receives into the thread's buffer and sends from it at once; only what the target does not
    /// take is kept. Returns what was received.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<usize> {
        with_buffer(|buffer| {
            let mut received = None;
            let outcome = from.try_io(Interest::READABLE, || {
                let (_, length) = recv(from, &mut *buffer, RecvFlags::empty())?;
                received = Some(length);
                // Less than there was room for: there is no more, and the reactor may know it
                // without a call that would only say so.
                match length {
                    0 => Ok(()),
                    _ if length < buffer.len() => Err(ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            let Some(received) = received else {
                return outcome.map(|()| 0);
            };
            if received > 0 {
                self.undelay(to);
                let sent = to.try_write(&buffer[..received]);
                let taken = *sent.as_ref().unwrap_or(&0);
                self.unsent.extend_from_slice(&buffer[taken..received]);
                self.has_been_sent(sent);
            }
            Ok(received)
        })
    }
}

#[cfg(test)]
mod tests;
