//! Port 443: reads the ClientHello, asks the gate, and leads on to a responder, to the site's own
//! server, or nowhere.
//!
//! What it never does: complete a handshake for what is not ours, look into what it passes on, or
//! lead anybody to the site's server who is not on the allow-list. A validation ends in a responder
//! and never at the site, whatever is offered (`gate::tls` says why).

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::arrival::Arrival;
use super::client_hello::{self, Parsed};
use super::connect::connect;
use super::connection::window_closed;
use super::edge::{is_passing, now, with_buffer};
use super::handshake_only::relay_handshake;
use super::place::Place;
use super::relay::relay;
use super::report::{Failure, Outcome, Report};
use super::responder::respond;
use super::sources::Ticket;
use super::{Front, Refusal, Rules, Settings, Speaks};
use crate::gate::identifier::Identifier;
use crate::gate::tls::{Hello, Server, TlsDecision, TlsPermit, TlsResponder};
use crate::gate::{Admission, Reason};
use crate::proxy_protocol;

/// How long a handshake with a responder may take, from the moment the peer connected. Boulder gives
/// a remote validation 15 to 20 seconds in its test configuration (2026-08).
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(20);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection that speaks TLS, or should.
pub(super) struct Connection {
    stream: TcpStream,
    report: Report,
    arrival: Arrival,
    hello_deadline: Instant,
    /// Held for as long as the connection is.
    ticket: Ticket,
}

impl Connection {
    /// A connection with a place of its own; `None` where there is none, which has been told then.
    pub(super) fn hold(
        socket: OwnedFd,
        mut report: Report,
        arrival: Arrival,
        settings: &Settings,
    ) -> Option<Self> {
        let place = Place::take(socket, Speaks::Tls, &mut report, &arrival, settings)?;
        Some(Self {
            stream: place.stream,
            hello_deadline: report.accepted + place.patience,
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
    pub(super) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            // All of it moves in here, the ticket too: a closure would take only what it names.
            let own = &mut self;
            let received = match own.arrival.owes_header {
                false => received_already(&own.stream),
                true => {
                    let reading: Boxed<'_, _> = Box::pin(own.hear_balancer());
                    match reading.await {
                        Ok(rest) => rest,
                        Err(reason) => return own.report.tell(reason.into()),
                    }
                }
            };
            let front = Arc::clone(&own.report.front);
            let peer = own.arrival.peer;
            let ended: Boxed<'_, Reason> = match own.arrival.admission {
                Err(reason) => return own.report.tell(reason.into()),
                Ok(Admission::Window { until }) => {
                    let front = &front;
                    Box::pin(async move {
                        window_closed(front, peer, until).await;
                        Reason::WindowClosed
                    })
                }
                Ok(Admission::AllowList) => Box::pin(taken_off(&front, peer.address)),
                Ok(Admission::Everybody) => Box::pin(pending()),
            };
            let exchange = Exchange {
                stream: &own.stream,
                front: &front,
                arrival: &own.arrival,
                hello_deadline: own.hello_deadline,
                last: own.report.accepted + VALIDATION_TIMEOUT,
            };
            tokio::select! {
                biased;
                reason = ended => own.report.tell(reason.into()),
                () = exchange.run(received, &mut own.report) => {}
            }
        }
    }

    /// Reads the header of the PROXY protocol and goes on as the real peer's connection; gives back what
    /// came behind it.
    async fn hear_balancer(&mut self) -> Result<Vec<u8>, Reason> {
        let mut bytes = Vec::new();
        let header = loop {
            match proxy_protocol::parse(&bytes) {
                proxy_protocol::Parsed::Complete(header) => break header,
                proxy_protocol::Parsed::NeedMore => {}
                proxy_protocol::Parsed::Malformed => return Err(Reason::ProxyHeader),
            }
            match receive(&self.stream, &mut bytes, self.hello_deadline).await {
                Err(Reason::HelloTimeout) => return Err(Reason::ProxyHeader),
                done => done?,
            }
        };
        let front = &self.report.front;
        let (rules, windows) = (front.rules(), front.windows());
        self.arrival = self.arrival.announced(header.ends, &rules, &windows, now());
        self.report.is_of(&self.arrival, &windows, now());
        self.arrival.admission?;
        let source = self.arrival.source(Speaks::Tls, &rules.settings);
        self.ticket.pass_to(source, &rules.settings)?;
        bytes.drain(..header.length);
        Ok(bytes)
    }
}

