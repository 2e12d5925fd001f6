//! Accepts connections, and answers at once whoever has sent a whole request already.
//!
//! One request per connection is what ACME is, and most requests are there when the connection
//! is. So a socket is read right after accept(2), by the system call itself, and only what cannot
//! be finished then is registered with the reactor and gets a task (`connection.rs`).
//!
//! What it never does: wait for one peer, spin on a shortage, or die of one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, acceptfrom_with, getsockname, recv, send};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use super::arrival::Arrival;
use super::connection::{Connection, Progress};
use super::edge::{now, with_buffer};
use super::judge::{Finish, Step, judge};
use super::report::{Outcome, Report};
use super::shortage::{Remedy, Shortage};
use super::{Front, Speaks, tls};
use crate::gate::Peer;

/// How many connections are accepted before the other tasks of the thread get their turn.
const BATCH: usize = 32;

/// One listener and the connections that it brought.
pub(super) struct Acceptor {
    listener: AsyncFd<TcpListener>,
    speaks: Speaks,
    /// Asked once: every connection of a plain listener has its port.
    local_port: u16,
    /// A transparent listener (ip(7), IP_TRANSPARENT) is handed connections to any address and port
    /// of this host: each socket has to be asked.
    is_transparent: bool,
    front: Arc<Front>,
    connections: JoinSet<()>,
    shortage: Shortage,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        speaks: Speaks,
        front: Arc<Front>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        let socket = SockRef::from(&listener);
        let is_transparent = match local {
            SocketAddr::V4(_) => socket.ip_transparent_v4()?,
            SocketAddr::V6(_) => socket.ip_transparent_v6()?,
        };
        #[expect(
            deprecated,
            reason = "its replacement is unsafe, for types that change their descriptor; std's \
                      TcpListener never does, and tokio's cannot be asked for readiness alone"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Self {
            listener,
            speaks,
            local_port: local.port(),
            is_transparent,
            front,
            connections: JoinSet::new(),
            shortage: Shortage::default(),
        })
    }

    /// Accepts until told to stop, then drains.
    pub(super) async fn run(
        mut self,
        mut shutdown: watch::Receiver<bool>,
        drain: Duration,
    ) -> io::Result<()> {
        let ended = tokio::select! {
            biased;
            // A sender that is gone means that nobody is left to ask for a stop.
            _ = shutdown.wait_for(|stop| *stop) => Ok(()),
            error = self.accept_for_ever() => Err(error),
        };
        let Self {
            listener,
            mut connections,
            ..
        } = self;
        drop(listener);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                tell_panic(ended);
            }
        };
        if tokio::time::timeout(drain, drained).await.is_err() {
            connections.shutdown().await;
        }
        ended
    }

    /// Returns only an error that no patience mends.
    async fn accept_for_ever(&mut self) -> io::Error {
        loop {
            let ready = tokio::select! {
                ready = self.listener.readable() => ready,
                Some(ended) = self.connections.join_next() => {
                    tell_panic(ended);
                    continue;
                }
            };
            let mut ready = match ready {
                Ok(ready) => ready,
                Err(error) => return error,
            };
            // Unless something else comes up, the batch is full and there may be more.
            let mut then = Then::Yield;
            for _ in 0..BATCH {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                match acceptfrom_with(ready.get_inner(), flags) {
                    Ok((socket, address)) => {
                        // TCP knows its peers; a socket without one is of no use to anybody.
                        let address = address.and_then(|any| SocketAddr::try_from(any).ok());
                        if let Some(address) = address {
                            let own_port = (!self.is_transparent).then_some(self.local_port);
                            greet(
                                &self.front,
                                self.speaks,
                                &mut self.connections,
                                socket,
                                address,
                                own_port,
                            );
                        }
                    }
                    Err(Errno::AGAIN) => {
                        self.shortage.is_over();
                        ready.clear_ready();
                        then = Then::Wait;
                        break;
                    }
                    Err(error) => match Remedy::of(error) {
                        Remedy::Ignore => {}
                        Remedy::BackOff => {
                            then = Then::Pause(self.shortage.pause(error, now()));
                            break;
                        }
                        Remedy::Stop => return error.into(),
                    },
                }
            }
            match then {
                Then::Wait => {}
                // A flood of new connections must not starve those that are held.
                Then::Yield => tokio::task::yield_now().await,
                Then::Pause(pause) => sleep(pause).await,
            }
            while let Some(ended) = self.connections.try_join_next() {
                tell_panic(ended);
            }
        }
    }
}

