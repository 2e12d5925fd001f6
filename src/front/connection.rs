//! The connections that could not be finished at once: slow heads, look-ups, answers that the peer
//! does not take, and bytes that nobody asked for.
//!
//! Every wait has a deadline, and what a window admitted ends with the window's grace. What it
//! never does: read a second request.
//!
//! Ten thousand of these may wait for their heads at once, so what comes later or seldom is boxed.

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::arrival::Arrival;
use super::edge::{now, with_buffer};
use super::judge::{Finish, Judged, LookUp, Step, conclude, judge, refuse};
use super::place::Place;
use super::report::Report;
use super::sources::Ticket;
use super::{Front, Settings, Speaks};
use crate::gate::event::Ends;
use crate::gate::{Admission, Peer, Reason};

/// How long a connection may last altogether: the head's ten seconds and the upstream's. Boulder
/// gives a remote validation 15 to 20 seconds in its test configuration (2026-08).
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// What of that is kept for sending the answer.
const SENDING_TIME: Duration = Duration::from_secs(1);
/// How long a peer may go on sending what is not read, so that it finds its answer before a reset.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How much of that is read and thrown away. The rest stays in the peer's and the kernel's buffers.
const LINGER_BYTES: usize = 64 * 1024;

/// How far a connection has come.
pub(super) enum Progress {
    /// These bytes of the head are there.
    Reading(Vec<u8>),
    /// The responder is to be asked.
    LookingUp(Box<LookUp>),
    /// This is to be sent.
    Sending(Box<Finish>),
}

/// A connection that waits for something.
pub(super) struct Connection {
    stream: TcpStream,
    report: Report,
    arrival: Arrival,
    head_deadline: Instant,
    /// Held for as long as the connection is.
    ticket: Ticket,
}

/// A connection turned out to be another peer's than who was judged so far.
struct Turn {
    arrival: Arrival,
    progress: Progress,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Connection {
    /// A connection with a place of its own; `None` where there is none, which has been told then.
    pub(super) fn hold(
        socket: OwnedFd,
        mut report: Report,
        arrival: Arrival,
        settings: &Settings,
    ) -> Option<Self> {
        let place = Place::take(socket, Speaks::Http, &mut report, &arrival, settings)?;
        Some(Self {
            stream: place.stream,
            head_deadline: report.accepted + place.patience.min(CONNECTION_TIMEOUT),
            report,
            arrival,
            ticket: place.ticket,
        })
    }

    /// Brings the connection to its end, whatever that is.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and this one is held by the thousand"
    )]
    pub(super) fn run(mut self, mut progress: Progress) -> impl Future<Output = ()> + Send {
        async move {
            // All of it moves in here, the ticket too: a closure would take only what it names.
            let own = &mut self;
            let front = Arc::clone(&own.report.front);
            loop {
                let exchange = Exchange {
                    stream: &own.stream,
                    front: &front,
                    arrival: &own.arrival,
                    head_deadline: own.head_deadline,
                    last: own.report.accepted + CONNECTION_TIMEOUT,
                };
                let mut closed: Option<Boxed<'_, ()>> = match own.arrival.admission {
                    Ok(Admission::Window { until }) => {
                        let peer = own.arrival.peer;
                        Some(Box::pin(window_closed(&front, peer, until)))
                    }
                    _ => None,
                };
                // What no window admitted, no window ends.
                let closed = poll_fn(|cx| match &mut closed {
                    Some(closed) => closed.as_mut().poll(cx),
                    None => Poll::Pending,
                });
                let turn = tokio::select! {
                    biased;
                    () = closed => return own.report.tell(Reason::WindowClosed.into()),
                    turn = exchange.run(progress, &mut own.report) => turn,
                };
                match turn.and_then(|turn| own.turn(*turn)) {
                    Some(next) => progress = next,
                    None => return,
                }
            }
        }
    }

    /// Goes on as the real peer's connection; `None` where that one may not, which has been told then.
    fn turn(&mut self, turn: Turn) -> Option<Progress> {
        let front = &self.report.front;
        let (rules, windows) = (front.rules(), front.windows());
        self.arrival = turn.arrival;
        self.report.is_of(&self.arrival, &windows, now());
        let source = self.arrival.source(Speaks::Http, &rules.settings);
        // Whom nothing let in needs no place any more.
        if self.arrival.admission.is_ok()
            && let Err(reason) = self.ticket.pass_to(source, &rules.settings)
        {
            self.report.tell(reason.into());
            return None;
        }
        Some(turn.progress)
    }
}

