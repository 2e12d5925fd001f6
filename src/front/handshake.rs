//! A TLS handshake as it looks from outside: which records may pass between a peer and a responder
//! so that the handshake passes and nothing else ever does.
//!
//! What it is for: an upstream that answers validations should be an ACME client's responder, but
//! the configuration may name a web server by mistake, and many of those complete a handshake that
//! offers `acme-tls/1` alone and then serve HTTP. Types and lengths of records are in clear in
//! every version (RFC 8446 §5.1, RFC 5246 §6.2.1), and that is enough: a validation ends with the
//! handshake, after which both sides have nothing to say (RFC 8737 §3). What it never does: hold a
//! key, wait, or pass a record before all of it has been judged.
//!
//! In TLS 1.3 encrypted records look alike. Of the peer's, one passes that has exactly the size of
//! a Finished, then one of the size of an alert; of the server's, none after the peer's Finished. So
//! no request reaches a server that could still answer it. In TLS 1.2 types stay in clear, and
//! application data never passes.
//!
//! One thing cannot be told: what a server of TLS 1.3 says unasked, right behind its own Finished
//! and before it has heard the peer's, looks like more of its handshake. No responder does that and
//! hardly a web server; of one that does, and is named by mistake, a greeting passes.

mod server_hello;

use std::fmt;

use self::server_hello::{ServerHello, Suite};
use super::client_hello::{self, MAX_HELLO_BYTES, Parsed};
use super::octets::{CLIENT_HELLO, HANDSHAKE, RECORD_HEADER_BYTES};
use crate::gate::Reason;

/// What the peer may send after its hello, records' headers included. In TLS 1.2 a key exchange
/// (516 octets with RSA of 4096 bits), in TLS 1.3 a Finished; the rest is room.
const MAX_PEER_BYTES: usize = 4 * 1024;
/// What the server may send until the peer's Finished: a self-signed certificate makes one or two
/// KiB of it.
const MAX_SERVER_BYTES: usize = 16 * 1024;
/// The largest payload of a record (RFC 5246 §6.2.3 has 1,024 more, which nobody needs).
const MAX_PAYLOAD_BYTES: usize = (1 << 14) + 256;
/// The largest encrypted alert or Finished of TLS 1.2: twelve octets or two, and what CBC with
/// SHA-384 and padding adds, or a nonce and a tag.
const MAX_SMALL_BYTES: usize = 128;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// Why a handshake goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misstep {
    /// [`Reason::NotHandshake`] for what the peer did, [`Reason::HandshakeFailed`] for the server.
    pub reason: Reason,
    /// What exactly.
    pub detail: &'static str,
}

/// Who sent an alert before the handshake was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alerted {
    /// The peer.
    Peer(Option<u8>),
    /// The server.
    Server(Option<u8>),
}

impl fmt::Display for Alerted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, description) = match self {
            Self::Peer(description) => ("the peer", description),
            Self::Server(description) => ("the responder", description),
        };
        match description {
            Some(number) => write!(f, "{who} ended it with alert {number}"),
            None => write!(f, "{who} ended it with an encrypted alert"),
        }
    }
}

/// One handshake, between the bytes of both sides.
#[derive(Debug, Default)]
pub struct Handshake {
    peer: Side,
    server: Side,
    hello: Hello,
    /// The first ClientHello, until it is known that there is no second one.
    first: Vec<u8>,
    /// The second ClientHello so far, as records.
    second: Vec<u8>,
    protocol: Protocol,
    alerted: Option<Alerted>,
}

#[derive(Debug, Default)]
struct Side {
    /// A record of which not everything is there.
    partial: Vec<u8>,
    /// What has passed, the ClientHello apart.
    passed: usize,
    has_changed_cipher: bool,
    has_finished: bool,
    has_alerted: bool,
}

/// The ClientHello so far.
#[derive(Debug, Default)]
struct Hello {
    /// The first four octets of the message: its type and length.
    head: Vec<u8>,
    octets: usize,
    is_whole: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocol {
    /// The server has not said.
    #[default]
    Open,
    Tls12,
    /// The server wants another ClientHello; whether it has got that one.
    Retry {
        suite: Suite,
        is_answered: bool,
    },
    Tls13 {
        suite: Suite,
    },
}

/// What becomes of a record that is not refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
}

fn not_handshake<T>(detail: &'static str) -> Result<T, Misstep> {
    Err(Misstep {
        reason: Reason::NotHandshake,
        detail,
    })
}

