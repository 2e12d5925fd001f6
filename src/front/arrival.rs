//! Who came, and what let it in: as the kernel has it first, and as a balancer or a reverse proxy
//! tells once its word is there.
//!
//! What it never does: carry over what let the teller in. Whom a header or a field names is admitted
//! anew, as if it had come by itself; a window that is bound to one address of this host admits
//! nobody that way, because the address that the real peer reached is the balancer's.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::{Rules, Settings, Speaks};
use crate::gate::event::Ends;
use crate::gate::window::Windows;
use crate::gate::{Admission, Peer, Reason};

/// One peer that wants to be heard.
pub(super) struct Arrival {
    pub(super) peer: Peer,
    /// What let it in, or why nothing did.
    pub(super) admission: Result<Admission, Reason>,
    /// It must begin by the PROXY protocol, and has not yet.
    pub(super) owes_header: bool,
    /// What it told by the PROXY protocol.
    ends: Option<Box<Ends>>,
}

impl Arrival {
    /// A peer as the kernel has it.
    pub(super) fn new(peer: Peer, rules: &Rules, windows: &Windows, now: Instant) -> Self {
        Self {
            peer,
            admission: rules.gate.admit(peer, windows, now),
            owes_header: rules.settings.protocol_from.contains(peer.address),
            ends: None,
        }
    }

    /// Whom a whole header tells.
    pub(super) fn announced(
        &self,
        ends: Option<Ends>,
        rules: &Rules,
        windows: &Windows,
        now: Instant,
    ) -> Self {
        let peer = match ends {
            Some(ends) => self.behind(ends.source.ip()),
            None => self.peer,
        };
        Self {
            peer,
            admission: rules.gate.admit(peer, windows, now),
            owes_header: false,
            ends: ends.map(Box::new),
        }
    }

    /// Whom the fields of its request tell.
    pub(super) fn forwarded(
        &self,
        address: IpAddr,
        rules: &Rules,
        windows: &Windows,
        now: Instant,
    ) -> Self {
        let peer = self.behind(address);
        Self {
            peer,
            admission: rules.gate.admit(peer, windows, now),
            owes_header: false,
            ends: self.ends.clone(),
        }
    }

    fn behind(&self, address: IpAddr) -> Peer {
        Peer {
            address,
            local_port: self.peer.local_port,
            local_address: None,
        }
    }

    /// Whether the fields of its request tell whom it is for.
    pub(super) fn owes_fields(&self, settings: &Settings) -> bool {
        settings.headers_from.contains(self.peer.address)
    }

    /// Whose share of the connections it takes: nobody's, while it speaks for somebody unknown. TLS
    /// has no fields that would tell.
    pub(super) fn source(&self, speaks: Speaks, settings: &Settings) -> Option<IpAddr> {
        let owes_fields = speaks == Speaks::Http && self.owes_fields(settings);
        let is_told = !self.owes_header && !owes_fields;
        is_told.then_some(self.peer.address)
    }

    /// The ends of its connection, given those of the socket as far as they are known.
    pub(super) fn ends(&self, source: Option<SocketAddr>, destination: Option<SocketAddr>) -> Ends {
        let told = self.ends.as_deref();
        let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let source = told.map(|ends| ends.source).or(source.map(canonical));
        let destination = told
            .map(|ends| ends.destination)
            .or(destination.map(canonical));
        let here = match self.peer.address {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        Ends {
            // Fields tell no port.
            source: source
                .filter(|source| source.ip() == self.peer.address)
                .unwrap_or(SocketAddr::new(self.peer.address, 0)),
            destination: destination.unwrap_or(SocketAddr::new(here, self.peer.local_port)),
        }
    }
}