/// Ends when what admitted the peer has ended, its grace included. Windows may be prolonged or
/// closed meanwhile.
pub(super) async fn window_closed(front: &Front, peer: Peer, mut until: Instant) {
    let mut windows = front.windows.clone();
    let mut is_followed = true;
    loop {
        if is_followed {
            let admitted = windows
                .borrow_and_update()
                .admitted_where(|door| peer.may_use(door), now());
            match admitted {
                Some(later) => until = later,
                None => return,
            }
        }
        tokio::select! {
            () = sleep_until(until.into()) => {
                if !is_followed {
                    return;
                }
            }
            // Whoever kept the windows is gone: nothing prolongs this one any more.
            changed = windows.changed(), if is_followed => is_followed = changed.is_ok(),
        }
    }
}

/// The conversation itself.
struct Exchange<'a> {
    stream: &'a TcpStream,
    front: &'a Front,
    arrival: &'a Arrival,
    head_deadline: Instant,
    last: Instant,
}

impl Exchange<'_> {
    /// Brings it to its end, or to where it turns out to be somebody else's.
    async fn run(&self, progress: Progress, report: &mut Report) -> Option<Box<Turn>> {
        let step = match progress {
            Progress::Reading(head) => match self.read(head).await {
                Ok(step) => step,
                Err(turn) => return Some(turn),
            },
            Progress::LookingUp(look_up) => Step::LookUp(*look_up),
            Progress::Sending(finish) => Step::Finish(*finish),
        };
        let rest: Boxed<'_, ()> = Box::pin(self.finish(step, report));
        rest.await;
        None
    }

    /// Reads until the head is judged, its time is over, or somebody else is its peer. Never ends with
    /// `NeedMore`.
    async fn read(&self, mut head: Vec<u8>) -> Result<Step, Box<Turn>> {
        loop {
            // The stream's own future would keep a waiter for each of many tasks; one alone reads.
            let readable = poll_fn(|cx| self.stream.poll_read_ready(cx));
            match timeout_at(self.head_deadline.into(), readable).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(Step::Finish(Finish::gone())),
                Err(_) => return Ok(Step::Finish(self.too_late(&head))),
            }
            let judged = match with_buffer(|buffer| self.read_once(buffer, &mut head)) {
                Ok(judged) => judged,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return Ok(Step::Finish(Finish::gone())),
            };
            match (judged.step, judged.arrival) {
                (Step::NeedMore, None) => {}
                (step, None) => return Ok(step),
                (step, Some(arrival)) => {
                    head.drain(..judged.taken.min(head.len()));
                    return Err(Box::new(Turn {
                        arrival: *arrival,
                        progress: match step {
                            Step::NeedMore => Progress::Reading(head),
                            Step::LookUp(look_up) => Progress::LookingUp(Box::new(look_up)),
                            Step::Finish(finish) => Progress::Sending(Box::new(finish)),
                        },
                    }));
                }
            }
        }
    }

    fn read_once(&self, buffer: &mut [u8], head: &mut Vec<u8>) -> io::Result<Judged> {
        let length = self.stream.try_read(buffer)?;
        if length == 0 {
            return Ok(Step::Finish(Finish::gone()).into());
        }
        let rules = self.front.rules();
        let windows = self.front.windows();
        let judge = |bytes| judge(bytes, self.arrival, &rules, &windows, now());
        // The common case, one segment and no more, keeps no copy.
        if head.is_empty() {
            let judged = judge(&buffer[..length]);
            if matches!(judged.step, Step::NeedMore) {
                head.extend_from_slice(&buffer[..length]);
            }
            return Ok(judged);
        }
        head.extend_from_slice(&buffer[..length]);
        Ok(judge(head))
    }

    /// Looks up what is to be looked up, sends, tells, and takes leave.
    async fn finish(&self, step: Step, report: &mut Report) {
        let was_looked_up = matches!(step, Step::LookUp(_));
        let mut finish = match step {
            Step::Finish(finish) => finish,
            Step::LookUp(look_up) => {
                let (source, destination) = (self.stream.peer_addr(), self.stream.local_addr());
                let ends = self.arrival.ends(source.ok(), destination.ok());
                look_up_until(self.last - SENDING_TIME, look_up, ends).await
            }
            Step::NeedMore => Finish::gone(),
        };
        // A look-up takes long enough for more to have come.
        finish.may_have_unread |= was_looked_up && self.has_unread();
        let Some(reply) = finish.reply else {
            return report.tell(finish.outcome);
        };
        match timeout_at(self.last.into(), self.send(&reply)).await {
            Ok(Ok(())) => report.tell(finish.outcome),
            _ => return report.tell(finish.outcome.untaken()),
        }
        if finish.may_have_unread {
            // RFC 9112 §9.6: a close with unread bytes resets the connection, and the reset can
            // overtake the answer.
            let _ = shutdown(self.stream, Shutdown::Write);
            let _ = timeout(LINGER_TIME, self.discard()).await;
        }
    }

    async fn send(&self, mut reply: &[u8]) -> io::Result<()> {
        while !reply.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(reply) {
                Ok(sent) => reply = &reply[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Who began a request is told that it took too long; who said nothing is told nothing, nor is a
    /// balancer that has not said for whom it is.
    fn too_late(&self, head: &[u8]) -> Finish {
        if self.arrival.owes_header {
            return Finish::silent(Reason::ProxyHeader);
        }
        match head {
            [] => Finish::silent(Reason::HeadTimeout),
            _ => refuse(Reason::HeadTimeout.into(), head.starts_with(b"HEAD "), true),
        }
    }

    /// Whether the peer has sent anything that was not read, by the kernel's word.
    fn has_unread(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(self.stream, &mut [0; 1], peek), Ok((_, 1..)))
    }

    /// Reads and throws away, up to the peer's end or [`LINGER_BYTES`]; then only waits, so that a
    /// peer that reads while it writes can still take its answer and go. The caller's deadline ends
    /// it.
    async fn discard(&self) {
        let mut left = LINGER_BYTES;
        while left > 0 {
            if self.stream.readable().await.is_err() {
                return;
            }
            let read = with_buffer(|buffer| {
                let size = left.min(buffer.len());
                self.stream.try_read(&mut buffer[..size])
            });
            match read {
                Ok(0) => return,
                Ok(length) => left -= length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        pending().await
    }
}

/// Asks the responder. It has deadlines of its own; this one is for heads that took their time.
async fn look_up_until(deadline: Instant, look_up: LookUp, ends: Ends) -> Finish {
    let LookUp {
        rules,
        permit,
        is_head,
    } = look_up;
    let answer = rules.responder.look_up(permit.clone(), ends);
    let answer = match timeout_at(deadline.into(), answer).await {
        Ok(answer) => answer,
        Err(_) => Err((
            Reason::UpstreamSlow,
            Some("the connection's time is over".to_owned()),
        )),
    };
    conclude(&rules, &permit, answer, is_head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<F>(_: fn(Connection, Progress) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn a_held_connection_stays_small() {
        let bytes = size_of_output(Connection::run);
        println!("{bytes} octets");
        assert!(bytes <= 768, "{bytes} octets per held connection");
    }
}
