//! Connects to a server further in.
//!
//! A server on this host or in the next rack has accepted by the time connect(2) returns, or soon
//! after. So the first bytes are sent at once, and only if the kernel does not take them yet is the
//! reactor asked to wait. What it never does: wait without a deadline.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, connect as begin, send, socket_with,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::Failure;
use crate::gate::Reason;

/// How long a server may take to accept: it is near, and a visitor's patience is short.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to `address` and sends of `first` what it takes at once; the rest stays there.
///
/// # Errors
/// [`Reason::UpstreamGone`] where it refuses, [`Reason::UpstreamSlow`] after five seconds.
pub(super) async fn connect(
    address: SocketAddr,
    first: &mut Vec<u8>,
) -> Result<TcpStream, Failure> {
    let gone = |error: io::Error| (Reason::UpstreamGone, Some(format!("{address}: {error}")));
    let (socket, is_connected) = start(address, first).map_err(|error| gone(error.into()))?;
    let stream = TcpStream::from_std(StdStream::from(socket)).map_err(gone)?;
    if is_connected {
        return Ok(stream);
    }
    match timeout(CONNECT_TIMEOUT, stream.writable()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(gone(error)),
        Err(_) => {
            let detail = format!("{address}: no connection in time");
            return Err((Reason::UpstreamSlow, Some(detail)));
        }
    }
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) | Err(error) => Err(gone(error)),
    }
}

fn start(address: SocketAddr, first: &mut Vec<u8>) -> Result<(OwnedFd, bool), Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match begin(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    // Before it is connected a socket takes nothing, not even nothing.
    match send(&socket, first, SendFlags::NOSIGNAL) {
        Ok(sent) => {
            first.drain(..sent);
            Ok((socket, true))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok((socket, false)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_taken_at_once_is_sent_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut first = b"hello".to_vec();
        let stream = connect(listener.local_addr().unwrap(), &mut first)
            .await
            .unwrap();
        stream.writable().await.unwrap();
        let sent = stream.try_write(&first).unwrap();
        assert_eq!(sent, first.len());
        drop(stream);
        let mut heard = String::new();
        let (mut server, _) = listener.accept().unwrap();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
    }

    #[tokio::test]
    async fn nothing_at_all_may_be_sent_first() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let stream = connect(listener.local_addr().unwrap(), &mut Vec::new()).await;
        stream.unwrap();
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (reason, detail) = connect(address, &mut Vec::new()).await.unwrap_err();
        assert_eq!(reason, Reason::UpstreamGone);
        assert_eq!(
            detail.unwrap(),
            format!("{address}: Connection refused (os error 111)")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_accept_is_slow() {
        // Its queue is full: the kernel answers no SYN beyond it.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        let (reason, waited) = loop {
            let begun = tokio::time::Instant::now();
            match connect(address, &mut Vec::new()).await {
                Ok(stream) => waiting.push(stream),
                Err((reason, _)) => break (reason, begun.elapsed()),
            }
            assert!(waiting.len() < 10, "the queue has no end");
        };
        assert_eq!((reason, waited.as_secs()), (Reason::UpstreamSlow, 5));
    }
}
