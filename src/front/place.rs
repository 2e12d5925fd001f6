//! A place among the held connections: counted, registered with the reactor, and with the patience that
//! its peer gets. What it never does: keep a place for a connection that could not be registered.

use std::net::TcpStream as StdStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::net::TcpStream;

use super::arrival::Arrival;
use super::report::{Outcome, Report};
use super::sources::Ticket;
use super::{Settings, Speaks};
use crate::gate::Reason;

/// How long a head or hello may take while three quarters of all places are taken: a lost segment is
/// sent again after one second (RFC 6298 §2), and whoever holds places for fun should not hold them long.
const PRESSED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a balancer may take at least to say for whom it is: its authors ask receivers to wait for
/// three seconds or more, so that one lost segment can be sent again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// What a held connection has.
pub(super) struct Place {
    pub(super) stream: TcpStream,
    /// Held for as long as the connection is.
    pub(super) ticket: Ticket,
    /// How long the peer may take, from the moment it came, until it is known what it wants.
    pub(super) patience: Duration,
}

impl Place {
    /// Takes a place for the connection and registers it with the reactor. `None` when no place is
    /// left for its source or at all, or the reactor cannot take it; that has been told then.
    pub(super) fn take(
        socket: OwnedFd,
        speaks: Speaks,
        report: &mut Report,
        arrival: &Arrival,
        settings: &Settings,
    ) -> Option<Self> {
        let source = arrival.source(speaks, settings);
        let (ticket, is_pressed) = match Ticket::take(&report.front, speaks, source, settings) {
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
        let usual = match speaks {
            Speaks::Http => settings.head_timeout,
            Speaks::Tls => settings.hello_timeout,
        };
        let patience = match is_pressed {
            true => usual.min(PRESSED_TIMEOUT),
            false => usual,
        };
        Some(Self {
            stream,
            ticket,
            patience: match arrival.owes_header {
                true => patience.max(HEADER_TIMEOUT),
                false => patience,
            },
        })
    }
}
