//! The connections that could not be finished at once: slow heads, look-ups, answers that the peer
//! does not take, and bytes that nobody asked for.
//!
//! Every wait has a deadline, and what a window admitted ends with the window's grace. What it
//! never does: read a second request.

use std::future::pending;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::edge::{now, with_buffer};
use super::judge::{Finish, LookUp, Outcome, Step, conclude, judge, refuse};
use super::sources::Ticket;
use super::{Front, Settings};
use crate::gate::event::Ended;
use crate::gate::window::{Family, LeaseName};
use crate::gate::{Admission, Peer, Reason};

/// How long a connection may last altogether: the head's ten seconds and the upstream's. Boulder
/// gives a remote validation 15 to 20 seconds in its test configuration (2026-08).
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// What of that is kept for sending the answer.
const SENDING_TIME: Duration = Duration::from_secs(1);
/// How long a head may take while three quarters of all places are taken: a lost segment is sent
/// again after one second (RFC 6298 §2), and whoever holds places for fun should not hold them long.
const PRESSED_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
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
    admission: Admission,
    accepted: Instant,
    head_timeout: Duration,
    ticket: Ticket,
}

impl Connection {
    /// Takes a place for the connection and registers it with the reactor. `None` when no place is
    /// left for its source or at all, or the reactor cannot take it; that has been told then.
    pub(super) fn hold(
        socket: OwnedFd,
        report: Report,
        admission: Admission,
        accepted: Instant,
        settings: &Settings,
    ) -> Option<Self> {
        let (ticket, is_pressed) = match Ticket::take(&report.front, report.peer.address, settings)
        {
            Ok(taken) => taken,
            Err(reason) => {
                report.tell(reason.into());
                return None;
            }
        };
        let stream = match TcpStream::from_std(StdStream::from(socket)) {
            Ok(stream) => stream,
            Err(error) => {
                report.tell(Outcome {
                    detail: Some(format!("no place in the reactor: {error}")),
                    ..Reason::TotalLimit.into()
                });
                return None;
            }
        };
        let head_timeout = match is_pressed {
            true => settings.head_timeout.min(PRESSED_HEAD_TIMEOUT),
            false => settings.head_timeout,
        };
        Some(Self {
            stream,
            report,
            admission,
            accepted,
            head_timeout,
            ticket,
        })
    }

    /// Brings the connection to its end, whatever that is.
    pub(super) async fn run(self, progress: Progress) {
        let Self {
            stream,
            mut report,
            admission,
            accepted,
            head_timeout,
            ticket,
        } = self;
        let (front, peer) = (Arc::clone(&report.front), report.peer);
        let exchange = Exchange {
            stream,
            front: &front,
            peer,
            accepted,
            head_timeout,
        };
        tokio::select! {
            biased;
            () = window_closed(&front, peer, admission) => {
                report.tell_unless_told(Reason::WindowClosed.into());
            }
            () = exchange.run(progress, &mut report) => {}
        }
        drop(ticket);
    }
}