fn failed<T>(detail: &'static str) -> Result<T, Misstep> {
    Err(Misstep {
        reason: Reason::HandshakeFailed,
        detail,
    })
}

impl Handshake {
    /// Nothing has been said.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes of the peer, the ClientHello first, and appends to `pass` those for the server.
    ///
    /// # Errors
    /// What nobody sends who only wants a handshake. Both connections are to be closed then.
    pub fn hear_peer(&mut self, bytes: &[u8], pass: &mut Vec<u8>) -> Result<(), Misstep> {
        let mut partial = std::mem::take(&mut self.peer.partial);
        partial.extend_from_slice(bytes);
        let mut rest = partial.as_slice();
        while let Some((kind, length)) = header(rest) {
            let Some(length) = length else {
                return not_handshake("not a TLS record");
            };
            if self.hello.is_whole && RECORD_HEADER_BYTES + length > self.peer_budget() {
                return not_handshake("more than the messages of a handshake");
            }
            let Some((record, behind)) = rest.split_at_checked(RECORD_HEADER_BYTES + length) else {
                break;
            };
            let was_hello = !self.hello.is_whole;
            self.judge_peer(kind, &record[RECORD_HEADER_BYTES..])?;
            match was_hello {
                true => self.first.extend_from_slice(record),
                false => self.peer.passed += record.len(),
            }
            match self.protocol {
                Protocol::Retry { suite, .. } if kind == HANDSHAKE => {
                    self.hear_again(record, suite, pass)?;
                }
                _ => pass.extend_from_slice(record),
            }
            rest = behind;
        }
        self.peer.partial = rest.to_vec();
        Ok(())
    }

    /// Takes bytes of the server and appends to `pass` those for the peer. Once the handshake is
    /// complete the rest, session tickets as well as data, is thrown away.
    ///
    /// # Errors
    /// What no responder sends. Both connections are to be closed then.
    pub fn hear_server(&mut self, bytes: &[u8], pass: &mut Vec<u8>) -> Result<(), Misstep> {
        let mut partial = std::mem::take(&mut self.server.partial);
        partial.extend_from_slice(bytes);
        let mut rest = partial.as_slice();
        while let Some((kind, length)) = header(rest) {
            // Here the order of things matters to nobody any more.
            let Some(length) = length else {
                return failed("the responder does not speak TLS");
            };
            let Some((record, behind)) = rest.split_at_checked(RECORD_HEADER_BYTES + length) else {
                break;
            };
            if self.judge_server(kind, &record[RECORD_HEADER_BYTES..])? == Fate::Pass {
                self.server.passed += record.len();
                if self.server.passed > MAX_SERVER_BYTES {
                    return failed("the responder sent more than 16 KiB");
                }
                pass.extend_from_slice(record);
            }
            rest = behind;
        }
        self.server.partial = rest.to_vec();
        Ok(())
    }

    /// Takes a record of the second ClientHello, and lets it pass once it is whole. It was asked for to
    /// have another key share (RFC 8446 §4.1.2), but there are servers that would believe it if it
    /// asked for another name, or offered another protocol, than what the gate has decided on.
    fn hear_again(
        &mut self,
        record: &[u8],
        suite: Suite,
        pass: &mut Vec<u8>,
    ) -> Result<(), Misstep> {
        self.second.extend_from_slice(record);
        match (
            client_hello::parse(&self.first),
            client_hello::parse(&self.second),
        ) {
            (_, Parsed::NeedMore) => Ok(()),
            (Parsed::Complete(first), Parsed::Complete(second))
                if first.hello() == second.hello() =>
            {
                pass.append(&mut self.second);
                self.protocol = Protocol::Retry {
                    suite,
                    is_answered: true,
                };
                Ok(())
            }
            _ => not_handshake("a second ClientHello that is not as the first"),
        }
    }

    /// Whether both sides' Finished have passed; of TLS 1.3 the peer's comes last and stands for
    /// both.
    pub fn is_complete(&self) -> bool {
        match self.protocol {
            Protocol::Tls13 { .. } => self.peer.has_finished,
            _ => self.peer.has_finished && self.server.has_finished,
        }
    }

    /// Whether the server has said anything that passed.
    pub fn has_server_spoken(&self) -> bool {
        self.server.passed > 0
    }

    /// Who gave the handshake up, if somebody did and said so.
    pub fn alerted(&self) -> Option<Alerted> {
        self.alerted
    }