/// What a batch of accepts leads to.
enum Then {
    /// All of them are taken.
    Wait,
    /// There may be more.
    Yield,
    /// There are more, and no means to take them.
    Pause(Duration),
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked; this is a bug");
    }
}

/// Takes one connection as far as it goes without waiting. `own_port` is the listener's, where all
/// of its connections have that one.
fn greet(
    front: &Arc<Front>,
    speaks: Speaks,
    connections: &mut JoinSet<()>,
    socket: OwnedFd,
    address: SocketAddr,
    own_port: Option<u16>,
) {
    let now = now();
    let (rules, windows) = (front.rules(), front.windows());
    // One more call to the kernel, where anything depends on its answer.
    let local = match own_port {
        Some(_) if !windows.ask_for_addresses() => None,
        _ => getsockname(&socket)
            .ok()
            .and_then(|any| SocketAddr::try_from(any).ok()),
    };
    let Some(local_port) = own_port.or(local.map(|local| local.port())) else {
        // The connection is gone already; nobody can be told of it.
        return;
    };
    let peer = Peer {
        address: address.ip().to_canonical(),
        local_port,
        local_address: local.map(|local| local.ip().to_canonical()),
    };
    let mut report = Report::new(Arc::clone(front), peer, now);
    let mut arrival = Arrival::new(peer, &rules, &windows, now);
    if let Err(reason) = arrival.admission {
        return report.tell(reason.into());
    }
    report.is_of(&arrival, &windows, now);
    let source = arrival.source(speaks, &rules.settings);
    let limits = rules.settings.limits(speaks);
    if let Err(reason) = front.sources(speaks).admit(source, limits) {
        return report.tell(reason.into());
    }
    if speaks == Speaks::Tls {
        if let Some(connection) = tls::Connection::hold(socket, report, arrival, &rules.settings) {
            connections.spawn(connection.run());
        }
        return;
    }

    let (judged, head) =
        with_buffer(
            |buffer| match recv(&socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => (Step::Finish(Finish::gone()).into(), Vec::new()),
                Ok((_, length)) => {
                    let bytes = &buffer[..length];
                    let judged = judge(bytes, &arrival, &rules, &windows, now);
                    let head = match judged.step {
                        Step::NeedMore => bytes[judged.taken..].to_vec(),
                        _ => Vec::new(),
                    };
                    (judged, head)
                }
                Err(Errno::AGAIN | Errno::INTR) => (Step::NeedMore.into(), Vec::new()),
                Err(_) => (Step::Finish(Finish::gone()).into(), Vec::new()),
            },
        );
    if let Some(real) = judged.arrival {
        arrival = *real;
        report.is_of(&arrival, &windows, now);
        let source = arrival.source(speaks, &rules.settings);
        if arrival.admission.is_ok()
            && let Err(reason) = front.sources(speaks).admit(source, limits)
        {
            return report.tell(reason.into());
        }
    }
    let progress = match judged.step {
        Step::NeedMore => Progress::Reading(head),
        Step::LookUp(look_up) => Progress::LookingUp(Box::new(look_up)),
        Step::Finish(finish) => match send_at_once(&socket, finish) {
            Ok(outcome) => return report.tell(outcome),
            Err(rest) => Progress::Sending(Box::new(rest)),
        },
    };
    if let Some(connection) = Connection::hold(socket, report, arrival, &rules.settings) {
        connections.spawn(connection.run(progress));
    }
}

/// Sends a whole answer to a peer that has nothing unread, or says what remains to be done.
fn send_at_once(socket: &OwnedFd, mut finish: Finish) -> Result<Outcome, Finish> {
    let Some(reply) = &mut finish.reply else {
        return Ok(finish.outcome);
    };
    match send(socket, reply, SendFlags::NOSIGNAL) {
        Ok(sent) => {
            reply.drain(..sent);
        }
        Err(Errno::AGAIN | Errno::INTR) => {}
        Err(_) => return Ok(finish.outcome.untaken()),
    }
    match reply.is_empty() && !finish.may_have_unread {
        true => Ok(finish.outcome),
        false => Err(finish),
    }
}
