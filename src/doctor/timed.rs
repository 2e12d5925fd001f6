//! A connection with one deadline for all that is done with it: whoever answers octet by octet gains no time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A stream that blocks until its deadline at the latest.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) stream: TcpStream,
    pub(super) deadline: Instant,
}

/// What is left until a deadline, never nothing.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`]: it has passed.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn whoever_answers_octet_by_octet_gains_no_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // It goes on until nobody reads any more.
        let slow = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (_stop, never) = std::sync::mpsc::channel::<()>();
            while stream.write_all(b"x").is_ok() {
                let _ = never.recv_timeout(Duration::from_millis(20));
            }
        });
        let stream = TcpStream::connect(address).unwrap();
        let began = Instant::now();
        let mut timed = Timed {
            stream,
            deadline: began + Duration::from_millis(300),
        };
        let mut heard = Vec::new();
        let error = timed.read_to_end(&mut heard).unwrap_err();
        let kinds = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(kinds.contains(&error.kind()), "{error}");
        assert!(heard.len() > 1, "it kept on answering: {heard:?}");
        assert!(began.elapsed() >= Duration::from_millis(300));
        drop(timed);
        slow.join().unwrap();
    }
}