/// Ends when what admitted the peer has ended, its grace included. Windows may be prolonged or
/// closed meanwhile; an allow-listed peer waits for ever.
async fn window_closed(front: &Front, peer: Peer, admission: Admission) {
    let Admission::Window { mut until } = admission else {
        return pending().await;
    };
    let family = Family::of(peer.address);
    let mut windows = front.windows.clone();
    let mut is_followed = true;
    loop {
        if is_followed {
            let admitted =
                windows
                    .borrow_and_update()
                    .admitted_until(family, peer.local_port, now());
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
    stream: TcpStream,
    front: &'a Front,
    peer: Peer,
    accepted: Instant,
    head_timeout: Duration,
}

impl Exchange<'_> {
    async fn run(self, progress: Progress, report: &mut Report) {
        let last = self.accepted + CONNECTION_TIMEOUT;
        let step = match progress {
            Progress::Reading(head) => self.read(head).await,
            Progress::LookingUp(look_up) => Step::LookUp(*look_up),
            Progress::Sending(finish) => Step::Finish(*finish),
        };
        let finish = match step {
            Step::Finish(finish) => finish,
            Step::LookUp(look_up) => look_up_until(last - SENDING_TIME, look_up).await,
            // `read` ends with another step.
            Step::NeedMore => Finish::gone(),
        };
        let Finish {
            reply,
            outcome,
            may_have_unread,
        } = finish;
        let Some(reply) = reply else {
            return report.tell_unless_told(outcome);
        };
        match timeout_at(last.into(), self.send(&reply)).await {
            Ok(Ok(())) => report.tell_unless_told(outcome),
            _ => return report.tell_unless_told(Finish::gone_unanswered(outcome)),
        }
        drop(reply);
        if may_have_unread || self.has_unread() {
            // RFC 9112 §9.6: a close with unread bytes resets the connection, and the reset can
            // overtake the answer.
            let _ = shutdown(&self.stream, Shutdown::Write);
            let _ = timeout(LINGER_TIME, self.discard()).await;
        }
    }

    /// Reads until the head is judged, or its time is over.
    async fn read(&self, mut head: Vec<u8>) -> Step {
        let deadline = self.accepted + self.head_timeout.min(CONNECTION_TIMEOUT);
        loop {
            match timeout_at(deadline.into(), self.stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Step::Finish(Finish::gone()),
                Err(_) if head.is_empty() => {
                    return Step::Finish(Finish {
                        reply: None,
                        ..refuse(Reason::HeadTimeout.into(), false, false)
                    });
                }
                Err(_) => {
                    let is_head = head.starts_with(b"HEAD ");
                    return Step::Finish(refuse(Reason::HeadTimeout.into(), is_head, true));
                }
            }
            match with_buffer(|buffer| self.read_once(buffer, &mut head)) {
                Ok(Step::NeedMore) => {}
                Ok(step) => return step,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Step::Finish(Finish::gone()),
            }
        }
    }

    fn read_once(&self, buffer: &mut [u8], head: &mut Vec<u8>) -> io::Result<Step> {
        let length = self.stream.try_read(buffer)?;
        if length == 0 {
            return Ok(Step::Finish(Finish::gone()));
        }
        let rules = self.front.rules();
        let windows = self.front.windows();
        let judge = |bytes| judge(bytes, &rules, &windows, self.peer.local_port, now());
        // The common case, one segment and no more, keeps no copy.
        if head.is_empty() {
            let step = judge(&buffer[..length]);
            if matches!(step, Step::NeedMore) {
                head.extend_from_slice(&buffer[..length]);
            }
            return Ok(step);
        }
        head.extend_from_slice(&buffer[..length]);
        Ok(judge(head))
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

    /// Whether the peer has sent anything that was not read, by the kernel's word.
    fn has_unread(&self) -> bool {
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.stream, &mut [0; 1], peek), Ok((_, 1..)))
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
async fn look_up_until(deadline: Instant, look_up: LookUp) -> Finish {
    let LookUp {
        rules,
        permit,
        is_head,
    } = look_up;
    let answer = rules.responder.look_up(permit.clone());
    let answer = match timeout_at(deadline.into(), answer).await {
        Ok(answer) => answer,
        Err(_) => Err((
            Reason::UpstreamSlow,
            Some("the connection's time is over".to_owned()),
        )),
    };
    conclude(&rules, &permit, answer, is_head)
}

impl Finish {
    /// The peer went away before it had asked anything.
    pub(super) fn gone() -> Self {
        Self {
            reply: None,
            outcome: Reason::PeerGone.into(),
            may_have_unread: false,
        }
    }

    /// The peer went away before it took its answer: it got nothing, whatever was decided.
    pub(super) fn gone_unanswered(outcome: Outcome) -> Outcome {
        Outcome {
            reason: Reason::PeerGone,
            detail: Some(format!("it did not take its answer: {}", outcome.reason)),
            ..outcome
        }
    }
}

/// Tells the witness how a connection ended, exactly once: whoever drops it untold, as a stop does,
/// tells that.
pub(super) struct Report {
    pub(super) front: Arc<Front>,
    pub(super) peer: Peer,
    pub(super) lease: Option<LeaseName>,
    is_told: bool,
}

impl Report {
    pub(super) fn new(front: Arc<Front>, peer: Peer) -> Self {
        Self {
            front,
            peer,
            lease: None,
            is_told: false,
        }
    }

    pub(super) fn tell(mut self, outcome: Outcome) {
        self.tell_unless_told(outcome);
    }

    fn tell_unless_told(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        self.front.witness.ended(&Ended {
            reason: outcome.reason,
            peer: self.peer.address,
            local_port: self.peer.local_port,
            identifier: outcome.identifier.as_ref(),
            thumbprint: outcome.thumbprint.as_ref(),
            lease: self.lease.as_ref(),
            detail: outcome.detail.as_deref(),
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell_unless_told(Reason::Stopping.into());
    }
}
