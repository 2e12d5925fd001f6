//! Pipes for splice(2): what moves bytes from socket to socket without copying them.
//!
//! What it is for: lending a pipe to whoever has bytes to move now, from a stock with a bound. What
//! it never does: lend a pipe that may still hold somebody's bytes; such a pipe is closed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::locked::locked;

/// How much one pipe holds. Four times the kernel's own measure: a call moves as much as a socket's
/// buffer usually holds.
pub(super) const PIPE_BYTES: usize = 256 * 1024;
/// How many pipes there are at most. An unprivileged user may have 64 MiB of them in all
/// (`fs.pipe-user-pages-soft`, 16,384 pages; pipe(7)); half of that leaves room for a successor
/// that starts while we drain.
const MAX_PIPES: usize = 128;

/// The stock.
pub(super) struct Pipes {
    max: usize,
    stock: Mutex<Stock>,
}

#[derive(Default)]
struct Stock {
    /// Empty pipes that nobody uses.
    idle: Vec<Ends>,
    /// How many there are, lent ones included.
    open: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// No pipe can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPipe {
    /// All are lent; one may come back at any time.
    AllLent,
    /// The system gives none, or none of that size.
    Refused,
}

impl Pipes {
    /// How many descriptors all pipes of a stock take.
    pub(super) const MAX_DESCRIPTORS: usize = 2 * MAX_PIPES;

    /// An empty stock of [`PIPE_BYTES`] each. No pipe is made before one is needed.
    pub(super) fn new() -> Self {
        Self::with_max(MAX_PIPES)
    }

    /// The same with another bound.
    pub(super) fn with_max(max: usize) -> Self {
        Self {
            max,
            stock: Mutex::default(),
        }
    }

    /// Lends an empty pipe.
    ///
    /// # Errors
    /// [`NoPipe`]: then the bytes have to be copied.
    pub(super) fn lend(&self) -> Result<Pipe<'_>, NoPipe> {
        let mut stock = self.stock();
        let ends = match stock.idle.pop() {
            Some(ends) => ends,
            None if stock.open >= self.max => return Err(NoPipe::AllLent),
            None => {
                let ends = open().map_err(|_| NoPipe::Refused)?;
                stock.open += 1;
                ends
            }
        };
        Ok(Pipe {
            ends: Some(ends),
            held: 0,
            expects_more: false,
            pipes: self,
        })
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        locked(&self.stock)
    }
}

fn open() -> io::Result<Ends> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Beyond the user's share this fails, and the pipe itself has two pages or one.
    fcntl_setpipe_size(&write, PIPE_BYTES)?;
    Ok(Ends { read, write })
}

/// A pipe on loan. It goes back to the stock when it is dropped empty; with bytes in it, it is
/// closed.
pub(super) struct Pipe<'a> {
    /// Present until it is dropped.
    ends: Option<Ends>,
    held: usize,
    expects_more: bool,
    pipes: &'a Pipes,
}

impl Pipe<'_> {
    /// How many octets are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what `from` has into the pipe, which must be empty: so would-block can only mean that
    /// nothing has come. Zero octets are its end.
    pub(super) fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        debug_assert_eq!(self.held, 0);
        let Some(ends) = &self.ends else { return Ok(0) };
        let moved = from.try_io(Interest::READABLE, || {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            Ok(splice(from, None, &ends.write, None, PIPE_BYTES, flags)?)
        })?;
        self.held += moved;
        self.expects_more = moved >= PIPE_BYTES / 2;
        Ok(moved)
    }

    /// Whether so much came at once that more is likely to follow. Then what is drained is marked so
    /// for the kernel, which holds the last incomplete segment back, for 200 ms at most: a sixth less
    /// work where more follows, and where it does not, setting TCP_NODELAY anew pushes it out.
    pub(super) fn expects_more(&self) -> bool {
        self.expects_more
    }

    /// Moves what it holds on to `to`, as far as that takes it.
    pub(super) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let more = match self.expects_more {
            true => SpliceFlags::MORE,
            false => SpliceFlags::empty(),
        };
        let moved = to.try_io(Interest::WRITABLE, || {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK | more;
            Ok(splice(&ends.read, None, to, None, self.held, flags)?)
        })?;
        self.held -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        let ends = self.ends.take();
        let mut stock = self.pipes.stock();
        match ends {
            Some(ends) if self.held == 0 => stock.idle.push(ends),
            _ => stock.open -= 1,
        }
    }
}

#[cfg(test)]
impl Pipes {
    /// How many are open, and how many of them nobody uses.
    pub(super) fn count(&self) -> (usize, usize) {
        let stock = self.stock();
        (stock.open, stock.idle.len())
    }
}