    fn peer_budget(&self) -> usize {
        let second_hello = match self.protocol {
            Protocol::Retry { .. } => self.hello.octets,
            _ => 0,
        };
        (MAX_PEER_BYTES + second_hello).saturating_sub(self.peer.passed)
    }

    fn judge_peer(&mut self, kind: u8, payload: &[u8]) -> Result<(), Misstep> {
        if !self.hello.is_whole {
            return self.hello.take(kind, payload);
        }
        if self.peer.has_alerted && kind != ALERT {
            return not_handshake("a record after the peer's alert");
        }
        // RFC 8446 §5.1 has no other record amid a message; and what passes would overtake the part that waits.
        if !self.second.is_empty() && kind != HANDSHAKE {
            return not_handshake("a record amid the second ClientHello");
        }
        match (kind, self.protocol) {
            (ALERT, _) => self.judge_clear_alert(payload),
            (_, Protocol::Open) => not_handshake("a record before the server's answer"),
            (CHANGE_CIPHER_SPEC, _) if payload != [1] => {
                not_handshake("a ChangeCipherSpec that is none")
            }
            (CHANGE_CIPHER_SPEC, Protocol::Tls12) => {
                if std::mem::replace(&mut self.peer.has_changed_cipher, true) {
                    return not_handshake("a second ChangeCipherSpec");
                }
                Ok(())
            }
            // RFC 8446 §D.4: for old middleboxes; it means nothing.
            (CHANGE_CIPHER_SPEC, _) if self.peer.has_finished => {
                not_handshake("a record after the peer's Finished")
            }
            (CHANGE_CIPHER_SPEC, _) => Ok(()),
            (HANDSHAKE, Protocol::Retry { is_answered, .. }) => match is_answered {
                true => not_handshake("a third ClientHello"),
                false => Ok(()),
            },
            (HANDSHAKE, Protocol::Tls12) => self.peer.judge_tls12_handshake(
                payload,
                Misstep {
                    reason: Reason::NotHandshake,
                    detail: "a second handshake",
                },
            ),
            (HANDSHAKE, Protocol::Tls13 { .. }) => {
                not_handshake("a handshake in clear after the server's answer")
            }
            (APPLICATION_DATA, Protocol::Tls13 { suite }) => {
                self.judge_encrypted(suite, payload.len())
            }
            (APPLICATION_DATA, _) => not_handshake("application data"),
            _ => not_handshake("a record of another kind"),
        }
    }

    /// An alert whose type is in clear; in TLS 1.2 it may be encrypted for all that.
    fn judge_clear_alert(&mut self, payload: &[u8]) -> Result<(), Misstep> {
        let is_encrypted = self.peer.has_changed_cipher;
        let fits = match is_encrypted {
            true => payload.len() <= MAX_SMALL_BYTES,
            false => payload.len() == 2,
        };
        // In TLS 1.3 the peer's alerts are encrypted once it has finished.
        let is_late = matches!(self.protocol, Protocol::Tls13 { .. }) && self.peer.has_finished;
        if !fits || is_late {
            return not_handshake("an alert that is none");
        }
        let description = payload.last().copied().filter(|_| !is_encrypted);
        self.peer.has_alerted = true;
        self.note(Alerted::Peer(description));
        Ok(())
    }

    /// A record of TLS 1.3 of which only the length can be seen.
    fn judge_encrypted(&mut self, suite: Suite, length: usize) -> Result<(), Misstep> {
        if length == suite.finished_bytes && !self.peer.has_finished {
            self.peer.has_finished = true;
            return Ok(());
        }
        // Two octets of data look like an alert, so there may be but one.
        if length == suite.alert_bytes {
            self.peer.has_alerted = true;
            self.note(Alerted::Peer(None));
            return Ok(());
        }
        not_handshake("application data, or something of its looks")
    }