/// What has come already. Most hellos are there when the connection is, and the reactor, which has
/// not looked yet, need not be waited for. An end or an error shows at the next look.
fn received_already(stream: &TcpStream) -> Vec<u8> {
    with_buffer(
        |buffer| match recv(stream, &mut *buffer, RecvFlags::empty()) {
            Ok((_, length)) => buffer[..length].to_vec(),
            Err(_) => Vec::new(),
        },
    )
}

/// Waits for more octets, and adds them.
async fn receive(stream: &TcpStream, bytes: &mut Vec<u8>, deadline: Instant) -> Result<(), Reason> {
    loop {
        // The stream's own future would keep a waiter for each of many tasks; one alone reads.
        let readable = poll_fn(|cx| stream.poll_read_ready(cx));
        match timeout_at(deadline.into(), readable).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Reason::PeerGone),
            Err(_) => return Err(Reason::HelloTimeout),
        }
        let read = with_buffer(|buffer| {
            let count = stream.try_read(buffer)?;
            bytes.extend_from_slice(&buffer[..count]);
            Ok::<usize, io::Error>(count)
        });
        match read {
            Ok(0) => return Err(Reason::PeerGone),
            Ok(_) => return Ok(()),
            Err(error) if is_passing(&error) => {}
            Err(_) => return Err(Reason::PeerGone),
        }
    }
}

/// Ends when the allow-list does not have the peer any more.
async fn taken_off(front: &Front, address: IpAddr) -> Reason {
    let mut rules = front.rules.clone();
    loop {
        if rules.changed().await.is_err() {
            // Nobody is left to change them.
            return pending().await;
        }
        if !rules.borrow_and_update().gate.allow.contains(address) {
            return Reason::NotAllowed;
        }
    }
}

/// Where a connection is led.
enum Way {
    /// Nowhere.
    Refuse(Outcome),
    /// To a responder.
    Challenge(TlsPermit, Arc<Rules>),
    /// To the site's own server.
    Pass(Option<Server>, Option<Identifier>),
}

/// The conversation itself.
struct Exchange<'a> {
    stream: &'a TcpStream,
    front: &'a Front,
    arrival: &'a Arrival,
    hello_deadline: Instant,
    last: Instant,
}

