//! Whoever knocks from outside: a validating perspective, a visitor, a scanner.
//!
//! It sends the bytes that such peers send and reports what it saw, as a stranger would see it: it
//! knows nothing of the gate. Every wait has a deadline, every answer a size.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::doctor::namespaces::Netns;

/// More than any answer of the gate needs; a longer one is cut and then fails its comparison.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// What a TCP connection attempt met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Somebody listens, and the packet reached them.
    Connected,
    /// RST: the packet passed the firewall, and nobody listens.
    Refused,
    /// No answer in time: dropped.
    Silence,
    /// Anything else, which no step expects.
    Other(String),
}

impl fmt::Display for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Refused => "connection refused",
            Self::Silence => "no answer",
            Self::Other(error) => error,
        })
    }
}

/// Tries to connect to `to` from inside `netns`, for as long as `patience`.
pub async fn knock(netns: &Netns, to: SocketAddr, patience: Duration) -> Knock {
    match timeout(patience, connect(netns, to)).await {
        Err(_) => Knock::Silence,
        Ok(Ok(_)) => Knock::Connected,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Knock::Refused,
        Ok(Err(error)) => Knock::Other(error.to_string()),
    }
}

/// What came back over one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub location: Option<String>,
    pub body: Vec<u8>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(location) = &self.location {
            write!(f, ", Location: {}", location.escape_debug())?;
        }
        let body = String::from_utf8_lossy(&self.body);
        let shown: String = body.chars().take(60).collect();
        write!(f, ", body \"{}\"", shown.escape_debug())
    }
}

/// Sends `request` from inside `netns` and reads until the other side closes.
///
/// # Errors
/// What went wrong, in words: no connection, no answer in time, or none that is HTTP.
pub async fn ask(
    netns: &Netns,
    to: SocketAddr,
    request: &str,
    patience: Duration,
) -> Result<Answer, String> {
    let exchange = async {
        let mut stream = connect(netns, to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream
            .take(MAX_ANSWER_BYTES)
            .read_to_end(&mut bytes)
            .await?;
        Ok::<_, io::Error>(bytes)
    };
    match timeout(patience, exchange).await {
        Err(_) => Err(format!("no answer within {patience:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(bytes)) => read_answer(&bytes),
    }
}

/// Connects to `to` from inside `netns`; the caller brings the deadline.
///
/// # Errors
/// connect(2)'s.
pub async fn connect(netns: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = netns.within(|| match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    })??;
    socket.connect(to).await
}

fn read_answer(bytes: &[u8]) -> Result<Answer, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => {
            return Err(format!(
                "closed after {} bytes, no whole answer",
                bytes.len()
            ));
        }
        Err(error) => return Err(format!("not HTTP: {error}")),
    };
    let location = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("location"))
        .map(|header| String::from_utf8_lossy(header.value).into_owned());
    Ok(Answer {
        status: response.code.unwrap_or_default(),
        location,
        body: bytes[head_bytes..].to_vec(),
    })
}

/// The request of a validating CA, byte for byte as Let's Encrypt's software sends it.
pub fn validation_request(identifier: &str, token: &str) -> String {
    format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\n\
         Host: {identifier}\r\n\
         User-Agent: Mozilla/5.0 (compatible; Let's Encrypt validation server; \
         +https://www.letsencrypt.org)\r\n\
         Accept: */*\r\n\
         Accept-Encoding: gzip\r\n\
         Connection: close\r\n\r\n"
    )
}

/// The request of a browser or a scanner, shortened to what matters.
pub fn visit_request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\nConnection: close\r\n\r\n")
}

/// Waits for all of them at once, on this thread, and keeps their order.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    let mut results: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (slot, result) in waiting.iter_mut().zip(&mut results) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
                *slot = None;
            }
        }
        if waiting.iter().all(Option::is_none) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_last_byte() {
        let answer = read_answer(b"HTTP/1.1 301 Moved\r\nLOCATION: https://a/\r\n\r\nbody\n");
        let expected = Answer {
            status: 301,
            location: Some("https://a/".to_owned()),
            body: b"body\n".to_vec(),
        };
        assert_eq!(answer, Ok(expected));
    }

    #[test]
    fn half_an_answer_is_none() {
        assert!(read_answer(b"HTTP/1.1 200 OK\r\nContent-Le").is_err());
        assert!(read_answer(b"SSH-2.0-x\r\n").is_err());
        assert!(read_answer(b"").is_err());
    }

    #[test]
    fn what_a_stranger_sent_is_shown_without_control_characters() {
        let answer = Answer {
            status: 200,
            location: Some("\u{1b}[2J".to_owned()),
            body: b"\x1b]0;x\x07".to_vec(),
        };
        assert!(!answer.to_string().contains(char::is_control));
    }

    #[tokio::test]
    async fn all_keeps_the_order() {
        let later = |ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            ms
        };
        assert_eq!(all([later(20), later(1), later(10)]).await, [20, 1, 10]);
    }
}