    fn judge_server(&mut self, kind: u8, payload: &[u8]) -> Result<Fate, Misstep> {
        if !self.hello.is_whole {
            return failed("the responder spoke first");
        }
        if self.is_complete() {
            return Ok(match (kind, self.protocol) {
                (ALERT, Protocol::Tls12) if payload.len() <= MAX_SMALL_BYTES => Fate::Pass,
                _ => Fate::Drop,
            });
        }
        match (kind, self.protocol) {
            (ALERT, _) => {
                let is_clear = !self.server.has_changed_cipher && payload.len() == 2;
                let description = payload.last().copied().filter(|_| is_clear);
                self.note(Alerted::Server(description));
            }
            (HANDSHAKE, Protocol::Open | Protocol::Retry { .. }) => self.answer(payload)?,
            (_, Protocol::Open) => return failed("the responder did not begin with a ServerHello"),
            (CHANGE_CIPHER_SPEC, _) if payload != [1] => {
                return failed("the responder sent a ChangeCipherSpec that is none");
            }
            (CHANGE_CIPHER_SPEC, Protocol::Tls12) => {
                if std::mem::replace(&mut self.server.has_changed_cipher, true) {
                    return failed("the responder sent a second ChangeCipherSpec");
                }
            }
            (CHANGE_CIPHER_SPEC, _) => {}
            (HANDSHAKE, Protocol::Tls12) => self.server.judge_tls12_handshake(
                payload,
                Misstep {
                    reason: Reason::HandshakeFailed,
                    detail: "the responder began a second handshake",
                },
            )?,
            // Its part of the handshake; what more there may be was asked for by nobody.
            (APPLICATION_DATA, Protocol::Tls13 { .. }) => {}
            _ => return failed("the responder sent more than a handshake"),
        }
        Ok(Fate::Pass)
    }

    /// Takes a ServerHello, of which RFC 8446 §5.1 wants nothing behind in the same record.
    fn answer(&mut self, payload: &[u8]) -> Result<(), Misstep> {
        let Some(hello) = ServerHello::parse(payload) else {
            return failed("the responder's ServerHello is malformed, or older than TLS 1.2");
        };
        if !hello.is_tls13 {
            if self.protocol != Protocol::Open {
                return failed("the responder changed its version");
            }
            self.protocol = Protocol::Tls12;
            self.first = Vec::new();
            return Ok(());
        }
        let Some(suite) = Suite::new(hello.suite).filter(|_| hello.length == payload.len()) else {
            return failed("the responder's ServerHello is not as TLS 1.3 has it");
        };
        self.protocol = match (self.protocol, hello.is_retry) {
            (Protocol::Open, true) => Protocol::Retry {
                suite,
                is_answered: false,
            },
            (
                Protocol::Retry {
                    suite: first,
                    is_answered: true,
                },
                false,
            ) if first == suite => Protocol::Tls13 { suite },
            (Protocol::Open, false) => Protocol::Tls13 { suite },
            _ => return failed("the responder changed its mind"),
        };
        if !hello.is_retry {
            self.first = Vec::new();
        }
        Ok(())
    }

    fn note(&mut self, alerted: Alerted) {
        if !self.is_complete() && self.alerted.is_none() {
            self.alerted = Some(alerted);
        }
    }
}

impl Side {
    /// In TLS 1.2: anything before the keys, then one message, Finished.
    fn judge_tls12_handshake(&mut self, payload: &[u8], second: Misstep) -> Result<(), Misstep> {
        if self.has_changed_cipher {
            if self.has_finished || payload.len() > MAX_SMALL_BYTES {
                return Err(second);
            }
            self.has_finished = true;
        }
        Ok(())
    }
}

impl Hello {
    fn take(&mut self, kind: u8, payload: &[u8]) -> Result<(), Misstep> {
        if kind != HANDSHAKE {
            return not_handshake("no ClientHello");
        }
        let missing = 4usize.saturating_sub(self.head.len());
        self.head
            .extend_from_slice(&payload[..missing.min(payload.len())]);
        self.octets += payload.len();
        let [message, length @ ..] = self.head.as_slice() else {
            return Ok(());
        };
        if *message != CLIENT_HELLO {
            return not_handshake("no ClientHello");
        }
        let &[high, middle, low] = length else {
            return Ok(());
        };
        let length = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > MAX_HELLO_BYTES || self.octets > length {
            return not_handshake("more than a ClientHello");
        }
        self.is_whole = self.octets == length;
        Ok(())
    }
}

/// The type of the record that begins here and the length of its payload; `None` while that is not
/// there, and no length for what no record has.
fn header(bytes: &[u8]) -> Option<(u8, Option<usize>)> {
    let &[kind, major, _, high, low, ..] = bytes else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_fit = major == 3 && (1..=MAX_PAYLOAD_BYTES).contains(&length);
    Some((kind, is_fit.then_some(length)))
}

#[cfg(test)]
mod tests;