impl Exchange<'_> {
    async fn run(&self, received: Vec<u8>, report: &mut Report) {
        let reading: Boxed<'_, _> = Box::pin(self.read(received));
        let (way, hello) = reading.await;
        match way {
            Way::Refuse(outcome) => {
                self.refuse(outcome.reason);
                report.tell(outcome);
            }
            Way::Challenge(permit, rules) => {
                let answering: Boxed<'_, _> = Box::pin(self.answer(permit, rules, hello));
                report.tell(answering.await);
            }
            Way::Pass(server, identifier) => {
                let passing: Boxed<'_, _> = Box::pin(self.pass(server, hello));
                let outcome = Outcome {
                    identifier,
                    ..Reason::Passed.into()
                };
                report.tell(outcome.but(passing.await));
            }
        }
    }

    /// Reads until the hello is judged, or its time is over; what was read comes with it.
    async fn read(&self, mut bytes: Vec<u8>) -> (Way, Vec<u8>) {
        loop {
            match client_hello::parse(&bytes) {
                Parsed::NeedMore => {}
                Parsed::Refused(reason) => return (Way::Refuse(reason.into()), bytes),
                Parsed::Complete(hello) => {
                    let way = self.decide(&hello.hello());
                    return (way, bytes);
                }
            }
            if let Err(reason) = receive(self.stream, &mut bytes, self.hello_deadline).await {
                return (Way::Refuse(reason.into()), bytes);
            }
        }
    }

    fn decide(&self, hello: &Hello<'_>) -> Way {
        let (rules, windows) = (self.front.rules(), self.front.windows());
        let admission = match self.arrival.admission {
            Ok(admission) => admission,
            Err(reason) => return Way::Refuse(reason.into()),
        };
        match rules.gate.decide_tls(hello, admission, &windows, now()) {
            TlsDecision::Challenge(permit) => Way::Challenge(permit, rules),
            TlsDecision::Pass { site, identifier } => Way::Pass(rules.servers.of(site), identifier),
            TlsDecision::Refuse { reason, identifier } => Way::Refuse(Outcome {
                identifier,
                ..reason.into()
            }),
        }
    }

    /// Leads a validation to whoever answers it.
    async fn answer(&self, permit: TlsPermit, rules: Arc<Rules>, hello: Vec<u8>) -> Outcome {
        let mut outcome = Outcome {
            identifier: Some(permit.identifier().clone()),
            validation: Some(Box::new((&permit).into())),
            ..Reason::Answered.into()
        };
        let done = match rules.responder.recall_tls(&permit, now()) {
            Err(reason) => Err((reason, None)),
            Ok(TlsResponder::Upstream(server)) => {
                outcome.reason = Reason::Relayed;
                match connect(server.address, &mut Vec::new()).await {
                    Err(failed) => Err(failed),
                    Ok(upstream) => {
                        drop(rules);
                        let header = self.proxy_header(server);
                        let stream = self.stream;
                        let ended = relay_handshake(stream, &upstream, &header, &hello, self.last);
                        return outcome.but(ended.await);
                    }
                }
            }
            Ok(TlsResponder::Certificate(answer)) => {
                outcome.validation = Some(Box::new((&answer).into()));
                match rules.gate.vouch_tls(&permit, answer) {
                    Err(reason) => Err((reason, None)),
                    Ok(vouched) => {
                        drop(rules);
                        let ended = respond(self.stream, &hello, &vouched, self.last).await;
                        return outcome.but(ended);
                    }
                }
            }
        };
        if let Err((reason, _)) = &done {
            self.refuse(*reason);
        }
        outcome.but(done)
    }

    /// Leads a visitor to the site's server, until one of them has enough.
    async fn pass(&self, server: Option<Server>, hello: Vec<u8>) -> Result<(), Failure> {
        let mut first = server.map_or_else(Vec::new, |server| self.proxy_header(server));
        first.extend(hello);
        let connected = match server {
            Some(server) => connect(server.address, &mut first).await,
            None => Err((Reason::NoServer, None)),
        };
        let upstream = match connected {
            Ok(upstream) => upstream,
            Err((reason, detail)) => {
                self.refuse(reason);
                return Err((reason, detail));
            }
        };
        let idle = self.front.rules().settings.idle_timeout;
        relay(self.stream, &upstream, first, idle, &self.front.pipes).await;
        Ok(())
    }

    /// What a server that wants to know hears of the peer before anything else.
    fn proxy_header(&self, server: Server) -> Vec<u8> {
        let Some(version) = server.proxy_protocol else {
            return Vec::new();
        };
        let (source, destination) = (self.stream.peer_addr(), self.stream.local_addr());
        proxy_protocol::write(version, &self.arrival.ends(source.ok(), destination.ok()))
    }

    /// Says as little as is configured; whoever is refused has had no octet of the site's.
    fn refuse(&self, reason: Reason) {
        if self.front.rules().settings.refusal == Refusal::Alert
            && let Some(description) = alert(reason)
        {
            // Not by the reactor, which may not know this socket yet. A fresh connection takes seven
            // octets, or its peer is not there to read them.
            let alert = [21, 3, 3, 0, 2, 2, description];
            let _ = send(self.stream, &alert, SendFlags::NOSIGNAL);
            let _ = shutdown(self.stream, Shutdown::Write);
        }
    }
}

impl Outcome {
    /// As it would be, unless it failed.
    fn but(self, done: Result<(), Failure>) -> Self {
        match done {
            Ok(()) => self,
            Err((reason, detail)) => Self {
                reason,
                detail,
                ..self
            },
        }
    }
}

/// The alert that says most nearly why (RFC 8446 §6.2); `None` where no TLS is spoken.
fn alert(reason: Reason) -> Option<u8> {
    Some(match reason {
        Reason::MalformedHello | Reason::HelloTooLarge => 50,
        Reason::UnknownHost
        | Reason::NoServer
        | Reason::NoServerName
        | Reason::MalformedServerName => 112,
        Reason::UpstreamGone | Reason::UpstreamSlow => 80,
        Reason::NotTls | Reason::HelloTimeout | Reason::PeerGone => return None,
        // access_denied
        _ => 49,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<F>(_: fn(Connection) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn a_held_connection_stays_small() {
        let bytes = size_of_output(Connection::run);
        println!("{bytes} octets");
        assert!(bytes <= 768, "{bytes} octets per held connection");
    }
}
