//! Where the front touches the world besides its sockets: the clocks and the buffer per thread.
//!
//! Everything further in gets `now` as an argument. A buffer per thread instead of one per
//! connection is what makes a held connection cheap: between two reads it keeps only the bytes of
//! its unfinished head.

use std::cell::RefCell;
use std::io;
use std::time::{Instant, SystemTime};

use super::head::MAX_HEAD_BYTES;
use super::http::Dates;

/// One read takes a whole head at least, so that what fills the buffer is always decided.
const BUFFER_BYTES: usize = 16 * 1024;
const _: () = assert!(BUFFER_BYTES >= MAX_HEAD_BYTES);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
    static DATES: RefCell<Dates> = RefCell::default();
}

/// Now, by tokio's clock, which tests can pause.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Lends the thread's buffer for one read and what follows from it at once.
pub(super) fn with_buffer<T>(use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

/// Lends the Date field of this second.
pub(super) fn with_date<T>(use_it: impl FnOnce(&str) -> T) -> T {
    #[expect(
        clippy::disallowed_methods,
        reason = "the Date field shows wall-clock time and decides nothing"
    )]
    let now = SystemTime::now();
    DATES.with_borrow_mut(|dates| use_it(dates.at(now)))
}

/// Whether a read or write failed only for now: to be tried again at once, or when the reactor says so.
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
