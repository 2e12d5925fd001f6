//! Sockets of netlink: two that are asked and answer at once, and one that hears of traced packets. All
//! are opened before the process is sealed; none ever waits.

use std::io;
use std::os::fd::OwnedFd;

use nlink::netlink::{Connection, Nftables};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::message::{Answer, answers, ask_for_counter, ask_for_elements};

/// `NFNLGRP_NFTRACE`.
const TRACE_GROUP: u32 = 9;
/// The largest piece of a dump that the kernel gives.
const PIECE_BYTES: usize = 32 * 1024;
/// As many datagrams are read at once; a traced packet makes one for each rule that it matches.
const MAX_TRACED: usize = 1024;

/// What a reader is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The elements of a set.
    Set(String),
    /// A counter.
    Counter(&'static str),
}

/// Reads several sets and counters in turn, piece by piece.
pub(super) struct Reader {
    socket: OwnedFd,
    wanted: Vec<Wanted>,
    /// The one that is being read.
    at: usize,
    /// The number of the question, while it is being answered.
    asked: Option<u32>,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One piece of what a reader reads.
#[derive(Debug)]
pub(super) enum Piece {
    /// Of this one, and whether it was the last of all.
    Of(Wanted, Vec<Answer>, bool),
    /// This one cannot be read; and whether it was the last of all.
    Refused(Wanted, io::Error, bool),
}

impl Reader {
    pub(super) fn of(wanted: Vec<Wanted>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::NETFILTER);
        Ok(Self {
            socket: socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?,
            wanted,
            at: 0,
            asked: None,
            sequence: 0,
            buffer: vec![0; PIECE_BYTES],
        })
    }

    /// Whether something is half read.
    pub(super) fn is_under_way(&self) -> bool {
        self.at > 0 || self.asked.is_some()
    }

    /// Reads on; after the last piece the next one is the first again.
    pub(super) fn read(&mut self) -> Piece {
        let wanted = self.wanted[self.at].clone();
        match self.piece(&wanted) {
            Ok(answers) => {
                // A counter is one message without an end.
                let is_end = |answer: &Answer| !matches!(answer, Answer::Element(_));
                let refusal = answers.iter().find_map(|answer| match answer {
                    Answer::Error(code) if *code != 0 => Some(*code),
                    _ => None,
                });
                let is_last = answers.iter().any(is_end) && self.go_on();
                match refusal {
                    Some(code) => {
                        Piece::Refused(wanted, io::Error::from_raw_os_error(code), is_last)
                    }
                    None => Piece::Of(wanted, answers, is_last),
                }
            }
            Err(error) => {
                let is_last = self.go_on();
                Piece::Refused(wanted, error, is_last)
            }
        }
    }

    /// The kernel makes each piece while the one before is read: one is always there.
    fn piece(&mut self, wanted: &Wanted) -> io::Result<Vec<Answer>> {
        let sequence = match self.asked {
            Some(sequence) => sequence,
            None => {
                self.sequence = self.sequence.wrapping_add(1);
                let question = match wanted {
                    Wanted::Set(set) => ask_for_elements(set, self.sequence),
                    Wanted::Counter(name) => ask_for_counter(name, self.sequence),
                };
                send(&self.socket, &question, SendFlags::empty())?;
                *self.asked.insert(self.sequence)
            }
        };
        let (piece, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT)?;
        Ok(answers(&self.buffer[..piece], sequence))
    }

    /// On to the next one; `true` after the last.
    fn go_on(&mut self) -> bool {
        self.asked = None;
        self.at = (self.at + 1) % self.wanted.len();
        self.at == 0
    }
}

/// Hears of traced packets, whoever traces them.
pub struct Tracing(Connection<Nftables>);

impl Tracing {
    /// Hears from now on.
    ///
    /// # Errors
    /// Whatever netlink answers: without CAP_NET_ADMIN nobody hears.
    pub fn subscribe() -> nlink::Result<Self> {
        let connection = Connection::<Nftables>::new()?;
        connection.socket().add_membership(TRACE_GROUP)?;
        Ok(Self(connection))
    }

    /// What waits, at most so much that somebody who traces everything keeps nobody waiting here.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        for _ in 0..MAX_TRACED {
            match self.0.socket().try_recv_msg() {
                Ok(Some(datagram)) => heard.push(datagram),
                Ok(None) => break,
                // ENOBUFS: more was traced than fits. What is lost is lost.
                Err(_) => {}
            }
        }
        heard
    }
}
